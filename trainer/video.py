"""The video of a time trial: what the car sees on the left, where it is on the right, in an MP4 that browsers play."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from trainer.errors import RunStorageError, TrainerError
from trainer.plots import TrackShape, start_line

Frame = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

FRAME_SIZE_PX = (960, 480)
"""Width and height of what ``compose`` returns."""
MAP_SIZE_PX = (320, 300)
"""Width and height of the top view in it; what remains below is the instruments'."""

GROUND: Color = (223, 231, 222)
ROAD: Color = (48, 54, 61)
BORDER: Color = (255, 255, 255)
CENTRE: Color = (242, 193, 78)
TRAIL: Color = (72, 149, 239)
CAR: Color = (255, 77, 77)
PANEL: Color = (22, 27, 34)
FAINT: Color = (139, 148, 158)
BRIGHT: Color = (240, 246, 252)


class TopView:
    """The track from above, drawn once; cars and trails are drawn on copies of it.

    Attributes:
        map_rgb: uint8 (height, width, 3).
        pixels_per_m: the scale, the same in both directions.
    """

    def __init__(self, track: TrackShape, size_px: tuple[int, int] = MAP_SIZE_PX) -> None:
        """Fit ``track`` into ``size_px`` (width, height) with a margin; north (+y) is up."""
        self.size_px = size_px
        borders = np.vstack([track.left, track.right])
        low, high = borders.min(0), borders.max(0)
        margin_px = 0.06 * min(size_px)
        self.pixels_per_m = float(((np.array(size_px) - 2 * margin_px) / (high - low)).min())
        self._middle_m = 0.5 * (low + high)
        self.map_rgb = self._draw(track)

    def to_pixel(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 2) in metres as pixels (..., 2), x to the right and y down, not rounded."""
        flipped = (np.asarray(xy, dtype=np.float64) - self._middle_m) * np.array([1.0, -1.0])
        return np.asarray(flipped * self.pixels_per_m + 0.5 * np.array(self.size_px), dtype=np.float64)

    def draw(self, pose: tuple[float, float, float], trail_xy: npt.ArrayLike = ()) -> Frame:
        """The map with the driven trail (T, 2) and a car at ``pose`` (x, y in metres, yaw in radians)."""
        picture = self.map_rgb.copy()
        trail = np.asarray(trail_xy, dtype=np.float64).reshape(-1, 2)
        if len(trail) > 1:
            _polyline(picture, self.to_pixel(trail), TRAIL, 2, closed=False)
        # An arrow head, larger than the car in scale, because a car of 30 cm would be 8 pixels long.
        ahead = np.array([math.cos(pose[2]), -math.sin(pose[2])])  # pixels: y is down
        side = np.array([ahead[1], -ahead[0]])
        at = self.to_pixel(pose[:2])
        shape = np.stack([at + 10 * ahead, at - 7 * ahead + 7 * side, at - 4 * ahead, at - 7 * ahead - 7 * side])
        corners = np.round(shape * 16).astype(np.int32)
        cv2.fillPoly(picture, [corners], CAR, cv2.LINE_AA, shift=4)
        cv2.polylines(picture, [corners], True, BORDER, 1, cv2.LINE_AA, shift=4)
        return picture

    def _draw(self, track: TrackShape) -> Frame:
        # At four times the size, then averaged down: OpenCV anti-aliases lines but not the edges of thick ones well.
        zoom = 4
        big = np.full((self.size_px[1] * zoom, self.size_px[0] * zoom, 3), GROUND, dtype=np.uint8)
        left, right, center = (self.to_pixel(c) * zoom for c in (track.left, track.right, track.center))
        cv2.fillPoly(big, [np.round(np.vstack([left, right[::-1]])).astype(np.int32)], ROAD)
        for border in (left, right):
            _polyline(big, border, BORDER, 2 * zoom, closed=True)
        for dash in _dashes(center, dash_px=6.0 * zoom):
            _polyline(big, dash, CENTRE, zoom, closed=False)
        _polyline(big, self.to_pixel(start_line(track)) * zoom, BORDER, 3 * zoom, closed=False)
        return np.asarray(cv2.resize(big, self.size_px, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@dataclass(frozen=True)
class Hud:
    """What the instruments show. ``steering_deg`` + is left; ``progress`` in percent; ``lines``: extra small text."""

    speed_mps: float
    steering_deg: float
    progress: float
    lap_time_s: float
    lines: tuple[str, ...] = ()
    steering_limit_deg: float = 30.0


def compose(
    first_person: Frame,
    top_view: TopView,
    pose: tuple[float, float, float],
    hud: Hud,
    trail_xy: npt.ArrayLike = (),
) -> Frame:
    """One video frame, uint8 (480, 960, 3) RGB.

    Args:
        first_person: the observation, gray (120, 160, 1) or (120, 160); shown at 640x480.
        top_view: made once with ``TopView(track)``.
        pose: x and y in metres, yaw in radians.
        hud: the instruments.
        trail_xy: positions driven so far (T, 2), metres.
    """
    gray = first_person.reshape(first_person.shape[:2])
    frame = np.empty((FRAME_SIZE_PX[1], FRAME_SIZE_PX[0], 3), dtype=np.uint8)
    frame[:, :640] = cv2.resize(gray, (640, 480), interpolation=cv2.INTER_CUBIC)[:, :, None]
    width, height = top_view.size_px
    if (width, height) != MAP_SIZE_PX:
        raise ValueError(f"the top view is {width}x{height} pixels; compose needs {MAP_SIZE_PX[0]}x{MAP_SIZE_PX[1]}")
    frame[:height, 640:] = top_view.draw(pose, trail_xy)
    frame[height:, 640:] = _instruments(hud, (width, FRAME_SIZE_PX[1] - height))
    return frame


def _instruments(hud: Hud, size_px: tuple[int, int]) -> Frame:
    """The panel under the map, drawn at twice the size because Pillow does not anti-alias shapes."""
    width, height = 2 * size_px[0], 2 * size_px[1]
    panel = Image.new("RGB", (width, height), PANEL)
    draw = ImageDraw.Draw(panel)
    left, right = 40, width - 40

    speed = f"{hud.speed_mps:.2f}"
    draw.text((left, 28), speed, font=_font(68, bold=True), fill=BRIGHT)
    draw.text((left + draw.textlength(speed, font=_font(68, bold=True)) + 16, 64), "m/s", font=_font(30), fill=FAINT)
    draw.text((right, 28), f"{hud.lap_time_s:.2f} s", font=_font(48, bold=True), fill=BRIGHT, anchor="ra")
    draw.text((right, 84), "lap time", font=_font(24), fill=FAINT, anchor="ra")

    # Steering: a bar from the middle towards the side that the wheels point to. Left is positive.
    share = max(-1.0, min(1.0, hud.steering_deg / hud.steering_limit_deg))
    middle = width / 2
    tip = middle - share * (right - left) / 2
    _bar(draw, 132, "steering", f"{hud.steering_deg:+.0f}°", min(middle, tip) - 4, max(middle, tip) + 4, (255, 146, 43))
    done = left + (right - left) * max(0.0, min(100.0, hud.progress)) / 100.0
    _bar(draw, 204, "progress", f"{hud.progress:.1f} %", left, max(done, left + 20), (61, 219, 217))

    for row, line in enumerate(hud.lines[:2]):
        draw.text((left, 276 + 34 * row), line, font=_font(24), fill=FAINT)
    return np.asarray(panel.reduce(2), dtype=np.uint8)


def _bar(draw: ImageDraw.ImageDraw, y: int, label: str, value: str, start: float, end: float, color: Color) -> None:
    """A labelled bar over the panel's width, filled from ``start`` to ``end`` (pixels)."""
    left, right = 40, draw.im.size[0] - 40
    draw.text((left, y), label, font=_font(24), fill=FAINT)
    draw.text((right, y), value, font=_font(24), fill=BRIGHT, anchor="ra")
    draw.rounded_rectangle((left, y + 36, right, y + 56), 10, fill=ROAD)
    draw.rounded_rectangle((max(start, left), y + 36, min(end, right), y + 56), 10, fill=color)


