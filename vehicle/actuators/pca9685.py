"""A PCA9685 on the I2C bus, driven from here with smbus2 (not through the kernel's driver: that is `sysfs_pwm`).

Registers and sequences: NXP PCA9685 data sheet, Rev. 4, sections 7.3.1 to 7.3.5. The chip has no watchdog: it repeats
its last pulse until someone writes another, cuts its power, or raises its /OE pin (docs/actuators.md).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vehicle.actuators.base import PERIOD_S
from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

MODE1, MODE2, LED0_ON_L, ALL_LED_OFF_H, PRE_SCALE = 0x00, 0x01, 0x06, 0xFD, 0xFE
AUTO_INCREMENT, SLEEP, EXTCLK = 0x20, 0x10, 0x40  # bits of MODE1
TOTEM_POLE = 0x04  # MODE2: not inverted, both outputs change at the STOP of a transaction, low while /OE is high
FULL_OFF = 0x10  # bit 4 of a LEDn_OFF_H
COUNTS = 4096  # of one frame
OSCILLATOR_START_S = 0.0005  # data sheet, 7.3.1: at most 500 us
LONGEST_FRAME_S = COUNTS * 256 / 23e6  # at the slowest prescale and an oscillator 8 % slow


class Bus(Protocol):
    """What is used of smbus2's SMBus."""

    @property
    def fd(self) -> int | None: ...
    def read_byte_data(self, i2c_addr: int, register: int) -> int: ...
    def write_byte_data(self, i2c_addr: int, register: int, value: int) -> None: ...
    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int) -> list[int]: ...
    def write_i2c_block_data(self, i2c_addr: int, register: int, data: Sequence[int]) -> None: ...
    def close(self) -> None: ...


