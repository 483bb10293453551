"""What the network looks at, for the Drive page: GET /api/v1/saliency, once a second and only while somebody looks."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from flask import Blueprint, Response

from calibration.api_json import reply
from calibration.car_link import Saliency
from calibration.console import console
from calibration.video import encode

saliency_api = Blueprint("saliency_api", __name__, url_prefix="/api/v1")


@saliency_api.get("/saliency")
def show() -> Response:
    """The newest map with its picture; {"waiting": true} while the first one is being made. Never waits for one."""
    found = console().link.saliency()
    return reply({"waiting": True} if found is None else _as_object(found))


def _as_object(found: Saliency) -> dict[str, Any]:
    picture = found.picture
    gray = np.frombuffer(picture.gray, np.uint8).reshape(picture.height, picture.width)
    jpeg = base64.b64encode(encode(gray, picture.width, picture.height)).decode()
    return {
        "seq": picture.seq,
        # The one that the map is of: the live one is another place by now.
        "picture": f"data:image/jpeg;base64,{jpeg}",
        "rows": found.rows,
        "columns": found.columns,
        "change": found.change,
        "action": {"steering_deg": found.steering_deg, "speed_mps": found.speed_mps},
        "chosen": found.chosen,
        "actions": [
            {"steering_deg": steering_deg, "speed_mps": speed_mps, "probability": probability}
            for steering_deg, speed_mps, probability in found.actions
        ],
        "took_ms": round(1e3 * found.took_s, 1),
    }
