/* The receiver of a radio control: pulses of three channels, and whether a person has taken over with it. */
#ifndef BRIDGE_RADIO_H
#define BRIDGE_RADIO_H

#include <stdbool.h>
#include <stdint.h>

enum radio_channel { RADIO_STEERING, RADIO_THROTTLE, RADIO_SWITCH, RADIO_CHANNELS };
enum radio_state { RADIO_OFF, RADIO_LOST, RADIO_STANDBY, RADIO_OVERRIDE };

enum {
    RADIO_MIN = 1600, /* 800 us in half microseconds; a level that lasts shorter or longer is no pulse */
    RADIO_MAX = 4400, /* 2200 us */
    RADIO_ON = 3200,  /* above: override */
    RADIO_HOST = 2800, /* below: the host drives; in between, as before */
    RADIO_TIMEOUT_MS = 60, /* three frames of a 50 Hz receiver */
    FRAME_HALF_US = 40000, /* the clock of the edges runs from 0 to here: one servo frame */
};

struct radio {
    uint16_t rise[RADIO_CHANNELS], pulse[RADIO_CHANNELS];
    uint8_t age_ms[RADIO_CHANNELS]; /* of the last pulse, stops at the timeout */
    bool high[RADIO_CHANNELS];
    bool switched; /* a person drives; while the radio is lost, each tick makes it so */
    bool enabled;
};

void radio_init(struct radio *radio, bool enabled);
/* A pin changed (or is seen again) at clock 0..FRAME_HALF_US-1. */
void radio_edge(struct radio *radio, enum radio_channel channel, bool high, uint16_t clock);
void radio_tick(struct radio *radio); /* every millisecond */
enum radio_state radio_state(const struct radio *radio);

#endif
