/* The bridge without its registers: frames in, frames out, counters, and the state machine between them. */
#ifndef BRIDGE_BRIDGE_H
#define BRIDGE_BRIDGE_H

#include "proto.h"
#include "state.h"
#include "store.h"

enum { FIRMWARE_MAJOR = 1, FIRMWARE_MINOR = 0, FIRMWARE_PATCH = 0 };

enum {
    FEATURE_RADIO = 1,
    FEATURE_SUPPLY = 2,
    FEATURE_STORED = 4,
    FRAME_US = 20000,
    CAUSE_HANDED_OVER = 0x80, /* the bits came from the bootloader */
};

struct counters {
    uint16_t good, crc, frame, range, sequence, state;
};

struct bridge {
    struct machine machine;
    struct store store;
    struct counters counters;
    uint32_t uptime_ms;
    uint16_t overruns, supply_mv;
    uint16_t nonce;
    uint8_t reset_cause, echo_result;
    bool hello_due, echo_due, telemetry_due, keep_due;
};

/* MCUSR and r2 as the program found them; Optiboot clears the one and hands its bits over in the other. */
uint8_t bridge_reset_cause(uint8_t mcusr, uint8_t r2);

void bridge_init(struct bridge *bridge, uint8_t reset_cause); /* reads the EEPROM */

/* From the main loop, with interrupts off: the machine is shared with the timer interrupt. */
void bridge_receive(struct bridge *bridge, enum proto_event event, const uint8_t *payload, uint8_t size);
uint8_t bridge_transmit(struct bridge *bridge, uint8_t payload[TX_BYTES]); /* length; 0: nothing to say */
/* From the main loop, with interrupts on, between the two above: what EEPROM there is to do takes long. */
void bridge_keep(struct bridge *bridge);

/* From the timer interrupt. */
void bridge_tick(struct bridge *bridge);
struct pulses bridge_frame(struct bridge *bridge);

#endif
