"""Where the clock of a run's metrics jumps, and what its event log says of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, float]
LONG = 3.0  # an update that takes so many times the median is a gap ...
LONG_S = 2.0  # ... if it is longer than this


@dataclass(frozen=True)
class Incident:
    """Something in the event log that may slow updates down, from when to when (of training, in s)."""

    begin_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Gap:
    """No update for longer than usual; ``why`` is empty where nothing explains it."""

    begin_s: float
    end_s: float
    why: str


def incidents(rows: Sequence[Row], events: Sequence[dict[str, Any]], workers: int) -> list[Incident]:
    """What the event log says may have slowed updates down.

    A dead worker counts until an update has data of all ``workers`` again, a server until the update after its return.
    """

    def end_of(moment_s: float, is_over: Callable[[Row], bool]) -> float:
        return next((row["wall_s"] for row in rows if row["wall_s"] > moment_s and is_over(row)), math.inf)

    found = []
    for k, event in enumerate(events):
        at_s, text = event["wall_s"], event["text"]
        if event["event"] == "worker_died":
            found.append(Incident(at_s, end_of(at_s, lambda row: row.get("workers", 0) >= workers), text))
        elif event["event"] == "buffer" and "is away" in text:
            back = (e["wall_s"] for e in events[k + 1 :] if e["event"] == "buffer" and "is back" in e["text"])
            found.append(Incident(at_s, end_of(next(back, math.inf), lambda row: True), text))
    return found


def gaps(rows: Sequence[Row], found: Sequence[Incident], end_s: float, first_lap_s: float | None) -> list[Gap]:
    """Where the metrics' clock jumps, and what was the matter.

    Args:
        rows: of the metrics; found: of the event log; end_s: when training ended; first_lap_s: when there was a lap.
    """
    clock = [row["wall_s"] for row in rows]
    steps = [b - a for a, b in zip(clock, clock[1:], strict=False)]
    usual_s = max(LONG * median(steps), LONG_S) if steps else LONG_S
    result = []
    for k, (a, b) in enumerate(zip([0.0, *clock], [*clock, end_s], strict=True)):
        if b - a <= usual_s:
            continue
        near = rows[max(0, k - 1) : k + 1]  # of both sides
        reasons = [i.text for i in found if i.begin_s < b and i.end_s > a]
        if k == 0:
            reasons.append("the workers start")
        if any("eval_completion" in row for row in near):
            reasons.append("an evaluation, which is in the metrics")
        elif 0 < k < len(rows) and (first_lap_s is None or a < first_lap_s):
            reasons.append("a look for the first lap")
        result.append(Gap(a, b, "; ".join(reasons)))
    return result
