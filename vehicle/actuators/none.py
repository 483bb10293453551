"""The actuator of a machine without a car: benchmarks of the pilot, drives over recorded pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig


class NoActuator:
    """Checks pulses as the others do and writes them nowhere; a recorder around it still sees them.

    It holds nothing, so any number of processes may use it at a time.
    """

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`."""
        check_pulses(steering_us, throttle_us)

    def facts(self) -> dict[str, Any]:
        """Its name; nothing moves, so it is fail-safe."""
        return {"name": "none", "fails_safe": True, "shared": True}

    def close(self) -> None:
        """Nothing to release."""


def open_none(config: ActuatorConfig, runtime: Path, role: str) -> NoActuator:
    """The entry point ``none``."""
    return NoActuator()
