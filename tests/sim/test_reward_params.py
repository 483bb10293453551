"""The reward dictionaries: 27 keys, plain Python values, and nothing shared that a reward function could damage."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from sim.reward_params import PARAM_KEYS, SYNTHETIC_STATES, build_params, synthetic_params

LOOP = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]


def columns(n: int) -> dict[str, Any]:
    """Columns as the simulator has them: float32, int32 and numpy bools, a different value for every car."""
    k = np.arange(n)
    names = (
        "x", "y", "heading_deg", "speed_mps", "steering_deg", "progress", "distance_from_center", "projection_distance",
        "track_length", "track_width", "sim_time",
    )  # fmt: skip
    floats = {name: (100 * j + k).astype(np.float32) for j, name in enumerate(names)}
    ints = {name: (j + k).astype(np.int32) for j, name in enumerate(("steps", "prev_waypoint", "next_waypoint"))}
    flags = ("is_left_of_center", "all_wheels_on_track", "is_offtrack", "is_reversed")
    bools = {name: (k + j) % 2 == 0 for j, name in enumerate(flags)}
    return {**floats, **ints, **bools, "waypoints": [LOOP] * n}


def test_every_car_gets_its_own_values_under_deepracers_names() -> None:
    given = columns(3)
    built = build_params(**given)
    assert len(PARAM_KEYS) == len(set(PARAM_KEYS)) == 27
    renamed = {"heading": "heading_deg", "speed": "speed_mps", "steering_angle": "steering_deg"}
    for i, params in enumerate(built):
        assert tuple(params) == PARAM_KEYS
        for key in set(PARAM_KEYS) - {"waypoints", "closest_waypoints"}:
            if renamed.get(key, key) in given:
                assert params[key] == given[renamed.get(key, key)][i], key
        assert params["closest_waypoints"] == [given["prev_waypoint"][i], given["next_waypoint"][i]]
        assert params["waypoints"] == LOOP


def test_values_are_plain_python() -> None:
    params = build_params(**columns(2))[1]
    assert json.loads(json.dumps(params))["steps"] == params["steps"]  # json refuses numpy's numbers
    assert type(params["steps"]) is int
    assert type(params["x"]) is float
    assert type(params["is_offtrack"]) is bool


def test_object_keys_are_deepracers_defaults_without_objects() -> None:
    params = build_params(**columns(1))[0]
    objects = {key: params[key] for key in PARAM_KEYS if "object" in key}
    assert objects.pop("closest_objects") == [0, 0]
    assert objects.pop("object_in_camera") is False
    assert set(objects) == {
        "objects_location", "objects_distance", "objects_distance_from_center", "objects_left_of_center",
        "objects_heading", "objects_speed",
    }  # fmt: skip
    assert all(value == [] for value in objects.values())
    assert params["is_crashed"] is False


def test_damage_done_by_one_reward_function_stays_in_its_own_dictionary() -> None:
    shared = list(LOOP)
    given = {**columns(2), "waypoints": [shared, shared]}
    first, second = build_params(**given)
    for value in first.values():
        if isinstance(value, list):
            value.append("damage")
    first["waypoints"][0] = None  # type: ignore[index]
    assert shared == LOOP
    assert second == build_params(**given)[1]


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        build_params(**{**columns(2), "x": np.zeros(3)})


def test_synthetic_states_are_what_their_names_say() -> None:
    states = dict(zip(SYNTHETIC_STATES, synthetic_params(), strict=True))
    assert all(tuple(params) == PARAM_KEYS for params in states.values())
    assert states["start"]["steps"] == 1
    assert states["start"]["progress"] == 0.0
    assert states["finish"]["progress"] == 100.0
    assert states["off_track"]["is_offtrack"] is True
    assert [name for name, params in states.items() if params["is_offtrack"]] == ["off_track"]
    assert [name for name, params in states.items() if params["is_reversed"]] == ["clockwise"]


@pytest.mark.parametrize("state", SYNTHETIC_STATES)
def test_synthetic_states_agree_with_their_own_waypoints(state: str) -> None:
    params: dict[str, Any] = dict(zip(SYNTHETIC_STATES, synthetic_params(), strict=True))[state]
    before, after = (params["waypoints"][i] for i in params["closest_waypoints"])
    dx, dy = after[0] - before[0], after[1] - before[1]
    left_m = (dx * (params["y"] - before[1]) - dy * (params["x"] - before[0])) / math.hypot(dx, dy)
    assert abs(left_m) == pytest.approx(params["distance_from_center"], abs=1e-9)
    assert (left_m > 1e-9) == params["is_left_of_center"]
    facing = math.cos(math.radians(params["heading"]) - math.atan2(dy, dx))
    assert facing == pytest.approx(-1.0 if state == "reversed" else 1.0)
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(params["waypoints"]))
    assert (area < 0) == (state == "clockwise")
