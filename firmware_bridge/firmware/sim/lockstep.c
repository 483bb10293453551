#include "lockstep.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "avr_adc.h"
#include "avr_eeprom.h"
#include "avr_ioport.h"
#include "avr_timer.h"
#include "avr_uart.h"
#include "avr_watchdog.h"
#include "sim_avr.h"
#include "sim_elf.h"
#include "sim_core.h"

enum { BYTE_CYCLES = 640, RECEIVER_BYTES = 3, DATA_MCUSR = 0x54, DATA_OCR1AL = 0x88, DATA_OCR1BL = 0x8A, DATA_R2 = 2, RJMP_SELF = 0xCFFF };
enum { PORF = 1, EXTRF = 2, WDRF = 8 };

typedef struct {
    uint64_t at;
    uint32_t value, pin;
} event;

struct queue {
    event *items;
    size_t first, end, room;
};

struct sim {
    avr_t *avr;
    avr_uart_t *uart;
    avr_io_write_t ocr_write[SIM_OUTPUTS];
    void *ocr_param[SIM_OUTPUTS];
    avr_io_read_t udr_read;
    void *udr_param;
    uint32_t unread[RECEIVER_BYTES], unread_count; /* bytes in the receiver, oldest first */
    elf_firmware_t firmware;
    uint64_t base; /* cycles before the last reset, where simavr counts anew */
    uint64_t wire_free;
    struct queue to_bridge, edges, pulses, from_bridge; /* of a pulse: at is its rise, value its width, pin the channel */
    bool level[SIM_OUTPUTS];
    uint64_t rise[SIM_OUTPUTS];
    bool was_reset;
    uint32_t watchdog_resets;
    uint64_t blocked_since; /* interrupts off; 0: they are on */
    uint32_t blocked;
    uint32_t patched; /* address of the patched instruction, plus one; 0: none */
    uint16_t original;
    void (*core_reset)(avr_t *);
};

static void push(struct queue *queue, event item)
{
    if (queue->end == queue->room) {
        if (queue->first > queue->room / 2) {
            memmove(queue->items, queue->items + queue->first, (queue->end - queue->first) * sizeof item);
            queue->end -= queue->first;
            queue->first = 0;
        } else {
            queue->room = queue->room ? queue->room * 2 : 256;
            queue->items = realloc(queue->items, queue->room * sizeof item);
            if (queue->items == NULL)
                abort();
        }
    }
    queue->items[queue->end++] = item;
}

static event *peek(struct queue *queue)
{
    return queue->first < queue->end ? &queue->items[queue->first] : NULL;
}

uint64_t sim_now(const struct sim *sim)
{
    return sim->base + sim->avr->cycle;
}

/* --- what goes into the chip: a cycle timer of simavr that runs at each event ------------------------------------ */

/* The receiver of the chip: two bytes of buffer and one in the shift register, then bytes are lost. simavr has 64 of them, and
 * counts a byte's time from when it is handed over, or from when the one before was read, which a busy wire cannot keep
 * up with. So it gets each byte at the end of its stop bit, one at a time. */
static void hand_over(struct sim *sim)
{
    sim->uart->cycles_per_byte = 1;
    avr_raise_irq(sim->uart->io.irq + UART_IRQ_INPUT, sim->unread[0]);
    sim->uart->cycles_per_byte = BYTE_CYCLES;
}

static void deliver_byte(struct sim *sim, uint32_t value)
{
    if (!avr_regbit_get(sim->avr, sim->uart->rxen))
        return;
    if (sim->unread_count == RECEIVER_BYTES) {
        sim->unread[RECEIVER_BYTES - 1] |= UART_INPUT_FE; /* for DOR, which simavr cannot be told */
        return;
    }
    sim->unread[sim->unread_count++] = value;
    if (sim->unread_count == 1)
        hand_over(sim);
}

static uint8_t byte_read(avr_t *avr, avr_io_addr_t at, void *param)
{
    struct sim *sim = param;
    uint8_t value = sim->udr_read(avr, at, sim->udr_param);
    if (sim->unread_count > 0) {
        sim->unread_count--;
        memmove(sim->unread, sim->unread + 1, sizeof sim->unread - sizeof *sim->unread);
        if (sim->unread_count > 0)
            hand_over(sim);
    }
    return value;
}

