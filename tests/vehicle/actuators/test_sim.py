"""The simulated car's pulses: what arrives, who sent it, and a world that is not there or does not read."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from vehicle.actuators.sim import GONE_S, SOCKET, SimActuator, open_sim
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

NEUTRAL = (1450.0, 1446.0, "neutral:disarmed")


World = Callable[[], "zmq.Socket[bytes]"]


@pytest.fixture
def world(short_runtime: Path) -> Iterator[World]:
    """Binds the world's end; called again after ``close``, it is a world that was started again."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
    sockets = []

    def bind() -> zmq.Socket[bytes]:
        socket = context.socket(zmq.PULL)
        sockets.append(socket)
        socket.bind(f"ipc://{short_runtime / SOCKET}")
        return socket

    yield bind
    for socket in sockets:
        socket.close(linger=0)
    context.term()


def write_until(actuator: SimActuator, done: Callable[[], bool], pulse: tuple[float, float, str] = NEUTRAL) -> None:
    """Write at the gate's rate until `done`; pulses before the connection stands are dropped."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        with contextlib.suppress(ActuatorError):
            actuator.write(*pulse)
        time.sleep(0.02)
        if done():
            return
    raise AssertionError("not done within 10 s")


def write_until_taken(actuator: SimActuator, socket: zmq.Socket[bytes]) -> dict[str, object]:
    """The first pulse that arrives."""
    write_until(actuator, lambda: socket.poll(0) != 0)
    return dict(json.loads(socket.recv()))


def test_pulses_arrive_with_stamp_and_sender(short_runtime: Path, world: World) -> None:
    socket = world()
    gate = open_sim(ActuatorConfig(), short_runtime, "gate")
    guard = open_sim(ActuatorConfig(), short_runtime, "guard")
    try:
        before_s = time.monotonic()
        pulse = write_until_taken(gate, socket)
        assert pulse.keys() == {"steering_us", "throttle_us", "stamp_s", "from"}
        assert (pulse["steering_us"], pulse["throttle_us"], pulse["from"]) == (1450.0, 1446.0, "gate")
        stamp_s = pulse["stamp_s"]
        assert isinstance(stamp_s, float) and before_s <= stamp_s <= time.monotonic()
        while socket.poll(50):
            socket.recv()
        assert write_until_taken(guard, socket)["from"] == "guard"
        assert gate.facts() == {
            "name": "sim", "fails_safe": False, "shared": True, "address": f"ipc://{short_runtime / SOCKET}",
        }  # fmt: skip
    finally:
        gate.close()
        guard.close()


def test_the_last_pulse_before_closing_arrives(short_runtime: Path, world: World) -> None:
    socket = world()
    actuator = SimActuator(short_runtime, "gate")
    write_until_taken(actuator, socket)
    actuator.write(1500.0, 1446.5, "neutral:stopping")
    actuator.close()
    actuator.close()
    last = {}
    while socket.poll(200):
        last = json.loads(socket.recv())
    assert last["throttle_us"] == 1446.5
    with pytest.raises(ActuatorError, match="closed"):
        actuator.write(*NEUTRAL)


def test_no_world_is_an_error_after_a_moment_and_never_blocks(short_runtime: Path) -> None:
    actuator = SimActuator(short_runtime, "gate")
    try:
        began_s = time.monotonic()
        actuator.write(*NEUTRAL)
        assert time.monotonic() - began_s < GONE_S / 2
        with pytest.raises(ActuatorError, match="world gone") as caught:
            while time.monotonic() - began_s < 5:
                actuator.write(*NEUTRAL)
                time.sleep(0.02)
        assert time.monotonic() - began_s == pytest.approx(GONE_S, abs=0.1)
        assert "hotlap drive" in caught.value.next_step
        with pytest.raises(ActuatorError, match="world gone"):
            actuator.write(*NEUTRAL)
    finally:
        began_s = time.monotonic()
        actuator.close()
    assert time.monotonic() - began_s < 1.0


WORLD = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.bind(sys.argv[1])
while True:
    sys.stdout.buffer.write(socket.recv() + b"\\n")
    sys.stdout.flush()
"""


def test_a_stopped_world_is_noticed_and_found_again(short_runtime: Path) -> None:
    address = f"ipc://{short_runtime / SOCKET}"
    process = subprocess.Popen([sys.executable, "-c", WORLD, address], stdout=subprocess.PIPE)
    actuator = SimActuator(short_runtime, "gate")
    try:
        assert process.stdout is not None
        output = process.stdout.fileno()

        def arrived() -> bytes:
            return os.read(output, 65536) if select.select([output], [], [], 0)[0] else b""

        write_until(actuator, lambda: b"1446.0" in arrived())
        os.kill(process.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        with pytest.raises(ActuatorError, match="world gone"):
            while time.monotonic() - began_s < 10:
                actuator.write(*NEUTRAL)
                time.sleep(0.02)
        assert time.monotonic() - began_s < 1.5  # 0.55 s on an idle machine
        os.kill(process.pid, signal.SIGCONT)
        marked = (1450.0, 1447.5, "neutral:stopped")
        write_until(actuator, lambda: b"1447.5" in arrived(), marked)
    finally:
        process.kill()
        process.communicate()
        actuator.close()


def test_a_world_that_comes_back_is_found(short_runtime: Path, world: World) -> None:
    socket = world()
    actuator = SimActuator(short_runtime, "gate")
    try:
        write_until_taken(actuator, socket)
        socket.close(linger=0)
        with pytest.raises(ActuatorError, match="world gone"):
            for _ in range(100):
                actuator.write(*NEUTRAL)
                time.sleep(0.02)
        socket = world()
        assert write_until_taken(actuator, socket)["throttle_us"] == 1446.0
    finally:
        actuator.close()


def test_a_runtime_folder_with_too_long_a_path(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="cannot be used") as caught:
        SimActuator(tmp_path / ("x" * 120), "gate")
    assert "107 bytes" in caught.value.cause
