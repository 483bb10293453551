"""`--hardware firmware-sim`: whom it is for, what it starts, and that a machine which does not keep up is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from vehicle import firmware_sim
from vehicle.car_config import ActuatorConfig, CameraConfig, CarConfig
from vehicle.errors import GateError, VehicleError
from vehicle.firmware_sim import BoardWatch

STATUS = {
    "pulses": 1839, "stood_still_s": 0.0312, "runs_s": 39.0, "late_ms": 8.7, "cpu_share": 0.071, "watchdog_resets": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        CarConfig(camera=CameraConfig(kind="v4l2"), actuator=ActuatorConfig(kind="pca9685")),
        CarConfig(camera=CameraConfig(kind="folder")),
        CarConfig(actuator=ActuatorConfig(kind="bridge")),
    ],
)
def test_a_real_car_is_refused(config: CarConfig) -> None:
    with pytest.raises(VehicleError, match="is for the simulated car") as caught:
        firmware_sim.prepare(config)
    assert config.camera.kind in caught.value.what and config.actuator.kind in caught.value.what


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "avr-gcc" else name)
    with pytest.raises(VehicleError, match="needs avr-gcc") as caught:
        firmware_sim.prepare(CarConfig())
    assert caught.value.next_step.startswith("sudo apt-get install")


def test_the_gate_gets_its_bridge_actuator_and_everything_else_stays() -> None:
    class Parts:
        def start_board(self, arguments: list[str]) -> Path:
            self.arguments = arguments
            return Path("/run/car/board.tty")

    parts: Any = Parts()
    before = CarConfig(name="kit", actuator=ActuatorConfig(record="all.csv"))
    after = firmware_sim.start(parts, before, Path("there/pulses.csv"))
    assert parts.arguments == ["--record", "there/pulses.pins.csv"]
    assert after.actuator == ActuatorConfig(kind="bridge", port="/run/car/board.tty", record="all.csv")
    assert after.simulated and (after.name, after.camera) == ("kit", before.camera)
    firmware_sim.start(parts, before, None)
    assert parts.arguments == []


def watch(monkeypatch: pytest.MonkeyPatch, answers: Iterable[tuple[float, float] | None]) -> BoardWatch:
    """A watch from 100 s on; (time that the board runs, time that it stood still) are the answers, None is silence."""
    waiting = list(answers)

    def request(runtime: Path, socket: str, message: dict[str, Any]) -> dict[str, Any]:
        assert (socket, message) == ("board.request", {"op": "status"})
        answer = waiting.pop(0)
        if answer is None:
            raise GateError("no answer")
        return {"runs_s": answer[0], "stood_still_s": answer[1]}

    monkeypatch.setattr(firmware_sim, "request", request)
    return BoardWatch(Path(), 100.0)


def test_a_board_on_time_is_asked_once_a_second_and_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, [(1.0, 0.01), (2.0, 0.02), None])
    assert [seen.look(100.0 + step) for step in (0.1, 1.0, 1.9, 2.0, 3.0)] == [None] * 5


def test_a_board_that_stands_still_is_said_at_most_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, [(float(second), 0.25 * second) for second in range(1, 20)])
    said = {second: text for second in range(1, 20) if (text := seen.look(100.0 + second)) is not None}
    assert list(said) == [1, 11]
    assert "stood still for 0.25 s of 1.0 s" in said[1] and "too busy" in said[1]


def test_one_hiccup_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, [(30.0, 0.0), (31.0, 0.06)])
    assert seen.look(130.0) is None and "0.06 s of 1.0 s" in str(seen.look(131.0))


def test_the_line_for_people() -> None:
    assert firmware_sim.text(STATUS) == (
        "firmware in simavr: 1839 frames measured, stood still 0.031 s of 39.0 s, at worst 9 ms, 7 % of a processor"
    )
    assert firmware_sim.text({**STATUS, "cpu_share": None, "watchdog_resets": 2}).endswith("9 ms, 2 watchdog resets")
