"""A recorder around any actuator: the pulse first, then a line about it."""

from __future__ import annotations

import os
import time
from typing import Any

from calibration.mapping import Calibration
from vehicle.actuators.base import Actuator, Configurable
from vehicle.trace import TraceWriter


class Recorder:
    """Writes every pulse that the wrapped actuator took to a CSV file (`vehicle.trace`).

    A failing record never touches the pulses: its first error is ``facts()["record_error"]``, and
    ``facts()["record_lost"]`` counts the rows that are missing. A pulse that the actuator refused is not recorded. Gate
    and guard may record to one file: each row is one append.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, actuator: Actuator, path: str | os.PathLike[str]) -> None:
        self._actuator = actuator
        self._trace = TraceWriter(path)

    def configure(self, calibration: Calibration) -> None:
        """See `vehicle.actuators.base.Configurable`; nothing for an actuator that is not."""
        if isinstance(self._actuator, Configurable):
            self._actuator.configure(calibration)

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`."""
        self._actuator.write(steering_us, throttle_us, cause)
        self._trace.row(time.monotonic(), steering_us, throttle_us, cause)

    def facts(self) -> dict[str, Any]:
        """Those of the wrapped actuator, and the file, its first error (or None) and the number of lost rows."""
        record = {"record": self._trace.path, "record_error": self._trace.error, "record_lost": self._trace.lost}
        return {**self._actuator.facts(), **record}

    def close(self) -> None:
        """Close the actuator, then the file."""
        try:
            self._actuator.close()
        finally:
            self._trace.close()
