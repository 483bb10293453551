"""Pictures that say nothing are named for what is wrong with them, and never become the newest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import FROZEN_S, CameraFault, FrameJudge, fault_name
from vehicle.errors import CameraError, StaleFrame

NOW_S = 100.0


def noise(seed: int, shape: tuple[int, ...] = (48, 64)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def offer(judge: FrameJudge, pixels: Any, at_s: float = NOW_S, seq: int = 0) -> str | None:
    """The name of the fault that the judge finds, None for a picture that it takes."""
    taken = judge.offer(Frame(pixels, at_s, seq), at_s)
    assert not (taken and judge.fault)
    return None if judge.fault is None else judge.fault.fault


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (480, 640, 3), (16, 16)])
def test_a_picture_is_taken(shape: tuple[int, ...]) -> None:
    judge = FrameJudge()
    pixels = noise(1, shape)
    assert offer(judge, pixels) is None
    assert judge.newest is not None and judge.newest.pixels is pixels


def test_pixels_that_do_not_change_are_frozen_after_the_time_and_never_fresh() -> None:
    judge = FrameJudge()
    assert offer(judge, noise(1)) is None
    first = judge.newest
    for after_s, fault in ((0.067, None), (FROZEN_S - 0.001, None), (FROZEN_S + 0.001, "frozen"), (5.0, "frozen")):
        assert offer(judge, noise(1), NOW_S + after_s) == fault
        assert judge.newest is first, "a repeated picture must not get a fresh stamp"
    assert offer(judge, noise(2), NOW_S + 6.0) is None
    assert judge.newest is not first


def test_one_changed_pixel_in_a_row_that_is_not_sampled_is_a_new_picture() -> None:
    judge = FrameJudge()
    pixels = noise(1, (480, 640, 3))
    assert offer(judge, pixels) is None
    other = pixels.copy()
    other[1, 1, 1] ^= 1
    assert offer(judge, other, NOW_S + 1.0) is None
    assert judge.newest is not None and judge.newest.pixels is other


@pytest.mark.parametrize("value", [0, 127, 255])
@pytest.mark.parametrize("shape", [(48, 64), (480, 640, 3)])
def test_one_even_gray_is_blank(value: int, shape: tuple[int, ...]) -> None:
    judge = FrameJudge()
    assert offer(judge, np.full(shape, value, np.uint8)) == "blank"
    assert judge.newest is None


def test_one_even_colour_is_blank_though_its_channels_differ() -> None:
    blue = np.zeros((480, 640, 3), np.uint8)
    blue[..., 0] = 255
    assert offer(FrameJudge(), blue) == "blank"


def test_a_dim_picture_that_shows_something_is_not_blank() -> None:
    dim = np.zeros((120, 160), np.uint8)
    dim[:, 80:] = 3
    assert offer(FrameJudge(), dim) is None


@pytest.mark.parametrize(
    "pixels",
    [
        noise(1).astype(np.float32),
        noise(1, (48, 64, 4)),
        noise(1, (48, 64, 2)),
        noise(1, (2, 48, 64, 3)),
        noise(1, (15, 64)),
        noise(1, (3072,)),
        np.zeros((0, 64), np.uint8),
        None,
        [[1, 2], [3, 4]],
    ],
    ids=lambda p: f"{type(p).__name__} {getattr(p, 'shape', '')}",
)
def test_what_is_no_picture_is_garbage(pixels: Any) -> None:
    judge = FrameJudge()
    assert offer(judge, pixels) == "garbage"
    assert judge.newest is None


def test_another_size_than_before_is_garbage_until_the_old_one_comes_again() -> None:
    judge = FrameJudge()
    assert offer(judge, noise(1)) is None
    assert offer(judge, noise(2, (40, 64)), NOW_S + 0.1) == "garbage"
    assert offer(judge, noise(3), NOW_S + 0.2) is None


@pytest.mark.parametrize("stamp_s", [NOW_S + 0.006, NOW_S + 3600.0, NOW_S - 3600.0, float("nan"), float("inf")])
def test_a_stamp_from_the_future_or_before_the_last_or_none_is_of_a_wrong_clock(stamp_s: float) -> None:
    judge = FrameJudge()
    assert offer(judge, noise(1)) is None
    assert not judge.offer(Frame(noise(2), stamp_s, 1), NOW_S)
    assert judge.fault is not None and judge.fault.fault == "clock"
    assert judge.newest is not None and judge.newest.stamp_s == NOW_S


def test_the_names_of_errors() -> None:
    assert fault_name(StaleFrame("x")) == "stale"
    assert fault_name(CameraError("x")) == "camera"
    fault = CameraFault("blank", "what", cause="cause", next_step="next")
    assert fault_name(fault) == "blank" and isinstance(fault, CameraError)
    assert str(fault) == "what\n  likely cause: cause\n  next: next"
