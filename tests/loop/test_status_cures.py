"""`hotlap status` names every reason at once, and whoever follows the cures ends up driving."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from calibration.mapping import Calibration
from calibration.store import save_calibration
from tests.vehicle.drive_rig import ROOT, Car
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import bright, make_bundle

pytestmark = [pytest.mark.slow]


class Parts:
    """Gate and pilot, started one by one, as their services are."""

    def __init__(self, car: Car) -> None:
        self.car = car
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: object) -> None:
        log = self.car.folder / f"{name}.log"
        command = [sys.executable, "-m", f"vehicle.{name}", "--config", self.car.config, "--runtime", self.car.runtime]
        with log.open("ab") as output:
            self._processes[name] = subprocess.Popen([*map(str, command), *map(str, words)], stderr=output, cwd=ROOT)

    def end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, (self.car.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def car(tmp_path: Path) -> Iterator[Car]:
    """It sees a folder of pictures, and its pulses only go into the trace."""
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number:03d}.png"), bright(number % 5, number))
    made = Car(f'[camera]\nkind = "folder"\nsource = "{tmp_path / "pictures"}"\n[actuator]\nkind = "none"\n')
    yield made
    made.close()


@pytest.fixture
def parts(car: Car) -> Iterator[Parts]:
    made = Parts(car)
    yield made
    made.close()


def blocked(car: Car) -> dict[str, str]:
    """What `hotlap status` names: reason and cure."""
    status = car.run("status")
    assert all(one["reason"] and one["value"] and one["cure"] for one in status["blocked"])
    return {one["reason"]: one["cure"] for one in status["blocked"]}


def comes_to(car: Car, reasons: set[str]) -> bool:
    return until(lambda: set(blocked(car)) == reasons, 20.0)


def start_gate(parts: Parts) -> None:
    parts.start("gate", "--trace", parts.car.trace_path)
    assert until(lambda: parts.car.run("status", status=None)["mode"] is not None)


def test_the_cures_make_it_drive(car: Car, parts: Parts, tmp_path: Path) -> None:
    nothing = car.run("status", status=1)
    assert {one["reason"] for one in nothing["blocked"]} == {"gate_not_running", "pilot_not_running"}
    assert nothing["mode"] is None and not nothing["armed"]

    start_gate(parts)
    assert car.run("stop") == {"mode": "stopped"}
    pilot = {"pilot_not_running", "no_model", "stale_intent", "stale_frame"}
    cures = blocked(car)
    assert set(cures) == {"stopped", "uncalibrated", "guard", "esc_neutral", *pilot}
    refused = car.run("arm", status=1)
    assert {one["reason"] for one in refused["blocked"]} == set(cures) - {"pilot_not_running"}

    assert cures["stopped"].endswith("hotlap stop --reset")
    car.run("stop", "--reset")
    assert comes_to(car, {"uncalibrated", "guard", "esc_neutral", "disarmed", *pilot})

    assert cures["uncalibrated"] == "hotlap calibrate, or the console"
    save_calibration(car.state / "calibration.json", Calibration())
    parts.end("gate")
    start_gate(parts)
    # The guard runs once it knows neutral, and the ESC has been shown it: "wait", say their cures.
    assert cures["guard"].startswith("wait") and cures["esc_neutral"].startswith("wait")
    assert comes_to(car, {"disarmed", *pilot})

    assert cures["no_model"] == "hotlap models install BUNDLE --activate, then start the pilot"
    bundle = tmp_path / "bundle.tar.gz"
    make_bundle(bundle)
    car.install(bundle)
    assert comes_to(car, {"disarmed", *pilot})  # nobody has loaded it yet

    assert cures["stale_intent"].startswith("start the pilot")
    parts.start("pilot")
    assert comes_to(car, {"disarmed"})
    assert not car.moving()

    assert blocked(car) == {"disarmed": "hotlap arm"}
    assert car.run("arm")["armed"]
    assert blocked(car) == {}
    car_moves = until(car.moving, 5.0)
    assert car_moves, car.rows()[-3:]

    car.run("disarm")
    assert not car.moving() and "disarmed" in blocked(car)
    for name in ("pilot", "gate"):
        parts.end(name)
    assert car.neutral_at_the_end() >= 10
