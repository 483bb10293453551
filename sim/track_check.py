"""What makes a road fit to race on, judged on its three lines, each fault with its place.

The crossing test is exact over all pairs of segments, touching included. No tolerance for small kinks in borders is
needed: every closed road among the real DeepRacer files tried has three simple lines.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sim.errors import TrackError
from sim.track_kernels import first_crossing, is_inside, nearest_distances_m

FloatArray = NDArray[np.float64]

MIN_WIDTH_M = 0.35  # the car is 0.2 m wide
MIN_LENGTH_M = 3.0
MAX_POINTS = 5000  # the crossing test looks at all pairs; the longest real track has 300 points


def check_lines(name: str, center: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """Check three closed (N+1, 2) lines in metres. Raises TrackError naming the fault, the place and the value."""
    lines = {"centre": center, "left border": left, "right border": right}
    _check_numbers(name, lines)
    length_m = float(np.hypot(*np.diff(center, axis=0).T).sum())
    if length_m < MIN_LENGTH_M:
        _refuse(
            name, f"is {length_m:.2f} m long, the least is {MIN_LENGTH_M:.0f} m", "it is in other units than metres"
        )
    repeated = np.flatnonzero(np.all(center[1:] == center[:-1], axis=1))
    if len(repeated):
        _refuse(
            name, f"has a centre that repeats point {repeated[0]}", "a row was written twice; track_from_array drops it"
        )
    compact = {label: without_repeats(line) for label, line in lines.items()}
    for label, line in compact.items():
        _check_simple(name, label, line)
    for one, other in (("left border", "right border"), ("centre", "left border"), ("centre", "right border")):
        found = first_crossing(compact[one], compact[other], False)
        if found[0] >= 0:
            _refuse(
                name,
                f"has a {one} that crosses its {other} at ({found[2]:.2f}, {found[3]:.2f}) m",
                "a bend is tighter than half the road's width, or two parts of the road overlap",
            )
    _check_sides(name, compact["centre"], compact["left border"], compact["right border"])
    _check_width(name, compact["left border"], compact["right border"])


def without_repeats(ring: FloatArray) -> FloatArray:
    """The closed ring without points that repeat the one before."""
    keep = np.concatenate(([True], np.any(ring[1:] != ring[:-1], axis=1)))
    short = np.array(ring[keep])
    if len(short) > 1 and np.any(short[-1] != ring[-1]):
        short[-1] = ring[-1]
    return short


def _check_numbers(name: str, lines: dict[str, FloatArray]) -> None:
    rows = len(lines["centre"])
    for label, line in lines.items():
        if line.ndim != 2 or line.shape != (rows, 2) or not 5 <= rows <= MAX_POINTS:
            _refuse(
                name,
                f"has a {label} of shape {line.shape}; wanted ({rows}, 2) with 5 to {MAX_POINTS} points",
                "the three lines were not built together",
            )
        bad = np.argwhere(~np.isfinite(line))
        if len(bad):
            _refuse(
                name,
                f"has {len(bad)} numbers that are not finite in its {label}, the first at point {bad[0][0]}",
                "the file is damaged",
            )
        gap_m = float(np.hypot(*(line[-1] - line[0])))
        if gap_m > 0.0:
            _refuse(
                name,
                f"is open: its {label} ends {gap_m:.3g} m from its start",
                "the first point is not repeated at the end",
            )


def _check_simple(name: str, label: str, ring: FloatArray) -> None:
    if len(ring) < 5:
        _refuse(name, f"has a {label} of only {len(ring) - 1} different points", "most of its rows are equal")
    step = np.diff(ring, axis=0)
    after = np.roll(step, -1, axis=0)
    cross = step[:, 0] * after[:, 1] - step[:, 1] * after[:, 0]
    folded = np.flatnonzero((cross == 0.0) & (np.sum(step * after, axis=1) < 0.0))
    if len(folded):
        x, y = ring[folded[0] + 1]
        _refuse(name, f"has a {label} that folds back on itself at ({x:.2f}, {y:.2f}) m", "points are out of order")
    one, other, x, y = first_crossing(ring, ring, True)
    if one >= 0:
        _refuse(
            name,
            f"has a {label} that crosses itself at ({x:.2f}, {y:.2f}) m, between points {one} and {other}",
            "it is a figure of eight, points are out of order, or a bend is tighter than half the road's width",
        )


def _check_sides(name: str, center: FloatArray, left: FloatArray, right: FloatArray) -> None:
    # The lines do not cross by now, so one point of a line tells for all of it.
    areas_m2 = [_signed_area_m2(line) for line in (center, left, right)]
    if len({area > 0.0 for area in areas_m2}) != 1:
        _refuse(
            name, "has a border that runs against the direction of its centre", "its rows are in the opposite order"
        )
    inner, outer = (left, right) if areas_m2[0] > 0.0 else (right, left)
    inner_label, outer_label = ("left", "right") if areas_m2[0] > 0.0 else ("right", "left")
    for label, line, should_be_inside in ((inner_label, inner, True), (outer_label, outer, False)):
        x, y = line[0]
        if is_inside(center, x, y) != should_be_inside:
            _refuse(
                name,
                f"has its {label} border on the wrong side of its centre, for instance at ({x:.2f}, {y:.2f}) m",
                "left and right are swapped, or both borders are on one side",
            )


def _check_width(name: str, left: FloatArray, right: FloatArray) -> None:
    for line, other in ((left, right), (right, left)):
        width_m = nearest_distances_m(line, other)
        place = int(width_m.argmin())
        if width_m[place] < MIN_WIDTH_M:
            x, y = line[place]
            _refuse(
                name,
                f"is too narrow: {width_m[place]:.3f} m at ({x:.2f}, {y:.2f}) m, the least is {MIN_WIDTH_M} m",
                "the car is 0.2 m wide and needs room to steer, or the file is in other units than metres",
            )


def _signed_area_m2(ring: FloatArray) -> float:
    x, y = (ring - ring[0]).T
    return float(0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _refuse(name: str, what: str, cause: str) -> NoReturn:
    raise TrackError(
        f"track {name!r} {what}",
        cause=cause,
        next_step="hotlap tracks show NAME --out map.png, with a track that works",
    )
