"""DeepRacer's logs of a run whose steps were driven by workers, written by the learner from their segments.

One worker's log is that of a run without workers. Of several, each has RUN/N/training-simtrace and
RUN/metrics/TrainingMetrics_N.json, in DeepRacer's multi-worker layout. Their reader takes one digit for N, so the first
ten workers that hand over a segment are logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sim.batch_env import IN_PROGRESS, Columns, Step
from sim.track import Track
from trainer.config import RunConfig
from trainer.metrics_log import TrainingMetrics
from trainer.segment import Segment, name_columns
from trainer.trace_log import TraceLog
from vehicle.action_space import ActionSpace, ContinuousActionSpace

MOST = 10


class WorkersEnv:
    """The environment that a worker drove in, as far as a log must know it (`trainer.trace_log.Driven`)."""

    def __init__(self, tracks: tuple[Track, ...], segment: Segment, period_s: float, continuous: bool) -> None:
        self.n, self.control_period_s, self.tracks = segment.reward.shape[1], period_s, tracks
        self.continuous = continuous  # whether actions are pairs
        self.track: NDArray[np.int64] = segment.begin_track.astype(np.int64)
        self.now = segment.begin_columns.copy()

    def columns(self, command: NDArray[np.float64]) -> Columns:
        """How cars stood when their episodes began; of the others, what was known last."""
        return name_columns(self.now)


class WorkerLogs:
    """The logs of all workers; stands where a training has its `TraceLog`."""

    def __init__(self, folder: Path, config: RunConfig, tracks: Sequence[Track], space: ActionSpace) -> None:
        self._period_s = 1.0 / config.control_hz
        self._tracks = tuple(tracks) + (tuple(t.reversed() for t in tracks) if config.both_directions else ())
        self._continuous = isinstance(space, ContinuousActionSpace)
        several = config.rollout.workers != 1
        each = max(1, config.episodes_per_iteration // max(1, config.rollout.workers))
        self._new = (folder, config.traces, each)
        self._several = several
        self._most = MOST if several else 1
        self._logs: list[TraceLog] = [self._make(0)]  # the first one has the evaluations too
        self._slots: dict[int, int] = {}  # of workers, in order of their first segments
        self._envs: dict[int, WorkersEnv] = {}

    def _make(self, slot: int) -> TraceLog:
        return TraceLog(*self._new, slot if self._several else None)

    @property
    def metrics(self) -> TrainingMetrics:
        """Of the first worker."""
        return self._logs[0].metrics

    @property
    def clock_s(self) -> float:
        """Of the first worker, simulated."""
        return self._logs[0].clock_s

    def add(self, segment: Segment, follows: bool) -> None:
        """Log a segment; ``follows`` says that it is the next one of its worker's, without a gap."""
        slot = self._slots.setdefault(segment.worker, len(self._slots))
        if slot >= self._most:
            return
        while len(self._logs) <= slot:
            log = self._make(len(self._logs))
            log.restore(None)
            self._logs.append(log)
        log = self._logs[slot]
        if not follows or slot not in self._envs:
            self._envs[slot] = WorkersEnv(self._tracks, segment, self._period_s, self._continuous)
            log.begin(self._envs[slot])
        env, begun = self._envs[slot], 0
        for t in range(len(segment.reward)):
            ended = segment.status[t] != IN_PROGRESS
            count = int(ended.sum())
            env.track = segment.track[t].astype(np.int64)
            env.now[:, ended] = segment.starts[:, begun : begun + count]
            begun += count
            step = SimpleNamespace(
                columns=name_columns(segment.columns[:, t]), reward=segment.reward[t],
                status=segment.status[t].astype(np.int64),
            )  # fmt: skip
            log.step(env, segment.action[t], cast(Step, step))

    def flush(self) -> None:
        """As `TraceLog.flush`, of all."""
        for log in self._logs:
            log.flush()

    def save(self) -> dict[str, Any]:
        """As `TraceLog.save`, of all."""
        return {"logs": [log.save() for log in self._logs], "slots": dict(self._slots)}

    def close(self) -> None:
        """As `TraceLog.close`, of all."""
        for log in self._logs:
            log.close()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """As `TraceLog.restore`, of all."""
        saved = (state or {}).get("logs", [])
        self._slots = dict((state or {}).get("slots", {}))
        self._logs = [self._make(k) for k in range(max(1, len(saved)))]
        for log, each in zip(self._logs, saved or [None], strict=True):
            log.restore(each)
