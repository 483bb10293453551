"""The base install in an environment of its own: what a car has, with no torch, no MuJoCo, and no checkout around."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from calibration.mapping import Calibration
from calibration.store import save_calibration
from tests.conftest import ROOT, SHARED_DATA
from tests.vehicle.drive_rig import Car
from tests.vehicle.pilot_rig import bright, make_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCES = (
    "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "hotlap.py",
    "trainer", "sim", "vehicle", "calibration", "firmware_bridge",
)  # fmt: skip
TRAIN = ("torch", "mujoco", "numba", "gymnasium", "onnx", "matplotlib", "av")
# What pip says where the package index cannot be reached.
NO_NETWORK = ("NewConnectionError", "ConnectTimeoutError", "Temporary failure in name resolution", "ProxyError")

FIND = """
import importlib.util, json, sys
print(json.dumps([importlib.util.find_spec(name) is not None for name in sys.argv[1:]]))
"""
WALK = """
import importlib, json, pkgutil, sys
failed, names = {}, []
for room in ("vehicle", "calibration", "firmware_bridge"):
    package = importlib.import_module(room)
    names += [room, *(found.name for found in pkgutil.walk_packages(package.__path__, room + "."))]
for name in names:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)
print(json.dumps({"names": names, "failed": failed, "loaded": sorted({name.split(".")[0] for name in sys.modules})}))
"""
PILOT = """
import json, sys
import vehicle.pilot
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
GATE = PILOT.replace("vehicle.pilot", "vehicle.gate, vehicle.guard")
# Hardware that is not here: each says so when it is opened, and which library or device is missing.
HARDWARE = """
import json, sys
from pathlib import Path
from vehicle.actuators.registry import open_actuator
from vehicle.cameras.registry import open_camera
from vehicle.car_config import ActuatorConfig, CameraConfig
from vehicle.errors import VehicleError
said = {}
nowhere = {"i2c_bus": 63, "pwm_root": "/nonexistent", "port": "/nonexistent"}
for kind in ("rpi_gpio", "pca9685", "sysfs_pwm", "bridge"):
    try:
        open_actuator(ActuatorConfig(kind=kind, **nowhere), Path(sys.argv[1]))
    except VehicleError as error:
        said[kind] = [error.what, error.next_step]
for kind in ("picamera2", "v4l2"):
    try:
        open_camera(CameraConfig(kind=kind, source="/dev/video63"), Path(sys.argv[1]))
    except VehicleError as error:
        said[kind] = [error.what, error.next_step]
print(json.dumps(said))
"""


