"""/api/v1/camera: pictures of a board, what they say, saving, and the files to take away."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tomllib
from flask import Flask

from calibration.api_camera import MAX_PICTURES
from calibration.camera import Board, CameraPose
from calibration.car_link import CarRefused
from tests.calibration.board_picture import USUAL, board_picture
from tests.calibration.console_rig import Browser, FakeCar, reason

PATH = "/api/v1/camera"


def near(found: dict[str, float], pose: CameraPose = USUAL) -> bool:
    return (
        abs(found["horizontal_fov_deg"] - pose.horizontal_fov_deg) < 0.5
        and abs(found["pitch_down_deg"] - pose.pitch_down_deg) < 0.25
        and abs(found["roll_deg"] - pose.roll_deg) < 0.25
        and abs(found["height_m"] - pose.height_m) < 0.0015
    )


def test_from_the_first_picture_to_the_file_for_training(browser: Browser, car: FakeCar) -> None:
    first = browser.get(PATH).json
    assert first is not None
    assert first["saved"] is first["result"] is first["problem"] is None and first["pictures"] == []
    assert first["board"] == {"columns": 9, "rows": 6, "square_mm": 25.0}
    assert reason(browser.get(f"{PATH}/car.toml")) == "not_found"
    assert reason(browser.put(PATH)) == "no_board"

    for yaw_deg in (0.0, 20.0):
        car.whole = board_picture(yaw_deg=yaw_deg, seed=int(yaw_deg))
        taken = browser.post(f"{PATH}/pictures")
        assert taken.status_code == 200, taken.json
    found = taken.json
    assert found is not None and found["taken"] == 2
    assert found["pictures"] == [{"id": 1, "width": 640, "height": 480}, {"id": 2, "width": 640, "height": 480}]
    assert near(found["result"]["pose"]) and found["result"]["warnings"] == []
    assert found["result"]["errors"]["horizontal_fov_deg"] < 0.2
    assert found["saved"] is None and car.camera is None  # not before somebody says so

    shown = browser.get(f"{PATH}/pictures/2")
    picture = cv2.imdecode(np.frombuffer(shown.data, np.uint8), cv2.IMREAD_COLOR)
    assert shown.mimetype == "image/jpeg" and picture is not None and picture.shape == (360, 480, 3)
    assert np.ptp(picture.astype(int), axis=2).max() > 100  # the corners are drawn in colours

    saved = browser.put(PATH)
    assert saved.json is not None and near(saved.json["saved"])
    file = browser.get(f"{PATH}/car.toml")
    assert 'filename="car-camera.toml"' in file.headers["Content-Disposition"]
    camera = tomllib.loads(file.text)["camera"]
    assert near(camera) and set(camera) == {"horizontal_fov_deg", "pitch_down_deg", "height_m", "roll_deg"}


def test_a_picture_can_be_thrown_away_and_all_of_them(browser: Browser, car: FakeCar) -> None:
    car.whole = board_picture()
    for _ in range(2):
        browser.post(f"{PATH}/pictures")
    left = browser.ask("DELETE", f"{PATH}/pictures/1").json
    assert left is not None and [one["id"] for one in left["pictures"]] == [2]
    assert reason(browser.ask("DELETE", f"{PATH}/pictures/1")) == "not_found"
    none = browser.ask("DELETE", f"{PATH}/pictures").json
    assert none is not None and none["pictures"] == [] and none["result"] is None


def test_another_board_begins_anew(browser: Browser, car: FakeCar) -> None:
    car.whole = board_picture()
    browser.post(f"{PATH}/pictures")
    other = Board(6, 4, 35.0)
    car.whole = board_picture(board=other)
    found = browser.post(f"{PATH}/pictures", {"columns": 6, "rows": 4, "square_mm": 35.0}).json
    assert found is not None and len(found["pictures"]) == 1 and near(found["result"]["pose"])
    assert found["board"] == {"columns": 6, "rows": 4, "square_mm": 35.0}


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (np.full((480, 640), 90, np.uint8), "dark"),
        (board_picture(left_m=0.2), "part_of_board"),
        (board_picture(width=640, height=360), "not_4_to_3"),
        (np.random.default_rng(1).integers(0, 255, (480, 640), dtype=np.uint8), "no_board"),
        (cv2.GaussianBlur(board_picture(seed=None), (0, 0), 12), "blurred"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_picture_that_is_of_no_use_says_why_and_what_to_do(
    browser: Browser, car: FakeCar, picture: np.ndarray, wanted: str
) -> None:
    car.whole = picture
    answer = browser.post(f"{PATH}/pictures")
    assert answer.status_code == 422 and reason(answer) == wanted, answer.json
    assert answer.json is not None and answer.json["error"]["next"]
    assert browser.get(PATH).json["pictures"] == []  # type: ignore[index]


def test_nothing_is_looked_at_or_saved_while_the_car_is_armed(browser: Browser, car: FakeCar) -> None:
    car.whole = board_picture()
    browser.post(f"{PATH}/pictures")
    car.autonomous_ready()
    assert browser.post("/api/v1/arm").status_code == 200
    assert reason(browser.post(f"{PATH}/pictures")) == "armed"
    assert reason(browser.put(PATH)) == "not_disarmed" and car.camera is None


def test_there_is_an_end_to_pictures(browser: Browser, car: FakeCar) -> None:
    car.whole = board_picture()
    for _ in range(MAX_PICTURES):
        assert browser.post(f"{PATH}/pictures").status_code == 200
    assert reason(browser.post(f"{PATH}/pictures")) == "too_many"


def test_without_a_pilot_the_reason_is_passed_on(
    browser: Browser, car: FakeCar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise CarRefused("no_answer", "the pilot gave no answer")

    monkeypatch.setattr(car, "whole_picture", none)
    answer = browser.post(f"{PATH}/pictures")
    assert answer.status_code == 503 and reason(answer) == "no_answer"


@pytest.mark.parametrize("body", [{"columns": 2}, {"columns": "9"}, {"square_mm": 0}, {"rows": 99}, {"colour": 1}])
def test_a_board_that_cannot_be_is_refused(browser: Browser, body: dict[str, object]) -> None:
    assert browser.post(f"{PATH}/pictures", body).status_code == 400


def test_the_sheet_is_a_pdf_of_a4_and_one_that_does_not_fit_is_refused(browser: Browser) -> None:
    sheet = browser.get(f"{PATH}/board.pdf")
    assert sheet.mimetype == "application/pdf" and sheet.data.startswith(b"%PDF-1.4")
    assert b"MediaBox [0 0 841.890 595.276]" in sheet.data
    assert sheet.data.count(b" re\n") == 35  # black squares of 10 x 7
    assert reason(browser.get(f"{PATH}/board.pdf?columns=20&square_mm=25")) == "bad_board"
    assert browser.get(f"{PATH}/board.pdf?columns=nine").status_code == 400


def test_strangers_get_nothing(app: Flask) -> None:
    stranger = Browser(app)
    for path in ("", "/car.toml", "/board.pdf", "/pictures/1"):
        assert stranger.get(PATH + path).status_code == 401
    assert stranger.post(f"{PATH}/pictures").status_code in (401, 403)
