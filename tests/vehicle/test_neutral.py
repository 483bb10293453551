"""Neutral once more, after the gate: what is written, how long it is tried, and what the exit status says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import save_calibration
from vehicle import neutral
from vehicle.actuators.base import PERIOD_S
from vehicle.car_config import ActuatorConfig, CarConfig
from vehicle.errors import ActuatorError
from vehicle.neutral import CAUSE, FRAMES, main, write_neutral
from vehicle.trace import read_trace


def a_car(folder: Path, calibration: Calibration | None, kind: str = "none") -> Path:
    """The car.toml of a car whose pulses are recorded to pulses.csv."""
    if calibration is not None:
        save_calibration(folder / "calibration.json", calibration)
    car_toml = folder / "car.toml"
    car_toml.write_text(f'state_dir = "{folder}"\n[actuator]\nkind = "{kind}"\nrecord = "{folder}/pulses.csv"\n')
    return car_toml


class Flaky:
    """An actuator that refuses the first writes, as a pin does that a dying guard still holds."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.written, self.closed = refusals, [], 0  # type: ignore[var-annotated]

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise ActuatorError("the pin is busy")
        self.written.append((steering_us, throttle_us, cause))

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed += 1


def test_ten_frames_of_calibrated_neutral_a_servo_frame_apart(tmp_path: Path) -> None:
    calibration = default_sim_calibration()
    car_toml = a_car(tmp_path, calibration)
    assert main(["--config", str(car_toml), "--runtime", str(tmp_path)]) == 0
    rows = read_trace(tmp_path / "pulses.csv")
    assert {(row.channel, row.pulse_us, row.cause) for row in rows} == {
        ("steering", calibration.steering.center_us, CAUSE), ("throttle", calibration.throttle.neutral_us, CAUSE)
    }  # fmt: skip
    times_s = [row.t_s for row in rows if row.channel == "throttle"]
    assert len(times_s) == FRAMES
    assert min(later - earlier for earlier, later in zip(times_s, times_s[1:], strict=False)) >= 0.9 * PERIOD_S


def test_without_a_calibration_nothing_is_written_and_that_is_no_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(a_car(tmp_path, None)), "--runtime", str(tmp_path)]) == 0
    assert "not calibrated" in capfd.readouterr().err
    assert not (tmp_path / "pulses.csv").exists()


def test_a_damaged_calibration_is_a_failure_since_nobody_knows_where_neutral_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    car_toml = a_car(tmp_path, Calibration())
    (tmp_path / "calibration.json").write_text("{")
    assert main(["--config", str(car_toml), "--runtime", str(tmp_path)]) == 1
    assert "hotlap neutral" in capfd.readouterr().err


def test_a_bad_configuration_has_a_status_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "car.toml").write_text("nonsense = 1\n")
    assert main(["--config", str(tmp_path / "car.toml"), "--runtime", str(tmp_path)]) == 2
    assert "nonsense" in capfd.readouterr().err


def test_an_actuator_that_is_not_there_is_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(a_car(tmp_path, Calibration(), "pca9685")), "--runtime", str(tmp_path)]) == 1
    assert "hotlap neutral" in capfd.readouterr().err


def test_a_bridge_is_neutral_by_itself_and_its_port_is_left_alone(tmp_path: Path) -> None:
    assert main(["--config", str(a_car(tmp_path, Calibration(), "bridge")), "--runtime", str(tmp_path)]) == 0


@pytest.mark.parametrize("refusals", (0, 7))
def test_refusals_are_tried_again_and_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    actuator = Flaky(refusals)
    monkeypatch.setattr(neutral, "open_actuator", lambda config, runtime, role: actuator)
    a_car(tmp_path, Calibration())
    assert write_neutral(CarConfig(state_dir=str(tmp_path), actuator=ActuatorConfig(kind="none")), tmp_path)
    assert len(actuator.written) == FRAMES
    assert actuator.closed == 1


def test_it_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actuator = Flaky(10_000)
    monkeypatch.setattr(neutral, "open_actuator", lambda config, runtime, role: actuator)
    a_car(tmp_path, Calibration())
    with pytest.raises(ActuatorError, match="busy"):
        write_neutral(CarConfig(state_dir=str(tmp_path)), tmp_path, give_up_s=0.1)
    assert actuator.closed == 1
    assert actuator.refusals < 10_000 - 2
