"""The one protocol of all actuators. Only the gate and its guard write pulses."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from calibration.mapping import Calibration

PERIOD_S = 0.02  # of servo and ESC frames, 50 Hz
MIN_PULSE_US, MAX_PULSE_US = 500.0, 2500.0  # no servo or ESC takes more; a calibration lies well inside


@runtime_checkable
class Actuator(Protocol):
    """What a back-end has; the entry-point group is ``hotlap.actuators``: a callable of an `ActuatorConfig`.

    Opening one writes nothing: the first pulse is the gate's, and it is neutral.
    """

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """Set both pulse widths, in microseconds; they repeat every 20 ms until the next call.

        Args:
            cause: why, one word for the trace: "drive", "neutral:stale_intent", ...

        Raises:
            ActuatorError: not written, or not read back as written; out of 500..2500 us.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What is known of it: its name, and battery or supply voltage where they are measured."""
        ...

    def close(self) -> None:
        """Release the device and leave its output as it is: the caller has written neutral. May be called twice."""
        ...


@runtime_checkable
class Configurable(Protocol):
    """What an actuator has besides, where its device itself must know neutral and the limits."""

    def configure(self, calibration: Calibration) -> None:
        """Take them from a calibration: before the first write, and again for another calibration. Does not wait.

        Raises:
            ActuatorError: the device cannot have such limits.
        """
        ...
