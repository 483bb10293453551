"""The car as the doctor sees it: car.toml, calibration, models, gate, camera."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from calibration.mapping import Calibration
from calibration.store import save_calibration
from vehicle import doctor_car
from vehicle.car_config import ActuatorConfig, CameraConfig, CarConfig
from vehicle.doctor_car import calibration_finding, camera_finding, gate_finding, models_finding, needs_of, scan_finding
from vehicle.doctor_devices import FAIL, OK, SERVICE, WARN, Finding, Needs
from vehicle.errors import GateError
from vehicle.slot_state import SlotState


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_needs_follow_car_toml() -> None:
    def needs(camera: str, actuator: str, **more: Any) -> Needs:
        return needs_of(CarConfig(camera=CameraConfig(kind=camera), actuator=ActuatorConfig(kind=actuator, **more)))

    assert needs_of(None) == needs("sim", "sim") == Needs()
    assert needs("v4l2", "pca9685", i2c_bus=7) == Needs(video="/dev/video0", i2c_bus=7)
    assert needs("picamera2", "sysfs_pwm") == Needs(video="", pwm=True)
    assert needs("http", "rpi_gpio") == Needs(gpio=True)
    assert needs("folder", "bridge", port="/dev/ttyACM0") == Needs(serial="/dev/ttyACM0")


def test_no_scan_while_armed_and_none_of_a_bus_that_is_not_there(tmp_path: Path) -> None:
    assert "armed" in scan_finding(tmp_path, None, armed=True).value
    found = scan_finding(tmp_path, None, armed=False)
    assert (found.status, "i2c-1" in found.value) == (WARN, True)


@pytest.mark.parametrize(
    ("text", "status", "words"),
    (
        ("nonsense = 1\n", FAIL, "nonsense"),
        ('[actuator]\nkind = "none"\n', WARN, "nothing moves"),
        ('[actuator]\nkind = "pca9685"\n', OK, "pca9685"),
    ),
)
def test_car_toml(tmp_path: Path, text: str, status: str, words: str) -> None:
    config, found = doctor_car.read_config(write(tmp_path / "car.toml", text))
    assert (found.status, words in found.value) == (status, True)
    assert (config is None) == (status == FAIL)


def test_calibrations(tmp_path: Path) -> None:
    real = CarConfig(state_dir=str(tmp_path), actuator=ActuatorConfig(kind="pca9685"))
    assert calibration_finding(CarConfig(state_dir=str(tmp_path))).status == OK  # hotlap drive makes one
    assert calibration_finding(real).status == FAIL
    save_calibration(tmp_path / "calibration.json", Calibration())
    assert calibration_finding(real).status == OK
    (tmp_path / "calibration.json").write_text("{")
    found = calibration_finding(real)
    assert found.status == FAIL and found.cure


def test_models(tmp_path: Path) -> None:
    config = CarConfig(state_dir=str(tmp_path))
    models = tmp_path / "models"
    sha256 = hashlib.sha256(b"bundle").hexdigest()
    assert models_finding(config).status == FAIL
    slots = write(models / "slots.json", SlotState().to_json())
    assert "no active model" in models_finding(config).value
    slots.write_text(SlotState(current=sha256).to_json())
    assert "is not there" in models_finding(config).value
    bundle = write(models / sha256 / "bundle.tar.gz", "bundle")
    assert models_finding(config) == Finding("models", OK, f"model {sha256[:12]}")
    bundle.write_text("bumble")
    assert "damaged" in models_finding(config).value
    slots.write_text("{")
    assert models_finding(config).status == FAIL
    assert sorted(path.name for path in models.iterdir()) == sorted([sha256, "slots.json"])  # nothing was tidied up


def test_a_gate_that_does_not_run_matters_where_a_service_is_installed(tmp_path: Path) -> None:
    found, armed = gate_finding(tmp_path, tmp_path)
    assert (found.status, found.value, armed) == (OK, "not running", False)
    write(tmp_path / SERVICE)
    found, _ = gate_finding(tmp_path, tmp_path)
    assert (found.status, "journalctl -u hotlap-gate" in found.cure) == (FAIL, True)


@pytest.mark.parametrize(
    ("answer", "status", "armed", "words"),
    (
        ({"mode": "disarmed", "armed": False, "blocked": [{"reason": "disarmed", "value": "v", "cure": "c"}]},
         OK, False, "runs, disarmed"),
        ({"mode": "autonomous", "armed": True, "blocked": []}, OK, True, "runs, autonomous"),
        ({"mode": "disarmed", "armed": False, "blocked": [{"reason": "no_model", "value": "none", "cure": "install"}]},
         WARN, False, "no_model: none (install)"),
    ),
)  # fmt: skip
def test_what_a_gate_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], status: str, armed: bool, words: str
) -> None:
    monkeypatch.setattr("vehicle.links.request", lambda runtime, socket, message: answer)
    found, was_armed = gate_finding(tmp_path, tmp_path)
    assert (found.status, was_armed, words in found.value) == (status, armed, True)


def test_a_gate_that_this_user_may_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(runtime: Path, socket: str, message: object) -> None:
        raise GateError("no answer", cause="this user may not", next_step="sudo usermod -aG hotlap $USER")

    monkeypatch.setattr("vehicle.links.request", refuse)
    write(tmp_path / SERVICE)
    found, _ = gate_finding(tmp_path, tmp_path)
    assert (found.status, found.cure) == (WARN, "sudo usermod -aG hotlap $USER")


# --- the camera


def test_pictures_are_taken_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2
    import numpy as np

    monkeypatch.setenv("HOTLAP_RUNTIME", str(tmp_path))
    draw = np.random.default_rng(1)
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"pictures/{number:03}.png"), draw.integers(0, 255, (48, 64), dtype=np.uint8))
    car_toml = write(
        tmp_path / "car.toml", f'[camera]\nkind = "folder"\nsource = "{tmp_path}/pictures"\nrate_hz = 60.0\n'
    )
    config, _ = doctor_car.read_config(car_toml)
    found = camera_finding(car_toml, config)
    assert (found.status, found.value.startswith("folder: 64x48, ")) == (OK, True), found


def test_a_camera_that_is_not_there(tmp_path: Path) -> None:
    car_toml = write(tmp_path / "car.toml", '[camera]\nkind = "v4l2"\nsource = "/dev/video99"\n')
    config, _ = doctor_car.read_config(car_toml)
    found = camera_finding(car_toml, config)
    assert (found.status, "/dev/video99" in found.value, bool(found.cure)) == (FAIL, True, True)


def test_a_camera_driver_that_hangs_or_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CarConfig(camera=CameraConfig(kind="v4l2"))
    monkeypatch.setattr(doctor_car, "ask", lambda command, timeout_s: None)
    assert "gave nothing within" in camera_finding(tmp_path / "car.toml", config).value
    crashed = subprocess.CompletedProcess([], -11, stdout="", stderr="")
    monkeypatch.setattr(doctor_car, "ask", lambda command, timeout_s: crashed)
    assert "exit status -11" in camera_finding(tmp_path / "car.toml", config).value


def test_cameras_that_are_not_opened() -> None:
    assert camera_finding(None, None).status == WARN
    assert camera_finding(None, CarConfig()).status == OK
