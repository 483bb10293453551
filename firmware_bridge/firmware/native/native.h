/* The pure part of the firmware on a PC: the main loop and the interrupts of main_avr.c, a clock that only goes on when
 * asked, an EEPROM in memory. For the tests (through ctypes) and the fuzz. */
#ifndef BRIDGE_NATIVE_H
#define BRIDGE_NATIVE_H

#include "../bridge.h"

enum { NATIVE_EEPROM = 32, NATIVE_FRAME_MS = 20, NATIVE_WRITE_MS = 4 };

/* One thing that happened; which fields count depends on the log that it is in. */
typedef struct {
    uint32_t ms;
    uint32_t event;             /* enum proto_event */
    uint32_t steering, throttle; /* half microseconds */
    uint32_t size;
    uint8_t bytes[TX_WIRE_BYTES];
} native_entry;

typedef struct {
    native_entry *entries;
    uint32_t count, room;
} native_log;

struct native {
    struct bridge bridge;
    struct decoder decoder;
    uint32_t ms; /* since the test began, resets included */
    uint8_t eeprom[NATIVE_EEPROM];
    uint8_t eeprom_busy_ms;
    int32_t broken_cell;      /* keeps what it holds; -1: none */
    int32_t writes_until_cut; /* EEPROM writes that still arrive; -1: all */
    bool logging;
    struct pulses out;
    native_log pulses, sent, received; /* one entry per servo frame; per frame sent; per frame received, good or not */
};

struct native *native_open(void); /* erased EEPROM, powered up; NULL: no memory */
void native_close(struct native *native);
void native_power_up(struct native *native, uint8_t mcusr, uint8_t r2); /* or any other reset; the EEPROM stays */
void native_send(struct native *native, const uint8_t *bytes, uint32_t size);
void native_run(struct native *native, uint32_t ms);
void native_tell(struct native *native); /* sends telemetry now, without waiting for the next frame */
void native_edge(struct native *native, uint32_t channel, bool high, uint16_t clock);
void native_facts(struct native *native, uint16_t supply_mv, uint16_t overruns);

enum native_log_kind { NATIVE_PULSES, NATIVE_SENT, NATIVE_RECEIVED };
uint32_t native_take(struct native *native, enum native_log_kind kind, native_entry *out, uint32_t room);

uint8_t *native_eeprom(struct native *native);
void native_break_eeprom(struct native *native, int32_t cell, int32_t writes_until_cut);

/* Single functions, for tests against other implementations. */
uint32_t native_encode(const uint8_t *payload, uint32_t size, uint8_t *wire);
uint32_t native_decode(const uint8_t *wire, uint32_t size, uint8_t *payload, uint32_t *event);

#endif
