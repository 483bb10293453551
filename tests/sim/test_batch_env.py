"""The batched environment: episodes, their ends, delays, pictures, rewards, and the same bits for the same seed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.batch_env import (
    CRASHED,
    IMMOBILIZED,
    IN_PROGRESS,
    LAP_COMPLETE,
    OFF_TRACK,
    REVERSED,
    STATUS_NAMES,
    TIME_UP,
    BatchEnv,
    EnvSpec,
    Step,
)
from sim.car_spec import CameraSpec, CarSpec
from sim.errors import RewardError, SimError
from sim.reward import RewardFunction
from sim.reward_params import PARAM_KEYS
from sim.track import load_track
from sim.track_set import TrackSet
from sim.world import Randomisation, nominal
from vehicle.action_space import ContinuousActionSpace
from vehicle.errors import ActionSpaceError

Floats = NDArray[np.float64]
OVAL = load_track("first_oval")
PLAIN = replace(nominal(), start_lateral=0.0, start_heading_deg=0.0)
LINE = EnvSpec(start="start_line", both_directions=False)


def pursuit(env: BatchEnv, speed_mps: float, ahead_m: float = 0.5) -> Floats:
    """Commands (n, 2) that steer at a point of the centre line ahead of each car, from the simulator's own state."""
    tracks = TrackSet(env.tracks)
    middle, yaw = env.physics.position[:, :2], env.physics.heading()
    s = tracks.project(env.track, middle).s_m
    target, _ = tracks.pose_at(env.track, s + ahead_m, np.zeros(env.n))
    to = target - middle
    angle = np.arctan2(to[:, 1], to[:, 0]) - yaw
    curvature = 2 * np.sin(angle) / np.maximum(np.linalg.norm(to, axis=1), 0.1)
    steering = np.degrees(np.arctan(env.car.body.wheelbase_m * curvature))
    return np.stack([np.clip(steering, -30, 30), np.full(env.n, speed_mps)], axis=1)


def held(env: BatchEnv, steering_deg: float, speed_mps: float) -> Floats:
    return np.tile([[steering_deg, speed_mps]], (env.n, 1))


def until_done(env: BatchEnv, command: Floats, limit: int = 200) -> list[Step]:
    """Steps with one command until the first car's episode ends; each one's arrays are copies."""
    steps = []
    for _ in range(limit):
        step = env.step_command(command)
        steps.append(replace(step, frames=step.frames.copy()))
        if step.status.any():
            return steps
    raise AssertionError(f"no end in {limit} steps")


def reward(source: str) -> RewardFunction:
    return RewardFunction("mine", source, Path("mine.py"))


# --- same seed, same episodes -----------------------------------------------------------------------------------------


def episodes(
    seed: int, threads: int, n: int = 7, steps: int = 60, randomise: Randomisation | None = None
) -> list[bytes]:
    """Everything that steps gave, car by car: frames, rewards, ends, progress, parameters, states."""
    env = BatchEnv(
        [OVAL, load_track("little_bean")],
        n,
        randomise=randomise or replace(Randomisation(), looks=3),
        seed=seed,
        threads=threads,
        spec=EnvSpec(max_steps=25),
    )
    seen: list[list[bytes]] = [[frame.tobytes()] for frame in env.reset()]
    ended, lasts = np.zeros(n, int), 0
    with closing(env):
        for t in range(steps):
            action = np.array([np.random.default_rng([t, i]).integers(10) for i in range(n)])
            step = env.step(action)
            state = env.state()
            ended += step.terminated | step.truncated
            lasts += len(step.last_ids)
            for i in range(n):
                seen[i] += [step.frames[i].tobytes(), step.reward[i].tobytes(), step.progress[i].tobytes()]
                seen[i] += [bytes([int(step.status[i])]), repr(step.params[i]).encode(), state[i].tobytes()]
            for k, i in enumerate(step.last_ids):
                seen[i] += [step.last_frames[k].tobytes(), step.last_state[k].tobytes()]
    assert ended.min() >= 2 and lasts > 0, "the comparison is to cross resets and step limits"
    return [b"".join(car) for car in seen]


