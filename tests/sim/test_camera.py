"""The road camera against geometry worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.camera_agreement import quaternion, rotation
from sim.camera import Atlas, Optics, RoadCamera, focal_px
from sim.camera_kernel import HEIGHT, WIDTH
from sim.car_spec import CameraSpec
from sim.look import PANORAMA_SHAPE, Surface, pack, pyramid
from sim.threads import Workers

SPEC = CameraSpec()
NO_BARRIER = np.zeros((0, 2))
SQUARE = np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]])


def surface(
    base: np.ndarray, ppm: float = 100.0, barrier: np.ndarray = NO_BARRIER, height: float = 0.0, gray: int = 0
) -> Surface:
    """A picture of the ground with the world's origin in its middle."""
    rows, columns = base.shape
    return Surface(
        base, (-columns / ppm / 2, -rows / ppm / 2), ppm, np.zeros(PANORAMA_SHAPE, np.uint8), barrier, height,
        np.full(len(barrier), gray, np.uint8),
    )  # fmt: skip


def checker(size_m: float = 8.0, square_m: float = 0.1, ppm: float = 100.0) -> np.ndarray:
    n, step = int(size_m * ppm), int(square_m * ppm)
    y, x = np.indices((n, n)) // step
    return np.where((x + y) % 2, 220, 40).astype(np.uint8)


def camera(*surfaces: Surface, n: int = 1, threads: int = 1, boxes: int = 0, spec: CameraSpec = SPEC) -> RoadCamera:
    return RoadCamera(Atlas(surfaces), n, spec, Workers(threads), boxes)


