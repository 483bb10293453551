"""Slew limits and the cap, checked against the mapping; no pulse leaves the calibrated range."""

from __future__ import annotations

import math
from typing import Any

import pytest

import vehicle.gate_motion
from calibration.errors import CalibrationError
from calibration.mapping import (
    Calibration,
    default_sim_calibration,
    speed_pulse_us,
    steering_pulse_us,
    throttle_pulse_us,
)
from tests.vehicle.gate_rig import CENTER_US, NEUTRAL_US, an_intent
from vehicle.arming import Limits
from vehicle.controls import Manual
from vehicle.gate_motion import Motion, slew_up

LIMITS = Limits(steering_slew_deg_per_s=600.0, acceleration_mps2=6.0, max_speed_mps=4.0)
FREE = Limits(steering_slew_deg_per_s=1e5, acceleration_mps2=1e3)
CAR = Calibration()
CURVE = default_sim_calibration()


@pytest.mark.parametrize(
    ("now", "target", "expected"),
    [
        (0.0, 1.0, 0.25),
        (0.0, -1.0, -0.25),
        (0.5, 1.0, 0.75),
        (-0.5, -1.0, -0.75),
        (0.9, 1.0, 1.0),
        (1.0, 0.25, 0.25),
        (-1.0, -0.25, -0.25),
        (1.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0),
        (1.0, -1.0, -0.25),
        (-1.0, 1.0, 0.25),
        (-1.0, 0.1, 0.1),
        (2**-10, 0.5, 0.25 + 2**-10),
        (-(2**-10), 0.5, 0.25),
    ],
)
def test_slew_away_from_zero_only(now: float, target: float, expected: float) -> None:
    assert slew_up(now, target, 0.25) == expected


def test_speed_rises_slowly_and_falls_at_once() -> None:
    motion = Motion(LIMITS)
    for number in range(1, 11):
        _, throttle_us = motion.by_intent(CURVE, an_intent(speed_mps=1.2, model_max_mps=4.0), 1.0, 0.02)
        assert motion.speed_mps == pytest.approx(0.12 * number)
        assert throttle_us == pytest.approx(speed_pulse_us(CURVE, 0.12 * number, model_max_mps=4.0))
    motion.by_intent(CURVE, an_intent(speed_mps=1.2, model_max_mps=4.0), 1.0, 0.02)
    assert motion.speed_mps == 1.2
    _, throttle_us = motion.by_intent(CURVE, an_intent(speed_mps=0.3, model_max_mps=4.0), 1.0, 0.02)
    assert motion.speed_mps == 0.3
    assert throttle_us == pytest.approx(speed_pulse_us(CURVE, 0.3, model_max_mps=4.0))
    _, throttle_us = motion.by_intent(CURVE, an_intent(speed_mps=0.0, model_max_mps=4.0), 1.0, 0.02)
    assert throttle_us == CURVE.throttle.neutral_us


def test_steering_turns_slowly_both_ways() -> None:
    motion = Motion(LIMITS)
    for number in range(1, 3):
        steering_us, _ = motion.by_intent(CAR, an_intent(steering_deg=30.0), 1.0, 0.02)
        assert motion.steering_deg == pytest.approx(12.0 * number)
        assert steering_us == pytest.approx(steering_pulse_us(CAR, 12.0 * number))
    motion.by_intent(CAR, an_intent(steering_deg=30.0), 1.0, 0.02)
    assert motion.steering_deg == 30.0
    for expected in (18.0, 6.0, -6.0, -10.0):
        motion.by_intent(CAR, an_intent(steering_deg=-10.0), 1.0, 0.02)
        assert motion.steering_deg == pytest.approx(expected)


def test_the_step_is_the_time_that_passed() -> None:
    for step_s in (0.0, 0.01, 0.1):
        motion = Motion(LIMITS)
        motion.by_intent(CAR, an_intent(steering_deg=-30.0), 1.0, step_s)
        assert motion.steering_deg == pytest.approx(max(-30.0, -600.0 * step_s))
        assert motion.speed_mps == pytest.approx(min(1.0, 6.0 * step_s))


@pytest.mark.parametrize("extra_deg", [0.0, 0.0009])
def test_the_tolerance_of_the_angle_is_held_at_the_greatest_angle(extra_deg: float) -> None:
    motion = Motion(FREE)
    assert motion.by_intent(CAR, an_intent(steering_deg=30.0 + extra_deg), 1.0, 1.0)[0] == CAR.steering.left_us
    assert motion.by_intent(CAR, an_intent(steering_deg=-30.0 - extra_deg), 1.0, 1.0)[0] == CAR.steering.right_us


@pytest.mark.parametrize("calibration", [CAR, CURVE], ids=["formula", "curve"])
@pytest.mark.parametrize("cap", [1.0, 0.6, 0.1, 0.0005, 0.0])
@pytest.mark.parametrize("speed_mps", [0.0, 0.3, 0.9, 1.0, 1.0 + 0.9e-6])
def test_the_cap_is_the_mappings_own(calibration: Calibration, cap: float, speed_mps: float) -> None:
    motion = Motion(FREE)
    _, throttle_us = motion.by_intent(calibration, an_intent(speed_mps=speed_mps), cap, 1.0)
    expected_us = speed_pulse_us(calibration, min(1.0, speed_mps), model_max_mps=1.0, cap=cap)
    assert throttle_us == pytest.approx(expected_us, abs=1e-3)
    assert motion.speed_mps == pytest.approx(cap * speed_mps)
    if speed_mps == 0.0 or cap == 0.0:
        assert throttle_us == calibration.throttle.neutral_us


