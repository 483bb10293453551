"""Finds a checkerboard that lies on the ground in a picture, also where it is small and seen at a low angle.

From a car's height the squares of a sheet on the floor are a few pixels high, too flat for a search that expects them
to look square. So the ground is looked at from above first: for a handful of guesses of field of view and pitch the
picture is turned into a top view, in which squares are nearly square. Corners are then refined in a view that is
exactly from above the board that was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from calibration.camera_fine import refine_whole
from calibration.errors import CalibrationError

Floats = npt.NDArray[np.float64]
Gray = npt.NDArray[np.uint8]

# (horizontal field of view, pitch down) in degrees, the most successful first: one of them is near enough for every
# camera of 50 to 100 degrees that looks 5 to 30 degrees down (tests/sim/test_camera_measurement.py).
_GUESSES = ((72.0, 26.0), (92.0, 26.0), (72.0, 14.0), (60.0, 8.0), (100.0, 12.0))
_TOP_PX = 100.0  # of the top view for a length of the camera's height
_TOP_NEAR, _TOP_FAR, _TOP_SIDE = 0.3, 7.0, 3.5  # what it shows, in heights of the camera
_LEAST_SIDE, _MOST_SIDE = 60, 4096  # of a picture
_LEAST_SQUARE_PX = 1.5  # across its narrow side; smaller ones are not told from noise
_SMALL_SQUARE_PX = 8.0  # below this, corners one by one are worse than all at once
_QUIET = 1.0  # squares around the outer corners that belong to the board


class CameraFault(CalibrationError):
    """A picture, or all of them together, do not give the camera's pose.

    Args:
        reason: its short name, stable for programs: no_board, part_of_board, other_board, blurred, dark, too_small,
            face_on, ill_conditioned, does_not_fit, out_of_range, different_sizes, bad_picture, bad_board, not_4_to_3.
    """

    def __init__(self, reason: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.reason = reason
        super().__init__(what, cause=cause, next_step=next_step)


@dataclass(frozen=True)
class Board:
    """A checkerboard, counted as OpenCV does: inner corners, not squares.

    Raises:
        CameraFault: bad_board.
    """

    columns: int = 9
    rows: int = 6
    square_mm: float = 25.0

    def __post_init__(self) -> None:
        if not (3 <= self.columns <= 30 and 3 <= self.rows <= 30):
            raise CameraFault(
                "bad_board",
                f"a board of {self.columns} x {self.rows} inner corners is not usable (3 to 30 each way)",
                cause="inner corners are where four squares meet: one fewer than squares, each way",
                next_step="count again, or print the board that hotlap offers",
            )
        if not 2.0 <= self.square_mm <= 500.0:
            raise CameraFault(
                "bad_board",
                f"a square of {self.square_mm:g} mm is not usable (2 to 500)",
                next_step="measure one square with a ruler, in millimetres",
            )

    def corners_m(self) -> Floats:
        """(rows * columns, 2) inner corners, row by row, about the board's middle."""
        grid = np.mgrid[0 : self.columns, 0 : self.rows].T.reshape(-1, 2).astype(np.float64)
        return (grid - [(self.columns - 1) / 2, (self.rows - 1) / 2]) * self.square_mm / 1e3


@dataclass(frozen=True, eq=False)
class Sighting:
    """A board that was found in a picture.

    Args:
        corners_px: (n, 2) column and row of every inner corner, 0 is the middle of the first pixel.
        corners_m: (n, 2) the same corners on the board, right-handed as seen from above.
        width, height: of the picture.
        noise_px: standard deviation of each corner, where all were found as one and so have no scatter to tell it by.
    """

    corners_px: Floats
    corners_m: Floats
    width: int
    height: int
    noise_px: float = 0.0


