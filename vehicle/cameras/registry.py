"""Finds a camera by its name: hotlap's own from a table, those of others by the entry-point group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vehicle.backends import Backends
from vehicle.cameras.base import Camera, Frame
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError

GROUP = "hotlap.cameras"
Factory = Callable[[CameraConfig, Path], Camera]

BUILT_IN = {
    "sim": "vehicle.cameras.sim:open_sim",
    "v4l2": "vehicle.cameras.opencv:open_v4l2",
    "picamera2": "vehicle.cameras.picamera2:open_picamera2",
    "csi": "vehicle.cameras.opencv:open_csi",
    "http": "vehicle.cameras.mjpeg:open_http",
    "video": "vehicle.cameras.opencv:open_video",
    "folder": "vehicle.cameras.folder:open_folder",
}
_BACKENDS = Backends("camera", GROUP, BUILT_IN, CameraError)


class Rotated:
    """Another camera, mounted upside down: every picture is turned by 180 degrees."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`."""
        frame = self._camera.read(timeout_s)
        return replace(frame, pixels=np.ascontiguousarray(frame.pixels[::-1, ::-1]))

    def facts(self) -> dict[str, Any]:
        """Those of the camera, and ``rotate_180``."""
        return {**self._camera.facts(), "rotate_180": True}

    def close(self) -> None:
        """Release the camera."""
        self._camera.close()


def known_cameras() -> list[str]:
    """The names that `open_camera` takes: hotlap's own, then those that other installed packages bring."""
    return _BACKENDS.known()


def open_camera(config: CameraConfig, runtime: Path) -> Camera:
    """Open ``config.kind``, turned by 180 degrees where ``config.rotate_180`` says so.

    Args:
        runtime: the folder of the local sockets, for the simulated car.

    Raises:
        CameraError: unknown kind, its library is missing, or the device cannot be opened.
    """
    factory: Factory = _BACKENDS.find(config.kind)
    camera = factory(config, runtime)
    _BACKENDS.check(camera, config.kind, Camera, "read, facts or close")
    return Rotated(camera) if config.rotate_180 else camera