static void mend_receiver(struct sim *sim)
{
    int io = AVR_DATA_TO_IO(sim->uart->r_udr);
    sim->udr_read = sim->avr->io[io].r.c;
    sim->udr_param = sim->avr->io[io].r.param;
    sim->avr->io[io].r.c = byte_read;
    sim->avr->io[io].r.param = sim;
}

static void deliver_edge(struct sim *sim, const event *edge)
{
    avr_raise_irq(avr_io_getirq(sim->avr, AVR_IOCTL_IOPORT_GETIRQ('D'), (int)edge->pin), edge->value);
}

static uint64_t next_event(struct sim *sim)
{
    event *byte = peek(&sim->to_bridge), *edge = peek(&sim->edges);
    uint64_t next = UINT64_MAX;
    if (byte != NULL)
        next = byte->at;
    if (edge != NULL && edge->at < next)
        next = edge->at;
    return next;
}

static avr_cycle_count_t deliver(avr_t *avr, avr_cycle_count_t when, void *param)
{
    struct sim *sim = param;
    (void)when;
    uint64_t next;
    while ((next = next_event(sim)) <= sim_now(sim)) {
        event *byte = peek(&sim->to_bridge);
        if (byte != NULL && byte->at == next) {
            deliver_byte(sim, byte->value);
            sim->to_bridge.first++;
        } else {
            deliver_edge(sim, peek(&sim->edges));
            sim->edges.first++;
        }
    }
    (void)avr;
    return next == UINT64_MAX ? 0 : next - sim->base;
}

static void schedule(struct sim *sim)
{
    avr_cycle_timer_cancel(sim->avr, deliver, sim);
    uint64_t next = next_event(sim), now = sim_now(sim);
    if (next != UINT64_MAX)
        avr_cycle_timer_register(sim->avr, next > now ? next - now : 1, deliver, sim);
}

uint64_t sim_send(struct sim *sim, uint64_t at, const uint8_t *bytes, uint32_t size)
{
    uint64_t begin = at > sim_now(sim) ? at : sim_now(sim);
    if (begin < sim->wire_free)
        begin = sim->wire_free;
    for (uint32_t index = 0; index < size; index++) {
        begin += BYTE_CYCLES;
        push(&sim->to_bridge, (event){.at = begin, .value = bytes[index]});
    }
    sim->wire_free = begin;
    schedule(sim);
    return begin;
}

void sim_send_framing_error(struct sim *sim, uint64_t at, uint8_t byte)
{
    sim_send(sim, at, &byte, 1);
    sim->to_bridge.items[sim->to_bridge.end - 1].value |= UART_INPUT_FE;
}

int sim_input(struct sim *sim, uint64_t at, int pin, int level)
{
    if (pin < 2 || pin > 4)
        return -1;
    push(&sim->edges, (event){.at = at, .value = level != 0, .pin = (uint32_t)pin});
    schedule(sim);
    return 0;
}

/* --- what comes out of it ---------------------------------------------------------------------------------------- */

static void end_pulse(struct sim *sim, int channel, bool cut)
{
    uint64_t now = sim_now(sim);
    push(&sim->pulses, (event){.at = sim->rise[channel],
                               .value = (uint32_t)(now - sim->rise[channel]),
                               .pin = (uint32_t)channel | (cut ? 0x100 : 0)});
}

static void pin_changed(struct sim *sim, int channel, uint32_t value)
{
    bool high = value & 1;
    if (high == sim->level[channel])
        return;
    sim->level[channel] = high;
    if (high)
        sim->rise[channel] = sim_now(sim);
    else
        end_pulse(sim, channel, false);
}

static void steering_changed(struct avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq;
    pin_changed(param, SIM_STEERING, value);
}

static void throttle_changed(struct avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq;
    pin_changed(param, SIM_THROTTLE, value);
}

static void byte_sent(struct avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq;
    struct sim *sim = param;
    push(&sim->from_bridge, (event){.at = sim_now(sim), .value = value & 0xFF});
}

uint32_t sim_pulses(struct sim *sim, sim_pulse *out, uint32_t room)
{
    uint32_t count = 0;
    for (event *item; count < room && (item = peek(&sim->pulses)) != NULL; sim->pulses.first++)
        out[count++] = (sim_pulse){.rise = item->at, .fall = item->at + item->value,
                                   .channel = item->pin & 0xFF, .cut = item->pin >> 8};
    return count;
}

