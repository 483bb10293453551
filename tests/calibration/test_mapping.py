"""The mapping against DeepRacer's golden pulses, and properties that hold for any calibration."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.mapping import (
    Calibration,
    CalibrationError,
    Steering,
    Throttle,
    check_calibration,
    default_sim_calibration,
    duty_ns,
    formula_coefficients,
    speed_mps_of,
    speed_pulse_us,
    steering_deg_of,
    steering_pulse_us,
    throttle_pulse_us,
)
from tests.calibration.cars import calibrations, mirrored, throttles
from tests.conftest import ROOT

DEEPRACER = Calibration()
SIM = default_sim_calibration()
UNFIT = (math.nan, math.inf, -math.inf)
share = st.floats(0.0, 1.0)
signed_share = st.floats(-1.0, 1.0)

# --- the original car (spec deepracer-vehicle.md 3.3)


@pytest.mark.parametrize(
    ("steering_deg", "duty"),
    [(30.0, 1700000), (15.0, 1575000), (0.0, 1450000), (-15.0, 1325000), (-30.0, 1200000)],
)
def test_golden_steering(steering_deg: float, duty: int) -> None:
    assert duty_ns(steering_pulse_us(DEEPRACER, steering_deg)) == duty


@pytest.mark.parametrize("model_max_mps", [0.8, 1.0, 1.3, 3.0, 4.0, 7.7])
@pytest.mark.parametrize(
    ("part", "cap", "duty"),
    [
        (1.0, 1.0, 1311000), (1.0, 0.5, 1378500), (1.0, 0.3, 1405500),
        (0.75, 1.0, 1314375), (0.75, 0.5, 1380187), (0.75, 0.3, 1406512),
        (0.5, 1.0, 1338000), (0.5, 0.5, 1392000), (0.5, 0.3, 1413600),
        (0.25, 1.0, 1381875), (0.25, 0.5, 1413937), (0.25, 0.3, 1426762),
    ],
)  # fmt: skip
def test_golden_speed(part: float, cap: float, duty: int, model_max_mps: float) -> None:
    pulse_us = speed_pulse_us(DEEPRACER, part * model_max_mps, model_max_mps=model_max_mps, cap=cap)
    assert duty_ns(pulse_us) == duty


def test_golden_throttle() -> None:
    assert duty_ns(throttle_pulse_us(DEEPRACER, -1.0)) == 1603500
    assert duty_ns(throttle_pulse_us(DEEPRACER, 1.0)) == 1311000
    assert throttle_pulse_us(DEEPRACER, 0.0) == 1446.0
    # manual_drive throttle -0.9 (forward, bucket 0.8) with max_speed 0.3: spec 3.2
    s = 1.0 + 4.0 * (1.0 - 0.3)
    forward = -1.2 / s**2 * 0.8**2 + 2.2 / s * 0.8
    assert forward == pytest.approx(0.40997, abs=1e-5)
    assert duty_ns(throttle_pulse_us(DEEPRACER, forward)) == 1390653


def test_golden_coefficients() -> None:
    a, b = formula_coefficients(0.8)
    assert (a, b) == (pytest.approx(-1.875, abs=1e-12), pytest.approx(2.75, abs=1e-12))
    assert a * 0.2**2 + b * 0.2 == pytest.approx(0.475, abs=1e-12)
    pulse_us = speed_pulse_us(DEEPRACER, 0.2, model_max_mps=0.8)
    assert (1446.0 - pulse_us) / (1446.0 - 1311.0) == pytest.approx(0.475, abs=1e-12)
    # 40 percent of the formula's 0.8 at half speed is 0.32.
    pulse_us = speed_pulse_us(DEEPRACER, 0.4, model_max_mps=0.8, cap=0.4)
    assert (1446.0 - pulse_us) / (1446.0 - 1311.0) == pytest.approx(0.32, abs=1e-12)


def deepracer_duty_ns(value: float, low: int, mid: int, high: int, polarity: int) -> int:
    """The servo node's arithmetic: int and float32 operands, cut off (servo_mgr.cpp, ``servoSubscriber``)."""
    adjusted = np.float32(value) * np.float32(polarity)
    if adjusted < 0:
        return int(np.float32(mid) + adjusted * np.float32(mid - low))
    return int(np.float32(mid) + adjusted * np.float32(high - mid))


