"""The calibration part of /api/v1: look, draw, save, undo, and the original car's file in and out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from flask import Blueprint, Response, request

from calibration.api_json import body, number, parse, reply
from calibration.car_link import CarRefused
from calibration.console import console
from calibration.curves import speed_curve, steering_curve
from calibration.deepracer import from_deepracer, to_deepracer
from calibration.document import FORMAT, VERSION, from_text
from calibration.errors import CalibrationError
from calibration.store import SavedCalibration
from calibration.values import Calibration

SAMPLES = 61
_WHERE = "the calibration"

calibration_api = Blueprint("calibration_api", __name__, url_prefix="/api/v1/calibration")


def as_object(calibration: Calibration | None) -> dict[str, Any] | None:
    """For JSON."""
    return None if calibration is None else dataclasses.asdict(calibration)


def from_object(value: object) -> Calibration:
    """A checked calibration from ``{"steering": {...}, "throttle": {...}}``.

    Raises:
        CalibrationError: unknown or missing keys, wrong types, or it does not hold together.
    """
    if not isinstance(value, dict):
        raise CalibrationError(f"{_WHERE} must be an object with steering and throttle")
    head = {"format": FORMAT, "version": VERSION, "revision": 1, "previous": None}
    document = from_text(json.dumps({**value, **head}).encode(), where=_WHERE)
    return document.calibration


@calibration_api.get("")
def show() -> Response:
    """The one in force, and those before it."""
    return _shown()


@calibration_api.put("")
def save() -> Response:
    """Check, save, and have the gate take it; refused while armed."""
    console().link.save_calibration(_given())
    return _shown()


@calibration_api.post("/undo")
def undo() -> Response:
    """One step back."""
    body()
    console().link.undo_calibration()
    return _shown()


@calibration_api.post("/restore")
def restore() -> Response:
    """{"revision"}: one of the history."""
    revision = number(body("revision"), "revision", 1, 10**9)
    console().link.restore_calibration(int(revision))
    return _shown()


@calibration_api.get("/deepracer")
def export() -> Response:
    """The original car's calibration.json."""
    calibration = console().link.calibration()
    if calibration is None:
        raise CarRefused("not_found", "this car has no calibration yet", next_step="calibrate it")
    answer = Response(to_deepracer(calibration), mimetype="application/json")
    answer.headers["Content-Disposition"] = 'attachment; filename="calibration.json"'
    return answer


@calibration_api.post("/deepracer")
def read_original() -> Response:
    """The original car's file in; the calibration it means out. Nothing is saved."""
    return reply({"calibration": as_object(from_deepracer(request.get_data(cache=True)))})


@calibration_api.post("/curve")
def curve() -> Response:
    """A calibration in (and "model_max_mps"); the pulses that it makes out, for drawing."""
    values = body(open_ended=True)
    max_mps = number(values, "model_max_mps", 0.01, 20.0) if "model_max_mps" in values else 1.0
    calibration = _calibration_in({key: value for key, value in values.items() if key != "model_max_mps"})
    return reply(
        {
            "steering": steering_curve(calibration, SAMPLES),
            "speed": speed_curve(calibration, max_mps, SAMPLES),
            "measured": bool(calibration.throttle.curve),
        }
    )


def _given() -> Calibration:
    return _calibration_in(parse(request.get_data(cache=True)))


def _calibration_in(value: object) -> Calibration:
    """As an answer of this API has it, or only what is under "calibration" there."""
    if isinstance(value, dict) and "calibration" in value:
        value = value["calibration"]
    return from_object(value)


def _shown() -> Response:
    link = console().link
    return reply(
        {"calibration": as_object(link.calibration()), "history": [_saved(one) for one in link.calibration_history()]}
    )


def _saved(saved: SavedCalibration) -> dict[str, Any]:
    return {**dataclasses.asdict(saved), "calibration": as_object(saved.calibration)}
