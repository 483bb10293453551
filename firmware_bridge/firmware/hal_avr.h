/* The registers of the ATmega328P at 16 MHz. Pins, as printed on a Nano: D9 steering, D10 throttle; receiver D2
 * steering, D3 throttle, D4 switch; serial line on the USB port. */
#ifndef BRIDGE_HAL_AVR_H
#define BRIDGE_HAL_AVR_H

#include "hal.h"
#include "state.h"

extern uint8_t hal_mcusr, hal_r2; /* as the program found them at its start */

void hal_start(void); /* timers, serial line, watchdog; interrupts are on afterwards */

bool hal_last_tick_of_frame(void);
void hal_write_pulses(struct pulses pulses); /* of the next frame; only from the timer interrupt */
uint16_t hal_frame_clock(void);              /* half microseconds of this frame; only from interrupts */

uint8_t hal_radio_pins(void);
void hal_listen_to_radio(bool on);

bool hal_receive(uint8_t *byte);
bool hal_sending(void);
void hal_send(const uint8_t *wire, uint8_t size); /* only when not sending */
uint16_t hal_overruns(void);                      /* with interrupts off */

uint16_t hal_supply_mv(void); /* of the measurement that the last call started; 0: none yet */
void hal_sleep_until_interrupt(void); /* at once back when a byte has been received */

#endif
