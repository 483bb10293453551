/* Frames on the wire: COBS, CRC-16/CCITT-FALSE, little-endian fields. Layouts: docs/bridge-protocol.md. */
#ifndef BRIDGE_PROTO_H
#define BRIDGE_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1

enum {
    CRC_BYTES = 2,
    HELLO_BYTES = 4,
    CONFIG_BYTES = 18,
    COMMAND_BYTES = 7,
    BARE_BYTES = 1,
    TELEMETRY_BYTES = 40,
    RX_BYTES = CONFIG_BYTES + CRC_BYTES,      /* the longest frame that the bridge takes, decoded */
    TX_BYTES = TELEMETRY_BYTES,               /* the longest payload that it sends */
    TX_WIRE_BYTES = TX_BYTES + CRC_BYTES + 3, /* one COBS code byte and two delimiters more */
};

enum message {
    MESSAGE_HELLO = 0x01,
    MESSAGE_CONFIG = 0x02,
    MESSAGE_COMMAND = 0x03,
    MESSAGE_ESTOP = 0x04,
    MESSAGE_RESET = 0x05,
    MESSAGE_DISARM = 0x06,
    MESSAGE_HELLO_REPLY = 0x81,
    MESSAGE_TELEMETRY = 0x82,
    MESSAGE_ECHO = 0x83,
};

enum proto_event { PROTO_NOTHING, PROTO_FRAME, PROTO_BAD_FRAME, PROTO_BAD_CRC };

struct decoder {
    uint8_t bytes[RX_BYTES]; /* decoded so far; after PROTO_FRAME the payload, until the next proto_feed */
    uint8_t size;            /* of that payload */
    uint8_t length;          /* bytes decoded so far */
    uint8_t left;            /* bytes that the current COBS block still has */
    bool started, broken;    /* any byte since the delimiter; longer than RX_BYTES */
};

/* Take one byte from the wire. PROTO_FRAME: bytes[0..size) is a payload whose CRC was right. */
enum proto_event proto_feed(struct decoder *decoder, uint8_t byte);

/* Write the frame of a payload of at most TX_BYTES, delimiters included, to wire[TX_WIRE_BYTES]; returns its length. */
uint8_t proto_encode(const uint8_t *payload, uint8_t size, uint8_t *wire);

uint16_t proto_crc(const uint8_t *bytes, uint8_t size);
uint16_t get_u16(const uint8_t *at);
uint8_t *put_u16(uint8_t *at, uint16_t value); /* returns where the next field goes */

#endif
