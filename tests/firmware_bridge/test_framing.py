"""COBS, CRC and the decoder: against PyPI's cobs, and against all the noise that hypothesis finds."""

from __future__ import annotations

import pytest
from cobs import cobs  # the oracle
from hypothesis import example, given
from hypothesis import strategies as st

from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Decoder, cobs_decode, cobs_encode, crc16, frame

LONGEST = 42
PAYLOADS = st.binary(min_size=1, max_size=LONGEST - 2)
# Dense where it is hard: zeros, code bytes, the bytes around a longest block.
TRICKY = st.lists(st.sampled_from([b"\0", b"\1", b"\2", b"\xff", b"\xfe"]), max_size=600).map(b"".join)


def everything(payload: bytes) -> bytes:
    return payload


def decoder() -> Decoder[bytes]:
    return Decoder(everything, LONGEST)


def test_check_value_of_the_crc() -> None:
    assert crc16(b"123456789") == 0x29B1


@given(st.binary(max_size=1200) | TRICKY)
@example(b"\x01" * 253)
@example(b"\x01" * 254)
@example(b"\x01" * 255)
@example(b"\x01" * 254 + b"\0")
@example(b"\0" + b"\x01" * 508)
def test_cobs_agrees_with_another_implementation(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert encoded == cobs.encode(data)
    assert b"\0" not in encoded
    assert cobs_decode(encoded) == data


@given(st.binary(max_size=300) | TRICKY)
def test_cobs_decodes_or_refuses_what_the_other_does(encoded: bytes) -> None:
    try:
        expected = cobs.decode(encoded)
    except cobs.DecodeError:
        with pytest.raises(ProtocolError):
            cobs_decode(encoded)
    else:
        assert cobs_decode(encoded) == expected


@given(st.lists(PAYLOADS, max_size=6), st.data())
def test_frames_in_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    found = decoder()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += found.feed(stream[start:end])
    assert got == payloads
    assert (found.counters.good, found.counters.crc_errors, found.counters.frame_errors) == (len(payloads), 0, 0)


@given(st.lists(st.tuples(st.binary(max_size=80), PAYLOADS), max_size=8))
def test_every_frame_is_found_in_any_noise(stream: list[tuple[bytes, bytes]]) -> None:
    found = decoder()
    got = found.feed(b"".join(noise + frame(payload) for noise, payload in stream))
    wanted = [payload for _, payload in stream]
    # Noise may contain a whole frame by chance; the ones that were sent are all there, in order.
    rest = iter(got)
    assert all(payload in rest for payload in wanted)
    assert found.counters.good == len(got)


@given(PAYLOADS, st.data())
def test_one_flipped_bit_is_never_taken_for_a_message(payload: bytes, data: st.DataObject) -> None:
    good = frame(payload)
    at = data.draw(st.integers(1, len(good) - 2))
    bad = bytearray(good)
    bad[at] ^= 1 << data.draw(st.integers(0, 7))
    found = decoder()
    assert payload not in found.feed(bytes(bad))
    assert found.feed(good) == [payload]


@pytest.mark.parametrize(
    ("wire", "counter"),
    [
        (b"\x05ab\0", "frame_errors"),  # the block is cut short
        (b"\x03ab\0", "frame_errors"),  # fewer than three bytes
        (b"\x04abc\0", "crc_errors"),
        (cobs_encode(bytes(43)) + b"\0", "frame_errors"),  # too long
        (b"\x01" * 5000 + b"\0", "frame_errors"),
        (frame(b"x")[1:], "frame_errors"),  # refused by the parser
    ],
)
def test_each_fault_is_counted_once_in_its_own_counter(wire: bytes, counter: str) -> None:
    def refuse(payload: bytes) -> bytes:
        raise ProtocolError("no")

    found = Decoder(refuse, LONGEST)
    assert found.feed(b"\0\0" + wire + b"\0\0") == []
    assert {name: count for name, count in vars(found.counters).items() if count} == {counter: 1}


def test_the_longest_frame_fits_and_noise_without_end_takes_no_memory() -> None:
    found = decoder()
    assert found.feed(frame(b"\x01" * 40)) == [b"\x01" * 40]
    for _ in range(1000):
        assert found.feed(b"\x7f" * 1000) == []
    assert len(found._pending) <= LONGEST + 2
    assert found.feed(frame(b"after")) == [b"after"]


def test_reset_forgets_what_has_begun_and_keeps_the_counters() -> None:
    found = decoder()
    found.feed(frame(b"one") + frame(b"two")[:-2])
    found.reset()
    assert found.feed(frame(b"two")[-2:]) == []
    assert found.feed(frame(b"three")) == [b"three"]
    assert found.counters.good == 2


def test_cobs_refuses_a_zero() -> None:
    with pytest.raises(ProtocolError, match="zero byte"):
        cobs_decode(b"\x02a\x00")