def test_same_seed_same_bits_whatever_the_threads() -> None:
    one = episodes(11, 1)
    assert one == episodes(11, 2)
    assert one == episodes(11, 3)
    other = episodes(12, 1)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_a_car_does_not_depend_on_its_neighbours() -> None:
    assert episodes(5, 1, n=3) == episodes(5, 2, n=5)[:3]


def test_a_large_seed_is_a_seed() -> None:
    """Sensor noise is seeded in 64-bit arithmetic, which wraps; warnings are errors here."""
    ranges = replace(PLAIN, noise=(4.0, 4.0))
    pictures = []
    for seed in (0, 2, 2**31 - 1, 2**62 + 1):
        with closing(BatchEnv([OVAL], 2, randomise=ranges, seed=seed, spec=LINE)) as env:
            pictures.append(env.reset().copy())
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_reset_with_a_seed_is_a_new_environment() -> None:
    ranges = replace(Randomisation(), looks=1)
    with (
        closing(BatchEnv([OVAL], 3, seed=1, randomise=ranges)) as used,
        closing(BatchEnv([OVAL], 3, seed=9, randomise=ranges)) as new,
    ):
        used.reset()
        first = used.frames.copy()
        for _ in range(5):
            used.step(np.array([1, 4, 8]))
        again = used.reset().copy()
        assert not np.array_equal(first, again), "without a seed the stream goes on"
        assert np.array_equal(used.reset(seed=9), new.reset())
        for _ in range(5):
            a, b = used.step(np.array([1, 4, 8])), new.step(np.array([1, 4, 8]))
            assert np.array_equal(a.frames, b.frames) and a.params == b.params


def test_without_pictures_the_cars_drive_the_same() -> None:
    states = []
    for draw in (True, False):
        with closing(BatchEnv([OVAL], 2, seed=3, randomise=replace(Randomisation(), looks=1), draw=draw)) as env:
            env.reset()
            for _ in range(20):
                env.step(np.array([3, 7]))
            states.append(env.state())
    assert np.array_equal(*states)


# --- how episodes end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first_oval", "hairpin_alley"])
def test_a_lap_in_either_direction_completes(name: str) -> None:
    track = load_track(name)
    spec = EnvSpec(start="start_line", both_directions=True)
    with closing(BatchEnv([track], 2, randomise=PLAIN, spec=spec, auto_reset=False)) as env:
        env.reset()
        assert env.track.tolist() == [0, 1]
        assert env.tracks[1].is_ccw != env.tracks[0].is_ccw
        ends: dict[int, int] = {}
        previous = np.zeros(2)
        for _ in range(env.max_steps):
            step = env.step_command(pursuit(env, 0.8))
            for car in range(2):
                if car in ends:
                    continue
                assert step.params[car]["is_reversed"] is (car == 1)
                assert step.progress[car] > previous[car] - 0.01, "forwards all the way"
                if step.status[car] != IN_PROGRESS:
                    ends[car] = int(step.status[car])
                    assert step.progress[car] == 100.0 == step.params[car]["progress"]
                    assert step.terminated[car] and not step.truncated[car]
                    # The lap is as long as the track, to within a step.
                    assert step.steps[car] * 0.08 == pytest.approx(track.length_m, rel=0.12)
            previous = step.progress
            if len(ends) == 2:
                break
        assert ends == {0: LAP_COMPLETE, 1: LAP_COMPLETE}


def test_off_track_is_all_four_wheels() -> None:
    with closing(BatchEnv([OVAL], 1, randomise=PLAIN, spec=LINE, auto_reset=False)) as env:
        env.reset()
        tracks = TrackSet(env.tracks)
        history = []
        for _ in range(200):
            step = env.step_command(held(env, 25.0, 0.6))
            wheels = tracks.on_track(env.track, env.physics.wheel_points())[0]
            history.append(int(wheels.sum()))
            params = step.params[0]
            assert params["all_wheels_on_track"] is bool(wheels.all())
            assert params["is_offtrack"] is bool(not wheels.any())
            if step.status[0] != IN_PROGRESS:
                break
            assert wheels.any()
        assert step.status[0] == OFF_TRACK and step.terminated[0] and not step.truncated[0]
        assert history[-1] == 0 and history[0] == 4
        assert {1, 2, 3} & set(history), "some wheels off is not yet the end"
        assert len(step.last_ids) == 0, "the road ended: nothing to bootstrap from"


