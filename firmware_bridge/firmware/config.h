/* What the outputs may do: neutral and limits of both channels, as the host calibrated them. */
#ifndef BRIDGE_CONFIG_H
#define BRIDGE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PULSE_MIN = 1000, /* 500 us in half microseconds: no servo or ESC takes less */
    PULSE_MAX = 5000, /* 2500 us */
    CONFIG_RADIO = 0x01,
    CONFIG_FIELDS_BYTES = 17, /* flags and eight u16, the same in CONFIG, in its echo and in EEPROM */
    RECORD_MAGIC = 0xB1,      /* changes when the record's layout does */
    RECORD_BYTES = 1 + CONFIG_FIELDS_BYTES + 2,
};

struct limits {
    uint16_t neutral, min, max; /* half microseconds */
};

struct config {
    uint8_t flags;
    struct limits steering, throttle;
    uint16_t steering_slew, throttle_slew; /* half microseconds per servo frame; 0: no limit */
};

bool config_valid(const struct config *config);
bool limits_allow(const struct limits *limits, uint16_t pulse);

void config_read(struct config *config, const uint8_t *fields);
uint8_t *config_write(const struct config *config, uint8_t *fields); /* returns where the next field goes */

/* The EEPROM record: magic, fields, CRC. config_load says whether it is whole and its values are valid. */
void config_save(const struct config *config, uint8_t *record);
bool config_load(struct config *config, const uint8_t *record);

#endif
