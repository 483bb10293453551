"""Software PWM: widths, claims between two processes, and what is said where the library does not work."""

from __future__ import annotations

import gc
import sys
import types
from pathlib import Path

import pytest

from tests.vehicle.actuators.fakes import FakeGpio, LgpioError
from vehicle.actuators import rpi_gpio
from vehicle.actuators.rpi_gpio import RpiGpio, open_rpi_gpio
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

CONFIG = ActuatorConfig(kind="rpi_gpio")  # throttle on 19, steering on 18


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """lgpio is imported, with an error class of its own; no pin pulses yet."""
    lgpio = types.ModuleType("lgpio")
    lgpio.error = LgpioError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lgpio", lgpio)
    monkeypatch.setattr(rpi_gpio, "_PULSING", {})


def other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows happens in a process of its own: no PWM objects are known there."""
    monkeypatch.setattr(rpi_gpio, "_PULSING", {})


def test_pulses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpio = FakeGpio()
    monkeypatch.setitem(sys.modules, "RPi.GPIO", gpio)  # type: ignore[arg-type]
    actuator = open_rpi_gpio(CONFIG, tmp_path, "gate")
    assert gpio.claims == {} and gpio.pulses == {}
    for steering_us, throttle_us in ((1450.0, 1446.0), (1700.0, 1311.0), (500.0, 2500.0)):
        actuator.write(steering_us, throttle_us, "drive")
        assert gpio.pulses == {18: pytest.approx(steering_us), 19: pytest.approx(throttle_us)}
    assert actuator.facts()["fails_safe"] is False and actuator.facts()["shared"] is False


def test_closing_leaves_the_output_and_opening_again_takes_it_up() -> None:
    gpio = FakeGpio()
    actuator = RpiGpio(CONFIG, gpio)
    actuator.write(1450.0, 1446.0, "neutral:stopping")
    actuator.close()
    actuator.close()
    del actuator
    gc.collect()
    assert gpio.pulses == {18: pytest.approx(1450), 19: pytest.approx(1446)}
    RpiGpio(CONFIG, gpio).write(1500.0, 1500.0, "drive")
    assert gpio.pulses == {18: pytest.approx(1500), 19: pytest.approx(1500)}


def test_the_guard_gets_the_pins_once_the_gate_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    claims: dict[int, FakeGpio] = {}
    gate = RpiGpio(CONFIG, FakeGpio(claims))
    guard_gpio = FakeGpio(claims)
    guard = RpiGpio(CONFIG, guard_gpio)
    gate.write(1700.0, 1311.0, "drive")
    other_process(monkeypatch)
    with pytest.raises(ActuatorError, match="GPIO 19: 'GPIO busy'") as caught:
        guard.write(1450.0, 1446.0, "neutral:gate_silent")
    assert "another process has the pin" in caught.value.cause
    claims.clear()  # the kernel does this when a process ends
    guard.write(1450.0, 1446.0, "neutral:gate_silent")
    assert guard_gpio.pulses == {18: pytest.approx(1450), 19: pytest.approx(1446)}


def test_a_pin_that_is_taken_away_is_an_error() -> None:
    gpio = FakeGpio()
    actuator = RpiGpio(CONFIG, gpio)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    gpio.claims.clear()
    with pytest.raises(ActuatorError, match="GPIO not allocated"):
        actuator.write(1450.0, 1446.0, "neutral:disarmed")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("Cannot determine SOC peripheral base address"), "Pi 5"),
        (LgpioError("'can not open gpiochip'"), "group gpio"),
        (RuntimeError("No access to /dev/mem.  Try running as root!"), "group gpio"),
        (ValueError("something else"), "refused"),
    ],
)
def test_refusals_of_the_libraries(error: Exception, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpio = FakeGpio()

    def refuse(pin: int, direction: int, initial: int) -> None:
        raise error

    monkeypatch.setattr(gpio, "setup", refuse)
    with pytest.raises(ActuatorError, match="GPIO 19") as caught:
        RpiGpio(CONFIG, gpio).write(1450.0, 1446.0, "neutral:disarmed")
    assert cause in caught.value.cause and caught.value.next_step


def test_one_pin_for_both_is_refused() -> None:
    with pytest.raises(ActuatorError, match="both on GPIO 18"):
        RpiGpio(ActuatorConfig(steering_pin=18, throttle_pin=18), FakeGpio())


@pytest.mark.parametrize(
    ("error", "what", "cure"),
    [
        (ImportError("No module named 'RPi'"), "needs RPi.GPIO or rpi-lgpio", "rpi5"),
        (RuntimeError("This module can only be run on a Raspberry Pi!"), "does not work here", "rpi5"),
    ],
)
def test_a_library_that_cannot_be_imported(
    error: Exception, what: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise error

    monkeypatch.setattr(rpi_gpio.importlib, "import_module", refuse)
    with pytest.raises(ActuatorError, match=what) as caught:
        open_rpi_gpio(CONFIG, tmp_path, "gate")
    assert cure in caught.value.next_step
