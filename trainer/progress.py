"""What a person sees while training: one line that says how it goes."""

from __future__ import annotations

import math
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressLine:
    """A rich progress bar on stderr: reward, completion, steps/s, loss, entropy, CPU and memory.

    Where stderr is not a terminal, a plain line now and then instead, so that a log stays readable.
    """

    def __init__(self, total: float = 1.0) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]training"), BarColumn(24), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"), console=self._console, transient=False,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=total, facts="")
        self._updates = 0
        self._completion = math.nan

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, row: dict[str, float], share: float, first_lap_s: float | None) -> None:
        """Show a row of metrics; ``share`` of the run is over."""
        self._updates += 1
        if not math.isnan(row.get("eval_completion", math.nan)):
            self._completion = row["eval_completion"]
        facts = [
            f"{row['steps'] / 1000:.1f}k steps",
            f"{row.get('steps_per_s', math.nan):.0f}/s",
            f"reward {_figure(row.get('reward', math.nan), 1)}",
            f"progress {_figure(row.get('progress', math.nan), 0)} %",
            f"laps {_figure(100 * self._completion, 0)} %",
            f"loss {_figure(row.get('loss', math.nan), 2)}",
            f"entropy {_figure(row.get('entropy', math.nan), 2)}",
            f"cpu {_figure(row.get('cpu_percent', math.nan), 0)} %",
            f"mem {_figure(row.get('memory_mb', math.nan), 0)} MB",
        ]
        if first_lap_s is not None:
            facts.append(f"first lap at {first_lap_s:.0f} s")
        text = ", ".join(facts)
        self._bar.update(self._task, completed=share, facts=text)
        if not self._console.is_terminal and self._updates % 10 == 1:
            print(f"{100 * share:3.0f} % {text}", file=sys.stderr, flush=True)


def _figure(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
