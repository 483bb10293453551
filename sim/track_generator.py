"""Random tracks from a seed: the same seed and limits give the same bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sim.errors import TrackError
from sim.track import Track, check_track
from sim.track_shapes import MIN_RADIUS_M, even_ring, min_radius_m, ring_length_m, road, rounded_ring, turning_rad

FloatArray = NDArray[np.float64]

# A lap turns one whole turn net; at least this much has to go the other way and come back.
_MIN_COUNTER_TURN_RAD = math.radians(70.0)
_ATTEMPTS = 400
_SIDES = ((1, 0), (0, 1), (-1, 0), (0, -1))
_GAP_M = 0.15  # between the borders of neighbouring stretches of road, wanted when choosing a cell's size


def generate_track(
    seed: int,
    *,
    length_m: tuple[float, float] = (15.0, 60.0),
    width_m: tuple[float, float] = (0.6, 1.1),
    clockwise: bool | None = None,
) -> Track:
    """A random track that `sim.track.check_track` accepts, with bends in both directions.

    Length and width are drawn evenly from the limits; a layout that does not work out is drawn again from the same
    stream of random numbers.

    Args:
        seed: not negative; the track is named ``generated_SEED``.
        length_m: (least, most) length of the centre line, within 10 to 300 m.
        width_m: (least, most) width of the road, within 0.4 to 1.5 m.
        clockwise: the direction of travel; None draws it.

    Raises:
        TrackError: limits out of range or contradictory, or so tight that no layout was found.
    """
    _check_limits(seed, length_m, width_m)
    rng = np.random.default_rng(seed)
    for attempt in range(_ATTEMPTS):
        wanted_m = float(rng.uniform(*length_m))
        wide_m = float(rng.uniform(*width_m))
        is_clockwise = bool(rng.random() < 0.5) if clockwise is None else clockwise
        # Every failure makes the next layout a little simpler, so that short and wide roads are found too.
        ease = attempt / (attempt + 12.0)
        corners = _cell_walk(rng, wanted_m, wide_m, ease) if rng.random() < 0.6 else _star(rng, wanted_m, ease)
        ring = _fitted(rng, corners, wanted_m, wide_m)
        if is_clockwise:
            ring = ring[::-1]
        track = road(f"generated_{seed}", ring, wide_m)
        if _is_good(track, wide_m, length_m):
            return track
    raise TrackError(
        f"no track of {length_m[0]:g} to {length_m[1]:g} m length and {width_m[0]:g} to {width_m[1]:g} m width "
        f"came out of {_ATTEMPTS} layouts with seed {seed}",
        cause="the road is too wide for so short a lap with bends both ways",
        next_step="hotlap tracks generate, with a longer or a narrower road",
    )


def _check_limits(seed: int, length_m: tuple[float, float], width_m: tuple[float, float]) -> None:
    if seed < 0:
        raise TrackError(
            f"the seed is {seed}", cause="a seed is not negative", next_step="hotlap tracks generate --seed 0"
        )
    for label, (least, most), (lowest, highest) in (
        ("length", length_m, (10.0, 300.0)),
        ("width", width_m, (0.4, 1.5)),
    ):
        if not lowest <= least <= most <= highest:
            raise TrackError(
                f"the limits of the {label} are {least:g} to {most:g} m; "
                f"wanted (least, most) within {lowest:g} to {highest:g} m",
                cause="swapped, or in other units than metres",
                next_step="hotlap tracks generate --help",
            )


def _star(rng: np.random.Generator, wanted_m: float, ease: float) -> FloatArray:
    """Corners around a middle at uneven angles and distances: sweepers, kinks, notches."""
    # A long lap with few corners would be dull, a short one with many has no room for them.
    least, most = min(5.0 + wanted_m / 15.0, 10.0), min(5.0 + wanted_m / 5.0, 14.0)
    count = round(rng.uniform(least, most) * (1.0 - 0.5 * ease))
    count = max(5, count)
    angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * (2.0 * math.pi / count)
    distance = 1.0 - (0.25 + 0.35 * (1.0 - ease)) * rng.random(count)
    notch = int(rng.integers(count))
    distance[notch] = 0.45 * distance[notch]
    stretch = np.array([1.0, rng.uniform(0.55, 0.95)])
    corners: FloatArray = distance[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1) * stretch
    return corners


def _cell_walk(rng: np.random.Generator, wanted_m: float, wide_m: float, ease: float) -> FloatArray:
    """The outline of cells grown at random on a grid, corners shaken: hairpins, parallel straights, S bends."""
    least_cell_m = max(wide_m + _GAP_M, 2.0 * _least_radius_m(wide_m)) * 1.15
    most_cells = max(3, int((wanted_m / least_cell_m - 2.0) / 2.0 * (1.0 - 0.6 * ease)))
    fewest = 3 + int(wanted_m / 12.0 * (1.0 - ease))
    count = int(rng.integers(fewest, max(fewest, min(most_cells, 16)) + 1))
    cells = {(0, 0)}
    # Growing only where one neighbour is taken keeps the cells a tree without holes, so its outline is one loop.
    for _ in range(50 * count):
        if len(cells) >= count:
            break
        base = sorted(cells)[int(rng.integers(len(cells)))]
        dx, dy = _SIDES[int(rng.integers(4))]
        new = (base[0] + dx, base[1] + dy)
        beside = sum((new[0] + i, new[1] + j) in cells for i, j in _SIDES)
        if new not in cells and beside == 1 and not _touches_diagonally(cells, new):
            cells.add(new)
    outline = _outline(cells)
    return outline + rng.uniform(-0.12, 0.12, outline.shape) * (1.0 - 0.5 * ease)


def _touches_diagonally(cells: set[tuple[int, int]], new: tuple[int, int]) -> bool:
    """Whether a new cell would meet a cell at a corner only; the outline would pass that corner twice."""
    for i in (-1, 1):
        for j in (-1, 1):
            across = (new[0] + i, new[1] + j) in cells
            if across and (new[0] + i, new[1]) not in cells and (new[0], new[1] + j) not in cells:
                return True
    return False


def _outline(cells: set[tuple[int, int]]) -> FloatArray:
    """Corners (K, 2) of the counter-clockwise outline of cells of size 1; points on straight sides are left out."""
    following: dict[tuple[int, int], tuple[int, int]] = {}
    for x, y in sorted(cells):
        if (x, y - 1) not in cells:
            following[(x, y)] = (x + 1, y)
        if (x + 1, y) not in cells:
            following[(x + 1, y)] = (x + 1, y + 1)
        if (x, y + 1) not in cells:
            following[(x + 1, y + 1)] = (x, y + 1)
        if (x - 1, y) not in cells:
            following[(x, y + 1)] = (x, y)
    first = min(following)
    loop = [first]
    while following[loop[-1]] != first:
        loop.append(following[loop[-1]])
    points = np.array(loop, dtype=np.float64)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[np.any(before != after, axis=1)]


def _fitted(rng: np.random.Generator, corners: FloatArray, wanted_m: float, wide_m: float) -> FloatArray:
    """Scale the corners until the rounded curve has the wanted length; turn it and round each corner at random."""
    angle = rng.uniform(0.0, 2.0 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = corners @ turn.T
    scale = wanted_m / ring_length_m(corners)
    least_m = _least_radius_m(wide_m) * 1.12
    most_m = max(2.2 * least_m, 0.6 * wanted_m / len(corners))
    radii_m = rng.uniform(least_m, most_m, len(corners))
    ring = corners
    for _ in range(3):
        ring = rounded_ring(corners * scale, radii_m)
        scale *= wanted_m / ring_length_m(ring)
    # What is left after three rounds is far below a per cent.
    return even_ring(ring * (wanted_m / ring_length_m(ring)))


def _least_radius_m(wide_m: float) -> float:
    """The inner border has a radius too: half a width less than the centre's."""
    return max(MIN_RADIUS_M, wide_m / 2.0 + 0.12)


def _is_good(track: Track, wide_m: float, length_m: tuple[float, float]) -> bool:
    if min_radius_m(track) < _least_radius_m(wide_m):
        return False
    if min(turning_rad(track)) < _MIN_COUNTER_TURN_RAD:
        return False
    if not length_m[0] - 0.01 <= track.length_m <= length_m[1] + 0.01:
        return False
    try:
        check_track(track)
    except TrackError:
        return False
    return True
