/* Inputs that nobody would send, under AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 *   fuzz INPUTS SEED
 *
 * Each input is a life of its own: power up, with or without a stored config, then a host that says hello, shows neutral and
 * drives, all of it now and then wrong; after that frames at random, whole, damaged or made up, with time and a radio in
 * between. After each millisecond what must never be is looked for. Prints one line of JSON; exit status 1 and a line on
 * stderr when something was found, or when fewer than half of the inputs reached ARMED. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

static uint64_t random_state;
static uint64_t input_number, seed;

/* xorshift64*: the same numbers for the same seed on every machine. */
static uint32_t random_bits(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1Du >> 32);
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)((uint64_t)random_bits() * limit >> 32);
}

static bool chance(uint32_t one_in)
{
    return below(one_in) == 0;
}

/* --- what must never be ------------------------------------------------------------------------------------------ */

struct watch {
    struct pulses before;     /* of the last frame */
    uint32_t neutral_frames;  /* servo frames in a row with throttle at neutral, or without pulses */
    uint32_t heard_ms;        /* when a good frame last came */
    uint16_t good;
    uint8_t state;
    bool reset_seen; /* a RESET was received since the last look */
    bool armed;      /* at any time of this input */
};

static uint64_t states_seen[OVERRIDE + 1];

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz: input %llu of seed %llu: %s\n", (unsigned long long)input_number, (unsigned long long)seed,
            what);
    exit(1);
}

static uint32_t distance(uint16_t a, uint16_t b)
{
    return a > b ? (uint32_t)(a - b) : (uint32_t)(b - a);
}

static void look_at_state(const struct native *native, struct watch *watch)
{
    const struct machine *machine = &native->bridge.machine;
    states_seen[machine->state]++;
    if (native->bridge.counters.good != watch->good)
        watch->heard_ms = native->ms;
    watch->good = native->bridge.counters.good;
    require(machine->state <= OVERRIDE, "an unknown state");
    require(machine->configured ? machine->state != UNCONFIGURED : machine->state == UNCONFIGURED || machine->state == ESTOP,
            "state and config disagree");
    require(!machine->configured || config_valid(&machine->config), "an invalid config is in force");
    require(machine->neutral_frames <= NEUTRAL_FRAMES, "too many neutral frames");
    require(native->bridge.store.step <= RECORD_BYTES + 2, "a write past the record");
    if (machine->state == ARMED) {
        watch->armed = true;
        require(machine->session, "armed without a session");
        require(native->ms - watch->heard_ms < TIMEOUT_MS, "armed after silence");
        require(watch->state == ARMED || watch->neutral_frames >= NEUTRAL_FRAMES, "armed without neutral");
    }
    if (watch->state == ESTOP && machine->state != ESTOP)
        require(watch->reset_seen && machine->state <= DISARMED, "the emergency stop ended by itself");
    watch->state = machine->state;
    watch->reset_seen = false;
}

/* Edges come at any time, and the next tick acts on them. */
static void look_at_radio(const struct machine *machine)
{
    enum radio_state radio = radio_state(&machine->radio);
    if (machine->state == ARMED)
        require(radio == RADIO_OFF || radio == RADIO_STANDBY, "armed without a hand on the radio");
    if (machine->state == OVERRIDE)
        require(radio == RADIO_OVERRIDE, "override without the radio");
}

static void look_at_frame(const struct native *native, struct watch *watch)
{
    const struct machine *machine = &native->bridge.machine;
    const struct config *config = &machine->config;
    struct pulses out = native->out, before = watch->before;
    watch->before = out;
    if (!machine->configured) {
        require(out.steering == 0 && out.throttle == 0, "pulses without a config");
        watch->neutral_frames = 0;
        return;
    }
    uint16_t neutral = config->throttle.neutral;
    require(limits_allow(&config->steering, out.steering), "steering out of range");
    require(limits_allow(&config->throttle, out.throttle), "throttle out of range");
    require(out.throttle == neutral || machine->state == ARMED || machine->state == OVERRIDE, "throttle while not armed");
    watch->neutral_frames = out.throttle == neutral ? watch->neutral_frames + 1 : 0;
    if (machine->state == ARMED && config->throttle_slew && distance(out.throttle, neutral) > config->throttle_slew)
        require(distance(out.throttle, before.throttle) <= config->throttle_slew ||
                    distance(out.throttle, neutral) <= distance(before.throttle, neutral),
                "throttle faster than its slew");
    if (machine->state == ESTOP && before.steering != 0)
        require(out.steering == before.steering, "steering moved in an emergency stop");
}