@given(signed_share)
def test_every_pulse_is_the_original_cars_to_a_nanosecond(value: float) -> None:
    expected = deepracer_duty_ns(value, 1200000, 1450000, 1700000, 1)
    assert abs(duty_ns(steering_pulse_us(DEEPRACER, value * 30.0)) - expected) <= 1
    expected = deepracer_duty_ns(value, 1311000, 1446000, 1603500, -1)
    assert abs(duty_ns(throttle_pulse_us(DEEPRACER, value)) - expected) <= 1


@given(share, st.sampled_from((1.0, 0.5, 0.3)), st.floats(0.1, 8.0))
def test_every_speed_is_the_original_cars_to_a_nanosecond(part: float, cap: float, model_max_mps: float) -> None:
    speed_mps = part * model_max_mps
    a, b = formula_coefficients(model_max_mps)
    value = cap * min(max(a * speed_mps**2 + b * speed_mps, -1.0), 1.0)
    expected = deepracer_duty_ns(value, 1311000, 1446000, 1603500, -1)
    pulse_us = speed_pulse_us(DEEPRACER, speed_mps, model_max_mps=model_max_mps, cap=cap)
    assert abs(duty_ns(pulse_us) - expected) <= 1


@pytest.mark.parametrize(("pulse_us", "duty"), [(math.nextafter(1392.0, 0.0), 1392000), (1380.1875, 1380187), (0.0, 0)])
def test_a_duty_is_cut_off_but_for_the_last_bit(pulse_us: float, duty: int) -> None:
    assert duty_ns(pulse_us) == duty


@pytest.mark.parametrize("bad_us", [*UNFIT, -1.0, 1e7])
def test_no_duty_for_no_pulse(bad_us: float) -> None:
    with pytest.raises(CalibrationError, match="has no length"):
        duty_ns(bad_us)


# --- steering, any calibration


@given(calibrations(), signed_share)
def test_steering_and_back(calibration: Calibration, part: float) -> None:
    steering_deg = part * calibration.steering.max_deg
    pulse_us = steering_pulse_us(calibration, steering_deg)
    assert steering_deg_of(calibration, pulse_us) == pytest.approx(steering_deg, abs=0.01)


@given(calibrations(), signed_share, signed_share)
def test_steering_is_monotone_within_its_ends(calibration: Calibration, one: float, other: float) -> None:
    steering = calibration.steering
    less_us, more_us = (steering_pulse_us(calibration, part * steering.max_deg) for part in sorted((one, other)))
    sign = math.copysign(1.0, steering.left_us - steering.right_us)
    assert sign * (more_us - less_us) >= -1e-9
    low_us, high_us = sorted((steering.left_us, steering.right_us))
    assert low_us <= less_us <= high_us and low_us <= more_us <= high_us


@given(calibrations())
def test_steering_is_exact_where_it_was_measured(calibration: Calibration) -> None:
    steering = calibration.steering
    ends = [(steering.max_deg, steering.left_us), (0.0, steering.center_us), (-steering.max_deg, steering.right_us)]
    for steering_deg, pulse_us in (*ends, *steering.points):
        assert steering_pulse_us(calibration, steering_deg) == pulse_us
    for beyond_deg in (steering.max_deg + 0.9e-6, -steering.max_deg - 0.9e-6):
        end_us = steering.left_us if beyond_deg > 0 else steering.right_us
        assert steering_pulse_us(calibration, beyond_deg) == end_us