def as_gray(picture: npt.NDArray[Any]) -> Gray:
    """A picture, uint8 (H, W) or (H, W, 1) gray or (H, W, 3) BGR, as gray.

    Raises:
        CameraFault: bad_picture.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        raise CameraFault("bad_picture", "a picture must be an array of uint8")
    shape = picture.shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))) or not all(
        _LEAST_SIDE <= side <= _MOST_SIDE for side in shape[:2]
    ):
        raise CameraFault(
            "bad_picture",
            f"a picture has shape {shape}",
            cause=f"gray or BGR, {_LEAST_SIDE} to {_MOST_SIDE} pixels each way are expected",
        )
    if len(shape) == 3 and shape[2] == 3:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    return np.ascontiguousarray(picture.reshape(shape[:2]))


def find_board(picture: npt.NDArray[Any], board: Board) -> Sighting:
    """Where the board's inner corners are.

    Args:
        picture: see `as_gray`.

    Raises:
        CameraFault: bad_picture, dark, blurred, no_board, part_of_board, other_board, too_small.
    """
    gray = as_gray(picture)
    height, width = gray.shape
    size = (board.columns, board.rows)
    for view, to_picture in _views(gray):
        found, corners = cv2.findChessboardCornersSB(view, size, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)
        if not found:
            continue
        plane = _seen_from_above(_mapped(to_picture, corners.reshape(-1, 2)), board)
        refined = _refined(gray, *plane, board)
        if refined is None:
            continue
        noise_px = 0.0
        if _narrowest_px(refined, board) < _SMALL_SQUARE_PX:
            finer, spread_px = refine_whole(gray, refined, board.columns, board.rows)
            if np.isfinite(spread_px):
                refined, noise_px = finer, spread_px
        return Sighting(refined, plane[1], width, height, noise_px)
    raise _why_not(gray, board)


def _views(gray: Gray) -> Iterator[tuple[Gray, Floats]]:
    """Pictures to look for the board in, each with the homography from its pixels to those of the picture."""
    for fov_deg, pitch_deg in _GUESSES:
        to_picture = _from_top(gray.shape, fov_deg, pitch_deg)
        size = (round(2 * _TOP_SIDE * _TOP_PX), round((_TOP_FAR - _TOP_NEAR) * _TOP_PX))
        yield _warped(gray, to_picture, size), to_picture
    # As it is, for a camera that looks steeply down; a small picture enlarged, since the search wants some pixels.
    zoom = max(1, -(-640 // gray.shape[1]))
    to_picture = np.array([[1 / zoom, 0, (1 / zoom - 1) / 2], [0, 1 / zoom, (1 / zoom - 1) / 2], [0, 0, 1]])
    yield _warped(gray, to_picture, (gray.shape[1] * zoom, gray.shape[0] * zoom)), to_picture


def _from_top(shape: tuple[int, ...], fov_deg: float, pitch_deg: float) -> Floats:
    """The homography from a top view of the ground to the picture of a level camera one unit above it."""
    height, width = shape
    focal = width / 2 / np.tan(np.radians(fov_deg) / 2)
    sine, cosine = np.sin(np.radians(pitch_deg)), np.cos(np.radians(pitch_deg))
    # Ground (ahead, left, 1) to the camera's (depth, left, up): it is one unit below the lens.
    camera = np.array([[cosine, 0, sine], [0, 1, 0], [sine, 0, -cosine]])
    lens = np.array([[(width - 1) / 2, -focal, 0], [(height - 1) / 2, 0, -focal], [1, 0, 0]])
    pixels = np.array([[0, -1 / _TOP_PX, _TOP_FAR], [-1 / _TOP_PX, 0, _TOP_SIDE], [0, 0, 1]])
    return np.asarray(lens @ camera @ pixels, np.float64)


def _warped(gray: Gray, to_picture: Floats, size: tuple[int, int]) -> Gray:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    view = cv2.warpPerspective(gray, to_picture, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8)


def _mapped(homography: Floats, points: npt.NDArray[Any]) -> Floats:
    mapped = cv2.perspectiveTransform(points.reshape(-1, 1, 2).astype(np.float64), homography)
    return np.asarray(mapped, np.float64).reshape(-1, 2)


def _seen_from_above(corners_px: Floats, board: Board) -> tuple[Floats, Floats]:
    """Corners in the picture and on the board; where they were counted as in a mirror, the board's are turned over.
    Half a turn of the board makes no difference: its direction on the ground is not known anyway."""
    corners_m = board.corners_m()
    grid = corners_px.reshape(board.rows, board.columns, 2)
    along, down = grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0]
    if along[0] * down[1] - along[1] * down[0] > 0:  # rows of a picture run down, the board's y runs up
        corners_m = corners_m * [1, -1]
    return corners_px, corners_m


def _refined(gray: Gray, corners_px: Floats, corners_m: Floats, board: Board) -> Floats | None:
    """Corners to a fraction of a pixel; None where what was found is no flat checkerboard after all."""
    square_m = board.square_mm / 1e3
    low, high = corners_m.min(axis=0) - _QUIET * square_m, corners_m.max(axis=0) + _QUIET * square_m
    for _ in range(2):
        to_picture = _homography(corners_m, corners_px)
        if to_picture is None:
            return None
        # In the view from above a square is a little larger than the largest in the picture, so that nothing is lost.
        grid = corners_px.reshape(board.rows, board.columns, 2)
        largest = max(float(np.linalg.norm(np.diff(grid, axis=k), axis=-1).max()) for k in (0, 1))
        square_px = int(np.clip(1.5 * largest, 16, 48))
        scale = square_m / square_px
        pixels = np.array([[scale, 0, low[0]], [0, scale, low[1]], [0, 0, 1]])
        size = (round((high[0] - low[0]) / scale) + 1, round((high[1] - low[1]) / scale) + 1)
        view = _warped(gray, to_picture @ pixels, size)
        start = ((corners_m - low) / scale).astype(np.float32).reshape(-1, 1, 2)
        half = max(3, round(0.35 * square_px))
        stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-4)
        found = cv2.cornerSubPix(view, start.copy(), (half, half), (-1, -1), stop)
        if np.linalg.norm(found - start, axis=-1).max() > 0.5 * square_px:
            return None
        corners_px = _mapped(to_picture @ pixels, found)
    narrow = _narrowest_px(corners_px, board)
    if narrow < _LEAST_SQUARE_PX:
        raise CameraFault(
            "too_small",
            f"the board's squares are only {narrow:.1f} pixels across in this picture",
            cause="the board is too far away, or its squares are too small for this camera's picture",
            next_step="move the board nearer, all of it still in the picture, or use one with larger squares",
        )
    return corners_px


def _homography(corners_m: Floats, corners_px: Floats) -> Floats | None:
    found, _ = cv2.findHomography(corners_m, corners_px)
    return None if found is None else np.asarray(found, np.float64)


def _narrowest_px(corners_px: Floats, board: Board) -> float:
    """The narrow side of the board's middling square."""
    grid = corners_px.reshape(board.rows, board.columns, 2)
    sides = np.stack([np.diff(grid, axis=1)[:-1], np.diff(grid, axis=0)[:, :-1]], axis=-1)
    return float(np.median(np.linalg.svd(sides, compute_uv=False)[..., 1]))


