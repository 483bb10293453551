"""A car for the console's tests: the gate's real core on a clock that is moved by hand. Not a test itself."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from calibration import store
from calibration.app import ConsoleSettings, create_app
from calibration.camera import CameraMeasurement, CameraPose
from calibration.car_link import CarRefused, Picture, Saliency
from calibration.console import EXTENSION, Console
from calibration.deepracer_api import DRIVER
from calibration.values import Calibration
from tests.vehicle.gate_rig import MODEL, Rig
from vehicle.gate_core import Output

CAR = "https://car.local"


class FakeCar:
    """Implements `calibration.car_link.CarLink`. Time passes only in `advance`, tick by tick."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig()
        self.asked: list[dict[str, Any]] = []
        self.outputs: list[Output] = []
        self.path = folder / "calibration.json"
        store.save_calibration(self.path, Calibration())
        self.installed: dict[str, dict[str, Any]] = {}
        self.refuse_install: CarRefused | None = None
        self.silent = self.pilot_sends = False
        self.loaded = True
        self.name = "hotlap"
        self.pictures: list[Picture] = []
        self.car_files: list[tuple[str, str]] = []
        self.new_picture = threading.Condition()
        self.map: Saliency | CarRefused | None = None
        self.whole: np.ndarray = np.full((120, 160), 128, np.uint8)  # the camera's picture in its own size
        self.camera: CameraPose | None = None
        self.advance(1.0)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            if self.pilot_sends and len(self.outputs) % 3 == 0:
                self.rig.intent()
            self.outputs.append(self.rig.tick())

    @property
    def mode(self) -> str:
        return self.rig.core.mode.value

    @property
    def pulses(self) -> tuple[float | None, float | None]:
        return self.outputs[-1].steering_us, self.outputs[-1].throttle_us

    def autonomous_ready(self) -> None:
        """A pilot sends good intents from now on."""
        self.rig.core.request({"op": "model", "sha256": MODEL, "trial": False}, self.rig.now_s)
        self.pilot_sends = True
        self.advance(1.0)

    # --- CarLink

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        self.asked.append(dict(request))
        if self.silent:
            raise CarRefused("no_answer", "the gate gave no answer", next_step="start it")
        answer = self.rig.core.request(dict(request), self.rig.now_s)
        if answer["ok"]:
            return answer
        raise CarRefused(
            answer["reason"], answer["what"], cause=answer["cause"], next_step=answer["next"], blocked=answer["blocked"]
        )

    def state(self) -> dict[str, Any]:
        return {**self.rig.core.state(self.rig.now_s), "name": self.name, "pilot": {"fps": 15.0}}

    def picture(self, after_seq: int, timeout_s: float) -> Picture | None:
        def newer() -> bool:
            return bool(self.pictures) and self.pictures[-1].seq != after_seq

        with self.new_picture:
            return self.pictures[-1] if self.new_picture.wait_for(newer, timeout_s) else None

    def show(self, seq: int, value: int = 128) -> None:
        with self.new_picture:
            self.pictures.append(Picture(seq, 0.0, 120, 160, bytes([value]) * 19200, 3.0, 0.5))
            self.new_picture.notify_all()

    def whole_picture(self) -> Picture:
        return Picture(1, 0.0, *self.whole.shape, self.whole.tobytes())

    def measured_camera(self) -> CameraPose | None:
        return self.camera

    def save_camera(self, measurement: CameraMeasurement) -> None:
        if self.mode != "disarmed":
            raise CarRefused("not_disarmed", f"the gate is {self.mode}")
        self.camera = measurement.pose

    def saliency(self) -> Saliency | None:
        if isinstance(self.map, CarRefused):
            raise self.map
        return self.map

    def models(self) -> dict[str, Any]:
        return {"models": list(self.installed.values()), "current": None, "trial": None, "barred": {}, "notice": None}

    def install(self, bundle: Path, name: str) -> dict[str, Any]:
        if self.refuse_install is not None:
            raise self.refuse_install
        data = bundle.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        new = sha256 not in self.installed
        self.installed[sha256] = {
            "sha256": sha256, "name": name, "role": "", "size_bytes": len(data), "barred": "",
            "report": {"p99_ms": 5.0}, "contract": {"action": {"kind": "discrete"}},
        }  # fmt: skip
        return {"sha256": sha256, "new": new, "name": name, "report": {"p99_ms": 5.0}}

    def activate(self, sha256: str) -> dict[str, Any]:
        if sha256 not in self.installed:
            raise CarRefused("not_installed", f"there is no model {sha256[:12]} here")
        self.installed[sha256]["role"] = "trial"
        return {"loaded": self.loaded, "pilot": "loaded" if self.loaded else "the pilot does not run"}

    def rollback(self) -> dict[str, Any]:
        raise CarRefused("no_previous", "there is no model to go back to")

    def remove(self, sha256: str) -> dict[str, Any]:
        if self.installed.pop(sha256, None) is None:
            raise CarRefused("not_installed", f"there is no model {sha256[:12]} here")
        return {"sha256": sha256}

    def allow(self, sha256: str) -> dict[str, Any]:
        return {"sha256": sha256}

    def calibration(self) -> Calibration | None:
        return store.load_calibration(self.path)

    def calibration_history(self) -> tuple[store.SavedCalibration, ...]:
        return store.history(self.path)

    def save_calibration(self, calibration: Calibration) -> None:
        if self.mode != "disarmed":
            raise CarRefused("not_disarmed", f"the gate is {self.mode}")
        store.save_calibration(self.path, calibration)
        self.rig.core.set_calibration(calibration)

    def undo_calibration(self) -> Calibration:
        return store.undo(self.path)

    def restore_calibration(self, revision: int) -> Calibration:
        return store.restore(self.path, revision)

    def logs(self, lines: int) -> list[str]:
        return [f"line {i}" for i in range(5)][-lines:]

    def health(self) -> dict[str, Any]:
        return {"temperature_c": 50.0, "load": 0.2, "disk_free_bytes": 10**9, "checks": []}

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "version": "0.1.0", "addresses": ["192.168.1.7"], "ssid": "school"}

    def change_car_file(self, text: str, sha256: str) -> None:
        if "bad" in text:
            raise CarRefused("bad_car_file", "car.toml: unknown key bad", next_step="the nearest known key is name")
        self.car_files.append((text, sha256))

    def undo_car_file(self) -> None:
        if not self.car_files:
            raise CarRefused("nothing_before", "nothing was changed on this page yet")
        self.car_files.pop()

    def rename(self, name: str) -> None:
        self.name = name


