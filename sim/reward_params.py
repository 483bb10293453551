"""The dictionary that a reward function is given: DeepRacer's 27 parameters, by the same names and in the same units.

The simulator works in columns, one array per quantity with one entry per car. A reward function wants one dictionary
per car. This file is the step between the two, and it is on the hot path: every car, every control step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Params = dict[str, object]
Waypoint = tuple[float, float]

PARAM_KEYS: tuple[str, ...] = (
    "x",
    "y",
    "heading",
    "speed",
    "steering_angle",
    "steps",
    "progress",
    "distance_from_center",
    "projection_distance",
    "track_length",
    "track_width",
    "is_left_of_center",
    "waypoints",
    "closest_waypoints",
    "all_wheels_on_track",
    "is_offtrack",
    "is_reversed",
    "is_crashed",
    "closest_objects",
    "objects_location",
    "objects_distance",
    "objects_distance_from_center",
    "objects_left_of_center",
    "objects_heading",
    "objects_speed",
    "object_in_camera",
    "sim_time",
)
"""The 27 names, those that AWS documents and the three that its simulator adds (``markov``'s enum RewardParam)."""


def build_params(
    *,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    heading_deg: npt.ArrayLike,
    speed_mps: npt.ArrayLike,
    steering_deg: npt.ArrayLike,
    steps: npt.ArrayLike,
    progress: npt.ArrayLike,
    distance_from_center: npt.ArrayLike,
    projection_distance: npt.ArrayLike,
    track_length: npt.ArrayLike,
    track_width: npt.ArrayLike,
    is_left_of_center: npt.ArrayLike,
    prev_waypoint: npt.ArrayLike,
    next_waypoint: npt.ArrayLike,
    all_wheels_on_track: npt.ArrayLike,
    is_offtrack: npt.ArrayLike,
    is_reversed: npt.ArrayLike,
    sim_time: npt.ArrayLike,
    waypoints: Sequence[list[Waypoint]],
    **objects: npt.ArrayLike,
) -> list[Params]:
    """Turn columns of shape (n,) into n dictionaries with exactly the keys of ``PARAM_KEYS``.

    Metres, degrees (heading in -180..180, steering + = left), m/s, seconds; progress in percent. ``speed_mps`` and
    ``steering_deg`` are the commanded values, as in DeepRacer. ``waypoints[i]`` is car i's list of (x, y) tuples and
    may be the same object for many cars. ``objects`` are the columns about them by their names, (n,), (n, k) or more
    (``sim.objects.Objects.columns``); without them those keys hold DeepRacer's values for a track without objects.

    Every list in a dictionary is its own, so a reward function that changes its params changes nothing else; the
    tuples inside ``waypoints`` cannot be changed, so copying that list one level deep is enough.

    Raises:
        ValueError: a column's length differs from the number of waypoint lists.
    """
    n = len(waypoints)

    def floats(column: npt.ArrayLike) -> list[float]:
        return _checked(np.asarray(column, dtype=np.float64), n).tolist()  # type: ignore[no-any-return]

    def ints(column: npt.ArrayLike) -> list[int]:
        return _checked(np.asarray(column, dtype=np.int64), n).tolist()  # type: ignore[no-any-return]

    def bools(column: npt.ArrayLike) -> list[bool]:
        return _checked(np.asarray(column, dtype=np.bool_), n).tolist()  # type: ignore[no-any-return]

    # tolist() converts a whole column to plain Python numbers in C. Indexing the arrays car by car would cost ten
    # times more, and would hand numpy scalars (np.bool_, float32) to code that expects Python's.
    columns = zip(
        floats(x),
        floats(y),
        floats(heading_deg),
        floats(speed_mps),
        floats(steering_deg),
        ints(steps),
        floats(progress),
        floats(distance_from_center),
        floats(projection_distance),
        floats(track_length),
        floats(track_width),
        bools(is_left_of_center),
        ints(prev_waypoint),
        ints(next_waypoint),
        bools(all_wheels_on_track),
        bools(is_offtrack),
        bools(is_reversed),
        floats(sim_time),
        waypoints,
        strict=True,
    )
    built: list[Params] = [
        {
            "x": x_m,
            "y": y_m,
            "heading": heading,
            "speed": speed,
            "steering_angle": steering,
            "steps": step,
            "progress": percent,
            "distance_from_center": from_center,
            "projection_distance": projected,
            "track_length": length,
            "track_width": width,
            "is_left_of_center": left,
            "waypoints": points.copy(),
            "closest_waypoints": [before, after],
            "all_wheels_on_track": all_on,
            "is_offtrack": off,
            "is_reversed": backwards,
            "is_crashed": False,
            "closest_objects": [0, 0],
            "objects_location": [],
            "objects_distance": [],
            "objects_distance_from_center": [],
            "objects_left_of_center": [],
            "objects_heading": [],
            "objects_speed": [],
            "object_in_camera": False,
            "sim_time": time_s,
        }
        for (
            x_m, y_m, heading, speed, steering, step, percent, from_center, projected, length, width, left,
            before, after, all_on, off, backwards, time_s, points,
        ) in columns
    ]  # fmt: skip
    for name, column in objects.items():
        values: list[Any] = np.asarray(column).tolist()
        for params, value in zip(built, values, strict=True):
            params[name] = [(x_m, y_m) for x_m, y_m in value] if name == "objects_location" else value
    return built


def _checked(column: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    if column.shape != (n,):
        raise ValueError(f"a column of reward parameters has shape {column.shape}, but there are {n} waypoint lists")
    return column


SYNTHETIC_STATES: tuple[str, ...] = ("valid", "start", "progress", "off_track", "finish", "reversed", "clockwise")
"""Names of the states of ``synthetic_params``, in its order. The first five are those DeepRacer's validator tries."""

_SYNTHETIC_WAYPOINTS = 80
_SYNTHETIC_WIDTH_M = 0.762


def synthetic_params(objects: bool = False) -> list[Params]:
    """Invented but consistent states on an ellipse of about 18 m, for trying a reward function before training.

    One for each name in ``SYNTHETIC_STATES``: driving well; the first step of an episode (steps 1, progress 0); further
    round and off the centre; all wheels off the road; lap complete (progress 100); facing against the track; and
    driving the track clockwise (``is_reversed``, waypoints in the opposite order). All 27 keys, fresh each call.
    With ``objects`` there are two boxes on the road, one of them close ahead.
    """
    states = _synthetic_states()
    return [state | _two_boxes(state) for state in states] if objects else states


def _two_boxes(state: Params) -> Params:
    """The keys about objects for a state that has two boxes on the centre line: half a metre ahead, and far behind."""
    known: dict[str, Any] = state
    points, ahead = known["waypoints"], known["closest_waypoints"][1]
    count = len(points) - 1
    at = [(ahead + 1) % count, (ahead + 40) % count]
    spacing_m = known["track_length"] / count
    return {
        "closest_objects": [1, 0],
        "objects_location": [points[k] for k in at],
        "objects_distance": [k * spacing_m for k in at],
        "objects_distance_from_center": [0.0, 0.0],
        "objects_left_of_center": [True, False],
        "objects_heading": [0.0, 0.0],
        "objects_speed": [0.0, 0.0],
        "object_in_camera": True,
    }


def _synthetic_states() -> list[Params]:
    angles = np.linspace(0.0, 2.0 * math.pi, _SYNTHETIC_WAYPOINTS + 1)
    loop = np.stack([3.6 * np.cos(angles), 2.0 * np.sin(angles)], axis=1)
    loop[-1] = loop[0]
    return [
        _synthetic(loop, at=10, offset_m=0.05, speed_mps=0.8, steering_deg=15.0, steps=60),
        _synthetic(loop, at=0, offset_m=0.0, speed_mps=0.4, steering_deg=0.0, steps=1),
        _synthetic(loop, at=40, offset_m=-0.2, speed_mps=0.8, steering_deg=-30.0, steps=230),
        _synthetic(loop, at=55, offset_m=0.75, speed_mps=0.8, steering_deg=30.0, steps=310),
        _synthetic(loop, at=79, offset_m=0.02, speed_mps=0.4, steering_deg=0.0, steps=450, progress=100.0),
        _synthetic(loop, at=25, offset_m=0.3, speed_mps=0.4, steering_deg=-15.0, steps=140, turned_deg=180.0),
        _synthetic(loop[::-1], at=30, offset_m=-0.1, speed_mps=0.8, steering_deg=15.0, steps=170, clockwise=True),
    ]


def _synthetic(
    loop: npt.NDArray[np.float64],
    *,
    at: int,
    offset_m: float,
    speed_mps: float,
    steering_deg: float,
    steps: int,
    progress: float | None = None,
    turned_deg: float = 0.0,
    clockwise: bool = False,
) -> Params:
    """One state: the car beside the middle of segment ``at`` of ``loop`` (M+1, 2), ``offset_m`` to its left."""
    ahead = loop[at + 1] - loop[at]
    direction = ahead / np.hypot(*ahead)
    position = 0.5 * (loop[at] + loop[at + 1]) + offset_m * np.array([-direction[1], direction[0]])
    heading_deg = math.degrees(math.atan2(direction[1], direction[0])) + turned_deg
    lengths = np.hypot(*np.diff(loop, axis=0).T)
    along_m = float(lengths[:at].sum() + 0.5 * lengths[at])
    percent = 100.0 * along_m / float(lengths.sum()) if progress is None else progress
    half_width_m, half_car_m = 0.5 * _SYNTHETIC_WIDTH_M, 0.1
    return build_params(
        x=[position[0]],
        y=[position[1]],
        heading_deg=[(heading_deg + 180.0) % 360.0 - 180.0],
        speed_mps=[speed_mps],
        steering_deg=[steering_deg],
        steps=[steps],
        progress=[0.0 if steps == 1 else percent],
        distance_from_center=[abs(offset_m)],
        projection_distance=[along_m],
        track_length=[lengths.sum()],
        track_width=[_SYNTHETIC_WIDTH_M],
        is_left_of_center=[offset_m > 0.0],
        prev_waypoint=[at],
        next_waypoint=[at + 1],
        all_wheels_on_track=[abs(offset_m) + half_car_m < half_width_m],
        is_offtrack=[abs(offset_m) - half_car_m > half_width_m],
        is_reversed=[clockwise],
        sim_time=[steps / 10.0],
        waypoints=[[(float(px), float(py)) for px, py in loop]],
    )[0]
