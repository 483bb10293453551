"""The pictures of trials and of a training, judged by their pixels and by the points they mark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from trainer.errors import RunStorageError
from trainer.plots import leaving_points, plot_lines, plot_training, start_line

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Oval:
    name: str
    center: Array
    left: Array
    right: Array
    length_m: float


@dataclass(frozen=True)
class Trial:
    xy: Array
    speed_mps: Array
    completed: bool = True
    lap_time_s: float | None = 10.0


def ring(x_m: float, y_m: float) -> Array:
    angle = np.linspace(0.0, 2 * np.pi, 121)
    loop = np.stack([x_m * np.cos(angle), y_m * np.sin(angle)], axis=1)
    loop[-1] = loop[0]
    return loop


OVAL = Oval("oval", ring(3.0, 1.5), ring(2.6, 1.1), ring(3.4, 1.9), 14.5)
LAP = ring(3.0, 1.5)


def picture(path: Path) -> npt.NDArray[np.int64]:
    image = cv2.imread(str(path))
    assert image is not None
    return image[:, :, ::-1].astype(np.int64)


def count(path: Path, rgb: tuple[int, int, int]) -> int:
    return int((np.abs(picture(path) - rgb).max(axis=2) <= 12).sum())


BLUE, RED, CROSS = (0x48, 0x95, 0xEF), (0xFF, 0x4D, 0x4D), (0xE5, 0x38, 0x3B)


def test_slow_and_fast_have_different_colours_on_the_line(tmp_path: Path) -> None:
    """Half the lap slow and half fast, against the same lap at one speed; the colour bar is in both."""
    two = plot_lines(OVAL, [Trial(LAP, np.where(LAP[:, 1] > 0, 0.4, 0.8))], tmp_path / "two.png")
    one = plot_lines(OVAL, [Trial(LAP, np.full(121, 0.6))], tmp_path / "one.png")
    # The line is drawn at 90 %, so its colours differ a little from the bar's: allow for the road beneath.
    slow, fast = (tuple(int(0.9 * c + 0.1 * r) for c, r in zip(k, (48, 54, 61), strict=True)) for k in (BLUE, RED))
    assert count(two, slow) > 5 * count(one, slow) + 300  # type: ignore[arg-type]
    assert count(two, fast) > 5 * count(one, fast) + 300  # type: ignore[arg-type]


def test_a_trial_that_left_the_road_is_marked(tmp_path: Path) -> None:
    out = LAP[:40].copy()
    out[-8:] *= np.linspace(1.05, 1.4, 8)[:, None]
    inside = plot_lines(OVAL, [Trial(LAP, np.full(121, 0.6))], tmp_path / "in.png")
    outside = plot_lines(OVAL, [Trial(out, np.full(40, 0.6), False, None)], tmp_path / "out.png")
    assert count(outside, CROSS) > count(inside, CROSS) + 40


def test_leaving_points_are_where_the_line_crosses_a_border_outwards() -> None:
    x = np.array([3.0, 3.3, 3.5, 3.6, 3.3, 3.0, 2.5, 2.0, 3.0])  # along y = 0: road is 2.6 to 3.4
    points = leaving_points(OVAL, np.stack([x, np.zeros_like(x)], axis=1))
    assert points[:, 0].tolist() == [3.5, 2.5]


def test_leaving_points_do_not_depend_on_the_direction_of_the_track() -> None:
    clockwise = Oval("back", OVAL.center[::-1], OVAL.right[::-1], OVAL.left[::-1], 14.5)
    line = np.array([[3.0, 0.0], [4.0, 0.0]])
    assert leaving_points(clockwise, line).tolist() == leaving_points(OVAL, line).tolist() == [[4.0, 0.0]]


def test_start_line_is_straight_across_even_if_border_rows_are_shifted() -> None:
    shifted = np.roll(OVAL.left[:-1], 9, axis=0)
    track = Oval("shifted", OVAL.center, np.vstack([shifted, shifted[:1]]), OVAL.right, 14.5)
    assert start_line(track) == pytest.approx(np.array([[2.6, 0.0], [3.4, 0.0]]), abs=0.03)  # of a 3 m oval in 3° steps


@pytest.mark.parametrize("points", [0, 1])
def test_trials_that_never_moved_are_no_error(tmp_path: Path, points: int) -> None:
    trial = Trial(LAP[:points], np.zeros(points), False, None)
    assert picture(plot_lines(OVAL, [trial], tmp_path / "a.png")).shape[0] > 300
    assert picture(plot_lines(OVAL, [], tmp_path / "b.png")).shape[0] > 300


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunStorageError, match="cannot write the picture") as caught:
        plot_lines(OVAL, [], tmp_path / "none" / "a.png")
    assert "next:" in str(caught.value)


def test_training_curves_are_drawn_and_gaps_are_no_error(tmp_path: Path) -> None:
    rows = [
        {"steps": k * 1000, "reward": k, "completion": k / 40, "entropy": math.nan if k % 2 else 1.0, "loss": None}
        for k in range(40)
    ]
    full = plot_training(rows, tmp_path / "full.png")
    empty = plot_training([], tmp_path / "empty.png")
    line = (0x2F, 0x6F, 0xDE)
    assert count(empty, line) == 0
    assert count(full, line) > 1000


def test_one_row_is_enough_to_see_something(tmp_path: Path) -> None:
    assert count(plot_training([{"steps": 10, "reward": 1.0}], tmp_path / "one.png"), (0x2F, 0x6F, 0xDE)) > 10
