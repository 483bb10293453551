"""Hardware that refuses as the real one does: a kernel's PWM in a folder, a PCA9685 of registers, a GPIO library.

Errnos are those that a real kernel gave (spec/hardware-testing.md section 3), registers those of NXP's data sheet.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path


class FakePwmKernel:
    """``/sys/class/pwm`` below `root`. Plain files take anything; `write` refuses what the kernel refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root / "class" / "pwm"
        self.root.mkdir(parents=True)
        self._devices = root / "devices"
        self.log: list[tuple[str, str]] = []  # (file, text) of every write that was accepted
        self.refuse: dict[str, list[int]] = {}  # file name -> errnos of its next writes
        self.pulses: list[dict[str, float]] = []  # after every write: pulse widths of all channels that are on

    def add_chip(self, name: str, device: str, channels: int) -> Path:
        """A chip whose hardware is at ``devices/DEVICE``."""
        hardware = self._devices / device
        hardware.mkdir(parents=True, exist_ok=True)
        chip = hardware / "pwm" / name
        chip.mkdir(parents=True)
        (chip / "npwm").write_text(f"{channels}\n")
        (chip / "export").write_text("")
        (chip / "device").symlink_to(hardware)
        (self.root / name).symlink_to(chip)
        return self.root / name

    def write(self, path: Path, text: str) -> None:
        """What ``vehicle.actuators.sysfs_pwm.write_attribute`` does on a real one."""
        if self.refuse.get(path.name):
            raise _os_error(self.refuse[path.name].pop(0))
        if not path.exists():
            raise _os_error(errno.ENOENT)
        if path.name == "export":
            self._export(path.parent, int(text))
        elif path.name in ("value", "direction"):  # of a GPIO
            path.write_text(text + "\n")
        else:
            self._attribute(path, text)
        self.log.append((str(path.relative_to(self.root)) if self.root in path.parents else str(path), text))
        self.pulses.append(self.widths_us())

    def widths_us(self) -> dict[str, float]:
        """``"pwmchip0/pwm1" -> us`` of the channels that are on."""
        return {
            str(folder.relative_to(self.root)): int((folder / "duty_cycle").read_text()) / 1000
            for folder in self.root.glob("pwmchip*/pwm*")
            if folder.name != "pwm" and (folder / "enable").read_text().strip() == "1"
        }

    def _export(self, folder: Path, channel: int) -> None:
        if not (folder / "npwm").exists():  # a GPIO controller
            gpio = folder / f"gpio{channel}"
            if gpio.exists():
                raise _os_error(errno.EBUSY)
            gpio.mkdir()
            (gpio / "direction").write_text("in\n")
            (gpio / "value").write_text("1\n")
            return
        if channel >= int((folder / "npwm").read_text()):
            raise _os_error(errno.ENODEV)
        pwm = folder / f"pwm{channel}"
        if pwm.exists():
            raise _os_error(errno.EBUSY)
        pwm.mkdir()
        for name, value in (("period", "0"), ("duty_cycle", "0"), ("enable", "0"), ("polarity", "normal")):
            (pwm / name).write_text(value + "\n")

    def _attribute(self, path: Path, text: str) -> None:
        state = {name: int((path.parent / name).read_text()) for name in ("period", "duty_cycle", "enable")}
        if path.name == "polarity":
            if text not in ("normal", "inversed"):
                raise _os_error(errno.EINVAL)
        else:
            if not text.isdecimal():  # negative, or no number
                raise _os_error(errno.EINVAL)
            state[path.name] = int(text)
            if state["duty_cycle"] > state["period"] or (state["enable"] and not state["period"]):
                raise _os_error(errno.EINVAL)
        path.write_text(text + "\n")