def test_a_raised_cap_does_not_jump() -> None:
    motion = Motion(LIMITS)
    intent = an_intent(speed_mps=4.0, model_max_mps=4.0)
    motion.by_intent(CURVE, intent, 0.1, 1.0)
    assert motion.speed_mps == pytest.approx(0.4)
    _, throttle_us = motion.by_intent(CURVE, intent, 1.0, 0.02)
    assert motion.speed_mps == pytest.approx(0.52)
    assert throttle_us == pytest.approx(speed_pulse_us(CURVE, 0.52, model_max_mps=4.0))
    motion.by_intent(CURVE, intent, 0.05, 0.02)
    assert motion.speed_mps == pytest.approx(0.2)


def test_by_hand() -> None:
    motion = Motion(FREE)
    for steering, throttle, cap in [(0.5, 1.0, 1.0), (-1.0, -1.0, 0.5), (0.25, 0.4, 0.25), (0.0, 0.0, 1.0)]:
        steering_us, throttle_us = motion.by_hand(CAR, Manual(steering, throttle, 0.0), cap, 1.0)
        assert steering_us == pytest.approx(steering_pulse_us(CAR, 30.0 * steering))
        assert throttle_us == pytest.approx(throttle_pulse_us(CAR, throttle * cap))
    assert (steering_us, throttle_us) == (CENTER_US, NEUTRAL_US)


def test_by_hand_rises_slowly_in_both_directions() -> None:
    motion = Motion(LIMITS)
    for expected in (0.03, 0.06):
        motion.by_hand(CAR, Manual(1.0, 1.0, 0.0), 1.0, 0.02)
        assert motion.throttle == pytest.approx(expected)
        assert motion.steering_deg == pytest.approx(400.0 * expected)
    _, throttle_us = motion.by_hand(CAR, Manual(1.0, -1.0, 0.0), 1.0, 0.02)
    assert motion.throttle == pytest.approx(-0.03)
    assert throttle_us == pytest.approx(throttle_pulse_us(CAR, -0.03))
    _, throttle_us = motion.by_hand(CAR, Manual(1.0, 0.0, 0.0), 1.0, 0.02)
    assert throttle_us == NEUTRAL_US


def test_at_rest_everything_begins_again() -> None:
    motion = Motion(FREE)
    motion.by_intent(CAR, an_intent(steering_deg=30.0), 1.0, 1.0)
    motion.by_hand(CAR, Manual(1.0, 1.0, 0.0), 1.0, 1.0)
    motion.rest()
    assert (motion.steering_deg, motion.speed_mps, motion.throttle) == (0.0, 0.0, 0.0)
    fresh = Motion(FREE)
    assert (fresh.steering_deg, fresh.speed_mps, fresh.throttle) == (0.0, 0.0, 0.0)


def test_a_mapping_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(name: str, pulse_us: float) -> None:
        monkeypatch.setattr(vehicle.gate_motion, name, lambda *args, **kwargs: pulse_us)

    def drive(how: Any) -> tuple[float, float]:
        motion = Motion(FREE)
        if how == "intent":
            return motion.by_intent(CAR, an_intent(), 1.0, 0.02)
        return motion.by_hand(CAR, Manual(0.0, 0.0, 0.0), 1.0, 0.02)

    throttle = CAR.throttle
    for pulse_us in (throttle.forward_us, throttle.neutral_us, throttle.neutral_us + 1e-6, throttle.forward_us - 1e-6):
        give("speed_pulse_us", pulse_us)
        assert drive("intent")[1] == pulse_us
    for pulse_us in (throttle.forward_us - 1.001e-6, throttle.neutral_us + 1.001e-6, throttle.reverse_us, math.nan):
        give("speed_pulse_us", pulse_us)
        with pytest.raises(CalibrationError, match="outside"):
            drive("intent")
    for pulse_us in (throttle.reverse_us + 0.1, throttle.forward_us - 0.1, 0.0, math.inf, math.nan):
        give("throttle_pulse_us", pulse_us)
        with pytest.raises(CalibrationError, match="outside"):
            drive("hand")
    for pulse_us in (throttle.reverse_us, throttle.forward_us):
        give("throttle_pulse_us", pulse_us)
        assert drive("hand")[1] == pulse_us
    give("speed_pulse_us", throttle.neutral_us)
    give("throttle_pulse_us", throttle.neutral_us)
    for pulse_us in (CAR.steering.left_us + 0.1, CAR.steering.right_us - 0.1, math.nan):
        give("steering_pulse_us", pulse_us)
        for how in ("intent", "hand"):
            with pytest.raises(CalibrationError, match="outside"):
                drive(how)
