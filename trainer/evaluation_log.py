"""An evaluation as DeepRacer logs it.

    FOLDER/evaluation-YYYYMMDDHHMMSS/evaluation-simtrace/0-iteration.csv
    FOLDER/metrics/evaluation/evaluation-YYYYMMDDHHMMSS.json

Trials drive at once; the log has one after the other, as DeepRacer drives them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.batch_env import CRASHED, IMMOBILIZED, IN_PROGRESS, OFF_TRACK, REVERSED, BatchEnv, Columns, Step
from trainer.metrics_log import LABELS, milliseconds, replace_text, write_evaluation
from trainer.time_trials import PENALTIES_S
from trainer.trace_log import HEADER, Waypoints, action_words, place_of, rows
from vehicle.action_space import DiscreteActionSpace

_TSTAMP = place_of("tstamp")


@dataclass
class LoggedTrial:
    """One trial."""

    reward: float = 0.0
    elapsed_s: float = 0.0  # simulated, penalties included
    progress: float = 0.0
    status: int = IN_PROGRESS
    count: dict[int, int] = field(default_factory=dict)  # how often which status
    lines: list[str] = field(default_factory=list)  # rows without episode, in the trial's own time


class EvaluationLog:
    """Records trials; an observer of ``TimeTrials``."""

    def __init__(self) -> None:
        self.trials: list[LoggedTrial] = []

    def begin(self, env: BatchEnv) -> None:
        """A wave of trials begins."""
        self._waypoints = Waypoints(env)
        self._wave = [LoggedTrial() for _ in range(env.n)]
        self.trials += self._wave
        self._start: Columns | None = env.columns(np.zeros((env.n, 2)))
        self._over = np.zeros(env.n, dtype=bool)

    def step(self, env: BatchEnv, step: Step, command: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """A step was done; ``done`` (n,) is which trials are over with it or were before."""
        words = action_words(_indices(env, command), step.columns, env.continuous)
        wall_s, zeros = time.time(), [0.0] * env.n
        if self._start is not None:
            start = self._start | {name: step.columns[name] for name in ("steering_deg", "speed_mps")}
            closest = self._waypoints.closest(env.track, start)
            no = np.zeros(env.n, dtype=bool)
            lines = rows(start, closest, words, np.zeros(env.n), [], no, zeros, zeros, wall_s, prepare=True)
            for trial, line in zip(self._wave, lines, strict=True):
                trial.lines.append(line)
            self._start = None
        status = step.status.tolist()
        pause = [0.0 if over else PENALTIES_S.get(each, 0.0) for each, over in zip(status, done.tolist(), strict=True)]
        driving = np.flatnonzero(~self._over).tolist()
        for car in driving:
            self._wave[car].elapsed_s += env.control_period_s
        closest = self._waypoints.closest(env.track, step.columns)
        elapsed = [trial.elapsed_s for trial in self._wave]
        crashes = [
            trial.count.get(CRASHED, 0) + (each == CRASHED) for trial, each in zip(self._wave, status, strict=True)
        ]
        lines = rows(
            step.columns, closest, words, step.reward, status, done, elapsed, pause, wall_s, crashes=crashes
        )  # fmt: skip
        for car in driving:
            trial = self._wave[car]
            trial.lines.append(lines[car])
            trial.elapsed_s += pause[car]
            trial.reward += float(step.reward[car])
            trial.progress = max(trial.progress, float(step.progress[car]))
            trial.status = int(step.status[car])
            trial.count[trial.status] = trial.count.get(trial.status, 0) + 1
        self._over = done.copy()

    def write(self, folder: Path) -> str:
        """Put the evaluation into a run's folder (or any other).

        Returns:
            its name, ``evaluation-YYYYMMDDHHMMSS``. Raises OSError.
        """
        now = time.time()
        while (folder / (name := time.strftime("evaluation-%Y%m%d%H%M%S", time.localtime(now)))).exists():
            now += 1.0  # two within a second
        text, entries, clock_s = [HEADER], [], 0.0
        for number, trial in enumerate(self.trials):
            for line in trial.lines:
                cells = line.split(",")
                cells[_TSTAMP] = f"{float(cells[_TSTAMP]) + clock_s:.4f}"
                text.append(f"{number}," + ",".join(cells))
            entries.append(trial_metrics(number, trial, clock_s))
            clock_s += trial.elapsed_s
        replace_text(folder / name / "evaluation-simtrace" / "0-iteration.csv", "\n".join([*text, ""]))
        write_evaluation(folder / "metrics" / "evaluation" / f"{name}.json", entries)
        return name


def trial_metrics(number: int, trial: LoggedTrial, begun_s: float) -> dict[str, object]:
    """DeepRacer's entry for a trial that began at ``begun_s`` of the evaluation's clock."""
    off, still, back, crashed = (trial.count.get(k, 0) for k in (OFF_TRACK, IMMOBILIZED, REVERSED, CRASHED))
    begun, ended = milliseconds(begun_s), milliseconds(begun_s + trial.elapsed_s)
    return {
        "completion_percentage": max(0, int(trial.progress)), "metric_time": ended, "start_time": begun,
        "elapsed_time_in_milliseconds": ended - begun, "episode_status": LABELS[trial.status], "crash_count": crashed,
        "immobilized_count": still, "off_track_count": off, "reversed_count": back,
        "reset_count": off + still + back + crashed, "trial": number + 1,
    }  # fmt: skip


def _indices(env: BatchEnv, command: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which actions the commands (n, 2) are; nothing of use for a continuous space, whose words are the commands."""
    if not isinstance(env.action_space, DiscreteActionSpace):
        return np.zeros(env.n, dtype=np.int64)
    apart = np.abs(env.action_space.table()[None, :, :] - command[:, None, :]).sum(axis=2)
    return np.asarray(apart.argmin(axis=1))
