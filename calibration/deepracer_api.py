"""The original car's HTTP API under its own paths, on this car's gate. ``docs/console.md`` says what differs and why.

As there, a refusal is status 200 with ``{"success": false, "reason"}``. A success is said twice, since two of the
clients look for the text of it, one with a blank after the colon and one without (spec deepracer-vehicle.md 1.6).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from flask import Blueprint, Response, current_app, request

from calibration import deepracer_units as units
from calibration.api import set_password
from calibration.api_json import body, error_reply, number, text
from calibration.car_link import CarRefused
from calibration.console import console, holder, session
from calibration.deepracer_driver import AUTONOMOUS, MANUAL, DeepRacerDriver
from calibration.errors import HotlapError
from calibration.uploads import MAX_UPLOAD_BYTES

MAX_LOG_LINES = 1000
CHANGE = ("PUT", "POST")
CHANGING_GETS = ("deepracer.set_calibration_mode",)  # the original has this one as a GET; it must bring its token too
DRIVER = "hotlap-deepracer"

deepracer = Blueprint("deepracer", __name__)
_FORM_BYTES = 64 * 1024  # of a multipart form beside the file


def _driver() -> DeepRacerDriver:
    return cast(DeepRacerDriver, current_app.extensions[DRIVER])


def success(**values: Any) -> Response:
    """{"success": true, ...}."""
    return _json({"success": True, **values})


def failure(reason: str) -> Response:
    """{"success": false, "reason"}."""
    return _json({"success": False, "reason": reason})


def _json(value: dict[str, Any] | list[Any]) -> Response:
    compact = json.dumps(value, allow_nan=False, separators=(",", ":"))
    if isinstance(value, dict) and value.get("success") is True:
        compact = compact[:-1] + ',"compat_success": true}'
    return Response(compact + "\n", mimetype="application/json")


def said(error: HotlapError) -> Response:
    """A refusal of the car as the original would say it. Who may not ask at all still gets a status that says so."""
    if isinstance(error, CarRefused) and error.reason in ("unauthenticated", "csrf", "length_required"):
        return error_reply(error)
    reason = error.what + (f" ({error.next_step})" if error.next_step else "")
    blocked = getattr(error, "blocked", None)
    if blocked:
        reason += ": " + "; ".join(f"{one['reason']}: {one['value']}, {one['cure']}" for one in blocked)
    return failure(reason)


deepracer.register_error_handler(HotlapError, said)


# --- driving


@deepracer.route("/api/drive_mode", methods=CHANGE)
def drive_mode() -> Response:
    """{"drive_mode": "manual", or anything else for autonomous}."""
    values = body(open_ended=True)
    if not values.get("drive_mode"):
        return failure("drive_mode must be set.")
    _driver().select(session().key, MANUAL if values["drive_mode"] == "manual" else AUTONOMOUS)
    return success()


@deepracer.route("/api/start_stop", methods=CHANGE)
def start_stop() -> Response:
    """{"start_stop": "start"|"stop"}. The original takes any other word for start; here it is refused."""
    wanted = body(open_ended=True).get("start_stop")
    if not wanted:
        return failure("start_stop must be set.")
    if wanted == "stop":
        _driver().stop(session().key)
    elif wanted == "start":
        _driver().start(session().key, holder())
    else:
        return failure("start_stop must be start or stop.")
    return success()


@deepracer.route("/api/manual_drive", methods=CHANGE)
def manual_drive() -> Response:
    """{"angle", "throttle": -1..1, "max_speed": 0..1}. Without max_speed: 0.3, for a client that sends none."""
    values = body(open_ended=True)
    for key in ("angle", "throttle"):
        if values.get(key) is None:
            return failure(f"{key} is required")
        try:
            number(values, key, -1.0, 1.0)
        except CarRefused:
            return failure(f"{key} out of range")
    max_speed = units.DEFAULT_MAX_SPEED
    if values.get("max_speed") is not None:
        try:
            max_speed = number(values, "max_speed", 0.0, 1.0)
        except CarRefused:
            return failure("max_speed out of range")
    _driver().drive(
        session().key,
        holder(),
        *units.manual_command(float(values["angle"]), float(values["throttle"]), max_speed),
    )
    return success()


@deepracer.route("/api/max_nav_throttle", methods=CHANGE)
def max_nav_throttle() -> Response:
    """{"throttle": 0..100}: the speed cap, in percent."""
    values = body(open_ended=True)
    if values.get("throttle") is None:
        return failure("value must be set.")
    percent = units.steps_of(values["throttle"], "throttle")
    console().link.ask({"op": "cap", "percent": percent})
    return success()


@deepracer.get("/api/control_modes_available")
def control_modes_available() -> Response:
    """All three, always."""
    return success(control_modes_available=["manual", "autonomous", "calibration"])


@deepracer.post("/api/emergency_stop")
def emergency_stop() -> Response:
    """Neutral until somebody ends the stop on the page."""
    console().link.ask({"op": "stop"})
    return success()


# --- calibration


@deepracer.get("/api/set_calibration_mode")
def set_calibration_mode() -> Response:
    """Choose calibration and start it."""
    _driver().calibrate(session().key, holder())
    return success()


@deepracer.get("/api/get_calibration/<any(angle, throttle):channel>")
def get_calibration(channel: str) -> Response:
    """mid, min, max, polarity of the calibration in force, in any mode."""
    calibration = console().link.calibration()
    if calibration is None:
        return failure("this car has no calibration yet (calibrate it)")
    return success(**units.calibration_steps(calibration, channel))


@deepracer.route("/api/set_calibration/<any(angle, throttle):channel>", methods=CHANGE)
def set_calibration(channel: str) -> Response:
    """{"mid", "min", "max", "polarity"}: checked, saved, in force; a calibration that was started ends."""
    link = console().link
    wanted = units.with_steps(link.calibration(), channel, body(open_ended=True))
    _driver().leave_calibration(session().key)
    link.save_calibration(wanted)
    return success()


@deepracer.route("/api/adjust_calibrating_wheels/<any(angle, throttle):channel>", methods=CHANGE)
def adjust_calibrating_wheels(channel: str) -> Response:
    """{"pwm"}: wheels and motor go there for as long as it is repeated; the motor in bounded steps."""
    values = body(open_ended=True)
    if values.get("pwm") is None:
        return failure("value must be set.")
    pulse_us = units.pulse_us(channel, units.steps_of(values["pwm"], "pwm"))
    move = _driver().adjust_steering if channel == "angle" else _driver().adjust_throttle
    move(session().key, holder(), pulse_us)
    return success()


# --- models


def _by_name() -> dict[str, dict[str, Any]]:
    """Name -> model; of two with one name, the older ones have some of their hash behind it."""
    found: dict[str, dict[str, Any]] = {}
    for model in console().link.models()["models"]:
        name = str(model["name"])
        found[name if name not in found else f"{name}-{model['sha256'][:8]}"] = model
    return found


def _find(name: str) -> dict[str, Any]:
    known = _by_name()
    model = known.get(plain_name(name))
    if model is None:
        raise CarRefused("unknown_sha", f"there is no model {name[:64]!r} here", next_step="upload it")
    return model


def plain_name(name: str) -> str:
    """A model's name from that of its file: letters, digits, ``. _ -``; no folders, no ``.tar.gz``."""
    stem = Path(name.replace("\\", "/")).name
    for suffix in (".tar.gz", ".tgz", ".gz"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:64] or "model"


