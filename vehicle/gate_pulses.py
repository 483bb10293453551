"""The one hand on the actuator: writes pulses, remembers what went wrong, and holds neutral in the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from calibration.mapping import Calibration
from vehicle.actuators.base import PERIOD_S, Actuator, Configurable
from vehicle.errors import HotlapError

HOLD_FRAMES = 12  # at least ten are promised, and the first may fall into a servo frame that has begun


class Pulses:
    """Writes to an actuator; OSErrors (`ActuatorError` is one) are kept, not raised.

    Attributes:
        actuator: what is written to.
        neutral_us: steering centre and throttle neutral, or None without a calibration: then nothing is written.
        error: why the last write failed, None where it did not.
    """

    def __init__(self, actuator: Actuator, calibration: Calibration | None) -> None:
        self.actuator = actuator
        self.error: str | None = None
        self._failing_since_s: float | None = None
        self.calibrate(calibration)

    def calibrate(self, calibration: Calibration | None) -> None:
        """Take the neutral of another calibration, and let an actuator that is configurable take its limits."""
        self.neutral_us = (
            None if calibration is None else (calibration.steering.center_us, calibration.throttle.neutral_us)
        )
        if calibration is not None and isinstance(self.actuator, Configurable):
            try:
                self.actuator.configure(calibration)
            except OSError as error:  # the next write says the same, or is of the configuration before
                self._keep(error)

    def write(self, steering_us: float | None, throttle_us: float | None, cause: str) -> bool:
        """Write both pulses; None writes nothing.

        Returns:
            whether the actuator has taken them; True where there was nothing to write.
        """
        if steering_us is None or throttle_us is None:
            return True
        try:
            self.actuator.write(steering_us, throttle_us, cause)
        except OSError as error:
            self._keep(error)
            return False
        self.error = self._failing_since_s = None
        return True

    def _keep(self, error: OSError) -> None:
        self.error = error.what if isinstance(error, HotlapError) else str(error)
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()

    def neutral(self, cause: str) -> bool:
        """Write calibrated neutral, whatever anybody else thinks."""
        return self.neutral_us is None or self.write(*self.neutral_us, cause)

    def failing_s(self, now_s: float) -> float:
        """For how long no write has worked."""
        return 0.0 if self._failing_since_s is None else now_s - self._failing_since_s

    def hold_neutral(self, every_frame: Callable[[], None], frames: int = HOLD_FRAMES) -> None:
        """The end of a gate: neutral at once, and again for `frames` servo frames, whatever else fails.

        Args:
            every_frame: called after each write, to keep the guard silent.
        """
        due_s = time.monotonic()
        for _ in range(frames if self.neutral_us is not None else 0):
            for call in (lambda: self.neutral("neutral:exit"), every_frame):
                with contextlib.suppress(Exception):  # there is nothing better left to do than to try again
                    call()
            due_s += PERIOD_S
            time.sleep(max(0.0, due_s - time.monotonic()))
