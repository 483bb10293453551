"""The gate: the only process that moves the car. ``python -m vehicle.gate --runtime DIR [--config car.toml]``.

A thin shell around `vehicle.gate_core`: every 20 ms it tells the core what it sees and writes the pulses that the core
gives; requests and intents are taken in as they come. However it ends, neutral is written first and held for at least
ten servo frames. Where it cannot do that itself (SIGKILL, SIGSTOP), its guard does (`vehicle.guard`).

Exit status: 0 ended by a signal; 1 something failed; 2 a bad configuration, before anything was written.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from calibration.errors import CalibrationError
from calibration.mapping import Calibration
from calibration.store import load_calibration
from vehicle.actuators.record import Recorder
from vehicle.actuators.registry import open_actuator
from vehicle.car_config import CarConfig, load_car_config
from vehicle.errors import ConfigError, GateError, HotlapError
from vehicle.gate_pulses import Pulses
from vehicle.gate_shell import Gate
from vehicle.guard import say
from vehicle.guard_link import guard_arguments
from vehicle.links import private_dir
from vehicle.notify import notify
from vehicle.parent import end_with_parent
from vehicle.realtime import raise_priority

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """SIGTERM, SIGINT and SIGHUP as a number to look at, and a file descriptor that wakes a poll."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, self._take)

    def fileno(self) -> int:
        """Readable once a signal has come."""
        return self._reader.fileno()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.number = number


def only_gate(runtime: Path) -> int:
    """Take the lock of the runtime folder: two gates on one car would fight over the pulses.

    Returns:
        its file descriptor; the lock ends with the process.

    Raises:
        GateError: another gate runs.
    """
    path = runtime / "gate.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GateError(
            f"{path} cannot be opened: {error.strerror or error}",
            reason="no_lock",
            cause="the folder belongs to another user, or is full",
            next_step=f"ls -ld {runtime}",
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise GateError(
            f"another gate runs in {runtime}", reason="second_gate", next_step="hotlap status, and stop that one"
        ) from None
    return fd


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate; the exit status is at the head of this file."""
    signals = Signals()
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m vehicle.gate", description="The process that moves the car.")
    parser.add_argument("--runtime", type=Path, required=True, help="folder of the sockets")
    parser.add_argument("--config", type=Path, help="car.toml (default: the simulated car)")
    parser.add_argument("--trace", type=Path, help="a CSV file for every pulse, its time and cause")
    args = parser.parse_args(argv)
    try:
        config = load_car_config(args.config)
        runtime = private_dir(args.runtime, create=True, shared=True)
        only_gate(runtime)
        calibration, reason = _calibration(config)
        raise_priority()  # before the actuator, whose threads inherit it
        actuator = open_actuator(config.actuator, runtime, role="gate")
        if args.trace is not None:
            actuator = Recorder(actuator, args.trace)
    except HotlapError as error:
        say(f"hotlap gate: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    pulses = Pulses(actuator, calibration)
    pulses.neutral("neutral:start")  # before anything else: what the device did until now is unknown
    gate: Gate | None = None
    status = 1
    failure: BaseException | None = None
    try:
        gate = Gate(config, runtime, pulses, calibration, reason, guard_arguments(args.config, runtime, args.trace))
        status = gate.run(signals)
    except BaseException as error:  # noqa: BLE001 - the outermost frame: whatever it was, neutral first, then words
        failure = error
    pulses.hold_neutral(lambda: None if gate is None else gate.tell_guard())
    notify("STOPPING=1")
    if failure is not None:
        for line in "".join(traceback.format_exception(failure)).splitlines():
            say(line)
    if gate is not None:
        gate.close(in_order=status == 0)
    with contextlib.suppress(OSError):
        actuator.close()
    return status


def _calibration(config: CarConfig) -> tuple[Calibration | None, str]:
    try:
        return load_calibration(config.calibration_path()), ""
    except CalibrationError as error:
        return None, error.what


if __name__ == "__main__":
    sys.exit(main())
