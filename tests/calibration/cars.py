"""Calibrations for tests: of all kinds for properties, and numbered ones for the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from calibration.mapping import default_sim_calibration
from calibration.store import save_calibration
from calibration.values import Calibration, Points, Steering, Throttle

MAX_MPS = 12.0


@st.composite
def steerings(draw: st.DrawFn) -> Steering:
    """Steering of either direction with up to three more points a side."""
    center_us = draw(st.floats(1200.0, 1800.0))
    max_deg = draw(st.floats(10.0, 45.0))
    sign = draw(st.sampled_from((1.0, -1.0)))
    sides = {side: draw(st.floats(60.0, 600.0)) for side in (1, -1)}
    points: list[tuple[float, float]] = []
    for side, width_us in sides.items():
        shares = _shares(draw, draw(st.integers(0, 3)), 0.06)
        bends = _shares(draw, len(shares), 0.05)
        points += [
            (side * share * max_deg, center_us + sign * side * bend * width_us)
            for share, bend in zip(shares, bends, strict=True)
        ]
    left_us, right_us = center_us + sign * sides[1], center_us - sign * sides[-1]
    return Steering(left_us, center_us, right_us, max_deg, tuple(sorted(points)))


@st.composite
def throttles(draw: st.DrawFn, curve: bool | None = None) -> Throttle:
    """Throttle of either direction; with a curve, without one, or either (None)."""
    neutral_us = draw(st.floats(1200.0, 1800.0))
    sign = draw(st.sampled_from((1.0, -1.0)))
    forward, reverse = draw(st.floats(60.0, 600.0)), draw(st.floats(60.0, 600.0))
    starts = [draw(st.none() | st.floats(0.0, 0.4)) for _ in range(2)]
    measured: list[tuple[float, float]] = []
    if draw(st.booleans()) if curve is None else curve:
        measured = _branch(draw, sign * forward, starts[0] or 0.0, draw(st.integers(1, 5)))
        back = _branch(draw, -sign * reverse, starts[1] or 0.0, draw(st.integers(0, 3)))
        measured = [(-mps, us) for mps, us in back] + measured
    return Throttle(
        neutral_us,
        neutral_us + sign * forward,
        neutral_us - sign * reverse,
        None if starts[0] is None else neutral_us + sign * forward * starts[0],
        None if starts[1] is None else neutral_us - sign * reverse * starts[1],
        tuple(sorted((mps, neutral_us + us) for mps, us in measured)),
    )


def calibrations(curve: bool | None = None) -> st.SearchStrategy[Calibration]:
    """Any of both."""
    return st.builds(Calibration, steerings(), throttles(curve))


def _branch(draw: st.DrawFn, width_us: float, start: float, count: int) -> list[tuple[float, float]]:
    """Measured (m/s, us from neutral) from the start of movement to at most the end."""
    shares = _shares(draw, count, 0.05)
    bends = _shares(draw, count, 0.05)
    return [
        (share * MAX_MPS, width_us * (start + (1.0 - start) * bend)) for share, bend in zip(shares, bends, strict=True)
    ]


def _shares(draw: Any, count: int, gap: float) -> list[float]:
    """So many ascending numbers between 0 and 1, both left out, at least this far apart."""
    free = 1.0 - gap * (count + 1)
    cuts = sorted(draw(st.floats(0.0, 1.0)) for _ in range(count))
    return [gap * (i + 1) + free * cut for i, cut in enumerate(cuts)]


def mirrored(calibration: Calibration) -> Calibration:
    """The same car with servo and ESC reversed: every pulse on the other side of 1500 us."""

    def flip(us: float) -> float:
        return 3000.0 - us

    def flipped(points: Points) -> Points:
        return tuple((value, flip(us)) for value, us in points)

    s, t = calibration.steering, calibration.throttle
    return Calibration(
        replace(
            s,
            left_us=flip(s.left_us),
            center_us=flip(s.center_us),
            right_us=flip(s.right_us),
            points=flipped(s.points),
        ),
        Throttle(
            flip(t.neutral_us),
            flip(t.forward_us),
            flip(t.reverse_us),
            None if t.forward_start_us is None else flip(t.forward_start_us),
            None if t.reverse_start_us is None else flip(t.reverse_start_us),
            flipped(t.curve),
        ),
    )


def car(number: int) -> Calibration:
    """The simulated car with another center for each number."""
    return Calibration(Steering(center_us=1400.0 + number), default_sim_calibration().throttle)


def saved(path: Path, *numbers: int) -> Path:
    """Save these cars one after the other."""
    for number in numbers:
        save_calibration(path, car(number))
    return path


def entry(path: Path, revision: int) -> Path:
    """The file of the history."""
    return path.parent / f"{path.name}.history" / f"{revision:06d}.json"
