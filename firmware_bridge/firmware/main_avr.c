/* The program on the ATmega328P: a main loop for the serial line, and interrupts for everything that has a deadline.
 *
 *   timer 2, every millisecond     ages, timeouts; once a servo frame decides both pulses and writes them
 *   serial receive, serial send    one byte each, to and from ring buffers
 *   pin change                     edges of the radio receiver
 *
 * Interrupts do not nest. What the timer interrupt and the main loop share is `bridge`; the main loop touches it with
 * interrupts off, for 60 us at most: the serial receiver holds 120 us of bytes. */
#include <avr/interrupt.h>
#include <avr/wdt.h>
#include <util/atomic.h>

#include "bridge.h"
#include "hal_avr.h"

static struct bridge bridge;
static struct decoder decoder;
static volatile uint8_t frames; /* servo frames so far */

ISR(TIMER2_COMPA_vect)
{
    bridge_tick(&bridge);
    if (hal_last_tick_of_frame()) {
        hal_write_pulses(bridge_frame(&bridge));
        frames++;
    }
}

ISR(PCINT2_vect)
{
    uint8_t pins = hal_radio_pins();
    uint16_t clock = hal_frame_clock();
    radio_edge(&bridge.machine.radio, RADIO_STEERING, pins & 1, clock);
    radio_edge(&bridge.machine.radio, RADIO_THROTTLE, pins & 2, clock);
    radio_edge(&bridge.machine.radio, RADIO_SWITCH, pins & 4, clock);
}

/* Only here, and only once a servo frame: a hung main loop, a stopped timer and a dead timer interrupt all end in a
 * reset. */
static void feed_watchdog(void)
{
    static uint8_t fed;
    uint8_t now = frames;
    if (now != fed) {
        fed = now;
        wdt_reset();
        uint16_t supply_mv = hal_supply_mv();
        ATOMIC_BLOCK(ATOMIC_FORCEON) { bridge.supply_mv = supply_mv; }
    }
}

static void receive(void)
{
    uint8_t byte;
    while (hal_receive(&byte)) {
        enum proto_event event = proto_feed(&decoder, byte);
        if (event != PROTO_NOTHING)
            ATOMIC_BLOCK(ATOMIC_FORCEON) { bridge_receive(&bridge, event, decoder.bytes, decoder.size); }
    }
}

static void transmit(void)
{
    uint8_t payload[TX_BYTES], wire[TX_WIRE_BYTES], size = 0;
    if (hal_sending())
        return;
    ATOMIC_BLOCK(ATOMIC_FORCEON)
    {
        bridge.overruns = hal_overruns();
        size = bridge_transmit(&bridge, payload);
    }
    if (size > 0)
        hal_send(wire, proto_encode(payload, size, wire));
}

/* One turn of the main loop. A function of its own, so that a test can hang it by its address. */
void __attribute__((noinline)) turn(void)
{
    feed_watchdog();
    receive();
    bridge_keep(&bridge);
    transmit();
    hal_listen_to_radio(bridge.machine.radio.enabled);
    hal_sleep_until_interrupt();
}

int main(void)
{
    bridge_init(&bridge, bridge_reset_cause(hal_mcusr, hal_r2));
    hal_start();
    for (;;)
        turn();
}
