"""The lap table: every trial's figures, and a summary that counts completed laps only."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console

from trainer.table import best_lap_s, lap_table, summary_line


@dataclass(frozen=True)
class Trial:
    completed: bool
    progress: float
    lap_time_s: float | None
    off_track: int = 0
    crashed: int = 0


TRIALS = [Trial(True, 100.0, 21.5), Trial(False, 61.7, 3.2, 2, 3), Trial(True, 100.0, 20.904, 1)]


def test_rows_hold_each_trials_figures() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(lap_table(TRIALS))
    rows = [line.split() for line in out.getvalue().splitlines() if line.split()[1:2] in (["yes"], ["no"])]
    assert rows == [
        ["1", "yes", "100.0", "21.50", "0", "0"],
        ["2", "no", "61.7", "-", "2", "3"],
        ["3", "yes", "100.0", "20.90", "1", "0"],
    ]
    assert summary_line(TRIALS) in out.getvalue()


def test_an_unfinished_trial_has_no_lap_time_whatever_its_clock_says() -> None:
    assert best_lap_s(TRIALS) == 20.904
    assert best_lap_s(TRIALS[1:2]) is None
    laps, accidents = "best lap 20.90 s, mean lap 21.20 s", "off track 3 times, crashed 3 times"
    assert summary_line(TRIALS) == f"2 of 3 completed (67 %), {laps}, {accidents}"
    assert summary_line(TRIALS[1:2]) == "0 of 1 completed (0 %), off track 2 times, crashed 3 times"
    assert summary_line([]) == "no trials"
