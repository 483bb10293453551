#include "bridge.h"

#include <stddef.h>

enum { RESULT_IN_FORCE, RESULT_STATE, RESULT_VALUES, RESULT_NONE };
enum { FLAG_SESSION = 1, FLAG_CONFIGURED = 2, FLAG_STORED = 4, FLAG_WRITING = 8, FLAG_ALIVE = 16 };

uint8_t bridge_reset_cause(uint8_t mcusr, uint8_t r2)
{
    if (mcusr != 0)
        return mcusr & 0x0F;
    return r2 != 0 && r2 <= 0x0F ? CAUSE_HANDED_OVER | r2 : 0; /* without a bootloader r2 is anything */
}

static void echo(struct bridge *bridge, uint8_t result)
{
    bridge->echo_due = true;
    bridge->echo_result = result;
}

static void greet(struct bridge *bridge, uint16_t nonce)
{
    bridge->hello_due = true;
    bridge->nonce = nonce;
    echo(bridge, bridge->machine.configured ? RESULT_IN_FORCE : RESULT_NONE);
}

void bridge_init(struct bridge *bridge, uint8_t reset_cause)
{
    struct config config;
    *bridge = (struct bridge){.reset_cause = reset_cause};
    state_init(&bridge->machine, store_load(&bridge->store, &config) ? &config : NULL);
    greet(bridge, 0);
}

static void count(struct bridge *bridge, enum verdict verdict)
{
    if (verdict == REFUSED_STATE)
        bridge->counters.state++;
    else if (verdict == REFUSED_RANGE)
        bridge->counters.range++;
    else if (verdict == REFUSED_SEQUENCE)
        bridge->counters.sequence++;
}

static void configure(struct bridge *bridge, const uint8_t *fields)
{
    struct config config;
    config_read(&config, fields);
    enum verdict verdict = state_configure(&bridge->machine, &config);
    count(bridge, verdict);
    bridge->keep_due |= verdict == ACCEPTED;
    echo(bridge, verdict == ACCEPTED ? RESULT_IN_FORCE : verdict == REFUSED_STATE ? RESULT_STATE : RESULT_VALUES);
}

static uint8_t length_of(uint8_t type)
{
    switch (type) {
    case MESSAGE_HELLO:
        return HELLO_BYTES;
    case MESSAGE_CONFIG:
        return CONFIG_BYTES;
    case MESSAGE_COMMAND:
        return COMMAND_BYTES;
    case MESSAGE_ESTOP:
    case MESSAGE_RESET:
    case MESSAGE_DISARM:
        return BARE_BYTES;
    default:
        return 0; /* not of this protocol */
    }
}

static void obey(struct bridge *bridge, const uint8_t *payload)
{
    switch (payload[0]) {
    case MESSAGE_HELLO:
        state_hello(&bridge->machine, payload[1] == PROTOCOL_VERSION);
        greet(bridge, get_u16(payload + 2));
        break;
    case MESSAGE_CONFIG:
        configure(bridge, payload + 1);
        break;
    case MESSAGE_COMMAND:
        count(bridge, state_command(&bridge->machine, get_u16(payload + 1),
                                    (struct pulses){get_u16(payload + 3), get_u16(payload + 5)}));
        break;
    case MESSAGE_DISARM:
        state_disarm(&bridge->machine);
        break;
    case MESSAGE_RESET:
        count(bridge, state_reset(&bridge->machine));
        break;
    default: /* ESTOP: length_of lets no other type through, and whatever got here should stop the car */
        state_estop(&bridge->machine);
    }
}

void bridge_receive(struct bridge *bridge, enum proto_event event, const uint8_t *payload, uint8_t size)
{
    if (event == PROTO_BAD_CRC) {
        bridge->counters.crc++;
    } else if (event == PROTO_BAD_FRAME || length_of(payload[0]) != size) {
        bridge->counters.frame++;
    } else {
        bridge->counters.good++;
        obey(bridge, payload);
    }
}

void bridge_tick(struct bridge *bridge)
{
    bridge->uptime_ms++;
    state_tick(&bridge->machine);
}

