from __future__ import annotations

import pytest

from vehicle.gate_clock import RING, TickClock, figures_ms


def test_figures_are_ranks() -> None:
    assert figures_ms(0.001 * n for n in range(1, 101)) == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    assert figures_ms([0.02]) == {"p50": 20.0, "p99": 20.0, "max": 20.0}
    assert figures_ms([]) is None


def test_deadlines_do_not_drift() -> None:
    clock = TickClock(100.0)
    for n in range(1000):
        clock.begin(clock.deadline_s + 0.004)  # each one 4 ms late
        assert clock.deadline_s == pytest.approx(100.0 + 0.02 * (n + 1))
    assert (clock.late, clock.missed) == (0, 0)


def test_a_late_tick_is_counted_and_the_next_deadline_stays_where_it_was() -> None:
    clock = TickClock(100.0)
    clock.begin(100.0)
    clock.begin(100.032)
    assert (clock.late, clock.missed) == (1, 0)
    assert clock.deadline_s == pytest.approx(100.04)


def test_missed_deadlines_are_skipped_not_made_up_for() -> None:
    clock = TickClock(100.0)
    clock.begin(100.0)
    clock.begin(101.01)
    assert (clock.late, clock.missed) == (1, 49)
    assert clock.deadline_s == pytest.approx(101.02)
    assert clock.left_s(101.01) == pytest.approx(0.01)
    assert clock.left_s(101.05) == 0.0


def test_intervals_of_the_last_minute() -> None:
    clock = TickClock(0.0)
    for n in range(RING + 10):
        clock.begin(0.02 * n if n < 5 else 0.02 * n + 1.0)
    assert len(clock.intervals_s) == RING
    assert max(clock.intervals_s) == pytest.approx(0.02)  # the gap has left the ring
