from __future__ import annotations

import ctypes
import random
import re
import struct
from pathlib import Path

import pytest

from tests.firmware import wire
from tests.firmware.rigs import BAD_CRC, BAD_FRAME, FRAME, NOTHING, Native

PAGE = Path(__file__).resolve().parents[2] / "docs/bridge-protocol.md"


def encode(library: ctypes.CDLL, payload: bytes) -> bytes:
    room = ctypes.create_string_buffer(b"\xa5" * 64)
    size = library.native_encode(payload, len(payload), room)
    return room.raw[:size]


def decode(library: ctypes.CDLL, stream: bytes) -> tuple[int, bytes]:
    """The last event of a stream, and its payload."""
    room, event = ctypes.create_string_buffer(64), ctypes.c_uint32()
    size = library.native_decode(stream, len(stream), room, ctypes.byref(event))
    return event.value, room.raw[:size]


def test_the_crc_is_ccitt_false(library: ctypes.CDLL) -> None:
    assert encode(library, b"123456789")[-3:-1] == struct.pack("<H", 0x29B1)


def test_encodes_as_the_reference_does(library: ctypes.CDLL) -> None:
    source = random.Random(1)
    for size in range(41):
        for zeros in (0.0, 0.3, 1.0):
            payload = bytes(0 if source.random() < zeros else source.randrange(256) for _ in range(size))
            assert encode(library, payload) == wire.frame(payload)


def test_decodes_what_the_reference_encodes(library: ctypes.CDLL) -> None:
    source = random.Random(2)
    for size in range(1, 19):
        for zeros in (0.0, 0.3, 1.0):
            payload = bytes(0 if source.random() < zeros else source.randrange(256) for _ in range(size))
            assert decode(library, wire.frame(payload)) == (FRAME, payload)


def test_a_frame_of_20_bytes_is_the_longest(library: ctypes.CDLL) -> None:
    assert decode(library, wire.frame(bytes(range(18)))) == (FRAME, bytes(range(18)))
    assert decode(library, wire.frame(bytes(range(19)))) == (BAD_FRAME, b"")
    assert decode(library, wire.frame(bytes(19))) == (BAD_FRAME, b"")
    assert decode(library, wire.frame(bytes(200))) == (BAD_FRAME, b"")


def test_a_crc_alone_is_no_frame(library: ctypes.CDLL) -> None:
    assert decode(library, wire.frame(b"")) == (BAD_FRAME, b"")
    assert decode(library, b"\x02\x41\x00") == (BAD_FRAME, b"")


def test_a_block_cut_short_is_no_frame(library: ctypes.CDLL) -> None:
    # The last code byte promises one byte more than there is.
    whole = wire.frame(b"\x04\x41\x42")
    assert whole[1] == 6
    assert decode(library, whole) == (FRAME, b"\x04\x41\x42")
    assert decode(library, b"\0\x07" + whole[2:]) == (BAD_FRAME, b"")


def test_empty_frames_are_nothing(library: ctypes.CDLL) -> None:
    assert decode(library, bytes(50)) == (NOTHING, b"")


def test_no_single_flipped_bit_gets_through(library: ctypes.CDLL) -> None:
    payload = wire.command(77, 2900, 2892)
    good = wire.frame(payload)
    for bit in range(8, len(good) * 8 - 8):  # the delimiters around it left aside
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        event, _ = decode(library, bytes(bad))
        assert event in (BAD_CRC, BAD_FRAME)


def test_a_wrong_crc_is_told_from_a_broken_frame(library: ctypes.CDLL) -> None:
    good = wire.frame(wire.command(77, 2900, 2892))
    assert decode(library, good[:-2] + bytes([good[-2] ^ 1]) + b"\0") == (BAD_CRC, b"")
    for place in (1, 2):  # low and high byte of the CRC, whichever they are
        assert decode(library, good[: -1 - place] + b"\x01" + good[-place:]) == (BAD_CRC, b"")


def test_decodes_again_after_any_noise(library: ctypes.CDLL) -> None:
    source = random.Random(3)
    payload = wire.command(5, 2900, 2892)
    for _ in range(300):
        noise = bytes(source.randrange(256) for _ in range(source.randrange(80)))
        assert decode(library, noise + wire.frame(payload)) == (FRAME, payload)


