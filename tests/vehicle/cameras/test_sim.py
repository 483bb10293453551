"""The simulated camera takes the newest picture of the world's socket, and refuses what is none."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from vehicle.cameras.faults import CameraFault
from vehicle.cameras.sim import SimCamera, open_sim
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame


class World:
    """Publishes pictures as `sim.world_process` does, and things that are none."""

    def __init__(self, runtime: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{runtime}/world.frames")

    def wait_subscriber(self) -> None:
        assert self._socket.poll(3000), "nobody subscribed"
        self._socket.recv()

    def publish(self, seq: int, **changes: Any) -> None:
        gray = np.full((12, 16), seq % 256, np.uint8)
        header = {"seq": seq, "stamp_s": time.monotonic(), "height": 12, "width": 16, **changes}
        self._socket.send_multipart([json.dumps(header).encode(), gray.tobytes()])

    def publish_raw(self, *parts: bytes) -> None:
        self._socket.send_multipart(list(parts))

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def runtime() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def world(runtime: Path) -> Iterator[World]:
    world = World(runtime)
    yield world
    world.close()


@pytest.fixture
def camera(runtime: Path, world: World) -> Iterator[SimCamera]:
    camera = open_sim(CameraConfig(), runtime)
    world.wait_subscriber()
    yield camera
    camera.close()
    camera.close()


def test_a_picture_comes_as_it_was_sent(camera: SimCamera, world: World) -> None:
    world.publish(7, stamp_s=12.5)
    frame = camera.read(1.0)
    assert (frame.seq, frame.stamp_s, frame.pixels.shape, frame.pixels.dtype) == (7, 12.5, (12, 16), np.uint8)
    assert (frame.pixels == 7).all() and not frame.pixels.flags.writeable


def test_of_several_the_newest(camera: SimCamera, world: World) -> None:
    for seq in range(2):
        world.publish(seq)
    time.sleep(0.1)
    assert camera.read(1.0).seq == 1
    with pytest.raises(StaleFrame):
        camera.read(0.05)


def test_without_a_world_it_is_stale_in_time_and_finds_it_later(runtime: Path) -> None:
    camera = open_sim(CameraConfig(), runtime)
    begun_s = time.monotonic()
    with pytest.raises(StaleFrame, match="simulated car"):
        camera.read(0.1)
    assert 0.09 < time.monotonic() - begun_s < 0.5
    world = World(runtime)
    world.wait_subscriber()
    world.publish(3)
    assert camera.read(1.0).seq == 3
    world.close()
    camera.close()


GOOD = {"seq": 1, "stamp_s": 1.0, "height": 12, "width": 16}


@pytest.mark.parametrize(
    "parts",
    [
        (b"{}",),
        (b"{}", b""),
        (b"not json", bytes(192)),
        (b"\xff\xfe", bytes(192)),
        (json.dumps([1]).encode(), bytes(192)),
        (json.dumps(GOOD).encode(), bytes(191)),
        (json.dumps(GOOD).encode(), bytes(192), b"more"),
        (json.dumps({**GOOD, "more": 1}).encode(), bytes(192)),
        (json.dumps({**GOOD, "height": -12, "width": -16}).encode(), bytes(192)),
        (json.dumps({**GOOD, "height": 0}).encode(), b""),
        (json.dumps({**GOOD, "height": 12.0}).encode(), bytes(192)),
        (json.dumps({**GOOD, "seq": True}).encode(), bytes(192)),
        (json.dumps({**GOOD, "stamp_s": "now"}).encode(), bytes(192)),
        (json.dumps({**GOOD, "height": 10**9, "width": 10**9}).encode(), bytes(192)),
    ],
)
def test_garbage_is_named_and_the_next_picture_is_read(
    camera: SimCamera, world: World, parts: tuple[bytes, ...]
) -> None:
    world.publish_raw(*parts)
    with pytest.raises(CameraFault) as caught:
        camera.read(1.0)
    assert caught.value.fault == "garbage"
    world.publish(2)
    assert camera.read(1.0).seq == 2


def test_a_path_too_long_for_a_socket_is_explained() -> None:
    with pytest.raises(CameraError, match="cannot be used"):
        SimCamera(Path("/tmp") / ("x" * 120))


def test_a_closed_camera_is_an_error(runtime: Path) -> None:
    camera = open_sim(CameraConfig(), runtime)
    camera.close()
    with pytest.raises(CameraError):
        camera.read(0.1)
