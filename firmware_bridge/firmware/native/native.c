#include "native.h"

#include <stdlib.h>
#include <string.h>

#include "../hal.h"

static struct native *active; /* whose EEPROM it is */

bool hal_eeprom_ready(void)
{
    return active->eeprom_busy_ms == 0;
}

uint8_t hal_eeprom_read(uint8_t at)
{
    return active->eeprom[at];
}

void hal_eeprom_write(uint8_t at, uint8_t byte)
{
    if (active->eeprom[at] == byte)
        return;
    active->eeprom_busy_ms = NATIVE_WRITE_MS;
    if (active->writes_until_cut == 0)
        return;
    if (active->writes_until_cut > 0)
        active->writes_until_cut--;
    if (at != active->broken_cell)
        active->eeprom[at] = byte;
}

static native_entry *append(struct native *native, native_log *log)
{
    static native_entry unused;
    if (!native->logging)
        return &unused;
    if (log->count == log->room) {
        log->room = log->room ? log->room * 2 : 64;
        log->entries = realloc(log->entries, log->room * sizeof *log->entries);
        if (log->entries == NULL)
            abort();
    }
    native_entry *entry = &log->entries[log->count++];
    memset(entry, 0, sizeof *entry);
    entry->ms = native->ms;
    return entry;
}

/* What the main loop does when it has nothing to receive. */
static void idle(struct native *native)
{
    uint8_t payload[TX_BYTES], size;
    active = native;
    bridge_keep(&native->bridge);
    while ((size = bridge_transmit(&native->bridge, payload)) > 0) {
        native_entry *entry = append(native, &native->sent);
        entry->size = proto_encode(payload, size, entry->bytes);
    }
}

void native_power_up(struct native *native, uint8_t mcusr, uint8_t r2)
{
    active = native;
    native->eeprom_busy_ms = 0;
    native->writes_until_cut = -1;
    native->decoder = (struct decoder){.length = 0};
    native->out = (struct pulses){0, 0};
    bridge_init(&native->bridge, bridge_reset_cause(mcusr, r2));
    idle(native);
}

struct native *native_open(void)
{
    struct native *native = calloc(1, sizeof *native);
    if (native == NULL)
        return NULL;
    native->logging = true;
    native->broken_cell = -1;
    memset(native->eeprom, 0xFF, sizeof native->eeprom);
    native_power_up(native, 1, 0);
    return native;
}

void native_close(struct native *native)
{
    free(native->pulses.entries);
    free(native->sent.entries);
    free(native->received.entries);
    free(native);
}

void native_send(struct native *native, const uint8_t *bytes, uint32_t size)
{
    active = native;
    for (uint32_t at = 0; at < size; at++) {
        enum proto_event event = proto_feed(&native->decoder, bytes[at]);
        if (event == PROTO_NOTHING)
            continue;
        native_entry *entry = append(native, &native->received);
        entry->event = event;
        if (event == PROTO_FRAME) {
            entry->size = native->decoder.size;
            memcpy(entry->bytes, native->decoder.bytes, entry->size);
        }
        bridge_receive(&native->bridge, event, native->decoder.bytes, native->decoder.size);
    }
    idle(native);
}

void native_run(struct native *native, uint32_t ms)
{
    while (ms-- > 0) {
        native->ms++;
        if (native->eeprom_busy_ms > 0)
            native->eeprom_busy_ms--;
        bridge_tick(&native->bridge);
        if (native->ms % NATIVE_FRAME_MS == 0) {
            native->out = bridge_frame(&native->bridge);
            native_entry *entry = append(native, &native->pulses);
            entry->steering = native->out.steering;
            entry->throttle = native->out.throttle;
        }
        idle(native);
    }
}

void native_tell(struct native *native)
{
    native->bridge.telemetry_due = true;
    idle(native);
}

void native_edge(struct native *native, uint32_t channel, bool high, uint16_t clock)
{
    radio_edge(&native->bridge.machine.radio, (enum radio_channel)channel, high, clock);
}

void native_facts(struct native *native, uint16_t supply_mv, uint16_t overruns)
{
    native->bridge.supply_mv = supply_mv;
    native->bridge.overruns = overruns;
}

uint32_t native_take(struct native *native, enum native_log_kind kind, native_entry *out, uint32_t room)
{
    native_log *log = kind == NATIVE_PULSES ? &native->pulses : kind == NATIVE_SENT ? &native->sent : &native->received;
    uint32_t count = log->count < room ? log->count : room;
    if (count > 0) {
        memcpy(out, log->entries, count * sizeof *out);
        log->count -= count;
        memmove(log->entries, log->entries + count, log->count * sizeof *out);
    }
    return count;
}

uint8_t *native_eeprom(struct native *native)
{
    return native->eeprom;
}

void native_break_eeprom(struct native *native, int32_t cell, int32_t writes_until_cut)
{
    native->broken_cell = cell;
    native->writes_until_cut = writes_until_cut;
}

uint32_t native_encode(const uint8_t *payload, uint32_t size, uint8_t *wire)
{
    return proto_encode(payload, (uint8_t)size, wire);
}

uint32_t native_decode(const uint8_t *wire, uint32_t size, uint8_t *payload, uint32_t *event)
{
    struct decoder decoder = {.length = 0};
    *event = PROTO_NOTHING;
    for (uint32_t at = 0; at < size; at++) {
        enum proto_event now = proto_feed(&decoder, wire[at]);
        if (now != PROTO_NOTHING)
            *event = now;
    }
    if (*event != PROTO_FRAME)
        return 0;
    memcpy(payload, decoder.bytes, decoder.size);
    return decoder.size;
}
