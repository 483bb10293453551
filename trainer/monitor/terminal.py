"""The page's figures in a terminal: ``hotlap monitor RUN --terminal``."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trainer.monitor.metrics import PLOTS
from trainer.monitor.run import Monitor

_EVERY_S = 1.0
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def show(run: Path) -> int:
    """A table that follows the run until it is over or Ctrl-C; once where stdout is no terminal."""
    watched, console = Monitor(run, read_traces=False), Console(highlight=False)
    watched.read_all()
    if not console.is_terminal or not watched.figures()["running"]:
        console.print(table(watched))
        return 0
    try:
        with Live(table(watched), console=console, auto_refresh=False) as live:
            while watched.figures()["running"]:
                watched.read_all()
                live.update(table(watched), refresh=True)
                time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        pass
    return 0


def table(watched: Monitor) -> Group:
    """The newest figures, and the course of each so far."""
    figures = watched.figures()
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "now", "lowest", "highest", "so far"):
        rows.add_column(name, justify="left" if name in ("", "so far") else "right")
    with watched.lock:
        for plot in PLOTS:
            curves = watched.metrics.plot(plot, "steps", _WIDTH)["curves"]
            assert isinstance(curves, list)
            for curve in curves:
                mean = [v for v in curve["mean"] if v is not None]
                if not mean:
                    continue
                unit = f" {plot.unit}" if plot.unit else ""
                name = plot.title if len(plot.curves) == 1 else f"{plot.title}: {curve['label']}"
                low = min(v for v in curve["low"] if v is not None)
                high = max(v for v in curve["high"] if v is not None)
                last = (f"{v:.4g}{unit}" for v in (mean[-1], low, high))
                rows.add_row(name, *last, _spark(curve["mean"]))
    state = "training" if figures["running"] else "the run is over"
    steps, wall_s = figures.get("steps"), figures.get("wall_s")
    reached = f"{steps:.0f} steps in {wall_s:.0f} s, " if isinstance(steps, float) and isinstance(wall_s, float) else ""
    return Group(Text(f"{watched.run}: {reached}{figures['updates']} updates, {state}", style="bold"), rows)


def _spark(values: list[float | None]) -> str:
    there = [v for v in values if v is not None]
    low, high = min(there), max(there)
    span = (high - low) or 1.0
    return "".join(" " if v is None else _BARS[round((v - low) / span * (len(_BARS) - 1))] for v in values)
