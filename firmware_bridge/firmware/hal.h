/* What the pure part asks of the chip. hal_avr.c is the ATmega328P, native/ a PC. */
#ifndef BRIDGE_HAL_H
#define BRIDGE_HAL_H

#include <stdbool.h>
#include <stdint.h>

bool hal_eeprom_ready(void); /* whether the last write is done; read and write only then */
uint8_t hal_eeprom_read(uint8_t at);
void hal_eeprom_write(uint8_t at, uint8_t byte); /* returns at once; a byte that is there already is not written */

#endif
