"""STATE_DIR/camera.toml: written by the console, read by the car, by installs and by ``hotlap train --car``."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.camera import CameraFault, CameraMeasurement, CameraPose, measure_camera
from calibration.camera_file import to_car_toml
from calibration.car_link import CarRefused
from sim.car_spec import load_car
from tests.calibration.board_picture import USUAL, board_picture
from vehicle.action_space import default_action_space
from vehicle.cameras.base import Frame
from vehicle.car_config import ActuatorConfig, CameraConfig, CarConfig
from vehicle.console_camera import ConsoleCamera
from vehicle.contract import CameraContract, contract_for
from vehicle.errors import ConfigError
from vehicle.fit import misfits
from vehicle.measured_camera import measured_path, measured_pose, with_measured_camera
from vehicle.pilot_picture import MAX_WIDTH, picture_answer

POSE = CameraPose(81.23456, 22.5, 0.1012, -1.75)
FOUND = CameraMeasurement(POSE, CameraPose(0.05, 0.02, 0.0002, 0.01), 0.06, 3, 0, 640, 480)


def car(folder: Path, **camera: Any) -> CarConfig:
    values: dict[str, Any] = {"kind": "v4l2", "forward_m": 0.11, **camera}
    return CarConfig(state_dir=str(folder), camera=CameraConfig(**values), actuator=ActuatorConfig(kind="none"))


def console_camera(config: CarConfig, frame: Frame | None = None, mode: str = "disarmed") -> ConsoleCamera:
    def refuse() -> None:
        if mode != "disarmed":
            raise CarRefused("not_disarmed", f"the car is {mode}")

    return ConsoleCamera(config, lambda request: picture_answer(frame) if frame is not None else {"ok": True}, refuse)


def test_what_is_saved_is_in_force_and_the_rest_stays_car_tomls(tmp_path: Path) -> None:
    config = car(tmp_path / "state")
    kept = console_camera(config)
    assert kept.measured() is None and with_measured_camera(config) is config
    kept.save(FOUND)
    pose = kept.measured()
    assert pose is not None and pose.horizontal_fov_deg == pytest.approx(81.2346, abs=1e-4)
    camera = with_measured_camera(config).camera
    assert (camera.pitch_down_deg, camera.height_m, camera.roll_deg, camera.forward_m) == (22.5, 0.1012, -1.75, 0.11)
    assert camera.kind == "v4l2"


def test_the_simulated_camera_is_as_it_is_told_to_be(tmp_path: Path) -> None:
    config = car(tmp_path, kind="sim")
    console_camera(config).save(FOUND)
    assert with_measured_camera(config) is config


def test_a_model_is_held_against_the_measured_camera(tmp_path: Path) -> None:
    config = car(tmp_path)
    console_camera(config).save(FOUND)
    usual = contract_for(default_action_space(), control_period_s=0.1)
    names = {one.name for one in misfits(usual, with_measured_camera(config), None)}
    assert {"camera_fov", "camera_pitch", "camera_height"} <= names
    trained = CameraContract(POSE.horizontal_fov_deg, POSE.pitch_down_deg, POSE.height_m, 0.11, POSE.roll_deg)
    made_for_it = contract_for(default_action_space(), control_period_s=0.1, camera=trained)
    assert misfits(made_for_it, with_measured_camera(config), None) == []


@pytest.mark.parametrize("forward_m", [None, 0.11])
def test_the_file_is_a_car_for_training(tmp_path: Path, forward_m: float | None) -> None:
    path = tmp_path / "car-camera.toml"
    path.write_text(to_car_toml(FOUND, forward_m))
    camera = load_car(path).camera
    assert (camera.pitch_down_deg, camera.height_m, camera.roll_deg) == (22.5, 0.1012, -1.75)
    assert camera.forward_m == (0.11 if forward_m else load_car(None).camera.forward_m)
    assert "+- 0.050 deg" in path.read_text() and "3 picture(s) of 640 x 480" in path.read_text()


def test_nothing_is_saved_while_armed_or_on_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    config = car(tmp_path / "state")
    with pytest.raises(CarRefused, match="autonomous"):
        console_camera(config, mode="autonomous").save(FOUND)
    assert not measured_path(config).exists()
    (tmp_path / "state").write_text("a file is in the way")
    with pytest.raises(CarRefused) as refused:
        console_camera(config).save(FOUND)
    assert refused.value.reason == "storage"


@pytest.mark.parametrize("text", ["[camera\n", "[camera]\nheight_m = 9.0\n", "[camera]\nheigth_m = 0.1\n"])
def test_a_damaged_file_is_an_error_where_it_counts_and_nothing_measured_on_the_page(tmp_path: Path, text: str) -> None:
    config = car(tmp_path)
    measured_path(config).write_text(text)
    with pytest.raises(ConfigError):
        measured_pose(config)
    with pytest.raises(ConfigError):
        with_measured_camera(config)
    assert console_camera(config).measured() is None


def test_a_whole_picture_goes_through_the_pilots_answer(tmp_path: Path) -> None:
    gray = board_picture()
    frame = Frame(np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), np.uint8), 12.5, 7)
    picture = console_camera(car(tmp_path), frame).whole_picture()
    assert (picture.seq, picture.stamp_s, picture.width, picture.height) == (7, 12.5, 640, 480)
    shown = np.frombuffer(picture.gray, np.uint8).reshape(480, 640)
    found, direct = measure_camera([shown]).pose, measure_camera([gray]).pose
    assert found.horizontal_fov_deg == pytest.approx(direct.horizontal_fov_deg, abs=0.05)  # JPEG does not matter
    assert found.height_m == pytest.approx(USUAL.height_m, abs=0.0005)


def test_a_large_picture_is_halved_and_its_answer_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1944, 2592, 1), dtype=np.uint8)
    answer = picture_answer(Frame(noise, 0.0, 0))
    packed = cv2.imdecode(np.frombuffer(base64.b64decode(answer["jpeg"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert packed is not None and packed.shape == (486, 648) and packed.shape[1] <= MAX_WIDTH
    worst = np.random.default_rng(0).integers(0, 256, (960, 1280), dtype=np.uint8)
    smooth = cv2.GaussianBlur(worst, (0, 0), 0.8)  # no lens passes more than that
    assert len(picture_answer(Frame(np.asarray(smooth, np.uint8), 0.0, 0))["jpeg"]) < 1 << 20


def test_an_answer_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CarRefused) as refused:
        console_camera(car(tmp_path)).whole_picture()
    assert refused.value.reason == "bad_answer"


def test_a_fault_is_a_teaching_error() -> None:
    with pytest.raises(CameraFault) as fault:
        measure_camera([np.full((480, 640), 9, np.uint8)])
    assert fault.value.reason == "dark" and os.linesep in str(fault.value) and fault.value.next_step
