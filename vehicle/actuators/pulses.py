"""The bounds that every back-end checks before it touches its device."""

from __future__ import annotations

import math

from vehicle.actuators.base import MAX_PULSE_US, MIN_PULSE_US
from vehicle.errors import ActuatorError


def check_pulses(steering_us: float, throttle_us: float) -> None:
    """Refuse a pulse that no servo or ESC takes.

    Raises:
        ActuatorError: NaN, infinite, or outside 500..2500 us. It is never clamped: a wrong number means that whoever
            computed it is wrong, and the nearest end of the range is full throttle.
    """
    for name, pulse_us in (("steering", steering_us), ("throttle", throttle_us)):
        if not (math.isfinite(pulse_us) and MIN_PULSE_US <= pulse_us <= MAX_PULSE_US):
            raise ActuatorError(
                f"a {name} pulse of {pulse_us} us is refused: it must be {MIN_PULSE_US:g} to {MAX_PULSE_US:g} us",
                cause="a calibration that is damaged, or a command that was not checked",
                next_step="hotlap calibrate",
            )
