"""When the pilot looks, which picture it acts on, and what never becomes an intent. Time is passed in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import CameraFault
from vehicle.errors import BundleError, CameraError, HotlapError, StaleFrame
from vehicle.messages import Alive, decode, encode
from vehicle.pilot_core import MAX_FRAME_AGE_S, Fault, Figures, Model, PilotCore, Proof, Schedule
from vehicle.policy import PolicyOutputError

MODEL = Model("5a" * 32, trial=True, max_speed_mps=0.8, max_steering_deg=30.0)
PIXELS = np.zeros((120, 160), np.uint8)


def frame(stamp_s: float, seq: int = 0) -> Frame:
    return Frame(PIXELS, stamp_s, seq)


def core() -> PilotCore:
    return PilotCore(MODEL)


# --- the schedule


def test_deadlines_are_absolute_whatever_the_ticks_are() -> None:
    schedule = Schedule(10.0, False, 100.0)
    ticks = []
    now_s = 100.0
    while now_s < 101.0:
        assert schedule.due(now_s, False)
        ticks.append(now_s)
        now_s = now_s + schedule.wait_s(now_s) + 0.003  # every wake-up is 3 ms late
    assert len(ticks) == 10 and ticks[-1] == pytest.approx(100.903)
    assert (schedule.late, schedule.missed) == (0, 0)


def test_nothing_is_due_before_its_time_whatever_pictures_come() -> None:
    schedule = Schedule(10.0, False, 100.0)
    assert schedule.due(100.0, False)
    assert not schedule.due(100.05, True)
    assert schedule.wait_s(100.05) == pytest.approx(0.05)
    assert schedule.due(100.1001, True)


def test_after_a_pause_missed_ticks_are_skipped_and_counted_and_the_phase_stays() -> None:
    schedule = Schedule(10.0, False, 100.0)
    assert schedule.due(100.0, False)
    assert schedule.due(100.455, False)  # due at 100.1; 100.2, 100.3 and 100.4 are gone
    assert not schedule.due(100.456, False)
    assert (schedule.late, schedule.missed) == (1, 3)
    assert schedule.wait_s(100.456) == pytest.approx(0.044)


def test_every_frame_ticks_with_the_pictures_and_looks_after_a_while_without() -> None:
    schedule = Schedule(10.0, True, 100.0)
    assert schedule.due(100.01, True) and schedule.due(100.02, True)
    assert not schedule.due(100.05, False)
    assert schedule.due(100.1201, False)
    assert not schedule.due(100.2, False)
    assert schedule.wait_s(100.2) == pytest.approx(0.0201)
    assert (schedule.late, schedule.missed) == (0, 0)


# --- intents


def test_a_fresh_picture_and_a_good_action_are_an_intent() -> None:
    pilot = core()
    assert pilot.fault is not None and pilot.fault.name == "starting"
    seen = pilot.begin_tick(100.0, frame(99.95, 7))
    assert seen is not None
    intent = pilot.end_tick(seen, (-15.0, 0.4), 3.5, 100.006)
    assert intent is not None and pilot.fault is None
    assert intent.__dict__ == {
        "source": "pilot", "seq": 1, "stamp_s": 100.006, "frame_seq": 7, "frame_stamp_s": 99.95,
        "steering_deg": -15.0, "speed_mps": 0.4, "model_max_mps": 0.8, "inference_ms": 3.5, "model": MODEL.sha256,
    }  # fmt: skip
    assert decode(encode(intent)) == intent
    again = pilot.end_tick(seen, (0.0, 0.8), 3.5, 100.1)
    assert again is not None and again.seq == 2


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (StaleFrame("old"), "stale"),
        (CameraError("gone"), "camera"),
        (CameraFault("frozen", "same"), "frozen"),
        (CameraFault("blank", "even"), "blank"),
        (CameraFault("garbage", "none"), "garbage"),
    ],
)
def test_a_camera_at_fault_gives_no_intent_and_its_name(error: CameraError, name: str) -> None:
    pilot = core()
    assert pilot.begin_tick(100.0, error) is None
    assert pilot.fault == Fault(name, error.what) and pilot.faults == {name: 1}
    seen = pilot.begin_tick(100.1, frame(100.09))
    assert seen is not None
    assert pilot.end_tick(seen, (0.0, 0.4), 1.0, 100.1) is not None and pilot.fault is None


@pytest.mark.parametrize("stamp_s", [100.0 - MAX_FRAME_AGE_S - 1e-6, 0.0, math.nan, -math.inf])
def test_an_old_picture_is_never_acted_on(stamp_s: float) -> None:
    pilot = core()
    assert pilot.begin_tick(100.0, frame(stamp_s)) is None
    assert pilot.fault is not None and pilot.fault.name == "stale"


def test_a_picture_that_grew_old_during_the_inference_gives_no_intent() -> None:
    pilot = core()
    seen = pilot.begin_tick(100.0, frame(99.9))
    assert seen is not None
    assert pilot.end_tick(seen, (0.0, 0.4), 60.0, 99.9 + MAX_FRAME_AGE_S + 1e-6) is None
    assert pilot.fault is not None and pilot.fault.name == "slow"
    assert pilot.end_tick(seen, (0.0, 0.4), 40.0, 99.9 + MAX_FRAME_AGE_S - 1e-6) is not None


@pytest.mark.parametrize(
    "output",
    [
        (math.nan, 0.4), (0.0, math.nan), (math.inf, 0.4), (0.0, math.inf), (0.0, -math.inf),
        (30.1, 0.4), (-30.1, 0.4), (0.0, 0.81), (0.0, -0.001),
    ],
)  # fmt: skip
def test_an_output_out_of_range_is_no_intent_and_never_clamped(output: tuple[float, float]) -> None:
    pilot = core()
    assert pilot.end_tick(frame(100.0), output, 1.0, 100.0) is None
    assert pilot.fault is not None and pilot.fault.name == "output" and pilot.intents == 0


def test_rounding_at_the_edge_is_within_the_model() -> None:
    intent = core().end_tick(frame(100.0), (30.0, float(np.float32(0.8))), 1.0, 100.0)
    assert intent is not None and intent.speed_mps <= MODEL.max_speed_mps


@pytest.mark.parametrize(
    ("error", "name"),
    [(PolicyOutputError("NaN"), "output"), (BundleError("onnx_invalid", "broken"), "inference")],
)
def test_a_policy_that_fails_gives_no_intent(error: HotlapError, name: str) -> None:
    pilot = core()
    assert pilot.end_tick(frame(100.0), error, 1.0, 100.0) is None
    assert pilot.fault is not None and pilot.fault.name == name


def test_a_sign_of_life_carries_the_picture() -> None:
    assert PilotCore.alive(frame(99.9, 5), 100.0) == Alive("pilot", 100.0, 5, 99.9)


def test_another_model_is_named_from_the_next_intent_on_and_the_sequence_goes_on() -> None:
    pilot = core()
    assert pilot.end_tick(frame(100.0), (0.0, 0.8), 1.0, 100.0) is not None
    pilot.take_model(Model("b" * 64, False, 2.0, 20.0))
    intent = pilot.end_tick(frame(100.1), (0.0, 1.5), 2.0, 100.1)
    assert intent is not None and (intent.seq, intent.model, intent.model_max_mps) == (2, "b" * 64, 2.0)
    assert pilot.end_tick(frame(100.1), (25.0, 1.5), 2.0, 100.1) is None
    assert pilot.status()["inference_ms"]["max"] == 2.0


# --- figures


def test_figures_are_of_what_occurred() -> None:
    figures = Figures()
    assert figures.summary() == {"p50": None, "p99": None, "max": None}
    for value in range(1, 101):
        figures.add(float(value))
    assert figures.summary() == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    one = Figures()
    one.add(3.0)
    assert one.summary() == {"p50": 3.0, "p99": 3.0, "max": 3.0}
    for _ in range(5000):
        one.add(1.0)
    assert one.summary()["max"] == 1.0, "old figures are forgotten"


def test_the_status_has_what_was_measured() -> None:
    pilot = core()
    for i in range(5):
        now_s = 100.0 + 0.1 * i
        seen = pilot.begin_tick(now_s, frame(now_s - 0.02))
        assert seen is not None
        pilot.end_tick(seen, (0.0, 0.4), 2.5, now_s + 0.003)
    pilot.begin_tick(100.7, StaleFrame("too old"))
    status = pilot.status()
    assert status["interval_ms"]["p50"] == pytest.approx(100.0) and status["interval_ms"]["max"] == pytest.approx(300.0)
    assert status["frame_age_ms"]["p99"] == pytest.approx(20.0)
    assert status["inference_ms"] == {"p50": 2.5, "p99": 2.5, "max": 2.5}
    assert (status["model"], status["trial"], status["intents"]) == (MODEL.sha256, True, 5)
    assert (status["fault"], status["fault_text"], status["faults"]) == ("stale", "too old", {"stale": 1})


# --- a model on trial


def test_a_model_is_proved_by_driving_long_enough() -> None:
    proof = Proof(1.0)
    assert not any(proof.tick(100.0 + 0.1 * i, False, None) for i in range(100)), "standing proves nothing"
    proved = [proof.tick(200.0 + 0.1 * i, True, None) for i in range(12)]
    assert not any(proved[:10]) and proved[-1]


def test_only_its_own_faults_count_against_a_model_and_pauses_do_not_count_for_it() -> None:
    for name, lost in (("output", True), ("inference", True), ("slow", True), ("stale", False), ("blank", False)):
        proof = Proof(1.0)
        for i in range(9):
            proof.tick(100.0 + 0.1 * i, True, None)
        proof.tick(101.0, True, Fault(name, ""))
        assert not proof.tick(160.0, True, None), "the time without intents is no proof"
        later = [proof.tick(160.0 + 0.1 * i, True, None) for i in range(1, 4)]
        assert later[-1] is not lost
