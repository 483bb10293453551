"""What the world looks like: appearances of a track, drawn once as gray texture pyramids that the road camera samples.

A texture is a gray picture of the ground plane seen from above. Each level of its pyramid stores, for every texel, that
texel and its right, lower and lower-right neighbours packed in 32 bits, so that one memory read is a bilinear lookup.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.track import Track

Floats = NDArray[np.float64]
Gray = NDArray[np.uint8]

APPEARANCES = 16  # of each track in training; fewer transfer visibly worse (spec rl-and-rendering §0.6)
HELD_OUT = 1000  # appearances from this index on are never trained on
LEVELS = 7
PANORAMA_SHAPE = (64, 512)  # rows from 45 degrees above the horizon down to it, columns around the car
MARGIN_M = 2.0  # ground drawn beyond the outer border
MAX_BARRIER_CORNERS = 64
_MAX_TEXELS = 1.2e6
_MAX_PPM = 100.0


@dataclass(frozen=True)
class Appearance:
    """One look of one track. Grays are 0..255, lengths metres."""

    road: float
    ground: float
    line: float
    line_width_m: float
    center: str  # "dashed", "solid" or "none"
    center_gray: float
    dash_m: float
    wear: float  # share of the lines that is rubbed off
    road_grain: float  # standard deviation of the road's texture
    ground_grain: float
    barrier_gray: float
    barrier_height_m: float  # 0: no barrier
    barrier_gap_m: float  # between the outer border's hull and the barrier
    seed: int  # of grain, wear, panels and background


def nominal_appearance() -> Appearance:
    """A printed track in a plain room: dark road, white borders, dashed centre, low barricades."""
    return Appearance(60, 115, 235, 0.045, "dashed", 170, 0.15, 0.0, 4, 6, 150, 0.35, 0.8, 0)


def random_appearance(track_name: str, index: int, seed: int) -> Appearance:
    """Appearance ``index`` of a track; the same arguments give the same one.

    The lines always differ from what they lie on: a look in which nobody could drive teaches nothing.
    """
    rng = np.random.default_rng([seed & 0x7FFFFFFF, zlib.crc32(track_name.encode()), index])
    road = rng.uniform(25, 170)
    # A line is at least 50 grays away from the road, on the side where there is room, mostly brighter.
    if road < 120 or rng.random() < 0.6:
        line = rng.uniform(road + 50, 255)
    else:
        line = rng.uniform(0, road - 50)
    ground = rng.uniform(10, 220)
    return Appearance(
        road=road,
        ground=ground,
        line=line,
        line_width_m=rng.uniform(0.03, 0.07),
        center=str(rng.choice(["dashed", "solid", "none"], p=[0.6, 0.2, 0.2])),
        center_gray=float(np.clip(line + rng.uniform(-60, 20), 0, 255)),
        dash_m=rng.uniform(0.1, 0.3),
        wear=rng.uniform(0, 0.25),
        road_grain=rng.uniform(0, 12),
        ground_grain=rng.uniform(0, 25),
        barrier_gray=rng.uniform(20, 240),
        barrier_height_m=float(rng.choice([0.0, 1.0], p=[0.25, 0.75]) * rng.uniform(0.15, 0.7)),
        barrier_gap_m=rng.uniform(0.4, 1.6),
        seed=int(rng.integers(1 << 31)),
    )


@dataclass(frozen=True)
class Surface:
    """A drawn appearance: what the road camera needs to see a track."""

    base: Gray  # (h, w) the ground, row 0 at the lowest y
    origin_m: tuple[float, float]  # world position of the outer corner of texel (0, 0)
    pixels_per_m: float
    panorama: Gray  # PANORAMA_SHAPE
    barrier_m: Floats  # (k, 2) convex closed polygon, counter-clockwise, first point not repeated; k = 0: none
    barrier_height_m: float
    barrier_gray: Gray  # (k,) of the panel from point i to point i + 1


def draw_surface(track: Track, look: Appearance) -> Surface:
    """Draw ``track`` in the appearance ``look``."""
    rng = np.random.default_rng(look.seed)
    xmin, ymin, xmax, ymax = track.bounds
    xmin, ymin, xmax, ymax = xmin - MARGIN_M, ymin - MARGIN_M, xmax + MARGIN_M, ymax + MARGIN_M
    ppm = float(min(_MAX_PPM, np.sqrt(_MAX_TEXELS / ((xmax - xmin) * (ymax - ymin)))))
    width, height = int(np.ceil((xmax - xmin) * ppm)), int(np.ceil((ymax - ymin) * ppm))

    shift = 5  # cv2 takes fixed-point coordinates

    def pixels(points_m: Floats) -> NDArray[np.int32]:
        texel = (points_m - (xmin, ymin)) * ppm - 0.5
        return np.round(texel * (1 << shift)).astype(np.int32).reshape(-1, 1, 2)

    outer, inner = pixels(track.outer), pixels(track.inner)
    road = np.zeros((height, width), np.uint8)
    cv2.fillPoly(road, [outer], 255, cv2.LINE_AA, shift)
    cv2.fillPoly(road, [inner], 0, cv2.LINE_AA, shift)

    lines = np.zeros_like(road)
    thickness = max(1, round(look.line_width_m * ppm))
    cv2.polylines(lines, [outer, inner], True, 255, thickness, cv2.LINE_AA, shift)
    middle = np.zeros_like(road)
    if look.center == "solid":
        cv2.polylines(middle, [pixels(track.center)], True, 255, thickness, cv2.LINE_AA, shift)
    elif look.center == "dashed":
        for start in np.arange(0.0, track.length_m - look.dash_m, 2 * look.dash_m):
            s = np.linspace(start, start + look.dash_m, 5)
            dash = np.stack([np.interp(s, track.s_m, track.center[:, k]) for k in (0, 1)], axis=-1)
            cv2.polylines(middle, [pixels(dash)], False, 255, thickness, cv2.LINE_AA, shift)

    def grain(sigma: float, scale_m: float) -> NDArray[np.float32]:
        """Blotchy noise: coarse and fine octaves, so that it does not vanish in the lower pyramid levels."""
        total = np.zeros((height, width), np.float32)
        for octave, weight in ((scale_m, 0.6), (scale_m / 8, 0.4)):
            size = (max(2, int(width / (octave * ppm)) + 1), max(2, int(height / (octave * ppm)) + 1))
            field = rng.standard_normal((size[1], size[0]), dtype=np.float32)
            total += weight * cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        return total * np.float32(sigma)

    picture = look.ground + grain(look.ground_grain, 0.6)
    alpha = road.astype(np.float32) / 255
    picture += alpha * (look.road + grain(look.road_grain, 0.4) - picture)
    paint = np.float32(1)
    if look.wear > 0:
        worn = grain(1.0, 0.25)
        threshold = np.quantile(worn[::7, ::7], look.wear)
        paint = np.clip((worn - threshold) * 4 + 0.3, 0.15, 1).astype(np.float32)
    picture += middle.astype(np.float32) / 255 * paint * (look.center_gray - picture)
    picture += lines.astype(np.float32) / 255 * paint * (look.line - picture)

    barrier = _barrier(track, look.barrier_gap_m) if look.barrier_height_m > 0 else np.zeros((0, 2))
    panels = np.clip(look.barrier_gray + rng.normal(0, 12, len(barrier)), 0, 255).astype(np.uint8)
    return Surface(
        base=np.clip(picture, 0, 255).astype(np.uint8),
        origin_m=(float(xmin), float(ymin)),
        pixels_per_m=ppm,
        panorama=_panorama(rng),
        barrier_m=barrier,
        barrier_height_m=look.barrier_height_m,
        barrier_gray=panels,
    )


def _barrier(track: Track, gap_m: float) -> Floats:
    """The convex hull of the outer border, widened by ``gap_m`` (at most the drawn margin), few corners."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = min(gap_m, MARGIN_M - 0.1) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    cloud = (track.outer[:, None, :] + circle[None]).reshape(-1, 2).astype(np.float32)
    outline, tolerance_m = cv2.convexHull(cloud), 0.08
    hull = cv2.approxPolyDP(outline, tolerance_m, True)
    while len(hull) > MAX_BARRIER_CORNERS:
        tolerance_m *= 1.5
        hull = cv2.approxPolyDP(outline, tolerance_m, True)
    hull = cv2.convexHull(hull)[:, 0, :].astype(np.float64)
    x, y = hull[:, 0], hull[:, 1]
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return np.ascontiguousarray(hull if area > 0 else hull[::-1])


