"""The mapping of a calibration as points of a curve, for drawing and for tables: simulator units to pulses."""

from __future__ import annotations

from calibration.mapping import speed_pulse_us, steering_pulse_us
from calibration.values import Calibration

Curve = list[tuple[float, float]]


def steering_curve(calibration: Calibration, samples: int) -> Curve:
    """(degrees, microseconds) from full right to full left, evenly, both ends exactly.

    Raises:
        CalibrationError: the calibration does not hold together.
    """
    limit_deg = calibration.steering.max_deg
    return [(deg, steering_pulse_us(calibration, deg)) for deg in _between(-limit_deg, limit_deg, samples)]


def speed_curve(calibration: Calibration, model_max_mps: float, samples: int) -> Curve:
    """(m/s, microseconds) over the measured speeds; where none were measured, of a model with this greatest speed.

    Raises:
        CalibrationError: the calibration does not hold together, or the greatest speed is not above 0.
    """
    speeds = [0.0, *(mps for mps, _ in calibration.throttle.curve)]
    low_mps, high_mps = (min(speeds), max(speeds)) if len(speeds) > 1 else (-model_max_mps, model_max_mps)
    return [
        (mps, speed_pulse_us(calibration, mps, model_max_mps=model_max_mps))
        for mps in _between(low_mps, high_mps, samples)
    ]


def _between(low: float, high: float, samples: int) -> list[float]:
    return [low + (high - low) * i / (samples - 1) for i in range(samples - 1)] + [high]
