"""The reward parameters about objects, of 12,000 random states on six real tracks, against DeepRacer's recipe.

As in `test_reward_parameters_shapely`: the other side starts from the file's table, from where objects are said to be,
and from the physics' positions, and shares no code with `sim`.
"""

from __future__ import annotations

import bisect
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry import LinearRing, Point, Polygon, box

from sim.batch_env import BatchEnv, EnvSpec
from sim.race import HEAD_TO_BOT, OBJECT_AVOIDANCE, RaceSpec
from sim.track import load_track

Floats = NDArray[np.float64]

NAMES = ("reinvent_base", "Bowtie_track", "Oval_track", "Spain_track", "reInvent2019_wide", "2022_reinvent_champ_ccw")
CARS = 1000  # in each direction; half of them in a race with boxes, half with bot cars
MILLIMETRE = 1e-3
BOX, BOT = (0.5, 0.4), (0.32352, 0.1961)  # along the heading, across (spec §1, DeepRacer's `ObstacleDimensions`)

pytestmark = pytest.mark.slow


def rectangle(size: tuple[float, float], x: float, y: float, yaw_rad: float) -> Polygon:
    upright = box(-size[0] / 2, -size[1] / 2, size[0] / 2, size[1] / 2)
    return affinity.translate(affinity.rotate(upright, yaw_rad, origin=(0, 0), use_radians=True), x, y)


def in_frustum(points: Floats, position: Floats, yaw_rad: float) -> tuple[bool, float]:
    """Whether one of the points on the ground (p, 2) is in the camera's frustum, and how far from a tie that is.

    DeepRacer's camera: 0.145 m ahead, 0.127 m high, 15 degrees down, 64.7 degrees wide, 4 : 3, from 0.2 to 300 m.
    """
    down, half = np.radians(15.0), np.tan(np.radians(64.7) / 2)
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    eye = np.array([position[0] + 0.145 * c, position[1] + 0.145 * s, 0.127])
    forward = np.array([c * np.cos(down), s * np.cos(down), -np.sin(down)])
    left, up = np.array([-s, c, 0.0]), np.array([c * np.sin(down), s * np.sin(down), np.cos(down)])
    planes = [
        (forward, 0.2), (left + half * forward, 0.0), (-left + half * forward, 0.0),
        (up + 0.75 * half * forward, 0.0), (-up + 0.75 * half * forward, 0.0),
    ]  # fmt: skip
    rays = np.column_stack([points, np.zeros(len(points))]) - eye
    inside = np.array([rays @ normal - offset for normal, offset in planes]).min(axis=0)
    return bool((inside > 0).any()), float(np.abs(inside).min())