uint32_t sim_bytes(struct sim *sim, sim_byte *out, uint32_t room)
{
    uint32_t count = 0;
    for (event *item; count < room && (item = peek(&sim->from_bridge)) != NULL; sim->from_bridge.first++)
        out[count++] = (sim_byte){.at = item->at, .byte = item->value};
    return count;
}

int sim_output(const struct sim *sim, int channel)
{
    return sim->level[channel];
}

/* --- life of the chip -------------------------------------------------------------------------------------------- */

static void write_word(struct sim *sim, uint32_t at, uint16_t word)
{
    sim->avr->flash[at] = (uint8_t)word;
    sim->avr->flash[at + 1] = (uint8_t)(word >> 8);
}

/* Called by simavr within each reset. The pins float from here on: what was high ends. */
static void on_reset(avr_t *avr)
{
    struct sim *sim = avr->custom.data;
    sim->core_reset(avr);
    sim->was_reset = true;
    sim->unread_count = 0;
    for (int channel = 0; channel < SIM_OUTPUTS; channel++)
        if (sim->level[channel]) {
            sim->level[channel] = false;
            end_pulse(sim, channel, true);
        }
    if (sim->patched)
        write_word(sim, sim->patched - 1, sim->original);
    sim->patched = 0;
}

static void reset_with(struct sim *sim, uint8_t cause)
{
    uint64_t now = sim_now(sim);
    avr_reset(sim->avr);
    sim->base = now - sim->avr->cycle;
    sim->was_reset = false;
    sim->avr->data[DATA_MCUSR] = cause;
    schedule(sim);
}

void sim_power_cycle(struct sim *sim)
{
    memset(sim->avr->data, 0, sim->avr->ramend + 1u);
    reset_with(sim, PORF);
}

void sim_pull_reset(struct sim *sim)
{
    reset_with(sim, EXTRF);
}

void sim_bootloader(struct sim *sim, uint8_t mcusr, uint8_t r2)
{
    sim->avr->data[DATA_MCUSR] = mcusr;
    sim->avr->data[DATA_R2] = r2;
}

uint32_t sim_watchdog_resets(const struct sim *sim)
{
    return sim->watchdog_resets;
}

uint32_t sim_blocked(struct sim *sim)
{
    uint32_t blocked = sim->blocked;
    sim->blocked = 0;
    return blocked;
}

static void look_at_interrupts(struct sim *sim)
{
    uint64_t now = sim_now(sim);
    if (!sim->avr->sreg[S_I]) {
        if (sim->blocked_since == 0)
            sim->blocked_since = now;
    } else if (sim->blocked_since != 0) {
        if (now - sim->blocked_since > sim->blocked)
            sim->blocked = (uint32_t)(now - sim->blocked_since);
        sim->blocked_since = 0;
    }
}

static avr_cycle_count_t stop(avr_t *avr, avr_cycle_count_t when, void *param)
{
    (void)avr, (void)when, (void)param;
    return 0; /* it only ends a sleep of the CPU at the right cycle */
}

int sim_run(struct sim *sim, uint64_t until)
{
    avr_t *avr = sim->avr;
    if (until > sim_now(sim))
        avr_cycle_timer_register(avr, until - sim_now(sim), stop, sim);
    while (sim_now(sim) < until) {
        uint64_t before = avr->cycle;
        int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed)
            return -1;
        look_at_interrupts(sim);
        if (sim->was_reset) { /* by the watchdog: cycle timers are gone, and the count may be back at 0 */
            sim->was_reset = false;
            sim->watchdog_resets++;
            if (avr->cycle < before)
                sim->base += before - avr->cycle;
            schedule(sim);
            if (until > sim_now(sim))
                avr_cycle_timer_register(avr, until - sim_now(sim), stop, sim);
        }
    }
    return 0;
}

int sim_hang(struct sim *sim, enum sim_hang where)
{
    const char *name = where == SIM_HANG_LOOP ? "turn" : "__vector_7"; /* TIMER2_COMPA */
    for (uint32_t index = 0; index < sim->firmware.symbolcount; index++)
        if (strcmp(sim->firmware.symbol[index]->symbol, name) == 0) {
            uint32_t at = sim->firmware.symbol[index]->addr;
            sim->original = (uint16_t)(sim->avr->flash[at] | sim->avr->flash[at + 1] << 8);
            sim->patched = at + 1;
            write_word(sim, at, RJMP_SELF);
            return 0;
        }
    return -1;
}

