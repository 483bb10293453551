"""Cameras through OpenCV: USB and other V4L2 devices, CSI cameras of a Jetson by GStreamer, and video files.

OpenCV cannot be told how long a read may take: on a device that has stalled it waits for 10 s (V4L2) or 30 s
(GStreamer) and then fails. That is the grabber's thread, though; the reader's `newest` says in time that it is stale.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vehicle.cameras.base import Frame
from vehicle.cameras.timing import DeviceClock, Pacer
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError

_DEVICES = Path("/dev")


class LiveCamera:
    """A device that OpenCV has opened.

    Args:
        kernel_stamps: the back-end tells when the kernel got a picture (V4L2 does).
    """

    def __init__(self, name: str, source: str, capture: cv2.VideoCapture, *, kernel_stamps: bool) -> None:
        self._name, self._source, self._capture = name, source, capture
        self._clock = DeviceClock() if kernel_stamps else None
        self._seq = 0

    def read(self, timeout_s: float) -> Frame:
        """The next picture; may take longer than ``timeout_s``, see above.

        Raises:
            CameraError: the device is gone, or OpenCV gave up waiting for it.
        """
        pixels = _next(self._capture)
        stamp_s = time.monotonic()
        if pixels is None:
            raise CameraError(
                f"{self._source} gives no more pictures",
                cause="the cable was pulled, another program took the device, or its driver hangs",
                next_step="plug it in again; dmesg | tail says what the kernel saw",
            )
        if self._clock is not None:
            stamp_s = self._clock.stamp(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, stamp_s)
        frame = Frame(pixels, stamp_s, self._seq)
        self._seq += 1
        return frame

    def facts(self) -> dict[str, Any]:
        """Name, source, and the size and rate that the device has agreed to."""
        return {
            "name": self._name,
            "source": self._source,
            "width": int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "rate_hz": self._capture.get(cv2.CAP_PROP_FPS),
            "backend": self._capture.getBackendName(),
        }

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def open_v4l2(config: CameraConfig, runtime: Path) -> LiveCamera:
    """The entry point ``v4l2``: ``source`` is a device (``/dev/video0``, ``/dev/v4l/by-id/NAME``), a number, or empty.

    Motion JPEG is asked for: over USB 2 a camera reaches its full rate only with it, and DeepRacer's has it.

    Raises:
        CameraError: no such device, no permission, or it is no camera or busy.
    """
    device = _device(config.source)
    number = int(device.name.removeprefix("video"))
    capture = cv2.VideoCapture(number, cv2.CAP_V4L2)
    if capture.isOpened():
        for setting, value in (
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            (cv2.CAP_PROP_FRAME_WIDTH, config.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, config.height),
            (cv2.CAP_PROP_FPS, config.rate_hz),
            (cv2.CAP_PROP_BUFFERSIZE, 1),  # a picture that waits in the driver is old when it is read
        ):
            capture.set(setting, value)  # a device that cannot do it takes the nearest; facts() has what it took
        return LiveCamera("v4l2", str(device), capture, kernel_stamps=True)
    capture.release()
    raise CameraError(
        f"{device} cannot be opened as a camera",
        cause="another program uses it, or it is the second, metadata device of a camera",
        next_step=f"fuser {device} says who has it; v4l2-ctl --list-devices lists the cameras",
    )


def _device(source: str) -> Path:
    wanted = source or "/dev/video0"
    device = _DEVICES / f"video{wanted}" if wanted.isdecimal() else Path(wanted)
    target = Path(os.path.realpath(device))  # OpenCV takes a number, not the stable name of /dev/v4l/by-id
    if not target.exists() or not re.fullmatch(r"video\d+", target.name):
        present = sorted(path.name for path in _DEVICES.glob("video*"))
        raise CameraError(
            f"there is no camera {device}",
            cause=f"devices here: {', '.join(present) or 'none'}",
            next_step="check the cable; ls -l /dev/v4l/by-id gives names that stay; set source in car.toml",
        )
    if not os.access(target, os.R_OK | os.W_OK):
        raise CameraError(
            f"{target} may not be read and written by this user",
            cause="the user is not in the group video",
            next_step="sudo usermod -aG video USER, then log in again",
        )
    return target


def open_csi(config: CameraConfig, runtime: Path) -> LiveCamera:
    """The entry point ``csi``: ``source`` is a GStreamer pipeline that ends in ``appsink``, or empty for a Jetson's.

    Raises:
        CameraError: this OpenCV has no GStreamer, or the pipeline does not start.
    """
    pipeline = config.source or jetson_pipeline(config)
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if capture.isOpened():
        return LiveCamera("csi", pipeline, capture, kernel_stamps=False)
    capture.release()
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise CameraError(
            f"OpenCV {cv2.__version__} here was built without GStreamer",
            cause="the wheels of PyPI are; the OpenCV of JetPack is not",
            next_step="on a Jetson: sudo apt install python3-opencv, and make the venv with --system-site-packages",
        )
    raise CameraError(
        f"the GStreamer pipeline does not start: {pipeline}",
        cause="the camera's cable, a size or rate that the sensor does not have, or a plugin that is missing",
        next_step="try it with gst-launch-1.0; on a Jetson: sudo systemctl restart nvargus-daemon",
    )


def jetson_pipeline(config: CameraConfig) -> str:
    """The pipeline for a CSI camera of a Jetson (NVIDIA's ``nvarguscamerasrc``), newest picture only."""
    rate = Fraction(config.rate_hz).limit_denominator(1001)
    return (
        f"nvarguscamerasrc ! video/x-raw(memory:NVMM),width={config.width},height={config.height},"
        f"framerate={rate.numerator}/{rate.denominator} ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


class VideoCamera:
    """A video file, replayed at the configured rate on the monotonic clock, whatever rate it was recorded at.

    Raises:
        CameraError: no such file, or no video.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._path = Path(config.source).expanduser()
        if not self._path.is_file():
            raise CameraError(
                f"there is no video file {config.source!r}",
                next_step="set source in the [camera] table of car.toml to the path of a video file",
            )
        self._loop, self._rate_hz = config.loop, config.rate_hz
        self._pacer = Pacer(config.rate_hz)
        self._seq = 0
        self._capture = self._opened()

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise CameraError(
                f"{self._path} cannot be opened as a video",
                cause="it is damaged, cut short, or coded in a way that this OpenCV does not know",
                next_step="save it again as MP4 (H.264) or AVI (Motion JPEG)",
            )
        return capture

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`; the end of a video that is not looped is a CameraError."""
        stamp_s = self._pacer.wait(timeout_s)
        pixels = _next(self._capture)
        if pixels is None and self._loop and self._seq > 0:
            self._capture.release()
            self._capture = self._opened()  # not by seeking, which some containers cannot
            pixels = _next(self._capture)
        if pixels is None:
            raise CameraError(
                f"{self._path} has ended after {self._seq} pictures",
                next_step="set loop = true in the [camera] table of car.toml to begin again",
            )
        frame = Frame(pixels, stamp_s, self._seq)
        self._seq += 1
        return frame

    def facts(self) -> dict[str, Any]:
        """Name, source, size, and the rate at which it is shown."""
        return {
            "name": "video",
            "source": str(self._path),
            "width": int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "rate_hz": self._rate_hz,
            "loop": self._loop,
        }

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_video(config: CameraConfig, runtime: Path) -> VideoCamera:
    """The entry point ``video``."""
    return VideoCamera(config)


def _next(capture: cv2.VideoCapture) -> npt.NDArray[np.uint8] | None:
    # A damaged picture can make OpenCV raise from its C++ side instead of answering False.
    with contextlib.suppress(cv2.error):
        good, pixels = capture.read()
        return np.asarray(pixels, dtype=np.uint8) if good else None
    return None
