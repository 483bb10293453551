"""RUN/metrics.csv as the monitor reads it: a piece at a time, in bounded memory, and the plots made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.monitor.buckets import Buckets
from trainer.monitor.feed import FOLDER, ROWS
from trainer.monitor.tail import Tail

POINTS = 240  # of a plot: more than its width on a phone


@dataclass(frozen=True)
class Plot:
    """One plot of the page: (column, label) of each curve; ``scale`` is what the column is multiplied with."""

    key: str
    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]
    scale: float = 1.0
    says: str = ""


PLOTS = (
    Plot(
        "reward", "Reward per episode", "", (("reward", "mean"), ("reward_low", "lowest"), ("reward_high", "highest")),
        says="sum of an episode's rewards; mean, lowest and highest of the episodes that ended in an update",
    ),
    Plot(
        "completion", "Completion", "%",
        (("completion", "training"), ("eval_completion", "evaluation"), ("progress", "progress")), 100.0,
        says="laps completed of those begun, in training and in evaluations; how far episodes come on average",
    ),
    Plot(
        "loss", "Loss", "", (("loss", "total"), ("policy_loss", "policy"), ("value_loss", "value")),
        says="what an update minimises, and its parts",
    ),
    Plot("entropy", "Entropy", "nat", (("entropy", "policy"),), says="how undecided the policy is"),
    Plot(
        "laps", "Lap time", "s", (("lap_s", "training"), ("eval_lap_s", "evaluation")),
        says="mean time of the laps completed, simulated seconds",
    ),
    Plot("speed", "Steps per second", "1/s", (("steps_per_s", "steps"),), says="of all cars, learning included"),
    Plot("cpu", "Processor", "%", (("cpu_percent", "training"),), says="of the training's process; 100 is one core"),
    Plot("memory", "Memory", "MB", (("memory_mb", "training"),), says="of the training's process"),
)  # fmt: skip
PERCENT_ALREADY = ("progress",)


class Metrics:
    """The rows of a run's metrics, bucketed."""

    def __init__(self, run: Path) -> None:
        self._tail = Tail(run / FOLDER / ROWS, run / "metrics.csv")
        self._buckets: Buckets | None = None
        self.columns: list[str] = []
        self.newest: dict[str, float] = {}  # the last number of each column

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return self._buckets.rows if self._buckets is not None else 0

    @property
    def path(self) -> Path:
        """The file that they are in now."""
        return self._tail.path

    def read(self) -> bool:
        """Take in what is new, at most a piece; whether there was something."""
        data = self._tail.more()
        if data is None:
            self._buckets, self.columns, self.newest = None, [], {}
            return True
        if not data:
            return False
        if self._buckets is None:
            self.columns = self._tail.header
            self._buckets = Buckets(len(self.columns))
        rows = parse(data, len(self.columns))
        self._buckets.add(rows)
        for k, name in enumerate(self.columns):
            numbers = rows[~np.isnan(rows[:, k]), k]
            if len(numbers):
                self.newest[name] = float(numbers[-1])
        return True

    def plot(self, plot: Plot, x: str, points: int = POINTS) -> dict[str, object]:
        """What the page draws: x, and of each curve least, largest and mean in each bucket; null where unknown."""
        names = [name for name, _ in plot.curves if name in self.columns]
        if self._buckets is None or x not in self.columns or not names:
            return {"x": [], "curves": []}
        at = [self.columns.index(name) for name in (x, *names)]
        low, high, mean = self._buckets.reduced(at, points)
        curves = []
        for k, name in enumerate(names, start=1):
            scale = 1.0 if name in PERCENT_ALREADY else plot.scale
            label = dict(plot.curves)[name]
            sides = (numbers(side[:, k] * scale) for side in (low, high, mean))
            curves.append({"label": label, **dict(zip(("low", "high", "mean"), sides, strict=True))})
        return {"x": numbers(mean[:, 0]), "curves": curves}


def parse(data: bytes, width: int) -> NDArray[np.float64]:
    """Lines of numbers (n, width); an empty cell or one that is no number is NaN, a line that is too short ends so."""
    rows = np.full((data.count(b"\n"), width), np.nan)
    for row, line in zip(rows, data.splitlines(), strict=False):
        cells = line.split(b",")[:width]
        try:
            row[: len(cells)] = [float(cell) if cell else math.nan for cell in cells]
        except ValueError:
            row[: len(cells)] = [_number(cell) for cell in cells]
    return rows


def _number(cell: bytes) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """For JSON: five digits, None for what is not finite."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]
