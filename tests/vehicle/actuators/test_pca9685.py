"""PCA9685: widths from the registers, no torn pulse, every write read back, bus errors explained."""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vehicle.actuators.fakes import FakeBus, FakePca9685
from vehicle.actuators.pca9685 import Pca9685, open_pca9685
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

CONFIG = ActuatorConfig(kind="pca9685")  # DeepRacer's channels: throttle 0, steering 1
NEUTRAL = (1450.0, 1446.0, "neutral:disarmed")


@pytest.fixture
def chip() -> FakePca9685:
    return FakePca9685()


@pytest.fixture
def bus(chip: FakePca9685, tmp_path: Path) -> Iterator[FakeBus]:
    fake = FakeBus(chip, tmp_path / "i2c-1")
    yield fake
    fake.close()


def widths(chip: FakePca9685) -> tuple[float | None, float | None]:
    """(steering, throttle) of DeepRacer's channels."""
    return chip.width_us(1), chip.width_us(0)


def test_widths_are_right_within_3_us(chip: FakePca9685, bus: FakeBus) -> None:
    actuator = Pca9685(CONFIG, bus)
    assert chip.frame_s == pytest.approx(0.02, rel=0.005)
    worst_us = 0.0
    for pulse_us in range(1000, 2001):
        actuator.write(float(pulse_us), 3000.0 - pulse_us, "drive")
        steering_us, throttle_us = widths(chip)
        assert steering_us is not None and throttle_us is not None
        worst_us = max(worst_us, abs(steering_us - pulse_us), abs(throttle_us - (3000 - pulse_us)))
    assert worst_us < 3.0


@pytest.mark.parametrize("oscillator_hz", [20e6, 24.3e6, 26.1e6, 30e6])
def test_a_measured_oscillator_gives_true_widths(oscillator_hz: float, tmp_path: Path) -> None:
    chip = FakePca9685(oscillator_hz)
    bus = FakeBus(chip, tmp_path / "i2c")
    actuator = Pca9685(ActuatorConfig(oscillator_hz=oscillator_hz), bus)
    for pulse_us in (500.0, 1000.0, 1446.0, 2000.0, 2500.0):
        actuator.write(pulse_us, pulse_us, "drive")
        assert widths(chip) == (pytest.approx(pulse_us, abs=3), pytest.approx(pulse_us, abs=3))
    assert chip.frame_s == pytest.approx(0.02, rel=0.006)
    actuator.close()


def test_opening_a_fresh_chip_pulses_nothing(chip: FakePca9685, bus: FakeBus) -> None:
    actuator = Pca9685(CONFIG, bus)
    assert not chip.asleep
    assert [chip.width_us(led) for led in range(16)] == [None] * 16
    actuator.write(*NEUTRAL)
    assert [led for led in range(16) if chip.width_us(led) is not None] == [0, 1]
    assert chip.torn_pulses == 0


def test_both_channels_change_in_one_transaction(chip: FakePca9685, bus: FakeBus) -> None:
    actuator = Pca9685(CONFIG, bus)
    bus.written.clear()
    actuator.write(1700.0, 1311.0, "drive")
    assert [(register, len(data)) for register, data in bus.written] == [(0x06, 8)]


@pytest.mark.parametrize(("steering", "throttle", "writes"), [(0, 1, 1), (15, 14, 1), (4, 9, 2), (0, 15, 2)])
def test_any_two_channels(chip: FakePca9685, bus: FakeBus, steering: int, throttle: int, writes: int) -> None:
    actuator = Pca9685(ActuatorConfig(steering_channel=steering, throttle_channel=throttle), bus)
    bus.written.clear()
    actuator.write(1700.0, 1311.0, "drive")
    assert chip.width_us(steering) == pytest.approx(1700, abs=3)
    assert chip.width_us(throttle) == pytest.approx(1311, abs=3)
    assert len(bus.written) == writes


