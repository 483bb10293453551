"""The gate's hand on an actuator that must know the calibration itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.mapping import Calibration, Throttle
from vehicle.actuators.none import NoActuator
from vehicle.actuators.record import Recorder
from vehicle.errors import ActuatorError
from vehicle.gate_pulses import Pulses


class Configurable(NoActuator):
    """Keeps the calibrations and pulses that it got, in order; refuses calibrations while `refusing`."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.refusing = False

    def configure(self, calibration: Calibration) -> None:
        if self.refusing:
            raise ActuatorError("no such limits")
        self.got.append(calibration)

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        self.got.append((steering_us, throttle_us))


def test_it_gets_the_calibration_before_the_first_pulse_and_again_for_another() -> None:
    actuator = Configurable()
    pulses = Pulses(actuator, Calibration())
    pulses.neutral("neutral:start")
    other = Calibration(throttle=Throttle(neutral_us=1450.0))
    pulses.calibrate(other)
    pulses.neutral("neutral:disarmed")
    assert actuator.got == [Calibration(), (1450.0, 1446.0), other, (1450.0, 1450.0)]


def test_without_a_calibration_it_gets_none() -> None:
    actuator = Configurable()
    Pulses(actuator, None).neutral("neutral:start")
    assert actuator.got == []


def test_a_refused_calibration_is_kept_as_an_error_and_nothing_is_raised() -> None:
    actuator = Configurable()
    actuator.refusing = True
    pulses = Pulses(actuator, Calibration())
    assert pulses.error == "no such limits" and pulses.failing_s(1e9) > 0.0
    assert pulses.neutral("neutral:start") and pulses.error is None


def test_a_recorder_passes_it_on_to_those_that_want_it(tmp_path: Path) -> None:
    for actuator in (Configurable(), NoActuator()):
        recorder = Recorder(actuator, tmp_path / "pulses.csv")
        pulses = Pulses(recorder, Calibration())
        assert pulses.error is None
        recorder.close()
        assert getattr(actuator, "got", [Calibration()]) == [Calibration()]
