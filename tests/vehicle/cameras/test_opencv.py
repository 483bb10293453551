"""Video files are replayed at their pace; devices that are not there are explained; a live one is read and stamped.

There is no camera on a test machine: the live ones run against a stand-in of `cv2.VideoCapture`.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vehicle.cameras import opencv
from vehicle.cameras.opencv import LiveCamera, VideoCamera, jetson_pipeline, open_csi, open_v4l2, open_video
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

FRAMES = 5


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "five.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15.0, (64, 48))
    assert writer.isOpened()
    for i in range(FRAMES):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    return path


def config(source: object, **changes: Any) -> CameraConfig:
    return replace(CameraConfig(kind="video", source=str(source), rate_hz=100.0), **changes)


def test_a_video_is_shown_in_order_at_the_rate_asked_for_and_begins_again(video: Path) -> None:
    camera = open_video(config(video), video.parent)
    frames = [camera.read(1.0) for _ in range(2 * FRAMES + 1)]
    assert [frame.seq for frame in frames] == list(range(2 * FRAMES + 1))
    grays = [float(frame.pixels.mean()) for frame in frames]
    np.testing.assert_allclose(grays, [40.0 * (i % FRAMES) for i in range(2 * FRAMES + 1)], atol=3.0)
    assert frames[-1].stamp_s - frames[0].stamp_s == pytest.approx(0.1, abs=0.04)
    assert frames[0].pixels.shape == (48, 64, 3) and frames[0].pixels.dtype == np.uint8
    facts = camera.facts()
    assert (facts["width"], facts["height"], facts["rate_hz"]) == (64, 48, 100.0)
    camera.close()
    camera.close()


def test_without_loop_a_video_ends(video: Path) -> None:
    camera = VideoCamera(config(video, loop=False))
    for _ in range(FRAMES):
        camera.read(1.0)
    with pytest.raises(CameraError, match="ended after 5 pictures"):
        camera.read(1.0)
    camera.close()


def test_a_slow_video_is_stale_in_between(video: Path) -> None:
    camera = VideoCamera(config(video, rate_hz=2.0))
    camera.read(1.0)
    with pytest.raises(StaleFrame):
        camera.read(0.02)
    camera.close()


def test_a_file_that_is_not_there_or_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no video file"):
        open_video(config(tmp_path / "none.avi"), tmp_path)
    (tmp_path / "text.avi").write_text("no video at all")
    with pytest.raises(CameraError, match="cannot be opened"):
        open_video(config(tmp_path / "text.avi"), tmp_path)


# --- live ones


class FakeCapture:
    """What `cv2.VideoCapture` is to `LiveCamera`: gives pictures until `left` is used up, then fails."""

    def __init__(self, *arguments: Any, opened: bool = True, left: int = 10, stamp_s: float | None = None) -> None:
        self.arguments, self.opened, self.left, self.stamp_s = arguments, opened, left, stamp_s
        self.settings: dict[int, float] = {}
        self.released = 0

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.opened

    def set(self, setting: int, value: float) -> bool:
        self.settings[setting] = value
        return setting != cv2.CAP_PROP_BUFFERSIZE

    def get(self, setting: int) -> float:
        if setting == cv2.CAP_PROP_POS_MSEC:
            return 1e3 * (time.monotonic() - 0.03) if self.stamp_s is None else 1e3 * self.stamp_s
        return self.settings.get(setting, 0.0)

    def read(self) -> tuple[bool, Any]:
        if self.left < 0:
            raise cv2.error("from C++")
        self.left -= 1
        return (True, np.zeros((48, 64, 3), np.uint8)) if self.left >= 0 else (False, None)

    def getBackendName(self) -> str:  # noqa: N802 - OpenCV's name
        return "FAKE"

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("video0", "video7"):
        (tmp_path / name).touch()
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-id" / "usb-Camera").symlink_to(tmp_path / "video7")
    monkeypatch.setattr(opencv, "_DEVICES", tmp_path)
    return tmp_path


def with_capture(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> list[FakeCapture]:
    made: list[FakeCapture] = []

    def capture(*arguments: Any) -> FakeCapture:
        made.append(FakeCapture(*arguments, **behaviour))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return made


@pytest.mark.parametrize(("source", "number"), [("7", 7), ("0", 0), ("by-id/usb-Camera", 7), ("video0", 0)])
def test_a_device_is_found_by_number_path_and_stable_name(
    devices: Path, monkeypatch: pytest.MonkeyPatch, source: str, number: int
) -> None:
    made = with_capture(monkeypatch)
    given = source if source.isdecimal() else str(devices / source)
    camera = open_v4l2(config(given, width=320, height=240, rate_hz=30.0), devices)
    assert made[0].arguments == (number, cv2.CAP_V4L2)
    assert made[0].settings[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert made[0].settings[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert [camera.facts()[key] for key in ("width", "height", "rate_hz")] == [320, 240, 30.0]
    camera.close()
    assert made[0].released


def test_a_live_camera_uses_the_kernels_stamps(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_capture(monkeypatch)
    camera = open_v4l2(config("0"), devices)
    ages_s = [time.monotonic() - camera.read(1.0).stamp_s for _ in range(8)]
    assert max(ages_s[:4]) < 0.02 and ages_s[7] == pytest.approx(0.03, abs=0.01)


def test_a_live_camera_without_usable_stamps_uses_arrival() -> None:
    for stamps, stamp_s in ((True, 0.0), (True, 1.7e9), (False, None)):
        camera = LiveCamera("x", "y", FakeCapture(stamp_s=stamp_s), kernel_stamps=stamps)  # type: ignore[arg-type]
        frames = [camera.read(1.0) for _ in range(8)]
        assert all(time.monotonic() - frame.stamp_s < 0.02 for frame in frames)
        assert [frame.seq for frame in frames] == list(range(8))


def test_a_device_that_goes_is_an_error(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_capture(monkeypatch, left=1)
    camera = open_v4l2(config("0"), devices)
    camera.read(1.0)
    for _ in range(2):  # the second time OpenCV raises from C++
        with pytest.raises(CameraError, match="no more pictures") as caught:
            camera.read(1.0)
        assert not isinstance(caught.value, StaleFrame)


def test_devices_that_cannot_be_used_are_explained(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CameraError, match="there is no camera") as caught:
        open_v4l2(config("3"), devices)
    assert "video0, video7" in caught.value.cause
    with pytest.raises(CameraError, match="there is no camera"):
        open_v4l2(config(devices / "by-id"), devices)
    with_capture(monkeypatch, opened=False)
    with pytest.raises(CameraError, match="cannot be opened as a camera"):
        open_v4l2(config("0"), devices)
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(CameraError, match="may not be read") as caught:
        open_v4l2(config("0"), devices)
    assert "group video" in caught.value.cause


def test_the_pipeline_of_a_jetson() -> None:
    text = jetson_pipeline(config("", width=640, height=480, rate_hz=29.97))
    assert "width=640,height=480,framerate=2997/100" in text or "framerate=30000/1001" in text
    assert "framerate=15/1 " in jetson_pipeline(config("", rate_hz=15.0))
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")


def test_csi_runs_the_pipeline_given_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_capture(monkeypatch)
    assert open_csi(config("videotestsrc ! appsink"), tmp_path).facts()["source"] == "videotestsrc ! appsink"
    assert made[0].arguments == ("videotestsrc ! appsink", cv2.CAP_GSTREAMER)
    with_capture(monkeypatch, opened=False)
    for built, words in (
        ("  GStreamer:    NO\n", "without GStreamer"),
        ("  GStreamer:    YES (1.2)\n", "does not start"),
    ):
        monkeypatch.setattr(cv2, "getBuildInformation", lambda built=built: built)
        with pytest.raises(CameraError, match=words):
            open_csi(config(""), tmp_path)