def test_steering_between_points_is_linear() -> None:
    bent = Calibration(Steering(points=((-20.0, 1300.0), (10.0, 1500.0))))
    for steering_deg, pulse_us in ((5.0, 1475.0), (20.0, 1600.0), (-10.0, 1375.0), (-25.0, 1250.0)):
        assert steering_pulse_us(bent, steering_deg) == pytest.approx(pulse_us)
        assert steering_deg_of(bent, pulse_us) == pytest.approx(steering_deg)


@pytest.mark.parametrize("bad_deg", [*UNFIT, 30.0 + 1.1e-6, -30.0 - 1.1e-6, 300.0])
def test_an_angle_that_the_car_does_not_have_is_refused(bad_deg: float) -> None:
    with pytest.raises(CalibrationError, match="steering angle of .* is outside of -30 to 30 deg") as caught:
        steering_pulse_us(DEEPRACER, bad_deg)
    assert caught.value.cause and caught.value.next_step


@pytest.mark.parametrize(("pulse_us", "steering_deg"), [(1701.0, 30.0), (9e9, 30.0), (1199.0, -30.0), (-5.0, -30.0)])
def test_a_pulse_beyond_the_ends_is_the_end(pulse_us: float, steering_deg: float) -> None:
    assert steering_deg_of(DEEPRACER, pulse_us) == steering_deg


# --- throttle and speed, any calibration


@given(calibrations(), signed_share)
def test_throttle_is_linear_from_neutral_to_either_end(calibration: Calibration, value: float) -> None:
    throttle = calibration.throttle
    end_us = throttle.forward_us if value > 0 else throttle.reverse_us
    expected_us = throttle.neutral_us + abs(value) * (end_us - throttle.neutral_us)
    assert throttle_pulse_us(calibration, value) == pytest.approx(expected_us, abs=1e-6)
    for full, full_us in ((1.0, throttle.forward_us), (-1.0, throttle.reverse_us), (0.0, throttle.neutral_us)):
        assert throttle_pulse_us(calibration, full) == full_us
        assert throttle_pulse_us(calibration, full * (1.0 + 0.9e-6)) == full_us


@pytest.mark.parametrize("bad", [*UNFIT, 1.0 + 1.1e-6, -1.0 - 1.1e-6])
def test_more_than_full_throttle_is_refused(bad: float) -> None:
    with pytest.raises(CalibrationError, match="outside of -1 to 1"):
        throttle_pulse_us(DEEPRACER, bad)


def limits_mps(calibration: Calibration, model_max_mps: float) -> tuple[float, float]:
    """The slowest (reverse) and the fastest speed that have a pulse."""
    curve = calibration.throttle.curve
    return (min(curve[0][0], 0.0), curve[-1][0]) if curve else (-model_max_mps, model_max_mps)


@given(calibrations(curve=True), share, st.floats(0.1, 20.0))
def test_a_measured_speed_and_back(calibration: Calibration, part: float, model_max_mps: float) -> None:
    low_mps, high_mps = limits_mps(calibration, model_max_mps)
    for speed_mps in (part * high_mps, part * low_mps):
        pulse_us = speed_pulse_us(calibration, speed_mps, model_max_mps=model_max_mps)
        assert speed_mps_of(calibration, pulse_us, model_max_mps=model_max_mps) == pytest.approx(speed_mps, abs=1e-3)


@given(calibrations(curve=True))
def test_speed_is_exact_where_it_was_measured(calibration: Calibration) -> None:
    for speed_mps, pulse_us in calibration.throttle.curve:
        assert speed_pulse_us(calibration, speed_mps, model_max_mps=1.0) == pulse_us
        assert speed_mps_of(calibration, pulse_us, model_max_mps=1.0) == speed_mps


