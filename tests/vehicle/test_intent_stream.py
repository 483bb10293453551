"""What the pilot says is taken or refused by name; how fresh it is, to the edge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from calibration.mapping import Calibration
from tests.vehicle.gate_rig import MODEL, an_intent
from vehicle.arming import Limits
from vehicle.intent_stream import (
    RECOVERABLE,
    SPEED_TOLERANCE,
    STEERING_TOLERANCE_DEG,
    IntentStream,
    content_fault,
)
from vehicle.messages import Alive

T = 64.0  # sums with powers of two are exact
LIMITS = Limits(intent_age_s=0.125, frame_age_s=0.25, future_s=0.0078125)
CALIBRATION = Calibration()


def fault(**changes: Any) -> str | None:
    return content_fault(an_intent(T, **changes), LIMITS, CALIBRATION, MODEL)


def offer(stream: IntentStream, now_s: float, seq: int, autonomous: bool = True, **changes: Any) -> str | None:
    return stream.offer(an_intent(now_s, seq, **changes), now_s, CALIBRATION, MODEL, autonomous)


def offer_at(stream: IntentStream, now_s: float, seq: int, **changes: Any) -> str | None:
    """Offered at `now_s`, made at 64 s."""
    return stream.offer(an_intent(T, seq, **changes), now_s, CALIBRATION, MODEL, True)


@pytest.mark.parametrize(
    "key", ["stamp_s", "frame_stamp_s", "steering_deg", "speed_mps", "model_max_mps", "inference_ms"]
)
def test_every_number_must_be_finite(key: str) -> None:
    assert fault(**{key: math.nan}) == "nan"
    assert fault(**{key: math.inf}) == fault(**{key: -math.inf}) == "infinite"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"source": "console"}, "wrong_source"),
        ({"source": ""}, "wrong_source"),
        ({"source": "pilot "}, "wrong_source"),
        ({"speed_mps": 0.0}, None),
        ({"speed_mps": -0.0}, None),
        ({"speed_mps": -5e-324}, "speed_negative"),
        ({"speed_mps": -1e300}, "speed_negative"),
        ({"speed_mps": 4.0, "model_max_mps": 4.0}, None),
        ({"speed_mps": math.nextafter(4.0, 5.0), "model_max_mps": 5.0}, "out_of_range"),
        ({"speed_mps": 1.0 + 0.9e-6}, None),
        ({"speed_mps": 1.0 + 1.1e-6}, "out_of_range"),
        ({"speed_mps": 2.0 + 1.9e-6, "model_max_mps": 2.0}, None),
        ({"speed_mps": 2.0 + 2.1e-6, "model_max_mps": 2.0}, "out_of_range"),
        ({"speed_mps": 0.0, "model_max_mps": 0.01}, None),
        ({"speed_mps": 0.0, "model_max_mps": 0.0099}, "out_of_range"),
        ({"speed_mps": 0.0, "model_max_mps": 0.0}, "out_of_range"),
        ({"model_max_mps": -1.0}, "out_of_range"),
        ({"model_max_mps": 100.0}, None),
        ({"model_max_mps": 100.1}, "out_of_range"),
        ({"inference_ms": 0.0}, None),
        ({"inference_ms": -0.001}, "out_of_range"),
        ({"steering_deg": 30.0}, None),
        ({"steering_deg": -30.0}, None),
        ({"steering_deg": 30.0009}, None),
        ({"steering_deg": -30.0009}, None),
        ({"steering_deg": 30.0011}, "out_of_range"),
        ({"steering_deg": -30.0011}, "out_of_range"),
        ({"steering_deg": 1e308}, "out_of_range"),
        ({"model": "00" * 32}, "wrong_model"),
        ({"model": ""}, "wrong_model"),
    ],
    ids=str,
)
def test_content(changes: dict[str, Any], name: str | None) -> None:
    assert fault(**changes) == name


def test_the_tolerances_at_their_edges() -> None:
    assert (STEERING_TOLERANCE_DEG, SPEED_TOLERANCE) == (1e-3, 1e-6)
    for sign in (1.0, -1.0):
        edge_deg = 30.0 + STEERING_TOLERANCE_DEG
        assert fault(steering_deg=sign * edge_deg) is None
        assert fault(steering_deg=sign * math.nextafter(edge_deg, 99)) == "out_of_range"
    edge_mps = 1.0 + SPEED_TOLERANCE
    assert fault(speed_mps=edge_mps) is None and fault(speed_mps=math.nextafter(edge_mps, 9)) == "out_of_range"


def test_without_calibration_the_angle_is_not_judged() -> None:
    assert content_fault(an_intent(T, steering_deg=80.0), LIMITS, None, MODEL) is None
    assert content_fault(an_intent(T), LIMITS, None, "") == "wrong_model"


def test_a_good_intent_counts() -> None:
    stream = IntentStream(LIMITS)
    assert stream.intent is None and stream.intent_age_s(T) is None and stream.frame_age_s(T) is None
    assert stream.steady_s(T) == 0.0
    assert offer(stream, T, 1, frame_stamp_s=T - 0.0625) is None
    assert stream.intent == an_intent(T, 1, frame_stamp_s=T - 0.0625)
    assert (stream.intent_age_s(T + 0.5), stream.frame_age_s(T + 0.5), stream.steady_s(T + 0.5)) == (0.5, 0.5625, 0.5)
    assert stream.accepted == 1 and not stream.refused and stream.refusal == ""


def test_old_and_future_stamps_at_their_edges() -> None:
    future_s, age_s = LIMITS.future_s, LIMITS.intent_age_s
    assert offer_at(IntentStream(LIMITS), T + age_s, 1) is None
    assert offer_at(IntentStream(LIMITS), math.nextafter(T + age_s, 99), 1) == "stale"
    assert offer_at(IntentStream(LIMITS), T - future_s, 1) is None
    assert offer_at(IntentStream(LIMITS), math.nextafter(T - future_s, 0), 1) == "from_future"
    assert offer_at(IntentStream(LIMITS), math.nan, 1) == offer_at(IntentStream(LIMITS), math.inf, 1) == "stale"
    assert offer_at(IntentStream(LIMITS), -math.inf, 1) == "from_future"


def test_old_and_future_frames_at_their_edges() -> None:
    assert offer_at(IntentStream(LIMITS), T, 1, frame_stamp_s=T - 0.25) is None
    assert offer_at(IntentStream(LIMITS), T, 1, frame_stamp_s=math.nextafter(T - 0.25, 0)) == "stale_frame"
    assert offer_at(IntentStream(LIMITS), T, 1, frame_stamp_s=T) is None
    assert offer_at(IntentStream(LIMITS), T, 1, frame_stamp_s=math.nextafter(T, 99)) == "from_future"
    assert RECOVERABLE == ("stale", "stale_frame")


@pytest.mark.parametrize("bad", [{"speed_mps": math.nan}, {"source": "x"}, {"seq": 1}, {"stamp_s": T - 9}])
def test_a_refused_intent_takes_back_the_one_before(bad: dict[str, Any]) -> None:
    stream = IntentStream(LIMITS)
    offer(stream, T, 1)
    name = stream.offer(an_intent(T + 0.0625, **{"seq": 2, **bad}), T + 0.0625, CALIBRATION, MODEL, True)
    assert name is not None and stream.refusal == name and stream.refused == {name: 1} and stream.accepted == 1
    assert stream.intent is None and stream.intent_age_s(T + 0.1) is None and stream.steady_s(T + 0.1) == 0.0
    assert stream.frame_age_s(T + 0.0625) is not None  # what is known of the camera stays known
    assert offer(stream, T + 0.125, 3) is None
    assert stream.refusal == "" and stream.steady_s(T + 0.125) == 0.0


def test_sequence_while_autonomous() -> None:
    for seq, later_s, name in [
        (6, 0.0625, None), (6, 0.0, None), (500, 0.0625, None),
        (5, 0.0625, "sequence"), (4, 0.0625, "sequence"), (0, 0.0625, "sequence"), (5, 0.0, "sequence"),
        (6, -0.0625, "sequence"),
    ]:  # fmt: skip
        stream = IntentStream(LIMITS)
        offer(stream, T, 5)
        assert offer(stream, T + later_s, seq) == name, (seq, later_s)


def test_a_pilot_that_starts_again_is_heard_only_while_it_moves_nothing() -> None:
    for seq in (0, 4, 5):
        stream = IntentStream(LIMITS)
        offer(stream, T, 5, frame_stamp_s=T)
        assert offer(stream, T + 0.0625, seq, autonomous=False, frame_stamp_s=T - 0.0625) is None
        assert stream.steady_s(T + 0.0625) == 0.0 and stream.frame_age_s(T) == 0.0625
        assert offer(stream, T + 0.0625, seq, autonomous=False) == "sequence"
        assert offer(stream, T + 0.05, 0, autonomous=False) == "sequence"
    stream = IntentStream(LIMITS)
    offer(stream, T, 5)
    assert offer(stream, T - 0.0625, 6, autonomous=False) == "sequence"


def test_order_is_remembered_over_a_refusal_but_not_over_a_restart() -> None:
    stream = IntentStream(LIMITS)
    offer(stream, T, 5)
    stream.refuse("not_json")
    assert offer(stream, T + 0.0625, 5) == "sequence"
    stream.restart()
    assert stream.intent is None and stream.frame_age_s(T) is None
    assert offer(stream, T - 9, 1) is None
    assert stream.refused == {"not_json": 1, "sequence": 1}


def test_steady_time_ends_with_a_gap() -> None:
    stream = IntentStream(LIMITS)
    for number in range(9):  # the gap is just allowed
        assert offer(stream, T + 0.125 * number, number) is None
    assert stream.steady_s(T + 1.0) == 1.0
    assert offer(stream, T + 1.1252, 20) is None
    assert stream.steady_s(T + 1.1252) == 0.0
    stream.drop()
    assert stream.intent is None
    assert offer(stream, T + 1.2, 21) is None and stream.steady_s(T + 1.25) == pytest.approx(0.05)


def test_a_sign_of_life_only_tells_of_frames() -> None:
    stream = IntentStream(LIMITS)
    assert stream.alive(Alive("pilot", T, 1, T - 0.5), T) is None
    assert stream.frame_age_s(T) == 0.5 and stream.intent is None and stream.accepted == 0
    stream.alive(Alive("pilot", T, 2, T - 0.125), T)
    assert stream.frame_age_s(T) == 0.125
    stream.alive(Alive("pilot", T, 1, T - 0.25), T)
    assert stream.frame_age_s(T) == 0.125
    offer(stream, T, 1, frame_stamp_s=T - 0.1875)
    assert stream.frame_age_s(T) == 0.125 and stream.intent is not None
    stream.alive(Alive("pilot", T + 0.0625, 3, T), T + 0.0625)
    assert stream.frame_age_s(T) == 0.0 and stream.intent_age_s(T + 0.0625) == 0.0625


@pytest.mark.parametrize(
    ("alive", "name"),
    [
        (Alive("pilot", math.nan, 1, T), "nan"),
        (Alive("pilot", T, 1, math.nan), "nan"),
        (Alive("pilot", T, 1, -math.inf), "infinite"),
        (Alive("pilot", math.inf, 1, T), "infinite"),
        (Alive("console", T, 1, T), "wrong_source"),
        (Alive("console", math.nan, 1, T), "nan"),
        (Alive("pilot", T - 0.125, 1, T - 0.125), None),
        (Alive("pilot", math.nextafter(T - 0.125, 0), 1, T - 1), "stale"),
        (Alive("pilot", T + 0.0078125, 1, T), None),
        (Alive("pilot", math.nextafter(T + 0.0078125, 99), 1, T), "from_future"),
        (Alive("pilot", T, 1, math.nextafter(T, 99)), "from_future"),
        (Alive("pilot", T, 1, T), None),
    ],
)
def test_signs_of_life_are_judged_too(alive: Alive, name: str | None) -> None:
    stream = IntentStream(LIMITS)
    offer(stream, T, 1)
    assert stream.alive(alive, T) == name
    assert (stream.intent is None) is (name is not None)
    assert stream.refused == ({name: 1} if name else {})
