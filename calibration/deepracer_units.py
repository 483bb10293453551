"""The numbers of the original car's HTTP API, and what they are here. Pure.

Sources: aws-deepracer-webserver-pkg ``constants.py`` and ``vehicle_control.py`` (spec deepracer-vehicle.md 2.2, 3.2).
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from calibration.deepracer import from_deepracer, to_deepracer
from calibration.errors import CalibrationError
from calibration.values import Calibration

OFFSET_NS = 1_500_000
STEP_NS = {"angle": 10_000, "throttle": 4_500}
MEMBER = {"angle": "Servo", "throttle": "Motor"}
DEFAULT_MAX_SPEED = 0.3  # for a client that sends none; the original refuses it
BATTERY_FULL = 10
BATTERY_UNKNOWN = -1
_MOST_STEPS = 500.0  # far beyond any servo, and far from where a float loses its places
_KEYS = ("mid", "min", "max", "polarity")


def calibration_steps(calibration: Calibration, channel: str) -> dict[str, Any]:
    """``{"mid", "min", "max", "polarity"}`` of "angle" or "throttle", in the API's steps."""
    members = json.loads(to_deepracer(calibration))["Calibration"][MEMBER[channel]]
    step_ns = STEP_NS[channel]
    steps = {key: (members[key] - OFFSET_NS) / step_ns for key in ("mid", "min", "max")}
    return {**steps, "polarity": members["polarity"]}


def with_steps(calibration: Calibration | None, channel: str, values: dict[str, Any]) -> Calibration:
    """The calibration with the three pulses of one channel replaced.

    The original cuts fractions off; here they count, so that what was read can be written back unchanged. What was
    measured beyond the three pulses (angles, speeds, starts of movement) is kept where the pulses stay the same.

    Args:
        calibration: None: the other channel has DeepRacer's defaults.

    Raises:
        CalibrationError: a value is missing, no number, or the pulses do not hold together.
    """
    before = calibration or Calibration()
    numbers = {key: _number(values, key) for key in _KEYS}
    step_ns = STEP_NS[channel]
    document = json.loads(to_deepracer(before))
    document["Calibration"][MEMBER[channel]] = {
        **{key: round(numbers[key] * step_ns) + OFFSET_NS for key in ("mid", "min", "max")},
        "polarity": 1 if numbers["polarity"] > 0 else -1,
    }
    found = from_deepracer(json.dumps(document), max_deg=before.steering.max_deg, where=f"set_calibration/{channel}")
    if channel == "angle":
        ends = found.steering
        same = replace(ends, points=before.steering.points) == before.steering
        return before if same else replace(before, steering=ends)
    throttle = found.throttle
    old = before.throttle
    kept = replace(
        throttle, forward_start_us=old.forward_start_us, reverse_start_us=old.reverse_start_us, curve=old.curve
    )  # fmt: skip
    return before if kept == old else replace(before, throttle=throttle)


def pulse_us(channel: str, steps: float) -> float:
    """The pulse of ``adjust_calibrating_wheels``, in microseconds."""
    return (OFFSET_NS + steps * STEP_NS[channel]) / 1000.0


def manual_command(angle: float, throttle: float, max_speed: float) -> tuple[float, float]:
    """Steering (+ is left) and throttle (+ is forward), both -1 to 1, of the original's ``manual_drive``.

    There, a positive angle is right and a negative throttle is forward; both are put into one of three buckets, and the
    throttle goes through a parabola that ``max_speed`` stretches.
    """
    c = abs(_bucket(throttle))
    if c == 0.0 or max_speed == 0.0:
        speed = 0.0
    else:
        s = 1.0 + 4.0 * (1.0 - max_speed)
        speed = -1.2 / s**2 * c**2 + 2.2 / s * c
    return -_bucket(angle), math.copysign(speed, -throttle) if speed else 0.0


def battery_level(fraction: float | None) -> int:
    """0 to 10, or -1 where nothing measures it."""
    if fraction is None or not math.isfinite(fraction):
        return BATTERY_UNKNOWN
    return round(BATTERY_FULL * min(max(fraction, 0.0), 1.0))


def steps_of(value: object, name: str) -> float:
    """A number of the API, which may come as text.

    Raises:
        CalibrationError: it is none.
    """
    return _number({name: value}, name)


def _bucket(value: float) -> float:
    size = abs(value)
    bucket = 0.8 if size >= 0.8 else 0.5 if size >= 0.5 else 0.3 if size > 0.0 else 0.0
    return math.copysign(bucket, value) if bucket else 0.0


def _number(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, str) and len(value) <= 32:
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MOST_STEPS:
        raise CalibrationError(
            f"{key} must be a number of at most {_MOST_STEPS:g}",
            cause="a key is missing, or its value is text",
            next_step="send mid, min, max and polarity as numbers",
        )
    return float(value)
