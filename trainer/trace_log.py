"""Every step of a training as DeepRacer's simulator logs it: a CSV for each iteration, and metrics of each episode.

    RUN/training-simtrace/N-iteration.csv     its columns, in its order
    RUN/metrics/TrainingMetrics.json          see `trainer.metrics_log`

DeepRacer's tools take an iteration to be a fixed number of episodes, the same in each file, and number episodes
through; cars that drive at once finish theirs in some order, and that is the order of the numbers. Each episode begins
with a ``prepare`` row, whose step is 1. A log that cannot be written ends; the training goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.batch_env import CRASHED, IN_PROGRESS, STATUS_NAMES, Columns, Step
from sim.track import Track
from trainer.metrics_log import TrainingMetrics
from trainer.run_files import TRACES, iterations

HEADER = (
    "episode,steps,X,Y,yaw,steer,throttle,action,reward,done,all_wheels_on_track,progress,closest_waypoint,track_len,"
    "tstamp,episode_status,pause_duration,obstacle_crash_counter,wall_clock"
)
# All but the episode, which has its number only when it is over (spec `deepracer-training.md` §5).
_ROW = "%d,%.4f,%.4f,%.4f,%.2f,%.2f,%s,%.4f,%s,%s,%.4f,%d,%.2f,%.4f,%s,%.2f,%d,%.4f"
_PLACES = {name: place for place, name in enumerate(HEADER.split(",")[1:])}
FEW = 16  # with `traces = "few"`, one car in so many is logged


def place_of(column: str) -> int:
    """Where a column is in a line without its episode."""
    return _PLACES[column]


class Driven(Protocol):
    """What a log must know of an environment; a `BatchEnv`, or one that a worker had (`trainer.worker_logs`)."""

    n: int
    control_period_s: float
    tracks: tuple[Track, ...]
    track: NDArray[np.int64]

    @property
    def continuous(self) -> bool:
        """Whether actions are pairs."""

    def columns(self, command: NDArray[np.float64]) -> Columns:
        """How every car stands."""


class Waypoints:
    """Which waypoint is nearest, by its number in the track's file."""

    def __init__(self, env: Driven) -> None:
        lines = [np.array(track.waypoints) for track in env.tracks]
        self._s_m = np.full((len(lines), max(map(len, lines))), np.inf)
        for row, line in zip(self._s_m, lines, strict=True):
            row[: len(line)] = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))))

    def closest(self, track: NDArray[np.int64], columns: Columns) -> NDArray[np.int64]:
        """The nearer one of the two beside each car, (n,)."""
        before, after = columns["prev_waypoint"], columns["next_waypoint"]
        middle = 0.5 * (self._s_m[track, before] + self._s_m[track, after])
        return np.where(columns["projection_distance"] > middle, after, before)


def rows(
    columns: Columns,
    closest: NDArray[np.int64],
    actions: Iterable[object],
    reward: NDArray[np.float64],
    status: Iterable[int],
    done: NDArray[np.bool_],
    tstamp_s: Iterable[float],
    pause_s: Iterable[float],
    wall_s: float,
    prepare: bool = False,
    crashes: Sequence[int] | None = None,
) -> list[str]:
    """Lines of the log without their episode, one for each car; with ``prepare`` those before the first step.

    ``crashes`` are the crashes of each episode so far; None is those of this step, which end an episode of training.
    """
    status = list(status)
    if crashes is None:
        crashes = [0] * len(reward) if prepare else [int(k == CRASHED) for k in status]
    names = ["prepare"] * len(reward) if prepare else [STATUS_NAMES[k] for k in status]
    fields = zip(
        (columns["steps"] + 1).tolist(), columns["x"].tolist(), columns["y"].tolist(), columns["heading_deg"].tolist(),
        columns["steering_deg"].tolist(), columns["speed_mps"].tolist(), actions, reward.tolist(), done.tolist(),
        columns["all_wheels_on_track"].tolist(), columns["progress"].tolist(), closest.tolist(),
        columns["track_length"].tolist(), tstamp_s, names, pause_s, crashes,
        [wall_s] * len(reward), strict=True,
    )  # fmt: skip
    return [_ROW % each for each in fields]


def action_words(actions: NDArray[Any], command: Columns, continuous: bool) -> list[object]:
    """DeepRacer's column ``action``: the index, or ``[steering speed]`` of a continuous space."""
    if not continuous:
        return list(actions.tolist())
    pairs = zip(command["steering_deg"].tolist(), command["speed_mps"].tolist(), strict=True)
    return [f"[{steering:.4g} {speed:.4g}]" for steering, speed in pairs]


