"""The grabber keeps the newest picture only, and whatever is wrong with its camera is an error in the reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import CameraFault
from vehicle.cameras.grabber import Grabber
from vehicle.errors import CameraError, StaleFrame


class ScriptedCamera:
    """Calls `picture(seq)` for each read, 10 ms apart; what that raises, the camera raises."""

    def __init__(self, picture: Callable[[int], Any]) -> None:
        self._picture = picture
        self.reads = 0
        self.closed = threading.Event()
        self.thread = ""

    def read(self, timeout_s: float) -> Frame:
        self.thread = threading.current_thread().name
        time.sleep(0.01)
        seq = self.reads
        self.reads += 1
        return Frame(self._picture(seq), time.monotonic(), seq)

    def facts(self) -> dict[str, Any]:
        return {"name": "scripted"}

    def close(self) -> None:
        self.closed.set()


def noise(seq: int) -> Any:
    return np.random.default_rng(seq).integers(0, 256, (48, 64), dtype=np.uint8)


@contextmanager
def grabbing(picture: Callable[[int], Any]) -> Iterator[tuple[Grabber, ScriptedCamera]]:
    camera = ScriptedCamera(picture)
    grabber = Grabber(lambda: camera)
    try:
        yield grabber, camera
    finally:
        assert grabber.close()
        assert camera.closed.is_set()


def fault_of(grabber: Grabber, timeout_s: float = 2.0) -> CameraFault:
    """The fault that the reader gets, once it gets one."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            grabber.newest(10.0, time.monotonic())
        except CameraFault as fault:
            return fault
        except StaleFrame:
            pass
        assert time.monotonic() < deadline_s, "no fault came"
        time.sleep(0.005)


def test_the_reader_gets_the_newest_and_only_that() -> None:
    with grabbing(noise) as (grabber, camera):
        assert grabber.wait_newer(20, 2.0) is not None
        before = camera.reads
        frame = grabber.newest(1.0, time.monotonic())
        assert frame.seq >= before - 2, "an old one waited in a queue"
        assert grabber.newest(1.0, time.monotonic()).seq >= frame.seq
        assert camera.thread == "hotlap-grabber"
        facts = grabber.facts()
        assert facts["name"] == "scripted" and facts["frames"] >= 20 and facts["faults"] == 0
        assert 30.0 < facts["fps"] <= 100.0


def test_waiting_ends_with_a_newer_picture_or_with_the_time() -> None:
    release = threading.Event()

    def picture(seq: int) -> Any:
        if seq == 1:
            release.wait(2.0)
        return noise(seq)

    with grabbing(picture) as (grabber, _):
        first = grabber.wait_newer(-1, 1.0)
        assert first is not None and first.seq == 0
        begun_s = time.monotonic()
        assert grabber.wait_newer(0, 0.05) is None
        assert 0.04 < time.monotonic() - begun_s < 0.5
        assert grabber.wait_newer(0, -1.0) is None
        release.set()
        newer = grabber.wait_newer(0, 1.0)
        assert newer is not None and newer.seq > 0


def test_before_the_first_picture_there_is_none() -> None:
    release = threading.Event()
    with grabbing(lambda seq: release.wait(2.0) and noise(seq)) as (grabber, _):
        with pytest.raises(StaleFrame, match="no picture yet"):
            grabber.newest(10.0, time.monotonic())
        assert grabber.facts()["fps"] is None
        release.set()


def test_a_camera_that_hangs_in_its_driver_is_stale_in_time_and_does_not_hang_the_reader_or_the_end() -> None:
    release = threading.Event()

    def picture(seq: int) -> Any:
        if seq == 3:
            release.wait(10.0)
        return noise(seq)

    camera = ScriptedCamera(picture)
    grabber = Grabber(lambda: camera)
    assert grabber.wait_newer(1, 1.0) is not None
    time.sleep(0.2)
    begun_s = time.monotonic()
    with pytest.raises(StaleFrame, match="ms old"):
        grabber.newest(0.15, begun_s)
    assert grabber.wait_newer(2, 0.05) is None
    assert not grabber.close(0.1), "stuck, and that is said"
    assert time.monotonic() - begun_s < 0.5
    assert not camera.closed.is_set(), "a device is not closed under a read"
    assert not grabber.dead
    release.set()
    assert grabber.close()
    assert camera.closed.is_set()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CameraError("the cable was pulled", next_step="plug it in"), "cable"),
        (ZeroDivisionError("bug"), "ZeroDivision"),
    ],
)
def test_what_ends_the_thread_is_an_error_in_the_reader(error: Exception, words: str) -> None:
    def picture(seq: int) -> Any:
        if seq == 3:
            raise error
        return noise(seq)

    with grabbing(picture) as (grabber, camera):
        fault = fault_of(grabber)
        assert fault.fault == "camera" and words in fault.what
        assert fault.__cause__ is not None and fault.__cause__.__cause__ is error
        assert camera.closed.wait(1.0) and grabber.dead
        # Again and again, always a new error: one instance would collect a traceback a call.
        assert fault_of(grabber) is not fault
        begun_s = time.monotonic()
        assert grabber.wait_newer(50, 0.05) is None
        assert time.monotonic() - begun_s > 0.04, "a reader of a dead camera would take the whole processor"


def test_a_camera_that_cannot_be_opened_is_an_error_in_the_reader() -> None:
    def nothing() -> ScriptedCamera:
        raise CameraError("no such device")

    grabber = Grabber(nothing)
    assert fault_of(grabber).what == "no such device"
    assert grabber.close()


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (lambda seq: np.zeros((48, 64), np.uint8), "blank"),
        (lambda seq: noise(seq).astype(np.float64), "garbage"),
        (lambda seq: noise(seq)[:40], "garbage"),
        (lambda seq: noise(4), "frozen"),
    ],
)
def test_a_fault_lasts_as_long_as_it_lasts(bad: Callable[[int], Any], name: str) -> None:
    well = threading.Event()

    def picture(seq: int) -> Any:
        return noise(seq) if seq <= 4 or well.is_set() else bad(seq)

    with grabbing(picture) as (grabber, _):
        assert grabber.wait_newer(3, 1.0) is not None
        assert fault_of(grabber).fault == name
        assert grabber.wait_newer(4, 0.1) is None, "bad pictures must not count as newer"
        well.set()
        assert grabber.wait_newer(4, 1.0) is not None
        assert grabber.newest(1.0, time.monotonic()).seq > 4


def test_a_camera_that_says_itself_that_it_is_garbage_is_read_on() -> None:
    def picture(seq: int) -> Any:
        if 2 <= seq < 30:
            raise CameraFault("garbage", "half a picture")
        return noise(seq)

    with grabbing(picture) as (grabber, _):
        assert fault_of(grabber).what == "half a picture"
        assert grabber.wait_newer(29, 2.0) is not None
        assert grabber.newest(1.0, time.monotonic()).seq >= 30


def test_a_camera_that_does_not_wait_is_not_asked_without_a_pause() -> None:
    class Impatient(ScriptedCamera):
        def read(self, timeout_s: float) -> Frame:
            self.reads += 1
            raise StaleFrame("at once")

    camera = Impatient(noise)
    grabber = Grabber(lambda: camera)
    time.sleep(0.2)
    assert grabber.close()
    assert 1 <= camera.reads < 60
