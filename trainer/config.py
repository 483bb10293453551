"""A run as a TOML file: what to train, for how long, with which hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.race import RaceSpec
from sim.starts import STARTS
from sim.world import PRESETS, Randomisation
from trainer.actor import PPOConfig
from trainer.networks import DEFAULT_NETWORK, NETWORKS
from vehicle.config import ranged

SPLITS, STALE = ("all", "tracks", "stretches"), ("drop", "weight")
TRACES = ("all", "few", "none")


@dataclass(frozen=True)
class DistillConfig:
    """Teacher on the simulator's state, then a student that learns from it by DAgger, then PPO on pixels.

    Source: Ross et al. 2011 (arXiv 1011.0686); shares of time from our own runs.
    """

    teacher_share: float = ranged(0.15, low=0.01, high=0.9, doc="of the run's time or steps")
    dagger_share: float = ranged(0.60, low=0.01, high=0.95, doc="of the run; the rest is the PPO fine-tune")
    buffer_frames: int = ranged(60_000, low=1_000, high=2_000_000, doc="that the student learns from")
    batch: int = ranged(256, low=8, high=65536)
    gradient_steps: int = ranged(8, low=1, high=1000, doc="for every 512 driven steps")
    learning_rate: float = ranged(1e-3, low=1e-8, high=1.0)
    final_learning_rate: float = ranged(0.05, low=0.0, high=1.0, doc="share left at the end of DAgger")
    teacher_drives: int = ranged(4, low=0, high=1000, doc="rounds until the student drives alone")
    fine_tune_rate: float = ranged(0.15, low=0.0, high=10.0, doc="of ppo.learning_rate")


@dataclass(frozen=True)
class RolloutConfig:
    """Rollout workers: driving in other processes, or on other machines, than learning."""

    workers: int = ranged(0, low=0, high=256, doc="processes on this machine; 0: the training drives itself")
    cars: int = ranged(0, low=0, high=4096, doc="of each worker; 0: its share of ppo.cars")
    segment_steps: int = ranged(0, low=0, high=4096, doc="of each car; 0: ppo.steps_per_update")
    worker_split: str = ranged(
        "all", choices=SPLITS, doc="what a worker drives: everything, its share of the tracks, its stretch of the lap"
    )
    max_age: int = ranged(4, low=0, high=10_000, doc="updates that the policy of a segment may be behind")
    stale: str = ranged("drop", choices=STALE, doc="older ones; weight: half as much for each update beyond")
    queue: int = ranged(0, low=0, high=100_000, doc="segments that may wait; 0: those of one update")
    prefill_steps: int = ranged(0, low=0, high=10**8, doc="with even actions before the first update")

    def cars_of(self, all_cars: int) -> int:
        """Of each worker, where a training without workers has ``all_cars``."""
        return self.cars or -(-all_cars // max(1, self.workers))

    def steps_of(self, steps_per_update: int) -> int:
        """Of each car in a segment."""
        return self.segment_steps or steps_per_update


@dataclass(frozen=True)
class RunConfig:
    """Everything that `--config FILE` may set. Options of the command line win over it."""

    method: str = ranged("auto", choices=("auto", "ppo", "distill"), doc="auto: ppo")
    randomise: str = ranged("auto", choices=("auto", *PRESETS), doc="auto: mild on one track, full on several")
    network: str = ranged(DEFAULT_NETWORK, choices=tuple(NETWORKS))
    seed: int = ranged(0, low=0, high=2**31 - 1)
    time_limit_s: float = ranged(300.0, low=0.1, high=1e7, doc="of training; what comes after takes some seconds more")
    steps: int = ranged(0, low=0, high=10**12, doc="0: no limit")
    control_hz: float = ranged(10.0, choices=(10.0, 15.0))
    start: str = ranged("anywhere", choices=STARTS)
    both_directions: bool = True
    max_steps: int = ranged(0, low=0, high=100_000, doc="of an episode; 0: enough for the longest track")
    threads: int = ranged(0, low=0, high=1024, doc="0: one for each core")
    checkpoint_every_s: float = ranged(15.0, low=0.0, high=1e6)
    evaluate_every_s: float = ranged(15.0, low=0.0, high=1e6)
    evaluate_trials: int = ranged(12, low=1, high=1000, doc="of every evaluation while training, over all tracks")
    traces: str = ranged("all", choices=TRACES, doc="steps that go into the logs; few: those of one car in sixteen")
    episodes_per_iteration: int = ranged(20, low=1, high=10_000, doc="of the logs [num_episodes_between_training]")
    tensorboard: bool = True
    ppo: PPOConfig = field(default_factory=PPOConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    race: RaceSpec = field(default_factory=RaceSpec)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)

    def randomisation(self, tracks: int) -> Randomisation:
        """The ranges that worlds are drawn from."""
        return PRESETS[self.preset(tracks)]()

    def preset(self, tracks: int) -> str:
        """The name of the randomisation. One track means "drive here", several mean "drive anywhere"."""
        if self.randomise != "auto":
            return self.randomise
        return "mild" if tracks == 1 else "full"

    def chosen_method(self) -> str:
        """The method that "auto" stands for."""
        return "ppo" if self.method == "auto" else self.method
