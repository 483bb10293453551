"""Samples of the mapping: evenly spaced, both ends exactly, and never another pulse than the mapping's own."""

from __future__ import annotations

import pytest

from calibration.curves import speed_curve, steering_curve
from calibration.mapping import default_sim_calibration, speed_pulse_us, steering_pulse_us
from calibration.values import Calibration


def test_steering_from_end_to_end() -> None:
    curve = steering_curve(Calibration(), 13)
    assert [deg for deg, _ in curve] == pytest.approx([-30.0 + 5.0 * i for i in range(13)])
    assert (curve[0], curve[6], curve[-1]) == ((-30.0, 1200.0), (0.0, 1450.0), (30.0, 1700.0))
    assert all(us == steering_pulse_us(Calibration(), deg) for deg, us in curve)


def test_speed_over_what_was_measured() -> None:
    calibration = default_sim_calibration()
    curve = speed_curve(calibration, 9.0, 11)
    assert (curve[0][0], curve[-1][0]) == (-1.0, 4.0) and dict(curve)[0.0] == calibration.throttle.neutral_us
    assert all(us == speed_pulse_us(calibration, mps, model_max_mps=9.0) for mps, us in curve)


def test_speed_of_a_model_where_nothing_was_measured() -> None:
    throttle = Calibration().throttle
    curve = speed_curve(Calibration(), 2.0, 5)
    assert [mps for mps, _ in curve] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert (curve[0][1], curve[2][1], curve[-1][1]) == (throttle.reverse_us, throttle.neutral_us, throttle.forward_us)
