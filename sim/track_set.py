"""Questions that an environment asks about many cars on several tracks at once.

All methods only read; they may be called from several threads on different slices of the cars, and give the same bits
however the cars are sliced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim import track_kernels as kernels
from sim.errors import TrackError
from sim.track import Track

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Projection:
    """Where n points are in relation to their tracks; each field is (n,). Definitions: DeepRacer's reward parameters.

    Args:
        s_m: distance along the centre line of the nearest point on it, from 0 to the track's length.
        distance_m: distance from the centre line, not negative.
        lateral_m: the same with a sign, positive on the driver's left.
        heading_rad: direction of the nearest centre segment, in [-π, π].
        prev_waypoint: index of the last waypoint at or before ``s_m``.
        next_waypoint: the index after it; N, the closing duplicate, on the last segment.
        track_width_m: distance between the points of both borders that are nearest to the nearest centre point.
        is_left_of_center: whether that left border point is nearer than that right border point.
        left_distance_m: distance from the point to that left border point.
        right_distance_m: distance from the point to that right border point.
    """

    s_m: FloatArray
    distance_m: FloatArray
    lateral_m: FloatArray
    heading_rad: FloatArray
    prev_waypoint: IntArray
    next_waypoint: IntArray
    track_width_m: FloatArray
    is_left_of_center: BoolArray
    left_distance_m: FloatArray
    right_distance_m: FloatArray


def progress_percent(
    s_m: ArrayLike, start_s_m: ArrayLike, length_m: ArrayLike, previous_percent: ArrayLike
) -> FloatArray:
    """How much of the lap is done, in percent, by DeepRacer's rule; arguments broadcast, metres and percent.

    The distance since the start line is counted into (0, 100]; then a fall of more than 50 points since the previous
    value is the finish line passed forwards (which gives 100), a rise of more than 50 the start line passed backwards
    (which gives a negative value). An episode begins with a previous value of 0.
    Source: DeepRacer's agent_ctrl, the parameter ``progress``.
    """
    length = np.asarray(length_m, dtype=np.float64)
    previous = np.asarray(previous_percent, dtype=np.float64)
    percent = 100.0 * (np.asarray(s_m, dtype=np.float64) - np.asarray(start_s_m, dtype=np.float64)) / length
    percent = np.where(percent <= 0.0, percent + 100.0, percent)
    forward, backward = previous > percent + 50.0, percent > previous + 50.0
    percent = percent + 100.0 * forward - 100.0 * (backward & ~forward)
    return np.asarray(np.minimum(percent, 100.0), dtype=np.float64)


class TrackSet:
    """Tracks side by side in padded arrays.

    Args:
        tracks: at least one; they are expected to have passed `sim.track.check_track`.
    """

    progress_percent = staticmethod(progress_percent)

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.tracks: tuple[Track, ...] = tuple(tracks)
        if not self.tracks:
            raise TrackError("a set of tracks needs at least one track", next_step="hotlap tracks")
        self.length_m: FloatArray = np.array([track.length_m for track in self.tracks])
        count = len(self.tracks)
        self._counts: IntArray = np.array([len(track.center) - 1 for track in self.tracks], dtype=np.int64)
        most = int(self._counts.max())
        self._segments: FloatArray = np.zeros((count, 3, 5, most))
        self._edges: FloatArray = np.zeros((count, 2 * most, 4))
        self._s_m: FloatArray = np.zeros((count, most + 1))
        self._pose: FloatArray = np.zeros((count, most + 1, 3))  # x, y, unwrapped heading at each waypoint
        for index, track in enumerate(self.tracks):
            n = len(track.center) - 1
            for line_index, line in enumerate((track.center, track.left, track.right)):
                step = np.diff(line, axis=0)
                squared = np.sum(step**2, axis=1)
                rows = self._segments[index, line_index, :, :n]
                rows[0:2] = line[:-1].T
                rows[2:4] = step.T
                rows[4] = np.divide(1.0, squared, out=np.zeros(n), where=squared > 0.0)
            borders = [np.concatenate((line[:-1], line[1:]), axis=1) for line in (track.left, track.right)]
            self._edges[index, : 2 * n] = np.concatenate(borders)
            self._s_m[index, : n + 1] = track.s_m
            self._pose[index, : n + 1, :2] = track.center
            self._pose[index, : n + 1, 2] = waypoint_headings_rad(track)

    def project(self, track_index: ArrayLike, points: ArrayLike) -> Projection:
        """Project points (n, 2) metres on the centre lines of the tracks (n,) that they are on."""
        which = self._which(track_index)
        xy = _floats(points, (len(which), 2), "points")
        table, previous = kernels.project_kernel(which, xy, self._counts, self._segments, self._s_m)
        return Projection(
            s_m=table[kernels.S],
            distance_m=table[kernels.DISTANCE],
            lateral_m=table[kernels.LATERAL],
            heading_rad=table[kernels.HEADING],
            prev_waypoint=previous,
            next_waypoint=previous + 1,
            track_width_m=table[kernels.WIDTH],
            is_left_of_center=table[kernels.LEFT] < table[kernels.RIGHT],
            left_distance_m=table[kernels.LEFT],
            right_distance_m=table[kernels.RIGHT],
        )

    def on_track(self, track_index: ArrayLike, points: ArrayLike) -> BoolArray:
        """Whether points (n, 4, 2) metres, four wheels a car, are strictly between the borders: (n, 4)."""
        which = self._which(track_index)
        xy = _floats(points, (len(which), 4, 2), "points")
        return kernels.on_track_kernel(which, xy, 2 * self._counts, self._edges)

    def pose_at(
        self, track_index: ArrayLike, s_m: ArrayLike, lateral_m: ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """The place at a distance along the centre line (n,) and beside it (n,), left positive, metres.

        The heading is interpolated between the tangents at the waypoints, so that it has no steps; distances beyond
        the lap wrap. Returns (xy (n, 2) metres, heading (n,) rad in (-π, π]).
        """
        which = self._which(track_index)
        distance = _floats(s_m, (len(which),), "s_m")
        aside = np.broadcast_to(np.asarray(lateral_m, dtype=np.float64), (len(which),))
        pose = kernels.interpolate_kernel(which, distance, self._counts, self._s_m, self._pose)
        heading = pose[:, 2]
        xy = pose[:, :2] + aside[:, None] * np.stack((-np.sin(heading), np.cos(heading)), axis=1)
        return xy, wrap_rad(heading)

    def curvature_ahead(self, track_index: ArrayLike, s_m: ArrayLike, distances_m: ArrayLike) -> FloatArray:
        """How much the centre line turns between s_m (n,) and s_m + distances_m (k,): (n, k) rad in (-π, π], + left."""
        which = self._which(track_index)
        here = _floats(s_m, (len(which),), "s_m")
        ahead = np.asarray(distances_m, dtype=np.float64)
        steps = np.concatenate(([0.0], ahead))
        flat = np.ascontiguousarray((here[:, None] + steps[None, :]).ravel())
        pose = kernels.interpolate_kernel(np.repeat(which, len(steps)), flat, self._counts, self._s_m, self._pose)
        heading = pose[:, 2].reshape(len(which), len(steps))
        return wrap_rad(heading[:, 1:] - heading[:, :1])

    def _which(self, track_index: ArrayLike) -> IntArray:
        which = np.ascontiguousarray(track_index, dtype=np.int64)
        # The kernels do not check bounds.
        if which.ndim != 1 or (len(which) and (which.min() < 0 or which.max() >= len(self.tracks))):
            raise IndexError(f"track_index must be (n,) numbers from 0 to {len(self.tracks) - 1}")
        return which


def waypoint_headings_rad(track: Track) -> FloatArray:
    """Tangent direction at each waypoint, (N+1,) rad, unwrapped: the last is the first plus or minus one turn.

    The tangent is that of the circle through a waypoint and its neighbours (to second order in the spacing): the
    directions of both adjoining segments, each weighted with the length of the other.
    """
    step = np.diff(track.center, axis=0)
    length = np.hypot(*step.T)
    direction = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    turn = wrap_rad(direction - np.roll(direction, 1))
    before = np.roll(length, 1)
    heading = direction - turn * length / (length + before)
    total = 2.0 * math.pi * round(float(turn.sum()) / (2.0 * math.pi))
    return np.concatenate((heading, [heading[0] + total]))


def wrap_rad(angle: FloatArray) -> FloatArray:
    """The same angles in (-π, π]."""
    return np.asarray(math.pi - np.mod(math.pi - angle, 2.0 * math.pi), dtype=np.float64)


def _floats(values: ArrayLike, shape: tuple[int, ...], label: str) -> FloatArray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{label} has shape {array.shape}, wanted {shape}")
    return array
