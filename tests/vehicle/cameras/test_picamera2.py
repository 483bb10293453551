"""The Pi's camera against a stand-in of picamera2: there is none on a test machine."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vehicle.cameras.picamera2 import open_picamera2
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

CONFIG = CameraConfig(kind="picamera2", width=321, height=240, rate_hz=20.0)


class FakeRequest:
    def __init__(self, camera: FakePicamera2, seq: int) -> None:
        self._camera, self._seq = camera, seq
        camera.unreleased += 1

    def make_array(self, name: str) -> Any:
        assert name == "main"
        return np.full((240, 320, 3), self._seq, np.uint8)

    def get_metadata(self) -> dict[str, int]:
        return {"SensorTimestamp": int(1e9 * (time.monotonic() - 0.04))}

    def release(self) -> None:
        self._camera.unreleased -= 1


class FakeJob:
    def __init__(self, request: FakeRequest) -> None:
        self._request = request

    def get_result(self) -> FakeRequest:
        return self._request


class FakePicamera2:
    """Answers a request when `answer` is called, or at once."""

    missing = False
    at_once = True
    made: list[FakePicamera2] = []

    def __init__(self, number: int) -> None:
        if self.missing:
            raise IndexError("list index out of range")  # what picamera2 raises without a camera
        self.number, self.unreleased, self.seq = number, 0, 0
        self.calls: list[str] = []
        self.camera_properties = {"Model": "imx219"}
        self._waiting: Callable[[FakeJob], None] | None = None
        self.requests = 0
        FakePicamera2.made.append(self)

    def create_video_configuration(self, **settings: Any) -> dict[str, Any]:
        return settings

    def configure(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def start(self) -> None:
        self.calls.append("start")

    def capture_request(self, *, wait: bool, signal_function: Callable[[FakeJob], None]) -> FakeJob:
        assert not wait
        self.requests += 1
        self._waiting = signal_function
        job = FakeJob(FakeRequest(self, self.seq))
        self.seq += 1
        if self.at_once:
            self.answer(job)
        return job

    def answer(self, job: FakeJob | None = None) -> None:
        assert self._waiting is not None
        self._waiting(job)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    module = types.ModuleType("picamera2")
    module.Picamera2 = FakePicamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(FakePicamera2, "made", [])
    return FakePicamera2


def test_pictures_are_blue_green_red_and_stamped_by_the_sensor(library: type[FakePicamera2]) -> None:
    camera = open_picamera2(CONFIG, Path("/"))
    fake = library.made[0]
    assert fake.settings["main"] == {"format": "RGB888", "size": (320, 240)}
    assert fake.settings["controls"] == {"FrameRate": 20.0} and fake.settings["queue"] is False
    frames = [camera.read(1.0) for _ in range(8)]
    assert [frame.seq for frame in frames] == list(range(8))
    assert int(frames[3].pixels[0, 0, 0]) == 3
    assert time.monotonic() - frames[7].stamp_s == pytest.approx(0.04, abs=0.02)
    assert fake.unreleased == 0, "picamera2 has few buffers and stops when none comes back"
    assert camera.facts()["sensor"] == "imx219"
    camera.close()
    camera.close()
    assert fake.calls == ["start", "stop", "close"]


def test_a_sensor_that_hangs_is_stale_in_time_and_its_request_stays(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePicamera2, "at_once", False)
    camera = open_picamera2(CONFIG, Path("/"))
    for _ in range(2):
        begun_s = time.monotonic()
        with pytest.raises(StaleFrame):
            camera.read(0.05)
        assert time.monotonic() - begun_s < 0.3
    fake = library.made[0]
    assert fake.requests == 1, "requests would pile up"
    timer = threading.Timer(0.05, fake.answer)
    timer.start()
    assert camera.read(1.0).seq == 0
    timer.join()
    assert fake.unreleased == 0


def test_a_camera_that_fails_or_is_missing_is_explained(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = open_picamera2(replace(CONFIG, source="1"), Path("/"))
    assert library.made[0].number == 1

    def broken(self: FakeRequest, name: str) -> Any:
        raise RuntimeError("buffer lost")

    monkeypatch.setattr(FakeRequest, "make_array", broken)
    with pytest.raises(CameraError, match="buffer lost"):
        camera.read(1.0)
    assert library.made[0].unreleased == 0
    monkeypatch.setattr(FakePicamera2, "missing", True)
    with pytest.raises(CameraError, match="cannot be started"):
        open_picamera2(CONFIG, Path("/"))
    with pytest.raises(CameraError, match="number of a camera"):
        open_picamera2(replace(CONFIG, source="/dev/video0"), Path("/"))


def test_without_picamera2_the_way_to_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="cannot be imported") as caught:
        open_picamera2(CONFIG, Path("/"))
    assert "apt install python3-picamera2" in caught.value.next_step
