"""The Gymnasium environment ``hotlap/TimeTrial-v0``: one car, one track, camera pictures in, steering and speed out.

Gymnasium from 1.0 on loads no plugins by itself. The id is there after ``import sim.gym_env``, or at once with the
module in front: ``gymnasium.make("sim.gym_env:hotlap/TimeTrial-v0")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from sim.batch_env import STATUS_NAMES, BatchEnv, EnvSpec
from sim.car_spec import CarSpec, load_car
from sim.errors import SimError
from sim.race import RaceSpec
from sim.reward import RewardFunction, load_reward
from sim.track import Track, load_track
from sim.world import PRESETS, Randomisation
from vehicle.action_space import (
    ActionSpace,
    ContinuousActionSpace,
    DiscreteActionSpace,
    default_action_space,
    load_action_space,
)
from vehicle.config import check
from vehicle.observation import SHAPE

ENV_ID = "hotlap/TimeTrial-v0"

Frame = NDArray[np.uint8]
Action: TypeAlias = Any  # an index, or (2,) in [-1, 1]: what gymnasium's two kinds of space sample


class TimeTrialEnv(gymnasium.Env[Frame, Action]):
    """One car that drives laps, seen through its camera.

    Observation: ``Box(0, 255, (120, 160, 1), uint8)``. Action: ``Discrete(A)``, or ``Box(-1, 1, (2,), float32)`` of
    steering (+ is left) and speed, scaled to the limits of a continuous action space. ``info`` holds ``params`` (the
    dictionary of 27 keys that the reward function was given), ``status`` (one of ``sim.batch_env.STATUS_NAMES``) and
    ``progress`` (percent of the lap).

    Args:
        track: name of a shipped track, path of a DeepRacer ``.npy`` file, or a Track.
        action_space: None for the guide's ten actions, the path of a ``model_metadata.json``, or an ActionSpace.
        continuous: where ``action_space`` is None: the rectangle around the ten actions instead of a list.
        reward: None for DeepRacer's centre line, the name of a shipped function, a path, or a RewardFunction.
        car: None for a DeepRacer, the path of a car's TOML, or a CarSpec.
        randomise: "none", "mild", "full", or a Randomisation.
        start: "anywhere", "start_line" or "advance".
        both_directions: drive the track the other way round in every second episode.
        control_hz: actions per second.
        max_steps: of an episode, then it is truncated; 0 is enough for the track at 0.25 m/s.
        race: "time_trial", "object_avoidance", "head_to_bot", or a RaceSpec for how many, where and how fast.
        look_seed: of the track's appearances, which are drawn once; all else depends on the seed of ``reset``.
        render_mode: None, or "rgb_array": the camera's picture as (120, 160, 3) uint8.

    Raises:
        TrackError, ActionSpaceError, RewardError, ConfigError, SimError: an argument that cannot be used.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        track: str | Path | Track = "first_oval",
        action_space: str | Path | ActionSpace | None = None,
        continuous: bool = False,
        reward: str | Path | RewardFunction | None = None,
        car: str | Path | CarSpec | None = None,
        randomise: str | Randomisation = "none",
        start: str = "anywhere",
        both_directions: bool = True,
        control_hz: float = 10.0,
        max_steps: int = 0,
        race: str | RaceSpec = "time_trial",
        look_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise SimError(f"unknown render_mode {render_mode!r}", next_step='use None or "rgb_array"')
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": control_hz}
        self.batch = BatchEnv(
            [track if isinstance(track, Track) else load_track(track)],
            1,
            car=car if isinstance(car, CarSpec) else load_car(car),
            action_space=_actions(action_space, continuous),
            reward=reward if isinstance(reward, RewardFunction) else load_reward(reward),
            randomise=_randomisation(randomise),
            spec=EnvSpec(
                control_hz=control_hz,
                max_steps=max_steps,
                start=start,
                both_directions=both_directions,
                race=_race(race),
            ),  # fmt: skip
            seed=look_seed,
            auto_reset=False,
        )
        self.observation_space = gymnasium.spaces.Box(0, 255, SHAPE, np.uint8)
        self.action_space = (
            gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
            if self.batch.continuous
            else gymnasium.spaces.Discrete(self.batch.action_space.size)
        )
        self._begun = self._over = self._closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin an episode; the same seed begins the same ones. Without a seed it is the next of the present stream.

        The very first stream, where no seed is given, is a random one: environments side by side shall differ.
        """
        super().reset(seed=seed)
        if seed is None and not self._begun:
            seed = int(self.np_random.integers(1 << 31))
        self.batch.reset(seed)
        self._begun, self._over = True, False
        params = self.batch.reward_params(np.zeros((1, 2)))[0]
        return self._frame(), self._info(params)

    def step(self, action: Action) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Drive for one control period.

        Raises:
            ResetNeeded: the episode is over or none has begun.
            ActionSpaceError: not an action of ``action_space``.
            RewardError: the reward function raised or returned something that is not a finite number.
        """
        if not self._begun or self._over:
            state = f"the episode ended: {self._status()}" if self._over else "no episode has begun"
            raise ResetNeeded(f"step() cannot drive on, {state}\n  next: call reset()")
        step = self.batch.step(np.asarray(action)[None])
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._over = terminated or truncated
        return self._frame(), float(step.reward[0]), terminated, truncated, self._info(step.params[0])

    def render(self) -> Frame | None:
        """With render_mode "rgb_array" the newest picture, (120, 160, 3) uint8, three equal channels; else None."""
        return None if self.render_mode is None else np.repeat(self.batch.frames[0], 3, axis=-1)

    def close(self) -> None:
        """Free what the simulator holds. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self.batch.close()

    def _frame(self) -> Frame:
        return np.array(self.batch.frames[0])  # a copy: the batch draws the next picture into the same place

    def _status(self) -> str:
        return STATUS_NAMES[int(self.batch.status[0])]

    def _info(self, params: Mapping[str, object]) -> dict[str, Any]:
        return {"params": dict(params), "status": self._status(), "progress": float(self.batch.progress[0])}


def _actions(chosen: str | Path | ActionSpace | None, continuous: bool) -> ActionSpace:
    if isinstance(chosen, (DiscreteActionSpace, ContinuousActionSpace)):
        return chosen
    if chosen is not None:
        return load_action_space(chosen)
    ten = default_action_space()
    if not continuous:
        return ten
    top_deg = ten.max_steering_deg
    return ContinuousActionSpace(-top_deg, top_deg, min(ten.speed_mps), ten.max_speed_mps)


def _randomisation(chosen: str | Randomisation) -> Randomisation:
    if isinstance(chosen, Randomisation):
        return chosen
    if chosen not in PRESETS:
        raise SimError(f"unknown randomise {chosen!r}", next_step=f"choose one of {', '.join(PRESETS)}")
    return PRESETS[chosen]()


def _race(chosen: str | RaceSpec) -> RaceSpec:
    race = RaceSpec(race=chosen) if isinstance(chosen, str) else chosen
    check(race, where="race")
    return race


def register_envs() -> None:
    """Make ``hotlap/TimeTrial-v0`` known to Gymnasium; a second call does nothing."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(id=ENV_ID, entry_point="sim.gym_env:TimeTrialEnv")


register_envs()
