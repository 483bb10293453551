#include "store.h"

#include "hal.h"

enum { MAGIC_AT = 0, ERASED = 0xFF };

bool store_load(struct store *store, struct config *config)
{
    for (uint8_t at = 0; at < RECORD_BYTES; at++)
        store->record[at] = hal_eeprom_read(at);
    bool valid = config_load(config, store->record);
    store->state = valid ? STORE_KEPT : STORE_NONE;
    return valid;
}

void store_keep(struct store *store, const struct config *config)
{
    uint8_t record[RECORD_BYTES];
    bool same = store->state != STORE_NONE;
    config_save(config, record);
    for (uint8_t at = 0; at < RECORD_BYTES; at++) {
        same = same && record[at] == store->record[at];
        store->record[at] = record[at];
    }
    if (same)
        return;
    store->step = 0;
    store->state = STORE_WRITING;
}

static bool read_back(const struct store *store)
{
    for (uint8_t at = 0; at < RECORD_BYTES; at++)
        if (hal_eeprom_read(at) != store->record[at])
            return false;
    return true;
}

bool store_step(struct store *store)
{
    if (store->state != STORE_WRITING || !hal_eeprom_ready())
        return false;
    uint8_t step = store->step++;
    if (step == 0) {
        hal_eeprom_write(MAGIC_AT, ERASED); /* power lost from here on: no record, rather than half of each */
    } else if (step < RECORD_BYTES) {
        hal_eeprom_write(step, store->record[step]);
    } else if (step == RECORD_BYTES) {
        hal_eeprom_write(MAGIC_AT, store->record[MAGIC_AT]);
    } else {
        store->state = read_back(store) ? STORE_KEPT : STORE_NONE;
        return true;
    }
    return false;
}
