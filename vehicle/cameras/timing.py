"""Time for cameras: a pace for recorded pictures, and whether a device's own stamps can be trusted."""

from __future__ import annotations

import math
import time

from vehicle.errors import StaleFrame

_JUDGED_FRAMES = 5  # the first stamps of some drivers are 0 or of another unit (OpenCV issue 27853)
_PLAUSIBLE_AGE_S = 0.5


class Pacer:
    """Releases one picture per period on absolute deadlines. After a pause it goes on from now, without a burst."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1.0 / rate_hz
        self._next_s: float | None = None

    def wait(self, timeout_s: float) -> float:
        """Sleep until the next picture is due.

        Returns:
            the time that it is then, for the picture's stamp.

        Raises:
            StaleFrame: it is not due within ``timeout_s``, which has passed.
        """
        now_s = time.monotonic()
        due_s = now_s if self._next_s is None else self._next_s
        if due_s - now_s > timeout_s:
            time.sleep(max(0.0, timeout_s))
            raise StaleFrame(f"the next recorded picture is due in {due_s - now_s:.2f} s")
        if due_s > now_s:
            time.sleep(due_s - now_s)
            now_s = time.monotonic()
        late = now_s - due_s > self._period_s
        self._next_s = (now_s if late else due_s) + self._period_s
        return now_s


class DeviceClock:
    """Uses a device's own stamps once its first pictures have shown that they are of `time.monotonic`.

    The stamp of exposure or of the kernel is better than that of arrival: after a pause of this process the pictures
    that waited in the driver are old, and say so.
    """

    def __init__(self) -> None:
        self._ages_s: list[float] = []
        self.trusted: bool | None = None

    def stamp(self, device_s: float, arrival_s: float) -> float:
        """The stamp to use for a picture, in seconds of `time.monotonic`."""
        if self.trusted is None:
            self._ages_s.append(arrival_s - device_s)
            if len(self._ages_s) == _JUDGED_FRAMES:
                later = self._ages_s[1:]
                self.trusted = all(0.0 <= age_s <= _PLAUSIBLE_AGE_S for age_s in later)
        if self.trusted and math.isfinite(device_s):
            return min(device_s, arrival_s)
        return arrival_s