class TraceLog:
    """The log of a training.

    Args:
        folder: the run's.
        traces: "all", or "few" for one car in sixteen.
        episodes_per_iteration: of each file.
        worker: of several, whose traces go to RUN/worker/training-simtrace, as DeepRacer has them. Episodes whose
            beginning was not seen, because a worker's segment was lost, are left out.
    """

    def __init__(self, folder: Path, traces: str, episodes_per_iteration: int, worker: int | None = None) -> None:
        self._folder, self._every = folder, 1 if traces == "all" else FEW
        self._traces = (folder if worker is None else folder / str(worker)) / TRACES
        self._whole_only = worker is not None
        self._per_iteration = episodes_per_iteration
        name = f"TrainingMetrics_{worker}.json" if worker else "TrainingMetrics.json"
        self.metrics = TrainingMetrics(folder / "metrics" / name, episodes_per_iteration)
        self._env: Driven | None = None
        self._lines: list[list[str]] = []
        self.clock_s = 0.0  # simulated; all cars drive at once
        self.episodes = 0
        self._pending: dict[int, list[str]] = {}  # lines by iteration, not written yet
        self.failure = ""

    # -- what a training calls --------------------------------------------------------------------------------------

    def begin(self, env: Driven) -> None:
        """Take note of an environment whose episodes have just begun."""
        self._env, self._period_s = env, env.control_period_s
        self._cars = np.arange(0, env.n, self._every)
        self._waypoints = Waypoints(env)
        self._lines = [[] for _ in self._cars]
        self._reward = np.zeros(len(self._cars))
        self._begun_s = np.full(len(self._cars), self.clock_s)
        self._note_starts(env)

    def step(self, env: Driven, actions: NDArray[Any], step: Step) -> None:
        """Log a step that ``env`` has just done."""
        if env is not self._env:
            self.begin(env)
            return  # the state before it is gone
        wall_s, before_s = time.time(), self.clock_s
        self.clock_s += self._period_s
        cars = self._cars
        columns = _of(step.columns, cars)
        status = step.status[cars]
        done = status != IN_PROGRESS
        words = action_words(actions[cars], columns, env.continuous)
        fresh = np.flatnonzero(columns["steps"] == 1)
        if len(fresh):
            start = _of(self._starts, fresh) | {
                name: columns[name][fresh] for name in ("steering_deg", "speed_mps")
            }  # fmt: skip
            closest = self._waypoints.closest(self._track[fresh], start)
            zeros = np.zeros(len(fresh))
            words_of = [words[k] for k in fresh.tolist()]
            no = np.zeros(len(fresh), bool)
            lines = rows(
                start, closest, words_of, zeros, [], no, [before_s] * len(fresh), zeros.tolist(), wall_s, prepare=True
            )
            for k, line in zip(fresh.tolist(), lines, strict=True):
                self._lines[k] = [line]
                self._begun_s[k] = before_s
        reward = step.reward[cars]
        self._reward += reward
        lines = rows(
            columns, self._waypoints.closest(self._track, columns), words, reward, status.tolist(), done,
            [self.clock_s] * len(cars), [0.0] * len(cars), wall_s,
        )  # fmt: skip
        for kept, line in zip(self._lines, lines, strict=True):
            if kept or not self._whole_only:
                kept.append(line)
        ended = np.flatnonzero(done).tolist()
        for k in ended:
            self._end(k, float(columns["progress"][k]), int(status[k]))
        if ended:
            self._note_starts(env)

    def flush(self) -> None:
        """Put what has ended on disk."""
        for iteration, lines in sorted(self._pending.items()):
            if not self.failure:
                self._append(self._traces / f"{iteration}-iteration.csv", lines)
        self._pending.clear()

    def save(self) -> dict[str, Any]:
        """Flush, and give what a checkpoint needs to go on from here."""
        self.flush()
        if not self.failure:
            self._guard(self.metrics.write)
        return {"episodes": self.episodes, "clock_s": self.clock_s, "metrics": self.metrics.count}

    def close(self) -> None:
        """Log what was driven of the episodes that are not over, when a run ends. A resumed run drives them again."""
        for k, lines in enumerate(self._lines):
            if lines:
                progress = float(lines[-1].split(",")[place_of("progress")])
                self._end(k, progress, IN_PROGRESS)
        self.save()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint's state (None: from nothing): later rows belong to steps that are driven again."""
        state = state or {"episodes": 0, "clock_s": 0.0, "metrics": 0}
        self.episodes, self.clock_s = int(state["episodes"]), float(state["clock_s"])
        self.metrics.restore(int(state["metrics"]), self.episodes)
        last = self.episodes // self._per_iteration
        for number, path in iterations(self._traces):
            if number > last or self.episodes == 0:
                path.unlink()
            elif number == last:
                lines = path.read_text().splitlines()
                kept = [line for line in lines[1:] if int(line.partition(",")[0]) < self.episodes]
                path.write_text("\n".join([lines[0], *kept, ""]))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _note_starts(self, env: Driven) -> None:
        self._track = env.track[self._cars].copy()
        self._starts = _of(env.columns(np.zeros((env.n, 2))), self._cars)

    def _end(self, k: int, progress: float, status: int) -> None:
        if self._whole_only and not self._lines[k]:
            self._reward[k] = 0.0
            return
        number = self.episodes
        self.episodes += 1
        prefix = f"{number},"
        self._pending.setdefault(number // self._per_iteration, []).extend(prefix + line for line in self._lines[k])
        self._lines[k] = []
        self.metrics.training(float(self._reward[k]), self._begun_s[k], self.clock_s, progress, status)
        self._reward[k] = 0.0

    def _append(self, path: Path, lines: list[str]) -> None:
        def work() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = path.stat().st_size if path.exists() else 0
            try:
                with open(path, "a") as file:
                    file.write("\n".join(lines if size else [HEADER, *lines]) + "\n")
            except OSError:
                with open(path, "r+b") as half:  # no half row
                    half.truncate(size)
                raise

        self._guard(work)

    def _guard(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            self.failure = f"{error.strerror or error}"
            print(
                f"hotlap: the logs end here, the training goes on: {self._folder}: {self.failure}; "
                "next: make room, or train with --traces few",
                file=sys.stderr,
            )


def _of(columns: Columns, cars: NDArray[np.int64]) -> Columns:
    return {name: column[cars] for name, column in columns.items()}