static void pass(struct native *native, struct watch *watch, uint32_t ms)
{
    while (ms-- > 0) {
        native_run(native, 1);
        if (native->ms % NATIVE_FRAME_MS == 0)
            look_at_frame(native, watch);
        look_at_state(native, watch);
        look_at_radio(&native->bridge.machine);
    }
}

/* --- a host, mostly right ---------------------------------------------------------------------------------------- */

struct host {
    struct config config;
    uint16_t sequence;
};

static void send_bytes(struct native *native, struct watch *watch, const uint8_t *wire, uint32_t size)
{
    uint16_t good = native->bridge.counters.good;
    native_send(native, wire, size);
    /* Not which type it was: damaged frames can become another with the right CRC, so any good one may have been it. */
    watch->reset_seen |= native->bridge.counters.good != good;
    look_at_state(native, watch);
    watch->before = native->bridge.machine.out; /* a new config starts from its own neutral */
}

static void send_payload(struct native *native, struct watch *watch, const uint8_t *payload, uint8_t size, bool damage)
{
    uint8_t wire[TX_WIRE_BYTES];
    uint32_t length = proto_encode(payload, size, wire);
    if (damage) {
        uint32_t at = below(length);
        switch (below(4)) {
        case 0:
            wire[at] ^= (uint8_t)(1u << below(8));
            break;
        case 1:
            wire[at] = (uint8_t)random_bits();
            break;
        case 2:
            memmove(wire + at, wire + at + 1, length - at - 1);
            length--;
            break;
        default:
            length = at;
        }
    }
    send_bytes(native, watch, wire, length);
}

static void send_bare(struct native *native, struct watch *watch, uint8_t type, bool damage)
{
    send_payload(native, watch, &type, 1, damage);
}

static void send_hello(struct native *native, struct watch *watch, bool damage)
{
    uint8_t payload[HELLO_BYTES] = {MESSAGE_HELLO, chance(20) ? (uint8_t)random_bits() : PROTOCOL_VERSION};
    put_u16(payload + 2, (uint16_t)random_bits());
    send_payload(native, watch, payload, sizeof payload, damage);
}

static struct limits random_limits(void)
{
    struct limits limits = {.min = (uint16_t)(PULSE_MIN + below(1500)), .max = (uint16_t)(PULSE_MAX - below(1500))};
    limits.neutral = (uint16_t)(limits.min + below((uint32_t)(limits.max - limits.min + 1)));
    return limits;
}

static struct config random_config(void)
{
    struct config config = {.flags = chance(4) ? CONFIG_RADIO : 0, .steering = random_limits(), .throttle = random_limits()};
    config.steering_slew = chance(2) ? 0 : (uint16_t)below(400);
    config.throttle_slew = chance(2) ? 0 : (uint16_t)below(400);
    return config;
}

static void send_config(struct native *native, struct watch *watch, const struct config *config, bool damage)
{
    uint8_t payload[CONFIG_BYTES] = {MESSAGE_CONFIG};
    config_write(config, payload + 1);
    if (chance(30))
        payload[1 + below(CONFIG_BYTES - 1)] = (uint8_t)random_bits();
    send_payload(native, watch, payload, sizeof payload, damage);
}

static void send_command(struct native *native, struct watch *watch, struct host *host, struct pulses pulses, bool damage)
{
    uint8_t payload[COMMAND_BYTES] = {MESSAGE_COMMAND};
    put_u16(put_u16(put_u16(payload + 1, host->sequence), pulses.steering), pulses.throttle);
    host->sequence = (uint16_t)(host->sequence + (chance(12) ? below(3) : 1));
    send_payload(native, watch, payload, sizeof payload, damage);
}

static struct pulses random_pulses(const struct config *config)
{
    switch (below(8)) {
    case 0:
        return (struct pulses){(uint16_t)random_bits(), (uint16_t)random_bits()};
    case 1:
        return (struct pulses){config->steering.min, config->throttle.max};
    case 2:
        return (struct pulses){(uint16_t)(config->steering.max + 1), (uint16_t)(config->throttle.min - 1)};
    case 3:
        return (struct pulses){config->steering.neutral, config->throttle.neutral};
    default:
        return (struct pulses){
            (uint16_t)(config->steering.min + below((uint32_t)(config->steering.max - config->steering.min + 1))),
            (uint16_t)(config->throttle.min + below((uint32_t)(config->throttle.max - config->throttle.min + 1))),
        };
    }
}