void sim_eeprom(struct sim *sim, int write, uint32_t at, uint8_t *bytes, uint32_t size)
{
    avr_eeprom_desc_t block = {.ee = NULL, .offset = (uint16_t)at, .size = size};
    if (write)
        block.ee = bytes;
    avr_ioctl(sim->avr, write ? AVR_IOCTL_EEPROM_SET : AVR_IOCTL_EEPROM_GET, &block);
    if (!write)
        memcpy(bytes, block.ee, size);
}

void sim_supply(struct sim *sim, uint32_t millivolts)
{
    sim->avr->vcc = sim->avr->avcc = millivolts;
}

static void no_sleep(avr_t *avr, avr_cycle_count_t cycles)
{
    (void)avr, (void)cycles; /* simavr's own sleeps in wall time */
}

/* simavr takes a new OCR1x only when its low byte changes: it compares after the high byte is in. So the low byte is made
 * another one before simavr's own handler gets it. */
static void ocr_low_written(avr_t *avr, avr_io_addr_t at, uint8_t value, void *param)
{
    struct sim *sim = param;
    avr->data[at] = (uint8_t)~value;
    sim->ocr_write[at == DATA_OCR1BL](avr, at, value, sim->ocr_param[at == DATA_OCR1BL]);
}

static void mend_ocr(struct sim *sim)
{
    for (int channel = 0; channel < SIM_OUTPUTS; channel++) {
        int io = AVR_DATA_TO_IO(channel == 0 ? DATA_OCR1AL : DATA_OCR1BL);
        sim->ocr_write[channel] = sim->avr->io[io].w.c;
        sim->ocr_param[channel] = sim->avr->io[io].w.param;
        sim->avr->io[io].w.c = ocr_low_written;
        sim->avr->io[io].w.param = sim;
    }
}

static void find_modules(struct sim *sim)
{
    for (avr_io_t *io = sim->avr->io_port; io != NULL; io = io->next) {
        if (strcmp(io->kind, "uart") == 0)
            sim->uart = (avr_uart_t *)io;
        /* simavr up to 1.7 takes timer 1's mode 14 for another one, in which OCR1x never reaches the pin (its issue
         * 579). Harmless where that is mended. */
        if (strcmp(io->kind, "timer") == 0 && ((avr_timer_t *)io)->name == '1')
            ((avr_timer_t *)io)->wgm_op[14] = (avr_timer_wgm_t)AVR_TIMER_WGM_ICFASTPWM();
    }
}

static void quiet(avr_t *avr, const int level, const char *format, va_list list)
{
    (void)avr;
    if (level <= LOG_ERROR)
        vfprintf(stderr, format, list);
}

struct sim *sim_open(const char *elf)
{
    avr_global_logger_set(quiet);
    struct sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL || elf_read_firmware(elf, &sim->firmware) != 0 ||
        (sim->avr = avr_make_mcu_by_name("atmega328p")) == NULL) {
        fprintf(stderr, "lockstep: %s cannot be loaded\n", elf);
        free(sim);
        return NULL;
    }
    avr_t *avr = sim->avr;
    sim->firmware.frequency = 16000000;
    avr_init(avr);
    avr_load_firmware(avr, &sim->firmware);
    avr->custom.data = sim;
    sim->core_reset = avr->reset;
    avr->reset = on_reset;
    avr->sleep = no_sleep;
    find_modules(sim);
    mend_ocr(sim);
    mend_receiver(sim);
    sim_supply(sim, 5000);
    uint32_t flags = 0; /* no printing, no sleeping while polled */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), byte_sent, sim);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('B'), 1), steering_changed, sim);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('B'), 2), throttle_changed, sim);
    sim_power_cycle(sim);
    return sim;
}

void sim_close(struct sim *sim)
{
    avr_terminate(sim->avr);
    free(sim->avr);
    free(sim->to_bridge.items);
    free(sim->edges.items);
    free(sim->pulses.items);
    free(sim->from_bridge.items);
    free(sim);
}
