"""car.toml on the Settings page: changed as a text, taken back. GET /api/v1/settings shows it."""

from __future__ import annotations

from flask import Blueprint, Response

from calibration.api_json import MAX_JSON_BYTES, body, reply, text
from calibration.console import console

car_file_api = Blueprint("car_file_api", __name__, url_prefix="/api/v1/settings/car-toml")


@car_file_api.put("")
def change() -> Response:
    """{"text", "sha256" of the text that it was made from}; in force when the car is started again."""
    values = body("text", "sha256")
    console().link.change_car_file(text(values, "text", MAX_JSON_BYTES), text(values, "sha256", 64))
    return reply(console().link.facts())


@car_file_api.post("/undo")
def undo() -> Response:
    """{}: the text before the last change."""
    body()
    console().link.undo_car_file()
    return reply(console().link.facts())
