"""From what the source in control wants to pulses, within the slew limits. Pure; whether it may, is not decided here.

Steering turns at a limited rate both ways. The throttle rises at a limited rate and falls at once: a car may always
slow down as fast as it can.
"""

from __future__ import annotations

import math

from calibration.errors import CalibrationError
from calibration.mapping import Calibration, speed_pulse_us, steering_pulse_us, throttle_pulse_us
from vehicle.arming import Limits
from vehicle.controls import Manual
from vehicle.messages import Intent

_EDGE_US = 1e-6  # of rounding in the mapping


class Motion:
    """What is commanded now, and so where the slew limits start from."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.rest()

    def rest(self) -> None:
        """Straight and standing; to be called whenever neutral is written."""
        self.steering_deg = 0.0
        self.speed_mps = 0.0  # after the cap
        self.throttle = 0.0  # after the cap

    def by_intent(self, calibration: Calibration, intent: Intent, cap: float, step_s: float) -> tuple[float, float]:
        """Steering and throttle pulse, in microseconds, `step_s` seconds after the last ones; never reverse.

        Raises:
            CalibrationError: the calibration has no such pulse.
        """
        self._steer(calibration, intent.steering_deg, step_s)
        step_mps = self._limits.acceleration_mps2 * step_s
        self.speed_mps = slew_up(self.speed_mps, intent.speed_mps * cap, step_mps)
        asked_mps = 0.0 if cap <= 0.0 else min(self.speed_mps / cap, intent.speed_mps, intent.model_max_mps)
        throttle_us = speed_pulse_us(calibration, asked_mps, model_max_mps=intent.model_max_mps, cap=cap)
        throttle = calibration.throttle
        return self._steering_us(calibration), _between(throttle_us, throttle.neutral_us, throttle.forward_us)

    def by_hand(self, calibration: Calibration, manual: Manual, cap: float, step_s: float) -> tuple[float, float]:
        """Steering and throttle pulse, as `by_intent`; reverse is allowed."""
        self._steer(calibration, manual.steering * calibration.steering.max_deg, step_s)
        step = self._limits.acceleration_mps2 / self._limits.max_speed_mps * step_s
        self.throttle = slew_up(self.throttle, manual.throttle * cap, step)
        throttle_us = throttle_pulse_us(calibration, self.throttle)
        throttle = calibration.throttle
        return self._steering_us(calibration), _between(throttle_us, throttle.reverse_us, throttle.forward_us)

    def _steer(self, calibration: Calibration, target_deg: float, step_s: float) -> None:
        limit_deg = calibration.steering.max_deg
        target_deg = max(-limit_deg, min(limit_deg, target_deg))
        step_deg = self._limits.steering_slew_deg_per_s * step_s
        self.steering_deg = max(self.steering_deg - step_deg, min(self.steering_deg + step_deg, target_deg))

    def _steering_us(self, calibration: Calibration) -> float:
        steering = calibration.steering
        return _between(steering_pulse_us(calibration, self.steering_deg), steering.left_us, steering.right_us)


def slew_up(now: float, target: float, step: float) -> float:
    """`target`, but no more than `step` further from zero than `now`; the other direction begins at zero."""
    if now * target < 0.0:
        now = 0.0
    return math.copysign(min(abs(target), abs(now) + step), target)


def _between(pulse_us: float, one_us: float, other_us: float) -> float:
    """The pulse, if it lies between the two; the last check before a pulse leaves, whatever the mapping did."""
    if not min(one_us, other_us) - _EDGE_US <= pulse_us <= max(one_us, other_us) + _EDGE_US:
        raise CalibrationError(
            f"a pulse of {pulse_us} us is outside of {one_us} to {other_us} us",
            cause="the calibration is damaged",
            next_step="hotlap calibrate",
        )
    return pulse_us
