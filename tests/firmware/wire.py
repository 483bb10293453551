"""The bridge's protocol a second time, for tests: written from docs/bridge-protocol.md, shares nothing with either side."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable
from typing import NamedTuple

HELLO, CONFIG, COMMAND, ESTOP, RESET, DISARM = 1, 2, 3, 4, 5, 6
HELLO_REPLY, TELEMETRY, ECHO = 0x81, 0x82, 0x83
HOST_LENGTHS = {HELLO: 4, CONFIG: 18, COMMAND: 7, ESTOP: 1, RESET: 1, DISARM: 1}
LONGEST_TO_BRIDGE = 20  # payload and CRC
UNCONFIGURED, DISARMED, ARMED, FAILSAFE, STOPPED, OVERRIDE = range(6)


def crc(data: bytes) -> int:
    return binascii.crc_hqx(data, 0xFFFF)


def cobs_encode(data: bytes) -> bytes:
    """COBS of less than 254 bytes."""
    return b"".join(bytes([len(part) + 1]) + part for part in data.split(b"\0"))


def cobs_decode(data: bytes) -> bytes | None:
    """The data, or None where a block is cut short. Blocks of 254 bytes do not occur in this protocol."""
    parts = []
    while data:
        size = data[0]
        part, data = data[1:size], data[size:]
        if len(part) != size - 1:
            return None
        parts.append(part)
    return b"\0".join(parts)


def frame(payload: bytes) -> bytes:
    return b"\0" + cobs_encode(payload + struct.pack("<H", crc(payload))) + b"\0"


class Decoded(NamedTuple):
    """What a receiver of a whole stream has to find in it, in order."""

    payloads: list[bytes]  # with the right CRC, whatever they are
    crc_errors: int
    frame_errors: int  # of the frame alone: a payload of an unknown type or length is not counted here


def decode(stream: bytes, longest: int) -> Decoded:
    """Decode a stream that begins after a delimiter. Bytes after the last delimiter are left aside."""
    payloads, crc_errors, frame_errors = [], 0, 0
    for part in stream.split(b"\0")[:-1]:
        if not part:
            continue
        data = cobs_decode(part)
        if data is None or not 3 <= len(data) <= longest:
            frame_errors += 1
        elif crc(data[:-2]) != struct.unpack("<H", data[-2:])[0]:
            crc_errors += 1
        else:
            payloads.append(data[:-2])
    return Decoded(payloads, crc_errors, frame_errors)


def known(payload: bytes) -> bool:
    """Whether the bridge has to count this payload as good."""
    return HOST_LENGTHS.get(payload[0]) == len(payload)


class Config(NamedTuple):
    """Half microseconds."""

    flags: int = 0
    steering: tuple[int, int, int] = (2900, 2000, 4000)  # neutral, min, max
    throttle: tuple[int, int, int] = (2892, 2000, 4000)
    steering_slew: int = 0
    throttle_slew: int = 0

    @property
    def fields(self) -> bytes:
        return struct.pack("<B8H", self.flags, *self.steering, *self.throttle, self.steering_slew, self.throttle_slew)


def hello(nonce: int = 1, protocol: int = 1) -> bytes:
    return struct.pack("<BBH", HELLO, protocol, nonce)


def config(values: Config) -> bytes:
    return bytes([CONFIG]) + values.fields


def command(sequence: int, steering: int, throttle: int) -> bytes:
    return struct.pack("<BHHH", COMMAND, sequence & 0xFFFF, steering, throttle)


class HelloReply(NamedTuple):
    type: int
    protocol: int
    major: int
    minor: int
    patch: int
    features: int
    reset_cause: int
    state: int
    nonce: int
    timeout_ms: int
    frame_us: int


class Echo(NamedTuple):
    type: int
    result: int
    stored: int
    fields: bytes


class Telemetry(NamedTuple):
    type: int
    uptime_ms: int
    state: int
    flags: int
    neutral_frames: int
    last_sequence: int
    age_ms: int
    steering: int
    throttle: int
    good: int
    crc_errors: int
    frame_errors: int
    range_refused: int
    sequence_refused: int
    state_refused: int
    timeouts: int
    overruns: int
    reset_cause: int
    radio_state: int
    radio_steering: int
    radio_throttle: int
    supply_mv: int

    @property
    def session(self) -> bool:
        return bool(self.flags & 1)

    @property
    def configured(self) -> bool:
        return bool(self.flags & 2)

    @property
    def stored(self) -> bool:
        return bool(self.flags & 4)

    @property
    def writing(self) -> bool:
        return bool(self.flags & 8)

    @property
    def alive(self) -> bool:
        return bool(self.flags & 16)


Message = HelloReply | Echo | Telemetry


def parse(payload: bytes) -> Message:
    """A message of the bridge; ValueError or struct.error if it is none."""
    if payload[0] == HELLO_REPLY:
        return HelloReply(*struct.unpack("<BBBBBHBBHHH", payload))
    if payload[0] == TELEMETRY:
        return Telemetry(*struct.unpack("<BIBBBHHHHHHHHHHHHBBHHH", payload))
    if payload[0] == ECHO and len(payload) == 20:
        return Echo(payload[0], payload[1], payload[2], payload[3:])
    raise ValueError(f"no message of the bridge: {payload.hex(' ')}")


def messages(stream: bytes) -> Iterable[Message]:
    """All messages of a clean stream of the bridge; AssertionError when it is not clean."""
    found = decode(stream, 42)
    assert found.crc_errors == found.frame_errors == 0, "the bridge sent a broken frame"
    return [parse(payload) for payload in found.payloads]
