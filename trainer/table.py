"""The lap table that a time trial prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich import box
from rich.table import Table
from rich.text import Text


class TrialResult(Protocol):
    """What one time trial came to. ``progress`` in percent; ``off_track`` counts how often it left the road,
    ``crashed`` how often it ran into an object."""

    @property
    def completed(self) -> bool: ...
    @property
    def progress(self) -> float: ...
    @property
    def lap_time_s(self) -> float | None: ...
    @property
    def off_track(self) -> int: ...
    @property
    def crashed(self) -> int: ...


def lap_table(trials: Sequence[TrialResult], *, title: str = "Time trials") -> Table:
    """A rich table with a row for each trial, the best lap in bold green, and ``summary_line`` beneath."""
    best = best_lap_s(trials)
    summary = summary_line(trials)
    # As wide as its caption, which would otherwise be wrapped to the narrow columns.
    table = Table(title=title, caption=summary, caption_style="bold", min_width=len(summary), box=box.SIMPLE_HEAVY)
    table.add_column("trial", justify="right")
    table.add_column("completed", justify="center")
    table.add_column("progress %", justify="right")
    table.add_column("lap time s", justify="right")
    table.add_column("off track", justify="right")
    table.add_column("crashed", justify="right")
    for number, trial in enumerate(trials, start=1):
        lap = _lap_s(trial)
        table.add_row(
            str(number),
            Text("yes", style="green") if trial.completed else Text("no", style="red"),
            f"{trial.progress:.1f}",
            Text("-" if lap is None else f"{lap:.2f}", style="bold green" if lap is not None and lap == best else ""),
            Text(str(trial.off_track), style="yellow" if trial.off_track else ""),
            Text(str(trial.crashed), style="yellow" if trial.crashed else ""),
        )
    return table


def summary_line(trials: Sequence[TrialResult]) -> str:
    """For instance ``"4 of 5 completed (80 %), best lap 15.32 s, mean lap 15.80 s, off track 2 times"``."""
    if not trials:
        return "no trials"
    laps = [lap for trial in trials if (lap := _lap_s(trial)) is not None]
    done = sum(trial.completed for trial in trials)
    parts = [f"{done} of {len(trials)} completed ({100 * done / len(trials):.0f} %)"]
    if laps:
        parts += [f"best lap {min(laps):.2f} s", f"mean lap {sum(laps) / len(laps):.2f} s"]
    if times := sum(trial.off_track for trial in trials):
        parts.append(f"off track {times} time{'s' if times > 1 else ''}")
    if times := sum(trial.crashed for trial in trials):
        parts.append(f"crashed {times} time{'s' if times > 1 else ''}")
    return ", ".join(parts)


def best_lap_s(trials: Sequence[TrialResult]) -> float | None:
    """The shortest lap of the completed trials, seconds; None if no trial was completed."""
    return min((lap for trial in trials if (lap := _lap_s(trial)) is not None), default=None)


def _lap_s(trial: TrialResult) -> float | None:
    """A lap time counts only if the lap was completed, whatever the clock said when the trial ended."""
    return trial.lap_time_s if trial.completed else None
