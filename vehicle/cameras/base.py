"""The one protocol of all cameras. A camera is read by one thread, the grabber's (`vehicle.cameras.grabber`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Args:
        pixels: uint8 (H, W, 3) BGR or (H, W) gray; nobody writes to it again.
        stamp_s: ``time.monotonic`` when it was taken, or, where the camera cannot tell, when it arrived.
        seq: counts from 0; a gap is a frame that the camera dropped.
    """

    pixels: npt.NDArray[np.uint8]
    stamp_s: float
    seq: int


@runtime_checkable
class Camera(Protocol):
    """What a back-end has; the entry-point group is ``hotlap.cameras``: a callable of a `CameraConfig`."""

    def read(self, timeout_s: float) -> Frame:
        """The next picture, waiting for it up to ``timeout_s``.

        Raises:
            StaleFrame: none came in time.
            CameraError: the device is gone, or gave what is no picture.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What is known of it, for ``hotlap status`` and the model's contract: width, height, rate, names."""
        ...

    def close(self) -> None:
        """Release the device. May be called twice."""
        ...
