"""Boxes and bot cars on the road: where they are, how they move, what a reward function is told, and crashes.

Each simulated car has its own. They stand on lanes, half way between the centre line and a border; a bot car keeps
its speed along its lane whatever happens, and nothing pushes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.car_spec import CarSpec
from sim.errors import SimError
from sim.race import AFTER_LAST_M, HEAD_TO_BOT, RaceSpec
from sim.track_set import TrackSet

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# DeepRacer's rectangles for crashes (`ObstacleDimensions`): length along the heading, width across, metres.
BOX_M, BOT_CAR_M, CAR_M = (0.5, 0.4), (0.32352, 0.1961), (0.32352, 0.1961)
BOT_CAR_HEIGHT_M = 0.12  # of a DeepRacer without its camera's mast
NOMINAL_GRAY = 205.0  # brighter than the plain road, darker than its lines
CLEAR_M = 0.9  # no episode begins with an object nearer than this along the road
LANE_CHANGE_TAKES_S = 3.0
_CONTRAST = 50.0  # grays between an object and the road
_SEEN_FROM_M = 0.2  # near plane of DeepRacer's frustum (`markov/cameras/frustum.py`)
_STREAM = 0x0B7EC7  # random numbers of objects are not those of the rest of the world
STATE_COLUMNS = 6  # of the value network, see ``state``
MIRROR_STATE = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])


class Objects:
    """The objects of n cars, k for each.

    Args:
        race: not a time trial.
        tracks: the environment's, those driven against their file's direction behind the others.
        backwards: (T,) which those are: fixed places are where the file's direction has them.
        n: cars; car: their shape and camera.
    """

    def __init__(self, race: RaceSpec, tracks: TrackSet, backwards: Bools, n: int, car: CarSpec) -> None:
        self.race, self.n, self.count = race, n, race.count
        self._tracks, self._backwards, self._car = tracks, backwards, car
        self.moving = race.race == HEAD_TO_BOT
        for track in tracks.tracks:
            check_room(race, track.name, track.length_m)
        # Lane 1, the inner one, is on the left of a track that is driven counter-clockwise.
        self._inner = np.array([1.0 if track.is_ccw else -1.0 for track in tracks.tracks])
        length, width = BOT_CAR_M if self.moving else BOX_M
        self.half_length_m, self.half_width_m = length / 2, width / 2
        self.height_m = BOT_CAR_HEIGHT_M if self.moving else race.box_height_m
        body, usual = car.body, CarSpec().body
        self._corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
        self._car_corners = self._corners * (
            CAR_M[0] / 2 * body.length_m / usual.length_m, CAR_M[1] / 2 * body.width_m / usual.width_m,
        )  # fmt: skip
        self._own_corners = self._corners * (self.half_length_m, self.half_width_m)
        shape = (n, self.count)
        self.xy_m, self.yaw_rad, self.s_m = np.zeros((*shape, 2)), np.zeros(shape), np.zeros(shape)
        self.lateral_m, self.gray = np.zeros(shape), np.zeros(shape)
        self._driven_m = np.zeros(shape)  # where a bot car is on its lane; ``s_m`` is its nearest centre point
        self._lane, self._wanted_lane = np.zeros(shape), np.zeros(shape)  # 1 left, -1 right, between them on the way
        self._rate = np.ones(shape)  # distance along the centre line over distance along the lane
        self._next_change_s = np.full(shape, np.inf)
        self._rngs: list[np.random.Generator] = []

    @property
    def size(self) -> tuple[float, float, float]:
        """Half length, half width and height of each, metres."""
        return self.half_length_m, self.half_width_m, self.height_m

    @property
    def speed_mps(self) -> float:
        """Of each object, as DeepRacer says it: the configured one."""
        return self.race.bot_speed_mps if self.moving else 0.0

    # -- places -----------------------------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Begin the random numbers anew."""
        self._rngs = [np.random.default_rng([seed, i, _STREAM]) for i in range(self.n)]

    def place(self, ids: Ints, track: Ints, start_m: Floats) -> None:
        """Put objects on the road for the next episode of the cars ``ids`` (k,), which start at ``start_m`` (k,)."""
        for car, which, begin in zip(ids.tolist(), track.tolist(), start_m.tolist(), strict=True):
            self._driven_m[car], self._lane[car] = self._draw(self._rngs[car], which, begin)
            if self.race.lane_changes and self.moving:
                self._next_change_s[car] = self._rngs[car].uniform(*self.race.lane_change_every_s, self.count)
        self._wanted_lane[ids] = self._lane[ids]
        self._rate[ids] = 1.0
        self.xy_m[ids], self.yaw_rad[ids] = self._pose(track, self._driven_m[ids], self._lane[ids])
        self._locate(ids, track)

    def _draw(self, rng: np.random.Generator, track: int, begin_m: float) -> tuple[Floats, Floats]:
        race, k = self.race, self.count
        length = float(self._tracks.length_m[track])
        if race.positions:
            places = race.places()
            s, lane = np.array([p[0] for p in places]) * length, np.array([float(p[1]) for p in places])
        elif race.randomise:
            room = length - race.min_distance_m - AFTER_LAST_M - (k - 1) * race.min_distance_m
            s = np.sort(rng.uniform(0.0, room, k)) + race.min_distance_m * np.arange(1, k + 1) + begin_m
            return s % length, rng.choice([-1.0, 1.0], k)
        else:
            s = np.linspace(race.min_distance_m, length - AFTER_LAST_M, k)
            lane = np.where(np.arange(k) % 2 == 0, 1.0, -1.0)
        if self._backwards[track]:
            s = length - s
        return s % length, lane * self._inner[track]

    def _pose(self, track: Ints, s_m: Floats, lane: Floats) -> tuple[Floats, Floats]:
        """Places (c, k, 2) and road directions (c, k) at distances (c, k) on lanes (c, k), of tracks (c,)."""
        which = np.repeat(track, self.count)
        middle, heading = self._tracks.pose_at(which, s_m.ravel())
        p = self._tracks.project(which, middle)
        flat = lane.ravel()
        aside = flat * np.where(flat > 0, p.left_distance_m, p.right_distance_m) / 2
        xy = middle + aside[:, None] * np.stack([-np.sin(heading), np.cos(heading)], axis=1)
        return xy.reshape(len(track), self.count, 2), heading.reshape(len(track), self.count)

    def _locate(self, ids: Ints, track: Ints) -> None:
        """Where the objects of ``ids`` are in relation to the centre line, from where they are."""
        p = self._tracks.project(np.repeat(track, self.count), self.xy_m[ids].reshape(-1, 2))
        self.s_m[ids] = p.s_m.reshape(-1, self.count)
        self.lateral_m[ids] = p.lateral_m.reshape(-1, self.count)

    def free_start(self, ids: Ints, track: Ints, s_m: Floats) -> Floats:
        """The starts ``s_m`` (k,), each moved back along the road until no object of its car is near."""
        s = s_m.copy()
        length = self._tracks.length_m[track]
        for _ in range(400):
            near = (np.abs(_apart(self.s_m[ids], s[:, None], length[:, None])) < CLEAR_M).any(axis=1)
            if not near.any():
                break
            s[near] = (s[near] - 0.25) % length[near]
        return s

    def free_lane(self, ids: Ints, track: Ints, s_m: Floats, lateral_m: Floats) -> tuple[Floats, Floats]:
        """Where cars ``ids`` (k,) can be put back: on the nearer lane, or else the other one, or else further back.

        Returns:
            distance along the road and to its left, (k,) metres each.
        """
        s, aside = s_m.copy(), np.zeros(len(ids))
        length = self._tracks.length_m[track]
        for row, car in enumerate(ids.tolist()):
            first = 1.0 if lateral_m[row] >= 0 else -1.0
            for attempt in range(400):
                lane = first if attempt % 2 == 0 else -first
                s[row] = (s_m[row] - 0.25 * (attempt // 2)) % length[row]
                middle, _ = self._tracks.pose_at(track[row : row + 1], s[row : row + 1])
                p = self._tracks.project(track[row : row + 1], middle)
                aside[row] = lane * float((p.left_distance_m if lane > 0 else p.right_distance_m)[0]) / 2
                ahead = np.abs(_apart(self.s_m[car], s[row], length[row])) < self.half_length_m + 0.4
                beside = np.abs(self.lateral_m[car] - aside[row]) < self.half_width_m + 0.12
                if not (ahead & beside).any():
                    break
        return s, aside

    # -- motion -----------------------------------------------------------------------------------------------------

    def step(self, track: Ints, steps: Ints, period_s: float) -> bool:
        """Move bot cars on by a control period; ``steps`` (n,) is how many each episode has with it.

        Returns:
            whether anything has moved.
        """
        if not self.moving:
            return False
        for car, one in zip(*np.nonzero(self._next_change_s <= (steps * period_s)[:, None]), strict=True):
            self._change_lane(int(car), int(one), float(self._tracks.length_m[track[car]]))
        most = 2.0 * period_s / LANE_CHANGE_TAKES_S
        lane = self._lane + np.clip(self._wanted_lane - self._lane, -most, most)
        before, aside = self.xy_m.copy(), self.lateral_m.copy()
        travelled = self.race.bot_speed_mps * period_s
        self._driven_m += travelled * self._rate
        self.xy_m, heading = self._pose(track, self._driven_m, lane)
        self._lane = lane
        self._locate(np.arange(self.n), track)
        moved = np.linalg.norm(self.xy_m - before, axis=2)
        # On the inside of a bend the centre line passes faster; what is kept is the speed along the lane.
        self._rate = np.clip(self._rate * travelled / np.maximum(moved, 1e-9), 0.3, 3.0) if travelled else self._rate
        self.yaw_rad = heading + np.where(
            lane != self._wanted_lane, np.arctan2(self.lateral_m - aside, max(travelled, 1e-9)), 0.0
        )
        return True

    def _change_lane(self, car: int, one: int, length_m: float) -> None:
        self._next_change_s[car, one] += self._rngs[car].uniform(*self.race.lane_change_every_s)
        others = np.abs(_apart(np.delete(self.s_m[car], one), self.s_m[car, one], length_m))
        if not (others < 1.0).any():  # nobody to run into on the way
            self._wanted_lane[car, one] = -self._wanted_lane[car, one]

    # -- what they do to a car --------------------------------------------------------------------------------------

    def is_crashed(self, position_m: Floats, heading_rad: Floats, s_m: Floats, track: Ints) -> Bools:
        """(n,) whether a corner of the car is inside an object, but for a bot car that comes from behind.

        Args:
            position_m: (n, 2) middle of each car; heading_rad: (n,); s_m: (n,) of its front point along the road.
        """
        corners = position_m[:, None, :] + _turned(self._car_corners, heading_rad)
        away = corners[:, None, :, :] - self.xy_m[:, :, None, :]
        cos, sin = np.cos(self.yaw_rad)[..., None], np.sin(self.yaw_rad)[..., None]
        along, across = cos * away[..., 0] + sin * away[..., 1], cos * away[..., 1] - sin * away[..., 0]
        inside: Bools = (np.abs(along) < self.half_length_m) & (np.abs(across) < self.half_width_m)
        hit: Bools = np.asarray(inside.any(axis=2), dtype=np.bool_)
        if self.moving:
            hit &= _apart(self.s_m, s_m[:, None], self._tracks.length_m[track][:, None]) > 0.0
        return np.asarray(hit.any(axis=1))

    def columns(self, position_m: Floats, heading_rad: Floats, s_m: Floats, track: Ints) -> dict[str, NDArray[Any]]:
        """What the reward parameters about objects are made of, by their names; arguments as ``is_crashed``."""
        order = np.argsort(self.s_m, axis=1, kind="stable")
        ordered = np.take_along_axis(self.s_m, order, axis=1)
        following = np.count_nonzero(ordered <= s_m[:, None], axis=1)  # bisect_right
        both = np.stack([following - 1, following], axis=1) % self.count
        closest = np.take_along_axis(order, both, axis=1)
        return {
            "is_crashed": self.is_crashed(position_m, heading_rad, s_m, track),
            "closest_objects": closest,
            "objects_location": self.xy_m.copy(),
            "objects_distance": self.s_m.copy(),
            "objects_distance_from_center": np.abs(self.lateral_m),
            "objects_left_of_center": self.lateral_m > 0.0,
            "objects_heading": (
                (self.yaw_rad + np.pi) % (2 * np.pi) - np.pi if self.moving else np.zeros_like(self.yaw_rad)
            ),
            "objects_speed": np.full(self.s_m.shape, self.speed_mps),
            "object_in_camera": self._in_camera(position_m, heading_rad, closest[:, 1]),
        }

    def _in_camera(self, position_m: Floats, heading_rad: Floats, which: Ints) -> Bools:
        """(n,) whether the middle or a corner on the ground of object ``which`` (n,) is in the camera's frustum."""
        everyone, camera = np.arange(self.n), self._car.camera
        middle, yaw = self.xy_m[everyone, which], self.yaw_rad[everyone, which]
        points = np.concatenate([middle[:, None], middle[:, None] + _turned(self._own_corners, yaw)], axis=1)
        away = points - position_m[:, None]
        cos, sin = np.cos(heading_rad)[:, None], np.sin(heading_rad)[:, None]
        ahead = cos * away[..., 0] + sin * away[..., 1] - camera.forward_m
        left = cos * away[..., 1] - sin * away[..., 0]
        down = np.radians(camera.pitch_down_deg)
        depth = np.cos(down) * ahead + np.sin(down) * camera.height_m
        up = np.sin(down) * ahead - np.cos(down) * camera.height_m
        wide = np.tan(np.radians(camera.horizontal_fov_deg) / 2)
        inside = (depth > _SEEN_FROM_M) & (np.abs(left) < wide * depth) & (np.abs(up) < 0.75 * wide * depth)
        return np.asarray(inside.any(axis=1))

    def state(self, s_m: Floats, half_width_m: Floats, track: Ints) -> Floats:
        """(n, STATE_COLUMNS) of the two objects that come next or are beside: nearness, place across, speed."""
        length = self._tracks.length_m[track][:, None]
        ahead = (self.s_m - s_m[:, None] + 0.5) % length - 0.5  # half a metre behind the car's front is beside it
        order = np.argsort(ahead, axis=1, kind="stable")
        order = order[:, [0, 1]] if self.count > 1 else order[:, [0, 0]]
        near = np.exp(-np.maximum(np.take_along_axis(ahead, order, axis=1), 0.0))
        across = np.take_along_axis(self.lateral_m, order, axis=1) / half_width_m[:, None]
        speed = np.full_like(near, self.speed_mps * 2)
        return np.stack([near, near * across, near * speed], axis=2).reshape(self.n, STATE_COLUMNS)

    # -- how they look ----------------------------------------------------------------------------------------------

    def paint(self, ids: Ints, road_gray: Sequence[float]) -> None:
        """Draw the grays of the objects of ``ids`` (k,); a road of gray NaN is the plain one, with plain objects."""
        for car, road in zip(ids.tolist(), road_gray, strict=True):
            if np.isnan(road):
                self.gray[car] = NOMINAL_GRAY
                continue
            dark, bright = max(0.0, road - _CONTRAST), max(0.0, 255.0 - road - _CONTRAST)
            drawn = self._rngs[car].uniform(0.0, dark + bright, self.count)
            self.gray[car] = np.where(drawn < dark, drawn, drawn - dark + road + _CONTRAST)

    def boxes(self, age_s: Floats) -> Floats:
        """(n, k, 7) as the road camera wants them, as they were ``age_s`` (n,) ago."""
        back = self.speed_mps * age_s[:, None]
        x = self.xy_m[..., 0] - back * np.cos(self.yaw_rad)
        y = self.xy_m[..., 1] - back * np.sin(self.yaw_rad)
        same = np.ones_like(x)
        sizes = (self.half_length_m * same, self.half_width_m * same, self.height_m * same)
        return np.stack([x, y, self.yaw_rad, *sizes, self.gray], axis=-1)


def _apart(one_m: Any, other_m: Any, length_m: Any) -> Floats:
    """How far ``one`` is ahead of ``other`` along a lap, the shorter way round; negative is behind."""
    return np.asarray((one_m - other_m + length_m / 2) % length_m - length_m / 2)


def _turned(points: Floats, angle_rad: Floats) -> Floats:
    """Points (p, 2) turned by each of the angles (n,): (n, p, 2)."""
    cos, sin = np.cos(angle_rad)[:, None], np.sin(angle_rad)[:, None]
    x, y = points[:, 0], points[:, 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def check_room(race: RaceSpec, name: str, length_m: float) -> None:
    """Raise SimError where a race's objects do not fit on a lap of ``length_m``."""
    if race.positions:
        return
    needed = race.count * race.min_distance_m + AFTER_LAST_M
    if needed > length_m:
        raise SimError(
            f"{race.count} objects, {race.min_distance_m:g} m between them, need {needed:g} m; "
            f"a lap of {name} has {length_m:.1f} m",
            cause="too many objects for this track",
            next_step="fewer objects, a smaller race.min_distance_m, or a longer track (hotlap tracks)",
        )
