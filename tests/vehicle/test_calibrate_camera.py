"""``hotlap calibrate camera``: pictures in, figures and a file for training out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import hotlap
from sim.car_spec import load_car
from tests.calibration.board_picture import USUAL, board_picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "a.png", folder / "b.png"]
    for path, yaw_deg in zip(paths, (0.0, 20.0), strict=True):
        assert cv2.imwrite(str(path), board_picture(yaw_deg=yaw_deg))
    return [str(path) for path in paths]


def test_figures_and_a_file_that_training_takes(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "car-camera.toml"
    assert hotlap.main(["calibrate", "camera", *pictures, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "from 2 picture(s) of 640 x 480" in told and f"--car {out}" in told
    camera = load_car(out).camera
    assert camera.horizontal_fov_deg == pytest.approx(USUAL.horizontal_fov_deg, abs=0.3)
    assert camera.height_m == pytest.approx(USUAL.height_m, abs=0.001)
    assert camera.roll_deg == pytest.approx(USUAL.roll_deg, abs=0.1)


def test_json(pictures: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["calibrate", "camera", pictures[0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pose"]["pitch_down_deg"] == pytest.approx(USUAL.pitch_down_deg, abs=0.2)
    assert found["pictures"] == 1 and found["out"] is None and found["warnings"] == []


def test_a_picture_of_no_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark, none, wide = tmp_path / "dark.png", tmp_path / "none.png", tmp_path / "wide.png"
    cv2.imwrite(str(dark), np.zeros((480, 640), np.uint8))
    none.write_bytes(b"not a picture")
    cv2.imwrite(str(wide), board_picture(width=640, height=360))
    for path, word in ((dark, "contrast"), (none, "no picture"), (tmp_path / "gone.png", "No such file")):
        assert hotlap.main(["calibrate", "camera", str(path)]) == 2
        told = capsys.readouterr().err
        assert str(path) in told and word in told
    out = tmp_path / "out.toml"
    assert hotlap.main(["calibrate", "camera", str(wide), "--out", str(out)]) == 2
    assert "squeezed" in capsys.readouterr().err and not out.exists()
    assert hotlap.main(["calibrate", "camera", str(wide)]) == 0
    assert "squeezed" in capsys.readouterr().out
