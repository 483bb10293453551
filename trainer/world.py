"""The world of a run, for whoever drives in it: the training itself, or a rollout worker with its share."""

from __future__ import annotations

from collections.abc import Sequence

from sim.batch_env import BatchEnv, EnvSpec
from sim.car_spec import CarSpec
from sim.reward import RewardFunction
from sim.track import Track
from trainer.config import RunConfig
from vehicle.action_space import ActionSpace


def make_env(
    config: RunConfig, tracks: Sequence[Track], space: ActionSpace, car: CarSpec, reward: RewardFunction,
    *, cars: int, seed: int, threads: int, draw: bool = True, stretch: tuple[float, float] = (0.0, 1.0),
    of: int | None = None,
) -> BatchEnv:  # fmt: skip
    """``cars`` cars as the configuration wants them.

    Args:
        stretch: part of the lap in which episodes begin, from and to as shares of it.
        of: how many tracks the whole run has, where these are a share of them.
    """
    return BatchEnv(
        tracks,
        cars,
        car=car,
        action_space=space,
        reward=reward,
        randomise=config.randomisation(of or len(tracks)),
        spec=EnvSpec(
            config.control_hz, config.max_steps, config.start, config.both_directions, race=config.race, stretch=stretch
        ),
        seed=seed,
        threads=threads,
        draw=draw,
    )
