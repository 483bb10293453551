"""A folder of pictures is shown in order, at its pace, once or for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vehicle.cameras.folder import open_folder
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame


def filled(folder: Path, count: int = 3) -> CameraConfig:
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03d}.png"), np.full((24, 32, 3), (10 * i, 20 * i, 30 * i), np.uint8))
    (folder / "notes.txt").write_text("not a picture")
    return CameraConfig(kind="folder", source=str(folder), rate_hz=100.0)


def test_pictures_come_in_order_at_the_rate_and_begin_again(tmp_path: Path) -> None:
    camera = open_folder(filled(tmp_path), tmp_path)
    frames = [camera.read(1.0) for _ in range(7)]
    assert [frame.seq for frame in frames] == list(range(7))
    assert [tuple(frame.pixels[0, 0]) for frame in frames] == [(10 * i, 20 * i, 30 * i) for i in (0, 1, 2, 0, 1, 2, 0)]
    assert frames[6].stamp_s - frames[0].stamp_s == pytest.approx(0.06, abs=0.02)
    assert frames[0].pixels.dtype == np.uint8 and frames[0].pixels.shape == (24, 32, 3)
    assert camera.facts()["pictures"] == 3
    camera.close()
    camera.close()


def test_gray_pictures_stay_gray(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8))
    frame = open_folder(CameraConfig(source=str(tmp_path)), tmp_path).read(1.0)
    assert frame.pixels.shape == (24, 32)


def test_without_loop_it_ends(tmp_path: Path) -> None:
    camera = open_folder(replace(filled(tmp_path), loop=False), tmp_path)
    for _ in range(3):
        camera.read(1.0)
    with pytest.raises(CameraError, match="have been shown") as caught:
        camera.read(1.0)
    assert not isinstance(caught.value, StaleFrame)


def test_a_slow_rate_is_stale_in_between(tmp_path: Path) -> None:
    camera = open_folder(replace(filled(tmp_path), rate_hz=2.0), tmp_path)
    camera.read(1.0)
    with pytest.raises(StaleFrame):
        camera.read(0.02)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    config = filled(tmp_path, 1)
    (tmp_path / "000.png").write_bytes(b"\x89PNG and then nothing")
    with pytest.raises(CameraError, match="000.png is no picture"):
        open_folder(config, tmp_path).read(1.0)


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    for source in ("", str(tmp_path), str(tmp_path / "none"), str(Path(__file__))):
        with pytest.raises(CameraError, match=r"no picture|cannot be read"):
            open_folder(CameraConfig(source=source), tmp_path)
