"""A whole picture of the camera, for calibrating it: what the policy sees is too small to measure a lens by.

JPEG in JSON, so that it goes the way of all answers; at this quality corners move by less than a hundredth of a pixel.
"""

from __future__ import annotations

import base64
from typing import Any

import cv2

from vehicle.cameras.base import Frame

MAX_WIDTH = 1280  # a larger picture is halved until it fits: the answer has at most a megabyte
_QUALITY = 95


def picture_answer(frame: Frame) -> dict[str, Any]:
    """``{"ok", "seq", "stamp_s", "jpeg"}`` of a frame, gray. Takes some milliseconds: only while disarmed."""
    pixels = frame.pixels
    gray: Any = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels
    gray = gray.reshape(gray.shape[:2])
    while gray.shape[1] > MAX_WIDTH:
        gray = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    good, jpeg = cv2.imencode(".jpg", gray, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    assert good  # a gray picture of uint8 always is
    text = base64.b64encode(jpeg.tobytes()).decode("ascii")
    return {"ok": True, "seq": frame.seq, "stamp_s": frame.stamp_s, "jpeg": text}
