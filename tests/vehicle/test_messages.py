"""The pilot's messages are decoded whole and exactly, or refused with a named fault."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vehicle.gate_rig import an_intent
from vehicle.errors import VehicleError
from vehicle.messages import FAULTS, MAX_BYTES, Alive, Intent, MessageError, decode, encode

ALIVE = Alive("pilot", 12.5, 7, 12.25)


def plain(message: Intent | Alive = ALIVE, **changes: Any) -> bytes:
    found = {**json.loads(encode(message)), **changes}
    return json.dumps({key: value for key, value in found.items() if value is not ...}).encode()


def fault_of(data: bytes) -> str:
    with pytest.raises(MessageError) as caught:
        decode(data)
    assert isinstance(caught.value, (VehicleError, ValueError)) and caught.value.fault in FAULTS
    assert str(caught.value).startswith(caught.value.fault)
    return caught.value.fault


def test_both_come_back_as_they_were_sent() -> None:
    for message in (ALIVE, an_intent(steering_deg=-12.5, model_max_mps=4.0)):
        assert decode(encode(message)) == message
        assert b"\n" not in encode(message)


@given(st.builds(Alive, st.text(max_size=40), st.floats(), st.integers(0, 2**63 - 1), st.floats()))
@settings(max_examples=200, deadline=None)
def test_any_float_survives(message: Alive) -> None:
    found = decode(encode(message))
    assert repr(found) == repr(message)


def test_nan_and_infinity_are_numbers_here() -> None:
    intent = decode(encode(an_intent(steering_deg=math.nan, speed_mps=math.inf, inference_ms=-math.inf)))
    assert isinstance(intent, Intent)
    assert math.isnan(intent.steering_deg) and intent.speed_mps == math.inf and intent.inference_ms == -math.inf
    assert decode(plain().replace(b"12.25", b"1e999")) == Alive("pilot", 12.5, 7, math.inf)


def test_whole_numbers_become_floats() -> None:
    found = decode(plain(stamp_s=3))
    assert found == Alive("pilot", 3.0, 7, 12.25) and isinstance(found.stamp_s, float)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * MAX_BYTES, "not_json"),
        (plain() + b"x", "not_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"intent"', "not_an_object"),
        (b'{"type":"alive","type":"intent"}', "duplicate_key"),
        (plain()[:-1] + b',"stamp_s":1.0}', "duplicate_key"),
        (plain()[:-1] + b',"more":{"a":1,"a":1}}', "duplicate_key"),
        (b"{}", "unknown_type"),
        (plain(type="order"), "unknown_type"),
        (plain(type=["alive"]), "unknown_type"),
        (plain(type=None), "unknown_type"),
        (plain(type="intent"), "missing_key"),
        (plain(frame_seq=...), "missing_key"),
        (plain(throttle=1.0), "unknown_key"),
        (plain(source=1), "wrong_type"),
        (plain(source=None), "wrong_type"),
        (plain(frame_seq=1.0), "wrong_type"),
        (plain(frame_seq=True), "wrong_type"),
        (plain(frame_seq="1"), "wrong_type"),
        (plain(stamp_s=False), "wrong_type"),
        (plain(stamp_s="1.0"), "wrong_type"),
        (plain(stamp_s=[1.0]), "wrong_type"),
        (plain(stamp_s={"a": "b" * 100}), "wrong_type"),
        (plain(stamp_s=10**400), "out_of_range"),
        (plain(frame_seq=-1), "out_of_range"),
        (plain(frame_seq=2**63), "out_of_range"),
        (plain(source="p" * 129), "out_of_range"),
    ],
)
def test_each_mistake_has_its_name(data: bytes, fault: str) -> None:
    assert fault_of(data) == fault


def test_the_limits_themselves_are_allowed() -> None:
    assert decode(plain(frame_seq=2**63 - 1)).frame_seq == 2**63 - 1
    assert decode(plain(frame_seq=0)).frame_seq == 0
    assert decode(plain(source="p" * 128)).source == "p" * 128
    assert MAX_BYTES == 4096
    padded = plain() + b" " * (MAX_BYTES - len(plain()))
    assert decode(padded) == ALIVE
    assert fault_of(padded + b" ") == "too_large"


def test_errors_quote_a_little_of_what_was_there() -> None:
    for length in (58, 59):  # 60 characters with the quotation marks are shown whole
        with pytest.raises(MessageError) as caught:
            decode(plain(type="x" * length))
        assert ("x" * length in str(caught.value)) is (length == 58)
        assert (" 'xxxx" + "x" * 52 + "..., not" in str(caught.value)) is (length == 59)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


@given(st.dictionaries(st.sampled_from(["type", "source", "stamp_s", "frame_seq", "frame_stamp_s"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["alive", "intent", "pilot"]),
    lambda inner: st.lists(inner, max_size=3), max_leaves=4)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_is_decoded_has_the_right_types(found: dict[str, Any]) -> None:
    try:
        message = decode(json.dumps(found).encode())
    except MessageError:
        return
    assert isinstance(message, Alive) and isinstance(message.source, str) and type(message.frame_seq) is int
    assert type(message.stamp_s) is float and type(message.frame_stamp_s) is float
