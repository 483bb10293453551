"""``hotlap/TimeTrial-v0`` is what Gymnasium's users expect of an environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence

import sim.gym_env as gym_env
from sim.batch_env import STATUS_NAMES
from sim.errors import RewardError, SimError, TrackError
from sim.gym_env import ENV_ID, TimeTrialEnv, register_envs
from sim.reward_params import PARAM_KEYS
from sim.track import load_track
from sim.world import Randomisation, mild
from vehicle.action_space import ContinuousActionSpace, default_action_space, to_metadata
from vehicle.errors import ActionSpaceError, ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def env() -> Iterator[TimeTrialEnv]:
    with closing(TimeTrialEnv()) as made:
        yield made


# --- Gymnasium's own judgement ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"continuous": True}, {"randomise": "mild", "start": "start_line"}, {"render_mode": "rgb_array"}],
    ids=["default", "continuous", "mild", "rgb_array"],
)
def test_gymnasium_finds_nothing_wrong(options: dict[str, object]) -> None:
    """check_env warns of what it dislikes; a warning fails a test here."""
    with closing(gymnasium.make(ENV_ID, **options)) as made:
        check_env(made.unwrapped)


def test_the_checker_would_have_found_something() -> None:
    class Broken(TimeTrialEnv):
        def _frame(self) -> np.ndarray:
            return super()._frame().astype(np.float32)

    with closing(Broken()) as made, pytest.raises((AssertionError, UserWarning)):
        check_env(made, skip_render_check=True)


def test_spaces(env: TimeTrialEnv) -> None:
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (120, 160, 1), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(10)
    with closing(TimeTrialEnv(continuous=True, control_hz=15.0)) as other:
        assert other.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        assert other.metadata["render_fps"] == 15.0 and env.metadata["render_fps"] == 10.0


def test_the_module_in_front_of_the_id_is_enough() -> None:
    code = (
        "import gymnasium\n"
        "env = gymnasium.make('sim.gym_env:hotlap/TimeTrial-v0')\n"
        "print(env.reset(seed=1)[0].shape, env.spec.id)\n"
        "env.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(120, 160, 1) hotlap/TimeTrial-v0"


def test_registering_twice_is_registering_once() -> None:
    before = gymnasium.registry[ENV_ID]
    register_envs()
    assert gymnasium.registry[ENV_ID] is before
    assert gym_env.ENV_ID == "hotlap/TimeTrial-v0" == before.id


def test_vector_environments_differ_from_each_other() -> None:
    with closing(gymnasium.make_vec(ENV_ID, num_envs=3, vectorization_mode="sync")) as cars:
        frames, _ = cars.reset()
        assert frames.shape == (3, 120, 160, 1)
        assert len({frame.tobytes() for frame in frames}) == 3
        for _ in range(3):
            _, reward, terminated, truncated, info = cars.step(cars.action_space.sample())
        assert reward.shape == (3,) and not terminated.any() and not truncated.any()
        assert info["progress"].shape == (3,)


# --- episodes ---------------------------------------------------------------------------------------------------------


def episode(env: TimeTrialEnv, seed: int | None, steps: int = 12) -> list[object]:
    frame, info = env.reset(seed=seed)
    seen: list[object] = [frame, info]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        seen.append(env.step(rng.integers(10)))
    return seen


def test_a_seed_is_an_episode() -> None:
    with closing(TimeTrialEnv(randomise="mild")) as one, closing(TimeTrialEnv(randomise="mild")) as two:
        first, second = episode(one, 4), episode(one, None)
        assert data_equivalence(first, episode(two, 4), exact=True)
        assert data_equivalence(second, episode(two, None), exact=True), "the stream goes on the same way"
        assert not data_equivalence(first, second)
        assert data_equivalence(first, episode(one, 4), exact=True), "and begins again with its seed"


def test_without_any_seed_environments_differ() -> None:
    starts = []
    for _ in range(3):
        with closing(TimeTrialEnv()) as made:
            starts.append(made.reset()[1]["params"]["x"])
    assert len(set(starts)) == 3


def test_info_has_the_reward_parameters(env: TimeTrialEnv) -> None:
    _, info = env.reset(seed=2)
    params = info["params"]
    assert set(info) == {"params", "status", "progress"}
    assert tuple(params) == PARAM_KEYS
    assert (params["steps"], params["progress"], params["speed"], params["sim_time"]) == (0, 0.0, 0.0, 0.0)
    assert params["all_wheels_on_track"] is True and params["waypoints"]
    begin = params["x"], params["y"]
    _, _, _, _, info = env.step(5)
    after = info["params"]
    assert tuple(after) == PARAM_KEYS
    assert (after["steps"], after["steering_angle"]) == (1, 0.0) and after["speed"] == pytest.approx(0.8)
    assert info["progress"] == after["progress"] and info["status"] == "in_progress" == STATUS_NAMES[0]
    assert 0 < np.hypot(after["x"] - begin[0], after["y"] - begin[1]) < 0.1
    json.dumps(after)


def test_pictures_are_the_callers_own(env: TimeTrialEnv) -> None:
    frame, _ = env.reset(seed=1)
    kept = frame.copy()
    later, *_ = env.step(5)
    env.step(5)
    assert np.array_equal(frame, kept) and not np.array_equal(later, env.step(5)[0])


def test_the_end_is_shown_and_then_reset_is_needed() -> None:
    # A tight circle stays inside a wide road, so it begins near the border, looking out.
    ranges = Randomisation(looks=1, start_lateral=0.9, start_heading_deg=40.0)
    with closing(TimeTrialEnv(randomise=ranges, track="little_bean")) as env:
        with pytest.raises(ResetNeeded, match="no episode"):
            env.step(0)
        for seed in range(20):
            env.reset(seed=seed)
            for _ in range(40):
                frame, _, terminated, truncated, info = env.step(5)
                if terminated:
                    break
            if terminated:
                break
        assert terminated and not truncated and info["status"] == "off_track"
        assert info["params"]["is_offtrack"] is True and info["params"]["steps"] > 1
        assert np.array_equal(frame, env.batch.frames[0]), "the last picture, not one of a new episode"
        with pytest.raises(ResetNeeded, match="off_track"):
            env.step(5)
        env.reset()
        assert env.step(5)[4]["params"]["steps"] == 1


def test_the_step_limit_truncates() -> None:
    with closing(TimeTrialEnv(max_steps=4, start="start_line")) as env:
        env.reset(seed=0)
        ends = [env.step(4)[2:4] for _ in range(4)]
        assert ends == [(False, False)] * 3 + [(False, True)]
        assert env.unwrapped.batch.status[0] == STATUS_NAMES.index("time_up")
        with pytest.raises(ResetNeeded):
            env.step(4)


# --- options ----------------------------------------------------------------------------------------------------------


def test_rendering(env: TimeTrialEnv) -> None:
    env.reset(seed=0)
    assert env.render() is None
    with closing(TimeTrialEnv(render_mode="rgb_array")) as seen:
        frame, _ = seen.reset(seed=0)
        picture = seen.render()
        assert picture is not None and picture.shape == (120, 160, 3) and picture.dtype == np.uint8
        assert all(np.array_equal(picture[:, :, k], frame[:, :, 0]) for k in range(3))


def test_what_can_be_named_can_be_given(tmp_path: Path) -> None:
    metadata, car, reward = tmp_path / "model_metadata.json", tmp_path / "car.toml", tmp_path / "mine.py"
    metadata.write_text(json.dumps(to_metadata(ContinuousActionSpace(-20.0, 20.0, 0.5, 1.5))))
    car.write_text("[body]\nfront_point_m = 0.2\n[camera]\npitch_down_deg = 25.0\n")
    reward.write_text("def reward_function(params):\n    return 7.5\n")
    path = tmp_path / "copy.npy"
    path.write_bytes((ROOT / "sim" / "tracks" / "little_bean.npy").read_bytes())
    with closing(TimeTrialEnv(path, metadata, reward=reward, car=car, both_directions=False)) as env:
        env.reset(seed=0)
        _, reward_value, _, _, info = env.step(np.array([1.0, -1.0], np.float32))
        assert reward_value == 7.5
        assert (info["params"]["steering_angle"], info["params"]["speed"]) == (20.0, 0.5)
        assert info["params"]["track_length"] == pytest.approx(load_track("little_bean").length_m)
        assert env.batch.car.camera.pitch_down_deg == 25.0 and len(env.batch.tracks) == 1
    with closing(TimeTrialEnv(load_track("wide_bowl"), default_action_space(), randomise=mild())) as env:
        env.reset(seed=0)
        assert env.batch.randomise == mild()


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"track": "first_ovla"}, TrackError, "first_oval"),
        ({"randomise": "wild"}, SimError, "none, mild, full"),
        ({"start": "middle"}, SimError, "start_line"),
        ({"render_mode": "human"}, SimError, "rgb_array"),
        ({"reward": "centre_line"}, RewardError, "center_line"),
        ({"action_space": "nowhere.json"}, ActionSpaceError, "nowhere.json"),
        ({"car": "nowhere.toml"}, ConfigError, "nowhere.toml"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, object], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        TimeTrialEnv(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [10, -1, 1.5, np.array([0.1, 0.2])])
def test_actions_outside_of_the_space_are_refused(env: TimeTrialEnv, action: object) -> None:
    env.reset(seed=0)
    with pytest.raises(ActionSpaceError):
        env.step(action)
    assert env.step(3)[4]["params"]["steps"] == 1, "nothing has moved"


def test_closing_twice_is_closing_once() -> None:
    env = gymnasium.make(ENV_ID)
    env.reset(seed=0)
    env.close()
    env.close()
    env.unwrapped.close()


def test_a_race_puts_objects_on_the_road() -> None:
    env = TimeTrialEnv(race="object_avoidance")
    try:
        _, info = env.reset(seed=1)
        assert len(info["params"]["objects_location"]) == 4
    finally:
        env.close()
    with pytest.raises(ConfigError, match="race"):
        TimeTrialEnv(race="grand_prix")
