"""The car as the console sees it: `calibration.car_link.CarLink` over the local links, the model store and the disk.

It decides nothing about motion and never sends on its own: only what somebody asked for reaches the gate, and nothing
renews a lease but the browser that holds it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zmq

from calibration import store
from calibration.camera import CameraMeasurement, CameraPose
from calibration.car_link import CarRefused, Picture, Saliency
from calibration.durable import make_folders, write_durably
from calibration.errors import CalibrationError
from calibration.store import SavedCalibration
from calibration.values import Calibration
from vehicle import console_facts
from vehicle.calibrate_save import CalibrationKeeper
from vehicle.car_config import CarConfig
from vehicle.car_file import CarFile
from vehicle.console_camera import ConsoleCamera
from vehicle.console_log import LogTail
from vehicle.console_models import RELOAD_TIMEOUT_S, ConsoleModels
from vehicle.console_saliency import ConsoleSaliency
from vehicle.console_sockets import Asker, Listener, granted
from vehicle.console_world import ConsoleWorld

TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 2.0  # nobody gives up early on an emergency stop
_FIGURES_EVERY_S = 1.0
_FIGURES_TIMEOUT_S = 0.3
_NAME = re.compile(r"[\w. -]{1,32}")


class ConsoleLink:
    """One car; `close` it when the server has ended.

    Args:
        folder: of the console's own files.
        version: of hotlap.
        car_toml: the file that `config` was read from; None: the simulated car has none.

    Raises:
        ConfigError: the path of a socket is too long.
        SlotError: the model store cannot be used.
    """

    def __init__(
        self, config: CarConfig, runtime: Path, folder: Path, version: str = "", *, car_toml: Path | None = None
    ) -> None:
        self._config, self._folder, self._version = config, folder, version
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate, self._pilot = Asker(self._context, runtime, "gate"), Asker(self._context, runtime, "pilot")
        self._listener = Listener(self._context, runtime)
        self._world = ConsoleWorld(self._context, runtime, config.simulated)
        self._models = ConsoleModels(config, folder, self._is_armed, self._reload)
        self._saliency = ConsoleSaliency(self._listener.newest, self._bundle_that_drives)
        self._car_file = CarFile(car_toml, config, runtime, self.ask)
        self._log = LogTail(config.state_path() / "logs" / "drive.log")
        self._figures: dict[str, Any] = {}
        self._figures_s: float | None = None
        self._measuring = threading.Lock()
        self._keeper = CalibrationKeeper(config.calibration_path(), self.ask)
        self._camera = ConsoleCamera(config, self._ask_pilot, self._keeper.refuse_unless_disarmed)
        self._calibration: tuple[object, Calibration | None] = (None, None)
        self._name = self._read_name()

    def close(self) -> None:
        """Close the sockets; end the listener, and the maps' thread and process."""
        self._saliency.close()
        self._listener.close()
        self._world.close()
        self._gate.close()
        self._pilot.close()
        self._context.destroy(linger=0)

    # --- the gate

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """See `CarLink`."""
        timeout_s = STOP_TIMEOUT_S if request.get("op") in ("stop", "disarm") else TIMEOUT_S
        return granted(self._gate.ask(request, timeout_s))

    def _is_armed(self) -> bool:
        """A gate that does not answer is not running, and a hung one is held at neutral by its guard."""
        try:
            return self.ask({"op": "status"}).get("armed") is not False
        except CarRefused:
            return False

    def _ask_pilot(self, request: Mapping[str, object]) -> dict[str, Any]:
        return granted(self._pilot.ask(request, TIMEOUT_S))

    def _reload(self) -> dict[str, Any]:
        return granted(self._pilot.ask({"op": "reload"}, RELOAD_TIMEOUT_S))

    # --- what is seen

    def state(self) -> dict[str, Any]:
        """See `CarLink`: what the gate publishes ten times a second, over figures that are at most a second older."""
        figures = self._newest_figures()
        gate = self._listener.state()
        missing = list(figures["missing"])
        if gate is not None:
            missing = [one for one in missing if one["reason"] != "gate_not_running"]
        found = {**figures["gate"], **(gate or {})}
        if gate is None and not figures["gate"]:
            found = {"mode": None, "armed": False}
        picture = self._listener.newest()
        age_s = found.get("frame_age_s")
        return {
            **found,
            "blocked": [*missing, *(found.get("blocked") or [])],
            "pilot": figures["pilot"],
            "action": picture and {"steering_deg": picture.steering_deg, "speed_mps": picture.speed_mps},
            "frame_age_ms": round(1e3 * age_s, 1) if isinstance(age_s, (int, float)) else None,
            "simulated": self._world.newest(),
            "name": self._name,
            "console_version": self._version,
            "calibration": _as_object(self.calibration()),
        }

    def _newest_figures(self) -> dict[str, Any]:
        """Asked for once a second by one of the callers; the others take what is there."""
        if self._figures_s is not None and time.monotonic() - self._figures_s < _FIGURES_EVERY_S:
            return self._figures
        if self._measuring.acquire(blocking=self._figures_s is None):
            try:
                if self._figures_s is None or time.monotonic() - self._figures_s >= _FIGURES_EVERY_S:
                    self._figures = self._measured()
                    self._figures_s = time.monotonic()
            finally:
                self._measuring.release()
        return self._figures

    def _measured(self) -> dict[str, Any]:
        found: dict[str, Any] = {"missing": []}
        for name, asker in (("gate", self._gate), ("pilot", self._pilot)):
            try:
                answer = granted(asker.ask({"op": "status"}, _FIGURES_TIMEOUT_S))
                answer.pop("ok", None)
                found[name] = answer
            except CarRefused as refused:
                found[name] = {} if name == "gate" else None
                reason = {"reason": f"{name}_not_running", "value": refused.cause, "cure": refused.next_step}
                found["missing"].append(reason)
        return found

    def picture(self, after_seq: int, timeout_s: float) -> Picture | None:
        """See `CarLink`."""
        return self._listener.picture(after_seq, timeout_s)

    def saliency(self) -> Saliency | None:
        """See `CarLink`."""
        return self._saliency.newest()

    def _bundle_that_drives(self) -> Path:
        """Of the model that the pilot has loaded, by its own word."""
        pilot = self._newest_figures()["pilot"] or {}
        return self._models.bundle(str(pilot.get("model") or ""))

    def logs(self, lines: int) -> list[str]:
        """See `CarLink`."""
        return self._log.lines(lines)

    def health(self) -> dict[str, Any]:
        """See `CarLink`."""
        state = self.state()
        return {
            **console_facts.health_figures(self._config.state_path()),
            "checks": console_facts.checks(state),
            "state": state,
        }

    def facts(self) -> dict[str, Any]:
        """See `CarLink`."""
        return {
            "name": self._name,
            "version": self._version,
            "addresses": console_facts.addresses(),
            "ssid": console_facts.ssid(),
            "signal_dbm": console_facts.signal_dbm(),
            "camera": {k: v for k, v in asdict(self._config.camera).items() if k != "source"},
            "actuator": self._config.actuator.kind,
            "car_toml": self._car_file.facts(),
        }

    def change_car_file(self, text: str, sha256: str) -> None:
        """See `CarLink`."""
        self._car_file.change(text, sha256)

    def undo_car_file(self) -> None:
        """See `CarLink`."""
        self._car_file.undo()

    # --- models

    def models(self) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.listing()

    def install(self, bundle: Path, name: str) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.install(bundle, name, self.calibration())

    def activate(self, sha256: str) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.activate(sha256)

    def rollback(self) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.rollback()

    def remove(self, sha256: str) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.remove(sha256)

    def allow(self, sha256: str) -> dict[str, Any]:
        """See `CarLink`."""
        return self._models.allow(sha256)

    # --- calibration

    def calibration(self) -> Calibration | None:
        """See `CarLink`. Read again only where the file has changed."""
        path = self._config.calibration_path()
        try:
            status = path.stat()
            key: object = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            key = None
        known, calibration = self._calibration
        if key is None or key != known:
            calibration = None
            with contextlib.suppress(CalibrationError):
                calibration = store.load_calibration(path)
            self._calibration = key, calibration
        return calibration

    def calibration_history(self) -> tuple[SavedCalibration, ...]:
        """See `CarLink`."""
        return store.history(self._config.calibration_path())

    def save_calibration(self, calibration: Calibration) -> None:
        """See `CarLink`."""
        self._keeper.save(calibration)

    def undo_calibration(self) -> Calibration:
        """See `CarLink`."""
        return self._keeper.undo()

    def restore_calibration(self, revision: int) -> Calibration:
        """See `CarLink`."""
        return self._keeper.restore(revision)

    def whole_picture(self) -> Picture:
        """See `CarLink`."""
        return self._camera.whole_picture()

    def measured_camera(self) -> CameraPose | None:
        """See `CarLink`."""
        return self._camera.measured()

    def save_camera(self, measurement: CameraMeasurement) -> None:
        """See `CarLink`."""
        self._camera.save(measurement)

    # --- the name

    def rename(self, name: str) -> None:
        """See `CarLink`."""
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise CarRefused(
                "out_of_range", "a name has 1 to 32 letters, digits, blanks, hyphens and dots", next_step="another name"
            )
        try:
            make_folders(self._folder)
            write_durably(self._folder / "settings.json", json.dumps({"name": name}).encode())
        except OSError as error:
            raise CarRefused("storage", f"the name cannot be saved: {error.strerror or error}") from error
        self._name = name

    def _read_name(self) -> str:
        try:
            found = json.loads((self._folder / "settings.json").read_text())["name"]
        except (OSError, ValueError, KeyError, TypeError):
            found = ""
        return found if isinstance(found, str) and _NAME.fullmatch(found) else self._config.name


def _as_object(calibration: Calibration | None) -> dict[str, Any] | None:
    return None if calibration is None else asdict(calibration)