def test_counts_each_frame_once(native: Native) -> None:
    native.hello()
    before = native.look()
    good = wire.frame(bytes([wire.DISARM]))
    native.send_raw(good + good[:-2] + b"\x55\0" + b"\0\x09\x01\0" + wire.frame(b"\x07") + wire.frame(b"\x04\x01"))
    after = native.look()
    assert after.good - before.good == 1
    assert after.crc_errors - before.crc_errors == 1
    assert after.frame_errors - before.frame_errors == 3  # cut short, unknown type, wrong length
    assert [event for event, _ in native.accepted()][-5:] == [FRAME, BAD_CRC, BAD_FRAME, FRAME, FRAME]


@pytest.mark.parametrize("kind", sorted(wire.HOST_LENGTHS))
def test_each_type_has_its_length(native: Native, kind: int) -> None:
    size = wire.HOST_LENGTHS[kind]
    for wrong in (size - 1, size + 1):
        if 1 <= wrong <= 18:
            native.send(bytes([kind]) + bytes(wrong - 1))
    assert (native.look().good, native.look().frame_errors) == (0, 1 if size in (1, 18) else 2)
    native.send(bytes([kind]) + bytes(size - 1))
    assert native.look().good == 1


def test_unknown_types_move_nothing(native: Native) -> None:
    native.arm()
    for kind in [*range(7, 256), 0]:
        for size in (1, 4, 7, 18):
            native.send(bytes([kind]) + bytes(size - 1))
    assert native.look().state == wire.ARMED
    assert native.look().frame_errors == 250 * 4


def test_the_examples_of_the_page(library: ctypes.CDLL) -> None:
    rows = re.findall(r"^\| (.+?) \| `((?:[0-9a-f]{2} )+[0-9a-f]{2})` \|$", PAGE.read_text(), re.MULTILINE)
    frames = {name.split(",")[0]: bytes.fromhex(text) for name, text in rows}
    limits = wire.Config(0, (2900, 2400, 3400), (2892, 2622, 3207), 0, 60)
    expected = {
        "HELLO": wire.hello(0x1234),
        "CONFIG": wire.config(limits),
        "COMMAND 256": wire.command(256, 2900, 2892),
        "ESTOP": bytes([wire.ESTOP]),
        "RESET": bytes([wire.RESET]),
        "DISARM": bytes([wire.DISARM]),
    }
    assert len(frames) == 9
    for name, payload in expected.items():
        assert frames[name] == wire.frame(payload) == encode(library, payload)
        assert decode(library, frames[name]) == (FRAME, payload)
    hello, echo, telemetry = (
        next(iter(wire.messages(frames[name])))
        for name in ("HELLO reply 1.0.0", "CONFIG echo of the CONFIG above", "TELEMETRY 61.000 s")
    )
    assert hello == wire.HelloReply(wire.HELLO_REPLY, 1, 1, 0, 0, 7, 2, wire.DISARMED, 0x1234, 80, 20000)
    assert echo == wire.Echo(wire.ECHO, 0, 1, limits.fields)
    assert telemetry == wire.Telemetry(
        wire.TELEMETRY, 61000, wire.ARMED, 0x17, 5, 256, 12, 2900, 2892, 300, *[0] * 7, 2, 0, 0, 0, 4980
    )


def test_the_reference_agrees_with_the_cobs_package() -> None:
    cobs = pytest.importorskip("cobs.cobs", reason="the cobs package is not installed: pip install cobs")
    source = random.Random(4)
    for _ in range(5000):
        data = bytes(source.choice((0, source.randrange(256))) for _ in range(source.randrange(60)))
        assert wire.cobs_encode(data) == cobs.encode(data)
        assert wire.cobs_decode(cobs.encode(data)) == data
        noise = bytes(source.randrange(1, 40) for _ in range(source.randrange(1, 30)))
        try:
            expected = cobs.decode(noise)
        except cobs.DecodeError:
            expected = None
        assert wire.cobs_decode(noise) == expected