def random_poses(n: int, seed: int, spread_m: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Poses (n, 7) with the body pitched and rolled, and their rotation matrices (n, 3, 3)."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-np.pi, np.pi, n), np.radians(rng.uniform(-5, 5, n)), np.radians(rng.uniform(-6, 6, n))
    place = np.column_stack([rng.uniform(-spread_m, spread_m, (n, 2)), rng.uniform(-0.01, 0.02, n)])
    return np.concatenate([place, quaternion(*angles)], axis=1), rotation(*angles)


def draw(
    cam: RoadCamera, poses: np.ndarray, ids: np.ndarray | None = None, lens: bool = False, seed: int = 0
) -> np.ndarray:
    out = np.zeros((len(poses), HEIGHT, WIDTH), np.uint8)
    cam.render(poses, np.arange(seed, seed + len(poses), dtype=np.uint64), out, ids, lens)
    return out


def level_pose() -> np.ndarray:
    return np.array([[0.0, 0, 0, 1, 0, 0, 0]])


def hits(
    pose: np.ndarray, body: np.ndarray, optics: Optics, car: int, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays through pixel coordinates (u, v) meet the ground (..., 2), and how far along the view axis."""
    u, v = np.broadcast_arrays(u, v)
    mounting = rotation(
        *(np.radians(x[car : car + 1]) for x in (optics.yaw_deg, optics.pitch_down_deg, optics.roll_deg))
    )[0]
    focal = WIDTH / 2 / np.tan(np.radians(optics.horizontal_fov_deg[car]) / 2)
    ray = np.stack([np.ones_like(u), (WIDTH / 2 - u) / focal, (HEIGHT / 2 - v) / focal], axis=-1) @ (body @ mounting).T
    place = pose[:3] + body @ [optics.forward_m[car], 0, optics.height_m[car]]
    with np.errstate(divide="ignore"):
        t = np.where(ray[..., 2] < 0, -place[2] / ray[..., 2], np.inf)
    finite = np.where(np.isfinite(t), t, 0)
    return place[:2] + finite[..., None] * ray[..., :2], t


def bilinear(s: Surface, xy: np.ndarray) -> np.ndarray:
    """The ground's gray at world points, between the middles of texels."""
    at = np.clip((xy - s.origin_m) * s.pixels_per_m - 0.5, 0, np.array(s.base.shape[::-1]) - 1.001)
    i, f = at.astype(int), at % 1
    b = s.base.astype(float)
    x, y = i[..., 0], i[..., 1]
    top = b[y, x] * (1 - f[..., 0]) + b[y, x + 1] * f[..., 0]
    return top * (1 - f[..., 1]) + (b[y + 1, x] * (1 - f[..., 0]) + b[y + 1, x + 1] * f[..., 0]) * f[..., 1]


def random_optics(n: int, seed: int) -> Optics:
    rng = np.random.default_rng(seed)
    return replace(
        Optics.nominal(SPEC, n), height_m=rng.uniform(0.1, 0.15, n), pitch_down_deg=rng.uniform(8, 22, n),
        roll_deg=rng.uniform(-3, 3, n), yaw_deg=rng.uniform(-5, 5, n), horizontal_fov_deg=rng.uniform(50, 90, n),
    )  # fmt: skip


def test_near_ground_is_where_rays_meet_it() -> None:
    n, s = 12, surface(checker())
    poses, body = random_poses(n, 1)
    optics = random_optics(n, 2)
    cam = camera(s, n=n)
    cam.set_optics(np.arange(n), optics)
    frames = draw(cam, poses)
    v, u = np.indices((HEIGHT, WIDTH)) + 0.5
    compared = 0
    for car in range(n):
        xy, t = hits(poses[car], body[car], optics, car, u, v)
        near = t < 0.3  # a pixel's footprint is under a texel there: the full-size picture is read, between its texels
        difference = np.abs(frames[car][near] - bilinear(s, xy)[near])
        compared += int(near.sum())
        assert difference.max(initial=0) <= 4
        assert difference.mean() <= 1
    assert compared > 20_000


def test_far_ground_is_the_mean_over_the_pixel() -> None:
    """Blotches of half a metre: the truth is the mean of 6 x 6 rays through every pixel."""
    rng = np.random.default_rng(5)
    s = surface(np.kron(rng.integers(20, 235, (16, 16)), np.ones((50, 50))).astype(np.uint8))
    n = 4
    poses, body = random_poses(n, 3)
    optics = random_optics(n, 4)
    cam = camera(s, n=n)
    cam.set_optics(np.arange(n), optics)
    frames = draw(cam, poses)
    taps = (np.arange(6) + 0.5) / 6
    v, u = np.indices((HEIGHT, WIDTH))
    for car in range(n):
        xy, t = hits(poses[car], body[car], optics, car, u[..., None, None] + taps[:, None], v[..., None, None] + taps)
        truth = bilinear(s, xy).mean(axis=(2, 3))
        seen = (t.max(axis=(2, 3)) < 4) & (np.abs(xy).max(axis=(2, 3, 4)) < 4)
        assert seen.sum() > 8000
        assert np.abs(frames[car][seen] - truth[seen]).mean() < 2


def test_the_background_begins_at_the_horizon() -> None:
    s = surface(np.full((800, 800), 200, np.uint8))
    frame = draw(camera(s), level_pose())[0]
    horizon = HEIGHT / 2 - float(focal_px(SPEC.horizontal_fov_deg)) * np.tan(np.radians(SPEC.pitch_down_deg))
    assert np.all(frame[: int(horizon) - 1] == 0)
    assert np.all(frame[int(horizon) + 4 :] >= 199)


def test_a_barrier_stands_in_the_rows_that_geometry_says() -> None:
    """A level camera 1.4 m before a wall: its edges lie at 60 + f * height / distance, to 0.03 pixels."""
    spec = replace(SPEC, pitch_down_deg=0.0)
    s = surface(np.zeros((800, 800), np.uint8), barrier=SQUARE, height=0.3, gray=200)
    pose = level_pose()
    pose[0, 0] = 0.6 - spec.forward_m
    frame = draw(camera(s, spec=spec), pose)[0].astype(float) / 200
    f = float(focal_px(spec.horizontal_fov_deg))
    top, bottom = 60 - f * (0.3 - spec.height_m) / 1.4, 60 + f * spec.height_m / 1.4
    column = frame[:, WIDTH // 2]
    assert column.sum() == pytest.approx(bottom - top, abs=0.03)
    assert (column * (np.arange(HEIGHT) + 0.5)).sum() / column.sum() == pytest.approx((top + bottom) / 2, abs=0.03)
    # The whole picture is one wall, so every column is the same.
    assert np.ptp(frame.sum(axis=0)) < 0.03


def test_a_box_stands_in_the_rows_and_columns_that_geometry_says() -> None:
    spec = replace(SPEC, pitch_down_deg=0.0)
    s = surface(np.zeros((800, 800), np.uint8))
    cam = camera(s, boxes=2, spec=spec)
    # Ahead and to the left, taller than the camera; the front is 1 m away. A second one that does not exist.
    front = spec.forward_m + 1.0
    cam.boxes[0] = [[front + 0.1, 0.2, 0.0, 0.1, 0.15, 0.25, 180], [front, -0.3, 0.0, 0.1, 0.1, 0.2, 90]]
    cam.box_counts[0] = 1
    frame = draw(cam, level_pose())[0].astype(float) / 180
    f = float(focal_px(spec.horizontal_fov_deg))
    inside = frame[:, int(80 - f * 0.3)]
    assert inside.sum() == pytest.approx(f * 0.25, abs=0.03)
    assert np.flatnonzero(inside)[0] == int(60 - f * (0.25 - spec.height_m))
    columns = np.flatnonzero(frame.max(axis=0) > 0.5)
    assert columns[0] == pytest.approx(80 - f * 0.35, abs=1)
    # The right edge: the front's at 1 m, since the box is left of the camera and its right side faces it.
    right = 80 - f * 0.05 / 1.2
    assert columns[-1] + 1 == pytest.approx(right, abs=1)
    assert not np.any(frame[:, 90:])


def test_nearer_boxes_hide_farther_ones() -> None:
    cam = camera(surface(np.zeros((800, 800), np.uint8)), n=2, boxes=2)
    near, far = [0.9, 0, 0.3, 0.1, 0.1, 0.3, 200], [1.6, 0, 0.8, 0.15, 0.15, 0.2, 90]
    cam.boxes[0], cam.boxes[1] = [near, far], [far, near]
    cam.box_counts[:] = 2
    one, other = draw(cam, np.repeat(level_pose(), 2, axis=0))
    assert np.array_equal(one, other)
    assert one[50, WIDTH // 2] == 200


def test_packed_texels_hold_their_neighbours() -> None:
    level = np.arange(12, dtype=np.uint8).reshape(3, 4)
    words = pack(level)
    assert [(int(words[1, 2]) >> shift) & 255 for shift in (0, 8, 16, 24)] == [6, 7, 10, 11]
    assert [(int(words[2, 3]) >> shift) & 255 for shift in (0, 8, 16, 24)] == [11] * 4
    halves = pyramid(np.kron(level * 20, np.ones((2, 2), np.uint8)).astype(np.uint8))
    assert np.array_equal(halves[1], level * 20)


def flat(gray: int, n: int, **optics: float) -> RoadCamera:
    """n cars that look down on a road of one gray."""
    cam = camera(surface(np.full((800, 800), gray, np.uint8)), n=n, spec=replace(SPEC, pitch_down_deg=55.0))
    full = Optics.nominal(replace(SPEC, pitch_down_deg=55.0), n)
    cam.set_optics(np.arange(n), replace(full, **{name: np.full(n, value) for name, value in optics.items()}))
    return cam


def test_noise_has_the_spread_that_was_asked_for() -> None:
    n = 8
    poses = np.repeat(level_pose(), n, axis=0)
    clean = draw(flat(120, n), poses, lens=True).astype(float)
    noisy = draw(flat(120, n, noise=6.0), poses, lens=True) - clean
    assert noisy.std() == pytest.approx(6.0, rel=0.08)
    assert abs(noisy.mean()) < 0.6
    pictures = noisy.reshape(n, -1)
    pictures = (pictures - pictures.mean(axis=1, keepdims=True)) / pictures.std(axis=1, keepdims=True)
    across_pictures = pictures @ pictures.T / pictures.shape[1]
    assert np.abs(across_pictures - np.eye(n)).max() < 0.05
    rows = noisy[0] - noisy[0].mean()
    assert abs((rows[1:] * rows[:-1]).mean()) < 0.05 * rows.var()
    again = draw(flat(120, n, noise=6.0), poses, lens=True) - clean
    assert np.array_equal(again, noisy)
    assert not np.array_equal(draw(flat(120, n, noise=6.0), poses, lens=True, seed=50) - clean, noisy)


def test_blur_is_a_small_tent() -> None:
    cam = flat(0, 1, blur=1.0)
    frame = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    frame[0, 50, 70] = 240
    cam.apply_lens(frame, np.zeros(1, np.uint64))
    tent = np.outer([1, 2, 1], [1, 2, 1]) * 15
    assert np.abs(frame[0, 49:52, 69:72] - tent).max() <= 1
    frame[0, 49:52, 69:72] = 0
    assert frame.max() <= 1
    even = np.full((1, HEIGHT, WIDTH), 100, np.uint8)
    cam.apply_lens(even, np.zeros(1, np.uint64))
    assert np.abs(even.astype(int) - 100).max() <= 1


def test_vignette_takes_light_from_the_corners_only() -> None:
    frame = draw(flat(200, 1, vignette=0.4), level_pose(), lens=True)[0].astype(float)
    assert frame[60, 80] == pytest.approx(200, abs=1.5)
    assert frame[0, 0] == pytest.approx(200 * 0.6, abs=3)
    assert frame[60, 0] == pytest.approx(200 * 0.8, abs=3)
    for mirrored in (frame[::-1], frame[:, ::-1]):
        assert np.abs(frame - mirrored).max() <= 1


@pytest.mark.parametrize(
    ("gain", "bias", "gamma"), [(1.0, 0.0, 1.0), (1.3, -10.0, 0.8), (0.7, 20.0, 1.4), (2.0, 0.0, 1.0)]
)
def test_light_follows_its_curve(gain: float, bias: float, gamma: float) -> None:
    expected = np.clip(255 * gain * (150 / 255) ** gamma + bias, 0, 255)
    frame = draw(flat(150, 1, gain=gain, bias=bias, gamma=gamma), level_pose(), lens=True)[0]
    assert np.abs(frame - expected).max() <= 2


def test_a_shadow_band_darkens_its_strip_of_ground_only() -> None:
    n, s = 1, surface(np.full((800, 800), 200, np.uint8))
    cam = camera(s)
    optics = replace(
        Optics.nominal(SPEC, n), shadow=np.array([0.5]), shadow_band=np.array([[1.0, 0.0, 0.6, 0.1]])
    )
    cam.set_optics(np.arange(n), optics)
    frame = draw(cam, level_pose())[0]
    v, u = np.indices((HEIGHT, WIDTH)) + 0.5
    xy, t = hits(level_pose()[0], np.eye(3), optics, 0, u, v)
    x = np.where(t < 3, xy[..., 0], np.nan)
    assert np.all(np.abs(frame[np.abs(x - 0.6) < 0.095].astype(int) - 100) <= 1)
    assert np.all(np.abs(frame[np.abs(x - 0.6) > 0.105].astype(int) - 200) <= 1)


def test_pictures_depend_neither_on_threads_nor_on_who_is_drawn_with_whom() -> None:
    n = 9
    surfaces = [surface(checker(), barrier=SQUARE, height=0.3, gray=130), surface(255 - checker())]
    poses, _ = random_poses(n, 8)
    pictures = []
    for threads in (1, 3):
        cam = camera(*surfaces, n=n, threads=threads, boxes=1)
        try:
            cam.surface[:] = np.arange(n) % 2
            cam.set_optics(np.arange(n), replace(random_optics(n, 6), noise=np.full(n, 4.0), blur=np.linspace(0, 1, n)))
            cam.boxes[:, 0] = [0.5, 0.5, 0.2, 0.1, 0.1, 0.2, 80]
            cam.box_counts[:] = np.arange(n) % 2
            everyone = draw(cam, poses, lens=True)
            pictures.append(everyone)
            for ids in (np.array([7]), np.array([8, 0, 3])):
                some = draw(cam, poses, ids, lens=True)
                assert np.array_equal(some[ids], everyone[ids])
                assert not np.delete(some, ids, axis=0).any()
        finally:
            cam._workers.close()
    assert np.array_equal(*pictures)
    assert len({p.tobytes() for p in pictures[0]}) == n
