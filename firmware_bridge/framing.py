"""Frames on the serial line: COBS, CRC-16, and a decoder that finds them again after any noise. Pure.

A frame is ``00 COBS(payload, CRC low, CRC high) 00``; ``docs/bridge-protocol.md``, section Frame.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from firmware_bridge.errors import ProtocolError

DELIMITER = b"\x00"
CRC_BYTES = 2
MIN_FRAME = 3  # decoded: one byte of payload and the CRC
_LONGEST_BLOCK = 0xFF  # the code byte of 254 bytes with no zero after them

T = TypeVar("T")


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, not reflected; of ``b"123456789"`` it is 0x29B1."""
    return binascii.crc_hqx(data, 0xFFFF)


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker, 1999): no zero is left, one byte longer up to 254."""
    encoded = bytearray()
    parts = data.split(DELIMITER)
    for at, part in enumerate(parts):
        while len(part) >= _LONGEST_BLOCK - 1:
            encoded.append(_LONGEST_BLOCK)
            encoded += part[: _LONGEST_BLOCK - 1]
            part = part[_LONGEST_BLOCK - 1 :]
            if not part and at == len(parts) - 1:  # the end, just after a longest block: no zero to say
                return bytes(encoded)
        encoded.append(len(part) + 1)
        encoded += part
    return bytes(encoded)


def cobs_decode(encoded: bytes) -> bytes:
    """The inverse of `cobs_encode`.

    Raises:
        ProtocolError: a zero, or the last block is cut short.
    """
    if DELIMITER in encoded:
        raise ProtocolError("a zero byte inside of a COBS frame")
    decoded = bytearray()
    at = 0
    while at < len(encoded):
        code = encoded[at]
        block = encoded[at + 1 : at + code]
        if len(block) != code - 1:
            raise ProtocolError(f"a COBS block of {code - 1} bytes is cut short after {len(block)}")
        decoded += block
        at += code
        if code != _LONGEST_BLOCK and at < len(encoded):
            decoded.append(0)
    return bytes(decoded)


def frame(payload: bytes) -> bytes:
    """The bytes on the wire for one payload. The delimiter before it ends whatever noise came earlier."""
    return DELIMITER + cobs_encode(payload + crc16(payload).to_bytes(CRC_BYTES, "little")) + DELIMITER


@dataclass
class FrameCounters:
    """Every frame that was received is in exactly one of them."""

    good: int = 0
    crc_errors: int = 0
    frame_errors: int = 0


class Decoder(Generic[T]):
    """Bytes in, messages out, in any pieces. Broken frames are counted and left out, and the next one is found.

    Args:
        parse: a payload's message; raises `ProtocolError` for one that it does not know.
        longest: the longest frame in decoded bytes, CRC included, that there is; more is a frame error.
    """

    def __init__(self, parse: Callable[[bytes], T], longest: int) -> None:
        self._parse = parse
        self._longest = longest
        self._pending = bytearray()
        self._room = longest + longest // (_LONGEST_BLOCK - 1) + 1  # of the longest frame, encoded
        self.counters = FrameCounters()

    def feed(self, data: bytes) -> list[T]:
        """Take what has come; the messages that are complete now. Keeps at most one frame's bytes."""
        messages = []
        pieces = data.split(DELIMITER)
        for piece in pieces[:-1]:
            self._keep(piece)
            encoded, self._pending = bytes(self._pending), bytearray()
            if encoded:
                message = self._judge(encoded)
                if message is not None:
                    messages.append(message)
        self._keep(pieces[-1])
        return messages

    def reset(self) -> None:
        """Forget a frame that has begun: the line was opened anew. The counters stay."""
        self._pending.clear()

    def _keep(self, piece: bytes) -> None:
        # One byte more than there is room for: enough to know that it is too long, and noise cannot fill the memory.
        self._pending += piece[: max(0, self._room + 1 - len(self._pending))]

    def _judge(self, encoded: bytes) -> T | None:
        """In the order of the protocol: length and COBS, CRC, then type and length of the type."""
        try:
            decoded = cobs_decode(encoded) if len(encoded) <= self._room else b""
        except ProtocolError:
            decoded = b""
        if not MIN_FRAME <= len(decoded) <= self._longest:
            self.counters.frame_errors += 1
            return None
        payload, crc = decoded[:-CRC_BYTES], int.from_bytes(decoded[-CRC_BYTES:], "little")
        if crc16(payload) != crc:
            self.counters.crc_errors += 1
            return None
        try:
            message = self._parse(payload)
        except ProtocolError:
            self.counters.frame_errors += 1
            return None
        self.counters.good += 1
        return message
