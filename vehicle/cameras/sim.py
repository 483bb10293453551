"""The simulated car's camera: pictures come from the world process over ZeroMQ."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import GARBAGE, CameraFault
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

SOCKET = "world.frames"
MAX_SIDE = 8192
_QUEUE = 2
_KEYS = {"seq", "stamp_s", "height", "width"}


class SimCamera:
    """Subscribes to the world's pictures: JSON ``{"seq","stamp_s","height","width"}`` and the gray bytes.

    A world that does not run gives no pictures, as a camera without a cable; one that starts later is found.

    Raises:
        CameraError: the path of the socket is too long or not usable.
    """

    def __init__(self, runtime: Path) -> None:
        self._address = f"ipc://{runtime / SOCKET}"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, _QUEUE)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self.close()
            raise CameraError(
                f"{self._address} cannot be used: {error}",
                cause="the runtime folder's path is too long for a socket (107 bytes)",
                next_step="choose a short --runtime folder, for instance below /tmp or /run",
            ) from error

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`; of several waiting pictures the newest.

        Raises:
            StaleFrame: none came in time.
            CameraFault: "garbage": a message that is no picture.
        """
        try:
            if not self._socket.poll(max(0, round(timeout_s * 1e3))):
                raise StaleFrame(
                    f"no picture came from the simulated car within {timeout_s:.2f} s",
                    cause="the world process does not run, or has stopped",
                    next_step="start it with hotlap drive",
                )
            parts = self._socket.recv_multipart()
            with contextlib.suppress(zmq.Again):
                while True:
                    parts = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise CameraError(f"{self._address}: {error}", cause="the camera was closed") from error
        return _frame(parts)

    def facts(self) -> dict[str, Any]:
        """Its name and address; size and rate are the world's."""
        return {"name": "sim", "address": self._address}

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
        with contextlib.suppress(zmq.ZMQError):
            self._context.term()


def _frame(parts: list[bytes]) -> Frame:
    try:
        header_bytes, raw = parts
        header = json.loads(header_bytes)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        if not isinstance(header, dict) or set(header) != _KEYS:
            raise ValueError(f"the header is not an object of {sorted(_KEYS)}")
        seq, height, width = (header[key] for key in ("seq", "height", "width"))
        if any(type(number) is not int or number < 0 for number in (seq, height, width)):
            raise ValueError("seq, height and width are not whole numbers")
        if type(header["stamp_s"]) not in (int, float):
            raise ValueError("stamp_s is not a number")
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE) or len(raw) != height * width:
            raise ValueError(f"{len(raw)} bytes for {height} rows of {width}")
    except ValueError as error:  # also of parts that are not two
        raise CameraFault(
            GARBAGE, f"what came from the simulated car is no picture: {error}", cause="another version of hotlap"
        ) from error
    # The array is a view of the message's bytes, which nobody else has and nobody can write to.
    return Frame(np.frombuffer(raw, dtype=np.uint8).reshape(height, width), float(header["stamp_s"]), seq)


def open_sim(config: CameraConfig, runtime: Path) -> SimCamera:
    """The entry point ``sim``."""
    return SimCamera(runtime)