class FakePca9685:
    """The chip: registers as after power-on, auto-increment, SLEEP, and the rule that PRE_SCALE needs SLEEP."""

    def __init__(self, oscillator_hz: float = 25e6) -> None:
        self.oscillator_hz = oscillator_hz
        self.torn_pulses = 0  # times it was put to sleep while an output was on, or still ending its frame
        self.transactions = 0
        self.power_on()

    def power_on(self) -> None:
        self.registers = [0] * 256
        self.registers[0x00], self.registers[0x01], self.registers[0xFE] = 0x11, 0x04, 0x1E
        for led in range(16):
            self.registers[0x09 + 4 * led] = 0x10
        self._off_since_s = -1e9

    @property
    def asleep(self) -> bool:
        return bool(self.registers[0x00] & 0x10)

    @property
    def frame_s(self) -> float:
        return 4096 * (self.registers[0xFE] + 1) / self.oscillator_hz

    def width_us(self, channel: int) -> float | None:
        """What an oscilloscope would show; None without pulses."""
        on_l, on_h, off_l, off_h = self.registers[0x06 + 4 * channel : 0x0A + 4 * channel]
        if self.asleep or off_h & 0x10:
            return None
        counts = (off_l | off_h << 8) - (on_l | on_h << 8)
        return counts * (self.registers[0xFE] + 1) / self.oscillator_hz * 1e6

    def write(self, register: int, data: Sequence[int]) -> None:
        self.transactions += 1
        for value in data:
            self._write(register, value)
            register += 1 if self.registers[0x00] & 0x20 else 0

    def read(self, register: int, length: int) -> list[int]:
        self.transactions += 1
        step = 1 if self.registers[0x00] & 0x20 else 0
        return [
            0 if 0xFA <= register + step * i <= 0xFD else self.registers[register + step * i] for i in range(length)
        ]

    def _write(self, register: int, value: int) -> None:
        assert 0 <= value <= 255, value
        pulsing = any(self.width_us(led) is not None for led in range(16))
        if register == 0x00 and value & 0x10 and not self.asleep:
            if pulsing or time.monotonic() - self._off_since_s < self.frame_s:
                self.torn_pulses += 1
        if register == 0xFE and not self.asleep:
            return  # blocked by the chip
        if register == 0xFD:
            if pulsing:
                self._off_since_s = time.monotonic()
            for led in range(16):
                self.registers[0x09 + 4 * led] = value & 0x1F
            return
        self.registers[register] = value


class FakeBus:
    """smbus2's SMBus with one chip at 0x40. `fail` holds the errnos of the next transactions, 0 for none."""

    def __init__(self, chip: FakePca9685, device: Path) -> None:
        self.chip = chip
        self.fail: list[int] = []
        self.written: list[tuple[int, list[int]]] = []
        device.touch()
        self.fd: int | None = os.open(device, os.O_RDWR)

    def read_byte_data(self, i2c_addr: int, register: int) -> int:
        return self.read_i2c_block_data(i2c_addr, register, 1)[0]

    def write_byte_data(self, i2c_addr: int, register: int, value: int) -> None:
        self.write_i2c_block_data(i2c_addr, register, [value])

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int) -> list[int]:
        self._check(i2c_addr)
        return self.chip.read(register, length)

    def write_i2c_block_data(self, i2c_addr: int, register: int, data: Sequence[int]) -> None:
        self._check(i2c_addr)
        self.written.append((register, list(data)))
        self.chip.write(register, data)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
        self.fd = None

    def _check(self, address: int) -> None:
        if self.fd is None:
            raise _os_error(errno.EBADF)
        if self.fail and (number := self.fail.pop(0)):
            raise _os_error(number)
        if address != 0x40:
            raise _os_error(errno.EREMOTEIO)


class LgpioError(Exception):
    """As lgpio.error: a bare Exception."""


class FakeGpio:
    """The module RPi.GPIO in one process; `claims` is the kernel's table of pins, shared by all processes."""

    BCM, OUT, LOW = 11, 0, 0

    def __init__(self, claims: dict[int, FakeGpio] | None = None) -> None:
        self.claims = {} if claims is None else claims
        self.mode: int | None = None
        self.pulses: dict[int, float] = {}  # us, by pin
        self.calls: list[str] = []

    def setwarnings(self, on: bool) -> None:
        self.calls.append("setwarnings")

    def setmode(self, mode: int) -> None:
        self.mode = mode

    def setup(self, pin: int, direction: int, initial: int) -> None:
        assert self.mode == self.BCM and direction == self.OUT and initial == self.LOW
        if self.claims.setdefault(pin, self) is not self:
            raise LgpioError("'GPIO busy'")

    def PWM(self, pin: int, frequency_hz: float) -> FakePwm:  # noqa: N802 - the library's name
        assert self.claims[pin] is self
        return FakePwm(self, pin, frequency_hz)


class FakePwm:
    """A software PWM, which stops when it is collected, as both libraries' do."""

    def __init__(self, gpio: FakeGpio, pin: int, frequency_hz: float) -> None:
        self._gpio, self._pin, self._frequency_hz = gpio, pin, frequency_hz

    def start(self, duty_percent: float) -> None:
        self.ChangeDutyCycle(duty_percent)

    def ChangeDutyCycle(self, duty_percent: float) -> None:  # noqa: N802 - the library's name
        if self._gpio.claims.get(self._pin) is not self._gpio:
            raise LgpioError("'GPIO not allocated'")
        self._gpio.pulses[self._pin] = duty_percent / 100 / self._frequency_hz * 1e6

    def __del__(self) -> None:
        self._gpio.pulses.pop(self._pin, None)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
