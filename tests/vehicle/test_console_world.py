"""What the console is told of the simulated car: fresh reports of the world, and nothing else."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.vehicle.gate_process import until
from vehicle.console_world import OLD_S, ConsoleWorld
from vehicle.links import endpoint

REPORT = {
    "steering_deg": 12.0, "motor_mps": -0.5, "speed_mps": 0.1, "laps": 1, "lap_times_s": [9.5], "off_track": 2,
}  # fmt: skip


class World:
    """Publishes what it is told to."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="hl")  # in /tmp: the path of a socket is short
        self.runtime = Path(self.folder.name)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUB)
        self.socket.bind(endpoint(self.runtime, "world.facts"))
        self.console = ConsoleWorld(self.context, self.runtime, True)

    def say(self, **facts: Any) -> None:
        self.socket.send(json.dumps({**REPORT, "x_m": 1.0, "stamp_s": time.monotonic(), **facts}).encode())

    def until(self, wanted: dict[str, Any] | None, **facts: Any) -> bool:
        def told() -> bool:
            self.say(**facts)
            return self.console.newest() == wanted

        return until(told, 10.0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.console.close()
    made.context.destroy(linger=0)
    made.folder.cleanup()


def test_the_newest_report_and_no_more_of_it_than_is_shown(world: World) -> None:
    assert world.console.newest() is None, "nothing was said yet"
    assert world.until(REPORT)
    assert world.until({**REPORT, "laps": 2}, laps=2)


def test_an_old_report_is_none(world: World) -> None:
    assert world.until(REPORT)
    assert world.until(None, stamp_s=time.monotonic() - OLD_S - 0.1)
    assert world.until(None, stamp_s="now")


def test_a_real_car_has_none_and_after_the_end_neither(world: World) -> None:
    assert ConsoleWorld(world.context, world.runtime, False).newest() is None
    world.console.close()
    assert world.console.newest() is None
