"""GET /api/v1/saliency: what the car has, or why it has none."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from flask import Flask

from calibration.car_link import CarRefused, Picture, Saliency
from tests.calibration.console_rig import Browser, FakeCar, reason

PATH = "/api/v1/saliency"
GRAY = np.tile(np.linspace(0, 255, 160, dtype=np.uint8), (120, 1))
MAP = Saliency(
    Picture(7, 1.0, 120, 160, GRAY.tobytes(), 15.0, 0.8), 1, 2, (0.25, 0.5), 15.0, 0.8, 1,
    ((0.0, 0.4, 0.25), (15.0, 0.8, 0.75)), 0.1234,
)  # fmt: skip


def test_the_first_map_is_waited_for_by_asking_again(browser: Browser) -> None:
    assert browser.get(PATH).json == {"waiting": True}


def test_a_map_with_its_picture_and_actions(browser: Browser, car: FakeCar) -> None:
    car.map = MAP
    found = browser.get(PATH).json
    assert found is not None
    picture = found.pop("picture")
    assert found == {
        "seq": 7, "rows": 1, "columns": 2, "change": [0.25, 0.5], "action": {"steering_deg": 15.0, "speed_mps": 0.8},
        "chosen": 1, "took_ms": 123.4,
        "actions": [
            {"steering_deg": 0.0, "speed_mps": 0.4, "probability": 0.25},
            {"steering_deg": 15.0, "speed_mps": 0.8, "probability": 0.75},
        ],
    }  # fmt: skip
    head, _, data = picture.partition(",")
    assert head == "data:image/jpeg;base64"
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown is not None and np.abs(shown.astype(int) - GRAY).mean() < 3.0


def test_a_refusal_says_why(browser: Browser, car: FakeCar) -> None:
    car.map = CarRefused("no_model", "the pilot has no model loaded")
    answer = browser.get(PATH)
    assert answer.status_code == 409 and reason(answer) == "no_model"


def test_only_for_who_is_logged_in(app: Flask, car: FakeCar) -> None:
    car.map = MAP
    assert Browser(app).get(PATH).status_code == 401
