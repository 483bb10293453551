"""The recorder: the pulse first, the record second, and no failure of the second reaches the first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from vehicle.actuators.base import Actuator
from vehicle.actuators.record import Recorder
from vehicle.errors import ActuatorError, ConfigError
from vehicle.trace import read_trace


class Wrapped:
    """Keeps what it was told; refuses while `broken`."""

    def __init__(self) -> None:
        self.pulses: list[tuple[float, float, str]] = []
        self.broken = False
        self.closed = 0

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        if self.broken:
            raise ActuatorError("device gone")
        self.pulses.append((steering_us, throttle_us, cause))

    def facts(self) -> dict[str, Any]:
        return {"name": "wrapped", "battery_fraction": 0.5}

    def close(self) -> None:
        self.closed += 1


def test_every_pulse_is_recorded_with_the_time_it_was_written(tmp_path: Path) -> None:
    wrapped, path = Wrapped(), tmp_path / "pulses.csv"
    recorder = Recorder(wrapped, path)
    assert isinstance(recorder, Actuator)
    before_s = time.monotonic()
    recorder.write(1450.0, 1446.0, "neutral:disarmed")
    recorder.write(1700.0, 1311.0, "drive")
    after_s = time.monotonic()
    rows = read_trace(path)
    assert [(row.channel, row.pulse_us, row.cause) for row in rows] == [
        ("steering", 1450.0, "neutral:disarmed"),
        ("throttle", 1446.0, "neutral:disarmed"),
        ("steering", 1700.0, "drive"),
        ("throttle", 1311.0, "drive"),
    ]
    assert all(before_s - 1e-6 <= row.t_s <= after_s + 1e-6 for row in rows)
    assert wrapped.pulses == [(1450.0, 1446.0, "neutral:disarmed"), (1700.0, 1311.0, "drive")]
    assert recorder.facts() == {
        "name": "wrapped", "battery_fraction": 0.5, "record": str(path), "record_error": None, "record_lost": 0,
    }  # fmt: skip
    recorder.close()
    recorder.close()
    assert wrapped.closed == 2


def test_a_pulse_that_was_refused_is_not_recorded(tmp_path: Path) -> None:
    wrapped = Wrapped()
    recorder = Recorder(wrapped, tmp_path / "pulses.csv")
    wrapped.broken = True
    with pytest.raises(ActuatorError, match="device gone"):
        recorder.write(1700.0, 1311.0, "drive")
    recorder.close()
    assert read_trace(tmp_path / "pulses.csv") == []


def test_a_full_disk_does_not_stop_the_pulses() -> None:
    wrapped = Wrapped()
    recorder = Recorder(wrapped, "/dev/full")
    for i in range(3):
        recorder.write(1450.0, 1446.0 + i, "neutral:stopped")
    assert [pulse[1] for pulse in wrapped.pulses] == [1446.0, 1447.0, 1448.0]
    assert "No space left" in recorder.facts()["record_error"]
    assert recorder.facts()["record_lost"] == 3
    recorder.close()


def test_a_record_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Recorder(Wrapped(), tmp_path / "missing" / "pulses.csv")