def make_console(folder: Path, **settings: Any) -> tuple[Flask, FakeCar, str]:
    """An application, its car, and the password."""
    car = FakeCar(folder)
    settings.setdefault("clock", lambda: car.rig.now_s)
    app = create_app(car, ConsoleSettings(folder / "console", version="0.1.0", **settings))
    app.extensions[DRIVER]._sleep = car.advance
    return app, car, shared(app).passwords.reset()


def shared(app: Flask) -> Console:
    found = app.extensions[EXTENSION]
    assert isinstance(found, Console)
    return found


class Browser:
    """One browser with its cookies and its CSRF token."""

    def __init__(self, app: Flask, address: str = "192.168.1.20") -> None:
        self.client: FlaskClient = app.test_client()
        self.address = address
        self.token = ""

    def ask(self, method: str, path: str, *, csrf: bool = True, **keys: Any) -> TestResponse:
        headers = dict(keys.pop("headers", {}))
        environ = {"REMOTE_ADDR": self.address}
        if "raw_path" in keys:  # the client takes what follows two slashes for a host
            environ["PATH_INFO"] = keys.pop("raw_path")
        if csrf and self.token:
            headers.setdefault("X-CSRFToken", self.token)
        return self.client.open(path, method=method, base_url=CAR, headers=headers, environ_overrides=environ, **keys)

    def get(self, path: str, **keys: Any) -> TestResponse:
        return self.ask("GET", path, **keys)

    def post(self, path: str, json: Any = None, **keys: Any) -> TestResponse:
        return self.ask("POST", path, json={} if json is None else json, **keys)

    def put(self, path: str, json: Any = None, **keys: Any) -> TestResponse:
        return self.ask("PUT", path, json={} if json is None else json, **keys)

    def read_token(self) -> str:
        page = self.get("/")
        assert page.status_code == 200
        found = re.search(r'<meta name="csrf-token" content="([^"]+)"', page.text)
        assert found is not None, page.text
        self.token = found[1]
        return self.token

    def log_in(self, password: str) -> TestResponse:
        if not self.token:
            self.read_token()
        return self.ask("POST", "/login", data={"password": password})


def reason(answer: TestResponse) -> str:
    """The reason of a refusal."""
    assert answer.json is not None
    return str(answer.json["error"]["reason"])
