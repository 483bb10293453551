"""Metrics of episodes as DeepRacer writes them, for training and for evaluation (spec `deepracer-training.md` §5)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from sim.batch_env import STATUS_NAMES

# Their words for how an episode ended, by our status.
LABELS = ("In progress", "Lap complete", "Off track", "Immobilized", "Reversed", "Time Up", "Crashed")
assert len(LABELS) == len(STATUS_NAMES)


def milliseconds(seconds: float) -> int:
    """Simulated time as they count it."""
    return round(1000.0 * seconds)


class TrainingMetrics:
    """``TrainingMetrics.json``: one entry for each episode of training, and for each trial of an evaluation between.

    Their reader takes the largest ``trial`` for the number of episodes in an iteration, so no trial goes beyond it.
    """

    def __init__(self, path: Path, episodes_per_iteration: int) -> None:
        self._path, self._per_iteration = path, episodes_per_iteration
        self._episodes = 0
        self._entries: list[str] = []

    @property
    def count(self) -> int:
        """Entries so far."""
        return len(self._entries)

    def training(self, reward: float, begun_s: float, ended_s: float, progress: float, status: int) -> None:
        """An episode of training is over."""
        trial = self._episodes % self._per_iteration + 1
        self._episodes += 1
        self._add("training", trial, reward, begun_s, ended_s, progress, status)

    def evaluation(
        self, trial: int, reward: float, ended_s: float, elapsed_s: float, progress: float, status: int
    ) -> None:
        """A trial (0, 1, ...) of an evaluation is over."""
        number = trial % self._per_iteration + 1
        self._add("evaluation", number, reward, ended_s - elapsed_s, ended_s, progress, status)

    def _add(
        self, phase: str, trial: int, reward: float, begun_s: float, ended_s: float, progress: float, status: int
    ) -> None:
        begun, ended = milliseconds(begun_s), milliseconds(ended_s)
        entry = {
            "reward_score": round(reward, 4),
            "metric_time": ended,
            "start_time": begun,
            "elapsed_time_in_milliseconds": ended - begun,
            "episode": max(1, self._episodes),
            "trial": trial,
            "phase": phase,
            "completion_percentage": max(0, int(progress)),
            "episode_status": LABELS[status],
        }
        self._entries.append(json.dumps(entry))

    def write(self) -> None:
        """Replace the file. Raises OSError."""
        text = '{"metrics": [\n' + ",\n".join(self._entries) + '\n], "version": 2.0, "best_model_metric": "progress"}\n'
        replace_text(self._path, text)

    def restore(self, count: int, episodes: int) -> None:
        """Read back the first ``count`` entries, with ``episodes`` of training among them."""
        self._episodes, self._entries = episodes, []
        if count and self._path.is_file():
            content = json.loads(self._path.read_text())
            self._entries = [json.dumps(entry) for entry in content["metrics"][:count]]


def write_evaluation(path: Path, entries: Sequence[dict[str, object]]) -> None:
    """Their metrics of an evaluation. Raises OSError."""
    replace_text(path, json.dumps({"metrics": list(entries)}, indent=1))


def replace_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path``, whole or not at all. Not synced: a log is not worth a pause of the training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
