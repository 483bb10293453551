"""A picture of a track from above, for people."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.errors import SimError
from sim.track import Track
from sim.track_shapes import describe

__all__ = ["describe", "draw_map"]

Picture = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
Colour = tuple[int, int, int]

# Blue, green, red.
_GROUND: Colour = (228, 236, 222)
_INFIELD: Colour = (132, 158, 126)
_KERB: Colour = (150, 172, 146)
_ROAD: Colour = (74, 70, 68)
_BORDER: Colour = (245, 245, 245)
_CENTRE: Colour = (60, 190, 245)
_ARROW: Colour = (80, 120, 255)
_TEXT: Colour = (40, 46, 38)
_SUBPIXEL_BITS = 6
_OVERSAMPLE = 2
_MIN_SIZE_PX = 120


def draw_map(track: Track, path_png: str | Path | None, size_px: int = 900) -> Picture:
    """Draw a track from above: road, lines, start line, direction of travel, a scale bar, name and sizes.

    Args:
        track: the track.
        path_png: where to write the picture; None only returns it.
        size_px: width of the picture, at least 120; its height follows the track's shape.

    Returns:
        uint8 (height, size_px, 3), blue-green-red as OpenCV wants it.

    Raises:
        SimError: the picture is too small or cannot be written.
    """
    if size_px < _MIN_SIZE_PX:
        raise SimError(f"a map of {size_px} px is too small, the least is {_MIN_SIZE_PX}", next_step="--size 900")
    paper = _Paper(track, size_px * _OVERSAMPLE)
    paper.road(track)
    paper.dashes(track)
    paper.start_line(track)
    paper.arrow(track)
    image = cv2.resize(paper.image, (size_px, paper.image.shape[0] // _OVERSAMPLE), interpolation=cv2.INTER_AREA)
    picture: Picture = np.asarray(image, dtype=np.uint8)
    _caption(picture, track, paper.px_per_m / _OVERSAMPLE)
    if path_png is not None:
        done, data = cv2.imencode(".png", picture)
        try:
            Path(path_png).write_bytes(data.tobytes())
        except OSError as error:
            raise SimError(f"the map cannot be written: {error}", next_step="--out with another path") from error
        if not done:
            raise SimError(f"the map of {track.name!r} cannot be packed as PNG")
    return picture


class _Paper:
    """An oversized picture with a drawing frame in metres, y up."""

    def __init__(self, track: Track, width_px: int) -> None:
        xmin, ymin, xmax, ymax = track.bounds
        margin_px = 0.06 * width_px
        caption_px = 0.1 * width_px
        self.px_per_m = min(
            (width_px - 2.0 * margin_px) / (xmax - xmin), (1.2 * width_px - 2.0 * margin_px) / (ymax - ymin)
        )
        height_px = int((ymax - ymin) * self.px_per_m + 2.0 * margin_px + caption_px) // _OVERSAMPLE * _OVERSAMPLE
        self._left_px = 0.5 * (width_px - (xmax - xmin) * self.px_per_m)
        self._bottom_px = height_px - margin_px - caption_px
        self._origin = np.array([xmin, ymin])
        stripe = (np.arange(width_px) // (width_px // 30)) % 2 * 5
        self.image: Picture = np.empty((height_px, width_px, 3), dtype=np.uint8)
        self.image[:] = (np.array(_GROUND) + stripe[None, :, None]).astype(np.uint8)

    def pixels(self, points: FloatArray) -> NDArray[np.int32]:
        xy = (points - self._origin) * self.px_per_m
        px = np.stack((self._left_px + xy[:, 0], self._bottom_px - xy[:, 1]), axis=1)
        return np.round(px * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def fill(self, colour: Colour, rings: tuple[FloatArray, ...]) -> None:
        outlines = [self.pixels(ring) for ring in rings]
        cv2.fillPoly(self.image, outlines, colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def line(self, points: FloatArray, colour: Colour, width_m: float) -> None:
        thickness = max(2, round(width_m * self.px_per_m))
        cv2.polylines(self.image, [self.pixels(points)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def road(self, track: Track) -> None:
        # The kerb is wider than the white line, which gets a soft edge on its outside.
        self.fill(_INFIELD, (track.inner,))
        for border in (track.left, track.right):
            self.line(border, _KERB, 0.22)
        self.fill(_ROAD, (track.outer, track.inner))  # even-odd: only what is between the two
        for border in (track.left, track.right):
            self.line(border, _BORDER, 0.06)

    def dashes(self, track: Track) -> None:
        count = max(8, 2 * round(track.length_m / 0.6))
        ends_m = np.linspace(0.0, track.length_m, count + 1)
        for start_m, end_m in zip(ends_m[0:-1:2], ends_m[1::2], strict=True):
            self.line(_along(track, np.linspace(start_m, end_m, 6)), _CENTRE, 0.03)

    def start_line(self, track: Track) -> None:
        left, right = track.left[0], track.right[0]
        along = _along(track, np.array([0.0, 0.12]))
        step = along[1] - along[0]
        squares = 8
        for row in range(2):
            for column in range(squares):
                a = left + (right - left) * column / squares + step * row
                b = left + (right - left) * (column + 1) / squares + step * row
                colour = (250, 250, 250) if (row + column) % 2 else (30, 30, 30)
                self.fill(colour, (np.array([a, b, b + step, a + step]),))

    def arrow(self, track: Track) -> None:
        shaft = _along(track, np.linspace(0.45, 1.15, 12))
        self.line(shaft, _ARROW, 0.07)
        tip, base = _along(track, np.array([1.5, 1.12]))
        ahead = (tip - base) / max(1e-9, float(np.hypot(*(tip - base))))
        aside = np.array([-ahead[1], ahead[0]]) * 0.17
        self.fill(_ARROW, (np.array([tip, base + aside, base - aside]),))


def _along(track: Track, s_m: FloatArray) -> FloatArray:
    s_m = np.where(s_m > track.length_m, s_m - track.length_m, s_m)
    return np.stack([np.interp(s_m, track.s_m, track.center[:, axis]) for axis in (0, 1)], axis=1)


def _caption(picture: Picture, track: Track, px_per_m: float) -> None:
    height, width = picture.shape[:2]
    unit = width / 900.0
    baseline = height - round(34 * unit)
    name_scale, small_scale = 0.95 * unit, 0.6 * unit
    direction = "counter-clockwise" if track.is_ccw else "clockwise"
    facts = f"{track.length_m:.1f} m long, {track.width_m:.2f} m wide, {direction}"
    left = round(30 * unit)
    bar_m = _round_length_m(0.2 * width / px_per_m)
    bar_px = round(bar_m * px_per_m)
    right = width - left
    room = right - bar_px - 2 * left - left
    name = track.name.replace("_", " ")
    _text(picture, name, (left, baseline - round(16 * unit)), name_scale, 2.0 * unit, room)
    _text(picture, facts, (left, baseline + round(14 * unit)), small_scale, unit, room)
    ends = ((right - bar_px, baseline), (right, baseline))
    thickness = max(1, round(3 * unit))
    cv2.line(picture, *ends, _TEXT, thickness, cv2.LINE_AA)
    for x, y in ends:
        cv2.line(picture, (x, y - round(7 * unit)), (x, y + round(7 * unit)), _TEXT, thickness, cv2.LINE_AA)
    _text(picture, f"{bar_m:g} m", (right - bar_px, baseline - round(14 * unit)), small_scale, unit, bar_px)


def _text(picture: Picture, text: str, place: tuple[int, int], scale: float, weight: float, room_px: int) -> None:
    thickness = max(1, round(weight))
    (wide_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    scale *= min(1.0, room_px / max(1, wide_px))
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT, thickness, cv2.LINE_AA)


def _round_length_m(longest_m: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest_m))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= longest_m)
