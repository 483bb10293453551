"""Finds a camera by its name: hotlap's own from a table, those of others by the entry-point group."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from vehicle.cameras.base import Camera, Frame
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError

GROUP = "hotlap.cameras"
Factory = Callable[[CameraConfig, Path], Camera]

# setup.cfg lists the same as entry points. This table comes first, so that a plain checkout, whose installed metadata
# may be older than its code, finds them too, and so that no other package can take the place of one of them.
BUILT_IN = {
    "sim": "vehicle.cameras.sim:open_sim",
    "v4l2": "vehicle.cameras.opencv:open_v4l2",
    "picamera2": "vehicle.cameras.picamera2:open_picamera2",
    "csi": "vehicle.cameras.opencv:open_csi",
    "http": "vehicle.cameras.mjpeg:open_http",
    "video": "vehicle.cameras.opencv:open_video",
    "folder": "vehicle.cameras.folder:open_folder",
}


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
    others = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
    return [*BUILT_IN, *sorted(others - BUILT_IN.keys())]


def open_camera(config: CameraConfig, runtime: Path) -> Camera:
    """Open ``config.kind``, turned by 180 degrees where ``config.rotate_180`` says so.

    Args:
        runtime: the folder of the local sockets, for the simulated car.

    Raises:
        CameraError: unknown kind, its library is missing, or the device cannot be opened.
    """
    camera = _factory(config.kind)(config, runtime)
    if not isinstance(camera, Camera):
        raise CameraError(
            f"camera {config.kind!r} gave a {type(camera).__name__}, which lacks read, facts or close",
            cause="a package that was made for another version of hotlap",
            next_step=f"pip list, and look for who brings the entry point {GROUP}: {config.kind}",
        )
    return Rotated(camera) if config.rotate_180 else camera


def _factory(kind: str) -> Factory:
    target = BUILT_IN.get(kind)
    if target is not None:
        module, _, function = target.partition(":")
        return cast(Factory, getattr(importlib.import_module(module), function))
    for entry in importlib.metadata.entry_points(group=GROUP, name=kind):
        try:
            loaded: Any = entry.load()
        except (ImportError, AttributeError) as error:
            raise CameraError(
                f"camera {kind!r} ({entry.value}) cannot be loaded: {error}",
                cause="its package is installed in part, or needs another one",
                next_step="pip check",
            ) from error
        return cast(Factory, loaded)
    known = known_cameras()
    near = difflib.get_close_matches(kind, known, n=1, cutoff=0.0)
    raise CameraError(
        f"unknown camera.kind {kind!r}; known: {', '.join(known)}",
        cause="a misspelled name, or a package of cameras that is not installed",
        next_step=f"the nearest known one is {near[0]!r}" if near else "",
    )