@given(throttles(curve=False), st.floats(-5 / 6, 5 / 6), st.floats(0.1, 8.0))
def test_a_formula_speed_and_back(throttle: Throttle, part: float, model_max_mps: float) -> None:
    calibration, speed_mps = Calibration(throttle=throttle), part * model_max_mps
    pulse_us = speed_pulse_us(calibration, speed_mps, model_max_mps=model_max_mps)
    back_mps = speed_mps_of(calibration, pulse_us, model_max_mps=model_max_mps)
    if in_deadband(throttle, pulse_us, slack_us=-1e-6):
        assert back_mps == 0.0
    elif not in_deadband(throttle, pulse_us, slack_us=1e-6) and abs(part) < 5 / 6 - 1e-6:
        assert back_mps == pytest.approx(speed_mps, abs=1e-3)
    for sign in (1, -1):  # full throttle is the greatest speed
        pulse_us = speed_pulse_us(calibration, sign * model_max_mps, model_max_mps=model_max_mps)
        assert speed_mps_of(calibration, pulse_us, model_max_mps=model_max_mps) == sign * model_max_mps


def in_deadband(throttle: Throttle, pulse_us: float, slack_us: float = 0.0) -> bool:
    starts = [throttle.neutral_us, throttle.forward_start_us or throttle.neutral_us]
    starts.append(throttle.reverse_start_us or throttle.neutral_us)
    return min(starts) - slack_us <= pulse_us <= max(starts) + slack_us


@given(calibrations(), share)
def test_inside_the_deadband_nothing_moves(calibration: Calibration, part: float) -> None:
    throttle = calibration.throttle
    for start_us in (throttle.forward_start_us, throttle.reverse_start_us):
        if start_us is not None:
            pulse_us = throttle.neutral_us + 0.999999 * part * (start_us - throttle.neutral_us)
            assert speed_mps_of(calibration, pulse_us, model_max_mps=2.0) == 0.0
    assert speed_mps_of(calibration, throttle.neutral_us, model_max_mps=2.0) == 0.0


@given(calibrations(), share, share, share, share, st.floats(0.1, 8.0))
def test_speed_is_monotone_within_its_ends(
    calibration: Calibration, one: float, other: float, cap: float, lower_cap: float, model_max_mps: float
) -> None:
    throttle = calibration.throttle
    low_mps, high_mps = limits_mps(calibration, model_max_mps)
    speeds = sorted(low_mps + part * (high_mps - low_mps) for part in (one, other))
    pulses = [speed_pulse_us(calibration, v, model_max_mps=model_max_mps, cap=cap) for v in speeds]
    sign = math.copysign(1.0, throttle.forward_us - throttle.reverse_us)
    assert sign * (pulses[1] - pulses[0]) >= -1e-9
    low_us, high_us = sorted((throttle.forward_us, throttle.reverse_us))
    assert all(low_us <= pulse_us <= high_us for pulse_us in pulses)
    for speed_mps, pulse_us in zip(speeds, pulses, strict=True):  # a lower cap is never further from neutral
        lower_us = speed_pulse_us(calibration, speed_mps, model_max_mps=model_max_mps, cap=cap * lower_cap)
        assert abs(lower_us - throttle.neutral_us) <= abs(pulse_us - throttle.neutral_us) + 1e-9


@given(calibrations(), share, st.floats(0.1, 8.0))
def test_speed_0_and_cap_0_are_exactly_neutral(calibration: Calibration, part: float, model_max_mps: float) -> None:
    neutral_us = calibration.throttle.neutral_us
    for zero in (0.0, -0.0):
        assert speed_pulse_us(calibration, zero, model_max_mps=model_max_mps, cap=part) == neutral_us
    for limit_mps in limits_mps(calibration, model_max_mps):
        assert speed_pulse_us(calibration, part * limit_mps, model_max_mps=model_max_mps, cap=0.0) == neutral_us


