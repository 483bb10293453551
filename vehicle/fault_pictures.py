"""A camera that shows what it is told to: the publisher of ``world.frames`` while faults are injected."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import zmq

from vehicle.links import endpoint

PERIOD_S = 1 / 30  # not 15 Hz: on a busy machine one picture more or less must not matter
HEIGHT, WIDTH = 120, 160
_AGE_S = 0.01  # of a picture when it is sent
_KEPT = 16  # different pictures, shown in turn
_JOIN_S = 5.0
_HOUR_S = 3600.0
_LATE_S = 0.3

# What `Pictures.show` takes.
FAULTS = (
    "silent", "gone", "frozen", "blank", "bright", "cut_short", "other_size", "no_header", "old", "future", "late",
)  # fmt: skip


class Pictures:
    """Shows noise at 30 Hz to the `sim` camera, good or with a fault."""

    def __init__(self, runtime: Path) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (_KEPT, HEIGHT, WIDTH), dtype=np.uint8)
        self._dark = [(60 + picture // 4).tobytes() for picture in noise]
        self._bright = [(223 + picture // 8).tobytes() for picture in noise]
        self._endpoint = endpoint(runtime, "world.frames")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._fault = ""
        self._seq = self._picture = 0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._bind()
        self._thread = threading.Thread(target=self._run, name="fault-pictures", daemon=True)
        self._thread.start()

    def show(self, fault: str) -> float:
        """Show the first picture with this fault now, and only such from now on.

        Returns:
            the moment just before, of time.monotonic.
        """
        assert fault in FAULTS, fault
        with self._lock:
            begun_s = time.monotonic()
            self._fault = fault
            if fault == "gone" and self._socket is not None:
                self._socket.close()
                self._socket = None
            self._send()
            return begun_s

    def mend(self) -> None:
        """Show good pictures again."""
        with self._lock:
            self._fault = ""
            if self._socket is None:
                self._bind()

    def close(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(_JOIN_S)
        self._context.destroy(linger=0)

    def _bind(self) -> None:
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(self._endpoint)

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            with self._lock:
                self._send()

    def _send(self) -> None:
        fault = self._fault
        if self._socket is None or fault in ("silent", "gone"):
            return
        self._seq += 1
        self._picture += fault != "frozen"
        pixels = (self._bright if fault == "bright" else self._dark)[self._picture % _KEPT]
        height, stamp_s = HEIGHT, time.monotonic() - _AGE_S
        if fault == "blank":
            pixels = bytes([90]) * (HEIGHT * WIDTH)
        elif fault == "cut_short":
            pixels = pixels[: len(pixels) // 3]
        elif fault == "other_size":
            height, pixels = HEIGHT // 2, pixels[: len(pixels) // 2]
        stamp_s += {"old": -_HOUR_S, "future": _HOUR_S, "late": -_LATE_S}.get(fault, 0.0)
        header = json.dumps({"seq": self._seq, "stamp_s": stamp_s, "height": height, "width": WIDTH})
        self._socket.send_multipart([b"" if fault == "no_header" else header.encode(), pixels])
