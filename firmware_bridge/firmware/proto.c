#include "proto.h"

uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | (uint16_t)at[1] << 8);
}

uint8_t *put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    return at + 2;
}

/* Polynomial 0x1021 without a table or a loop over bits: about 40 cycles a byte on the AVR. */
uint16_t proto_crc(const uint8_t *bytes, uint8_t size)
{
    uint16_t crc = 0xFFFF;
    for (uint8_t at = 0; at < size; at++) {
        uint8_t high = (uint8_t)(crc >> 8 ^ bytes[at]);
        high ^= high >> 4;
        crc = (uint16_t)(crc << 8 ^ (uint16_t)high << 12 ^ (uint16_t)high << 5 ^ high);
    }
    return crc;
}

static void take(struct decoder *decoder, uint8_t byte)
{
    if (decoder->length < RX_BYTES)
        decoder->bytes[decoder->length++] = byte;
    else
        decoder->broken = true;
}

static enum proto_event finish(struct decoder *decoder)
{
    if (!decoder->started)
        return PROTO_NOTHING;
    if (decoder->broken || decoder->left != 0 || decoder->length < CRC_BYTES + 1)
        return PROTO_BAD_FRAME;
    decoder->size = (uint8_t)(decoder->length - CRC_BYTES);
    if (proto_crc(decoder->bytes, decoder->size) != get_u16(decoder->bytes + decoder->size))
        return PROTO_BAD_CRC;
    return PROTO_FRAME;
}

enum proto_event proto_feed(struct decoder *decoder, uint8_t byte)
{
    if (byte == 0) {
        enum proto_event event = finish(decoder);
        decoder->length = decoder->left = 0;
        decoder->started = decoder->broken = false;
        return event;
    }
    if (decoder->left > 0) {
        take(decoder, byte);
        decoder->left--;
    } else {
        /* A code byte. Each block but the last stands for a zero after it; a full block of 254 bytes, which does
         * not, is longer than any frame here. */
        if (decoder->started)
            take(decoder, 0);
        decoder->started = true;
        decoder->left = (uint8_t)(byte - 1);
    }
    return PROTO_NOTHING;
}

struct cobs {
    uint8_t *code, *end; /* the code byte of the open block; where the next byte goes */
};

static void put(struct cobs *cobs, uint8_t byte)
{
    if (byte != 0) {
        *cobs->end++ = byte;
        ++*cobs->code;
    } else {
        cobs->code = cobs->end++;
        *cobs->code = 1;
    }
}

uint8_t proto_encode(const uint8_t *payload, uint8_t size, uint8_t *wire)
{
    struct cobs cobs = {.code = wire, .end = wire + 1};
    uint8_t crc[CRC_BYTES];
    put_u16(crc, proto_crc(payload, size));
    wire[0] = 0;
    put(&cobs, 0); /* opens the first block */
    for (uint8_t at = 0; at < size; at++)
        put(&cobs, payload[at]);
    put(&cobs, crc[0]);
    put(&cobs, crc[1]);
    *cobs.end++ = 0;
    return (uint8_t)(cobs.end - wire);
}
