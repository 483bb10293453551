"""The original car's ``calibration.json``: import and export.

Its pulses are PWM high times in whole nanoseconds, ``min < mid < max``, with the direction in ``polarity``: a positive
value times a positive polarity goes to ``max`` (aws-deepracer-servo-pkg, ``servo_mgr.cpp``; spec deepracer-vehicle.md
2.1 and 3.3). Positive steering is left, positive throttle is forward.
"""

from __future__ import annotations

import json

from calibration import strict_json
from calibration.errors import CalibrationError
from calibration.values import Calibration, Steering, Throttle, check_calibration

_NS_PER_US = 1000
_KEYS = ("max", "mid", "min", "polarity")
VERSION = 1


def from_deepracer(
    text: str | bytes, *, max_deg: float = Steering().max_deg, where: str = "calibration.json"
) -> Calibration:
    """A calibration from the text of the original car's file.

    Args:
        text: the file.
        max_deg: the angle of the wheels at either end, which the file does not say.
        where: the file that errors name.

    Returns:
        ends and centers; the file knows neither start of movement nor speeds. A file without ``version``, as the first
        cars wrote it, is read like one of version 1.

    Raises:
        CalibrationError: not JSON, unknown, doubled or missing keys, not whole numbers, another version, a polarity
            other than 1 and -1, not ``min < mid < max``, or what `check_calibration` refuses.
    """
    top = strict_json.table(strict_json.parse(text, where=where), ("Calibration",), where=where)
    inner = strict_json.table(
        top["Calibration"], ("Motor", "Servo", "version"), where=where, key="Calibration", optional=("version",)
    )
    version = strict_json.whole(inner.get("version", VERSION), where=where, key="Calibration.version")
    if version != VERSION:
        raise CalibrationError(
            f"{where}: Calibration.version = {version} is not known",
            cause=f"DeepRacer's software writes version {VERSION}",
            next_step="check that it is the original car's file",
        )
    left_us, center_us, right_us = _channel(inner["Servo"], where, "Calibration.Servo")
    forward_us, neutral_us, reverse_us = _channel(inner["Motor"], where, "Calibration.Motor")
    calibration = Calibration(
        Steering(left_us, center_us, right_us, max_deg), Throttle(neutral_us, forward_us, reverse_us)
    )
    try:
        check_calibration(calibration)
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error.what}", cause=error.cause, next_step=error.next_step) from error
    return calibration


def to_deepracer(calibration: Calibration) -> str:
    """The text of the original car's file, to the nanosecond. What it has no place for is left out: ``max_deg``, more
    points, starts of movement and speeds.

    Raises:
        CalibrationError: what `check_calibration` refuses.
    """
    check_calibration(calibration)
    steering, throttle = calibration.steering, calibration.throttle
    inner = {
        "Motor": _members(throttle.forward_us, throttle.neutral_us, throttle.reverse_us),
        "Servo": _members(steering.left_us, steering.center_us, steering.right_us),
        "version": VERSION,
    }
    return json.dumps({"Calibration": inner}, indent=2) + "\n"


def _channel(value: object, where: str, key: str) -> tuple[float, float, float]:
    """The pulses, in microseconds, of the positive end, the middle and the negative end."""
    members = strict_json.table(value, _KEYS, where=where, key=key)
    high, mid, low, polarity = (strict_json.whole(members[name], where=where, key=f"{key}.{name}") for name in _KEYS)
    if polarity not in (1, -1):
        raise CalibrationError(
            f"{where}: {key}.polarity = {polarity} is neither 1 nor -1",
            cause="the original car stands still with such a polarity",
            next_step=f"set {key}.polarity to 1, or to -1 where the direction is reversed",
        )
    if not low < mid < high:
        raise CalibrationError(
            f"{where}: {key}: min {low}, mid {mid}, max {high} ns are not in ascending order",
            cause="the original car takes min < mid < max only; the direction is in polarity",
            next_step="calibrate the original car again, or exchange the values",
        )
    low_us, mid_us, high_us = (strict_json.number(v, where=where, key=key) / _NS_PER_US for v in (low, mid, high))
    return (high_us, mid_us, low_us) if polarity > 0 else (low_us, mid_us, high_us)


def _members(positive_us: float, mid_us: float, negative_us: float) -> dict[str, int]:
    ends_ns = (round(positive_us * _NS_PER_US), round(negative_us * _NS_PER_US))
    polarity = 1 if positive_us > negative_us else -1
    return {"max": max(ends_ns), "mid": round(mid_us * _NS_PER_US), "min": min(ends_ns), "polarity": polarity}
