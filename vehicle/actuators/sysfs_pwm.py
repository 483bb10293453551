"""Hardware PWM through the kernel's sysfs: the Pi's own, the original DeepRacer's, a PCA9685 with the kernel's driver.

The kernel refuses a wrong value with an errno at the write itself, so every attribute is one ``os.write`` (buffered
files would raise when they are closed, or not at all). Interface: the kernel's Documentation/ABI/testing/
sysfs-class-pwm; errnos as measured on a real kernel, spec/hardware-testing.md section 3.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vehicle.actuators.base import PERIOD_S
from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

PERIOD_NS = round(PERIOD_S * 1e9)
ROUNDING_NS = 5_000  # a driver may report what its hardware can do: a step of the coarsest, the PCA9685, is 4.9 us
TOO_COARSE = {"tegra-pwm": 256}  # Jetson: PWM_DUTY_WIDTH of drivers/pwm/pwm-tegra.c is 8 bits
UDEV_S = 1.0  # after an export, udev may need this long to give the new files to the group

Write = Callable[[Path, str], None]


def write_attribute(path: Path, text: str) -> None:
    """Write a sysfs attribute in one system call.

    Raises:
        OSError: with the driver's own errno.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class SysfsPwm:
    """Two channels of one pwmchip.

    Opening exports the channels and sets the period, and switches no channel on: one that was left with a duty cycle
    of long ago would pulse it. The first `write` sets the duty cycle and then switches on. Every write is read back.
    After an error the next write begins at the export again, so a chip that comes back is used again.

    Gate and guard may have it open together: an export that is already there (EBUSY) is used as it is, a period that
    is right is not written again, and nothing is ever switched off or unexported. If both write different pulses, the
    one whose reading back sees the other's gets the error.

    Args:
        write: writes one attribute; tests put a kernel's refusals there.

    Raises:
        ActuatorError: no such chip or channel, one too coarse for an ESC, no permission, or the kernel refused a value.
    """

    def __init__(self, config: ActuatorConfig, write: Write = write_attribute) -> None:
        self._config = config
        self._write = write
        steering, throttle = _find_channels(config)
        self._channels = {"throttle": throttle, "steering": steering}  # the folder of each, throttle first
        self._running = False
        self._patient_until_s = time.monotonic() + UDEV_S
        self._prepare()

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`. The throttle goes first."""
        check_pulses(steering_us, throttle_us)
        was_running, self._running = self._running, False
        if not was_running:
            self._prepare()
        for name, pulse_us in (("throttle", throttle_us), ("steering", steering_us)):
            self._set_duty(self._channels[name], round(pulse_us * 1000), switch_on=not was_running)
        if not was_running:
            self._enable_rail()
        self._running = True

    def facts(self) -> dict[str, Any]:
        """Its name, the folders of its channels, and that the kernel goes on pulsing when our processes are dead."""
        channels = {name: str(folder) for name, folder in self._channels.items()}
        return {"name": "sysfs_pwm", "fails_safe": False, "shared": True, **channels}

    def close(self) -> None:
        """Nothing is held open; the channels go on with their last duty cycle."""

    def _prepare(self) -> None:
        for folder in self._channels.values():
            export, number = folder.parent / "export", folder.name.removeprefix("pwm")
            try:
                self._write(export, number)
            except OSError as error:
                if error.errno != errno.EBUSY or not folder.is_dir():
                    raise self._refused(export, number, error) from error
            polarity = folder / "polarity"  # absent where the hardware has only one
            if polarity.exists() and self._read(polarity) != "normal":
                self._set(polarity, "normal")
            if self._read(folder / "period") != str(PERIOD_NS):
                self._set(folder / "period", str(PERIOD_NS))

    def _set_duty(self, folder: Path, duty_ns: int, *, switch_on: bool) -> None:
        self._set(folder / "duty_cycle", str(duty_ns))
        if switch_on and self._read(folder / "enable") != "1":
            self._set(folder / "enable", "1")
        found = self._read(folder / "duty_cycle")
        if not found.isdecimal() or abs(int(found) - duty_ns) > ROUNDING_NS:
            raise ActuatorError(
                f"{folder}/duty_cycle reads {found} ns after {duty_ns} ns was written",
                cause="another program writes to the same channel, or the driver cannot do this width",
                next_step=f"sudo fuser -v {folder}/duty_cycle",
            )
        if self._read(folder / "enable") != "1":
            raise ActuatorError(
                f"{folder} is switched off: it gives no pulses",
                cause="another program switched it off",
                next_step="end that program, then hotlap arm",
            )

    def _enable_rail(self) -> None:
        """Write 0 to the GPIO that powers the servos, now that they get pulses; export it where it is not."""
        if not self._config.enable_gpio:
            return
        value = Path(self._config.enable_gpio)
        if not value.exists() and value.parent.name.startswith("gpio"):
            number = value.parent.name.removeprefix("gpio")
            self._set(value.parent.parent / "export", number, allow=errno.EBUSY)
            self._set(value.parent / "direction", "out")
        self._set(value, "0")
        if self._read(value) != "0":
            raise ActuatorError(
                f"{value} does not stay 0: the servos have no power",
                cause="another number for this kernel: the original DeepRacer has 436, and 514 on Ubuntu 24.04",
                next_step="set actuator.enable_gpio in car.toml",
            )

    def _set(self, path: Path, text: str, *, allow: int = 0) -> None:
        """Write an attribute; just after opening, wait for udev to give it to us. The errno `allow` is no error."""
        while True:
            try:
                self._write(path, text)
                return
            except OSError as error:
                if error.errno == allow:
                    return
                if error.errno != errno.EACCES or time.monotonic() > self._patient_until_s:
                    raise self._refused(path, text, error) from error
            time.sleep(0.01)

    def _read(self, path: Path) -> str:
        try:
            return path.read_text().strip()
        except OSError as error:
            raise ActuatorError(
                f"{path} cannot be read: {error.strerror}",
                cause="the PWM chip has gone: its driver was unloaded, or its bus lost it",
                next_step="hotlap doctor",
            ) from error

    def _refused(self, path: Path, text: str, error: OSError) -> ActuatorError:
        what = f"{path}: {text!r} was refused: {error.strerror or error}"
        chip = path.parent if path.name == "export" else path.parent.parent
        return ActuatorError(what, **_why(chip, error.errno))


def open_sysfs_pwm(config: ActuatorConfig, runtime: Path, role: str) -> SysfsPwm:
    """The entry point ``sysfs_pwm``."""
    return SysfsPwm(config)


def _why(chip: Path, number: int | None) -> dict[str, str]:
    """Cause and next step of an errno that sysfs gives."""
    if number == errno.ENODEV:
        channels = _attribute(chip / "npwm") or "?"
        return {
            "cause": f"{chip.name} has {channels} channels, or its hardware has gone",
            "next_step": f"ls {chip.parent}; set steering_channel, throttle_channel and pwm_chip in car.toml",
        }
    if number == errno.EBUSY:
        return {
            "cause": "a driver in the kernel holds this channel (a fan), or others of the chip need another period",
            "next_step": f"cat {chip}/pwm*/period; choose another channel or pwm_chip in car.toml",
        }
    if number == errno.EINVAL:
        return {
            "cause": "the driver cannot do this value: the duty cycle would be longer than the period",
            "next_step": f"end other programs that use it, then: cat {chip}/pwm*/duty_cycle {chip}/pwm*/period",
        }
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return {
            "cause": "this user may not write there",
            "next_step": "sudo make install-car (it adds the udev rule), then log in again",
        }
    if number == errno.ENOENT:
        return {"cause": "the chip or the channel has gone", "next_step": f"ls {chip}"}
    return {"cause": "the driver could not reach its hardware", "next_step": "dmesg | tail"}


def _find_channels(config: ActuatorConfig) -> tuple[Path, Path]:
    """The folders of steering and throttle, which need not exist yet."""
    if config.steering_channel == config.throttle_channel:
        raise ActuatorError(
            f"steering and throttle are both channel {config.steering_channel}",
            next_step="set actuator.steering_channel and throttle_channel in car.toml (DeepRacer: 1 and 0)",
        )
    chip = _find_chip(config)
    driver = (chip / "device" / "driver").resolve().name
    if driver in TOO_COARSE:
        raise ActuatorError(
            f"{chip.name} is refused: its driver, {driver}, knows {TOO_COARSE[driver]} widths in a period, "
            f"{PERIOD_S * 1e6 / TOO_COARSE[driver]:.0f} us apart",
            cause="this hardware is for fans and lamps: from neutral to full throttle would be about two steps",
            next_step='use a PCA9685 board on the I2C bus: actuator.kind = "pca9685"',
        )
    return chip / f"pwm{config.steering_channel}", chip / f"pwm{config.throttle_channel}"


def _find_chip(config: ActuatorConfig) -> Path:
    """The folder of the chip: the named one, else the only one, else the only one on the configured I2C bus."""
    root = Path(config.pwm_root)
    chips = sorted(root.glob("pwmchip*"))
    found = ", ".join(f"{c.name} ({_attribute(c / 'npwm') or '?'} channels, {_device(c)})" for c in chips) or "none"
    if config.pwm_chip != "auto":
        chip = root / config.pwm_chip
        if chip.is_dir():
            return chip
        raise ActuatorError(
            f"{chip} does not exist; found: {found}",
            cause="the numbers of PWM chips change with the kernel and with what is plugged in",
            next_step='set actuator.pwm_chip = "auto", or to one of those found',
        )
    on_bus = [chip for chip in chips if f"i2c-{config.i2c_bus}" in _device(chip).parts]
    for candidates in (chips, on_bus):
        if len(candidates) == 1:
            return candidates[0]
    if not chips:
        raise ActuatorError(
            f"there is no PWM chip in {root}",
            cause="the overlay that gives the pins to the PWM is not loaded",
            next_step="Pi: add dtoverlay=pwm-2chan to /boot/firmware/config.txt and reboot (docs/actuators.md)",
        )
    raise ActuatorError(
        f"{len(chips)} PWM chips, and which one is not clear: {found}",
        cause=f"{len(on_bus)} of them are on I2C bus {config.i2c_bus}",
        next_step='set actuator.pwm_chip in car.toml, for instance to "' + chips[0].name + '"',
    )


def _device(chip: Path) -> Path:
    """Where the chip's hardware is: sysfs links name every bus on the way."""
    return (chip / "device").resolve()


def _attribute(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
