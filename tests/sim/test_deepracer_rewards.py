"""Reward functions in the form that DeepRacer's people have them: the console's four, and the community's ways.

They are loaded from files as they are and driven with, on a real simulation. Written for this test.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.batch_env import BatchEnv, EnvSpec
from sim.errors import RewardError
from sim.race import RaceSpec
from sim.reward import RewardFunction, check_reward, load_reward
from sim.reward_params import synthetic_params
from sim.track import load_track

CENTRE_LINE = """
def reward_function(params):
    '''
    Reward for following the centre line
    '''
    # Read input parameters
    track_width = params['track_width']
    distance_from_center = params['distance_from_center']

    marker_1 = 0.1 * track_width
    marker_2 = 0.25 * track_width
    marker_3 = 0.5 * track_width

    if distance_from_center <= marker_1:
        reward = 1.0
    elif distance_from_center <= marker_2:
        reward = 0.5
    elif distance_from_center <= marker_3:
        reward = 0.1
    else:
        reward = 1e-3  # likely crashed/ close to off track

    return float(reward)
"""

INSIDE_BORDERS = """
def reward_function(params):
    all_wheels_on_track = params['all_wheels_on_track']
    distance_from_center = params['distance_from_center']
    track_width = params['track_width']

    reward = 1e-3
    if all_wheels_on_track and (0.5*track_width - distance_from_center) >= 0.05:
        reward = 1.0

    return float(reward)
"""

ZIG_ZAG = CENTRE_LINE.replace(
    "    return float(reward)\n",
    "    abs_steering = abs(params['steering_angle']) # Only need the absolute steering angle\n"
    "    ABS_STEERING_THRESHOLD = 15\n"
    "    if abs_steering > ABS_STEERING_THRESHOLD:\n        reward *= 0.8\n\n    return float(reward)\n",
)

OBJECT_AVOIDANCE = """
import math
def reward_function(params):
    all_wheels_on_track = params['all_wheels_on_track']
    distance_from_center = params['distance_from_center']
    track_width = params['track_width']
    objects_location = params['objects_location']
    agent_x = params['x']
    agent_y = params['y']
    _, next_object_index = params['closest_objects']
    objects_left_of_center = params['objects_left_of_center']
    is_left_of_center = params['is_left_of_center']

    if all_wheels_on_track and (0.5 * track_width - distance_from_center) >= 0.05:
        reward_lane = 1.0
    else:
        reward_lane = 1e-3

    reward_avoid = 1.0
    next_object_loc = objects_location[next_object_index]
    distance_closest_object = math.sqrt((agent_x - next_object_loc[0])**2 + (agent_y - next_object_loc[1])**2)
    is_same_lane = objects_left_of_center[next_object_index] == is_left_of_center
    if is_same_lane:
        if 0.5 <= distance_closest_object < 0.8:
            reward_avoid *= 0.5
        elif 0.3 <= distance_closest_object < 0.5:
            reward_avoid *= 0.2
        elif distance_closest_object < 0.3:
            reward_avoid = 1e-3  # Likely crashed

    return 1e-3 + 1.0 * reward_lane + 4.0 * reward_avoid
"""

HEADING_AND_PROGRESS = """
import math

TOTAL_NUM_STEPS = 300

def reward_function(params):
    waypoints, closest_waypoints, heading = params['waypoints'], params['closest_waypoints'], params['heading']
    reward = 1.0
    next_point = waypoints[closest_waypoints[1]]
    prev_point = waypoints[closest_waypoints[0]]
    track_direction = math.degrees(math.atan2(next_point[1] - prev_point[1], next_point[0] - prev_point[0]))
    direction_diff = abs(track_direction - heading)
    if direction_diff > 180:
        direction_diff = 360 - direction_diff
    if direction_diff > 10.0:
        reward *= 0.5
    if (params['steps'] % 100) == 0 and params['progress'] > (params['steps'] / TOTAL_NUM_STEPS) * 100:
        reward += 10.0
    print("heading %.1f direction %.1f reward %.2f" % (heading, track_direction, reward))
    return float(reward)
"""

CLASS_WITH_MEMORY = """
import math
import numpy as np

