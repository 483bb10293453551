"""Compiled geometry of polylines: nearest points, crossings, containment. No Python objects, no shared state.

The kernels release the GIL and write only what they return, so any number of threads may run them on slices; each car
is computed by itself, so the result does not depend on the slicing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
F = TypeVar("F", bound=Callable[..., object])

# Rows of the table that project_kernel returns.
S, DISTANCE, LATERAL, HEADING, WIDTH, LEFT, RIGHT = range(7)


def kernel(function: F) -> F:
    """Compile with Numba, releasing the GIL; the machine code is kept on disk next to the source."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@kernel
def nearest_on_line(segments: FloatArray, count: int, x: float, y: float) -> tuple[int, float]:
    """Nearest segment (the first one on a tie) and position on it (0..1).

    segments: (5, M): start x, y, vector x, y, 1/length² (0 for a segment without length).
    """
    best = math.inf
    best_index = 0
    best_t = 0.0
    for index in range(count):
        ex = x - segments[0, index]
        ey = y - segments[1, index]
        dx = segments[2, index]
        dy = segments[3, index]
        t = min(max((ex * dx + ey * dy) * segments[4, index], 0.0), 1.0)
        fx = ex - t * dx
        fy = ey - t * dy
        squared = fx * fx + fy * fy
        if squared < best:
            best = squared
            best_index = index
            best_t = t
    return best_index, best_t


