"""How well the road camera agrees with MuJoCo's renderer on the same scenes, and how much faster it is.

``python -m benchmarks.camera_agreement`` draws random poses (body pitched, rolled and lifted, camera turned, boxes on
the road) on several tracks and appearances with both, prints one JSON object and writes a picture: ours, MuJoCo's, and
their difference times eight. Differences are in grays of 255, over the pixels whose ray points below the horizon.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim import camera_kernel as kernel
from sim.camera import Atlas, Optics, RoadCamera
from sim.car_spec import CameraSpec
from sim.look import draw_surface, nominal_appearance, random_appearance
from sim.mujoco_view import MujocoCamera
from sim.objects import BOT_CAR_HEIGHT_M, BOT_CAR_M, BOX_M
from sim.threads import Workers
from sim.track import Track, load_track

Floats = NDArray[np.float64]
Frames = NDArray[np.uint8]
TRACKS = ("first_oval", "hairpin_alley", "snake_pass")
REAL_TRACK = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "tracks" / "reinvent_base.npy"
LOOKS = 4  # of each track, the first is the nominal one
BOXES = 2
RACE_OBJECTS = 3


@dataclass(frozen=True)
class Scenes:
    """n cars somewhere, ready to be drawn."""

    road: RoadCamera
    names: tuple[str, ...]  # of the surfaces: track, number of the look
    poses: Floats  # (n, 7)
    seeds: NDArray[np.uint64]  # (n,)
    below: NDArray[np.bool_]  # (n, 120, 160) pixels whose ray points below the horizon by half a pixel or more


def shipped_and_real_tracks() -> list[Track]:
    tracks = [load_track(name) for name in TRACKS]
    return tracks + ([load_track(REAL_TRACK)] if REAL_TRACK.is_file() else [])


def rotation(yaw: Floats, pitch: Floats, roll: Floats) -> Floats:
    """Rz(yaw) Ry(pitch) Rx(roll), (n, 3, 3); positive pitch is nose down."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def quaternion(yaw: Floats, pitch: Floats, roll: Floats) -> Floats:
    """The same rotation as (n, 4), scalar first."""
    cy, sy, cp, sp = np.cos(yaw / 2), np.sin(yaw / 2), np.cos(pitch / 2), np.sin(pitch / 2)
    cr, sr = np.cos(roll / 2), np.sin(roll / 2)
    parts = [cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy]
    return np.stack([*parts, cr * cp * sy - sr * sp * cy], axis=-1)


