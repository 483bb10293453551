"""What the simulated car does, for the console: there is no car on the table whose wheels one could look at."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import zmq

from vehicle.links import endpoint, json_object

OLD_S = 1.0  # the world reports at 10 Hz
_SHOWN = ("steering_deg", "motor_mps", "speed_mps", "laps", "lap_times_s", "off_track")


class ConsoleWorld:
    """The newest report of the world (``world.facts``). Nothing where the car is a real one.

    Args:
        simulated: whether there may be a world at all.

    Raises:
        ConfigError: the path of the socket is too long.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], runtime: Path, simulated: bool) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Any] = {}
        self._socket: zmq.Socket[bytes] | None = None
        if simulated:
            self._socket = context.socket(zmq.SUB)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.CONFLATE, 1)  # only the newest is of use
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
            self._socket.connect(endpoint(runtime, "world.facts"))

    def newest(self) -> dict[str, Any] | None:
        """What servo and speed controller make of the pulses, and what a marshal sees; None without a fresh report.

        Returns:
            {"steering_deg", "motor_mps", "speed_mps", "laps", "lap_times_s", "off_track"}; + is left, + is forward.
        """
        if self._socket is None:
            return None
        with self._lock, contextlib.suppress(zmq.Again):
            self._newest = json_object(self._socket.recv(zmq.NOBLOCK)) or {}
        stamp_s = self._newest.get("stamp_s")
        if not isinstance(stamp_s, (int, float)) or abs(time.monotonic() - stamp_s) > OLD_S:
            return None
        return {name: self._newest.get(name) for name in _SHOWN}

    def close(self) -> None:
        """Close the socket; nobody asks any more."""
        with self._lock:
            if self._socket is not None:
                self._socket.close(linger=0)
                self._socket = None