struct pulses bridge_frame(struct bridge *bridge)
{
    bridge->telemetry_due = true;
    return state_frame(&bridge->machine);
}

void bridge_keep(struct bridge *bridge)
{
    if (bridge->keep_due) {
        bridge->keep_due = false;
        store_keep(&bridge->store, &bridge->machine.config);
    }
    if (store_step(&bridge->store))
        echo(bridge, RESULT_IN_FORCE);
}

static uint8_t *write_hello(const struct bridge *bridge, uint8_t *at)
{
    *at++ = MESSAGE_HELLO_REPLY;
    *at++ = PROTOCOL_VERSION;
    *at++ = FIRMWARE_MAJOR;
    *at++ = FIRMWARE_MINOR;
    *at++ = FIRMWARE_PATCH;
    at = put_u16(at, FEATURE_RADIO | FEATURE_SUPPLY | FEATURE_STORED);
    *at++ = bridge->reset_cause;
    *at++ = bridge->machine.state;
    at = put_u16(at, bridge->nonce);
    at = put_u16(at, TIMEOUT_MS);
    return put_u16(at, FRAME_US);
}

static uint8_t *write_echo(const struct bridge *bridge, uint8_t *at)
{
    *at++ = MESSAGE_ECHO;
    *at++ = bridge->echo_result;
    *at++ = bridge->store.state;
    return config_write(&bridge->machine.config, at); /* all zeros as long as there is none */
}

static uint8_t flags_of(const struct bridge *bridge)
{
    const struct machine *machine = &bridge->machine;
    return (uint8_t)((machine->session ? FLAG_SESSION : 0) | (machine->configured ? FLAG_CONFIGURED : 0) |
                     (bridge->store.state == STORE_KEPT ? FLAG_STORED : 0) |
                     (bridge->store.state == STORE_WRITING ? FLAG_WRITING : 0) |
                     (state_alive(machine) ? FLAG_ALIVE : 0));
}

static uint8_t *write_radio(const struct radio *radio, uint8_t *at)
{
    enum radio_state state = radio_state(radio);
    bool heard = state == RADIO_STANDBY || state == RADIO_OVERRIDE;
    *at++ = (uint8_t)state;
    at = put_u16(at, heard ? radio->pulse[RADIO_STEERING] : 0);
    return put_u16(at, heard ? radio->pulse[RADIO_THROTTLE] : 0);
}

static uint8_t *write_telemetry(const struct bridge *bridge, uint8_t *at)
{
    const struct machine *machine = &bridge->machine;
    const struct counters *counters = &bridge->counters;
    *at++ = MESSAGE_TELEMETRY;
    at = put_u16(at, (uint16_t)bridge->uptime_ms);
    at = put_u16(at, (uint16_t)(bridge->uptime_ms >> 16));
    *at++ = machine->state;
    *at++ = flags_of(bridge);
    *at++ = machine->neutral_frames;
    const uint16_t numbers[] = {
        machine->last_sequence, machine->age_ms,    machine->out.steering, machine->out.throttle,
        counters->good,         counters->crc,      counters->frame,       counters->range,
        counters->sequence,     counters->state,    machine->timeouts,     bridge->overruns,
    };
    for (uint8_t number = 0; number < sizeof numbers / sizeof *numbers; number++)
        at = put_u16(at, numbers[number]);
    *at++ = bridge->reset_cause;
    at = write_radio(&machine->radio, at);
    return put_u16(at, bridge->supply_mv);
}

uint8_t bridge_transmit(struct bridge *bridge, uint8_t payload[TX_BYTES])
{
    uint8_t *end = payload;
    if (bridge->hello_due) {
        bridge->hello_due = false;
        end = write_hello(bridge, payload);
    } else if (bridge->echo_due) {
        bridge->echo_due = false;
        end = write_echo(bridge, payload);
    } else if (bridge->telemetry_due) {
        bridge->telemetry_due = false;
        end = write_telemetry(bridge, payload);
    }
    return (uint8_t)(end - payload);
}
