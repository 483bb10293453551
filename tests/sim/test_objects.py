"""Boxes and bot cars: where they stand, how they move, what happens to a car that meets them."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from sim.batch_env import CRASHED, OFF_TRACK, BatchEnv, EnvSpec
from sim.errors import SimError
from sim.objects import BOX_M
from sim.race import HEAD_TO_BOT, OBJECT_AVOIDANCE, RaceSpec
from sim.track import Track, load_track
from sim.world import nominal
from vehicle.errors import ConfigError

OVAL = load_track("first_oval")  # 15.5 m, counter-clockwise
BOXES = RaceSpec(race=OBJECT_AVOIDANCE)
BOTS = RaceSpec(race=HEAD_TO_BOT)


def environment(
    race: RaceSpec, n: int = 4, tracks: tuple[Track, ...] = (OVAL,), draw: bool = False, **spec: object
) -> BatchEnv:
    defaults: dict[str, object] = {"start": "start_line", "both_directions": False}
    return BatchEnv(tracks, n, spec=EnvSpec(race=race, **(defaults | spec)), auto_reset=False, draw=draw, seed=3)  # type: ignore[arg-type]


def gaps_m(env: BatchEnv) -> np.ndarray:
    """(n, k) along the road from each object to the next one."""
    assert env.objects is not None
    s = np.sort(env.objects.s_m, axis=1)
    length = np.array([t.length_m for t in env.tracks])[env.track]
    return np.diff(np.concatenate([s, s[:, :1] + length[:, None]], axis=1), axis=1)


def test_random_places_differ_keep_their_distance_and_leave_the_start_free() -> None:
    with closing(environment(BOXES, n=200, start="anywhere", both_directions=True)) as env:
        env.reset()
        assert env.objects is not None
        assert gaps_m(env).min() >= 2.0 - 0.05  # a lane's nearest centre point is not quite where it was drawn from
        assert len(np.unique(env.objects.s_m.round(3))) > 700
        left = env.objects.lateral_m > 0
        assert 0.4 < left.mean() < 0.6
        assert np.abs(np.abs(env.objects.lateral_m) - 0.225).max() < 0.01, "the middle of a lane of a road of 0.9 m"
        apart = np.linalg.norm(env.objects.xy_m - env.physics.position[:, None, :2], axis=2)
        assert apart.min() > 0.6
        before = env.objects.s_m.copy()
        env.reset()  # the next episode
        assert np.abs(before - env.objects.s_m).max() > 1.0


def test_the_same_seed_places_the_same_objects_and_the_rest_of_the_world_is_as_without() -> None:
    with (
        closing(environment(BOXES)) as one,
        closing(environment(BOXES)) as other,
        closing(
            BatchEnv([OVAL], 4, spec=EnvSpec(start="start_line", both_directions=False), draw=False, seed=3)
        ) as empty,
    ):
        for env in (one, other, empty):
            env.reset()
            env.step(np.zeros(4, int))
        assert one.objects is not None and other.objects is not None
        assert np.array_equal(one.objects.xy_m, other.objects.xy_m)
        assert np.allclose(one.physics.position, empty.physics.position, atol=1e-9)


def test_evenly_spaced_ones_alternate_lanes_inner_first() -> None:
    race = RaceSpec(race=OBJECT_AVOIDANCE, randomise=False, obstacles=5)
    with closing(environment(race)) as env:
        env.reset()
        assert env.objects is not None
        assert np.allclose(env.objects.s_m[0], np.linspace(2.0, OVAL.length_m - 1.0, 5), atol=0.1)
        assert (np.sign(env.objects.lateral_m) == [1, -1, 1, -1, 1]).all(), "inner is left on a counter-clockwise track"


def test_fixed_places_are_where_the_file_has_them_whichever_way_one_drives() -> None:
    race = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.25,1", "0.5,-1"))
    with closing(environment(race, n=2, both_directions=True)) as env:
        env.reset()
        assert env.objects is not None and sorted(env.track) == [0, 1]
        assert np.allclose(env.objects.xy_m[0], env.objects.xy_m[1], atol=0.03)
        assert np.allclose(env.objects.s_m[0] + env.objects.s_m[1], OVAL.length_m, atol=0.1)
        assert (np.sign(env.objects.lateral_m[0]) == -np.sign(env.objects.lateral_m[1])).all()


def test_starts_that_a_fixed_place_is_in_the_way_of_move_back() -> None:
    race = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.0,1", "0.96,-1"))
    with closing(environment(race, n=8)) as env:
        env.reset()
        apart = np.linalg.norm(env.objects.xy_m - env.physics.position[:, None, :2], axis=2)  # type: ignore[union-attr]
        assert apart.min() > 0.8
        step = env.step_command(np.tile([0.0, 0.5], (8, 1)))
        assert (step.status == 0).all()


def test_a_box_stops_a_car_and_the_episode_ends_as_crashed() -> None:
    """Whatever the reward or the status say: MuJoCo holds the car."""
    race = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.12,1",))
    with closing(environment(race, n=3)) as env:
        env.reset()
        assert env.objects is not None
        box, yaw = env.objects.xy_m[0, 0], env.objects.yaw_rad[0, 0]
        ahead = np.array([np.cos(yaw), np.sin(yaw)])
        aside = np.array([-ahead[1], ahead[0]])
        # Straight at it, at its edge, and past it.
        places = box - 0.7 * ahead + np.array([[0.0], [0.2], [-0.35]]) * aside
        env.physics.place(np.arange(3), places, np.full(3, yaw))
        statuses = []
        for _ in range(16):
            step = env.step_command(np.tile([0.0, 1.0], (3, 1)))
            statuses.append(step.status.copy())
        along = (env.physics.position[:, :2] - box) @ ahead
        contact = -(BOX_M[0] / 2 + env.car.body.length_m / 2)
        assert abs(along[0] - contact) < 0.03 and abs(env.physics.forward_speed()[0]) < 0.1
        assert along[2] > 0.3, "a car that has room drives past"
        crashed = np.array(statuses) == CRASHED
        assert crashed[:, 0].any() and crashed[:, 1].any() and not crashed[:, 2].any()
        assert step.params[0]["is_crashed"] is True and step.terminated[0]


def test_bot_cars_keep_their_speed_and_their_lane() -> None:
    with closing(environment(BOTS, n=6)) as env:
        env.reset()
        assert env.objects is not None
        before, lateral = env.objects.xy_m.copy(), env.objects.lateral_m.copy()
        path = np.zeros(before.shape[:2])
        for _ in range(100):
            env.step_command(np.zeros((6, 2)))
            path += np.linalg.norm(env.objects.xy_m - before, axis=2)
            before = env.objects.xy_m.copy()
        assert np.allclose(path, 2.0, atol=0.04), "0.2 m/s for 10 s"
        assert np.abs(np.abs(env.objects.lateral_m) - np.abs(lateral)).max() < 0.01
        p = env._set.project(np.repeat(env.track, 3), env.objects.xy_m.reshape(-1, 2))
        error = (env.objects.yaw_rad.ravel() - p.heading_rad + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(error).max() < 0.15


def test_bot_cars_change_lanes_now_and_then_where_asked_to() -> None:
    race = RaceSpec(race=HEAD_TO_BOT, lane_changes=True, bot_cars=2)
    with closing(environment(race, n=8)) as env:
        env.reset()
        assert env.objects is not None
        sides = []
        for _ in range(200):
            env.step_command(np.zeros((8, 2)))
            sides.append(env.objects.lateral_m > 0)
        changes = np.count_nonzero(np.diff(np.array(sides).astype(int), axis=0), axis=0)
        assert (changes >= 2).all() and (changes <= 7).all(), "every 3 to 5 s in 20 s"


def test_a_bot_car_that_comes_from_behind_is_not_the_cars_crash() -> None:
    race = RaceSpec(race=HEAD_TO_BOT, bot_cars=1)
    with closing(environment(race, n=2)) as env:
        env.reset()
        assert env.objects is not None
        yaw = env.objects.yaw_rad[:, 0]
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        aside = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)  # a little: corners on a line are not inside
        shift = np.array([[0.45], [-0.45]])  # ahead of it, and behind it
        env.physics.place(np.arange(2), env.objects.xy_m[:, 0] + shift * ahead + 0.04 * aside, yaw)
        seen = []
        for _ in range(12):
            step = env.step_command(np.array([[0.0, 0.0], [0.0, 1.0]]))
            seen.append(step.columns["is_crashed"].copy())
        assert not np.array(seen)[:, 0].any() and np.array(seen)[:, 1].any()
        pushed = (env.physics.position[0, :2] - env.objects.xy_m[0, 0]) @ ahead[0]
        assert pushed > 0.25, "MuJoCo pushes the car in front"


def test_cars_are_put_back_on_a_free_lane() -> None:
    race = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.3,1", "0.3,-1", "0.7,1"))
    with closing(environment(race, n=2)) as env:
        env.reset()
        assert env.objects is not None
        env.status[:] = [CRASHED, OFF_TRACK]
        env.progress[:] = 30.0
        env.put_back(np.arange(2))
        apart = np.linalg.norm(env.objects.xy_m - env.physics.position[:, None, :2], axis=2)
        assert apart.min() > 0.55
        p = env._set.project(env.track, env.physics.position[:, :2])
        assert np.allclose(np.abs(p.lateral_m), 0.225, atol=0.01)
        assert 0.2 < p.s_m[1] - p.s_m[0] < 0.3, "both lanes are blocked where the other one was, so it is just behind"


def test_objects_are_in_the_picture() -> None:
    race = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.1,1",))
    with (
        closing(environment(race, n=1, draw=True)) as env,
        closing(
            BatchEnv([OVAL], 1, spec=EnvSpec(start="start_line", both_directions=False), seed=3, auto_reset=False)
        ) as empty,
    ):
        frames = env.reset().astype(int), empty.reset().astype(int)
        assert (np.abs(frames[0] - frames[1]) > 30).mean() > 0.005
        assert env.reward_params(np.zeros((1, 2)))[0]["object_in_camera"] is True


def test_random_looks_paint_objects_apart_from_the_road() -> None:
    with closing(environment(BOXES, n=2)) as env:
        env.reset()
        assert env.objects is not None
        env.objects.paint(np.array([0, 1]), [100.0, float("nan")])
        assert (np.abs(env.objects.gray[0] - 100.0) >= 50.0).all() and len(set(env.objects.gray[1])) == 1


def test_every_world_without_objects_is_built_without_them() -> None:
    with closing(BatchEnv([OVAL], 1, randomise=nominal(), draw=False)) as env:
        assert env.objects is None and env.physics.model.nmocap == 0 and env.STATE_SIZE == BatchEnv.STATE_SIZE


def test_objects_that_do_not_fit_are_an_error_that_says_so() -> None:
    with pytest.raises(SimError, match="20 objects, 2 m between them, need 41 m; a lap of first_oval has 15.5 m"):
        environment(RaceSpec(race=OBJECT_AVOIDANCE, obstacles=20))


@pytest.mark.parametrize("place", ["0.5", "1.5,1", "0.5,0", "half,1", "0.5,1,2"])
def test_places_that_are_none_are_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="is not a place"):
        RaceSpec(race=OBJECT_AVOIDANCE, positions=(place,))


def test_what_the_value_network_sees_is_mirrored_with_the_world() -> None:
    right = OVAL.mirrored()
    race = [RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.1,1", "0.4,-1")) for _ in range(2)]
    states = []
    for track, each in zip((OVAL, right), race, strict=True):
        with closing(environment(each, n=1, tracks=(track,))) as env:
            env.reset()
            xy, heading = env._set.pose_at(env.track, np.array([0.3]), np.array([0.1 if track is OVAL else -0.1]))
            env.physics.place(np.arange(1), xy, heading)
            env.projection = env._project()
            states.append(env.state()[0])
            signs = env.MIRROR_STATE
    assert states[0].shape == signs.shape
    assert np.allclose(states[0], states[1] * signs, atol=0.02)
