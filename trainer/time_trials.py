"""Time trials: drive laps from the start line with a policy and say how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.batch_env import CRASHED, LAP_COMPLETE, OFF_TRACK, TIME_UP, BatchEnv, EnvSpec, Step
from sim.car_spec import CarSpec
from sim.race import RaceSpec
from sim.reward import RewardFunction
from sim.track import Track
from sim.world import Randomisation, nominal
from vehicle.action_space import ActionSpace

Frames = NDArray[np.uint8]
Driver = Callable[[Frames], NDArray[np.float32]]  # (n, 120, 160, 1) pictures -> (n, 2) steering deg, speed m/s
OFF_TRACK_PENALTY_S = 2.0  # DeepRacer's console default (spec `deepracer-training.md` §3)
CRASH_PENALTY_S = 5.0
MAX_RESETS = 100  # DeepRacer for Cloud's default
_CARS = 32  # at once
PENALTIES_S = {OFF_TRACK: OFF_TRACK_PENALTY_S, CRASHED: CRASH_PENALTY_S}


@dataclass
class Trial:
    """One attempt at a lap."""

    track: str
    completed: bool = False
    progress: float = 0.0  # percent
    lap_time_s: float | None = None  # of a completed lap, penalties included
    off_track: int = 0  # how often all four wheels left the road
    crashed: int = 0  # how often it ran into an object
    path: list[tuple[float, float, float]] = field(default_factory=list)  # x m, y m, measured speed m/s at each step

    @property
    def xy(self) -> NDArray[np.float64]:
        """(T, 2) the driven line, metres."""
        return np.array([p[:2] for p in self.path], dtype=np.float64).reshape(-1, 2)

    @property
    def speed_mps(self) -> NDArray[np.float64]:
        """(T,) measured speed."""
        return np.array([p[2] for p in self.path], dtype=np.float64)

    def as_json(self) -> dict[str, object]:
        """The public figures."""
        return {
            "track": self.track, "completed": self.completed, "progress": round(self.progress, 2),
            "lap_time_s": None if self.lap_time_s is None else round(self.lap_time_s, 3), "off_track": self.off_track,
            "crashed": self.crashed,
        }  # fmt: skip


class Observer(Protocol):
    """Whoever watches trials being driven."""

    def begin(self, env: BatchEnv) -> None:
        """A wave of trials begins."""

    def step(self, env: BatchEnv, step: Step, command: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """A step with the commands (n, 2); ``done`` (n,) is which trials are over. Cars are not put back yet."""


@dataclass(frozen=True)
class Conditions:
    """What the trials are driven in.

    Args:
        look: "nominal" is the plain look of every track; "random" draws appearances, light and lens that are never
            trained on.
        world: "nominal" is the car as specified; "random" draws car, delays and camera mounting from the full
            randomisation.
        penalties: DeepRacer's rule: leaving the track costs two seconds, running into an object five, and the trial
            goes on from there; otherwise it ends the trial.
    """

    look: str = "nominal"
    world: str = "nominal"
    renderer: str = "fast"
    penalties: bool = False
    looks: int = 20

    def randomisation(self) -> Randomisation:
        """The ranges that these conditions stand for. Trials always differ a little in how they start."""
        plain, full = nominal(), Randomisation()
        look_fields = ("gain", "bias", "gamma", "blur", "vignette", "noise", "shadow_probability", "shadow")
        world_fields = (
            "friction_scale", "mass_scale", "steering_gain", "steering_offset_deg", "steering_lag_s", "motor_gain",
            "motor_lag_s", "action_delay_steps", "camera_latency_s", "camera_pitch_deg", "camera_roll_deg",
            "camera_yaw_deg", "camera_height_m", "fov_scale",
        )  # fmt: skip
        chosen = (look_fields if self.look == "random" else ()) + (world_fields if self.world == "random" else ())
        drawn = replace(plain, **{name: getattr(full, name) for name in chosen})
        return replace(
            drawn,
            looks=self.looks if self.look == "random" else 1,
            camera_phase=(0.0, 1.0),
            start_lateral=0.15,
            start_heading_deg=5.0,
        )


class TimeTrials:
    """A set of trials that can be driven again and again, each time the same.

    Args:
        tracks: each is driven ``trials`` times.
        seed: of starts, looks and worlds.
        reward: whose rewards observers see; None is DeepRacer's centre line.
        observers: who watches; they may be changed between runs.
        race: what is on the road.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        trials: int,
        *,
        action_space: ActionSpace,
        car: CarSpec | None = None,
        control_hz: float = 10.0,
        conditions: Conditions | None = None,
        seed: int = 0,
        threads: int = 1,
        reward: RewardFunction | None = None,
        observers: Sequence[Observer] = (),
        race: RaceSpec | None = None,
    ) -> None:
        self.tracks, self.trials, self.seed, self.observers = tuple(tracks), trials, seed, tuple(observers)
        self.conditions = conditions or Conditions()
        per_wave = max(1, _CARS // len(self.tracks))
        self._waves = [min(per_wave, trials - first) for first in range(0, trials, per_wave)]
        self._make: Callable[[int], BatchEnv] = lambda cars: BatchEnv(
            self.tracks,
            cars,
            car=car,
            action_space=action_space,
            reward=reward,
            randomise=self.conditions.randomisation(),
            spec=EnvSpec(
                control_hz=control_hz,
                start="start_line",
                both_directions=False,
                held_out=self.conditions.look == "random",
                renderer=self.conditions.renderer,
                race=race or RaceSpec(),
            ),
            seed=seed,
            threads=threads,
            auto_reset=False,
        )
        self._envs: dict[int, BatchEnv] = {}

    def run(self, drive: Driver) -> list[Trial]:
        """Drive all trials; the result is ordered by track, then trial."""
        results: list[Trial] = []
        for wave, count in enumerate(self._waves):
            cars = count * len(self.tracks)
            if cars not in self._envs:
                self._envs[cars] = self._make(cars)
            results += self._drive(self._envs[cars], drive, self.seed + 7919 * wave)
        order = {track.name: k for k, track in enumerate(self.tracks)}
        return sorted(results, key=lambda trial: order[trial.track])

    def _drive(self, env: BatchEnv, drive: Driver, seed: int) -> list[Trial]:
        frames = env.reset(seed)
        trials = [Trial(env.tracks[k].name) for k in env.track.tolist()]
        penalty = np.zeros(env.n)
        done = np.zeros(env.n, dtype=bool)
        for observer in self.observers:
            observer.begin(env)
        while not done.all():
            command = drive(frames)
            step = env.step_command(command.astype(np.float64))
            frames = step.frames
            position, speed = env.physics.position, env.physics.forward_speed()
            again = []
            for car in np.flatnonzero(~done).tolist():
                trial, status = trials[car], int(step.status[car])
                trial.path.append((float(position[car, 0]), float(position[car, 1]), float(speed[car])))
                trial.progress = max(trial.progress, float(step.progress[car]))
                if status == LAP_COMPLETE:
                    trial.completed, trial.progress = True, 100.0
                    trial.lap_time_s = float(step.steps[car]) * env.control_period_s + float(penalty[car])
                elif status not in (0, TIME_UP):
                    trial.off_track += status == OFF_TRACK
                    trial.crashed += status == CRASHED
                    if self.conditions.penalties and trial.off_track + trial.crashed <= MAX_RESETS:
                        penalty[car] += PENALTIES_S.get(status, 0.0)
                        again.append(car)
                        continue
                done[car] = status != 0
            for observer in self.observers:
                observer.step(env, step, command, done)
            if again:
                env.put_back(np.array(again))
                frames = env.frames
        return trials

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()


def summary(trials: Sequence[Trial]) -> dict[str, object]:
    """Completion rate, mean and best lap time, and the trials, as ``hotlap evaluate --json`` prints them."""
    laps = [t.lap_time_s for t in trials if t.lap_time_s is not None]
    return {
        "completion_rate": sum(t.completed for t in trials) / len(trials),
        "mean_lap_time_s": round(float(np.mean(laps)), 3) if laps else None,
        "best_lap_time_s": round(min(laps), 3) if laps else None,
        "trials": [t.as_json() for t in trials],
    }
