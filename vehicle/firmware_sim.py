"""``hotlap drive --hardware firmware-sim``: the simulated car behind the microcontroller's compiled firmware.

The gate has its real `bridge` actuator, whose port is the one of `sim.board_process`; the world takes the pulses that
are measured on the firmware's pins.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from firmware_bridge.board import SLOW_SHARE, BoardError, build
from vehicle.car_config import CarConfig
from vehicle.errors import GateError, VehicleError
from vehicle.links import request
from vehicle.supervisor import Supervisor

NAME = "firmware-sim"
_ASK_EVERY_S = 1.0
_SAY_EVERY_S = 10.0


def prepare(config: CarConfig) -> None:
    """Build the firmware and its simulator, for the simulated car only.

    Raises:
        VehicleError: a real car; or a compiler or simavr is missing, and says what to install.
    """
    kinds = config.camera.kind, config.actuator.kind
    if kinds != ("sim", "sim"):
        raise VehicleError(
            f"--hardware {NAME} is for the simulated car: this one has the camera {kinds[0]}, the actuator {kinds[1]}",
            next_step="leave out --config, or --hardware (a microcontroller that is there: docs/bridge.md)",
        )
    try:
        build()
    except BoardError as error:
        raise VehicleError(error.what, cause=error.cause, next_step=error.next_step) from error


def start(parts: Supervisor, config: CarConfig, trace: Path | None) -> CarConfig:
    """Start the board, after the world.

    Args:
        trace: of the gate's pulses; those measured on the pins are recorded beside it, as NAME.pins.csv.

    Returns:
        the car as its gate shall see it.

    Raises:
        VehicleError: it did not start.
    """
    record = ["--record", str(trace.with_suffix(".pins.csv"))] if trace is not None else []
    port = parts.start_board(record)
    return dataclasses.replace(
        config, actuator=dataclasses.replace(config.actuator, kind="bridge", port=str(port), radio=False)
    )


class BoardWatch:
    """Notices a machine on which the firmware does not run in real time."""

    def __init__(self, runtime: Path, now_s: float) -> None:
        self._runtime = runtime
        self._asked_s, self._said_s = now_s, -_SAY_EVERY_S
        self._seen: dict[str, Any] = {"runs_s": 0.0, "stood_still_s": 0.0}

    def look(self, now_s: float) -> str | None:
        """To be called often; asks once a second.

        Returns:
            what to say, at most every ten seconds.
        """
        if now_s - self._asked_s < _ASK_EVERY_S:
            return None
        self._asked_s = now_s
        before = self._seen
        with contextlib.suppress(GateError):  # one that has ended is noticed by the supervisor
            self._seen = request(self._runtime, "board.request", {"op": "status"})
        still_s, runs_s = (self._seen[key] - before[key] for key in ("stood_still_s", "runs_s"))
        if still_s <= SLOW_SHARE * runs_s or now_s - self._said_s < _SAY_EVERY_S:
            return None
        self._said_s = now_s
        return (
            f"the simulated microcontroller stood still for {still_s:.2f} s of {runs_s:.1f} s: "
            "this machine is too busy, and its pins are later than a real board's"
        )


def text(status: dict[str, Any]) -> str:
    """The board's line in the result for people."""
    share = "" if status["cpu_share"] is None else f", {100 * status['cpu_share']:.0f} % of a processor"
    resets = f", {status['watchdog_resets']} watchdog resets" if status["watchdog_resets"] else ""
    return (
        f"firmware in simavr: {status['pulses']} frames measured, stood still {status['stood_still_s']:.3f} s of "
        f"{status['runs_s']:.1f} s, at worst {status['late_ms']:.0f} ms{share}{resets}"
    )
