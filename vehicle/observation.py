"""What a policy sees: one grayscale picture of 120 rows and 160 columns, the same in simulator, trainer and car."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vehicle.errors import VehicleError

HEIGHT = 120
WIDTH = 160
CHANNELS = 1
SHAPE = (HEIGHT, WIDTH, CHANNELS)


class ObservationError(VehicleError, ValueError):
    """A frame or a batch of observations has the wrong type or shape."""


def to_observation(frame: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A camera frame, uint8 (H, W, 3) BGR or (H, W) or (H, W, 1) gray, to the observation, uint8 (120, 160, 1).

    The whole frame is resized bilinearly, without crop or undistortion, and then made gray (Y = 0.299 R + 0.587 G +
    0.114 B): the order of DeepRacer's camera node and inference node. The result never shares memory with `frame`.

    Raises:
        ObservationError: not uint8, not one of these shapes, or without pixels.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        got = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ObservationError(
            f"a camera frame is {got}, it must be uint8",
            cause="a float picture of 0..1, or no picture at all",
            next_step="give the camera's own bytes, 0..255",
        )
    colour = frame.ndim == 3 and frame.shape[2] == 3
    if not (colour or frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1)) or frame.size == 0:
        raise ObservationError(
            f"a camera frame has shape {frame.shape}, it must be (H, W, 3), (H, W) or (H, W, 1)",
            cause="an alpha channel, a batch of frames, or an empty frame of a camera that has stalled",
            next_step="give one BGR or gray frame",
        )
    pixels = np.ascontiguousarray(frame if colour else frame.reshape(frame.shape[:2]))
    if pixels.shape[:2] != (HEIGHT, WIDTH):
        pixels = np.asarray(cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    if colour:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    # A camera driver reuses its buffer, so the observation must own its bytes.
    return np.array(pixels, dtype=np.uint8, copy=True).reshape(SHAPE)


def check_observations(frames: npt.NDArray[Any]) -> None:
    """Refuse anything but a batch of observations, uint8 (n, 120, 160, 1).

    Raises:
        ObservationError: with the type and shape that were met.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != SHAPE:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ObservationError(
            f"observations are {got}, they must be uint8 (n, {HEIGHT}, {WIDTH}, {CHANNELS})",
            cause="a single frame without its batch dimension, or one not yet through to_observation",
            next_step="pass frame[None] for one frame, numpy.stack(frames) for several",
        )