@kernel
def project_kernel(
    track_index: IntArray, points: FloatArray, counts: IntArray, segments: FloatArray, s_m: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Project points on centre lines. Returns a (7, n) table (rows named above) and the (n,) segment index.

    segments: (T, 3, 5, M) for centre, left, right; s_m: (T, M+1).
    """
    n = len(points)
    table = np.empty((7, n))
    previous = np.empty(n, dtype=np.int64)
    for car in range(n):
        track = track_index[car]
        count = counts[track]
        x = points[car, 0]
        y = points[car, 1]
        center = segments[track, 0]
        k, t = nearest_on_line(center, count, x, y)
        if t >= 1.0:  # bisect_right: a point exactly at a waypoint belongs to the segment that starts there
            k = (k + 1) % count
            t = 0.0
        dx = center[2, k]
        dy = center[3, k]
        nearest_x = center[0, k] + t * dx
        nearest_y = center[1, k] + t * dy
        off_x = x - nearest_x
        off_y = y - nearest_y
        distance = math.sqrt(off_x * off_x + off_y * off_y)
        previous[car] = k
        table[S, car] = s_m[track, k] + t * (s_m[track, k + 1] - s_m[track, k])
        table[DISTANCE, car] = distance
        table[LATERAL, car] = distance if dx * off_y - dy * off_x >= 0.0 else -distance
        table[HEADING, car] = math.atan2(dy, dx)
        i, u = nearest_on_line(segments[track, 1], count, nearest_x, nearest_y)
        left_x = segments[track, 1, 0, i] + u * segments[track, 1, 2, i]
        left_y = segments[track, 1, 1, i] + u * segments[track, 1, 3, i]
        i, u = nearest_on_line(segments[track, 2], count, nearest_x, nearest_y)
        right_x = segments[track, 2, 0, i] + u * segments[track, 2, 2, i]
        right_y = segments[track, 2, 1, i] + u * segments[track, 2, 3, i]
        table[WIDTH, car] = math.sqrt((left_x - right_x) ** 2 + (left_y - right_y) ** 2)
        table[LEFT, car] = math.sqrt((left_x - x) ** 2 + (left_y - y) ** 2)
        table[RIGHT, car] = math.sqrt((right_x - x) ** 2 + (right_y - y) ** 2)
    return table, previous


@kernel
def on_track_kernel(track_index: IntArray, points: FloatArray, counts: IntArray, edges: FloatArray) -> BoolArray:
    """Whether points (n, w, 2) are strictly between the borders: (n, w).

    edges: (T, M, 4) x1, y1, x2, y2 of both borders together. One enclosing the other, a point is on the road when a
    ray from it crosses their edges an odd number of times; a point on an edge is not on the road.
    """
    n, wheels = points.shape[0], points.shape[1]
    inside = np.empty((n, wheels), dtype=np.bool_)
    for car in range(n):
        track = track_index[car]
        count = counts[track]
        for wheel in range(wheels):
            x = points[car, wheel, 0]
            y = points[car, wheel, 1]
            odd = False
            for index in range(count):
                y1 = edges[track, index, 1]
                y2 = edges[track, index, 3]
                if (y1 > y and y2 > y) or (y1 < y and y2 < y):
                    continue
                x1 = edges[track, index, 0]
                x2 = edges[track, index, 2]
                cross = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
                if cross == 0.0 and min(x1, x2) <= x <= max(x1, x2):
                    odd = False
                    break
                if (y1 > y) != (y2 > y) and (cross > 0.0) == (y2 > y1):
                    odd = not odd
            inside[car, wheel] = odd
    return inside


@kernel
def interpolate_kernel(
    track_index: IntArray, distance_m: FloatArray, counts: IntArray, s_m: FloatArray, values: FloatArray
) -> FloatArray:
    """Interpolate values (T, M+1, c) known at the waypoints linearly at distances (n,), going on after the finish.

    A whole lap adds the difference between the closing waypoint's value and the first one's: nothing for x and y,
    a turn of ±2π for an unwrapped heading. Returns (n, c).
    """
    n, channels = len(distance_m), values.shape[2]
    result = np.empty((n, channels))
    for car in range(n):
        track = track_index[car]
        count = counts[track]
        length = s_m[track, count]
        laps = math.floor(distance_m[car] / length)
        s = min(max(distance_m[car] - laps * length, 0.0), length)
        k = min(np.searchsorted(s_m[track, : count + 1], s, side="right") - 1, count - 1)
        t = (s - s_m[track, k]) / (s_m[track, k + 1] - s_m[track, k])
        for channel in range(channels):
            a = values[track, k, channel]
            b = values[track, k + 1, channel]
            per_lap = values[track, count, channel] - values[track, 0, channel]
            result[car, channel] = a + t * (b - a) + laps * per_lap
    return result


@kernel
def first_crossing(one: FloatArray, other: FloatArray, same: bool) -> tuple[int, int, float, float]:
    """First pair of segments of two closed lines (N+1, 2) that meet: (index, index, x, y), or (-1, -1, 0, 0).

    same: the two are one line; neighbouring segments are then left out. Touching counts as meeting.
    """
    n, m = len(one) - 1, len(other) - 1
    for i in range(n):
        ax, ay = one[i, 0], one[i, 1]
        bx, by = one[i + 1, 0], one[i + 1, 1]
        for j in range(i + 2 if same else 0, m):
            if same and i == 0 and j == m - 1:
                continue
            cx, cy = other[j, 0], other[j, 1]
            dx, dy = other[j + 1, 0], other[j + 1, 1]
            if max(ax, bx) < min(cx, dx) or max(cx, dx) < min(ax, bx):
                continue
            if max(ay, by) < min(cy, dy) or max(cy, dy) < min(ay, by):
                continue
            # Each segment's ends must not lie on one side of the other. With overlapping boxes this is also
            # right for segments on one line.
            c_side = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            d_side = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
            if (c_side > 0.0 and d_side > 0.0) or (c_side < 0.0 and d_side < 0.0):
                continue
            a_side = (dx - cx) * (ay - cy) - (dy - cy) * (ax - cx)
            b_side = (dx - cx) * (by - cy) - (dy - cy) * (bx - cx)
            if (a_side > 0.0 and b_side > 0.0) or (a_side < 0.0 and b_side < 0.0):
                continue
            t = a_side / (a_side - b_side) if a_side != b_side else 0.0
            return i, j, ax + t * (bx - ax), ay + t * (by - ay)
    return -1, -1, 0.0, 0.0


@kernel
def is_inside(ring: FloatArray, x: float, y: float) -> bool:
    """Even-odd test of a point against a closed line (N+1, 2)."""
    odd = False
    for index in range(len(ring) - 1):
        x1, y1 = ring[index, 0], ring[index, 1]
        x2, y2 = ring[index + 1, 0], ring[index + 1, 1]
        if (y1 > y) != (y2 > y) and ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1) > 0.0) == (y2 > y1):
            odd = not odd
    return odd


@kernel
def nearest_distances_m(points: FloatArray, line: FloatArray) -> FloatArray:
    """Distance of each point (n, 2) from a closed line (N+1, 2): (n,) metres."""
    segments = np.empty((5, len(line) - 1))
    for index in range(len(line) - 1):
        dx = line[index + 1, 0] - line[index, 0]
        dy = line[index + 1, 1] - line[index, 1]
        squared = dx * dx + dy * dy
        segments[0, index] = line[index, 0]
        segments[1, index] = line[index, 1]
        segments[2, index] = dx
        segments[3, index] = dy
        segments[4, index] = 1.0 / squared if squared > 0.0 else 0.0
    result = np.empty(len(points))
    for row in range(len(points)):
        x, y = points[row, 0], points[row, 1]
        k, t = nearest_on_line(segments, len(line) - 1, x, y)
        result[row] = math.hypot(x - segments[0, k] - t * segments[2, k], y - segments[1, k] - t * segments[3, k])
    return result