class Reward:
    def __init__(self, verbose=False):
        self.first_racingpoint_index = None
        self.last_steering = 0.0
        self.episodes = 0
        self.verbose = verbose

    def reward_function(self, params):
        def dist_2_points(x1, x2, y1, y2):
            return abs(abs(x1-x2)**2 + abs(y1-y2)**2)**0.5

        def closest_2(car, line):
            distances = [dist_2_points(x1=p[0], x2=car[0], y1=p[1], y2=car[1]) for p in line]
            first = distances.index(min(distances))
            distances[first] = max(distances)
            return [first, distances.index(min(distances))]

        racing_track = np.array(params['waypoints'])[:-1] * 0.99
        if params['steps'] == 1 or self.first_racingpoint_index is None:
            self.episodes += 1
            self.first_racingpoint_index = 0
        closest, second = closest_2([params['x'], params['y']], racing_track.tolist())
        a, b = racing_track[closest], racing_track[second]
        c = np.array([params['x'], params['y']])
        dist = np.abs((b[0]-a[0])*(a[1]-c[1]) - (a[0]-c[0])*(b[1]-a[1])) / np.linalg.norm(b - a)
        reward = max(1e-3, 1 - (dist / (params['track_width'] * 0.5)))
        change = abs(params['steering_angle'] - self.last_steering)
        self.last_steering = params['steering_angle']
        reward += 0.1 * np.exp(-change / 30.0) * params['speed'] ** 2
        params['speed'] = 99  # careless, and no matter: the dictionary is the function's own
        params['waypoints'].clear()
        return float(reward)

reward_object = Reward(verbose=False) # add parameter verbose=True to get noisy output

def reward_function(params):
    return reward_object.reward_function(params)
"""

GLOBALS_AND_SHAPELY = """
import random
from shapely.geometry import Point, Polygon, LineString
from scipy.spatial import cKDTree

class PARAMS:
    prev_speed = None
    prev_progress = 0
    unpardonable_action = False

tree = None
BOX = Polygon([(-100, -100), (100, -100), (100, 100), (-100, 100)])

def reward_function(params):
    global tree
    if tree is None:
        tree = cKDTree(params['waypoints'])
    _, index = tree.query([params['x'], params['y']])
    if params['steps'] <= 1:
        PARAMS.prev_progress = params['progress']
    gained = params['progress'] - PARAMS.prev_progress
    PARAMS.prev_progress = params['progress']
    line = LineString(params['waypoints'])
    centred = line.distance(Point(params['x'], params['y'])) < 0.25 * params['track_width']
    inside = BOX.contains(Point(params['x'], params['y']))
    on_road = params['all_wheels_on_track'] and not params['is_offtrack'] and not params['is_crashed']
    return (2.0 if centred else 1.0) * (1.0 if on_road and inside else 1e-3) + max(gained, 0) + 0 * index
"""

CONSOLE = {"centre line": CENTRE_LINE, "inside borders": INSIDE_BORDERS, "zig-zag": ZIG_ZAG}
COMMUNITY = {
    "heading and progress": HEADING_AND_PROGRESS, "class with memory": CLASS_WITH_MEMORY,
    "globals, shapely, scipy": GLOBALS_AND_SHAPELY,
}  # fmt: skip


def as_file(tmp_path: Path, source: str) -> RewardFunction:
    path = tmp_path / "reward_function.py"
    path.write_text(source)
    return load_reward(path)


def drive(reward: RewardFunction, steps: int = 25) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Rewards (steps, 6) and the parameters that a function without side effects would have seen, of random driving."""
    rng, rewards, seen = np.random.default_rng(1), [], []
    spec = EnvSpec(control_hz=15.0, both_directions=False)
    with closing(BatchEnv([load_track("chicane_run")], 6, reward=reward, spec=spec, seed=5, draw=False)) as env:
        env.reset()
        for _ in range(steps):
            step = env.step(rng.integers(0, 10, 6))
            rewards.append(step.reward)
            seen.append({name: column.copy() for name, column in step.columns.items()})
    return np.array(rewards), seen


