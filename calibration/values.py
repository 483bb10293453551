"""What is measured of one car, and whether it holds together.

Steering: the pulses of full left, straight ahead and full right. Throttle: the pulses of neutral, full forward and full
reverse, where the wheels begin to turn, and how fast the car is at some pulses. `calibration.mapping` computes with it,
`calibration.store` keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from calibration.errors import CalibrationError

Points = tuple[tuple[float, float], ...]

MIN_PULSE_US = 500.0
MAX_PULSE_US = 2500.0  # hobby servos take 500 to 2500 us; DeepRacer's calibration has 1200 to 1700
MIN_SIDE_US = 50.0  # of steering travel to either side: less is a slip of the hand, not a steering
MIN_THROTTLE_US = 20.0  # from neutral to either end
MIN_STEP_US = 1.0  # between measured neighbours: less is within the noise of every servo and ESC
MAX_STEERING_DEG = 60.0
MIN_STEERING_DEG = 5.0
MIN_STEP_DEG = 0.5
MAX_SPEED_MPS = 20.0
MIN_STEP_MPS = 0.02


@dataclass(frozen=True)
class Steering:
    """Pulses in microseconds, angles in degrees, + is left. Left may be the longer pulse or the shorter one.

    Args:
        left_us, center_us, right_us: at ``+max_deg``, 0 and ``-max_deg``; DeepRacer's defaults.
        max_deg: the angle of the wheels at either end.
        points: more measured (degrees, microseconds) between the ends, in ascending order of the angle, 0 left out.
    """

    left_us: float = 1700.0
    center_us: float = 1450.0
    right_us: float = 1200.0
    max_deg: float = 30.0
    points: Points = ()


@dataclass(frozen=True)
class Throttle:
    """Pulses in microseconds, + is forward. Forward may be the shorter pulse (as on a DeepRacer) or the longer one.

    Args:
        neutral_us, forward_us, reverse_us: standing still and the two ends; DeepRacer's defaults.
        forward_start_us, reverse_start_us: where the wheels begin to turn; None is not measured. Between the two is
            the deadband.
        curve: measured (m/s, microseconds) in ascending order of the speed, reverse is negative, 0 left out; empty is
            not measured.
    """

    neutral_us: float = 1446.0
    forward_us: float = 1311.0
    reverse_us: float = 1603.5
    forward_start_us: float | None = None
    reverse_start_us: float | None = None
    curve: Points = ()


@dataclass(frozen=True)
class Calibration:
    """Steering and throttle of one car. ``Calibration()`` is what a DeepRacer has before anybody calibrates it."""

    steering: Steering = field(default_factory=Steering)
    throttle: Throttle = field(default_factory=Throttle)


def check_calibration(calibration: Calibration) -> None:
    """Refuse a calibration that does not hold together.

    Raises:
        CalibrationError: the first fault of `calibration_faults`; its text names the others too.
    """
    faults = calibration_faults(calibration)
    if not faults:
        return
    first, others = faults[0], [fault.what for fault in faults[1:]]
    what = first.what + (f"; and {len(others)} more: " + "; ".join(others) if others else "")
    raise CalibrationError(what, cause=first.cause, next_step=first.next_step)


def calibration_faults(calibration: Calibration) -> tuple[CalibrationError, ...]:
    """Everything that is wrong with a calibration, not raised; empty where it holds together.

    Values that are no finite numbers are named first, and alone: nothing else can be said of such a calibration.
    """
    unfit = tuple(_unfit_numbers(calibration))
    return unfit or (*_steering_faults(calibration.steering), *_throttle_faults(calibration.throttle))


def _fault(what: str, cause: str, next_step: str) -> CalibrationError:
    return CalibrationError(what, cause=cause, next_step=next_step)


def _unfit_numbers(calibration: Calibration) -> Iterator[CalibrationError]:
    steering, throttle = calibration.steering, calibration.throttle
    named: list[tuple[str, object]] = [
        (f"steering.{name}", getattr(steering, name)) for name in ("left_us", "center_us", "right_us", "max_deg")
    ]
    named += [(f"throttle.{name}", getattr(throttle, name)) for name in ("neutral_us", "forward_us", "reverse_us")]
    for name in ("forward_start_us", "reverse_start_us"):
        if getattr(throttle, name) is not None:
            named.append((f"throttle.{name}", getattr(throttle, name)))
    lists: dict[str, Sequence[Sequence[float]]] = {"steering.points": steering.points, "throttle.curve": throttle.curve}
    for name, pairs in lists.items():
        for i, pair in enumerate(pairs):
            named += [(f"{name}[{i}][{k}]", value) for k, value in enumerate(pair)]
            if len(pair) != 2:
                what = f"{name}[{i}] has {len(pair)} numbers, it needs 2"
                yield _fault(what, "each point is a value and its pulse", f"measure {name} again")
    for name, value in named:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield _fault(f"{name} = {value!r} is not a finite number", "it was not measured", f"measure {name} again")


def _steering_faults(steering: Steering) -> Iterator[CalibrationError]:
    ends = (("left_us", steering.left_us), ("center_us", steering.center_us), ("right_us", steering.right_us))
    yield from _range_faults("steering", ends)
    shown = f"left {steering.left_us:g}, center {steering.center_us:g}, right {steering.right_us:g} us"
    if not MIN_STEERING_DEG <= steering.max_deg <= MAX_STEERING_DEG:
        yield _fault(
            f"steering.max_deg = {steering.max_deg:g} is out of range ({MIN_STEERING_DEG:g} to {MAX_STEERING_DEG:g})",
            "it is the angle of the front wheels at either end, in degrees",
            "measure the angle; a DeepRacer has about 30",
        )
        return
    if not _between(steering.center_us, steering.left_us, steering.right_us):
        yield _fault(
            f"steering: {shown}: the center is not between the ends",
            "two of the three were mixed up, or measured on another servo",
            "measure center, left and right again",
        )
        return
    for name, end_us in (("left", steering.left_us), ("right", steering.right_us)):
        if abs(end_us - steering.center_us) < MIN_SIDE_US:
            yield _fault(
                f"steering: {shown}: {name} is {abs(end_us - steering.center_us):g} us from the center, at least "
                f"{MIN_SIDE_US:g} are needed",
                "the wheels were not turned to their end",
                f"measure steering.{name}_us again",
            )
    yield from _points_faults(
        "steering.points",
        "deg",
        steering.points,
        least_step=MIN_STEP_DEG,
        knots=((-steering.max_deg, steering.right_us), (0.0, steering.center_us), (steering.max_deg, steering.left_us)),
        rising=steering.left_us > steering.right_us,
    )


def _throttle_faults(throttle: Throttle) -> Iterator[CalibrationError]:
    neutral_us, forward_us, reverse_us = throttle.neutral_us, throttle.forward_us, throttle.reverse_us
    starts = {"forward": throttle.forward_start_us, "reverse": throttle.reverse_start_us}
    named = [("neutral_us", neutral_us), ("forward_us", forward_us), ("reverse_us", reverse_us)]
    named += [(f"{way}_start_us", start_us) for way, start_us in starts.items() if start_us is not None]
    yield from _range_faults("throttle", named)
    shown = f"forward {forward_us:g}, neutral {neutral_us:g}, reverse {reverse_us:g} us"
    if not _between(neutral_us, forward_us, reverse_us):
        yield _fault(
            f"throttle: {shown}: neutral is not between the ends",
            "two of the three were mixed up, or measured on another ESC",
            "measure neutral, forward and reverse again",
        )
        return
    for way, end_us in (("forward", forward_us), ("reverse", reverse_us)):
        start_us = starts[way]
        if abs(end_us - neutral_us) < MIN_THROTTLE_US:
            yield _fault(
                f"throttle: {shown}: {way} is {abs(end_us - neutral_us):g} us from neutral, at least "
                f"{MIN_THROTTLE_US:g} are needed",
                "the motor was not taken to full speed",
                f"measure throttle.{way}_us again",
            )
        elif start_us is not None and start_us != neutral_us and not _between(start_us, neutral_us, end_us):
            yield _fault(
                f"throttle.{way}_start_us = {start_us:g} is not between neutral {neutral_us:g} and {way} {end_us:g} us",
                "neutral was measured anew and the start of movement was not, or the directions were swapped",
                f"measure throttle.{way}_start_us again",
            )
    yield from _curve_faults(throttle)


def _curve_faults(throttle: Throttle) -> Iterator[CalibrationError]:
    if not throttle.curve:
        return
    speeds = [speed_mps for speed_mps, _ in throttle.curve]
    if speeds != sorted(speeds):
        yield _unsorted("throttle.curve", "speed")
        return
    if speeds[-1] <= 0.0:
        yield _fault(
            f"throttle.curve ends at {speeds[-1]:g} m/s: it has no forward speed",
            "forward speeds are positive; a curve of reverse alone cannot drive",
            "measure at least one forward speed, or leave the curve empty",
        )
    for sign, start_us, end_us in (
        (-1, throttle.reverse_start_us, throttle.reverse_us),
        (1, throttle.forward_start_us, throttle.forward_us),
    ):
        start = (0.0, throttle.neutral_us if start_us is None else start_us)
        end = (sign * MAX_SPEED_MPS, end_us)
        yield from _points_faults(
            "throttle.curve",
            "m/s",
            tuple(point for point in throttle.curve if point[0] * sign > 0.0 or (point[0] == 0.0 and sign > 0)),
            least_step=MIN_STEP_MPS,
            knots=(start, end) if sign > 0 else (end, start),
            rising=throttle.forward_us > throttle.reverse_us,
            open_end=True,
        )


def _points_faults(
    name: str,
    unit: str,
    points: Points,
    *,
    least_step: float,
    knots: Sequence[tuple[float, float]],
    rising: bool,
    open_end: bool = False,
) -> Iterator[CalibrationError]:
    """Faults of measured points that must lie in order among the given knots, in both numbers.

    Args:
        least_step: between neighbours, of the first number.
        knots: (first number, microseconds), sorted by the first; the outer two are the limits of the points.
        rising: whether the pulse rises with the first number.
        open_end: outer knots away from 0 are limits only: a point's pulse may be the limit's.
    """
    firsts = [first for first, _ in points]
    if firsts != sorted(firsts):
        yield _unsorted(name, "angle")
        return
    low, high = knots[0][0], knots[-1][0]
    low_us, high_us = min(us for _, us in knots), max(us for _, us in knots)
    for first, us in points:
        if not low <= first <= high:
            yield _fault(
                f"{name}: {first:g} {unit} is out of range ({low:g} to {high:g})",
                "it was measured before the ends were, or in another unit",
                f"leave it out of {name}",
            )
        elif not low_us <= us <= high_us:
            yield _fault(
                f"{name}: {us:g} us at {first:g} {unit} is outside of {low_us:g} to {high_us:g} us",
                "the ends, or the start of movement, were measured anew after it",
                f"measure {name} again",
            )
    ordered = sorted([*points, *(knot for knot in knots if not open_end or knot[0] == 0.0)])
    for (first, us), (next_first, next_us) in zip(ordered, ordered[1:], strict=False):
        where = f"{name}: {us:g} us at {first:g} {unit} and {next_us:g} us at {next_first:g} {unit}"
        if next_first - first < least_step:
            yield _fault(
                f"{where} are less than {least_step:g} {unit} apart",
                "one place was measured twice; 0 and the ends have fields of their own",
                f"leave one of the two out of {name}",
            )
        elif (next_us - us if rising else us - next_us) < MIN_STEP_US:
            yield _fault(
                f"{where}: the pulse must {'rise' if rising else 'fall'} by at least {MIN_STEP_US:g} us",
                "one of the two was measured wrong, or the directions were swapped",
                f"measure {name} again",
            )


def _unsorted(name: str, by: str) -> CalibrationError:
    return _fault(
        f"{name} is not sorted by {by}", f"each {by} must be greater than the one before it", f"sort {name} by {by}"
    )


def _range_faults(table: str, named: Sequence[tuple[str, float]]) -> Iterator[CalibrationError]:
    for name, pulse_us in named:
        if not MIN_PULSE_US <= pulse_us <= MAX_PULSE_US:
            yield _fault(
                f"{table}.{name} = {pulse_us:g} us is out of range ({MIN_PULSE_US:g} to {MAX_PULSE_US:g})",
                "another unit, perhaps: pulses are in microseconds here, in nanoseconds in DeepRacer's file",
                f"measure {table}.{name} again",
            )


def _between(value: float, one: float, other: float) -> bool:
    return min(one, other) < value < max(one, other)