def _actions(model: dict[str, Any]) -> str:
    action = (model.get("contract") or {}).get("action") or {}
    return "Continuous" if action.get("kind") == "continuous" else "Discrete"


@deepracer.get("/api/models")
def models() -> Response:
    """The models that can be loaded."""
    rows = [
        {
            "model_name": "model", "model_folder_name": name, "model_training_algorithm": "PPO",
            "model_action_space_type": _actions(model), "model_sensors": ["FRONT_FACING_CAMERA"],
            "is_select_disabled": bool(model.get("barred")),
        }
        for name, model in _by_name().items()
    ]  # fmt: skip
    return _json({"models": rows, "sensor_status": _sensors()})


@deepracer.route("/api/models/<folder>/<model>", methods=CHANGE)
def load_model(folder: str, model: str) -> Response:
    """Drive with this model from now on; answered when the pilot has it."""
    done = console().link.activate(str(_find(folder)["sha256"]))
    if not done.get("loaded"):
        return failure(f"the model is chosen, but not loaded: {done.get('pilot')}")
    return success()


@deepracer.get("/api/isModelLoading")
def is_model_loading() -> Response:
    """Loading is over when its request is answered."""
    return success(isModelLoading="loaded")


@deepracer.get("/api/uploaded_model_list")
def uploaded_model_list() -> Response:
    """A bare list, as on the original."""
    return _json(
        [
            {
                "name": name, "size": f"{max(1, round(model['size_bytes'] / 2**20))}M", "creation_time": "",
                "status": "Ready", "training_algorithm": "PPO", "action_space_type": _actions(model),
                "sensors": ["FRONT_FACING_CAMERA"],
            }
            for name, model in _by_name().items()
        ]
    )  # fmt: skip


