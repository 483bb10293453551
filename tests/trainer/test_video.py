"""The video: frames that show what they are told, and a file that is complete or absent."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from trainer.errors import RunStorageError, TrainerError
from trainer.video import CAR, MAP_SIZE_PX, ROAD, TRAIL, Hud, TopView, VideoWriter, compose

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Oval:
    name: str
    center: Array
    left: Array
    right: Array
    length_m: float


def ring(x_m: float, y_m: float) -> Array:
    angle = np.linspace(0.0, 2 * np.pi, 121)
    return np.stack([10.0 + x_m * np.cos(angle), 5.0 + y_m * np.sin(angle)], axis=1)


OVAL = Oval("oval", ring(3.0, 1.5), ring(2.6, 1.1), ring(3.4, 1.9), 14.5)
HUD = Hud(speed_mps=0.8, steering_deg=0.0, progress=50.0, lap_time_s=7.5)
GRAY = np.full((120, 160, 1), 90, dtype=np.uint8)


def near(picture: npt.NDArray[np.uint8], rgb: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(picture.astype(np.int64) - rgb).max(axis=2) <= 3)


def noise(seed: int, size_px: tuple[int, int] = (64, 48)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)


def test_top_view_keeps_the_track_in_the_picture_and_north_up() -> None:
    view = TopView(OVAL)
    right = view.to_pixel(OVAL.right)
    assert right.min() > 0
    assert (right < MAP_SIZE_PX).all()
    assert np.ptp(right[:, 0]) > 0.8 * MAP_SIZE_PX[0]
    east, north = (
        view.to_pixel([11.0, 5.0]) - view.to_pixel([10.0, 5.0]),
        view.to_pixel([10.0, 6.0]) - view.to_pixel([10.0, 5.0]),
    )
    assert east == pytest.approx([view.pixels_per_m, 0.0])
    assert north == pytest.approx([0.0, -view.pixels_per_m])


def test_the_road_is_drawn_where_the_track_is() -> None:
    view = TopView(OVAL)
    for at, expected in (([7.25, 5.0], True), ([10.0, 5.0], False), ([10.0, 6.3], True)):
        x, y = np.round(view.to_pixel(at)).astype(int)
        assert near(view.map_rgb, ROAD)[y, x] == expected, at


def test_the_car_marker_is_at_its_pose_and_points_ahead() -> None:
    view = TopView(OVAL)
    for yaw, tip in ((0.0, (1, 0)), (np.pi / 2, (0, -1)), (np.pi, (-1, 0))):
        red = np.argwhere(near(view.draw((10.0, 5.0, yaw)), CAR))[:, ::-1] - view.to_pixel([10.0, 5.0])
        assert len(red) > 30
        assert np.abs(red.mean(0)).max() < 4
        along = red @ np.array(tip)  # the tip is ten pixels ahead of the pose and the tail seven behind, less the edge
        assert along.max() > 5
        assert along.max() > 1 - along.min()


def test_drawing_leaves_the_map_itself_alone() -> None:
    view = TopView(OVAL)
    before = view.map_rgb.copy()
    assert near(view.draw((10.0, 5.0, 0.0), OVAL.center), TRAIL).sum() > 200
    assert np.array_equal(view.map_rgb, before)


def test_frame_shows_the_camera_on_the_left_and_the_map_above_the_instruments() -> None:
    view = TopView(OVAL)
    frame = compose(GRAY, view, (13.0, 5.0, 1.0), HUD, OVAL.center[:30])
    assert frame.shape == (480, 960, 3)
    assert frame.dtype == np.uint8
    assert (frame[:, :640] == 90).all()
    assert np.array_equal(frame[:300, 640:], view.draw((13.0, 5.0, 1.0), OVAL.center[:30]))
    assert np.array_equal(compose(GRAY[:, :, 0], view, (13.0, 5.0, 1.0), HUD, OVAL.center[:30]), frame)


def test_camera_picture_is_not_mirrored_or_turned() -> None:
    gray = GRAY.copy()
    gray[:30, :40] = 250
    frame = compose(gray, TopView(OVAL), (13.0, 5.0, 1.0), HUD)
    assert (frame[:110, :150] > 240).all()
    assert (frame[130:, 170:640] == 90).all()


def instruments(hud: Hud) -> npt.NDArray[np.uint8]:
    return compose(GRAY, TopView(OVAL), (13.0, 5.0, 1.0), hud)[300:, 640:]


@pytest.mark.parametrize(("steering", "left_share"), [(30.0, 1.0), (15.0, 1.0), (-15.0, 0.0), (-99.0, 0.0)])
def test_steering_bar_goes_to_the_side_of_the_wheels(steering: float, left_share: float) -> None:
    orange = np.argwhere(near(instruments(Hud(0.8, steering, 50.0, 7.5)), (255, 146, 43)))[:, 1]
    assert np.mean(orange < 160) == pytest.approx(left_share, abs=0.1)
    assert np.ptp(orange) == pytest.approx(140 * min(1.0, abs(steering) / 30), abs=6)


def test_progress_bar_and_every_number_change_the_instruments() -> None:
    def width(progress: float) -> int:
        return int(near(instruments(Hud(0.8, 0.0, progress, 7.5)), (61, 219, 217)).any(axis=0).sum())

    assert width(10) < width(50) < width(100) == width(150)
    pictures = [HUD, Hud(0.9, 0.0, 50.0, 7.5), Hud(0.8, 0.0, 50.0, 7.6), Hud(0.8, 0.0, 50.0, 7.5, ("trial 2",))]
    assert len({instruments(hud).tobytes() for hud in pictures}) == 4


def test_another_map_size_is_refused_by_compose() -> None:
    with pytest.raises(ValueError, match="200x100"):
        compose(GRAY, TopView(OVAL, (200, 100)), (13.0, 5.0, 1.0), HUD)


def test_video_plays_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with VideoWriter(path, (64, 48), fps=15) as video:
        for color in colors:
            video.add(np.full((48, 64, 3), color, dtype=np.uint8))
    assert video.frames == 3
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 15
        shown = [frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) for frame in container.decode(video=0)]
    assert np.abs(np.array(shown) - colors).max() < 12  # colour loses a little in YUV
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index first: browsers play it while it loads
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_an_error_in_the_block_leaves_no_file_and_keeps_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"older")
    with pytest.raises(KeyError), VideoWriter(path, (64, 48)) as video:
        video.add(noise(0))
        raise KeyError
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    with pytest.raises(ValueError, match="closed"):
        video.add(noise(0))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunStorageError, match="does not exist") as caught:
        VideoWriter(tmp_path / "none" / "v.mp4")
    assert "mkdir -p" in str(caught.value)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond ``size``, much as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("frames", [1, 60])  # fails at the end, from the encoder's queue, or on the way
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, frames: int) -> None:
    with largest_file(4_000), pytest.raises(RunStorageError, match="cannot write the video"):
        with VideoWriter(tmp_path / "v.mp4", (320, 240)) as video:
            for seed in range(frames):
                video.add(noise(seed, (320, 240)))
    assert list(tmp_path.iterdir()) == []


def test_no_frames_is_an_error_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no frames"), VideoWriter(tmp_path / "v.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frame", [np.zeros((48, 64), np.uint8), np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3), np.float32)]
)
def test_frames_of_another_shape_or_type_are_refused(tmp_path: Path, frame: npt.NDArray[np.uint8]) -> None:
    with VideoWriter(tmp_path / "v.mp4", (64, 48)) as video:
        video.add(noise(0))
        with pytest.raises(ValueError, match="must be uint8"):
            video.add(frame)


@pytest.mark.parametrize(("size_px", "fps"), [((63, 48), 10), ((64, 47), 10), ((0, 48), 10), ((64, 48), 0)])
def test_sizes_and_rates_that_no_player_shows_are_refused(tmp_path: Path, size_px: tuple[int, int], fps: int) -> None:
    with pytest.raises(ValueError, match="needs"):
        VideoWriter(tmp_path / "v.mp4", size_px, fps)
    assert list(tmp_path.iterdir()) == []