def test_a_second_process_finds_a_running_chip_and_only_reads(chip: FakePca9685, bus: FakeBus, tmp_path: Path) -> None:
    gate = Pca9685(CONFIG, bus)
    gate.write(1700.0, 1311.0, "drive")
    driving = widths(chip)
    other_bus = FakeBus(chip, tmp_path / "i2c-1")
    guard = Pca9685(CONFIG, other_bus)
    assert other_bus.written == [] and widths(chip) == driving
    guard.write(*NEUTRAL)
    assert widths(chip) == (pytest.approx(1450, abs=3), pytest.approx(1446, abs=3))
    guard.close()
    gate.close()
    assert widths(chip) == (pytest.approx(1450, abs=3), pytest.approx(1446, abs=3))
    assert chip.torn_pulses == 0


def test_setting_up_waits_for_another_process_that_sets_up(chip: FakePca9685, bus: FakeBus, tmp_path: Path) -> None:
    other = os.open(tmp_path / "i2c-1", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    opened = threading.Event()

    def open_it() -> None:
        Pca9685(CONFIG, bus)
        opened.set()

    thread = threading.Thread(target=open_it, name="second-opener")
    thread.start()
    try:
        assert not opened.wait(0.2)
        assert chip.transactions == 0
    finally:
        fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(timeout=5)
        os.close(other)
    assert opened.is_set()


@pytest.mark.parametrize("prescale", [3, 30, 255])
def test_another_frequency_is_changed_without_a_torn_pulse(chip: FakePca9685, bus: FakeBus, prescale: int) -> None:
    chip.registers[0x00], chip.registers[0xFE] = 0x21, prescale
    chip.registers[0x06:0x0A] = [0, 0, 0x2C, 1]  # someone left it pulsing
    actuator = Pca9685(CONFIG, bus)
    assert widths(chip) == (None, None)
    actuator.write(*NEUTRAL)
    assert widths(chip) == (pytest.approx(1450, abs=3), pytest.approx(1446, abs=3))
    assert chip.torn_pulses == 0


def test_the_chip_model_notices_a_sleep_within_a_pulse(chip: FakePca9685) -> None:
    chip.registers[0x00] = 0x21
    chip.registers[0x06:0x0A] = [0, 0, 0x2C, 1]
    chip.write(0xFD, [0x10])
    chip.write(0x00, [0x31])  # at once, without waiting for the frame to end
    assert chip.torn_pulses == 1


@pytest.mark.parametrize("mode2", [0x14, 0x00, 0x0C, 0x05])
def test_inverted_or_open_drain_outputs_are_put_right(chip: FakePca9685, bus: FakeBus, mode2: int) -> None:
    Pca9685(CONFIG, bus)
    chip.registers[0x01] = mode2
    Pca9685(CONFIG, bus)
    assert chip.registers[0x01] == 0x04 and chip.torn_pulses == 0


def test_a_chip_without_clock_is_refused(chip: FakePca9685, bus: FakeBus) -> None:
    chip.registers[0x00] = 0x61
    with pytest.raises(ActuatorError, match="external clock") as caught:
        Pca9685(CONFIG, bus)
    assert "off and on" in caught.value.next_step
    assert bus.written == []


def test_a_chip_that_lost_its_power_is_noticed_and_set_up_again(chip: FakePca9685, bus: FakeBus) -> None:
    actuator = Pca9685(CONFIG, bus)
    actuator.write(1700.0, 1311.0, "drive")
    chip.power_on()
    with pytest.raises(ActuatorError, match="wrote .* read ") as caught:
        actuator.write(1700.0, 1311.0, "drive")
    assert "lost its power" in caught.value.cause
    assert widths(chip) == (None, None)
    actuator.write(*NEUTRAL)
    assert widths(chip) == (pytest.approx(1450, abs=3), pytest.approx(1446, abs=3))


def test_another_writer_is_noticed(chip: FakePca9685, bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    actuator = Pca9685(CONFIG, bus)
    actuator.write(*NEUTRAL)
    write = chip.write

    def fight(register: int, data: Any) -> None:
        write(register, data)
        write(0x08, [0x20])

    monkeypatch.setattr(chip, "write", fight)
    with pytest.raises(ActuatorError, match="wrote .* read "):
        actuator.write(1700.0, 1311.0, "drive")


@pytest.mark.parametrize("at", [0, 1])
def test_one_disturbance_is_tried_again_and_counted(chip: FakePca9685, bus: FakeBus, at: int) -> None:
    actuator = Pca9685(CONFIG, bus)
    bus.fail = [0] * at + [errno.EREMOTEIO]
    actuator.write(1700.0, 1311.0, "drive")
    assert widths(chip) == (pytest.approx(1700, abs=3), pytest.approx(1311, abs=3))
    assert actuator.facts()["retries"] == 1


@pytest.mark.parametrize(
    ("number", "cause", "cure"),
    [
        (errno.EIO, "disturbed", "wires"),
        (errno.ETIMEDOUT, "disturbed", "wires"),
        (errno.ENODEV, "no chip answers", "i2cdetect -y 1"),
        (errno.EREMOTEIO, "no chip answers", "i2cdetect -y 1"),
        (errno.ENXIO, "no chip answers", "i2cdetect -y 1"),
        (errno.EBUSY, "kernel's own driver", "sysfs_pwm"),
        (errno.EACCES, "group i2c", "usermod"),
    ],
)
def test_bus_errors_have_a_cause_and_a_cure(bus: FakeBus, number: int, cause: str, cure: str) -> None:
    actuator = Pca9685(CONFIG, bus)
    bus.fail = [number] * 2
    with pytest.raises(ActuatorError, match=rf"PCA9685 at 0x40 on /dev/i2c-1: .*\(errno {number}\)") as caught:
        actuator.write(1700.0, 1311.0, "drive")
    assert cause in caught.value.cause and cure in caught.value.next_step
    actuator.write(*NEUTRAL)  # the bus is back
    bus.fail = [number]
    with pytest.raises(ActuatorError, match=f"errno {number}"):
        Pca9685(CONFIG, bus)


def test_no_chip_at_the_address(bus: FakeBus) -> None:
    with pytest.raises(ActuatorError, match="at 0x41") as caught:
        Pca9685(ActuatorConfig(i2c_address=0x41), bus)
    assert "no chip answers" in caught.value.cause


def test_one_channel_for_both_is_refused(bus: FakeBus) -> None:
    with pytest.raises(ActuatorError, match="both channel 3"):
        Pca9685(ActuatorConfig(steering_channel=3, throttle_channel=3), bus)
    assert bus.chip.transactions == 0


def test_what_is_no_pca9685_is_refused(chip: FakePca9685, bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chip, "write", lambda register, data: None)
    with pytest.raises(ActuatorError, match="MODE1, MODE2, PRE_SCALE read"):
        Pca9685(CONFIG, bus)


def test_writing_after_closing_is_an_error(bus: FakeBus) -> None:
    actuator = Pca9685(CONFIG, bus)
    actuator.close()
    for _ in range(2):
        with pytest.raises(ActuatorError):
            actuator.write(*NEUTRAL)


def test_a_bus_that_does_not_exist(tmp_path: Path) -> None:
    pytest.importorskip("smbus2")
    with pytest.raises(ActuatorError, match="/dev/i2c-64 cannot be opened") as caught:
        open_pca9685(ActuatorConfig(i2c_bus=64), tmp_path, "gate")
    assert "raspi-config" in caught.value.next_step


def test_without_smbus2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "smbus2":
            raise ImportError("No module named 'smbus2'")
        return real_import(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ActuatorError, match="needs the package smbus2") as caught:
        open_pca9685(CONFIG, tmp_path, "gate")
    assert "hotlap[rpi]" in caught.value.next_step


def test_facts(bus: FakeBus) -> None:
    facts = Pca9685(CONFIG, bus).facts()
    assert facts["fails_safe"] is False and facts["shared"] is True
    assert facts["step_us"] == 4.88 and facts["i2c_address"] == "0x40"
