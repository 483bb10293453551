/* The compiled firmware in simavr, stepped by whoever calls: time stands still between two calls of sim_run, so every
 * time below is exact to the CPU cycle (1/16 us). For tests and for the simulated bridge; links simavr, which is GPL-3, and so
 * is no part of the Python package. */
#ifndef BRIDGE_LOCKSTEP_H
#define BRIDGE_LOCKSTEP_H

#include <stdint.h>

struct sim;

enum { SIM_STEERING, SIM_THROTTLE, SIM_OUTPUTS };
enum sim_hang { SIM_HANG_LOOP, SIM_HANG_INTERRUPT }; /* main loop, interrupts on; timer interrupt, so all of them off */

typedef struct {
    uint64_t rise, fall; /* cycles */
    uint32_t channel;    /* SIM_STEERING, SIM_THROTTLE */
    uint32_t cut;        /* 1: ended by a reset of the chip, not by the firmware */
} sim_pulse;

typedef struct {
    uint64_t at;  /* cycles: the UART began to send it */
    uint32_t byte;
    uint32_t unused;
} sim_byte;

/* NULL and a line on stderr when the ELF cannot be read. The EEPROM is erased, the chip stands at its reset vector. */
struct sim *sim_open(const char *elf);
void sim_close(struct sim *sim);

uint64_t sim_now(const struct sim *sim);           /* cycles since sim_open, resets included */
int sim_run(struct sim *sim, uint64_t until);      /* to that cycle and not past it by more than an instruction; 0, or -1: crashed */
void sim_power_cycle(struct sim *sim);             /* the EEPROM stays */
void sim_pull_reset(struct sim *sim);              /* the reset pin, which DTR pulls */
uint32_t sim_watchdog_resets(const struct sim *sim);
uint32_t sim_blocked(struct sim *sim); /* longest time with interrupts off since the last call, in cycles */

/* Bytes of the host, in order, each of them 640 cycles long; the first begins at cycle `at`, or when the wire is free.
 * Returns the cycle at which the last stop bit is over. */
uint64_t sim_send(struct sim *sim, uint64_t at, const uint8_t *bytes, uint32_t size);
void sim_send_framing_error(struct sim *sim, uint64_t at, uint8_t byte);

uint32_t sim_pulses(struct sim *sim, sim_pulse *out, uint32_t room); /* takes finished pulses out, oldest first */
uint32_t sim_bytes(struct sim *sim, sim_byte *out, uint32_t room);   /* takes bytes of the bridge out */

int sim_output(const struct sim *sim, int channel);                           /* level of a pin now */
int sim_input(struct sim *sim, uint64_t at, int pin, int level);              /* PD2, PD3, PD4; in order; -1: no such pin */
void sim_eeprom(struct sim *sim, int write, uint32_t at, uint8_t *bytes, uint32_t size);
void sim_supply(struct sim *sim, uint32_t millivolts);
void sim_bootloader(struct sim *sim, uint8_t mcusr, uint8_t r2); /* what the program finds; right after a reset */

/* From the next pass through there the CPU goes no further, until the watchdog resets the chip. The code itself is the shipped
 * one: its first instruction is replaced by a jump to itself, and put back at the reset. -1: no such symbol. */
int sim_hang(struct sim *sim, enum sim_hang where);

#endif
