"""Degrees and metres per second to servo and ESC pulses, and back. Pure functions of a calibration; no numpy.

The calibrations that come in have passed `check_calibration`; then no pulse is outside of the calibrated ends.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from calibration.errors import CalibrationError
from calibration.values import Calibration, Steering, Throttle, calibration_faults, check_calibration

__all__ = [
    "Calibration", "CalibrationError", "Steering", "Throttle", "calibration_faults", "check_calibration",
    "default_sim_calibration", "duty_ns", "formula_coefficients", "speed_mps_of", "speed_pulse_us", "steering_deg_of",
    "steering_pulse_us", "throttle_pulse_us",
]  # fmt: skip

ROUNDING = 1e-6  # this much beyond a limit is rounding, and is taken for the limit

# DeepRacer's throttle y at a share x of the model's greatest speed: y = B x - A x^2, through (0, 0), (1/2, 0.8) and
# (1, 1); it is above 1 from x = 5/6 on and cut off there (aws-deepracer-navigation-pkg, spec deepracer-vehicle.md 3.1).
_A, _B = 1.2, 2.2


def steering_pulse_us(calibration: Calibration, steering_deg: float) -> float:
    """The servo pulse in microseconds for a steering angle in degrees, + is left.

    Piecewise linear through right, measured points, center and left; 0 is exactly the center.

    Raises:
        CalibrationError: not finite, or further out than the calibration goes.
    """
    limit_deg = calibration.steering.max_deg
    if not abs(steering_deg) <= limit_deg + ROUNDING:  # NaN too
        raise CalibrationError(
            f"a steering angle of {steering_deg} deg is outside of -{limit_deg:g} to {limit_deg:g} deg",
            cause="the model was trained to steer further than this car is calibrated for",
            next_step="train with a narrower action space, or calibrate the steering further out",
        )
    return _interpolate(_steering_knots(calibration.steering), steering_deg)


def steering_deg_of(calibration: Calibration, pulse_us: float) -> float:
    """The steering angle in degrees, + is left, at a servo pulse; beyond an end it is that end's.

    Raises:
        CalibrationError: not finite.
    """
    _refuse_unfit("a pulse", pulse_us, "us")
    return _interpolate(sorted((us, deg) for deg, us in _steering_knots(calibration.steering)), pulse_us)


def throttle_pulse_us(calibration: Calibration, throttle: float) -> float:
    """The ESC pulse in microseconds for a throttle from -1 (reverse) to 1 (forward), as DeepRacer's servo node has it:
    linear from neutral to either end, whatever else was measured; 0 is exactly neutral.

    Raises:
        CalibrationError: not finite, or beyond -1 to 1.
    """
    if not abs(throttle) <= 1.0 + ROUNDING:
        raise CalibrationError(
            f"a throttle of {throttle} is outside of -1 to 1",
            cause="percent, or a speed in m/s, where a share is wanted",
            next_step="send a share of full throttle",
        )
    ends = calibration.throttle
    return _mix(ends.neutral_us, ends.forward_us if throttle > 0.0 else ends.reverse_us, min(abs(throttle), 1.0))


def speed_pulse_us(calibration: Calibration, speed_mps: float, *, model_max_mps: float, cap: float = 1.0) -> float:
    """The ESC pulse in microseconds for a speed in m/s, + is forward; 0 is exactly neutral.

    With a measured curve: the pulse at which the car drives ``cap * speed_mps``, from the start of movement on
    (anything above 0 is beyond the deadband). Without one: DeepRacer's formula of the share of the model's greatest
    speed, times ``cap``, from neutral; the deadband, measured or not, is part of it as on the original car, and
    absolute speed is lost: a model's greatest speed is full throttle, whatever it is.

    Args:
        model_max_mps: the greatest speed of the model's actions, for the formula.
        cap: 0 to 1, DeepRacer's maximum throttle as a share.

    Raises:
        CalibrationError: not finite, a cap beyond 0 to 1, faster than the curve or (without one) than the model's
            greatest speed, or reverse where the curve has none.
    """
    _refuse_unfit("a speed", speed_mps, "m/s")
    _check_model_max(model_max_mps)
    if not 0.0 <= cap <= 1.0:
        raise CalibrationError(
            f"a speed cap of {cap} is outside of 0 to 1",
            cause="percent where a share is wanted",
            next_step="set a cap of 0 to 100 percent",
        )
    throttle = calibration.throttle
    if not throttle.curve:
        if abs(speed_mps) > model_max_mps + ROUNDING:
            raise CalibrationError(
                f"a speed of {speed_mps} m/s is beyond the model's greatest, {model_max_mps:g} m/s",
                cause="the action does not belong to this model, or its contract is wrong",
                next_step="export the model again, or measure the speed curve, which has no such limit",
            )
        return throttle_pulse_us(calibration, math.copysign(cap * _formula(speed_mps / model_max_mps), speed_mps))
    wanted_mps = cap * speed_mps
    if wanted_mps == 0.0:
        return throttle.neutral_us
    knots = _speed_knots(throttle, forward=wanted_mps > 0.0)
    limit_mps = knots[-1][0]
    if len(knots) == 1:
        raise CalibrationError(
            f"a speed of {wanted_mps} m/s is reverse, and no reverse speed was measured",
            cause="the speed curve has forward speeds only",
            next_step="measure a reverse speed (hotlap calibrate)",
        )
    if abs(wanted_mps) > limit_mps + ROUNDING:
        raise CalibrationError(
            f"a speed of {wanted_mps} m/s is beyond what was measured, {math.copysign(limit_mps, wanted_mps):g} m/s",
            cause="the model was trained to drive faster than this car's speed curve goes",
            next_step="measure the speed curve further up (hotlap calibrate), lower the cap, or train a slower model",
        )
    return _interpolate(knots, abs(wanted_mps))


def speed_mps_of(calibration: Calibration, pulse_us: float, *, model_max_mps: float) -> float:
    """The speed in m/s, + is forward, at an ESC pulse; beyond an end it is that end's, inside the deadband it is 0.

    Without a measured curve it is the formula's inverse, and full throttle is ``model_max_mps`` (the formula has full
    throttle from 5/6 of it on). Where no reverse speed was measured, a reverse pulse is speed 0.

    Raises:
        CalibrationError: a pulse that is not finite, or a greatest speed that is not above 0.
    """
    _refuse_unfit("a pulse", pulse_us, "us")
    _check_model_max(model_max_mps)
    throttle = calibration.throttle
    forward = (pulse_us - throttle.neutral_us) * (throttle.forward_us - throttle.neutral_us) > 0.0
    distance_us = abs(pulse_us - throttle.neutral_us)
    if distance_us <= abs(_start_us(throttle, forward) - throttle.neutral_us):
        return 0.0
    if throttle.curve:
        knots = [(abs(us - throttle.neutral_us), mps) for mps, us in _speed_knots(throttle, forward)]
        speed_mps = _interpolate(knots, distance_us)
    else:
        end_us = throttle.forward_us if forward else throttle.reverse_us
        speed_mps = model_max_mps * _formula_inverse(distance_us / abs(end_us - throttle.neutral_us))
    return speed_mps if forward else -speed_mps


def formula_coefficients(model_max_mps: float) -> tuple[float, float]:
    """a and b of DeepRacer's throttle ``a v^2 + b v`` (cut off at 1) for a model with this greatest speed, in m/s.

    Raises:
        CalibrationError: the greatest speed is not above 0 and finite.
    """
    _check_model_max(model_max_mps)
    return -_A / model_max_mps / model_max_mps, _B / model_max_mps


def duty_ns(pulse_us: float) -> int:
    """A pulse as the original car writes it: whole nanoseconds, cut off, not rounded.

    DeepRacer computes in float32, whose grid at these lengths is 1/8 ns. The pulse is put on it first: a sum of which
    the last bit of a double is missing must not lose a whole nanosecond.

    Raises:
        CalibrationError: not finite, or negative.
    """
    if not 0.0 <= pulse_us <= 1e6:
        raise CalibrationError(
            f"a pulse of {pulse_us} us has no length in nanoseconds",
            cause="pulses are 500 to 2500 us long",
            next_step="check the calibration it was computed with",
        )
    (single,) = struct.unpack("<f", struct.pack("<f", pulse_us * 1000.0))
    return int(single)


def default_sim_calibration() -> Calibration:
    """What the simulated car truly does: DeepRacer's pulses, a deadband, and a speed curve from -1 to 4 m/s.

    The curve is invented, in the shape that brushed motors on an ESC have: nothing for the first 25 us (30 in
    reverse), then a little more pulse for every further m/s: ``25 + 22 v + 1.375 v^2`` us before neutral forward,
    ``30 + 100 v + 27.5 v^2`` us after it in reverse.
    """
    neutral_us = Throttle().neutral_us
    reverse = [(-v, neutral_us + 30.0 + 100.0 * v + 27.5 * v * v) for v in (1.0, 0.75, 0.5, 0.25)]
    forward = [(v, neutral_us - 25.0 - 22.0 * v - 1.375 * v * v) for v in (0.5 * i for i in range(1, 9))]
    throttle = Throttle(
        forward_start_us=neutral_us - 25.0, reverse_start_us=neutral_us + 30.0, curve=(*reverse, *forward)
    )
    return Calibration(Steering(), throttle)


def _formula(share: float) -> float:
    x = min(abs(share), 1.0)
    return min(x * (_B - _A * x), 1.0)


def _formula_inverse(y: float) -> float:
    if y >= 1.0 - 1e-9:
        return 1.0
    return 2.0 * y / (_B + math.sqrt(_B * _B - 4.0 * _A * y))


def _steering_knots(steering: Steering) -> list[tuple[float, float]]:
    """(degrees, microseconds) in ascending order of the angle."""
    ends = ((-steering.max_deg, steering.right_us), (0.0, steering.center_us), (steering.max_deg, steering.left_us))
    return sorted((*ends, *steering.points))


def _speed_knots(throttle: Throttle, forward: bool) -> list[tuple[float, float]]:
    """(m/s without sign, microseconds) of one direction, from the start of movement on."""
    sign = 1.0 if forward else -1.0
    measured = sorted((sign * mps, us) for mps, us in throttle.curve if sign * mps > 0.0)
    return [(0.0, _start_us(throttle, forward)), *measured]


def _start_us(throttle: Throttle, forward: bool) -> float:
    start_us = throttle.forward_start_us if forward else throttle.reverse_start_us
    return throttle.neutral_us if start_us is None else start_us


def _interpolate(knots: Sequence[tuple[float, float]], x: float) -> float:
    """Linear between knots (x, y) of ascending x, exactly y at a knot; beyond the outer ones it is theirs."""
    x = min(max(x, knots[0][0]), knots[-1][0])
    for (x0, y0), (x1, y1) in zip(knots, knots[1:], strict=False):
        if x <= x1:
            return _mix(y0, y1, (x - x0) / (x1 - x0))
    return knots[-1][1]


def _mix(y0: float, y1: float, share: float) -> float:
    """From y0 at share 0 to y1 at share 1: exactly there, and never outside of the two."""
    return min(max((1.0 - share) * y0 + share * y1, min(y0, y1)), max(y0, y1))


def _refuse_unfit(name: str, value: float, unit: str) -> None:
    if not math.isfinite(value):
        raise CalibrationError(
            f"{name} of {value} {unit} is not a finite number",
            cause="whoever computed it divided by zero or overflowed",
            next_step="look at the log of the process that sent it",
        )


def _check_model_max(model_max_mps: float) -> None:
    if not 0.0 < model_max_mps < math.inf:
        raise CalibrationError(
            f"a model's greatest speed of {model_max_mps} m/s",
            cause="it must be above 0 and finite: the contract of the model is damaged",
            next_step="export the model again",
        )