@pytest.mark.parametrize("race", [OBJECT_AVOIDANCE, HEAD_TO_BOT])
@pytest.mark.parametrize("reverse", [False, True], ids=["as stored", "reversed"])
@pytest.mark.parametrize("name", NAMES)
def test_parameters_about_objects_are_those_of_shapely(name: str, reverse: bool, race: str, shared_data: Path) -> None:
    path, n = shared_data / "tracks" / f"{name}.npy", CARS // 2
    table = np.load(path)
    rows = table[::-1] if reverse else table
    center = LinearRing(rows[:, :2])
    inner = Polygon(table[:, :2], [table[:, 2:4]])
    is_ccw = bool(LinearRing(table[:, :2]).is_ccw) ^ reverse
    rng = np.random.default_rng([NAMES.index(name), reverse, len(race)])
    race_spec = RaceSpec(race=race, obstacles=5, bot_cars=4, lane_changes=True)
    spec = EnvSpec(both_directions=True, race=race_spec)
    with closing(BatchEnv([load_track(path)], n, spec=spec, seed=3, auto_reset=False, draw=False)) as env:
        env.reset()
        env.track[:] = int(reverse)
        assert env.objects is not None
        everyone = np.arange(n)
        env.objects.place(everyone, env.track, rng.uniform(0, center.length, n))
        for _ in range(int(rng.integers(5, 40))):
            env.steps += 1
            env.objects.step(env.track, env.steps, 0.1)
        # Half of the cars anywhere on the road, half around an object.
        where = table[rng.integers(len(table), size=n), :2] + rng.normal(0.0, 0.3, (n, 2))
        near = rng.random(n) < 0.5
        which = rng.integers(env.objects.count, size=n)
        around = env.objects.xy_m[everyone, which] + rng.normal(0.0, 0.35, (n, 2))
        env.physics.place(everyone, np.where(near[:, None], around, where), rng.uniform(-np.pi, np.pi, n))
        env.projection = env._project()
        params: list[dict[str, Any]] = env.reward_params(np.zeros((n, 2)))
        position, heading = env.physics.position[:, :2].copy(), env.physics.heading().copy()
        yaws = env.objects.yaw_rad.copy()

    size = BOX if race == OBJECT_AVOIDANCE else BOT
    clear = dict.fromkeys(("crashed", "left", "camera"), 0)
    crashed = seen = 0
    for car, p in enumerate(params):
        places = p["objects_location"]
        assert all(isinstance(place, tuple) and len(place) == 2 for place in places)
        points = [Point(place) for place in places]
        along = [center.project(point) for point in points]
        assert np.abs(np.array(p["objects_distance"]) - along).max() < MILLIMETRE
        from_center = [center.distance(point) for point in points]
        assert np.abs(np.array(p["objects_distance_from_center"]) - from_center).max() < MILLIMETRE
        for point, left, distance in zip(points, p["objects_left_of_center"], from_center, strict=True):
            if distance > MILLIMETRE:
                assert left == (inner.contains(point) ^ (not is_ccw))
                clear["left"] += 1
        order = np.argsort(along)
        mine = center.project(Point(p["x"], p["y"]))
        following = bisect.bisect_right([along[k] for k in order], mine)
        if min(abs(mine - each) for each in along) > MILLIMETRE:
            assert p["closest_objects"] == [order[following - 1], order[following % len(order)]]
        if race == HEAD_TO_BOT:
            assert np.allclose(np.cos(np.array(p["objects_heading"]) - yaws[car]), 1.0)
            assert np.abs(p["objects_heading"]).max() <= np.pi and p["objects_speed"] == [0.2] * 4
        else:
            assert p["objects_heading"] == [0.0] * 5 == p["objects_speed"]

        corners = shapely.points(np.array(rectangle(BOT, *position[car], heading[car]).exterior.coords)[:4])
        hits, tie = [], np.inf
        for place, yaw, s in zip(places, yaws[car], along, strict=True):
            shape = rectangle(size, *place, yaw)
            behind = (s - mine + center.length / 2) % center.length - center.length / 2 <= 0
            hits.append(bool(shape.contains(corners).any()) and not (race == HEAD_TO_BOT and behind))
            tie = min(tie, float(shape.boundary.distance(corners).min()), abs(s - mine) if hits[-1] else np.inf)
        if tie > MILLIMETRE:
            assert p["is_crashed"] == any(hits), (car, hits)
            clear["crashed"] += 1
            crashed += any(hits)
        ahead = p["closest_objects"][1]
        outline = np.array(rectangle(size, *places[ahead], yaws[car][ahead]).exterior.coords)[:4]
        visible, tie = in_frustum(np.concatenate([outline, [places[ahead]]]), position[car], heading[car])
        if tie > MILLIMETRE:
            assert p["object_in_camera"] == visible
            clear["camera"] += 1
            seen += visible
    assert clear["crashed"] > 0.9 * n and clear["left"] > 0.95 * n * len(places) and clear["camera"] > 0.9 * n
    assert 0.03 < crashed / n < 0.9 and 0.03 < seen / n < 0.97, "the states show both"
