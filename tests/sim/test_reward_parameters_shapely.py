"""Every reward parameter of 12,000 random car states on six real tracks, against DeepRacer's recipe in shapely.

The other side starts from the file's own table and the physics' positions and quaternions, and shares no code with
`sim`: what is compared is what a reward function really gets from a step of the environment.
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
from shapely.geometry import LinearRing, Point, Polygon

from sim.batch_env import BatchEnv, EnvSpec
from sim.reward_params import PARAM_KEYS
from sim.track import load_track

Floats = NDArray[np.float64]

# All but the first and the last repeat a row, so that waypoints are numbered otherwise than the geometry's corners.
NAMES = ("reinvent_base", "Bowtie_track", "Oval_track", "Spain_track", "reInvent2019_wide", "2022_reinvent_champ_ccw")
CARS = 1000  # in each direction
MILLIMETRE = 1e-3

pytestmark = pytest.mark.slow


def rotate(quaternion: Floats, vector: Floats) -> Floats:
    """Vectors (..., 3) turned by unit quaternions (n, 4), scalar first."""
    w, axis = quaternion[:, None, :1], quaternion[:, None, 1:]
    once = np.cross(axis, vector) + w * vector
    return np.asarray(vector + 2.0 * np.cross(axis, once))


class Recipe:
    """DeepRacer's parameters of points and wheels, from the table of a route and its direction."""

    def __init__(self, table: Floats, reverse: bool) -> None:
        rows = table[::-1] if reverse else table
        self.center, self.inner, self.outer = (LinearRing(rows[:, k : k + 2]) for k in (0, 2, 4))
        self.road = Polygon(self.outer, [self.inner])
        self.is_ccw = bool(LinearRing(table[:, :2]).is_ccw) ^ reverse
        self.corners = [self.center.project(Point(p), normalized=True) for p in self.center.coords[:-1]] + [1.0]

    def of(self, front: Floats, wheels: Floats) -> dict[str, Any]:
        """Columns (n,) for front points (n, 2) and wheels (n, 4, 2); `tie_` is how far a flag is from a tie, metres."""
        points = shapely.points(front)
        share = shapely.line_locate_point(self.center, points, normalized=True)
        nearest = shapely.line_interpolate_point(self.center, share, normalized=True)
        inner, outer = (
            shapely.line_interpolate_point(line, shapely.line_locate_point(line, nearest))
            for line in (self.inner, self.outer)
        )
        to_inner, to_outer = shapely.distance(points, inner), shapely.distance(points, outer)
        on = shapely.contains_xy(self.road, wheels[..., 0], wheels[..., 1])
        after = np.array([bisect.bisect_right(self.corners, each) for each in share])
        return {
            "share": share,
            "distance_from_center": shapely.distance(points, nearest),
            "projection_distance": share * self.center.length,
            "track_width": shapely.distance(inner, outer),
            "is_left_of_center": (to_inner < to_outer) ^ (not self.is_ccw),
            "tie_left": np.abs(to_inner - to_outer),
            "closest_waypoints": np.stack([after - 1, after % len(self.corners)], axis=1),
            "all_wheels_on_track": on.all(axis=1),
            "is_offtrack": ~on.any(axis=1),
            "tie_wheels": shapely.distance(self.road.boundary, shapely.points(wheels)).min(axis=1),
        }


def progress(share: float, start: float, before: float) -> float:
    """DeepRacer's progress in percent, from where a car is, where it started and what it had (spec §1)."""
    percent = 100.0 * (share - start)
    percent += 100.0 if percent <= 0.0 else 0.0
    percent += 100.0 if before > percent + 50.0 else 0.0
    percent -= 100.0 if percent > before + 50.0 else 0.0
    return min(percent, 100.0)


