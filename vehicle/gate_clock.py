"""The gate's beat: deadlines every 20 ms that do not drift, and the figures of how well they are kept. No I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

RING = 3000  # ticks: the last minute at 50 Hz
LATE_S = 0.005  # a tick that begins this long after its deadline is counted as late


def ranks(values: Iterable[float]) -> dict[str, float] | None:
    """``{"p50", "p99", "max"}``: each the value that occurred at that rank or the next above; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    shares = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    return {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in shares.items()}


def figures_ms(values_s: Iterable[float]) -> dict[str, float] | None:
    """`ranks` of seconds, in milliseconds."""
    found = ranks(values_s)
    return None if found is None else {name: round(1e3 * value, 3) for name, value in found.items()}


class TickClock:
    """When the next tick is due. Deadlines are begin + n * period whatever happens; those that were missed are skipped.

    Attributes:
        late: ticks that began more than 5 ms after their deadline.
        missed: deadlines that passed without a tick.
        intervals_s: between the last 3000 ticks.
    """

    def __init__(self, now_s: float, period_s: float = 0.02) -> None:
        self.deadline_s = now_s
        self.late = self.missed = 0
        self.intervals_s: deque[float] = deque(maxlen=RING)
        self._period_s = period_s
        self._last_s: float | None = None

    def begin(self, now_s: float) -> None:
        """A tick begins; the next deadline is the first one after now."""
        if self._last_s is not None:
            self.intervals_s.append(now_s - self._last_s)
        self._last_s = now_s
        behind_s = now_s - self.deadline_s
        if behind_s > LATE_S:
            self.late += 1
        skipped = max(0, math.floor(behind_s / self._period_s))
        self.missed += skipped
        self.deadline_s += (skipped + 1) * self._period_s

    def left_s(self, now_s: float) -> float:
        """How long until the next deadline; 0 where it has passed."""
        return max(0.0, self.deadline_s - now_s)