@pytest.mark.parametrize("name", [*CONSOLE, *COMMUNITY])
def test_they_drive_as_they_are(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reward = as_file(tmp_path, (CONSOLE | COMMUNITY)[name])
    assert not reward.needs_objects
    rewards, seen = drive(reward)
    assert rewards.shape == (25, 6) and np.isfinite(rewards).all()
    assert len(np.unique(rewards)) > 1, "it tells states apart"
    assert capfd.readouterr().out == "", "what a function prints does not get into the command's JSON"
    if name in CONSOLE:
        off = np.array([s["distance_from_center"] / s["track_width"] for s in seen])
        bands = np.select([off <= 0.1, off <= 0.25, off <= 0.5], [1.0, 0.5, 0.1], 1e-3)
        hard = np.abs([s["steering_deg"] for s in seen]) > 15
        width = np.array([s["track_width"] for s in seen])
        inside = np.array([s["all_wheels_on_track"] for s in seen]) & (width * (0.5 - off) >= 0.05)
        wanted = {
            "centre line": bands, "zig-zag": np.where(hard, 0.8 * bands, bands),
            "inside borders": np.where(inside, 1.0, 1e-3),
        }[name]  # fmt: skip
        np.testing.assert_allclose(rewards, wanted)
    else:
        assert seen[-1]["speed_mps"].max() < 1.0, "what a function does to its parameters stays there"


def test_the_fourth_example_wants_objects(tmp_path: Path) -> None:
    """It takes the next object from a list: on an empty road DeepRacer stops with an IndexError. We say so before."""
    reward = as_file(tmp_path, OBJECT_AVOIDANCE)
    assert reward.needs_objects
    for state in synthetic_params(objects=True):
        x, y = state["objects_location"][0]  # type: ignore[index]
        distance = math.hypot(state["x"] - x, state["y"] - y)  # type: ignore[operator]
        same = state["is_left_of_center"]
        avoid = 1e-3 if distance < 0.3 else 0.2 if distance < 0.5 else 0.5 if distance < 0.8 else 1.0
        room = 0.5 * state["track_width"] - state["distance_from_center"]  # type: ignore[operator]
        lane = 1.0 if state["all_wheels_on_track"] and room >= 0.05 else 1e-3
        assert reward(state) == pytest.approx(1e-3 + lane + 4.0 * (avoid if same else 1.0))
    with pytest.raises(RewardError, match="the road has no objects"):
        BatchEnv([load_track("first_oval")], 1, reward=reward, draw=False)
    guarded = as_file(tmp_path, OBJECT_AVOIDANCE.replace("    reward_avoid = 1.0\n", "    return reward_lane\n", 1))
    assert not guarded.needs_objects and len(check_reward(guarded)) == 7


@pytest.mark.parametrize("race", ["object_avoidance", "head_to_bot"])
def test_the_fourth_example_drives_unedited_in_races_with_objects(race: str, tmp_path: Path) -> None:
    reward = as_file(tmp_path, OBJECT_AVOIDANCE)
    spec = EnvSpec(race=RaceSpec(race=race))
    rng = np.random.default_rng(1)
    with closing(BatchEnv([load_track("first_oval")], 12, reward=reward, spec=spec, seed=5, draw=False)) as env:
        env.reset()
        for _ in range(40):
            step = env.step(rng.integers(0, 10, 12))
            for got, state in zip(step.reward, step.params, strict=True):
                following = state["closest_objects"][1]  # type: ignore[index]
                x, y = state["objects_location"][following]  # type: ignore[index]
                distance = math.hypot(state["x"] - x, state["y"] - y)  # type: ignore[operator]
                same = state["objects_left_of_center"][following] == state["is_left_of_center"]  # type: ignore[index]
                avoid = 1e-3 if distance < 0.3 else 0.2 if distance < 0.5 else 0.5 if distance < 0.8 else 1.0
                room = 0.5 * state["track_width"] - state["distance_from_center"]  # type: ignore[operator]
                lane = 1.0 if state["all_wheels_on_track"] and room >= 0.05 else 1e-3
                assert got == pytest.approx(1e-3 + lane + 4.0 * (avoid if same else 1.0))


def test_an_index_error_that_has_nothing_to_do_with_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="IndexError"):
        as_file(tmp_path, "def reward_function(params):\n    return float(params['waypoints'][10_000][0])\n")
    source = "def reward_function(params):\n    return float(params['objects_speed'][7])\n"
    with pytest.raises(RewardError, match="IndexError"):
        as_file(tmp_path, source)