@deepracer.route("/api/uploadModels", methods=CHANGE)
def upload_models() -> Response:
    """A multipart form with ``file``: verified by the car before it answers, and never unpacked."""
    request.max_content_length = MAX_UPLOAD_BYTES + _FORM_BYTES
    sent = request.files.get("file")
    if sent is None or not sent.filename:
        return failure("No file was sent.")
    if not sent.filename.endswith(".tar.gz"):
        return failure("The name of the file must end in .tar.gz.")
    name = plain_name(sent.filename)
    sent.stream.flush()  # it is on the car's disk already (`calibration.uploads.Uploads.spool`)
    console().link.install(Path(sent.stream.name), name)
    return success(message=f"{name} is installed.")


@deepracer.route("/api/deleteModels", methods=CHANGE)
def delete_models() -> Response:
    """{"filenames": [...]}."""
    names = body(open_ended=True).get("filenames")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return failure("filenames must be set.")
    for sha256 in [str(_find(name)["sha256"]) for name in names]:
        console().link.remove(sha256)
    return success(message="Deleted.")


@deepracer.get("/api/is_model_installed")
def is_model_installed() -> Response:
    """?filename="""
    name = plain_name(request.args.get("filename", ""))
    if name in _by_name():
        return success(message="installed")
    return _json({"success": False, "message": "not installed"})


# --- the car


def _sensors() -> dict[str, str]:
    age_s = console().link.state().get("frame_age_s")
    seen = isinstance(age_s, (int, float)) and age_s < 1.0
    camera = "connected" if seen else "not_connected"
    return {"camera_status": camera, "stereo_status": "not_connected", "lidar_status": "not_connected"}


@deepracer.get("/api/get_sensor_status")
def get_sensor_status() -> Response:
    """The camera is connected where its pictures come."""
    return success(**_sensors())


@deepracer.get("/api/get_battery_level")
def get_battery_level() -> Response:
    """0 to 10, or -1 where this car does not measure it."""
    return success(battery_level=units.battery_level(console().link.state().get("battery_fraction")))


@deepracer.get("/api/get_device_info")
def get_device_info() -> Response:
    """Versions."""
    facts = console().link.facts()
    return success(hardware_version="hotlap", software_version=str(facts.get("version", "")))


@deepracer.get("/api/get_device_status")
def get_device_status() -> Response:
    """Figures, as the community's software has them."""
    health = console().link.health()
    state = console().link.state()
    inference = state.get("inference_ms")
    figures = inference if isinstance(inference, dict) else {}
    return success(
        cpu_temp=health.get("temperature_c"), free_disk=health.get("disk_free_bytes"), load=health.get("load"),
        latency_mean=figures.get("p50"), latency_p95=figures.get("p99"),
        fps_mean=(state.get("pilot") or {}).get("fps"),
    )  # fmt: skip


@deepracer.get("/api/is_usb_connected")
def is_usb_connected() -> Response:
    """This car has no USB network of its own."""
    return success(is_usb_connected=False)


@deepracer.get("/api/get_network_details")
def get_network_details() -> Response:
    """Wi-Fi name and address."""
    facts = console().link.facts()
    addresses = facts.get("addresses") or []
    ip_address = str(addresses[0]) if addresses else ""
    return success(is_usb_connected=False, SSID=facts.get("ssid") or "", ip_address=ip_address)


@deepracer.get("/api/logs/<log_type>/<int:lines>")
def logs(log_type: str, lines: int) -> Response:
    """The last lines of the car's one log, whatever the type."""
    return success(data="\n".join(console().link.logs(min(max(lines, 1), MAX_LOG_LINES))))


@deepracer.get("/api/server_ready")
def server_ready() -> Response:
    """It is."""
    return success(status=True)


@deepracer.get("/api/supported_apis")
def supported_apis() -> Response:
    """Every path here."""
    rules = current_app.url_map.iter_rules()
    return success(apis_supported=sorted({rule.rule for rule in rules if rule.endpoint.startswith("deepracer.")}))


@deepracer.route("/api/password", methods=CHANGE)
def password() -> Response:
    """{"old_password", "new_password"}."""
    values = body(open_ended=True)
    old, new = text(values, "old_password"), text(values, "new_password")
    try:
        set_password(old, new)
    except CarRefused:
        raise
    except HotlapError as error:
        if getattr(error, "reason", "") == "wrong_password":
            return failure("The password is incorrect. Provide your current password.")
        raise
    return success()