@pytest.mark.parametrize("reverse", [False, True], ids=["as stored", "reversed"])
@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_random_states_are_those_of_shapely(name: str, reverse: bool, shared_data: Path) -> None:
    path = shared_data / "tracks" / f"{name}.npy"
    table = np.load(path)
    recipe = Recipe(table, reverse)
    rng = np.random.default_rng([NAMES.index(name), reverse])
    spec = EnvSpec(both_directions=True)
    with closing(BatchEnv([load_track(path)], CARS, spec=spec, seed=3, auto_reset=False, draw=False)) as env:
        env.track[:] = int(reverse)  # before the reset, so that progress starts where this direction's does
        env.reset()
        env.track[:] = int(reverse)
        everyone = np.arange(CARS)
        where = table[rng.integers(len(table), size=CARS), :2] + rng.normal(0.0, 0.35, (CARS, 2))
        env.physics.place(everyone, where, rng.uniform(-np.pi, np.pi, CARS))
        start_s, before = rng.uniform(0.0, recipe.center.length, CARS), rng.uniform(0.0, 100.0, CARS)
        env.start_s[:], env.progress[:] = start_s, before
        command = np.stack([rng.uniform(-30, 30, CARS), rng.uniform(0.1, 4.0, CARS)], axis=1)
        params = env.step_command(command).params
        position, quaternion = env.physics.position.copy(), env.physics.quaternion.copy()
        body = env.car.body

    x, y = body.wheelbase_m / 2, body.track_m / 2
    offsets = np.array([[x, y, 0.0], [x, -y, 0.0], [-x, y, 0.0], [-x, -y, 0.0]])
    front = position[:, :2] + rotate(quaternion, np.array([[0.14, 0.0, 0.0]]))[:, 0, :2]
    wheels = position[:, None, :2] + rotate(quaternion, offsets)[..., :2]
    wanted = recipe.of(front, wheels)
    w, qx, qy, qz = quaternion.T
    heading = np.degrees(np.arctan2(2 * (w * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz)))
    got = {key: np.array([p[key] for p in params]) for key in PARAM_KEYS if key != "waypoints"}

    assert np.abs(got["x"] - front[:, 0]).max() < MILLIMETRE
    assert np.abs(got["y"] - front[:, 1]).max() < MILLIMETRE
    assert np.abs((got["heading"] - heading + 180.0) % 360.0 - 180.0).max() < 0.01
    assert np.abs(got["distance_from_center"] - wanted["distance_from_center"]).max() < MILLIMETRE
    assert np.abs(got["track_length"] - recipe.center.length).max() < MILLIMETRE
    # From here on the reference takes the point that we say: where the nearest centre point jumps from one stretch of
    # road to another, a micrometre decides between two answers that are metres apart.
    exact = recipe.of(np.stack([got["x"], got["y"]], axis=1), wheels)
    assert np.abs(got["projection_distance"] - exact["projection_distance"]).max() < MILLIMETRE
    assert np.abs(got["track_width"] - exact["track_width"]).max() < MILLIMETRE
    assert np.array_equal(got["closest_waypoints"], exact["closest_waypoints"]), "none left out, ties included"
    clear = exact["tie_left"] > MILLIMETRE
    assert np.array_equal(got["is_left_of_center"][clear], exact["is_left_of_center"][clear])
    clear = wanted["tie_wheels"] > MILLIMETRE
    assert np.array_equal(got["all_wheels_on_track"][clear], wanted["all_wheels_on_track"][clear])
    assert np.array_equal(got["is_offtrack"][clear], wanted["is_offtrack"][clear])
    assert clear.mean() > 0.9
    for key in ("is_left_of_center", "all_wheels_on_track", "is_offtrack"):
        assert 0.03 < got[key].mean() < 0.97, "the states show both"

    starts = start_s / recipe.center.length
    by_rule = np.array([progress(*each) for each in zip(exact["share"], starts, before, strict=True)])
    # Off the road we keep what there was (a short cut is no lap); DeepRacer goes on counting.
    by_rule = np.where(got["is_offtrack"], before, by_rule)
    assert np.abs(got["progress"] - by_rule).max() / 100.0 * recipe.center.length < MILLIMETRE

    assert np.array_equal(got["steering_angle"], command[:, 0]) and np.array_equal(got["speed"], command[:, 1])
    assert (got["steps"] == 1).all() and np.allclose(got["sim_time"], 0.1)
    assert (got["is_reversed"] == reverse).all()
    corners = [(float(a), float(b)) for a, b in recipe.center.coords]
    assert all(p["waypoints"] == corners for p in params), "as many as the file has rows, repeated ones too"
    nothing_there = {key: params[0][key] for key in PARAM_KEYS if "object" in key} | {"is_crashed": False}
    assert all({key: p[key] for key in nothing_there} == nothing_there for p in params)
    assert not any(nothing_there["closest_objects"]) and nothing_there["objects_location"] == []