@given(calibrations(curve=True), share, share)
def test_the_cap_scales_a_measured_speed(calibration: Calibration, part: float, cap: float) -> None:
    top_mps = part * calibration.throttle.curve[-1][0]
    capped_us = speed_pulse_us(calibration, top_mps, model_max_mps=1.0, cap=cap)
    assert capped_us == speed_pulse_us(calibration, cap * top_mps, model_max_mps=1.0)


@given(calibrations(), signed_share, share, st.floats(0.1, 8.0))
def test_a_reversed_servo_and_esc_give_mirrored_pulses(
    calibration: Calibration, turn: float, part: float, model_max_mps: float
) -> None:
    other = mirrored(calibration)
    check_calibration(other)
    steering_deg = turn * calibration.steering.max_deg
    mirror_us = 3000.0 - steering_pulse_us(calibration, steering_deg)
    assert steering_pulse_us(other, steering_deg) == pytest.approx(mirror_us, abs=1e-6)
    assert throttle_pulse_us(other, turn) == pytest.approx(3000.0 - throttle_pulse_us(calibration, turn), abs=1e-6)
    for limit_mps in limits_mps(calibration, model_max_mps):
        speed_mps = part * limit_mps
        pulse_us = speed_pulse_us(calibration, speed_mps, model_max_mps=model_max_mps)
        other_us = speed_pulse_us(other, speed_mps, model_max_mps=model_max_mps)
        assert other_us == pytest.approx(3000.0 - pulse_us, abs=1e-6)


@given(calibrations(), st.floats(500.0, 2500.0), st.floats(500.0, 2500.0), st.floats(0.1, 8.0))
def test_the_way_back_is_monotone_and_clamped(
    calibration: Calibration, one_us: float, other_us: float, model_max_mps: float
) -> None:
    throttle, steering = calibration.throttle, calibration.steering
    pulses = sorted((one_us, other_us))
    if throttle.forward_us < throttle.reverse_us:
        pulses.reverse()
    slower, faster = (speed_mps_of(calibration, us, model_max_mps=model_max_mps) for us in pulses)
    low_mps, high_mps = limits_mps(calibration, model_max_mps)
    assert low_mps <= slower <= faster + 1e-9 and faster <= high_mps
    pulses = sorted((one_us, other_us), reverse=steering.left_us < steering.right_us)
    right, left = (steering_deg_of(calibration, us) for us in pulses)
    assert -steering.max_deg <= right <= left + 1e-9 and left <= steering.max_deg


# --- what is refused


@pytest.mark.parametrize("calibration", [DEEPRACER, SIM], ids=["formula", "curve"])
@pytest.mark.parametrize("bad", UNFIT)
def test_what_is_not_finite_is_refused(calibration: Calibration, bad: float) -> None:
    for call in (
        lambda: speed_pulse_us(calibration, bad, model_max_mps=1.0),
        lambda: speed_pulse_us(calibration, 0.5, model_max_mps=bad),
        lambda: speed_pulse_us(calibration, 0.5, model_max_mps=1.0, cap=bad),
        lambda: speed_mps_of(calibration, bad, model_max_mps=1.0),
        lambda: speed_mps_of(calibration, 1400.0, model_max_mps=bad),
        lambda: steering_deg_of(calibration, bad),
        lambda: formula_coefficients(bad),
    ):
        with pytest.raises(CalibrationError, match=str(bad)) as caught:
            call()
        assert caught.value.cause and caught.value.next_step


@pytest.mark.parametrize("model_max_mps", [0.0, -1.0])
def test_a_model_without_speed_is_refused(model_max_mps: float) -> None:
    for calibration in (DEEPRACER, SIM):
        with pytest.raises(CalibrationError, match="greatest speed"):
            speed_pulse_us(calibration, 0.0, model_max_mps=model_max_mps)
        with pytest.raises(CalibrationError, match="greatest speed"):
            speed_mps_of(calibration, 1400.0, model_max_mps=model_max_mps)


