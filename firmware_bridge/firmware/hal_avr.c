#include "hal_avr.h"

#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <avr/wdt.h>

#include "proto.h"

#define BAUD_250000 3 /* UBRR with 16 samples a bit: 16 MHz / 16 / (3 + 1), exact */
#define REFERENCE_MV 1100UL
#define ADC_STEPS 1024

enum {
    TICK_TOP = 249,          /* timer 2 at 4 us: 1 ms */
    LAST_TICK = 39700,       /* timer 1 (half us) at the last tick of a frame, 150 us before its end */
    LAST_TICK_FROM = 38500,  /* the tick before comes at 37700 */
    FIRST_TICK = LAST_TICK % 2000,
    RX_RING = 64,            /* 2.5 ms of bytes; a power of two */
};

uint8_t hal_mcusr __attribute__((section(".noinit"))), hal_r2 __attribute__((section(".noinit")));

/* Before anything else: after a watchdog reset the watchdog goes on, with 16 ms. r2 first, as the compiler may use it. */
void __attribute__((naked, used, section(".init3"))) hal_first(void)
{
    uint8_t r2;
    __asm__ volatile("mov %0, r2" : "=r"(r2));
    hal_r2 = r2;
    hal_mcusr = MCUSR;
    MCUSR = 0;
    wdt_disable();
}

/* --- pulses ------------------------------------------------------------------------------------------------------
 * Timer 1, mode 14, makes both pulses in hardware: set at the bottom, cleared after OCR + 1 counts of 0.5 us. OCR has
 * one writer, at one place of the frame that is clear of every edge, so a frame is never a mix of two commands. Both timers
 * run on the same clock and are started together: the ticks keep their place in the frame for ever. */

bool hal_last_tick_of_frame(void)
{
    return TCNT1 > LAST_TICK_FROM;
}

uint16_t hal_frame_clock(void)
{
    return TCNT1;
}

void hal_write_pulses(struct pulses pulses)
{
    if (pulses.throttle == 0) {
        TCCR1A = _BV(WGM11); /* not connected: the pins stay low */
        return;
    }
    OCR1A = pulses.steering - 1;
    OCR1B = pulses.throttle - 1;
    TCCR1A = _BV(WGM11) | _BV(COM1A1) | _BV(COM1B1);
}

static void start_timers(void)
{
    DDRB |= _BV(DDB1) | _BV(DDB2); /* low until there is a config */
    GTCCR = _BV(TSM) | _BV(PSRASY) | _BV(PSRSYNC); /* both prescalers stand still ... */
    TCCR1A = _BV(WGM11);
    TCCR1B = _BV(WGM13) | _BV(WGM12);
    ICR1 = FRAME_HALF_US - 1; /* after the mode: the chip lets it be written only in modes that use it */
    TCCR1B |= _BV(CS11);
    TCNT1 = FIRST_TICK;
    TCCR2A = _BV(WGM21);
    TCCR2B = _BV(CS22);
    OCR2A = TICK_TOP;
    TCNT2 = 0;
    TIMSK2 = _BV(OCIE2A);
    GTCCR = 0; /* ... and go on together */
}

/* --- radio receiver ---------------------------------------------------------------------------------------------- */

enum { RADIO_PINS = 0x1C }; /* PD2, PD3, PD4 */

uint8_t hal_radio_pins(void)
{
    return (PIND & RADIO_PINS) >> 2;
}

void hal_listen_to_radio(bool on)
{
    PCMSK2 = on ? RADIO_PINS : 0; /* unused pins may pick up noise, which must not cost interrupts */
}

/* --- serial line ------------------------------------------------------------------------------------------------- */

static volatile uint8_t rx_ring[RX_RING], rx_head, rx_tail;
static uint8_t tx_wire[TX_WIRE_BYTES];
static volatile uint8_t tx_at, tx_size;
static uint16_t overruns;

ISR(USART_RX_vect)
{
    uint8_t status = UCSR0A, byte = UDR0, head = rx_head, next = (head + 1) % RX_RING;
    if (status & (_BV(FE0) | _BV(DOR0)))
        overruns++;
    if (next == rx_tail) {
        overruns++;
        return;
    }
    rx_ring[head] = byte;
    rx_head = next;
}

ISR(USART_UDRE_vect)
{
    uint8_t at = tx_at;
    UDR0 = tx_wire[at++];
    tx_at = at;
    if (at == tx_size)
        UCSR0B &= (uint8_t)~_BV(UDRIE0);
}

bool hal_receive(uint8_t *byte)
{
    uint8_t tail = rx_tail;
    if (tail == rx_head)
        return false;
    *byte = rx_ring[tail];
    rx_tail = (tail + 1) % RX_RING;
    return true;
}

bool hal_sending(void)
{
    return tx_at != tx_size;
}

void hal_send(const uint8_t *wire, uint8_t size)
{
    for (uint8_t at = 0; at < size; at++)
        tx_wire[at] = wire[at];
    tx_at = 0;
    tx_size = size;
    cli(); /* the receive interrupt does not write UCSR0B, but the sending one does */
    UCSR0B |= _BV(UDRIE0);
    sei();
}

uint16_t hal_overruns(void)
{
    return overruns;
}

static void start_serial(void)
{
    UCSR0A = 0; /* a bootloader may have left U2X on, which would double the rate */
    UBRR0 = BAUD_250000;
    UCSR0C = _BV(UCSZ01) | _BV(UCSZ00);
    UCSR0B = _BV(RXCIE0) | _BV(RXEN0) | _BV(TXEN0);
}

/* --- EEPROM ------------------------------------------------------------------------------------------------------ */

bool hal_eeprom_ready(void)
{
    return eeprom_is_ready();
}

uint8_t hal_eeprom_read(uint8_t at)
{
    return eeprom_read_byte((const uint8_t *)(uint16_t)at);
}

void hal_eeprom_write(uint8_t at, uint8_t byte)
{
    if (hal_eeprom_read(at) == byte)
        return;
    EEAR = at;
    EEDR = byte;
    cli(); /* EEPE has to follow EEMPE within four cycles */
    EECR = _BV(EEMPE);
    EECR |= _BV(EEPE);
    sei();
}

/* --- supply and sleep -------------------------------------------------------------------------------------------- */

uint16_t hal_supply_mv(void)
{
    uint16_t reading = ADC; /* of the 1.1 V reference, as a share of the supply */
    ADCSRA |= _BV(ADSC);    /* the next one, ready long before the next call */
    return reading == 0 ? 0 : (uint16_t)(REFERENCE_MV * ADC_STEPS / reading);
}

void hal_sleep_until_interrupt(void)
{
    cli();
    if (rx_head == rx_tail) {
        sleep_enable();
        sei(); /* takes effect after the next instruction: no interrupt comes between it and the sleep */
        sleep_cpu();
        sleep_disable();
    }
    sei();
}

void hal_start(void)
{
    PORTD |= RADIO_PINS; /* pulled up, so that a wire that is off gives no edges */
    PCICR = _BV(PCIE2);
    ADMUX = _BV(REFS0) | 0x0E;
    ADCSRA = _BV(ADEN) | 0x07; /* 125 kHz */
    set_sleep_mode(SLEEP_MODE_IDLE);
    start_serial();
    start_timers();
    wdt_enable(WDTO_60MS);
    sei();
}
