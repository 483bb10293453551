"""The state as server-sent events, put into words once for all who listen: a class has thirty phones open."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

from calibration.car_link import CarLink
from calibration.video import Slots, closing

EVENTS_EVERY_S = 0.2
_SHARED_S = 0.1  # words so old will do for the next listener


class Events:
    """What each listener is told, five times a second. One costs a thread of the server, as a viewer does.

    Args:
        stopping: set when the console ends.
    """

    def __init__(self, link: CarLink, slots: Slots, stopping: threading.Event) -> None:
        self._link, self._slots, self._stopping = link, slots, stopping
        self._lock = threading.Lock()
        self._words, self._said_s = b"", float("-inf")

    def stream(self, alive: Callable[[], bool]) -> Iterator[bytes]:
        """Events for as long as `alive` says.

        Raises:
            CarRefused: too_many_viewers; at the call, not at the first event.
        """
        return closing(self._events(alive), self._slots.take())

    def _events(self, alive: Callable[[], bool]) -> Iterator[bytes]:
        yield b"retry: 1000\n\n"
        while alive():
            yield self._newest()
            if self._stopping.wait(EVENTS_EVERY_S):
                return

    def _newest(self) -> bytes:
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._said_s >= _SHARED_S:
                self._words = b"data: " + json.dumps(self._link.state(), allow_nan=False).encode() + b"\n\n"
                self._said_s = now_s
            return self._words
