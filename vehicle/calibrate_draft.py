"""A calibration that is being made: what one measured value does to the others, and how it is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from calibration.values import Calibration, calibration_faults

# table, field, what it is called, unit
VALUES = (
    ("steering", "left_us", "full left", "us"),
    ("steering", "center_us", "straight ahead", "us"),
    ("steering", "right_us", "full right", "us"),
    ("steering", "max_deg", "angle at full left and right", "deg"),
    ("steering", "points", "measured angles", "deg: us"),
    ("throttle", "forward_us", "full speed forwards", "us"),
    ("throttle", "forward_start_us", "begins to turn forwards", "us"),
    ("throttle", "neutral_us", "standstill", "us"),
    ("throttle", "reverse_start_us", "begins to turn backwards", "us"),
    ("throttle", "reverse_us", "full speed backwards", "us"),
    ("throttle", "curve", "measured speeds", "m/s: us"),
)


def with_steering(calibration: Calibration, **values: Any) -> Calibration:
    """The same with other values of the steering."""
    return replace(calibration, steering=replace(calibration.steering, **values))


def with_throttle(calibration: Calibration, **values: Any) -> Calibration:
    """The same with other values of the throttle."""
    return replace(calibration, throttle=replace(calibration.throttle, **values))


def swap_steering(calibration: Calibration) -> Calibration:
    """Left is right and right is left; measured angles change their side with them."""
    steering = calibration.steering
    points = tuple((-deg, us) for deg, us in reversed(steering.points))
    return with_steering(calibration, left_us=steering.right_us, right_us=steering.left_us, points=points)


def swap_throttle(calibration: Calibration) -> Calibration:
    """Forwards is backwards. Speeds that were measured the other way round are void."""
    throttle = calibration.throttle
    return with_throttle(
        calibration,
        forward_us=throttle.reverse_us,
        reverse_us=throttle.forward_us,
        forward_start_us=throttle.reverse_start_us,
        reverse_start_us=throttle.forward_start_us,
        curve=(),
    )


def with_starts(
    calibration: Calibration, longer_us: float, shorter_us: float, *, longer_is_forward: bool, measured: frozenset[str]
) -> Calibration:
    """Neutral in the middle between the two pulses where the wheels begin to turn.

    An end that was not measured anew (``measured`` has "forward", "reverse") stays as far from neutral as it was, on
    the side where it belongs now. Speeds are void where the direction has turned.
    """
    before = calibration.throttle
    neutral_us = (longer_us + shorter_us) / 2.0
    ends = {}
    for name, sign in (("forward", 1.0), ("reverse", -1.0)):
        end_us = getattr(before, f"{name}_us")
        if name not in measured:
            end_us = neutral_us + (sign if longer_is_forward else -sign) * abs(end_us - before.neutral_us)
        ends[f"{name}_us"] = end_us
    forward_us, reverse_us = (longer_us, shorter_us) if longer_is_forward else (shorter_us, longer_us)
    turned = (before.forward_us > before.neutral_us) != longer_is_forward
    return with_throttle(
        calibration,
        neutral_us=neutral_us,
        forward_start_us=forward_us,
        reverse_start_us=reverse_us,
        curve=() if turned else before.curve,
        **ends,
    )


def with_pair(pairs: tuple[tuple[float, float], ...], first: float, us: float) -> tuple[tuple[float, float], ...]:
    """One more measured (angle or speed, microseconds), in order; it takes the place of one with the same first."""
    return tuple(sorted([*(pair for pair in pairs if pair[0] != first), (first, us)]))


def shown(value: object) -> str:
    """A value of a calibration for people: a tenth of a microsecond is more than any servo can do."""
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(f"{first:g}: {us:.1f}" for first, us in value)
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def differences(before: Calibration | None, after: Calibration) -> Iterator[tuple[str, str, str]]:
    """(name, before, after) of every value that is not the same, as people read it."""
    for table, field, words, unit in VALUES:
        old = None if before is None else getattr(getattr(before, table), field)
        new = getattr(getattr(after, table), field)
        if old != new:
            yield f"{words} ({unit})", shown(old), shown(new)


def difference_text(before: Calibration | None, after: Calibration) -> str:
    """What would change, a line a value."""
    rows = list(differences(before, after))
    if not rows:
        return "nothing changes"
    return _columns([("", "in force", "new"), *rows])


def values_text(calibration: Calibration) -> str:
    """Every value, a line each."""
    return _columns(
        [
            (f"{words} ({unit})", shown(getattr(getattr(calibration, table), field)))
            for table, field, words, unit in VALUES
        ]
    )


def checks_text(calibration: Calibration) -> str:
    """What the checks say: every fault with its cause and what to do; and the deadband."""
    faults = calibration_faults(calibration)
    lines = ["checks: order, distances and ranges are good"] if not faults else []
    for fault in faults:
        lines += [f"check: {fault.what}", f"    likely cause: {fault.cause}", f"    next: {fault.next_step}"]
    throttle = calibration.throttle
    starts = (throttle.forward_start_us, throttle.reverse_start_us)
    if None in starts:
        lines.append("deadband: not measured")
    elif not faults:
        forward_us, reverse_us = (abs(us - throttle.neutral_us) for us in starts if us is not None)
        lines.append(f"deadband: {forward_us:.1f} us forwards, {reverse_us:.1f} us backwards")
    return "\n".join(lines)


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