def draw_scenes(tracks: Sequence[Track], n: int, seed: int) -> Scenes:
    """n random cars on and beside the tracks, their bodies pitched and rolled by several degrees."""
    rng = np.random.default_rng(seed)
    surfaces, names = [], []
    for track in tracks:
        for index in range(LOOKS):
            look = nominal_appearance() if index == 0 else random_appearance(track.name, index, seed)
            surfaces.append(draw_surface(track, look))
            names.append(f"{track.name} {index or 'nominal'}")
    spec = CameraSpec()
    road = RoadCamera(Atlas(surfaces), n, spec, Workers(1), boxes=BOXES)
    road.surface[:] = np.arange(n) % len(surfaces)
    xy, yaw = np.empty((n, 2)), np.empty(n)
    for car in range(n):
        track = tracks[road.surface[car] // LOOKS]
        here = int(rng.integers(len(track.center) - 1))
        ahead = track.center[here + 1] - track.center[here]
        xy[car] = track.center[here] + rng.normal(0, 0.5 * track.width_m, 2)
        yaw[car] = np.arctan2(ahead[1], ahead[0]) + rng.choice([0.0, np.pi]) + rng.normal(0, 0.5)
    pitch, roll = np.radians(rng.uniform(-5, 5, n)), np.radians(rng.uniform(-6, 6, n))
    poses = np.concatenate([xy, rng.uniform(-0.01, 0.02, (n, 1)), quaternion(yaw, pitch, roll)], axis=1)

    def about(middle: float, half: float) -> Floats:
        return middle + rng.uniform(-half, half, n)

    optics = replace(
        Optics.nominal(spec, n),
        forward_m=about(spec.forward_m, 0.02),
        height_m=about(spec.height_m, 0.02),
        pitch_down_deg=about(spec.pitch_down_deg, 5),
        roll_deg=about(0, 2),
        yaw_deg=about(0, 3),
        horizontal_fov_deg=about(spec.horizontal_fov_deg, 8),
    )
    road.set_optics(np.arange(n), optics)

    # Boxes stand inside the barrier (the road camera draws them over it): on the road, where the car looks.
    road.box_counts[:] = rng.integers(0, BOXES + 1, n)
    for car in range(n):
        center = tracks[road.surface[car] // LOOKS].center
        away = center - xy[car]
        distance = np.linalg.norm(away, axis=1)
        cosine = (away @ [np.cos(yaw[car]), np.sin(yaw[car])]) / np.maximum(distance, 1e-9)
        seen = np.flatnonzero((distance > 0.5) & (distance < 5) & (cosine > 0.8))
        road.box_counts[car] = min(road.box_counts[car], len(seen))
        for box in range(road.box_counts[car]):
            road.boxes[car, box, : kernel.BOX_YAW] = center[rng.choice(seen)] + rng.uniform(-0.3, 0.3, 2)
    road.boxes[..., kernel.BOX_YAW] = rng.uniform(0, 2 * np.pi, (n, BOXES))
    road.boxes[..., kernel.BOX_HALF_LENGTH : kernel.BOX_HEIGHT] = rng.uniform(0.05, 0.15, (n, BOXES, 2))
    road.boxes[..., kernel.BOX_HEIGHT] = rng.uniform(0.05, 0.3, (n, BOXES))
    road.boxes[..., kernel.BOX_GRAY] = rng.integers(10, 245, (n, BOXES))

    # Rays of unit length ahead in the camera's frame (ahead, left, up), turned into the world; only their z is wanted.
    camera = rotation(yaw, pitch, roll) @ rotation(
        np.radians(optics.yaw_deg), np.radians(optics.pitch_down_deg), np.radians(optics.roll_deg)
    )
    focal = kernel.WIDTH / 2 / np.tan(np.radians(optics.horizontal_fov_deg) / 2)
    left = (kernel.WIDTH / 2 - 0.5 - np.arange(kernel.WIDTH))[None, None, :] / focal[:, None, None]
    up = (kernel.HEIGHT / 2 - 0.5 - np.arange(kernel.HEIGHT))[None, :, None] / focal[:, None, None]
    ahead_z, left_z, up_z = (camera[:, 2, k][:, None, None] for k in range(3))
    below = ahead_z + left_z * left + up_z * up < -0.5 / focal[:, None, None]
    return Scenes(road, tuple(names), poses, np.arange(n, dtype=np.uint64), below)


def with_race_objects(scenes: Scenes, tracks: Sequence[Track], seed: int) -> Scenes:
    """The same poses with DeepRacer's boxes (even cars) or bot cars (odd ones) on the road around them.

    Up to ``RACE_OBJECTS``, near and far, partly outside of the picture, partly hidden by each other.
    """
    rng = np.random.default_rng(seed)
    old = scenes.road
    road = RoadCamera(old.atlas, old.n, CameraSpec(), Workers(1), boxes=RACE_OBJECTS)
    road.surface[:], road.cams[:] = old.surface, old.cams
    box, bot = (BOX_M[0] / 2, BOX_M[1] / 2, 0.25), (BOT_CAR_M[0] / 2, BOT_CAR_M[1] / 2, BOT_CAR_HEIGHT_M)
    for car in range(road.n):
        center = tracks[road.surface[car] // LOOKS].center[:-1]
        step = np.roll(center, -1, axis=0) - center
        normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.linalg.norm(step, axis=1, keepdims=True)
        places = center + normal * rng.choice([-0.2, 0.2], (len(center), 1))
        away = places - scenes.poses[car, :2]
        distance = np.linalg.norm(away, axis=1)
        yaw = 2 * np.arctan2(scenes.poses[car, 6], scenes.poses[car, 3])
        cosine = (away @ [np.cos(yaw), np.sin(yaw)]) / np.maximum(distance, 1e-9)
        seen = np.flatnonzero((distance > 0.6) & (distance < 5) & (cosine > 0.7))
        count = 0
        for place in rng.permutation(seen):
            taken = road.boxes[car, :count, : kernel.BOX_YAW]
            if count < RACE_OBJECTS and (np.linalg.norm(taken - places[place], axis=1) > 0.7).all():
                heading = np.arctan2(step[place, 1], step[place, 0])
                size = box if car % 2 == 0 else bot
                road.boxes[car, count] = [*places[place], heading, *size, rng.integers(10, 245)]
                count += 1
        road.box_counts[car] = count
    return replace(scenes, road=road)


def draw_both(scenes: Scenes) -> tuple[Frames, Frames]:
    """The pictures of the road camera and of MuJoCo's renderer, (n, 120, 160) each, before light and lens."""
    ours, theirs = (np.zeros((len(scenes.poses), kernel.HEIGHT, kernel.WIDTH), np.uint8) for _ in range(2))
    scenes.road.render(scenes.poses, scenes.seeds, ours, lens=False)
    reference = MujocoCamera(scenes.road)
    try:
        reference.render(scenes.poses, scenes.seeds, theirs, lens=False)
    finally:
        reference.close()
    return ours, theirs


def figures(scenes: Scenes, ours: Frames, theirs: Frames) -> dict[str, object]:
    """Mean absolute differences below the horizon: overall, of each appearance, of the worst pose."""
    difference = np.abs(ours.astype(np.float64) - theirs)
    by_pose = np.array([d[mask].mean() for d, mask in zip(difference, scenes.below, strict=True)])
    surface = scenes.road.surface
    return {
        "poses": len(ours),
        "mean_abs_difference": round(float(difference[scenes.below].mean()), 3),
        "worst_pose": round(float(by_pose.max()), 3),
        "share_of_pixels_above_8": round(float((difference[scenes.below] > 8).mean()), 4),
        "mean_signed_difference": round(float((ours.astype(np.float64) - theirs)[scenes.below].mean()), 3),
        "by_appearance": {
            name: round(float(difference[surface == k][scenes.below[surface == k]].mean()), 3)
            for k, name in enumerate(scenes.names)
            if (surface == k).any()
        },
    }


def frames_per_second(camera: RoadCamera | MujocoCamera, scenes: Scenes, seconds: float = 2.0) -> float:
    out = np.zeros((len(scenes.poses), kernel.HEIGHT, kernel.WIDTH), np.uint8)
    camera.render(scenes.poses, scenes.seeds, out, lens=False)
    begin, drawn = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        camera.render(scenes.poses, scenes.seeds, out, lens=False)
        drawn += len(out)
    return drawn / (time.perf_counter() - begin)


def speeds(scenes: Scenes) -> dict[str, float]:
    """Pictures per second of both, one core each, light and lens left out."""
    result = {"road_camera_fps": frames_per_second(scenes.road, scenes)}
    for name, supersample in (("mujoco_640x480_averaged", 4), ("mujoco_160x120", 1)):
        reference = MujocoCamera(scenes.road, supersample)
        try:
            result[f"{name}_fps"] = frames_per_second(reference, scenes)
        finally:
            reference.close()
        result[f"times_faster_than_{name}"] = result["road_camera_fps"] / result[f"{name}_fps"]
    return {name: round(value, 1) for name, value in result.items()}


def side_by_side(ours: Frames, theirs: Frames, zoom: int = 2) -> Frames:
    """A picture with a row for each pose: ours | MuJoCo | difference times eight."""
    difference = np.minimum(8 * np.abs(ours.astype(np.int32) - theirs), 255).astype(np.uint8)
    gap = np.full((len(ours), kernel.HEIGHT + 4, 4), 128, np.uint8)
    padded = [np.pad(x, ((0, 0), (2, 2), (0, 0)), constant_values=128) for x in (ours, theirs, difference)]
    rows = np.concatenate([padded[0], gap, padded[1], gap, padded[2]], axis=2)
    return np.vstack(list(rows)).repeat(zoom, axis=0).repeat(zoom, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--poses", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8, help="poses in the picture")
    parser.add_argument("--out", type=Path, default=Path("camera_agreement.png"))
    args = parser.parse_args()
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: one core, as the road camera has
    scenes = draw_scenes(shipped_and_real_tracks(), args.poses, args.seed)
    ours, theirs = draw_both(scenes)
    pick = np.linspace(0, args.poses - 1, min(args.rows, args.poses)).astype(int)
    if not cv2.imwrite(str(args.out), side_by_side(ours[pick], theirs[pick])):
        raise SystemExit(f"cannot write {args.out}")
    races = with_race_objects(scenes, shipped_and_real_tracks(), args.seed)
    found = {**figures(scenes, ours, theirs), "races": figures(races, *draw_both(races))}
    print(json.dumps({**found, **speeds(scenes), "picture": str(args.out)}, indent=2))


if __name__ == "__main__":
    main()