def _why_not(gray: Gray, board: Board) -> CameraFault:
    """What is wrong with a picture in which the board was not found, as far as that can be told."""
    asked = f"{board.columns} x {board.rows}"
    contrast = float(np.subtract(*np.percentile(gray, (98, 2))))
    if contrast < 30:
        return CameraFault(
            "dark",
            f"the picture has almost no contrast ({contrast:.0f} of 255 grays)",
            cause="it is dark, the lens is covered, or the camera looks into a light",
            next_step="light the floor evenly, then take another picture",
        )
    other = _other_board(gray)
    if other is not None:
        columns, rows = max(other), min(other)
        more = columns > max(board.columns, board.rows) or rows > min(board.columns, board.rows)
        return CameraFault(
            "other_board" if more else "part_of_board",
            f"{columns} x {rows} inner corners were seen, the board has {asked}",
            cause="another board than was named" if more else "a part of the board is covered, cut off or in glare",
            next_step="count the inner corners and enter them" if more else
            "put the whole board with its white border into the picture, without shadow or glare",
        )  # fmt: skip
    # Sharp edges change by most of the contrast from a pixel to the next; a blurred one by little.
    steepest = float(np.percentile(np.abs(np.diff(gray.astype(np.float32), axis=1)), 99.9))
    if steepest < 0.15 * contrast:
        return CameraFault(
            "blurred",
            "no board was found, and nothing in the picture is sharp",
            cause="the lens is out of focus or dirty, or the car or the board moved",
            next_step="clean and focus the lens, let car and board lie still, then take another picture",
        )
    return CameraFault(
        "no_board",
        f"no checkerboard with {asked} inner corners was found",
        cause="it is not wholly in the picture, too small in it, or has other numbers of corners",
        next_step="lay the board flat on the floor ahead of the car, as near as all of it fits the picture, evenly lit",
    )


def _other_board(gray: Gray) -> tuple[int, int] | None:
    """Columns and rows of a checkerboard of any size, at least 4 x 4 where there is one."""
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_LARGER
    for (view, _), _ in zip(_views(gray), range(3), strict=False):
        found, _, meta = cv2.findChessboardCornersSBWithMeta(view, (4, 4), flags)
        if found and meta is not None:
            return int(meta.shape[1]), int(meta.shape[0])
    return None
