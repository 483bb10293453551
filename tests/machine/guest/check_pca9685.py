"""The back-end ``pca9685``, unmodified, on a real kernel's I2C: /dev/i2c-N, and a chip that keeps its registers.

i2c-stub is memory: it takes every register, and knows nothing of SLEEP or of lost power (the model in
``tests/vehicle/actuators/fakes.py`` does).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.guest import devices
from tests.machine.guest.car import shell
from vehicle.actuators.base import Actuator
from vehicle.actuators.registry import open_actuator
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError


def config(bus: int, address: int = devices.OURS) -> ActuatorConfig:
    return ActuatorConfig(kind="pca9685", i2c_bus=bus, i2c_address=address)


@pytest.fixture
def bus() -> Iterator[int]:
    """With our chip as it is after power-on."""
    number = devices.i2c_bus()
    devices.power_on(number, devices.OURS)
    yield number


@pytest.fixture
def chip(bus: int) -> Iterator[Actuator]:
    actuator = open_actuator(config(bus), Path("/run"))
    yield actuator
    actuator.close()


def check_opening_starts_the_chip_at_50_hz_without_a_pulse(bus: int, chip: Actuator) -> None:
    assert abs(devices.frame_us(bus, devices.OURS) / 20_000 - 1) < 0.01
    mode1, mode2 = devices.registers(bus, devices.OURS, 0x00, 2)
    assert mode1 & 0x30 == 0x20 and mode2 == 0x04  # awake, auto-increment; totem pole
    assert devices.registers(bus, devices.OURS, 0xFD, 1) == [0x10], "all outputs were switched off first"


def check_pulses_are_in_the_registers(bus: int, chip: Actuator) -> None:
    for number in range(21):
        steering, throttle = 1000.0 + 50 * number, 2000.0 - 50 * number
        chip.write(steering, throttle, "check")
        for channel, wanted in ((1, steering), (0, throttle)):
            found = devices.width_us(bus, devices.OURS, channel)
            assert found is not None and abs(found - wanted) <= devices.STEP_US / 2 + 0.01, (wanted, found)
    for first, count in ((0x00, 2), (0x06, 8), (0xFE, 1)):
        assert devices.i2cget(bus, devices.OURS, first, count) == devices.registers(bus, devices.OURS, first, count)


def check_a_second_process_changes_nothing(bus: int, chip: Actuator) -> None:
    chip.write(1600.0, 1450.0, "check")
    before = devices.registers(bus, devices.OURS, 0x00, 32)
    open_actuator(config(bus), Path("/run"), role="guard").close()
    assert devices.registers(bus, devices.OURS, 0x00, 32) == before


def check_a_chip_that_was_put_to_sleep_is_started_again(bus: int, chip: Actuator) -> None:
    chip.write(1500.0, 1500.0, "check")
    devices.poke(bus, devices.OURS, 0x00, 0x11)
    open_actuator(config(bus), Path("/run")).close()
    assert devices.registers(bus, devices.OURS, 0x00, 1)[0] & 0x10 == 0


def check_a_kernel_refuses_to_unload_a_bus_that_the_gate_has_open(chip: Actuator) -> None:
    assert "in use" in refused("modprobe", "-r", "i2c-stub")
    chip.write(1500.0, 1500.0, "check")


def refused(*words: str) -> str:
    import subprocess

    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr


def check_no_chip_at_the_address(bus: int) -> None:
    with pytest.raises(ActuatorError, match=r"errno 19") as caught:
        open_actuator(config(bus, devices.NOBODY), Path("/run"))
    assert f"i2cdetect -y {bus}" in caught.value.next_step


def check_a_chip_that_the_kernels_driver_holds(bus: int) -> None:
    devices.bind_kernel_driver(bus)
    with pytest.raises(ActuatorError, match=r"errno 16") as caught:
        open_actuator(config(bus, devices.KERNELS), Path("/run"))
    assert "sysfs_pwm" in caught.value.next_step


def check_no_bus_and_no_permission(bus: int) -> None:
    with pytest.raises(ActuatorError, match="/dev/i2c-63 cannot be opened"):
        open_actuator(config(63), Path("/run"))
    nobody = 65534
    os.seteuid(nobody)
    try:
        with pytest.raises(ActuatorError, match="Permission denied") as caught:
            open_actuator(config(bus), Path("/run"))
    finally:
        os.seteuid(0)
    assert "i2c" in caught.value.next_step


def check_udev_gives_the_bus_to_the_group_i2c(bus: int) -> None:
    shell("udevadm", "settle")
    assert Path(f"/dev/i2c-{bus}").group() == "i2c"
    assert Path(f"/dev/i2c-{bus}").stat().st_mode & 0o777 == 0o660
