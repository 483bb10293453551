"""The console's camera calibration on a car: a whole picture from the pilot, and what was measured, kept in a file."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from calibration.camera import CameraMeasurement, CameraPose
from calibration.camera_file import to_car_toml
from calibration.car_link import CarRefused, Picture
from calibration.durable import make_folders, write_durably
from vehicle.car_config import CarConfig
from vehicle.errors import ConfigError
from vehicle.measured_camera import measured_path, measured_pose


class ConsoleCamera:
    """See the methods of the same names in `calibration.car_link.CarLink`.

    Args:
        ask_pilot: one request to the pilot; raises CarRefused where it does not grant it.
        refuse_unless_disarmed: raises CarRefused where the car is armed or stopped.
    """

    def __init__(
        self,
        config: CarConfig,
        ask_pilot: Callable[[dict[str, Any]], dict[str, Any]],
        refuse_unless_disarmed: Callable[[], None],
    ) -> None:
        self._config, self._ask_pilot, self._refuse_unless_disarmed = config, ask_pilot, refuse_unless_disarmed

    def whole_picture(self) -> Picture:
        """The newest picture in the size that the camera gives it, gray."""
        answer = self._ask_pilot({"op": "picture"})
        gray = None
        with contextlib.suppress(KeyError, TypeError, ValueError, binascii.Error, cv2.error):
            packed = np.frombuffer(base64.b64decode(answer["jpeg"], validate=True), np.uint8)
            gray = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)
        if gray is None:
            raise CarRefused("bad_answer", "what the pilot sent is no picture", next_step="restart the pilot")
        height, width = gray.shape
        return Picture(int(answer.get("seq", 0)), float(answer.get("stamp_s", 0.0)), height, width, gray.tobytes())

    def measured(self) -> CameraPose | None:
        """What was saved; None where there is nothing, or the file is damaged."""
        with contextlib.suppress(ConfigError):
            return measured_pose(self._config)
        return None

    def save(self, measurement: CameraMeasurement) -> None:
        """Keep it; from now on models are held against it instead of what car.toml says."""
        self._refuse_unless_disarmed()
        path = measured_path(self._config)
        try:
            make_folders(path.parent)
            write_durably(path, to_car_toml(measurement).encode())
        except OSError as error:
            raise CarRefused(
                "storage",
                f"{path} could not be saved: {error.strerror or error}",
                cause="the disk is full or read-only, or the folder belongs to another user",
                next_step=f"df -h {path.parent}, then save again; what was saved before is still there",
            ) from error
