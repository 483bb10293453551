"""Software PWM on two pins of a Raspberry Pi, with RPi.GPIO (up to Pi 4) or its drop-in rpi-lgpio (Pi 5 too).

The pulses are timed by a thread of the library, so they jitter with the load; `sysfs_pwm` on the same pins does not.
Use this to try a car without changing its boot configuration.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from vehicle.actuators.base import PERIOD_S
from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

# PWM objects by pin. Python stops the pulses of one that it collects, and closing must leave the output as it is, so
# they stay here until the process ends, which ends the pulses in any case. Opening again uses them again.
_PULSING: dict[int, Any] = {}

_PI_5 = (
    "this is no Raspberry Pi, or it is a Pi 5, where RPi.GPIO does not work",
    "Pi 5: pip uninstall RPi.GPIO && pip install 'hotlap[rpi5]' (rpi-lgpio, which has the same module name)",
)


class RpiGpio:
    """Two pins, claimed by the first `write`: opening takes nothing from a process that is driving.

    Gate and guard may both have it open, but only one can pulse. With rpi-lgpio the kernel gives a pin to one process:
    the guard's write is an ActuatorError until the gate's process has ended, and each write tries again. With
    RPi.GPIO nothing keeps two processes from pulsing the same pin, and a hung gate's thread goes on, so
    ``facts()["shared"]`` is false for both: end the first process (SIGKILL), then write.

    Raises:
        ActuatorError: both pins are the same.
    """

    def __init__(self, config: ActuatorConfig, gpio: Any) -> None:
        if config.steering_pin == config.throttle_pin:
            raise ActuatorError(
                f"steering and throttle are both on GPIO {config.steering_pin}",
                next_step="set actuator.steering_pin and throttle_pin in car.toml (BCM numbers)",
            )
        self._gpio = gpio
        self._pins = (config.throttle_pin, config.steering_pin)

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`. Nothing can be read back from a software PWM."""
        check_pulses(steering_us, throttle_us)
        for pin, pulse_us in zip(self._pins, (throttle_us, steering_us), strict=True):
            duty_percent = pulse_us / (PERIOD_S * 1e6) * 100.0
            try:
                if pin in _PULSING:
                    _PULSING[pin].ChangeDutyCycle(duty_percent)
                else:
                    self._claim(pin, duty_percent)
            except _library_errors() as error:
                raise self._refused(pin, error) from error

    def facts(self) -> dict[str, Any]:
        """Its name and pins. The pulses end with the process; what the ESC does without any is the ESC's matter."""
        throttle, steering = self._pins
        return {
            "name": "rpi_gpio",
            "fails_safe": False,
            "shared": False,
            "library": getattr(self._gpio, "__file__", None),
            "steering_pin": steering,
            "throttle_pin": throttle,
        }

    def close(self) -> None:
        """Leave the pins pulsing until this process ends: the library cannot hand them on."""

    def _claim(self, pin: int, duty_percent: float) -> None:
        self._gpio.setwarnings(False)  # RPi.GPIO warns of a pin that another process used; that is the guard's case
        self._gpio.setmode(self._gpio.BCM)
        self._gpio.setup(pin, self._gpio.OUT, initial=self._gpio.LOW)
        pwm = self._gpio.PWM(pin, 1.0 / PERIOD_S)
        pwm.start(duty_percent)
        _PULSING[pin] = pwm

    def _refused(self, pin: int, error: Exception) -> ActuatorError:
        what = f"GPIO {pin}: {error}"
        text = str(error).lower()
        if "peripheral base" in text:
            return ActuatorError(what, cause=_PI_5[0], next_step=_PI_5[1])
        if "busy" in text or "not allocated" in text:
            return ActuatorError(
                what,
                cause="another process has the pin (rpi-lgpio gives a pin to one process at a time)",
                next_step="end that process; gpioinfo shows who has the pin",
            )
        if "chip" in text or "permission" in text or "/dev/" in text:
            return ActuatorError(
                what,
                cause="no GPIO chip, or this user is not in the group gpio",
                next_step="ls -l /dev/gpiochip*; sudo usermod -aG gpio $USER, then log in again",
            )
        return ActuatorError(what, cause="the GPIO library refused", next_step="hotlap doctor")


def open_rpi_gpio(config: ActuatorConfig, runtime: Path, role: str) -> RpiGpio:
    """The entry point ``rpi_gpio``.

    Raises:
        ActuatorError: neither RPi.GPIO nor rpi-lgpio works here, or anything that `RpiGpio` raises.
    """
    try:
        gpio = importlib.import_module("RPi.GPIO")
    except ImportError as error:
        raise ActuatorError(
            f"the actuator rpi_gpio needs RPi.GPIO or rpi-lgpio: {error}",
            cause="neither is installed",
            next_step="Pi 4 and older: pip install 'hotlap[rpi]'; Pi 5: pip install 'hotlap[rpi5]'",
        ) from error
    except (RuntimeError, OSError) as error:
        raise ActuatorError(
            f"RPi.GPIO does not work here: {error}",
            cause=_PI_5[0],
            next_step=_PI_5[1],
        ) from error
    return RpiGpio(config, gpio)


def _library_errors() -> tuple[type[Exception], ...]:
    """What the two libraries raise; lgpio's own error is a bare Exception, known only once lgpio is imported."""
    lgpio_error: type[Exception] = getattr(sys.modules.get("lgpio"), "error", RuntimeError)
    return (RuntimeError, ValueError, OSError, lgpio_error)
