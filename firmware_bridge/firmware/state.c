#include "state.h"

#include <stddef.h>

static void enter(struct machine *machine, enum state state)
{
    machine->state = state;
    machine->neutral_frames = 0;
}

static void apply(struct machine *machine, const struct config *config)
{
    machine->config = *config;
    machine->configured = true;
    machine->wanted = machine->out = (struct pulses){config->steering.neutral, config->throttle.neutral};
    radio_init(&machine->radio, config->flags & CONFIG_RADIO);
    enter(machine, DISARMED);
}

void state_init(struct machine *machine, const struct config *config)
{
    *machine = (struct machine){.age_ms = AGE_NEVER};
    if (config != NULL)
        apply(machine, config);
}

bool state_alive(const struct machine *machine)
{
    return machine->age_ms < TIMEOUT_MS;
}

void state_hello(struct machine *machine, bool same_protocol)
{
    machine->session = same_protocol;
    machine->sequence_known = machine->heard = false;
    machine->last_sequence = 0;
    machine->age_ms = AGE_NEVER;
    state_disarm(machine); /* a new host shows neutral first, even where the old one was armed */
}

enum verdict state_configure(struct machine *machine, const struct config *config)
{
    if (!machine->session || machine->state > DISARMED)
        return REFUSED_STATE;
    if (!config_valid(config))
        return REFUSED_RANGE;
    apply(machine, config);
    return ACCEPTED;
}

enum verdict state_command(struct machine *machine, uint16_t sequence, struct pulses pulses)
{
    if (!machine->session || !machine->configured)
        return REFUSED_STATE;
    if (!limits_allow(&machine->config.steering, pulses.steering) ||
        !limits_allow(&machine->config.throttle, pulses.throttle))
        return REFUSED_RANGE;
    uint16_t ahead = (uint16_t)(sequence - machine->last_sequence);
    if (machine->sequence_known && (ahead == 0 || ahead > 0x7FFF))
        return REFUSED_SEQUENCE;
    machine->sequence_known = machine->heard = true;
    machine->last_sequence = sequence;
    machine->wanted = pulses;
    machine->age_ms = 0;
    if (machine->state != ARMED && pulses.throttle != machine->config.throttle.neutral)
        machine->neutral_frames = 0;
    return ACCEPTED;
}

enum verdict state_reset(struct machine *machine)
{
    if (!machine->session || machine->state == OVERRIDE)
        return REFUSED_STATE;
    enter(machine, machine->configured ? DISARMED : UNCONFIGURED);
    return ACCEPTED;
}

void state_estop(struct machine *machine)
{
    enter(machine, ESTOP);
}

void state_disarm(struct machine *machine)
{
    if (machine->state == ARMED || machine->state == FAILSAFE)
        machine->state = DISARMED;
    machine->neutral_frames = 0;
}

/* The radio's word is above the host's, and ESTOP is above both. Without a config there is no radio: its flag is there. */
static void follow_radio(struct machine *machine)
{
    enum radio_state radio = radio_state(&machine->radio);
    if (radio == RADIO_OFF || machine->state == ESTOP)
        return;
    if (radio == RADIO_OVERRIDE) {
        enter(machine, OVERRIDE);
    } else if (radio == RADIO_LOST) {
        if (machine->state == ARMED || machine->state == OVERRIDE) {
            enter(machine, FAILSAFE);
            machine->timeouts++;
        }
        machine->neutral_frames = 0;
    } else if (machine->state == OVERRIDE) {
        enter(machine, DISARMED);
    }
}

void state_tick(struct machine *machine)
{
    if (machine->age_ms < AGE_NEVER)
        machine->age_ms++;
    radio_tick(&machine->radio);
    follow_radio(machine);
    if (!state_alive(machine)) {
        if (machine->state == ARMED) {
            enter(machine, FAILSAFE);
            machine->timeouts++;
        }
        machine->neutral_frames = 0;
    }
}

static void count_neutral(struct machine *machine)
{
    bool may_arm = machine->state == DISARMED || machine->state == FAILSAFE;
    if (may_arm && machine->heard && machine->wanted.throttle == machine->config.throttle.neutral &&
        ++machine->neutral_frames == NEUTRAL_FRAMES)
        machine->state = ARMED;
    machine->heard = false;
}

/* `to`, or as far on the way from `from` as `slew` allows; 0 is no limit. */
static uint16_t slewed(uint16_t from, uint16_t to, uint16_t slew)
{
    if (slew == 0)
        return to;
    if (to > from)
        return to - from > slew ? from + slew : to;
    return from - to > slew ? from - slew : to;
}

/* Towards neutral at once, away from it slowly; a reversal passes through neutral. */
static uint16_t throttle_slewed(uint16_t from, uint16_t to, const struct config *config)
{
    uint16_t neutral = config->throttle.neutral;
    if ((from > neutral) != (to > neutral))
        from = neutral;
    bool away = to > neutral ? to > from : to < from;
    return away ? slewed(from, to, config->throttle_slew) : to;
}

/* A stick has end points of its own, so here the calibrated ones limit; a host that is out of range is refused. */
static uint16_t limited(const struct limits *limits, uint16_t pulse)
{
    if (pulse < limits->min)
        return limits->min;
    return pulse > limits->max ? limits->max : pulse;
}

struct pulses state_frame(struct machine *machine)
{
    const struct config *config = &machine->config;
    count_neutral(machine);
    if (!machine->configured)
        return machine->out = (struct pulses){0, 0};
    struct pulses next = {machine->out.steering, config->throttle.neutral};
    if (machine->state == OVERRIDE) {
        next.steering = limited(&config->steering, machine->radio.pulse[RADIO_STEERING]);
        next.throttle = limited(&config->throttle, machine->radio.pulse[RADIO_THROTTLE]);
    } else if (machine->state != ESTOP) {
        next.steering = slewed(next.steering, machine->wanted.steering, config->steering_slew);
        if (machine->state == ARMED) /* the only place where the host moves the car */
            next.throttle = throttle_slewed(machine->out.throttle, machine->wanted.throttle, config);
    }
    return machine->out = next;
}
