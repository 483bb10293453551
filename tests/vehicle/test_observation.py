"""Every camera frame becomes the same observation: resized whole, bilinearly, then gray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vehicle.observation import HEIGHT, SHAPE, WIDTH, ObservationError, check_observations, to_observation

FRAMES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "frames" / "deepracer"


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def bilinear(image: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float64]:
    """Bilinear resize with pixel centres at halves, clamped at the edge, in plain numpy: the reference."""
    y = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    x = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    y1, x1 = np.minimum(y0 + 1, image.shape[0] - 1), np.minimum(x0 + 1, image.shape[1] - 1)
    fy = (y - y0).reshape(-1, 1, *[1] * (image.ndim - 2))
    fx = (x - x0).reshape(1, -1, *[1] * (image.ndim - 2))
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x1] * fx
    bottom = image[y1][:, x0] * (1 - fx) + image[y1][:, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (240, 320), (300, 500), (60, 80)])
def test_a_colour_frame_is_resized_then_weighed_to_gray(size: tuple[int, int]) -> None:
    frame = noise(*size, 3)
    expected = np.rint(bilinear(frame, HEIGHT, WIDTH)) @ np.array([0.114, 0.587, 0.299])
    observation = to_observation(frame)
    assert observation.shape == SHAPE and observation.dtype == np.uint8 and observation.flags.c_contiguous
    assert np.abs(observation[:, :, 0] - expected).max() <= 1.5  # fixed-point rounding, twice


@pytest.mark.parametrize("channel", [(), (1,)])
def test_a_gray_frame_stays_gray(channel: tuple[int, ...]) -> None:
    frame = noise(240, 320, *channel)
    expected = bilinear(frame.reshape(240, 320), HEIGHT, WIDTH)
    assert np.abs(to_observation(frame)[:, :, 0] - expected).max() <= 1.0


def test_a_frame_of_the_right_size_passes_unchanged() -> None:
    frame = noise(120, 160)
    np.testing.assert_array_equal(to_observation(frame)[:, :, 0], frame)


def test_blue_green_red_is_the_order_of_the_channels() -> None:
    for channel, weight in enumerate((0.114, 0.587, 0.299)):
        frame = np.zeros((120, 160, 3), dtype=np.uint8)
        frame[:, :, channel] = 255
        assert abs(int(to_observation(frame)[0, 0, 0]) - 255 * weight) <= 1.0


@pytest.mark.parametrize("shape", [(120, 160), (120, 160, 1), (120, 160, 3), (480, 640, 3)])
def test_the_observation_owns_its_bytes(shape: tuple[int, ...]) -> None:
    frame = noise(*shape)
    observation = to_observation(frame)
    before = observation.copy()
    frame[:] = 0
    np.testing.assert_array_equal(observation, before)


def test_a_mirrored_view_is_taken_as_it_looks() -> None:
    frame = noise(120, 160, 3)
    np.testing.assert_array_equal(to_observation(frame[:, ::-1]), to_observation(frame)[:, ::-1])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((120, 160, 3), dtype=np.float32), "float32"),
        (np.zeros((120, 160), dtype=np.int64), "int64"),
        (None, "NoneType"),
        ([[0, 1], [2, 3]], "list"),
        (np.zeros((120, 160, 4), dtype=np.uint8), "(120, 160, 4)"),
        (np.zeros((2, 120, 160, 3), dtype=np.uint8), "(2, 120, 160, 3)"),
        (np.zeros(19200, dtype=np.uint8), "(19200,)"),
        (np.zeros((0, 160, 3), dtype=np.uint8), "(0, 160, 3)"),
    ],
)
def test_what_is_no_camera_frame_is_refused(frame: Any, words: str) -> None:
    with pytest.raises(ObservationError) as caught:
        to_observation(frame)
    assert words in caught.value.what


def test_real_deepracer_frames_become_usable_observations() -> None:
    paths = sorted(FRAMES.glob("*.jpg"))[:20] if FRAMES.is_dir() else []
    if not paths:
        pytest.skip("the shared DeepRacer frames are not beside this checkout")
    for path in paths:
        frame = np.asarray(cv2.imread(str(path)), dtype=np.uint8)
        observation = to_observation(frame)
        np.testing.assert_array_equal(observation[:, :, 0], cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        # The same picture from a camera of four times the resolution, as a car with a 640x480 camera sees it.
        large = np.asarray(cv2.resize(frame, (640, 480), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        assert np.abs(to_observation(large).astype(int) - observation).mean() < 3.0
        assert observation.std() > 10.0


def test_a_batch_is_checked() -> None:
    check_observations(np.zeros((0, 120, 160, 1), dtype=np.uint8))
    check_observations(np.zeros((3, 120, 160, 1), dtype=np.uint8))
    for bad in (
        np.zeros((120, 160, 1), np.uint8),
        np.zeros((1, 120, 160, 1), np.float32),
        np.zeros((1, 1, 120, 160), np.uint8),
    ):
        with pytest.raises(ObservationError):
            check_observations(bad)
