"""A folder of pictures as a camera: replayed in order of name, at the configured rate, on the monotonic clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vehicle.cameras.base import Frame
from vehicle.cameras.timing import Pacer
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class FolderCamera:
    """Pictures are read from the disk one at a time; stamps are of the moment of release.

    Raises:
        CameraError: no such folder, or no picture in it.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._folder = Path(config.source).expanduser()
        try:
            found = self._folder.iterdir() if config.source else ()
            self._paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise CameraError(
                f"{self._folder} cannot be read: {error.strerror or error}",
                next_step="set source in the [camera] table of car.toml to a folder of pictures",
            ) from error
        if not self._paths:
            raise CameraError(
                f"there is no picture ({', '.join(SUFFIXES)}) in {config.source or 'an empty source'!r}",
                next_step="set source in the [camera] table of car.toml to a folder of pictures",
            )
        self._loop = config.loop
        self._rate_hz = config.rate_hz
        self._pacer = Pacer(config.rate_hz)
        self._seq = 0

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`; the end of a folder that is not looped is a CameraError."""
        if not self._loop and self._seq >= len(self._paths):
            raise CameraError(
                f"all {len(self._paths)} pictures of {self._folder} have been shown",
                next_step="set loop = true in the [camera] table of car.toml to begin again",
            )
        stamp_s = self._pacer.wait(timeout_s)
        path = self._paths[self._seq % len(self._paths)]
        pixels = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
        if pixels is None:
            raise CameraError(
                f"{path} is no picture",
                cause="the file is damaged, or is something else by another name",
                next_step="remove it, or save it again as PNG",
            )
        frame = Frame(np.asarray(pixels, dtype=np.uint8), stamp_s, self._seq)
        self._seq += 1
        return frame

    def facts(self) -> dict[str, Any]:
        """Name, folder, number of pictures and rate; the size is that of each picture."""
        return {
            "name": "folder",
            "source": str(self._folder),
            "pictures": len(self._paths),
            "rate_hz": self._rate_hz,
            "loop": self._loop,
        }

    def close(self) -> None:
        """Nothing is held open."""


def open_folder(config: CameraConfig, runtime: Path) -> FolderCamera:
    """The entry point ``folder``."""
    return FolderCamera(config)
