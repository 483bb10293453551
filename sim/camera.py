"""The road camera: 160x120 gray pictures of every car's view in one call, without OpenGL.

What it draws: the textured ground, a background above the horizon, the barrier, boxes; then what lens and sensor do.
``sim.mujoco_view`` draws the same scene with MuJoCo's renderer; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import camera_kernel as kernel
from sim.car_spec import CameraSpec
from sim.look import LEVELS, MAX_BARRIER_CORNERS, PANORAMA_SHAPE, Surface, pack, pyramid
from sim.threads import Workers

Floats = NDArray[np.float64]
Frames = NDArray[np.uint8]
_NOISE_SEED = 20251


class Atlas:
    """Surfaces side by side in flat arrays, as the camera's kernel wants them."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self.surfaces = tuple(surfaces)
        count = len(self.surfaces)
        self.bases = np.zeros(count, np.uint64)
        self.offsets = np.zeros((count, LEVELS), np.uint64)
        self.widths = np.zeros((count, LEVELS), np.int32)
        self.heights = np.zeros((count, LEVELS), np.int32)
        self.ppms = np.array([s.pixels_per_m for s in surfaces])
        self.origins = np.array([s.origin_m for s in surfaces], dtype=np.float64)
        self.panoramas = np.stack([s.panorama for s in surfaces])
        self.barriers = np.zeros((count, MAX_BARRIER_CORNERS, 2))
        self.barrier_counts = np.zeros(count, np.int64)
        self.barrier_heights = np.array([s.barrier_height_m for s in surfaces])
        self.barrier_grays = np.zeros((count, MAX_BARRIER_CORNERS))
        assert self.panoramas.shape[1:] == PANORAMA_SHAPE
        parts, total = [], 0
        for index, surface in enumerate(surfaces):
            self.bases[index] = total
            used = 0
            for level, picture in enumerate(pyramid(surface.base)):
                self.offsets[index, level] = used
                self.heights[index, level], self.widths[index, level] = picture.shape
                parts.append(pack(picture).ravel())
                used += picture.size
            total += used
        self.texels = np.concatenate(parts)
        for index, surface in enumerate(surfaces):
            self._set_barrier(index, surface)

    def replace(self, index: int, surface: Surface) -> None:
        """Put another appearance of the same track in the place of surface ``index``."""
        total = int(self.bases[index])
        for level, picture in enumerate(pyramid(surface.base)):
            if picture.shape != (self.heights[index, level], self.widths[index, level]):
                raise ValueError(f"surface {index} is of another size: {picture.shape}")
            start = total + int(self.offsets[index, level])
            self.texels[start : start + picture.size] = pack(picture).ravel()
        self.panoramas[index] = surface.panorama
        self.barrier_heights[index] = surface.barrier_height_m
        self._set_barrier(index, surface)
        self.surfaces = (*self.surfaces[:index], surface, *self.surfaces[index + 1 :])

    def _set_barrier(self, index: int, surface: Surface) -> None:
        count = len(surface.barrier_m)
        self.barrier_counts[index] = count
        self.barriers[index, :count] = surface.barrier_m
        self.barrier_grays[index, :count] = surface.barrier_gray


@dataclass(frozen=True)
class Optics:
    """Camera mounting, light, lens and sensor of k cars, arrays (k,) unless said."""

    forward_m: Floats
    height_m: Floats
    pitch_down_deg: Floats
    roll_deg: Floats  # + is clockwise as seen from behind the car
    yaw_deg: Floats
    horizontal_fov_deg: Floats
    gain: Floats  # of the light
    bias: Floats  # grays
    gamma: Floats
    blur: Floats  # 0 none, 1 a [1 2 1] / 4 kernel both ways
    vignette: Floats  # light lost in the corners, 0..1
    noise: Floats  # standard deviation, grays
    shadow: Floats  # light lost in the shadow band, 0 none
    shadow_band: Floats  # (k, 4): normal x, normal y, offset m, half width m
    tone: Floats  # (k, 4) added to the response at 0, 1/3, 2/3 and 1, shares of the range
    invert: NDArray[np.bool_]  # the negative picture

    @staticmethod
    def nominal(spec: CameraSpec, k: int) -> Optics:
        """A perfect camera mounted as the spec says."""

        def full(value: float) -> Floats:
            return np.full(k, value, dtype=np.float64)

        zero, one = full(0), full(1)
        return Optics(
            full(spec.forward_m), full(spec.height_m), full(spec.pitch_down_deg), full(spec.roll_deg), zero,
            full(spec.horizontal_fov_deg), one, zero, one, zero, zero, zero, zero, np.zeros((k, 4)),
            np.zeros((k, 4)), np.zeros(k, dtype=bool),
        )  # fmt: skip


def focal_px(horizontal_fov_deg: Floats | float) -> Floats:
    """Focal length in pixels of a pinhole camera 160 pixels wide."""
    return np.asarray(kernel.WIDTH / 2 / np.tan(np.radians(horizontal_fov_deg) / 2), dtype=np.float64)


