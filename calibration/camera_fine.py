"""Corners of a board whose squares are only a few pixels across, from all pixels of it at once.

One corner has too few pixels then. The whole board is drawn as this picture would show it (area of each pixel, blur of
the lens, a slope of the light) and moved by a homography until it agrees, by Gauss and Newton's method.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FINE = 4  # samples each way in a pixel
_REACH = 0.2  # squares beyond the outer corners that are compared: what is a whole one beyond must not blur into it
_BLURS_PX = (0.35, 0.6, 0.9, 1.3)
_ROUNDS = 8
_STEP_PX = 0.02  # of the numeric derivative: how far a corner of the board moves
_STILL_PX = 1e-3


def refine_whole(gray: npt.NDArray[np.uint8], corners_px: Floats, columns: int, rows: int) -> tuple[Floats, float]:
    """All corners of one homography.

    Args:
        gray: the picture.
        corners_px: (rows * columns, 2), row by row, a good fraction of a square from the truth at most.

    Returns:
        the corners, and the standard deviation in pixels that single corners would need to tell as much as these do;
        infinity where the search did not come to rest.
    """
    grid = np.mgrid[0:columns, 0:rows].T.reshape(-1, 2).astype(np.float64)
    # The four outer corners stand for the homography: steps are then pixels, and all eight are of one size.
    ends = np.array([[0, 0], [columns - 1, 0], [columns - 1, rows - 1], [0, rows - 1]], dtype=np.float64)
    homography, _ = cv2.findHomography(grid, corners_px)
    start = _apply(np.asarray(homography, np.float64), ends)
    box = _Box(gray, start, ends, columns, rows)
    fits = [box.fit(start, blur) for blur in _BLURS_PX]
    _, found, spread = min(fits, key=lambda one: one[0])
    if np.linalg.norm(found - start, axis=1).max() > 0.5 * np.linalg.norm(start[0] - start[1]) / (columns - 1):
        return corners_px, np.inf
    # Eight numbers told by so many corners: each needs to be this good.
    return _apply(_exact(ends, found), grid), float(spread * np.sqrt(2 * len(grid) / 8))


def _apply(homography: Floats, points: Floats) -> Floats:
    return np.asarray(cv2.perspectiveTransform(points.reshape(-1, 1, 2), homography), np.float64).reshape(-1, 2)


class _Box:
    """The part of the picture around the board."""

    def __init__(self, gray: npt.NDArray[np.uint8], start: Floats, ends: Floats, columns: int, rows: int) -> None:
        self.ends, self.size = ends, np.array([columns - 1, rows - 1], dtype=np.float64)
        outer = ends + np.sign(ends - self.size / 2) * _REACH
        hull = _apply(_exact(ends, start), outer)
        low = np.maximum(np.floor(hull.min(axis=0)).astype(int) - 3, 0)
        high = np.minimum(np.ceil(hull.max(axis=0)).astype(int) + 4, gray.shape[::-1])
        self.seen = gray[low[1] : high[1], low[0] : high[0]].astype(np.float64)
        height, width = self.seen.shape
        inside = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(inside, np.round(hull - low).astype(np.int32), 1)
        self.inside = inside > 0
        offsets = (np.arange(_FINE) + 0.5) / _FINE - 0.5
        x = (np.arange(width)[:, None] + offsets).ravel() + low[0]
        y = (np.arange(height)[:, None] + offsets).ravel() + low[1]
        self.points = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1)
        v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        self.slopes = np.stack([np.ones_like(u), u, v], axis=-1)[self.inside]

    def drawn(self, ends_px: Floats, blur_px: float) -> Floats:
        """What the board looks like there, -1 to 1, of the pixels inside."""
        x, y, w = np.moveaxis(self.points @ _exact(ends_px, self.ends).T, -1, 0)
        sign = _wave(x / w) * _wave(y / w)
        height, width = self.seen.shape
        mean = sign.reshape(height, _FINE, width, _FINE).mean(axis=(1, 3))
        return np.asarray(cv2.GaussianBlur(mean, (0, 0), blur_px), np.float64)[self.inside]

    def light(self, drawn: Floats) -> tuple[Floats, Floats]:
        """The differences that are left with the best light, and the light's contrast at each pixel."""
        parts = np.concatenate([self.slopes, self.slopes * drawn[:, None]], axis=1)
        found = np.linalg.lstsq(parts, self.seen[self.inside], rcond=None)[0]
        return self.seen[self.inside] - parts @ found, self.slopes @ found[3:]

    def fit(self, start: Floats, blur_px: float) -> tuple[float, Floats, float]:
        """(sum of squares, outer corners, their standard error in pixels)."""
        ends_px, best, moved = start.copy(), np.inf, np.inf
        square, noise = np.eye(8), np.inf
        for _ in range(_ROUNDS):
            here = self.drawn(ends_px, blur_px)
            left, contrast = self.light(here)
            if left @ left >= best or moved < _STILL_PX:
                break
            best = float(left @ left)
            kept = ends_px
            columns = []
            for number in range(8):
                aside = ends_px.copy()
                aside.ravel()[number] += _STEP_PX
                columns.append((self.drawn(aside, blur_px) - here) / _STEP_PX * contrast)
            slope = np.stack(columns, axis=1)
            square, noise = slope.T @ slope, best / max(1, len(left) - 14)
            step = np.linalg.lstsq(square, slope.T @ left, rcond=None)[0]
            moved = float(np.abs(step).max())
            ends_px = ends_px + np.clip(step, -1.0, 1.0).reshape(4, 2)
        spread = np.sqrt(noise * np.trace(np.linalg.pinv(square)) / 8) / 2  # the middle of the board is told better
        return best, kept, float(spread)


def _exact(source: Floats, target: Floats) -> Floats:
    """The homography of four points in double precision; OpenCV rounds its points to single."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1.0).reshape(3, 3)


def _wave(at: Floats) -> Floats:
    """+1 and -1 in turn, changing at whole numbers, over a fine sample's width so that it can be differentiated."""
    fold = np.abs((at - 0.5) % 2.0 - 1.0) - 0.5  # distance to the nearest change, signed
    along = np.abs(np.gradient(at, axis=1)) + np.abs(np.gradient(at, axis=0))
    return np.asarray(np.clip(2 * fold / np.maximum(along, 1e-9), -1, 1), np.float64)
