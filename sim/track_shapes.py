"""From a few corner points to a road: rounded corners, eased bends, evenly spaced waypoints, parallel borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.errors import TrackError
from sim.track import Track
from sim.track_set import waypoint_headings_rad

FloatArray = NDArray[np.float64]

SPACING_M = 0.15  # between waypoints, as in most of DeepRacer's tracks
MIN_RADIUS_M = 0.55  # twice what the car needs at full lock: wheelbase 0.164 m / tan 30° = 0.284 m
_DENSE_M = 0.01
_EASE_M = 0.16  # standard deviation of the smoothing: bends begin and end gently, as a car's steering does
_RADIUS_WINDOW_M = 0.4


def rounded_ring(corners: FloatArray, radii_m: FloatArray) -> FloatArray:
    """A closed curve of straights and arcs through a polygon's corners, eased, dense, without the closing repeat.

    Args:
        corners: (K, 2) metres, in the order of travel.
        radii_m: (K,) wanted radius of the arc at each corner; made smaller where two arcs would overlap.

    Returns:
        (M, 2) metres, about 1 cm apart.
    """
    ahead = np.roll(corners, -1, axis=0) - corners
    edge_m = np.hypot(*ahead.T)
    if edge_m.min() <= 0.0:
        raise TrackError("two neighbouring corners of a track are the same point", cause="a corner was written twice")
    heading = np.arctan2(ahead[:, 1], ahead[:, 0])
    turn = np.pi - np.mod(np.pi - (heading - np.roll(heading, 1)), 2.0 * np.pi)
    half_tan = np.tan(np.abs(turn) / 2.0)
    tangent_m = radii_m * half_tan
    room = edge_m / np.maximum(tangent_m + np.roll(tangent_m, -1), 1e-12)
    tangent_m = tangent_m * np.minimum(1.0, np.minimum(room, np.roll(room, 1)))
    pieces = []
    for index, corner in enumerate(corners):
        unit_in = np.array([np.cos(heading[index - 1]), np.sin(heading[index - 1])])
        start = corner - tangent_m[index] * unit_in
        if half_tan[index] < 1e-6 or tangent_m[index] < 1e-9:
            pieces.append(corner[None, :])
            continue
        radius_m = tangent_m[index] / half_tan[index]
        side = np.sign(turn[index])
        centre = start + side * radius_m * np.array([-unit_in[1], unit_in[0]])
        steps = max(2, int(np.ceil(abs(turn[index]) * radius_m / _DENSE_M)))
        angle = np.linspace(0.0, turn[index], steps + 1) + heading[index - 1] - side * np.pi / 2.0
        pieces.append(centre + radius_m * np.stack((np.cos(angle), np.sin(angle)), axis=1))
    return _eased(np.concatenate(pieces))


def road(name: str, ring: FloatArray, width_m: float) -> Track:
    """A track of constant width around a dense closed curve (M, 2); it starts in the middle of the longest straight.

    The result is not checked: a bend tighter than half the width gives borders that `sim.track.check_track` refuses.
    """
    closed = np.concatenate((ring, ring[:1]))
    along_m = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))))
    length_m = along_m[-1]
    count = round(length_m / SPACING_M)
    s_m = np.mod(_start_m(ring, length_m) + np.arange(count) * (length_m / count), length_m)
    # Tangents by a central difference over two dense steps: the curve is smooth on that scale.
    tangent = np.roll(ring, -1, axis=0) - np.roll(ring, 1, axis=0)
    tangent = np.concatenate((tangent, tangent[:1]))
    center = np.stack([np.interp(s_m, along_m, closed[:, axis]) for axis in (0, 1)], axis=1)
    normal = np.stack((-np.interp(s_m, along_m, tangent[:, 1]), np.interp(s_m, along_m, tangent[:, 0])), axis=1)
    normal /= np.hypot(*normal.T)[:, None]
    lines = [center + aside * normal for aside in (0.0, width_m / 2.0, -width_m / 2.0)]
    # A corner of the picture at (0.5, 0.5) m and whole micrometres: files that people can read and compare.
    shift = 0.5 - np.concatenate(lines).min(axis=0)
    rounded = [np.round(line + shift, 6) + 0.0 for line in lines]
    center, left, right = (np.concatenate((line, line[:1])) for line in rounded)
    return Track(name, center, left, right)


def min_radius_m(track: Track) -> float:
    """Radius of the tightest bend of the centre line, metres, measured over 0.4 m of it.

    Waypoints alone would not do: real tracks have some 3 cm apart whose three-point circles are noise.
    """
    heading = waypoint_headings_rad(track)
    total = heading[-1] - heading[0]
    window_m = min(_RADIUS_WINDOW_M, track.length_m / 4.0)
    at_m = np.arange(0.0, track.length_m, _RADIUS_WINDOW_M / 8.0)
    s_m = np.concatenate((track.s_m, track.s_m[1:] + track.length_m))
    heading = np.concatenate((heading, heading[1:] + total))
    turn = np.interp(at_m + window_m, s_m, heading) - np.interp(at_m, s_m, heading)
    return float(window_m / np.abs(turn).max())


def describe(track: Track) -> dict[str, str | float | int]:
    """What `hotlap tracks` says of a track, as JSON-able values: lengths in metres, direction "ccw" or "cw"."""
    return {
        "name": track.name,
        "length_m": round(track.length_m, 3),
        "width_m": round(track.width_m, 3),
        "direction": "ccw" if track.is_ccw else "cw",
        "waypoints": len(track.center),
        "min_radius_m": round(min_radius_m(track), 3),
    }


def turning_rad(track: Track) -> tuple[float, float]:
    """How much the centre line turns to the left and to the right over a lap, both not negative, rad."""
    turn = np.diff(waypoint_headings_rad(track))
    return float(turn[turn > 0.0].sum()), float(-turn[turn < 0.0].sum())


def even_ring(points: FloatArray) -> FloatArray:
    """The closed polyline (M, 2) resampled to even steps of about 1 cm."""
    closed = np.concatenate((points, points[:1]))
    step_m = np.hypot(*np.diff(closed, axis=0).T)
    along_m = np.concatenate(([0.0], np.cumsum(step_m)))
    at_m = np.linspace(0.0, along_m[-1], max(16, round(along_m[-1] / _DENSE_M)), endpoint=False)
    return np.stack([np.interp(at_m, along_m, closed[:, axis]) for axis in (0, 1)], axis=1)


def ring_length_m(ring: FloatArray) -> float:
    """Length of a closed curve (M, 2) given without its closing repeat, metres."""
    return float(np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).sum())


def _eased(points: FloatArray) -> FloatArray:
    """Periodic Gaussian smoothing along the curve: arcs with stepping curvature become bends with ramps."""
    ring = even_ring(points)
    frequency = np.fft.rfftfreq(len(ring), d=ring_length_m(ring) / len(ring))
    window = np.exp(-2.0 * (np.pi * frequency * _EASE_M) ** 2)
    smooth = np.fft.irfft(np.fft.rfft(ring, axis=0) * window[:, None], n=len(ring), axis=0)
    return even_ring(smooth)


def _start_m(ring: FloatArray, length_m: float) -> float:
    """Where the longest straight has its middle: a start line wants a straight before and after it."""
    # Steps of about 0.2 m: finer ones would measure rounding instead of curvature.
    coarse = ring[:: max(1, len(ring) // max(16, round(length_m / 0.2)))]
    step = np.roll(coarse, -1, axis=0) - coarse
    heading = np.arctan2(step[:, 1], step[:, 0])
    turn = np.abs(np.pi - np.mod(np.pi - (np.roll(heading, -1) - heading), 2.0 * np.pi))
    straight = turn < 0.2 / 6.0  # a radius above 6 m
    if not straight.any() or straight.all():
        return 0.0
    shift = int(np.flatnonzero(~straight)[0])
    run, best, best_end = 0, 0, 0
    for index, is_straight in enumerate(np.roll(straight, -shift)):
        run = run + 1 if is_straight else 0
        if run > best:
            best, best_end = run, index
    middle = (best_end + shift + 1 - best / 2.0) % len(coarse)
    return middle / len(coarse) * length_m