@pytest.mark.parametrize("cap", [-0.01, 1.01, 100.0])
def test_a_cap_is_a_share(cap: float) -> None:
    for calibration in (DEEPRACER, SIM):
        with pytest.raises(CalibrationError, match="cap"):
            speed_pulse_us(calibration, 0.5, model_max_mps=1.0, cap=cap)


def test_the_formula_goes_to_the_models_greatest_speed() -> None:
    for sign, end_us in ((1, 1311.0), (-1, 1603.5)):
        assert speed_pulse_us(DEEPRACER, sign * (1.0 + 0.9e-6), model_max_mps=1.0) == end_us
        with pytest.raises(CalibrationError, match="beyond the model's greatest, 1 m/s"):
            speed_pulse_us(DEEPRACER, sign * (1.0 + 1.1e-6), model_max_mps=1.0)
        with pytest.raises(CalibrationError, match="beyond the model's greatest"):
            speed_pulse_us(DEEPRACER, sign * 2.0, model_max_mps=1.0, cap=0.1)


def test_the_curve_goes_as_far_as_was_measured() -> None:
    assert speed_pulse_us(SIM, 4.0 + 0.9e-6, model_max_mps=1.0) == 1311.0
    assert speed_pulse_us(SIM, -1.0 - 0.9e-6, model_max_mps=1.0) == 1603.5
    for speed_mps, limit in ((4.1, "4 m/s"), (-1.1, "-1 m/s")):
        for beyond_mps in (speed_mps, math.copysign(round(abs(speed_mps)) + 1.1e-6, speed_mps)):
            with pytest.raises(CalibrationError, match=f"beyond what was measured, {limit}"):
                speed_pulse_us(SIM, beyond_mps, model_max_mps=9.0)
        assert speed_pulse_us(SIM, speed_mps, model_max_mps=9.0, cap=0.9) != SIM.throttle.neutral_us


def test_without_a_reverse_speed_there_is_no_reverse() -> None:
    car = Calibration(throttle=Throttle(forward_start_us=1420.0, curve=((1.0, 1400.0), (2.0, 1350.0))))
    check_calibration(car)
    with pytest.raises(CalibrationError, match="no reverse speed was measured"):
        speed_pulse_us(car, -0.1, model_max_mps=2.0)
    assert speed_pulse_us(car, -0.1, model_max_mps=2.0, cap=0.0) == 1446.0
    assert speed_mps_of(car, 1600.0, model_max_mps=2.0) == 0.0
    assert throttle_pulse_us(car, -1.0) == 1603.5  # a person may still brake


# --- the simulated car


def test_the_simulated_car() -> None:
    check_calibration(SIM)
    assert SIM.steering == Steering() and SIM.throttle.curve[-1] == (4.0, 1311.0)
    assert SIM.throttle.curve[0] == (-1.0, 1603.5)
    assert SIM.throttle.forward_start_us == SIM.throttle.neutral_us - 25.0
    assert speed_pulse_us(SIM, 1e-9, model_max_mps=4.0) == pytest.approx(SIM.throttle.neutral_us - 25.0, abs=1e-6)
    # mildly nonlinear: not the straight line, and not far from it
    for speed_mps in np.linspace(0.2, 3.8, 19):
        pulse_us = speed_pulse_us(SIM, float(speed_mps), model_max_mps=4.0)
        straight_us = SIM.throttle.neutral_us - 25.0 - 110.0 * speed_mps / 4.0
        assert 0.5 < pulse_us - straight_us < 6.0
        smooth_us = SIM.throttle.neutral_us - 25.0 - 22.0 * speed_mps - 1.375 * speed_mps**2
        assert pulse_us == pytest.approx(smooth_us, abs=0.1)


def test_the_gate_may_import_it() -> None:
    code = (
        "import sys, calibration.mapping, calibration.store, calibration.deepracer;"
        "print([m for m in ('numpy', 'cv2', 'onnxruntime', 'vehicle', 'flask') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
