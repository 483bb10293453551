"""A picture of a checkerboard on the ground, without a simulator; not a test itself."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from calibration.camera import Board, CameraPose

_TEXELS, _ZOOM = 32, 4
_BORDER = 0.6  # squares of white around
USUAL = CameraPose(66.0, 14.0, 0.125, 1.5)


def board_picture(
    pose: CameraPose = USUAL,
    board: Board | None = None,
    *,
    ahead_m: float = 0.36,
    left_m: float = 0.0,
    yaw_deg: float = 0.0,
    width: int = 640,
    height: int = 480,
    seed: int | None = 0,
) -> npt.NDArray[np.uint8]:
    """(height, width) gray: the board on gray ground, each pixel the mean of its area, with noise where `seed` is."""
    board = board or Board()
    rows, columns = np.mgrid[: board.rows + 1, : board.columns + 1]
    squares = np.where((rows + columns) % 2 == 0, 30, 235).astype(np.uint8)
    sheet = np.kron(squares, np.ones((_TEXELS, _TEXELS), np.uint8))
    sheet = np.pad(sheet, round(_BORDER * _TEXELS), constant_values=235)
    step = board.square_mm / 1e3 / _TEXELS
    half = np.array(sheet.shape[::-1]) / 2 - 0.5
    turn = np.radians(yaw_deg)
    # Texels (column, row) to the ground (ahead, left) below the lens: rows run towards the car, columns to its right.
    x, y = np.array([0, -step, step * half[1]]), np.array([-step, 0, step * half[0]])
    ground = np.stack(
        [
            x * np.cos(turn) - y * np.sin(turn) + [0, 0, ahead_m],
            x * np.sin(turn) + y * np.cos(turn) + [0, 0, left_m],
            [0, 0, -pose.height_m],
        ]
    )
    down, lean = np.radians([pose.pitch_down_deg, pose.roll_deg])
    ahead = np.array([np.cos(down), 0, -np.sin(down)])
    level_up = np.array([np.sin(down), 0, np.cos(down)])
    left = np.array([0, np.cos(lean), 0]) + np.sin(lean) * level_up
    up = np.cos(lean) * level_up - np.array([0, np.sin(lean), 0])
    focal = width / 2 / np.tan(np.radians(pose.horizontal_fov_deg) / 2)
    lens = np.array([[(width - 1) / 2, -focal, 0], [(height - 1) / 2, 0, -focal], [1, 0, 0]])
    zoom = np.array([[_ZOOM, 0, (_ZOOM - 1) / 2], [0, _ZOOM, (_ZOOM - 1) / 2], [0, 0, 1]])
    to_picture = zoom @ lens @ np.stack([ahead, left, up]) @ ground
    size = (width * _ZOOM, height * _ZOOM)
    large = cv2.warpPerspective(sheet, to_picture, size, borderMode=cv2.BORDER_CONSTANT, borderValue=(120,))
    picture = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)
    if seed is not None:
        picture += np.random.default_rng(seed).normal(0, 2.0, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
