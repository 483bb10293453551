"""What `hotlap doctor` looks at of the car itself: car.toml, calibration, models, the gate, the camera.

Whatever needs a library is imported where it is used, so that a missing one is a finding and no crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vehicle.doctor_devices import FAIL, OK, SERVICE, WARN, Finding, Needs, i2c_finding
from vehicle.errors import GateError, HotlapError, VehicleError

if TYPE_CHECKING:
    from vehicle.car_config import CarConfig

CAMERA_TIMEOUT_S = 30.0
_AS_SERVICE = "sudo -u hotlap hotlap doctor"
_INSTALL_MODEL = "hotlap models install BUNDLE, then hotlap models activate SHA"


def ask(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """Run a program; None where there is none, or it hangs."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def last_line(answer: subprocess.CompletedProcess[str]) -> str:
    """What a program that failed said last."""
    return (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1]


def read_config(car_toml: Path | None) -> tuple[CarConfig | None, Finding]:
    """The car, or None where its file cannot be used; None as a file is the simulated car."""
    where = str(car_toml) if car_toml is not None else "none, so the simulated car"
    try:
        from vehicle.car_config import load_car_config
    except ImportError as error:
        return None, Finding("config", FAIL, f"{where}: cannot be read: {error}", "pip install tomli")
    if car_toml is not None and car_toml.exists() and not os.access(car_toml, os.R_OK):
        return None, Finding("config", WARN, f"this user may not read {where}: the car was not looked at", _AS_SERVICE)
    try:
        config = load_car_config(car_toml)
    except HotlapError as error:
        return None, Finding("config", FAIL, error.what, error.next_step or f"edit {where}")
    value = f"{where}; camera {config.camera.kind}, actuator {config.actuator.kind}"
    if config.actuator.kind == "none":
        return config, Finding("config", WARN, f"{value}: nothing moves", f"set actuator.kind in {where}")
    return config, Finding("config", OK, value)


def needs_of(config: CarConfig | None) -> Needs:
    """The devices that a car needs."""
    if config is None:
        return Needs()
    camera, actuator = config.camera, config.actuator
    video = {"v4l2": camera.source or "/dev/video0", "picamera2": "", "csi": ""}.get(camera.kind)
    return Needs(
        video=video,
        i2c_bus=actuator.i2c_bus if actuator.kind == "pca9685" else None,
        pwm=actuator.kind == "sysfs_pwm",
        gpio=actuator.kind == "rpi_gpio",
        serial=actuator.port if actuator.kind == "bridge" else None,
    )


def calibration_finding(config: CarConfig) -> Finding:
    """Whether the calibration is there and holds together."""
    path = config.calibration_path()
    if config.actuator.kind == "sim" and not path.exists():
        return Finding("calibration", OK, "none yet: hotlap drive gives the simulated car its own")
    try:
        from calibration.store import load_calibration

        load_calibration(path)
    except HotlapError as error:
        return Finding("calibration", FAIL, error.what, error.next_step or "hotlap calibrate")
    except (ImportError, OSError) as error:
        return Finding("calibration", FAIL, f"{path}: {error}", f"ls -l {path}")
    return Finding("calibration", OK, str(path))


def models_finding(config: CarConfig) -> Finding:
    """The model that drives next, by the store's own file; the store is not opened, since that tidies it up."""
    folder = config.state_path() / "models"
    try:
        from vehicle.slot_state import SlotState

        state = SlotState.from_json((folder / "slots.json").read_bytes())
        if state.driving is None:
            return Finding("models", FAIL, f"{folder}: no active model", _INSTALL_MODEL)
        digest = hashlib.sha256((folder / state.driving / "bundle.tar.gz").read_bytes()).hexdigest()
    except FileNotFoundError as error:
        return Finding("models", FAIL, f"no model: {error.filename} is not there", _INSTALL_MODEL)
    except HotlapError as error:
        return Finding("models", FAIL, error.what, _INSTALL_MODEL)
    except PermissionError as error:
        return Finding("models", WARN, f"this user may not read {error.filename}", _AS_SERVICE)
    except (ImportError, OSError) as error:
        return Finding("models", FAIL, f"{folder}: {error}", f"ls -lR {folder}")
    value = f"model {state.driving[:12]}" + (", on trial" if state.trial else "")
    if digest != state.driving:
        return Finding("models", FAIL, f"{value}, is damaged: it hashes to {digest[:12]}", _INSTALL_MODEL)
    return Finding("models", OK, value)


