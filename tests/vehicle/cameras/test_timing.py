"""Recorded pictures keep their pace; a device's stamps are used once they have shown what clock they are of."""

from __future__ import annotations

import time

import pytest

from vehicle.cameras.timing import DeviceClock, Pacer
from vehicle.errors import StaleFrame


def test_the_pace_is_kept_on_absolute_deadlines() -> None:
    pacer = Pacer(50.0)
    stamps_s = []
    for _ in range(11):
        stamps_s.append(pacer.wait(1.0))
        time.sleep(0.005)  # the work in between does not add up
    assert 0.195 <= stamps_s[-1] - stamps_s[0] < 0.26
    assert all(later > earlier for earlier, later in zip(stamps_s, stamps_s[1:], strict=False))


def test_what_is_not_due_in_time_is_stale_and_comes_later() -> None:
    pacer = Pacer(5.0)
    first_s = pacer.wait(0.0)
    begun_s = time.monotonic()
    with pytest.raises(StaleFrame):
        pacer.wait(0.05)
    assert 0.05 <= time.monotonic() - begun_s < 0.15
    assert pacer.wait(1.0) - first_s == pytest.approx(0.2, abs=0.05)


def test_after_a_pause_there_is_no_burst() -> None:
    pacer = Pacer(50.0)
    pacer.wait(1.0)
    time.sleep(0.2)
    again_s = pacer.wait(1.0)
    assert pacer.wait(1.0) - again_s > 0.015


def test_stamps_of_the_monotonic_clock_are_used_from_the_sixth_picture_on() -> None:
    clock = DeviceClock()
    arrivals_s = [100.0 + 0.05 * i for i in range(6)]
    used_s = [clock.stamp(arrival_s - 0.02, arrival_s) for arrival_s in arrivals_s]
    assert used_s[:4] == arrivals_s[:4]
    assert used_s[5] == pytest.approx(arrivals_s[5] - 0.02)
    assert clock.stamp(90.0, 101.0) == 90.0, "a picture that waited in the driver says that it is old"
    assert clock.stamp(102.0, 101.0) == 101.0
    assert clock.stamp(float("nan"), 101.0) == 101.0


@pytest.mark.parametrize("device_s", [0.0, 1.7e9, 99.0, float("nan"), float("inf")])
def test_stamps_of_another_clock_are_not(device_s: float) -> None:
    clock = DeviceClock()
    for i in range(8):
        assert clock.stamp(device_s + 0.05 * i, 100.0 + 0.05 * i) == 100.0 + 0.05 * i
    assert clock.trusted is False


def test_a_wrong_first_stamp_alone_does_not_matter() -> None:
    clock = DeviceClock()
    for i in range(5):
        clock.stamp(0.0 if i == 0 else 100.0 + i, 100.01 + i)
    assert clock.trusted is True