def test_standing_still_for_fifteen_steps_is_immobilised() -> None:
    with closing(BatchEnv([OVAL], 1, randomise=PLAIN, spec=LINE)) as env:
        env.reset()
        steps = until_done(env, held(env, 0.0, 0.0))
        assert len(steps) == 15
        assert steps[-1].status[0] == IMMOBILIZED and steps[-1].terminated[0]
        # A pause is not: the count begins anew with every move.
        env.reset()
        for command in [held(env, 0, 0)] * 14 + [held(env, 0, 0.5)] * 3 + [held(env, 0, 0)] * 14:
            assert env.step_command(command).status[0] == IN_PROGRESS
        assert until_done(env, held(env, 0, 0), 15)[-1].status[0] == IMMOBILIZED


def test_falling_progress_for_fifteen_steps_is_reversed() -> None:
    with closing(BatchEnv([OVAL], 2, randomise=PLAIN, spec=LINE)) as env:
        env.reset()
        # The first car backs up; the second one is turned round and drives on.
        turn = np.array([1])
        env.physics.place(turn, env.physics.position[turn, :2], env.physics.heading()[turn] + np.pi)
        env.step_command(held(env, 0, 0.0))
        command = np.array([[0.0, -0.3], [0.0, 0.3]])
        steps = until_done(env, command)
        assert steps[-1].status.tolist() == [REVERSED, REVERSED]
        assert len(steps) in (15, 14), "the placing itself may have counted as the first fall"
        progress = np.array([step.progress for step in steps])
        assert np.all(np.diff(progress, axis=0) < 0) and np.all(progress[-1] < 0)
        for _ in range(5):  # the next episode counts anew, also where it begins by backing up
            assert env.step_command(held(env, 0, -0.3)).status.tolist() == [IN_PROGRESS] * 2


def test_the_step_limit_truncates_and_says_what_was_last() -> None:
    spec = replace(LINE, max_steps=6)
    with (
        closing(BatchEnv([OVAL], 2, randomise=PLAIN, spec=spec)) as env,
        closing(BatchEnv([OVAL], 2, randomise=PLAIN, spec=spec, auto_reset=False)) as plain,
    ):
        env.reset()
        plain.reset()
        for t in range(1, 7):
            step, same = env.step(np.array([3, 7])), plain.step(np.array([3, 7]))
            assert step.truncated.tolist() == [t == 6] * 2 and not step.terminated.any()
        assert step.status.tolist() == [TIME_UP] * 2 and step.last_ids.tolist() == [0, 1]
        assert np.array_equal(step.last_frames, same.frames), "the final picture, not the new episode's"
        assert np.array_equal(step.last_state, plain.state())
        assert not np.array_equal(step.frames, same.frames)
        assert step.progress == pytest.approx(same.progress) and step.steps.tolist() == [6, 6]


def test_every_status_has_a_name() -> None:
    codes = (IN_PROGRESS, LAP_COMPLETE, OFF_TRACK, IMMOBILIZED, REVERSED, TIME_UP, CRASHED)
    names = ("in_progress", "lap_complete", "off_track", "immobilized", "reversed", "time_up", "crashed")
    assert tuple(STATUS_NAMES[code] for code in codes) == names and len(STATUS_NAMES) == len(codes)


