"""PUT /api/v1/settings/car-toml and its undo: passed on to the car, whose refusals come through."""

from __future__ import annotations

from flask import Flask

from tests.calibration.console_rig import Browser, FakeCar, reason

PATH = "/api/v1/settings/car-toml"
GOOD = {"text": 'name = "x"', "sha256": "0" * 64}


def test_a_text_goes_to_the_car_and_is_taken_back(browser: Browser, car: FakeCar) -> None:
    answer = browser.put(PATH, GOOD)
    assert answer.status_code == 200 and answer.json is not None and answer.json["name"] == "hotlap"
    assert car.car_files == [('name = "x"', "0" * 64)]
    assert browser.post(f"{PATH}/undo").status_code == 200
    assert car.car_files == []
    answer = browser.post(f"{PATH}/undo")
    assert answer.status_code == 409 and reason(answer) == "nothing_before"


def test_a_bad_text_is_told_with_its_cure(browser: Browser, car: FakeCar) -> None:
    answer = browser.put(PATH, {**GOOD, "text": "bad = 1"})
    assert answer.status_code == 422 and answer.json is not None
    assert answer.json["error"]["next"] == "the nearest known key is name"
    for body in ({"text": "x"}, {**GOOD, "more": 1}, {**GOOD, "text": 5}, {**GOOD, "sha256": "0" * 65}):
        assert browser.put(PATH, body).status_code == 400
    assert car.car_files == []


def test_only_with_a_session_and_a_token(app: Flask, browser: Browser, car: FakeCar) -> None:
    assert Browser(app).put(PATH, GOOD).status_code == 401
    assert browser.put(PATH, GOOD, csrf=False).status_code == 403
    assert browser.post(f"{PATH}/undo", csrf=False).status_code == 403
    assert car.car_files == []
