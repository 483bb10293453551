"""The camera's pose from pictures of a checkerboard on the ground: ``measure_camera(pictures, Board(9, 6, 25.0))``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from calibration.camera_board import Board, CameraFault, find_board
from calibration.camera_pose import CameraMeasurement, CameraPose, solve

__all__ = ["Board", "CameraFault", "CameraMeasurement", "CameraPose", "measure_camera"]


def measure_camera(pictures: Sequence[npt.NDArray[Any]], board: Board | None = None) -> CameraMeasurement:
    """Field of view, height, pitch and roll of the camera that took the pictures.

    Args:
        pictures: one or more of one mounting, uint8 gray (H, W) or BGR (H, W, 3), all of one size; in each the whole
            board lies flat on the ground that the car stands on, anywhere and turned anyhow.
        board: how many inner corners of what size; None is hotlap's own sheet.

    Raises:
        CameraFault: a picture without the board, or all of them do not give the pose; its reason says why.
    """
    board = board or Board()
    return solve([find_board(picture, board) for picture in pictures])
