"""No back-end lets a pulse through that no servo takes, and none clamps one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.vehicle.actuators.fakes import FakeBus, FakeGpio, FakePca9685, FakePwmKernel
from vehicle.actuators.base import Actuator
from vehicle.actuators.none import NoActuator
from vehicle.actuators.pca9685 import Pca9685
from vehicle.actuators.pulses import check_pulses
from vehicle.actuators.record import Recorder
from vehicle.actuators.rpi_gpio import RpiGpio
from vehicle.actuators.sim import SimActuator
from vehicle.actuators.sysfs_pwm import SysfsPwm
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError
from vehicle.trace import read_trace

REFUSED = [math.nan, math.inf, -math.inf, 499.9, 2500.1, 0.0, -1500.0]


@pytest.mark.parametrize("pulse_us", [500.0, 1446.0, 2500.0])
def test_a_possible_pulse_passes(pulse_us: float) -> None:
    check_pulses(pulse_us, pulse_us)


@pytest.mark.parametrize("pulse_us", REFUSED)
@pytest.mark.parametrize("channel", ["steering", "throttle"])
def test_an_impossible_pulse_is_named(pulse_us: float, channel: str) -> None:
    pulses = {"steering_us": 1500.0, "throttle_us": 1500.0, f"{channel}_us": pulse_us}
    with pytest.raises(ActuatorError, match=f"a {channel} pulse of {pulse_us} us is refused"):
        check_pulses(**pulses)


@pytest.mark.parametrize("kind", ["none", "sim", "sysfs_pwm", "pca9685", "rpi_gpio", "recorded"])
def test_every_back_end_refuses_before_it_touches_its_device(
    kind: str, tmp_path: Path, short_runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ActuatorConfig(pwm_root=str(tmp_path / "class" / "pwm"))
    kernel = FakePwmKernel(tmp_path)
    kernel.add_chip("pwmchip0", "platform/pwm", 2)
    bus = FakeBus(FakePca9685(), tmp_path / "i2c")
    gpio = FakeGpio()
    monkeypatch.setattr("vehicle.actuators.rpi_gpio._PULSING", {})
    record = tmp_path / "pulses.csv"
    actuator: Actuator = {
        "none": NoActuator,
        "sim": lambda: SimActuator(short_runtime, "gate"),
        "sysfs_pwm": lambda: SysfsPwm(config, kernel.write),
        "pca9685": lambda: Pca9685(config, bus),
        "rpi_gpio": lambda: RpiGpio(config, gpio),
        "recorded": lambda: Recorder(NoActuator(), record),
    }[kind]()
    before = len(kernel.log), bus.chip.transactions, dict(gpio.claims)
    try:
        for pulse_us in REFUSED:
            for pulses in ((pulse_us, 1500.0), (1500.0, pulse_us)):
                with pytest.raises(ActuatorError, match="refused"):
                    actuator.write(*pulses, "drive")
        assert (len(kernel.log), bus.chip.transactions, dict(gpio.claims)) == before
        assert not record.exists() or read_trace(record) == []
        assert actuator.facts()["name"]
    finally:
        actuator.close()
        actuator.close()  # twice is allowed
        bus.close()