class RoadCamera:
    """The cameras of n cars.

    Args:
        atlas: the surfaces that cars can be on.
        n: how many cars.
        spec: mounting and field of view before randomisation.
        workers: threads to draw with.
        boxes: room for that many boxes for each car.
    """

    def __init__(self, atlas: Atlas, n: int, spec: CameraSpec, workers: Workers, boxes: int = 0) -> None:
        self.atlas, self.n, self._workers = atlas, n, workers
        self.surface = np.zeros(n, np.int64)
        self.cams = np.zeros((n, kernel.CAM_COLUMNS))
        self.boxes = np.zeros((n, boxes, kernel.BOX_COLUMNS))
        self.box_counts = np.zeros(n, np.int64)
        self._fx = np.zeros((n, kernel.FX_COLUMNS))
        self._luts = np.zeros((n, 256), np.uint8)
        noise = np.random.default_rng(_NOISE_SEED).standard_normal(kernel.NOISE_SIZE) * 32
        table = np.clip(np.round(noise), -127, 127).astype(np.int8)
        self._noise = np.concatenate([table, table[: kernel.WIDTH]])
        # Squared distance from the picture's middle, 1 in the corners, as row and column parts.
        rows = (np.arange(kernel.HEIGHT) - kernel.HEIGHT / 2 + 0.5) / (kernel.HEIGHT / 2)
        columns = (np.arange(kernel.WIDTH) - kernel.WIDTH / 2 + 0.5) / (kernel.WIDTH / 2)
        self._radius = np.zeros((2, kernel.WIDTH), np.float32)
        self._radius[0, : kernel.HEIGHT] = rows**2 / 2
        self._radius[1] = columns**2 / 2
        self.set_optics(np.arange(n), Optics.nominal(spec, n))

    def set_optics(self, ids: NDArray[np.int64], optics: Optics) -> None:
        """Give the cars ``ids`` (k,) their cameras."""
        self.cams[ids, kernel.CAM_FORWARD] = optics.forward_m
        self.cams[ids, kernel.CAM_HEIGHT] = optics.height_m
        self.cams[ids, kernel.CAM_PITCH] = np.radians(optics.pitch_down_deg)
        self.cams[ids, kernel.CAM_ROLL] = np.radians(optics.roll_deg)
        self.cams[ids, kernel.CAM_YAW] = np.radians(optics.yaw_deg)
        self.cams[ids, kernel.CAM_FOCAL] = focal_px(optics.horizontal_fov_deg)
        self._fx[ids, kernel.FX_BLUR] = optics.blur
        self._fx[ids, kernel.FX_VIGNETTE] = optics.vignette
        self._fx[ids, kernel.FX_NOISE] = optics.noise
        self._fx[ids, kernel.FX_SHADOW] = optics.shadow
        self._fx[ids, kernel.FX_SHADOW_NX : kernel.FX_SHADOW_HALF + 1] = optics.shadow_band
        ramp = np.arange(256) / 255.0
        curve = 255 * optics.gain[:, None] * ramp[None, :] ** optics.gamma[:, None] + optics.bias[:, None]
        knots = np.linspace(0, 1, 4)
        curve += 255 * np.stack([np.interp(ramp, knots, offsets) for offsets in optics.tone])
        curve = np.where(optics.invert[:, None], 255 - curve, curve)
        self._luts[ids] = np.clip(np.round(curve), 0, 255).astype(np.uint8)

    def render(
        self,
        poses: Floats,
        seeds: NDArray[np.uint64],
        out: Frames,
        ids: NDArray[np.int64] | None = None,
        lens: bool = True,
    ) -> None:
        """Draw what the cars see.

        Args:
            poses: (n, 7) position on the ground between the axles, and quaternion (scalar first), of each car.
            seeds: (n,) of this picture's sensor noise.
            out: (n, 120, 160) uint8, written; only the rows ``ids`` where they are given.
            ids: (k,) the cars to draw, or None for all.
            lens: False leaves blur, vignette, light and noise out.
        """
        a = self.atlas
        pick: slice | NDArray[np.int64]
        if ids is None:
            frames, pick = out, slice(None)
        else:
            frames, pick = np.empty((len(ids), kernel.HEIGHT, kernel.WIDTH), np.uint8), ids
        cars = (poses[pick], self.cams[pick], self.surface[pick])
        scene = (
            a.texels, a.bases, a.offsets, a.widths, a.heights, a.ppms, a.origins, a.panoramas, a.barriers,
            a.barrier_counts, a.barrier_heights, a.barrier_grays,
        )  # fmt: skip
        more = (self.boxes[pick], self.box_counts[pick], self._fx[pick], self._luts[pick], self._noise, seeds[pick])

        def draw(begin: int, end: int) -> None:
            kernel.render(frames, begin, end, *cars, *scene, *more, self._radius, lens)

        self._workers.run(draw, len(frames))
        if ids is not None:
            out[ids] = frames

    def apply_lens(self, frames: Frames, seeds: NDArray[np.uint64], ids: NDArray[np.int64] | None = None) -> None:
        """Put this camera's light, lens and sensor on pictures that another renderer drew, in place.

        Args:
            frames: (k, 120, 160) of the cars ``ids``, or of all n.
            seeds: (n,) of these pictures' sensor noise.
            ids: (k,) whose pictures they are, or None for all.
        """
        previous, current = np.empty(kernel.WIDTH, np.float32), np.empty(kernel.WIDTH + 2, np.float32)
        scratch = (previous, current, np.empty(kernel.WIDTH, np.uint32))
        for frame, car in zip(frames, range(self.n) if ids is None else ids, strict=True):
            kernel._lens(frame, self._fx[car], self._luts[car], self._noise, seeds[car], *scratch, self._radius)
