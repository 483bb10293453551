"""A Raspberry Pi's CSI camera through picamera2, which comes with Raspberry Pi OS.

Not tested on a Pi: written against picamera2's manual and source (0.3), and tested with a stand-in of the few calls
that are used here.
"""

from __future__ import annotations

import importlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from vehicle.cameras.base import Frame
from vehicle.cameras.timing import DeviceClock
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

_BUFFERS = 4
# What picamera2 raises for a camera that is missing, busy or asked for too much; it has no error class of its own.
_ERRORS = (RuntimeError, IndexError, KeyError, OSError, ValueError)


class PiCamera:
    """The first CSI camera, or number ``source``.

    Raises:
        CameraError: picamera2 is not installed, there is no camera, or it refuses size or rate.
    """

    def __init__(self, config: CameraConfig) -> None:
        library = _library()
        if config.source and not config.source.isdecimal():
            raise CameraError(
                f"source is {config.source!r}; for picamera2 it is the number of a camera, or empty",
                next_step="rpicam-hello --list-cameras lists them",
            )
        self._size = (config.width - config.width % 2, config.height - config.height % 2)  # picamera2 wants even ones
        self._rate_hz = config.rate_hz
        self._clock = DeviceClock()
        self._seq = 0
        self._job: Any = None
        self._done = threading.Event()
        self._camera: Any = None
        try:
            self._camera = library.Picamera2(int(config.source or 0))
            # "RGB888" is libcamera's name for bytes in the order blue, green, red: what OpenCV calls BGR.
            # queue=False: a request is answered by a picture taken after it, not by one that has waited.
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"format": "RGB888", "size": self._size},
                    buffer_count=_BUFFERS,
                    controls={"FrameRate": config.rate_hz},
                    queue=False,
                )
            )
            self._camera.start()
        except _ERRORS as error:
            self.close()
            raise CameraError(
                f"the Pi's camera cannot be started: {error}",
                cause="no camera, its cable is loose, another program uses it, or a size that the sensor does not have",
                next_step="rpicam-hello --list-cameras; dmesg | grep -i camera",
            ) from error

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`. A request that was not answered in time stays for the next read."""
        try:
            if self._job is None:
                self._done.clear()
                self._job = self._camera.capture_request(wait=False, signal_function=lambda job: self._done.set())
            if not self._done.wait(timeout_s):
                raise StaleFrame(
                    f"the Pi's camera gave no picture within {timeout_s:.2f} s",
                    cause="its cable is loose, or the sensor hangs",
                    next_step="dmesg | tail; switch the Pi off before touching the cable",
                )
            job, self._job = self._job, None
            request = job.get_result()
            arrival_s = time.monotonic()
            try:
                pixels = request.make_array("main")  # a copy
                metadata = request.get_metadata()
            finally:
                request.release()
        except _ERRORS as error:
            if isinstance(error, StaleFrame):
                raise
            raise CameraError(f"the Pi's camera failed: {error}", next_step="dmesg | tail") from error
        # Nanoseconds of the kernel's clock at the first row; libcamera does not promise which clock (its issue 254).
        stamp_s = self._clock.stamp(float(metadata.get("SensorTimestamp", 0)) / 1e9, arrival_s)
        frame = Frame(np.asarray(pixels), stamp_s, self._seq)
        self._seq += 1
        return frame

    def facts(self) -> dict[str, Any]:
        """Name, model of the sensor, size and rate asked for."""
        return {
            "name": "picamera2",
            "sensor": self._camera.camera_properties.get("Model"),
            "width": self._size[0],
            "height": self._size[1],
            "rate_hz": self._rate_hz,
        }

    def close(self) -> None:
        """Release the camera. Waits for it where a request is under way, for ever where the sensor hangs."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.stop()
            camera.close()


def _library() -> Any:
    try:
        return importlib.import_module("picamera2")
    except ImportError as error:
        raise CameraError(
            f"picamera2 cannot be imported: {error}",
            cause="it comes from apt, and a venv does not see what apt installed unless it was made to",
            next_step="sudo apt install python3-picamera2, and make the venv with --system-site-packages",
        ) from error


def open_picamera2(config: CameraConfig, runtime: Path) -> PiCamera:
    """The entry point ``picamera2``."""
    return PiCamera(config)