def gate_finding(root: Path, runtime: Path | None) -> tuple[Finding, bool]:
    """Whether a gate answers, and whether it is armed."""
    served = (root / SERVICE).exists()
    try:
        from vehicle.links import request, runtime_dir
    except ImportError as error:
        return Finding("gate", WARN, f"cannot be asked: {error}", "pip install pyzmq"), False
    try:
        status = request(runtime or runtime_dir(), "gate.request", {"op": "status"})
    except GateError as error:
        cure = "journalctl -u hotlap-gate -n 30; sudo systemctl start hotlap.target" if served else "hotlap drive"
        if error.next_step.startswith("sudo usermod"):
            return Finding("gate", WARN, f"{error.what}: {error.cause}", error.next_step), False
        value = f"{error.what}: {error.cause}" if served else "not running"
        return Finding("gate", FAIL if served else OK, value, cure), False
    except VehicleError as error:
        return Finding("gate", WARN, error.what, error.next_step), False
    armed = bool(status.get("armed"))
    value = f"runs, {status.get('mode')}"
    blocked = [one for one in status.get("blocked") or [] if one.get("reason") != "disarmed"]  # which is how it waits
    if blocked:
        reasons = "; ".join(f"{one.get('reason')}: {one.get('value')} ({one.get('cure')})" for one in blocked)
        return Finding("gate", WARN, f"{value}; it would not drive, because: {reasons}", "hotlap status"), armed
    return Finding("gate", OK, value), armed


# --- what is only done when asked for


def scan_finding(root: Path, config: CarConfig | None, armed: bool) -> Finding:
    """Scan the I2C bus of the car, or bus 1; not while the car is armed."""
    if armed:
        return Finding("i2c_scan", WARN, "not done: the car is armed, and its pulses go over this bus", "hotlap disarm")
    actuator = config.actuator if config is not None else None
    wanted = actuator.i2c_address if actuator is not None and actuator.kind == "pca9685" else None
    return i2c_finding(root, actuator.i2c_bus if actuator is not None else 1, wanted)


def camera_finding(car_toml: Path | None, config: CarConfig | None) -> Finding:
    """Take pictures in another process: a driver may hang, or crash."""
    if config is None:
        return Finding("camera", WARN, "not opened: car.toml cannot be read")
    if config.camera.kind == "sim":
        return Finding("camera", OK, "simulated: hotlap drive has it")
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r}); "
        f"from vehicle.doctor_car import probe_camera; print(probe_camera({str(car_toml)!r}))"
    )
    answer = ask([sys.executable, "-c", script], CAMERA_TIMEOUT_S)
    cure = "sudo systemctl stop hotlap-pilot, if that has the camera; then the cable"
    if answer is None:
        return Finding("camera", FAIL, f"gave nothing within {CAMERA_TIMEOUT_S:.0f} s", cure)
    try:
        found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Finding("camera", FAIL, f"{config.camera.kind}: {last_line(answer)}", cure)
    if "what" in found:
        return Finding("camera", FAIL, found["what"], found["next"] or cure)
    value = f"{found['width']}x{found['height']}, {found['frames']} pictures, {found['fps']} a second"
    return Finding("camera", OK, f"{config.camera.kind}: {value}")


def probe_camera(car_toml: str, frames: int = 10, wait_s: float = 10.0) -> str:
    """Open the camera of a car, take pictures, and describe them, or the error, as one line of JSON."""
    from vehicle.cameras.grabber import Grabber
    from vehicle.cameras.registry import open_camera
    from vehicle.car_config import load_car_config
    from vehicle.links import runtime_dir

    try:
        config = load_car_config(car_toml)
        camera = open_camera(config.camera, runtime_dir())
        grabber = Grabber(lambda: camera)
        try:
            seq = -1
            for _ in range(frames):
                found = grabber.wait_newer(seq, wait_s / frames)
                seq = found.seq if found is not None else seq
            newest = grabber.newest(wait_s, time.monotonic())
            facts = grabber.facts()
        finally:
            grabber.close()
    except HotlapError as error:
        return json.dumps({"what": error.what, "next": error.next_step})
    height, width = newest.pixels.shape[:2]
    return json.dumps({"width": width, "height": height, "frames": facts["frames"], "fps": facts["fps"]})
