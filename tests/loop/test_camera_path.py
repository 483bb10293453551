"""Measuring the camera the whole way: pictures drawn by MuJoCo, through a real pilot and the console, to a car file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.app import ConsoleSettings, create_app
from calibration.camera import Board, CameraPose
from calibration.console import EXTENSION
from sim.car_spec import load_car
from tests.calibration.console_rig import Browser
from tests.sim.board_scene import draw_board, photograph, random_place
from tests.sim.opengl import needs_opengl
from tests.vehicle.gate_process import GateProcess, until
from tests.vehicle.pilot_rig import make_bundle
from vehicle.car_config import load_car_config
from vehicle.console_link import ConsoleLink
from vehicle.measured_camera import measured_path, with_measured_camera

pytestmark = pytest.mark.slow  # real processes, and OpenGL

POSE = CameraPose(78.0, 18.5, 0.142, -2.0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    # A short path, for sockets. A killed gate's guard writes into it for another second.
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        yield Path(name)


def show_boards(folder: Path) -> None:
    """Three places of the board, each several times with other noise: a camera that never changes is called frozen."""
    needs_opengl()
    rng = np.random.default_rng(11)
    folder.mkdir()
    for place in range(3):
        picture = draw_board(POSE, random_place(rng, POSE, Board()), Board())
        for again in range(5):
            assert cv2.imwrite(str(folder / f"{place}{again}.png"), photograph(picture, rng))


@pytest.fixture
def gate(folder: Path) -> Iterator[GateProcess]:
    show_boards(folder / "pictures")
    made = GateProcess(folder)
    with made.config.open("a") as file:
        file.write(f'[camera]\nkind = "folder"\nsource = "{folder / "pictures"}"\nrate_hz = 15.0\nforward_m = 0.12\n')
    yield made.start()
    made.close()


def test_from_the_cameras_pictures_to_the_car_that_is_trained_with(folder: Path, gate: GateProcess) -> None:
    bundle = folder / "b.tar.gz"
    make_bundle(bundle)
    command = [sys.executable, "-m", "vehicle.pilot", "--runtime", str(gate.runtime), "--config", str(gate.config)]
    pilot = subprocess.Popen([*command, "--bundle", str(bundle)], cwd=ROOT)
    config = load_car_config(gate.config)
    link = ConsoleLink(config, gate.runtime, gate.state_dir / "console")
    try:
        app = create_app(link, ConsoleSettings(gate.state_dir / "console"))
        browser = Browser(app)
        assert browser.log_in(app.extensions[EXTENSION].passwords.reset()).status_code == 200
        assert until(lambda: link.picture(-1, 1.0) is not None, 60.0), "the pilot shows pictures"
        seen: set[int] = set()
        for wanted in range(1, 4):

            def another() -> bool:
                """A picture of a place that was not taken yet: the folder shows each for a third of a second."""
                picture = link.whole_picture()
                if picture.seq // 5 % 3 in seen:
                    return False
                answer = browser.post("/api/v1/camera/pictures")
                assert answer.status_code == 200, answer.json
                seen.add(picture.seq // 5 % 3)
                return True

            assert until(another, 60.0) and len(browser.get("/api/v1/camera").json["pictures"]) == wanted  # type: ignore[index]
        answer = browser.put("/api/v1/camera")
        assert answer.status_code == 200, answer.json
        assert answer.json is not None and answer.json["result"]["width"] == 640
        given = folder / "car-camera.toml"
        given.write_bytes(browser.get("/api/v1/camera/car.toml").data)
    finally:
        link.close()
        pilot.terminate()
        assert pilot.wait(20.0) == 0
    for camera in (load_car(given).camera, load_car(measured_path(config)).camera, with_measured_camera(config).camera):
        assert camera.horizontal_fov_deg == pytest.approx(POSE.horizontal_fov_deg, abs=0.5)
        assert camera.pitch_down_deg == pytest.approx(POSE.pitch_down_deg, abs=0.25)
        assert camera.roll_deg == pytest.approx(POSE.roll_deg, abs=0.25)
        assert camera.height_m == pytest.approx(POSE.height_m, abs=0.0015)
    assert load_car(given).camera.forward_m == with_measured_camera(config).camera.forward_m == 0.12
