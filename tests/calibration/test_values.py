"""Every fault of a calibration is named with its value, its cause and what to do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.values import Calibration, Steering, Throttle, calibration_faults, check_calibration
from tests.calibration.cars import calibrations

CURVE = ((-1.0, 1550.0), (1.0, 1400.0), (2.0, 1350.0))


def car(**changes: Any) -> Calibration:
    steering = {k: v for k, v in changes.items() if hasattr(Steering(), k)}
    return Calibration(
        replace(Steering(), **steering), replace(Throttle(), **{k: changes[k] for k in changes if k not in steering})
    )


@given(calibrations())
def test_a_whole_calibration_has_no_fault(calibration: Calibration) -> None:
    assert calibration_faults(calibration) == ()


@pytest.mark.parametrize(
    "good",
    [
        car(),
        car(left_us=1200, right_us=1700),
        car(left_us=1500.0, right_us=1400.0),
        car(forward_us=1603.5, reverse_us=1311.0),
        car(forward_us=1426.0, reverse_us=1466.0),
        car(forward_start_us=1446.0, reverse_start_us=1446.0),
        car(forward_start_us=1312.0, reverse_start_us=1602.0),
        car(curve=CURVE, forward_start_us=1401.0, reverse_start_us=1549.0),
        car(curve=((0.02, 1445.0), (20.0, 1311.0))),
        car(max_deg=5.0, points=((-4.5, 1201.0), (-0.5, 1449.0), (0.5, 1451.0), (4.5, 1699.0))),
        car(max_deg=60.0),
        car(left_us=2500.0, right_us=500.0),
    ],
)
def test_the_limits_themselves_are_allowed(good: Calibration) -> None:
    check_calibration(good)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (car(left_us=math.nan), ["steering.left_us = nan", "finite"]),
        (car(center_us=math.inf), ["steering.center_us = inf"]),
        (car(right_us=None), ["steering.right_us = None"]),
        (car(max_deg="30"), ["steering.max_deg = '30'"]),
        (car(neutral_us=True), ["throttle.neutral_us = True"]),
        (car(forward_us=-math.inf), ["throttle.forward_us = -inf"]),
        (car(reverse_us=math.nan), ["throttle.reverse_us = nan"]),
        (car(forward_start_us=math.nan), ["throttle.forward_start_us = nan"]),
        (car(reverse_start_us=math.nan), ["throttle.reverse_start_us = nan"]),
        (car(points=((10.0, math.nan),)), ["steering.points[0][1] = nan"]),
        (car(curve=(CURVE[0], (math.inf, 1400.0))), ["throttle.curve[1][0] = inf"]),
        (car(points=((10.0, 1500.0, 1.0),)), ["steering.points[0] has 3 numbers"]),
        (car(left_us=2500.1), ["steering.left_us = 2500.1 us is out of range", "500 to 2500", "nanoseconds"]),
        (car(right_us=499.9), ["steering.right_us = 499.9 us is out of range"]),
        (car(forward_us=499.0), ["throttle.forward_us = 499 us is out of range"]),
        (car(reverse_us=1603500.0), ["throttle.reverse_us = 1.6035e+06 us is out of range"]),
        (car(forward_start_us=400.0, forward_us=300.0), ["throttle.forward_start_us = 400 us is out of range"]),
        (car(center_us=1700.0), ["left 1700, center 1700, right 1200 us", "not between", "again"]),
        (car(center_us=1800.0), ["center is not between"]),
        (car(left_us=1200.0), ["center is not between"]),
        (car(left_us=1499.9), ["left is 49.9 us from the center, at least 50", "steering.left_us"]),
        (car(right_us=1401.0), ["right is 49 us from the center", "steering.right_us"]),
        (car(max_deg=4.9), ["steering.max_deg = 4.9", "5 to 60"]),
        (car(max_deg=60.1), ["steering.max_deg = 60.1"]),
        (car(max_deg=-30.0), ["steering.max_deg = -30"]),
        (car(points=((10.0, 1500.0), (-10.0, 1400.0))), ["steering.points is not sorted by angle"]),
        (car(points=((31.0, 1699.0),)), ["31 deg is out of range (-30 to 30)"]),
        (car(points=((10.0, 1701.0),)), ["1701 us at 10 deg is outside of 1200 to 1700 us"]),
        (car(points=((0.0, 1450.0),)), ["0 deg and 1450 us at 0 deg are less than 0.5 deg apart", "own"]),
        (car(points=((29.6, 1690.0),)), ["less than 0.5 deg apart"]),
        (car(points=((10.0, 1500.0), (10.4, 1510.0))), ["1500 us at 10 deg and 1510 us at 10.4 deg are less than"]),
        (car(points=((10.0, 1450.9),)), ["1450 us at 0 deg and 1450.9 us at 10 deg", "rise by at least 1 us"]),
        (car(points=((-10.0, 1500.0),)), ["1500 us at -10 deg and 1450 us at 0 deg", "must rise"]),
        (car(left_us=1200.0, right_us=1700.0, points=((10.0, 1500.0),)), ["must fall by at least 1 us"]),
        (car(neutral_us=1311.0), ["forward 1311, neutral 1311, reverse 1603.5 us", "neutral is not between"]),
        (car(neutral_us=1700.0), ["neutral is not between"]),
        (car(forward_us=1427.0), ["forward is 19 us from neutral, at least 20", "throttle.forward_us"]),
        (car(reverse_us=1465.0), ["reverse is 19 us from neutral", "throttle.reverse_us"]),
        (car(forward_start_us=1447.0), ["forward_start_us = 1447 is not between neutral 1446 and forward 1311"]),
        (car(forward_start_us=1311.0), ["throttle.forward_start_us = 1311 is not between"]),
        (car(reverse_start_us=1445.0), ["throttle.reverse_start_us = 1445", "reverse 1603.5", "swapped"]),
        (car(curve=CURVE[::-1]), ["throttle.curve is not sorted by speed"]),
        (car(curve=CURVE[:1]), ["throttle.curve ends at -1 m/s: it has no forward speed"]),
        (car(curve=((0.0, 1446.0), *CURVE[1:])), ["0 m/s and 1446 us at 0 m/s are less than 0.02 m/s apart"]),
        (car(curve=((0.019, 1440.0),)), ["less than 0.02 m/s apart"]),
        (car(curve=((20.1, 1320.0),)), ["20.1 m/s is out of range (0 to 20)"]),
        (car(curve=((-20.1, 1590.0), *CURVE[1:])), ["-20.1 m/s is out of range (-20 to 0)"]),
        (car(curve=((1.0, 1310.0),)), ["1310 us at 1 m/s is outside of 1311 to 1446 us", "start of movement"]),
        (car(curve=((1.0, 1430.0),), forward_start_us=1420.0), ["1430 us at 1 m/s is outside of 1311 to 1420 us"]),
        (car(curve=((1.0, 1419.5),), forward_start_us=1420.0), ["1420 us at 0 m/s and 1419.5 us at 1 m/s", "fall"]),
        (car(curve=((-1.0, 1400.0), (1.0, 1400.0))), ["1400 us at -1 m/s is outside of 1446 to 1603.5 us"]),
        (car(curve=((-1.0, 1446.5), (1.0, 1400.0))), ["1446.5 us at -1 m/s and 1446 us at 0 m/s", "must fall"]),
        (car(curve=((1.0, 1380.0), (2.0, 1390.0))), ["1380 us at 1 m/s and 1390 us at 2 m/s", "must fall"]),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_cause_and_next_step(bad: Calibration, words: list[str]) -> None:
    with pytest.raises(CalibrationError) as caught:
        check_calibration(bad)
    for word in words:
        assert word in str(caught.value)
    for fault in calibration_faults(bad):
        assert fault.what and fault.cause and fault.next_step
    assert caught.value.cause and caught.value.next_step


def test_all_faults_are_named_at_once() -> None:
    bad = car(left_us=1460.0, max_deg=20.0, forward_us=1430.0, reverse_us=2600.0)
    faults = [fault.what for fault in calibration_faults(bad)]
    assert len(faults) == 3
    with pytest.raises(CalibrationError, match="and 2 more: ") as caught:
        check_calibration(bad)
    assert all(what in caught.value.what for what in faults)
    assert caught.value.next_step == calibration_faults(bad)[0].next_step


FIELDS = ("left_us", "center_us", "right_us", "max_deg", "neutral_us", "forward_us", "reverse_us", "forward_start_us")


@given(st.dictionaries(st.sampled_from(FIELDS), st.floats() | st.floats(400.0, 2600.0)))
def test_whatever_the_numbers_it_is_judged_and_not_crashed(changes: dict[str, float]) -> None:
    calibration = car(**changes)
    try:
        check_calibration(calibration)
    except CalibrationError:
        return
    s, t = calibration.steering, calibration.throttle
    assert min(s.left_us, s.right_us) < s.center_us < max(s.left_us, s.right_us)
    assert min(t.forward_us, t.reverse_us) < t.neutral_us < max(t.forward_us, t.reverse_us)
    pulses = (s.left_us, s.right_us, t.forward_us, t.reverse_us)
    assert min(pulses) >= 500.0 and max(pulses) <= 2500.0 and 5.0 <= s.max_deg <= 60.0