def test_a_short_cut_off_the_road_is_no_lap() -> None:
    """Off the road the nearest centre line may be another stretch, even one beyond the finish."""
    with closing(BatchEnv([OVAL], 1, randomise=PLAIN, spec=LINE, auto_reset=False, draw=False)) as env:
        env.reset()
        tracks, one = TrackSet(env.tracks), np.array([0])

        def jump(percent: float, lateral_m: float) -> Step:
            s = np.array([percent / 100 * OVAL.length_m])
            xy, heading = tracks.pose_at(env.track, s, np.array([lateral_m]))
            env.physics.place(one, xy, heading)
            return env.step_command(held(env, 0, 0.4))

        for percent in (30, 60, 90):
            assert jump(percent, 0.0).status[0] == IN_PROGRESS
        before = env.progress.copy()
        assert before[0] > 85
        step = jump(20, 0.9)  # the inside of the oval, nearest to what comes after the start line
        assert step.status[0] == OFF_TRACK
        assert step.progress[0] == before[0]
        # Put back where it left the road, it has the rest of the lap still to drive.
        env.put_back(one)
        assert env.physics.forward_speed()[0] == 0.0
        step = env.step_command(pursuit(env, 0.5))
        assert step.status[0] == IN_PROGRESS and step.params[0]["all_wheels_on_track"] is True
        assert step.progress[0] == pytest.approx(before[0], abs=1.0)


def test_cars_that_end_begin_again() -> None:
    with closing(BatchEnv([OVAL], 2, seed=4, randomise=replace(nominal(), start_heading_deg=0.0))) as env:
        env.reset()
        positions = env.physics.position.copy()
        command = np.array([[0.0, 0.0], [0.0, 0.4]])
        for _ in range(15):
            step = env.step_command(command)
        assert step.status[0] == IMMOBILIZED and step.steps[0] == 15, "the step's figures are of the ended episode"
        assert env.steps[0] == 0 and env.progress[0] == 0.0 and env.status[0] == IN_PROGRESS
        assert env.episode[0] == 2 and env.physics.forward_speed()[0] == 0.0
        assert np.linalg.norm(env.physics.position[0] - positions[0]) > 0.2
        assert env.track.tolist()[0] == 1, "the other direction's turn"
        if step.status[1] == IN_PROGRESS:
            assert env.steps[1] == 15 and env.episode[1] == 1, "the neighbour drives on"
        after = env.step_command(command)
        assert after.steps[0] == 1 and abs(after.progress[0]) < 1.0 and after.status[0] == IN_PROGRESS


# --- delays -----------------------------------------------------------------------------------------------------------


def test_action_delay_shifts_the_response_by_whole_steps() -> None:
    speed, yaw = [], []
    for delay in (0, 1, 2):
        ranges = replace(PLAIN, action_delay_steps=(float(delay), float(delay)))
        with closing(BatchEnv([OVAL], 1, randomise=ranges, spec=LINE, draw=False)) as env:
            env.reset()
            rows = []
            for t in range(14):
                command = held(env, 20.0 if t < 6 else -20.0, 0.5)
                params = env.step_command(command).params[0]
                assert (params["steering_angle"], params["speed"]) == (command[0, 0], 0.5), "the command, not its echo"
                rows.append((env.physics.forward_speed()[0], env.physics.yaw_rate[0]))
            speed.append([row[0] for row in rows])
            yaw.append([row[1] for row in rows])
    for delay in (1, 2):
        assert speed[delay][delay:] == pytest.approx(speed[0][:-delay], abs=5e-3)
        assert yaw[delay][delay:] == pytest.approx(yaw[0][:-delay], abs=0.02)
        assert max(np.abs(speed[delay][:delay])) < 1e-3, "nothing happens before the command arrives"
    assert max(yaw[0]) > 0.5 and min(yaw[0]) < -0.3, "something to shift"


@pytest.mark.parametrize(
    ("rate_hz", "latency_s", "back"), [(10.0, 0.0, 0), (10.0, 0.1, 1), (10.0, 0.2, 2), (15.0, 0.2, 3)]
)
def test_the_picture_is_as_old_as_the_camera_says(rate_hz: float, latency_s: float, back: int) -> None:
    """A camera at the control rate: the picture is the one from the pose a whole number of steps ago."""
    car = CarSpec(camera=CameraSpec(frame_rate_hz=rate_hz, latency_s=latency_s))
    with closing(BatchEnv([OVAL], 1, car=car, randomise=PLAIN, spec=replace(LINE, control_hz=rate_hz))) as env:
        env.reset()
        poses = [pose_of(env)]
        for t in range(8):
            step = env.step_command(held(env, 12.0 if t % 3 else -12.0, 0.8))
            poses.append(pose_of(env))
            assert worst(step.frames, direct(env, poses[max(0, len(poses) - 1 - back)])) <= 1
            if t > 4:
                for other in {0, 1, 2, 3} - {back}:
                    assert worst(step.frames, direct(env, poses[-1 - other])) > 20


