/* The state machine: what the next two pulses are. Time comes in as calls: state_tick every millisecond, state_frame
 * once per servo frame. No registers, no bytes. */
#ifndef BRIDGE_STATE_H
#define BRIDGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "radio.h"

enum state { UNCONFIGURED, DISARMED, ARMED, FAILSAFE, ESTOP, OVERRIDE };
enum verdict { ACCEPTED, REFUSED_STATE, REFUSED_RANGE, REFUSED_SEQUENCE };

enum {
    TIMEOUT_MS = 80,
    NEUTRAL_FRAMES = 5,
    AGE_NEVER = 65535,
};

struct pulses {
    uint16_t steering, throttle; /* half microseconds; 0: none */
};

struct machine {
    struct config config;
    struct radio radio;
    struct pulses wanted, out; /* of the last accepted command; of the frame that runs */
    uint16_t age_ms;           /* since that command */
    uint16_t last_sequence, timeouts;
    uint8_t state; /* enum state, in one byte */
    uint8_t neutral_frames;
    bool session, configured, sequence_known;
    bool heard; /* a command was accepted in this servo frame */
};

void state_init(struct machine *machine, const struct config *config); /* NULL: there is none */

/* What the host says. */
void state_hello(struct machine *machine, bool same_protocol);
enum verdict state_configure(struct machine *machine, const struct config *config);
enum verdict state_command(struct machine *machine, uint16_t sequence, struct pulses pulses);
enum verdict state_reset(struct machine *machine);
void state_estop(struct machine *machine);
void state_disarm(struct machine *machine);

/* What the clock says. state_frame decides the pulses of the frame that is about to start. */
void state_tick(struct machine *machine);
struct pulses state_frame(struct machine *machine);

bool state_alive(const struct machine *machine); /* the last command is younger than TIMEOUT_MS */

#endif
