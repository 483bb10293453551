"""The camera ``v4l2``, unmodified, on vivid: the kernel's own camera without hardware, which can misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.guest import devices
from tests.vehicle.gate_process import until
from vehicle.cameras.base import Camera, Frame
from vehicle.cameras.grabber import Grabber
from vehicle.cameras.registry import open_camera
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError
from vehicle.observation import to_observation

WIDTH, HEIGHT, RATE_HZ = 320, 180, 15.0


def config(device: Path) -> CameraConfig:
    return CameraConfig(kind="v4l2", source=str(device), width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ)


@pytest.fixture
def device() -> Iterator[Path]:
    yield devices.load_camera()
    devices.unload_camera()


@pytest.fixture
def camera(device: Path) -> Iterator[Camera]:
    opened = open_camera(config(device), Path("/run"))
    yield opened
    opened.close()


def read(camera: Camera, count: int) -> list[Frame]:
    return [camera.read(1.0) for _ in range(count)]


def check_frames_come_at_the_rate_that_was_asked_for(camera: Camera, facts: dict[str, Any]) -> None:
    frames = read(camera, 30)[5:]
    assert all(frame.pixels.shape == (HEIGHT, WIDTH, 3) for frame in frames)
    assert camera.facts()["width"] == WIDTH and camera.facts()["height"] == HEIGHT
    gaps_s = [after.stamp_s - before.stamp_s for before, after in zip(frames, frames[1:], strict=False)]
    assert all(gap_s > 0 for gap_s in gaps_s)
    assert abs(sum(gaps_s) / len(gaps_s) * RATE_HZ - 1) < 0.2, gaps_s
    facts["vivid"] = f"{WIDTH} x {HEIGHT}, {len(gaps_s) / sum(gaps_s):.1f} frames/s of {RATE_HZ:g}"


def check_stamps_are_the_kernels_and_of_our_clock(camera: Camera) -> None:
    for frame in read(camera, 10):
        assert 0.0 <= time.monotonic() - frame.stamp_s < 1.0


def check_pictures_have_what_the_camera_shows(camera: Camera) -> None:
    first, *_, last = (to_observation(frame.pixels) for frame in read(camera, 20))
    assert first.shape == (120, 160, 1) and first.std() > 20  # colour bars
    assert (first != last).any()  # and a clock


def check_a_stalled_camera_is_stale_and_then_an_error(device: Path) -> None:
    grabber = Grabber(lambda: open_camera(config(device), Path("/run")))
    try:
        assert until(lambda: fresh(grabber), 60.0)
        devices.set_control(device, "Percentage of Dropped Buffers", 100)
        assert until(lambda: not fresh(grabber), 60.0)
        with pytest.raises(CameraError):
            grabber.newest(0.15, time.monotonic())
        devices.set_control(device, "Percentage of Dropped Buffers", 0)
        # OpenCV gives up after ten seconds: by then the pictures are back, or the pilot opens the camera again.
        assert until(lambda: fresh(grabber) or grabber.dead, 60.0)
    finally:
        assert grabber.close()


def fresh(grabber: Grabber) -> bool:
    try:
        grabber.newest(0.5, time.monotonic())
    except CameraError:
        return False
    return True


def check_a_camera_that_was_pulled_is_an_error_and_is_found_again(device: Path) -> None:
    camera = open_camera(config(device), Path("/run"))
    try:
        read(camera, 5)
        devices.set_control(device, "Disconnect", 1)
        with pytest.raises(CameraError, match="no more pictures") as caught:
            read(camera, 20)
        assert "dmesg" in caught.value.next_step
    finally:
        camera.close()
    devices.unload_camera()
    with pytest.raises(CameraError, match="there is no camera"):
        open_camera(config(device), Path("/run"))
    back = open_camera(config(devices.load_camera()), Path("/run"))
    try:
        assert len(read(back, 5)) == 5
    finally:
        back.close()


def check_a_second_program_is_refused_and_the_first_goes_on(device: Path, camera: Camera) -> None:
    read(camera, 3)
    with pytest.raises(CameraError):
        second = open_camera(config(device), Path("/run"))
        try:
            read(second, 3)
        finally:
            second.close()
    assert len(read(camera, 3)) == 3


def check_udev_gives_the_camera_to_the_group_video(device: Path) -> None:
    assert device.group() == "video" and device.stat().st_mode & 0o777 == 0o660
