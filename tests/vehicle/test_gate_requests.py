"""The form of requests: what is not exactly one of them is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehicle.arming import Blocked
from vehicle.errors import GateError
from vehicle.gate_requests import RequestRefused, parse_request

SHA = "0123456789abcdef" * 4
GOOD: list[dict[str, Any]] = [
    {"op": "stop"},
    {"op": "disarm"},
    {"op": "reset"},
    {"op": "status"},
    {"op": "arm", "mode": "autonomous"},
    {"op": "arm", "mode": "manual", "lease": "manual-1"},
    {"op": "arm", "mode": "calibration", "lease": "c"},
    {"op": "lease", "kind": "manual", "holder": "Télephone 2"},
    {"op": "lease", "kind": "calibration", "holder": "h" * 128},
    {"op": "renew", "lease": "x"},
    {"op": "release", "lease": "x"},
    {"op": "manual", "lease": "x", "steering": -1.0, "throttle": 1.0},
    {"op": "manual", "lease": "x", "steering": 1.0, "throttle": -1.0},
    {"op": "pulse", "lease": "x"},
    {"op": "pulse", "lease": "x", "steering_us": 900.0},
    {"op": "pulse", "lease": "x", "throttle_us": 2100.0},
    {"op": "pulse", "lease": "x", "steering_us": 2100.0, "throttle_us": 900.0},
    {"op": "cap", "percent": 0.0},
    {"op": "cap", "percent": 100.0},
    {"op": "model", "sha256": SHA, "trial": True},
]


@pytest.mark.parametrize("message", GOOD, ids=str)
def test_good_requests_come_through_as_they_are(message: dict[str, Any]) -> None:
    op, values = parse_request(message)
    assert {"op": op, **values} == message


def reason_of(message: object) -> str:
    with pytest.raises(RequestRefused) as caught:
        parse_request(message)
    reply = caught.value.reply()
    assert reply["ok"] is False and reply["what"] and reply["blocked"] == []
    assert set(reply) == {"ok", "reason", "what", "cause", "next", "blocked"}
    return str(reply["reason"])


MANUAL = {"op": "manual", "lease": "x", "steering": 0.0, "throttle": 0.0}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, "not_an_object"),
        ([], "not_an_object"),
        ("stop", "not_an_object"),
        ({}, "unknown_op"),
        ({"op": None}, "unknown_op"),
        ({"op": 3}, "unknown_op"),
        ({"op": ["stop"]}, "unknown_op"),
        ({"op": "Stop"}, "unknown_op"),
        ({"op": "calibration"}, "unknown_op"),
        ({"op": "reset", "now": True}, "unknown_key"),
        ({"op": "status", 5: 6}, "unknown_key"),
        ({"op": "pulse", "lease": "x", "steering": 1500.0}, "unknown_key"),
        ({"op": "arm"}, "missing_key"),
        ({"op": "renew"}, "missing_key"),
        ({"op": "manual", "lease": "x", "steering": 0.0}, "missing_key"),
        ({"op": "arm", "mode": None}, "wrong_type"),
        ({"op": "arm", "mode": "disarmed"}, "out_of_range"),
        ({"op": "arm", "mode": "stopped"}, "out_of_range"),
        ({"op": "arm", "mode": "manual", "lease": 7}, "wrong_type"),
        ({"op": "arm", "mode": "manual", "lease": ""}, "out_of_range"),
        ({"op": "lease", "kind": "autonomous", "holder": "h"}, "out_of_range"),
        ({"op": "lease", "kind": 1, "holder": "h"}, "wrong_type"),
        ({"op": "lease", "kind": "manual", "holder": "h" * 129}, "out_of_range"),
        ({"op": "lease", "kind": "manual", "holder": "two\nlines"}, "out_of_range"),
        ({"op": "lease", "kind": "manual", "holder": "\ud800"}, "out_of_range"),
        ({"op": "lease", "kind": "manual", "holder": None}, "wrong_type"),
        ({**MANUAL, "throttle": math.nan}, "nan"),
        ({**MANUAL, "throttle": math.inf}, "infinite"),
        ({**MANUAL, "steering": -math.inf}, "infinite"),
        ({**MANUAL, "throttle": math.nextafter(1.0, 2.0)}, "out_of_range"),
        ({**MANUAL, "throttle": math.nextafter(-1.0, -2.0)}, "out_of_range"),
        ({**MANUAL, "steering": math.nextafter(1.0, 2.0)}, "out_of_range"),
        ({**MANUAL, "steering": math.nextafter(-1.0, -2.0)}, "out_of_range"),
        ({**MANUAL, "steering": 2}, "out_of_range"),
        ({**MANUAL, "steering": 10**400}, "out_of_range"),
        ({**MANUAL, "steering": -(10**5000)}, "out_of_range"),
        ({**MANUAL, "steering": True}, "wrong_type"),
        ({**MANUAL, "steering": "0"}, "wrong_type"),
        ({**MANUAL, "steering": None}, "wrong_type"),
        ({"op": "pulse", "lease": "x", "steering_us": None}, "wrong_type"),
        ({"op": "pulse", "lease": "x", "steering_us": 899.9}, "out_of_range"),
        ({"op": "pulse", "lease": "x", "steering_us": 2100.1}, "out_of_range"),
        ({"op": "pulse", "lease": "x", "throttle_us": 899.9}, "out_of_range"),
        ({"op": "pulse", "lease": "x", "throttle_us": 2100.1}, "out_of_range"),
        ({"op": "cap", "percent": -5e-324}, "out_of_range"),
        ({"op": "cap", "percent": 100.1}, "out_of_range"),
        ({"op": "model", "sha256": SHA, "trial": 1}, "wrong_type"),
        ({"op": "model", "sha256": SHA[1:], "trial": False}, "out_of_range"),
        ({"op": "model", "sha256": SHA + "0", "trial": False}, "out_of_range"),
        ({"op": "model", "sha256": SHA.upper(), "trial": False}, "out_of_range"),
        ({"op": "model", "sha256": SHA[:-1] + "\n", "trial": False}, "out_of_range"),
        ({"op": "model", "sha256": 5, "trial": False}, "wrong_type"),
    ],
    ids=lambda value: str(value)[:60] if not isinstance(value, dict) else None,
)
def test_each_mistake_has_its_name(message: object, reason: str) -> None:
    assert reason_of(message) == reason


def test_stop_and_disarm_are_understood_whatever_else_is_said() -> None:
    assert parse_request({"op": "stop", "please": math.nan}) == ("stop", {})
    assert parse_request({"op": "disarm", "lease": 3, 4: 5}) == ("disarm", {})


def test_whole_numbers_become_floats() -> None:
    _, values = parse_request({**MANUAL, "steering": 1, "throttle": 0})
    assert values["steering"] == 1.0 and isinstance(values["steering"], float)
    assert values["throttle"] == 0.0 and isinstance(values["throttle"], float)


def test_what_was_sent_is_quoted_but_not_at_length() -> None:
    for length in (58, 59):  # 60 characters with the quotation marks are shown whole
        with pytest.raises(RequestRefused) as caught:
            parse_request({"op": "x" * length})
        assert ("x" * length in caught.value.what) is (length == 58)
        assert caught.value.what.endswith(" 'xxxx" + "x" * 52 + "...") is (length == 59)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**5000, deep):
        with pytest.raises(RequestRefused) as caught:
            parse_request({"op": value})
        assert "too large to show" in caught.value.what
    while deep:  # CPython before 3.13 cannot free so deep a list in one go on every platform
        deep = deep.pop()


def test_the_answer_lists_what_blocks() -> None:
    refused = RequestRefused(
        "blocked", "not armed", cause="c", next_step="n", blocked=[Blocked("guard", "not running", "start it")]
    )
    assert isinstance(refused, GateError)
    assert refused.reply() == {
        "ok": False,
        "reason": "blocked",
        "what": "not armed",
        "cause": "c",
        "next": "n",
        "blocked": [{"reason": "guard", "value": "not running", "cure": "start it"}],
    }


@given(
    st.dictionaries(
        st.sampled_from(["op", "lease", "mode", "steering", "throttle", "percent", "kind"]) | st.text(max_size=3),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
            | st.sampled_from([message["op"] for message in GOOD]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
            max_leaves=4,
        ),
    )
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_object_raises_anything_else(message: dict[str, Any]) -> None:
    try:
        op, values = parse_request(message)
    except RequestRefused:
        return
    assert op == message["op"]
    assert all(not isinstance(value, float) or math.isfinite(value) for value in values.values())