def _panorama(rng: np.random.Generator) -> Gray:
    """A background around the car: a vertical gradient with blurred blocks, as furniture and windows would be."""
    rows, columns = PANORAMA_SHAPE
    top, bottom = rng.uniform(40, 255), rng.uniform(40, 230)
    picture = np.linspace(top, bottom, rows, dtype=np.float32)[:, None] + np.zeros((1, columns), np.float32)
    for _ in range(int(rng.integers(4, 24))):
        x, w = int(rng.integers(columns)), int(rng.integers(6, 70))
        y, h = int(rng.integers(rows)), int(rng.integers(6, rows))
        picture[y : y + h, np.arange(x, x + w) % columns] = rng.uniform(0, 255)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 2.5))), 0, 255).astype(np.uint8)


def pyramid(base: Gray) -> list[Gray]:
    """``LEVELS`` pictures, each half the size of the one before by area averaging."""
    levels = [base]
    for _ in range(LEVELS - 1):
        height, width = levels[-1].shape
        size = (max(2, (width + 1) // 2), max(2, (height + 1) // 2))
        padded = cv2.copyMakeBorder(levels[-1], 0, size[1] * 2 - height, 0, size[0] * 2 - width, cv2.BORDER_REPLICATE)
        levels.append(np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.uint8))
    return levels


def pack(level: Gray) -> NDArray[np.uint32]:
    """Each texel with its right, lower and lower-right neighbours in one word: bits 0-7, 8-15, 16-23, 24-31."""
    p = np.pad(level, ((0, 1), (0, 1)), mode="edge").astype(np.uint32)
    return np.asarray(p[:-1, :-1] | p[:-1, 1:] << 8 | p[1:, :-1] << 16 | p[1:, 1:] << 24, np.uint32)
