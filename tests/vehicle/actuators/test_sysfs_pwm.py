"""Kernel PWM: the right order, every errno explained, nothing stale ever pulsed, two processes at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.vehicle.actuators.fakes import FakePwmKernel
from vehicle.actuators import sysfs_pwm
from vehicle.actuators.sysfs_pwm import SysfsPwm, open_sysfs_pwm, write_attribute
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

STEERING, THROTTLE = "pwmchip0/pwm1", "pwmchip0/pwm0"


@pytest.fixture
def kernel(tmp_path: Path) -> FakePwmKernel:
    fake = FakePwmKernel(tmp_path)
    fake.add_chip("pwmchip0", "platform/fe20c000.pwm", 2)
    return fake


def config(kernel: FakePwmKernel, **more: object) -> ActuatorConfig:
    return ActuatorConfig(kind="sysfs_pwm", pwm_root=str(kernel.root), **more)  # type: ignore[arg-type]


def test_opening_pulses_nothing_and_the_first_write_is_the_first_pulse(kernel: FakePwmKernel) -> None:
    actuator = SysfsPwm(config(kernel), kernel.write)
    assert kernel.pulses[-1] == {}
    actuator.write(1450.0, 1446.5, "neutral:disarmed")
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.5}
    actuator.write(1700.0, 1311.0, "drive")
    assert kernel.widths_us() == {STEERING: 1700.0, THROTTLE: 1311.0}
    assert {width for widths in kernel.pulses for width in widths.values()} == {1450.0, 1446.5, 1700.0, 1311.0}
    order = [file.rpartition("/")[2] for file, _ in kernel.log if file.startswith(THROTTLE)]
    assert order == ["period", "duty_cycle", "enable", "duty_cycle"]
    assert "0" not in [text for file, text in kernel.log if file.endswith("duty_cycle")]


def test_a_duty_cycle_left_by_someone_else_is_never_pulsed(kernel: FakePwmKernel) -> None:
    for channel in ("0", "1"):
        chip = kernel.root / "pwmchip0"
        kernel.write(chip / "export", channel)
        kernel.write(chip / f"pwm{channel}" / "period", "20000000")
        kernel.write(chip / f"pwm{channel}" / "duty_cycle", "1311000")  # full ahead, switched off
    actuator = SysfsPwm(config(kernel), kernel.write)
    assert kernel.widths_us() == {}
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    assert {width for widths in kernel.pulses for width in widths.values()} == {1450.0, 1446.0}


def test_a_second_process_changes_nothing_by_opening_and_closing(kernel: FakePwmKernel) -> None:
    gate = SysfsPwm(config(kernel), kernel.write)
    gate.write(1700.0, 1311.0, "drive")
    before = list(kernel.log)
    guard = SysfsPwm(config(kernel), kernel.write)
    assert kernel.log == before
    guard.write(1450.0, 1446.0, "neutral:gate_silent")
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.0}
    gate.close()
    guard.close()
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.0}


def test_two_writers_at_once_are_noticed_by_reading_back(kernel: FakePwmKernel) -> None:
    actuator = SysfsPwm(config(kernel), kernel.write)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")

    def other_writer(path: Path, text: str) -> None:
        kernel.write(path, text)
        if path.name == "duty_cycle":
            path.write_text("1603000\n")

    actuator._write = other_writer
    with pytest.raises(ActuatorError, match="reads 1603000 ns after 1311000 ns was written") as caught:
        actuator.write(1450.0, 1311.0, "drive")
    assert caught.value.cause and caught.value.next_step


def test_a_driver_may_round_by_a_step_of_its_hardware(kernel: FakePwmKernel) -> None:
    def coarse(path: Path, text: str) -> None:
        kernel.write(path, str(int(text) // 4880 * 4880) if path.name == "duty_cycle" else text)

    SysfsPwm(config(kernel), coarse).write(1450.0, 1446.0, "drive")
    assert kernel.widths_us()[THROTTLE] == pytest.approx(1446.0, abs=5)


def test_a_channel_that_someone_switched_off_is_an_error_and_comes_back(kernel: FakePwmKernel) -> None:
    actuator = SysfsPwm(config(kernel), kernel.write)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    kernel.write(kernel.root / THROTTLE / "enable", "0")
    with pytest.raises(ActuatorError, match="switched off"):
        actuator.write(1450.0, 1311.0, "drive")
    assert THROTTLE not in kernel.widths_us()
    actuator.write(1450.0, 1446.0, "neutral:fault")
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.0}


def test_a_chip_that_goes_and_comes_back(kernel: FakePwmKernel, tmp_path: Path) -> None:
    actuator = SysfsPwm(config(kernel), kernel.write)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    gone = (kernel.root / "pwmchip0").resolve()
    gone.rename(tmp_path / "unplugged")
    for _ in range(2):
        with pytest.raises(ActuatorError) as caught:
            actuator.write(1450.0, 1446.0, "neutral:disarmed")
        assert "gone" in caught.value.cause
    (tmp_path / "unplugged").rename(gone)
    for channel in ("pwm0", "pwm1"):
        for file in (gone / channel).iterdir():
            file.unlink()
        (gone / channel).rmdir()
    actuator.write(1450.0, 1446.0, "neutral:fault")
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.0}


@pytest.mark.parametrize(
    ("file", "number", "cause"),
    [
        ("export", errno.EBUSY, "kernel holds this channel"),
        ("export", errno.ENODEV, "2 channels"),
        ("period", errno.EINVAL, "longer than the period"),
        ("period", errno.EBUSY, "another period"),
        ("duty_cycle", errno.EINVAL, "longer than the period"),
        ("duty_cycle", errno.EIO, "could not reach its hardware"),
        ("enable", errno.EINVAL, "longer than the period"),
        ("export", errno.EROFS, "may not write there"),
    ],
)
def test_every_refusal_of_the_kernel_has_a_cause_and_a_cure(
    kernel: FakePwmKernel, file: str, number: int, cause: str
) -> None:
    kernel.refuse[file] = [number]
    with pytest.raises(ActuatorError, match=os.strerror(number)) as caught:
        SysfsPwm(config(kernel), kernel.write).write(1450.0, 1446.0, "neutral:disarmed")
    assert cause in caught.value.cause
    assert caught.value.next_step
    assert isinstance(caught.value, OSError)


def test_a_channel_that_the_chip_lacks(kernel: FakePwmKernel) -> None:
    with pytest.raises(ActuatorError, match="'5' was refused: No such device") as caught:
        SysfsPwm(config(kernel, throttle_channel=5), kernel.write)
    assert "pwmchip0 has 2 channels" in caught.value.cause


def test_a_failure_of_the_write_itself_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:  # /dev/full refuses at the write, as sysfs does
        write_attribute(Path("/dev/full"), "1")
    assert caught.value.errno == errno.ENOSPC
    (tmp_path / "file").write_text("")
    write_attribute(tmp_path / "file", "20000000")
    assert (tmp_path / "file").read_text() == "20000000"


def test_udev_may_take_a_moment_to_hand_over_a_new_channel(kernel: FakePwmKernel) -> None:
    kernel.refuse["period"] = [errno.EACCES] * 5
    SysfsPwm(config(kernel), kernel.write).write(1450.0, 1446.0, "neutral:disarmed")
    assert kernel.widths_us() == {STEERING: 1450.0, THROTTLE: 1446.0}


def test_no_permission_is_an_error_at_once_while_driving(
    kernel: FakePwmKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysfs_pwm, "UDEV_S", -1.0)
    actuator = SysfsPwm(config(kernel), kernel.write)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    kernel.refuse["duty_cycle"] = [errno.EACCES]
    with pytest.raises(ActuatorError, match="Permission denied") as caught:
        actuator.write(1450.0, 1311.0, "drive")
    assert "install-car" in caught.value.next_step
    assert kernel.refuse["duty_cycle"] == []


def test_inverted_pulses_are_put_right(kernel: FakePwmKernel) -> None:
    kernel.write(kernel.root / "pwmchip0" / "export", "0")
    (kernel.root / THROTTLE / "polarity").write_text("inversed\n")
    SysfsPwm(config(kernel), kernel.write)
    assert (kernel.root / THROTTLE / "polarity").read_text() == "normal\n"


@pytest.mark.parametrize("exported", [False, True])
def test_the_servo_rail_gets_power_after_the_first_pulse(kernel: FakePwmKernel, tmp_path: Path, exported: bool) -> None:
    gpio = tmp_path / "gpio"
    gpio.mkdir()
    (gpio / "export").write_text("")
    if exported:
        kernel.write(gpio / "export", "436")
    value = gpio / "gpio436" / "value"
    actuator = SysfsPwm(config(kernel, enable_gpio=str(value)), kernel.write)
    assert not value.exists() or value.read_text() == "1\n"
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    assert value.read_text() == "0\n"
    assert kernel.log[-1] == (str(value), "0")
    before = len(kernel.log)
    actuator.write(1450.0, 1446.0, "neutral:disarmed")
    assert len(kernel.log) == before + 2  # the two duty cycles


def test_a_rail_that_stays_off_is_an_error(kernel: FakePwmKernel, tmp_path: Path) -> None:
    value = tmp_path / "value"
    value.write_text("1\n")
    actuator = SysfsPwm(
        config(kernel, enable_gpio=str(value)), lambda path, text: None if path == value else kernel.write(path, text)
    )
    with pytest.raises(ActuatorError, match="servos have no power") as caught:
        actuator.write(1450.0, 1446.0, "neutral:disarmed")
    assert "514" in caught.value.cause


def test_auto_takes_the_chip_on_the_i2c_bus(kernel: FakePwmKernel) -> None:
    kernel.add_chip("pwmchip1", "platform/soc/fe804000.i2c/i2c-1/1-0040", 17)
    kernel.add_chip("pwmchip2", "platform/soc/fe804000.i2c/i2c-11/11-0040", 17)
    actuator = SysfsPwm(config(kernel), kernel.write)
    actuator.write(1450.0, 1446.0, "drive")
    assert kernel.widths_us() == {"pwmchip1/pwm1": 1450.0, "pwmchip1/pwm0": 1446.0}
    assert actuator.facts()["throttle"].endswith("pwmchip1/pwm0")
    assert actuator.facts()["fails_safe"] is False


def test_auto_does_not_guess(kernel: FakePwmKernel) -> None:
    kernel.add_chip("pwmchip3", "platform/fan", 4)
    with pytest.raises(ActuatorError, match="2 PWM chips, and which one is not clear") as caught:
        SysfsPwm(config(kernel), kernel.write)
    assert "pwmchip0 (2 channels" in caught.value.what and "pwmchip3 (4 channels" in caught.value.what
    SysfsPwm(config(kernel, pwm_chip="pwmchip3"), kernel.write)


def test_a_named_chip_that_is_not_there(kernel: FakePwmKernel) -> None:
    with pytest.raises(ActuatorError, match=r"pwmchip9 does not exist; found: pwmchip0 \(2 channels"):
        SysfsPwm(config(kernel, pwm_chip="pwmchip9"), kernel.write)


def test_no_chip_at_all(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="no PWM chip in") as caught:
        open_sysfs_pwm(ActuatorConfig(pwm_root=str(tmp_path)), tmp_path, "gate")
    assert "pwm-2chan" in caught.value.next_step


def test_a_jetson_s_own_pwm_is_too_coarse_for_an_esc(kernel: FakePwmKernel, tmp_path: Path) -> None:
    chip = kernel.add_chip("pwmchip2", "platform/3280000.pwm", 4)
    driver = tmp_path / "bus" / "platform" / "drivers" / "tegra-pwm"
    driver.mkdir(parents=True)
    (chip / "device" / "driver").symlink_to(driver)
    with pytest.raises(ActuatorError, match="tegra-pwm, knows 256 widths in a period, 78 us apart") as caught:
        SysfsPwm(config(kernel, pwm_chip="pwmchip2"), kernel.write)
    assert "pca9685" in caught.value.next_step
    assert kernel.log == []


def test_one_channel_for_both_is_refused(kernel: FakePwmKernel) -> None:
    with pytest.raises(ActuatorError, match="steering and throttle are both channel 1"):
        SysfsPwm(config(kernel, throttle_channel=1), kernel.write)
    assert kernel.log == []
