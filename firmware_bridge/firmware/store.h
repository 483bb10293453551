/* Keeps the config in EEPROM, one byte at a time: a byte takes 3.4 ms, and the main loop has a watchdog to feed. */
#ifndef BRIDGE_STORE_H
#define BRIDGE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"

enum store_state { STORE_NONE, STORE_KEPT, STORE_WRITING }; /* the values of `stored` in the echo */

struct store {
    uint8_t record[RECORD_BYTES];
    uint8_t step;
    uint8_t state; /* enum store_state, in one byte */
};

bool store_load(struct store *store, struct config *config); /* whether there is a valid one */
/* Begin to write it, unless it is what the EEPROM holds or is being written: its cells wear out. */
void store_keep(struct store *store, const struct config *config);
bool store_step(struct store *store); /* call it often; true when the writing has just ended, well or not */

#endif