def test_a_free_running_camera_is_between_steps() -> None:
    """15 pictures a second that come after 20 ms, 10 steps a second: ages of 33, 67, 33, 67 ms ..."""
    with closing(BatchEnv([OVAL], 1, randomise=PLAIN, spec=LINE)) as env:
        env.reset()
        before = pose_of(env)
        for t in range(1, 9):
            step = env.step_command(held(env, 5.0, 0.8))
            now = pose_of(env)
            age = 1 / 30 if t % 2 else 1 / 15
            between = now + (before - now) * age / 0.1
            assert worst(step.frames, direct(env, between)) <= 2
            if t > 3:
                assert worst(step.frames, direct(env, now)) > 20
            before = now


def pose_of(env: BatchEnv) -> Floats:
    return np.concatenate([env.physics.position, env.physics.quaternion], axis=1)


def direct(env: BatchEnv, poses: Floats) -> NDArray[np.uint8]:
    """What the environment's camera draws from other poses."""
    assert env.camera is not None
    out = np.zeros((env.n, 120, 160), np.uint8)
    unit = poses[:, 3:] / np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    env.camera.render(np.concatenate([poses[:, :3], unit], axis=1), np.zeros(env.n, np.uint64), out)
    return out[..., None]


def worst(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# --- reward and its parameters ----------------------------------------------------------------------------------------


def test_rewards_are_called_with_the_parameters_of_the_step() -> None:
    mine = reward(
        "def reward_function(params):\n    return params['x'] + 1000.0 * params['steps'] + params['progress']\n"
    )
    spec = EnvSpec(max_steps=7)
    with closing(BatchEnv([OVAL, load_track("little_bean")], 8, reward=mine, spec=spec, seed=2)) as env:
        env.reset()
        for _ in range(9):
            track, actions = env.track.copy(), np.arange(8)
            step = env.step(actions)
            wanted = [p["x"] + 1000.0 * p["steps"] + p["progress"] for p in step.params]  # type: ignore[operator]
            assert step.reward.tolist() == wanted
            commands = env.action_space.decode(actions)
            for i, p in enumerate(step.params):
                assert tuple(p) == PARAM_KEYS
                assert p["steps"] == step.steps[i] and p["progress"] == step.progress[i]
                assert p["track_length"] == env.tracks[track[i]].length_m
                assert p["waypoints"] == env.tracks[track[i]].waypoints
                assert p["is_reversed"] is bool(track[i] >= 2)
                assert (p["steering_angle"], p["speed"]) == (float(commands[i, 0]), float(commands[i, 1]))
                assert p["sim_time"] == pytest.approx(0.1 * step.steps[i])


def test_parameters_are_where_the_front_of_the_car_is() -> None:
    with closing(BatchEnv([OVAL], 6, spec=EnvSpec(both_directions=True), seed=6, auto_reset=False, draw=False)) as env:
        env.reset()
        for _ in range(5):
            step = env.step_command(held(env, 10.0, 0.5))
        tracks, yaw = TrackSet(env.tracks), env.physics.heading()
        front = env.physics.position[:, :2] + 0.14 * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        at = tracks.project(env.track, front)
        for i, p in enumerate(step.params):
            assert (p["x"], p["y"]) == pytest.approx(tuple(front[i]))
            assert p["heading"] == pytest.approx(np.degrees(yaw[i]))
            assert p["distance_from_center"] == pytest.approx(abs(at.lateral_m[i]))
            assert p["projection_distance"] == pytest.approx(at.s_m[i])
            assert p["closest_waypoints"] == [at.prev_waypoint[i], at.next_waypoint[i]]
            assert p["is_left_of_center"] is bool(at.is_left_of_center[i])
        assert np.array_equal(env.reward_params(held(env, 10.0, 0.5))[3]["x"], step.params[3]["x"])


def test_a_reward_that_fails_says_where_and_the_environment_lives_on() -> None:
    mine = reward("def reward_function(params):\n    return 1.0 / (params['steps'] - 3)\n")
    with closing(BatchEnv([OVAL], 2, reward=mine, randomise=PLAIN, spec=LINE)) as env:
        env.reset()
        for _ in range(2):
            env.step(np.array([4, 5]))
        with pytest.raises(RewardError, match="ZeroDivisionError") as caught:
            env.step(np.array([4, 5]))
        assert caught.value.params is not None and caught.value.params["steps"] == 3
        assert tuple(caught.value.params) == PARAM_KEYS
        step = env.step(np.array([4, 5]))
        assert step.steps.tolist() == [4, 4] and step.reward.tolist() == [1.0, 1.0]
        assert np.array_equal(env.reset(seed=0), env.frames) and env.steps.tolist() == [0, 0]


# --- starts, looks, state ---------------------------------------------------------------------------------------------


def test_tracks_and_directions_are_driven_in_turn() -> None:
    tracks = [OVAL, load_track("little_bean")]
    with closing(BatchEnv(tracks, 3, draw=False, randomise=PLAIN, spec=EnvSpec(start="advance"))) as env:
        seen = []
        for _ in range(4):
            env.reset()
            seen.append(env.track.tolist())
        assert [sorted(car) for car in zip(*seen, strict=True)] == [[0, 1, 2, 3]] * 3
        assert env.episode.tolist() == [4, 4, 4]
    with closing(BatchEnv(tracks, 3, draw=False, spec=EnvSpec(both_directions=False))) as env:
        assert len(env.tracks) == 2


def test_start_modes_begin_where_they_say() -> None:
    wanted = {"start_line": [0.0, 0.0, 0.0], "advance": [0.0, 5.0, 10.0]}
    for start, shares in wanted.items():
        spec = EnvSpec(start=start, both_directions=False)
        with closing(BatchEnv([OVAL], 1, draw=False, randomise=PLAIN, spec=spec)) as env:
            found = []
            for _ in range(3):
                env.reset()
                found.append(100 * TrackSet([OVAL]).project([0], env.physics.position[:, :2]).s_m[0] / OVAL.length_m)
        assert np.array(found) % 99.999 == pytest.approx(np.array(shares), abs=0.3)


def bases(env: BatchEnv) -> Iterable[bytes]:
    assert env.camera is not None
    return (surface.base.tobytes() + surface.panorama.tobytes() for surface in env.camera.atlas.surfaces)


def test_held_out_looks_are_never_trained_on() -> None:
    ranges = replace(PLAIN, looks=4)
    with (
        closing(BatchEnv([OVAL], 8, randomise=ranges, spec=LINE)) as training,
        closing(BatchEnv([OVAL], 8, randomise=ranges, spec=replace(LINE, held_out=True))) as trial,
    ):
        assert len(set(bases(training)) | set(bases(trial))) == 8
        seen, held_out = training.reset().copy(), trial.reset().copy()
        assert len({frame.tobytes() for frame in seen}) > 1, "cars at one place see different looks"
        assert not {frame.tobytes() for frame in seen} & {frame.tobytes() for frame in held_out}


def test_randomised_light_and_mounting_show_in_the_picture() -> None:
    with closing(BatchEnv([OVAL], 1, randomise=PLAIN, spec=LINE)) as env:
        plain = env.reset().copy()
    for change in (
        {"camera_pitch_deg": (3.0, 3.0)}, {"fov_scale": (1.06, 1.06)}, {"gain": (0.7, 0.7)}, {"noise": (5.0, 5.0)},
        {"blur": (1.0, 1.0)}, {"vignette": (0.4, 0.4)}, {"camera_height_m": (0.01, 0.01)}, {"gamma": (1.3, 1.3)},
    ):  # fmt: skip
        with closing(BatchEnv([OVAL], 1, randomise=replace(PLAIN, **change), spec=LINE)) as env:
            difference = np.abs(env.reset().astype(int) - plain).mean()
        assert 0.3 < difference < 80, change


def test_driving_in_a_mirror_gives_the_mirrored_state() -> None:
    bean = load_track("little_bean")
    ranges = replace(PLAIN, action_delay_steps=(1.0, 1.0), steering_gain=(0.9, 0.9))
    states: list[Floats] = []
    commands: list[Floats] = []
    for track, sign in ((bean, 1.0), (bean.mirrored(), -1.0)):
        made = replace(ranges, steering_offset_deg=(3.0 * sign, 3.0 * sign))
        with closing(BatchEnv([track], 1, randomise=made, spec=LINE, draw=False, auto_reset=False)) as env:
            env.reset()
            rows = [env.state()[0]]
            for t in range(80):
                if sign > 0:  # round the first bend with a wobble; the mirrored car is told the mirrored commands
                    commands.append(pursuit(env, 0.8 if t % 2 else 0.6) + [[8.0 if t % 8 < 4 else -8.0, 0.0]])
                env.step_command(commands[t] * [sign, 1.0])
                rows.append(env.state()[0])
            states.append(np.array(rows))
            signs = env.MIRROR_STATE
    assert states[0].shape == (81, BatchEnv.STATE_SIZE) == (81, len(signs))
    assert states[1] * signs == pytest.approx(states[0], abs=5e-3)
    # Each column that changes sign was off zero, so a wrong sign would show.
    assert np.abs(states[0][:, signs < 0]).max(axis=0).min() > 0.05
    assert np.isfinite(states[0]).all() and np.abs(states[0]).max() < 6


# --- bad input, closing -----------------------------------------------------------------------------------------------


def test_bad_input_is_refused() -> None:
    with pytest.raises(SimError, match="no track"):
        BatchEnv([], 1)
    with pytest.raises(SimError, match="unknown start 'middle'"):
        BatchEnv([OVAL], 1, spec=EnvSpec(start="middle"), draw=False)
    with closing(BatchEnv([OVAL], 2, draw=False)) as env:
        env.reset()
        assert not env.continuous
        with pytest.raises(ActionSpaceError, match="10"):
            env.step(np.array([0, 10]))


def test_continuous_actions() -> None:
    space = ContinuousActionSpace(-30.0, 30.0, 0.4, 0.8)
    with closing(BatchEnv([OVAL], 2, action_space=space, draw=False, spec=EnvSpec(control_hz=15.0))) as env:
        env.reset()
        step = env.step(np.array([[-1.0, 1.0], [0.5, 0.0]]))
        assert env.continuous
        commands = np.array([(p["steering_angle"], p["speed"]) for p in step.params])
        assert commands == pytest.approx(np.array([[-30.0, 0.8], [15.0, 0.6]]))
        assert step.params[0]["sim_time"] == pytest.approx(1 / 15)
        with pytest.raises(ActionSpaceError, match="not finite"):
            env.step(np.array([[0.0, np.nan], [0.0, 0.0]]))


def test_closing_twice_is_closing_once() -> None:
    env = BatchEnv([OVAL], 4, threads=3, draw=False)
    env.reset()
    env.close()
    env.close()


def test_step_results_are_complete() -> None:
    names = {item.name for item in fields(Step)}
    with closing(BatchEnv([OVAL], 3)) as env:
        assert env.reset().shape == (3, 120, 160, 1) and env.frames.dtype == np.uint8
        step = env.step(np.array([0, 5, 9]))
    shapes = {name: np.shape(getattr(step, name)) for name in names - {"params", "columns"}}
    assert shapes.pop("frames") == (3, 120, 160, 1)
    assert shapes.pop("last_ids") == (0,) and shapes.pop("last_frames") == (0, 120, 160, 1)
    assert shapes.pop("last_state") == (0, BatchEnv.STATE_SIZE)
    assert set(shapes.values()) == {(3,)} and len(step.params) == 3
    assert {np.shape(column) for column in step.columns.values()} == {(3,)}
    assert step.columns["x"].tolist() == [params["x"] for params in step.params]
