"""The back-end ``sysfs_pwm``, unmodified, on the kernel's own driver for a PCA9685, whose chip is i2c-stub's memory.

What the kernel says is in /sys/class/pwm, what the chip would do in its registers; both are read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.guest import devices
from tests.machine.guest.car import shell
from tests.vehicle.actuators.fakes import FakePwmKernel
from vehicle.actuators.base import Actuator
from vehicle.actuators.registry import open_actuator
from vehicle.actuators.sysfs_pwm import write_attribute
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

CONFIG = ActuatorConfig(kind="sysfs_pwm", steering_channel=1, throttle_channel=0)


@pytest.fixture
def bus() -> int:
    return devices.i2c_bus()


@pytest.fixture
def chip(bus: int) -> Path:
    return devices.bind_kernel_driver(bus)


@pytest.fixture
def pwm(chip: Path) -> Iterator[Actuator]:
    """Channels 0 and 1, exported anew."""
    for number in (0, 1):
        if (chip / f"pwm{number}").exists():
            write_attribute(chip / "unexport", str(number))
    actuator = open_actuator(CONFIG, Path("/run"))
    yield actuator
    actuator.close()


def value(path: Path) -> str:
    return path.read_text().strip()


def check_opening_sets_the_period_and_gives_no_pulse(bus: int, chip: Path, pwm: Actuator) -> None:
    for number in (0, 1):
        # Not asked: "enable", of which this driver says 1 from the start (pca9685_pwm_get_state in Linux 6.1).
        assert devices.width_us(bus, devices.KERNELS, number) is None
        assert value(chip / f"pwm{number}/duty_cycle") == "0"
        assert value(chip / f"pwm{number}/period") == "20000000"
        assert value(chip / f"pwm{number}/polarity") == "normal"


def check_pulses_reach_the_kernel_and_the_chip(bus: int, chip: Path, pwm: Actuator) -> None:
    for number in range(21):
        steering, throttle = 1000.0 + 50 * number, 2000.0 - 50 * number
        pwm.write(steering, throttle, "check")
        for channel, wanted in ((1, steering), (0, throttle)):
            folder = chip / f"pwm{channel}"
            assert abs(int(value(folder / "duty_cycle")) - 1000 * wanted) <= 1000 * devices.STEP_US
            assert value(folder / "enable") == "1" and value(folder / "polarity") == "normal"
            found = devices.width_us(bus, devices.KERNELS, channel)
            assert found is not None and abs(found - wanted) <= 1.5 * devices.STEP_US, (wanted, found)
    assert abs(devices.frame_us(bus, devices.KERNELS) / 20_000 - 1) < 0.01


def check_a_chip_that_goes_is_an_error_and_is_used_again_when_it_comes_back(bus: int, pwm: Actuator) -> None:
    pwm.write(1500.0, 1500.0, "check")
    devices.unbind_kernel_driver(bus)
    try:
        for _ in range(2):
            with pytest.raises(ActuatorError, match="No such") as caught:
                pwm.write(1500.0, 1600.0, "check")
            assert caught.value.next_step
        with pytest.raises(ActuatorError):
            open_actuator(CONFIG, Path("/run"))
    finally:
        devices.unbind_kernel_driver(bus, again=True)
    devices.bind_kernel_driver(bus)
    pwm.write(1700.0, 1400.0, "check")
    found = devices.width_us(bus, devices.KERNELS, 1)
    assert found is not None and abs(found - 1700.0) <= 1.5 * devices.STEP_US


def check_a_channel_that_somebody_switches_off_is_noticed(chip: Path, pwm: Actuator) -> None:
    pwm.write(1500.0, 1500.0, "check")
    write_attribute(chip / "pwm0/enable", "0")
    with pytest.raises(ActuatorError, match="switched off"):
        pwm.write(1500.0, 1550.0, "check")
    pwm.write(1500.0, 1550.0, "check")
    assert value(chip / "pwm0/enable") == "1"


def check_the_model_of_other_tests_refuses_as_this_kernel_does(chip: Path, pwm: Actuator, tmp_path: Path) -> None:
    model = FakePwmKernel(tmp_path)
    fake = model.add_chip("pwmchip0", "soc/pwm", 17)
    for number in ("0", "1"):
        model.write(fake / "export", number)
    attempts = (
        ("export", "0"), ("export", "99"), ("pwm1/period", "20000000"), ("pwm1/duty_cycle", "30000000"),
        ("pwm1/duty_cycle", "1500000"), ("pwm1/period", "1000000"), ("pwm1/duty_cycle", "-5"),
        ("pwm1/period", "20000000"), ("pwm1/polarity", "sideways"), ("pwm1/enable", "1"), ("pwm3/period", "20000000"),
    )  # fmt: skip

    def errors(write: object, folder: Path) -> dict[tuple[str, str], str]:
        found = {}
        for name, text in attempts:
            try:
                write(folder / name, text)  # type: ignore[operator]
                found[name, text] = "taken"
            except OSError as error:
                found[name, text] = errno.errorcode[error.errno or 0]
        return found

    assert errors(write_attribute, chip) == errors(model.write, fake)


def check_udev_gives_the_files_to_the_group_gpio(chip: Path, pwm: Actuator) -> None:
    shell("udevadm", "settle")
    for name in ("export", "pwm0/duty_cycle", "pwm1/enable"):
        assert (chip / name).group() == "gpio" and (chip / name).stat().st_mode & 0o020, name