static void radio_frame(struct native *native, uint16_t switch_pulse)
{
    for (uint32_t channel = 0; channel < RADIO_CHANNELS; channel++) {
        uint16_t rise = (uint16_t)below(FRAME_HALF_US);
        uint16_t width = channel == RADIO_SWITCH ? switch_pulse : (uint16_t)(RADIO_MIN - 50 + below(2900));
        if (chance(40))
            continue;
        native_edge(native, channel, true, rise);
        native_edge(native, channel, false, (uint16_t)((rise + width) % FRAME_HALF_US));
    }
}

static void anything(struct native *native, struct watch *watch, struct host *host)
{
    bool damage = chance(4);
    uint8_t noise[30];
    switch (below(16)) {
    case 0:
        for (uint32_t at = 0; at < sizeof noise; at++)
            noise[at] = (uint8_t)(chance(6) ? 0 : random_bits());
        send_bytes(native, watch, noise, below(sizeof noise + 1));
        break;
    case 1: { /* a frame that is well formed and means nothing, or means something by chance */
        uint8_t size = (uint8_t)(1 + below(sizeof noise));
        for (uint8_t at = 0; at < size; at++)
            noise[at] = (uint8_t)random_bits();
        noise[0] = (uint8_t)below(9);
        send_payload(native, watch, noise, size, damage);
        break;
    }
    case 2:
        send_bare(native, watch, (uint8_t)(MESSAGE_ESTOP + below(3)), damage);
        break;
    case 3:
        if (chance(3))
            send_hello(native, watch, damage);
        break;
    case 4:
        if (chance(2))
            host->config = random_config();
        send_config(native, watch, &host->config, damage);
        break;
    case 5:
        pass(native, watch, below(130));
        break;
    case 6:
    case 7:
        radio_frame(native, (uint16_t)(2000 + below(2000)));
        break;
    default:
        send_command(native, watch, host, random_pulses(&host->config), damage);
    }
    pass(native, watch, below(4));
}

static bool live(struct native *native)
{
    struct host host = {.config = random_config(), .sequence = (uint16_t)random_bits()};
    memset(native->eeprom, 0xFF, sizeof native->eeprom);
    if (chance(4))
        config_save(&host.config, native->eeprom);
    native->broken_cell = chance(20) ? (int32_t)below(RECORD_BYTES) : -1;
    native_power_up(native, (uint8_t)random_bits(), (uint8_t)random_bits());
    struct watch watch = {.heard_ms = native->ms};
    if (!chance(20))
        send_hello(native, &watch, chance(20));
    if (!chance(20))
        send_config(native, &watch, &host.config, chance(20));
    for (uint32_t frame = below(8); frame < 12 && native->bridge.machine.state != ARMED; frame++) {
        if (host.config.flags & CONFIG_RADIO)
            radio_frame(native, 2400);
        send_command(native, &watch, &host,
                     (struct pulses){host.config.steering.neutral, host.config.throttle.neutral}, chance(30));
        pass(native, &watch, 15 + below(10));
    }
    for (uint32_t left = 1 + below(12); left > 0; left--)
        anything(native, &watch, &host);
    return watch.armed;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "fuzz: fuzz INPUTS SEED\n");
        return 2;
    }
    uint64_t inputs = strtoull(argv[1], NULL, 10), armed = 0;
    seed = strtoull(argv[2], NULL, 10);
    random_state = seed * 0x9E3779B97F4A7C15u + 1;
    struct native *native = native_open();
    if (native == NULL)
        return 2;
    native->logging = false;
    for (input_number = 0; input_number < inputs; input_number++)
        armed += live(native);
    printf("{\"inputs\": %llu, \"armed\": %llu, \"milliseconds\": %llu, \"looks\": [", (unsigned long long)inputs,
           (unsigned long long)armed, (unsigned long long)native->ms);
    for (uint32_t state = 0; state <= OVERRIDE; state++)
        printf("%s%llu", state ? ", " : "", (unsigned long long)states_seen[state]);
    printf("]}\n");
    native_close(native);
    if (2 * armed < inputs) {
        fprintf(stderr, "fuzz: only %llu of %llu inputs reached ARMED\n", (unsigned long long)armed,
                (unsigned long long)inputs);
        return 1;
    }
    return 0;
}