class Pca9685:
    """Two channels of a PCA9685 at 50 Hz; neighbouring channels change in one transaction.

    Opening leaves a chip alone that already runs as it should. Otherwise it switches all sixteen outputs off, waits for
    the frame to end, and only then lets the chip sleep, which setting the frequency needs: a SLEEP within a pulse would
    cut it short. Every write is read back, which also finds a chip that lost its power and came back with its registers
    cleared; after an error the next write checks the chip, and sets it up again if it must.

    Gate and guard may have it open together: each transaction is whole (the kernel locks the bus), and setting up holds
    a lock on the bus's device file, so the second one to open finds a running chip and changes nothing. If both
    write different pulses, the one whose reading back sees the other's gets the error.

    Raises:
        ActuatorError: no chip at the address, it is taken by a kernel driver, the bus fails, or both channels are one.
    """

    def __init__(self, config: ActuatorConfig, bus: Bus) -> None:
        if config.steering_channel == config.throttle_channel:
            raise ActuatorError(
                f"steering and throttle are both channel {config.steering_channel}",
                next_step="set actuator.steering_channel and throttle_channel in car.toml (DeepRacer: 1 and 0)",
            )
        self._config = config
        self._bus = bus
        self._prescale = round(config.oscillator_hz * PERIOD_S / COUNTS) - 1
        self.step_us = (self._prescale + 1) / config.oscillator_hz * 1e6
        self._checked = False
        self._retries = 0
        self._prepare()

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`. The width is rounded to `step_us`, 4.88 us at 25 MHz."""
        check_pulses(steering_us, throttle_us)
        if not self._checked:
            self._prepare()
        self._checked = False
        blocks = self._blocks(self._registers(steering_us), self._registers(throttle_us))
        for register, data in blocks:
            with self._explained():
                found = self._exchange(register, data)
            if found != data:
                raise ActuatorError(
                    f"PCA9685 {self._place()}: wrote {data} to register {register:#04x}, read {found}",
                    cause="the chip lost its power for a moment, the bus is disturbed, or another program writes too",
                    next_step="check the wires and the 3.3 V supply of the PWM board; then hotlap arm",
                )
        self._checked = True

    def facts(self) -> dict[str, Any]:
        """Its name, place, step and retries, and that it goes on pulsing when our processes are dead."""
        return {
            "name": "pca9685",
            "fails_safe": False,
            "shared": True,
            "i2c_bus": self._config.i2c_bus,
            "i2c_address": f"{self._config.i2c_address:#04x}",
            "step_us": round(self.step_us, 3),
            "retries": self._retries,
        }

    def close(self) -> None:
        """Close the bus; the chip goes on with its last pulses."""
        self._bus.close()

    def _exchange(self, register: int, data: list[int]) -> list[int]:
        """Write a block and read it back. One disturbance by the motor is common and is tried once more, in 2 ms."""
        address = self._config.i2c_address
        try:
            self._bus.write_i2c_block_data(address, register, data)
            return list(self._bus.read_i2c_block_data(address, register, len(data)))
        except OSError:
            self._retries += 1
        self._bus.write_i2c_block_data(address, register, data)
        return list(self._bus.read_i2c_block_data(address, register, len(data)))

    def _registers(self, pulse_us: float) -> list[int]:
        """LEDn_ON and LEDn_OFF, low byte first: on at count 0, off after the width."""
        counts = round(pulse_us / self.step_us)
        return [0, 0, counts & 0xFF, counts >> 8]

    def _blocks(self, steering: list[int], throttle: list[int]) -> list[tuple[int, list[int]]]:
        """Transactions as (first register, bytes): one for neighbours, else two, the throttle first."""
        steering_at = LED0_ON_L + 4 * self._config.steering_channel
        throttle_at = LED0_ON_L + 4 * self._config.throttle_channel
        if abs(steering_at - throttle_at) == 4:
            low_first = steering + throttle if steering_at < throttle_at else throttle + steering
            return [(min(steering_at, throttle_at), low_first)]
        return [(throttle_at, throttle), (steering_at, steering)]

    def _prepare(self) -> None:
        address = self._config.i2c_address
        with self._explained(), self._alone():
            mode1 = self._bus.read_byte_data(address, MODE1)
            mode2 = self._bus.read_byte_data(address, MODE2)
            prescale = self._bus.read_byte_data(address, PRE_SCALE)
            if mode1 & EXTCLK:
                raise ActuatorError(
                    f"PCA9685 {self._place()} waits for an external clock (MODE1 is {mode1:#04x}): it gives no pulses",
                    cause="some program set EXTCLK, which only a reset of the chip clears",
                    next_step="switch the PWM board off and on",
                )
            right = not mode1 & SLEEP and mode1 & AUTO_INCREMENT
            if right and mode2 == TOTEM_POLE and prescale == self._prescale:
                self._checked = True
                return
            self._bus.write_byte_data(address, ALL_LED_OFF_H, FULL_OFF)
            if not mode1 & SLEEP:
                time.sleep(LONGEST_FRAME_S)
            # 0x0F keeps the addresses that the chip also answers to. RESTART (bit 7) stays 0: outputs stay off.
            awake = (mode1 & 0x0F) | AUTO_INCREMENT
            if prescale != self._prescale:
                self._bus.write_byte_data(address, MODE1, awake | SLEEP)
                self._bus.write_byte_data(address, PRE_SCALE, self._prescale)
            self._bus.write_byte_data(address, MODE2, TOTEM_POLE)
            self._bus.write_byte_data(address, MODE1, awake)
            time.sleep(OSCILLATOR_START_S)
            found = [self._bus.read_byte_data(address, register) for register in (MODE1, MODE2, PRE_SCALE)]
        wanted = [awake, TOTEM_POLE, self._prescale]
        if found != wanted:
            raise ActuatorError(
                f"PCA9685 {self._place()}: MODE1, MODE2, PRE_SCALE read {found}, not {wanted}",
                cause="another kind of chip answers at this address, or the bus is disturbed",
                next_step=f"i2cdetect -y {self._config.i2c_bus}",
            )
        self._checked = True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that only setting up takes; pulses never wait for it."""
        fd = self._bus.fd
        if fd is None:
            raise OSError(errno.EBADF, "the bus is closed")
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the bus's OSError into one that names chip, cause and cure."""
        try:
            yield
        except ActuatorError:
            raise
        except OSError as error:
            what = f"PCA9685 {self._place()}: {error.strerror or error} (errno {error.errno})"
            raise ActuatorError(what, **_why(self._config, error.errno)) from error

    def _place(self) -> str:
        return f"at {self._config.i2c_address:#04x} on /dev/i2c-{self._config.i2c_bus}"


def open_pca9685(config: ActuatorConfig, runtime: Path, role: str) -> Pca9685:
    """The entry point ``pca9685``.

    Raises:
        ActuatorError: smbus2 or the bus is missing, no permission, or anything that `Pca9685` raises.
    """
    try:
        from smbus2 import SMBus
    except ImportError as error:
        raise ActuatorError(
            f"the actuator pca9685 needs the package smbus2: {error}",
            cause="the base install does without it",
            next_step="pip install 'hotlap[rpi]'  (Pi 5: hotlap[rpi5], Jetson: hotlap[jetson])",
        ) from error
    try:
        bus = SMBus(config.i2c_bus)
    except OSError as error:
        device = f"/dev/i2c-{config.i2c_bus}"
        raise ActuatorError(
            f"{device} cannot be opened: {error.strerror or error}", **_why(config, error.errno)
        ) from error
    try:
        return Pca9685(config, bus)
    except BaseException:
        bus.close()
        raise


def _why(config: ActuatorConfig, number: int | None) -> dict[str, str]:
    """Cause and next step of an errno that an I2C bus gives."""
    if number in (errno.ENODEV, errno.ENXIO, errno.EREMOTEIO):
        return {
            "cause": "no chip answers at this address: no power, a loose wire, or another address or bus",
            "next_step": f"i2cdetect -y {config.i2c_bus}, then set actuator.i2c_bus and i2c_address in car.toml",
        }
    if number == errno.EBUSY:
        return {
            "cause": "the kernel's own driver holds the chip (dtoverlay=i2c-pwm-pca9685a)",
            "next_step": 'set actuator.kind = "sysfs_pwm" in car.toml, or remove that overlay and reboot',
        }
    if number == errno.ENOENT:
        return {
            "cause": "the I2C bus is not switched on, or has another number",
            "next_step": "ls /dev/i2c-*; Pi: sudo raspi-config nonint do_i2c 0",
        }
    if number in (errno.EACCES, errno.EPERM):
        return {
            "cause": "this user is not in the group i2c",
            "next_step": "sudo usermod -aG i2c $USER, then log in again",
        }
    return {  # EIO, ETIMEDOUT and what else a disturbed bus gives
        "cause": "the bus is disturbed: a loose or long wire, a missing pull-up, a supply that dips when motors start",
        "next_step": "check wires and supply; a slower bus helps: dtparam=i2c_arm_baudrate=100000",
    }
