"""MJPEG: whole pictures, the newest one, for a bounded number of viewers."""

from __future__ import annotations

import re
import threading
import time

import cv2
import numpy as np
import pytest
from flask import Flask

from calibration import video
from calibration.car_link import CarRefused
from calibration.console import MAX_VIEWERS
from calibration.video import BOUNDARY, Slots, Video, no_picture, size_of
from tests.calibration.console_rig import Browser, FakeCar, reason, shared

PART = re.compile(
    rb"--" + BOUNDARY.encode() + rb"\r\nContent-Type: image/jpeg\r\nContent-Length: (\d+)\r\n\r\n(.*)\r\n", re.DOTALL
)


def picture(part: bytes) -> np.ndarray:
    """The gray picture of one part."""
    match = PART.fullmatch(part)
    assert match is not None, part[:100]
    assert int(match[1]) == len(match[2])
    assert match[2].startswith(b"\xff\xd8") and match[2].endswith(b"\xff\xd9")
    found = cv2.imdecode(np.frombuffer(match[2], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert found is not None
    return found


def test_the_route_gives_each_new_picture(browser: Browser, car: FakeCar, app: Flask) -> None:
    car.show(1, 100)
    answer = browser.get("/route?topic=/camera_pkg/display_mjpeg&width=480&height=360")
    assert answer.headers["Content-Type"] == f"multipart/x-mixed-replace;boundary={BOUNDARY}"
    parts = iter(answer.response)
    first = picture(next(parts))  # type: ignore[arg-type]
    assert first.shape == (360, 480) and abs(int(first[180, 240]) - 100) <= 2
    car.show(2, 200)
    car.show(3, 50)  # the one between was missed
    assert abs(int(picture(next(parts))[180, 240]) - 50) <= 2  # type: ignore[arg-type]
    assert shared(app).video._slots.taken == 1
    answer.close()
    assert shared(app).video._slots.taken == 0


def test_without_pictures_it_says_so(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_WAIT_S", 0.01)
    answer = browser.get("/route")
    seen = picture(next(iter(answer.response)))  # type: ignore[arg-type]
    assert seen.shape == (360, 480) and seen.max() > 150 and np.median(seen) < 60
    answer.close()


def test_one_viewer_too_many_is_refused_and_a_place_comes_back(browser: Browser, car: FakeCar) -> None:
    car.show(1)
    opened = [browser.get("/route") for _ in range(MAX_VIEWERS)]
    answer = browser.get("/route")
    assert (answer.status_code, reason(answer)) == (503, "too_many_viewers")
    next(iter(opened[0].response))
    for one in opened:  # most were never read from
        one.close()
    assert browser.ask("HEAD", "/route").status_code == 200
    for _ in range(MAX_VIEWERS):
        browser.get("/route").close()


def test_it_ends_with_the_session_and_with_the_console(browser: Browser, car: FakeCar, app: Flask) -> None:
    car.show(1)
    parts = iter(browser.get("/route").response)
    next(parts)
    browser.get("/logout")
    car.show(2)
    with pytest.raises(StopIteration):
        next(parts)
    alive = Video(car, Slots(1, "x", "x"), stopping := threading.Event()).stream(160, 120, lambda: True)
    next(alive)
    stopping.set()
    assert list(alive) == []


def test_a_picture_is_encoded_once_for_all_viewers(car: FakeCar, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = video.encode
    monkeypatch.setattr(video, "encode", lambda *args: (encoded.append(1), encode(*args))[1])
    shown = Video(car, Slots(9, "x", "x"), threading.Event())
    streams = [shown.stream(160, 120, lambda: True) for _ in range(5)]
    for seq in range(1, 4):
        car.show(seq, 10 * seq)
        assert len({next(stream) for stream in streams}) == 1
    assert len(encoded) == 3
    assert len(next(shown.stream(320, 240, lambda: True))) > 0
    assert len(encoded) == 4


def test_a_viewer_that_does_not_read_holds_up_nobody(car: FakeCar) -> None:
    shown = Video(car, Slots(9, "x", "x"), threading.Event())
    slow, quick = (shown.stream(160, 120, lambda: True) for _ in range(2))
    car.show(1)
    next(slow)
    begun_s = time.monotonic()
    for seq in range(2, 200):
        car.show(seq)
        next(quick)
    assert time.monotonic() - begun_s < 5.0
    car.show(200, 77)
    assert abs(int(picture(next(slow))[60, 80]) - 77) <= 2  # the newest, none of those it has missed


@pytest.mark.parametrize(
    ("width", "height", "size"),
    ((None, None, (480, 360)), ("1920", "1080", (640, 480)), ("480", "360", (480, 360)), ("160", "120", (160, 120)),
     ("x", "", (480, 360)), ("-5", "-5", (32, 24)), ("9" * 50, "1e9", (480, 360)), ("640", "32", (42, 31))),
)  # fmt: skip
def test_any_size_may_be_asked_for(width: str | None, height: str | None, size: tuple[int, int]) -> None:
    assert size_of(width, height) == size
    assert len(no_picture(*size)) > 100


def test_slots_are_given_back_once() -> None:
    slots = Slots(1, "full", "there")
    give_back = slots.take()
    with pytest.raises(CarRefused):
        slots.take()
    give_back()
    give_back()
    assert slots.taken == 0
    slots.take()
    with pytest.raises(CarRefused):
        slots.take()