_fonts: dict[tuple[int, bool], ImageFont.FreeTypeFont] = {}


def _font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so the video looks the same on every computer."""
    if (size_px, bold) not in _fonts:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        _fonts[size_px, bold] = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size_px)
    return _fonts[size_px, bold]


def _polyline(
    picture: Frame, points_px: npt.NDArray[np.float64], color: Color, thickness_px: int, *, closed: bool
) -> None:
    corners = np.round(points_px * 16).astype(np.int32)  # sixteenths of a pixel: OpenCV's shift of 4
    cv2.polylines(picture, [corners], closed, color, thickness_px, cv2.LINE_AA, shift=4)


def _dashes(line_px: npt.NDArray[np.float64], dash_px: float) -> list[npt.NDArray[np.float64]]:
    """Pieces of ``line_px`` (N, 2), each ``dash_px`` long, with gaps as long between them."""
    steps = np.hypot(*np.diff(line_px, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    starts = np.arange(0.0, along[-1], 2.0 * dash_px)
    at = [np.linspace(s, min(s + dash_px, along[-1]), 4) for s in starts]
    return [np.stack([np.interp(a, along, line_px[:, k]) for k in (0, 1)], axis=1) for a in at]


class VideoWriter:
    """Write RGB frames as H.264 in an MP4 (yuv420p, index first) that browsers and phones play.

    Use it as a context manager. The file appears under its name only when it is complete: an error, in here or in the
    caller's code, leaves nothing behind.
    """

    def __init__(self, path: str | Path, size_px: tuple[int, int] = FRAME_SIZE_PX, fps: float = 10.0) -> None:
        """Start a video of ``size_px`` (width, height; both even, as H.264's colour planes are half the size).

        Raises:
            ValueError: odd or empty size, or no frame rate.
            RunStorageError: the folder is missing or cannot be written to.
        """
        width, height = size_px
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"H.264 needs an even width and height; got {width}x{height}")
        if not fps > 0:
            raise ValueError(f"a video needs a positive frame rate; got {fps}")
        self.path = Path(path)
        self.size_px = size_px
        self.frames = 0
        self._partial = self.path.with_name(f".{self.path.name}.part")
        self._open = False
        try:
            self._partial.touch()  # FFmpeg opens the file only with the first packet; fail before the trial, not after
            self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        except OSError as error:
            raise self._failed(error) from error
        self._open = True
        rate = Fraction(fps).limit_denominator(1000)
        # CRF 21: no visible loss on this kind of picture, about 1 MB a minute.
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": "21", "preset": "veryfast"})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def add(self, frame: Frame) -> None:
        """Append ``frame``, uint8 (height, width, 3) RGB.

        Raises:
            ValueError: another shape or type, or the video is closed.
            RunStorageError: it cannot be written, for instance because the disk is full; nothing is left behind.
        """
        if not self._open:
            raise ValueError(f"the video {self.path} is closed")
        width, height = self.size_px
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 ({height}, {width}, 3); got {frame.dtype} {frame.shape}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        try:
            self._container.mux(self._stream.encode(picture))
        except OSError as error:
            self._discard()
            raise self._failed(error) from error
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. A second call does nothing.

        Raises:
            TrainerError: no frame was added.
            RunStorageError: it cannot be written.
        """
        if not self._open:
            return
        if not self.frames:
            self._discard()
            raise TrainerError(
                f"the video {self.path} has no frames",
                cause="the trial ended before its first step",
                next_step="try another --seed, or leave --video out",
            )
        try:
            self._container.mux(self._stream.encode(None))
            self._open = False
            self._container.close()
            self._partial.replace(self.path)
        except OSError as error:
            self._discard()
            raise self._failed(error) from error

    def _discard(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):  # already failing, or given up: the reason is reported by the caller
                self._container.close()
        self._partial.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> RunStorageError:
        folder = self.path.parent
        missing = not folder.is_dir()
        return RunStorageError(
            f"cannot write the video {self.path}: {error.strerror or error}",
            cause=f"the folder {folder} does not exist" if missing else "the disk is full, or the folder is read-only",
            next_step=f"mkdir -p {folder}" if missing else f"check with `df -h {folder}` and `ls -ld {folder}`",
        )
