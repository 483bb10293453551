"""Judges pictures: frozen, blank, garbage, or stamped by a wrong clock. Pure: time comes in with the picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from vehicle.cameras.base import Frame
from vehicle.errors import CameraError, StaleFrame

STALE = "stale"  # no new picture in time
FROZEN = "frozen"  # new stamps, but the same bytes
BLANK = "blank"  # one even gray: a covered lens, a dead sensor
GARBAGE = "garbage"  # no picture, or one of another size than before
CLOCK = "clock"  # the stamp is not of time.monotonic, or runs backwards
GONE = "camera"  # the device is gone or its driver failed

# Two real pictures are never the same to the last bit, the sensor's noise sees to that. A driver may hand out one
# twice, though, and a 15 Hz camera takes 67 ms for each: one repeat is no fault, two are.
FROZEN_S = 0.12
BLANK_GRAYS = 1.0  # standard deviation, of the colour that varies most
LEAST_SIDE = 16  # pixels
FUTURE_S = 0.005
_LOOKED_AT_ROWS = 120  # of a larger picture, about as many rows are enough to tell that it is even


class CameraFault(CameraError):
    """Why there is no picture to drive by.

    Args:
        fault: its short name, stable for programs: one of this module's constants.
    """

    def __init__(self, fault: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.fault = fault
        super().__init__(what, cause=cause, next_step=next_step)


def fault_name(error: CameraError) -> str:
    """The short name of any camera's error."""
    if isinstance(error, CameraFault):
        return error.fault
    return STALE if isinstance(error, StaleFrame) else GONE


class FrameJudge:
    """Keeps the newest good picture of one camera, and what is wrong with what came after it.

    A picture with the same bytes as the one before says nothing new, so it does not become the newest: the older one
    stays, with its own stamp, and grows stale as it would if nothing had come. So a frozen camera is never fresher
    than a stalled one, whatever it stamps.

    Attributes:
        newest: the newest good picture.
        fault: what is wrong now, or None.
    """

    def __init__(self) -> None:
        self.newest: Frame | None = None
        self.fault: CameraFault | None = None
        self._shape: tuple[int, ...] | None = None

    def offer(self, frame: Frame, now_s: float) -> bool:
        """Take the next picture of the camera; True where it is good and new."""
        self.fault = self._garbage(frame) or self._wrong_clock(frame, now_s) or _blank(frame)
        if self.fault is not None:
            return False
        newest = self.newest
        if newest is not None and _same(newest.pixels, frame.pixels):
            self.fault = _frozen(frame.stamp_s - newest.stamp_s)
            return False
        self.newest, self._shape = frame, frame.pixels.shape
        return True

    def blame(self, fault: CameraFault) -> None:
        """The camera itself said that what came is no picture."""
        self.fault = fault

    def _garbage(self, frame: Frame) -> CameraFault | None:
        pixels: object = frame.pixels  # of a third party's camera, which no type checker has seen
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            got = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
            return CameraFault(GARBAGE, f"the camera gives {got}, not uint8 pixels")
        shape = pixels.shape
        if not (pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] in (1, 3))) or min(shape[:2]) < LEAST_SIDE:
            return CameraFault(
                GARBAGE,
                f"the camera gives pixels of shape {shape}, not (height, width, 3) or (height, width)",
                cause="a format that the driver does not convert, or a frame cut short on the way",
                next_step="hotlap doctor; try another width and height in car.toml",
            )
        if self._shape is not None and shape != self._shape:
            return CameraFault(
                GARBAGE,
                f"the pictures change from shape {self._shape} to {shape}",
                cause="a frame cut short on the way, or another program has set the camera up anew",
                next_step="stop the other program, and start the pilot again",
            )
        return None

    def _wrong_clock(self, frame: Frame, now_s: float) -> CameraFault | None:
        if not math.isfinite(frame.stamp_s) or frame.stamp_s > now_s + FUTURE_S:
            what = f"a picture is stamped {frame.stamp_s - now_s:.3f} s in the future"
        elif self.newest is not None and frame.stamp_s < self.newest.stamp_s:
            what = f"a picture is stamped {self.newest.stamp_s - frame.stamp_s:.3f} s before the last good one"
        else:
            return None
        return CameraFault(CLOCK, what, cause="the camera's stamps are not of time.monotonic")


def _blank(frame: Frame) -> CameraFault | None:
    step = max(1, min(frame.pixels.shape[:2]) // _LOOKED_AT_ROWS)
    # OpenCV does it many times faster than numpy, and lets other threads run meanwhile.
    deviation = float(np.max(cv2.meanStdDev(frame.pixels[::step])[1]))
    if deviation >= BLANK_GRAYS:
        return None
    return CameraFault(
        BLANK,
        f"the picture is one even colour: its standard deviation is {deviation:.2f} grays (at least {BLANK_GRAYS:g})",
        cause="the lens is covered, it is dark, or the sensor's cable is loose",
        next_step="look at the lens and the cable; hotlap doctor takes a picture",
    )


def _same(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    # A few rows tell almost all pictures apart, for a hundredth of the time.
    return a.shape == b.shape and bool(np.array_equal(a[::64], b[::64])) and cv2.norm(a, b, cv2.NORM_INF) == 0.0


def _frozen(for_s: float) -> CameraFault | None:
    if for_s <= FROZEN_S:
        return None
    return CameraFault(
        FROZEN,
        f"the picture has not changed in one bit for {for_s * 1e3:.0f} ms, though new ones keep coming",
        cause="the camera or its driver repeats an old picture",
        next_step="plug the camera in again; start the pilot again",
    )