class Environment:
    """A virtual environment with hotlap's base install."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python, self.hotlap = folder / "bin" / "python", folder / "bin" / "hotlap"
        # Nothing of the environment that the tests run in.
        self.variables = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

    def run(self, *command: object, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*map(str, command)], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=120
        )
        assert status in (None, done.returncode), (done.returncode, done.stdout, done.stderr)
        return done

    def code(self, text: str, *words: object) -> Any:
        """What a piece of Python printed as JSON."""
        return json.loads(self.run(self.python, "-c", text, *words).stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("base")
    source, made = folder / "source", folder / "venv"
    source.mkdir()
    for name in SOURCES:  # a copy, since pip builds in place
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", made], check=True, timeout=120)
    done = subprocess.run(
        [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", str(source)],
        cwd=folder, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    if done.returncode != 0 and any(sign in done.stderr for sign in NO_NETWORK):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return Environment(made)


def test_it_has_nothing_of_the_train_extra(base: Environment) -> None:
    assert base.code(FIND, *TRAIN) == [False] * len(TRAIN)
    assert base.code(FIND, "vehicle", "calibration", "sim", "cv2", "onnxruntime") == [True] * 5


def test_every_module_of_the_car_imports(base: Environment) -> None:
    walked = base.code(WALK)
    assert walked["failed"] == {}
    assert len(walked["names"]) > 60
    assert {"vehicle.actuators.pca9685", "vehicle.cameras.picamera2", "vehicle.services"} <= set(walked["names"])
    assert not {"trainer", "sim", *TRAIN} & set(walked["loaded"])


def test_the_pilot_imports_no_trainer_and_no_simulator(base: Environment) -> None:
    loaded = base.code(PILOT)
    assert {"cv2", "onnxruntime", "zmq"} <= set(loaded)
    assert not {"trainer", "sim", *TRAIN} & set(loaded)


def test_the_gate_imports_no_vision_and_no_network(base: Environment) -> None:
    loaded = base.code(GATE)
    assert "zmq" in loaded and not {"cv2", "onnxruntime", "numpy", "trainer", "sim", *TRAIN} & set(loaded)


def test_hardware_that_is_not_here_is_explained_when_it_is_opened(base: Environment, tmp_path: Path) -> None:
    said = base.code(HARDWARE, tmp_path)
    assert set(said) == {"rpi_gpio", "pca9685", "sysfs_pwm", "bridge", "picamera2", "v4l2"}
    assert all(what and next_step for what, next_step in said.values())
    assert "hotlap[rpi]" in said["rpi_gpio"][1] and "smbus2" in " ".join(said["pca9685"])


def test_the_commands_run(base: Environment) -> None:
    listing = base.run(base.hotlap, "--help").stdout
    assert all(name in listing for name in ("drive", "models", "status", "doctor"))
    doctor = base.run(base.hotlap, "doctor", "--json", status=None)
    assert doctor.returncode in (0, 1) and json.loads(doctor.stdout)
    for words in (("train", "--track", "first_oval", "--out", "x"), ("tracks",)):
        refused = base.run(base.hotlap, *words, "--json", status=None)
        if refused.returncode != 0:  # what needs the extra says so
            assert refused.returncode == 2 and "hotlap[train]" in json.loads(refused.stdout)["error"]["next"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of a real DeepRacer's camera, or made-up ones where they are not here."""
    real = SHARED_DATA / "frames" / "deepracer"
    if real.is_dir():
        return real.resolve()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        cv2.imwrite(str(folder / f"{number:03d}.png"), bright(number % 5, number))
    return folder


@pytest.fixture
def car(base: Environment, pictures: Path) -> Iterator[Car]:
    camera = f'[camera]\nkind = "folder"\nsource = "{pictures}"\n'
    made = Car(f'{camera}[actuator]\nkind = "none"\n', (str(base.hotlap),), cwd=base.folder)
    made.environment = {**base.variables, "HOTLAP_RUNTIME": str(made.runtime)}
    yield made
    made.close()


def test_it_drives_from_a_folder_of_pictures(car: Car, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle.tar.gz")
    save_calibration(car.state / "calibration.json", Calibration())
    car.install(tmp_path / "bundle.tar.gz")
    drive = car.drive("--model", tmp_path / "bundle.tar.gz", "--arm", "--duration", "5s")
    assert drive.end(120) == 0, (drive.stderr, car.logs())
    result = drive.result
    assert result["laps"] == 0 and result["exit_status"] == {"gate": 0, "pilot": 0}
    assert result["mode"] == "autonomous" and 90.0 < result["interval_ms"]["p50"] < 110.0
    rows = car.rows()
    driven = [row for row in rows if row.cause == "drive"]
    assert len(driven) > 200 and all(row.pulse_us != car.neutral_us() for row in driven[25:])
    assert rows[0].cause.startswith("neutral:") and car.neutral_at_the_end() >= 10
    car.wait_empty()


def test_without_mujoco_the_simulated_car_is_explained(car: Car, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle.tar.gz")
    car.config.write_text(f'state_dir = "{car.state}"\n')
    car.install(tmp_path / "bundle.tar.gz")
    error = car.run("drive", "--config", car.config, "--arm", status=2)["error"]
    assert "mujoco" in error["what"] and "pip install 'hotlap[train]'" in error["next"]
    assert car.pids() == {}
