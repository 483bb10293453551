"""Starts gate, pilot and, for the simulated car, world and board, watches them, and stops them in the right order.

On the car systemd does this (``vehicle/services/``); on a laptop ``hotlap drive`` does. The supervisor is not part of
what keeps the car safe: the gate decides by itself, and when the gate dies, its guard writes neutral. But a car must
not drive on with nobody at the keyboard, so when the supervisor dies, the parts end as well (`vehicle.parent`).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from vehicle.child import ONE_THREAD
from vehicle.errors import GateError, VehicleError
from vehicle.links import request
from vehicle.parent import ENVIRONMENT

START_TIMEOUT_S = 60.0  # importing OpenCV and ONNX Runtime from a cold SD card, on the smallest Pi
_STOP_TIMEOUT_S = 5.0
_PILOT_RESTARTS = 5
_RESTART_PAUSE_S = 1.0
# A supervisor that Ctrl-Z stops would watch nothing while the car drives on, so that ends the drive as well.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


@dataclass
class Part:
    """One process and what it was started with."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes]
    restarts: int = 0
    next_start_s: float = 0.0
    ended: list[int] = field(default_factory=list)  # exit statuses so far

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None


class Supervisor:
    """The processes of one drive.

    Args:
        runtime: folder of the sockets, and of one log file a process.
        car_toml: the car, or None for the simulated one.
    """

    def __init__(self, runtime: Path, car_toml: Path | None) -> None:
        self.runtime, self.car_toml = runtime, car_toml
        self.parts: dict[str, Part] = {}

    def start(self, name: str, module: str, arguments: Sequence[str]) -> None:
        """Start ``python -m MODULE --runtime RUNTIME ARGUMENTS``, its output into RUNTIME/NAME.log."""
        command = [sys.executable, "-m", module, "--runtime", str(self.runtime), *arguments]
        if module.startswith("vehicle.") and self.car_toml is not None:
            command += ["--config", str(self.car_toml)]
        log = self.runtime / f"{name}.log"
        log.unlink(missing_ok=True)  # of an earlier drive, which would be taken for this one's last words
        self.parts[name] = Part(name, command, log, self._launch(command, log))

    @staticmethod
    def _launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with open(log, "ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor, which then stops the parts in order.
            # Its stdin is a pipe whose other end closes when this process ends, however that is.
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env=part_environment(),
            )  # fmt: skip

    def start_world(self, arguments: Sequence[str]) -> None:
        """Start the simulated car and wait until it is there.

        Raises:
            VehicleError: the train extra is not installed, or the world did not start.
        """
        if importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("sim") is None:
            raise VehicleError(
                "the simulated car needs mujoco, which is not installed",
                cause="the base install is the car's; simulation and training are an extra",
                next_step="pip install 'hotlap[train]', or --config car.toml for a real car or a folder of images",
            )
        # The first start on a machine compiles the camera.
        self._start_ready("world", "sim.world_process", arguments, 4 * START_TIMEOUT_S)

    def start_board(self, arguments: Sequence[str]) -> Path:
        """Start the microcontroller of the simulated car, after its world, and wait until it is there.

        Returns:
            its serial port.

        Raises:
            VehicleError: it did not start.
        """
        self._start_ready("board", "sim.board_process", arguments, START_TIMEOUT_S)
        return self.runtime / "board.tty"

    def _start_ready(self, name: str, module: str, arguments: Sequence[str], timeout_s: float) -> None:
        """Start what makes a file NAME.ready once it is ready."""
        ready = self.runtime / f"{name}.ready"
        ready.unlink(missing_ok=True)
        self.start(name, module, arguments)
        deadline_s = time.monotonic() + timeout_s
        while not ready.exists():
            self._must_live(name)
            if time.monotonic() > deadline_s:
                raise VehicleError(f"the {name} did not start within {timeout_s:.0f} s", next_step=self._look(name))
            time.sleep(0.02)

    def wait_answer(self, name: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, object]:
        """Wait until a process answers on its request socket.

        Returns:
            its status.

        Raises:
            VehicleError: it ended, or does not answer in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._must_live(name)
            with contextlib.suppress(GateError):
                return request(self.runtime, f"{name}.request", {"op": "status"}, timeout_s=0.3)
            if time.monotonic() > deadline_s:
                raise VehicleError(f"the {name} does not answer within {timeout_s:.0f} s", next_step=self._look(name))

    def _look(self, name: str) -> str:
        return f"read {self.parts[name].log}"

    def _must_live(self, name: str) -> None:
        part = self.parts[name]
        if not part.alive():
            raise VehicleError(
                f"the {name} ended with status {part.process.returncode}:\n{self.tail(name)}",
                next_step=self._look(name),
            )

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a process's log."""
        try:
            text = self.parts[name].log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])

    def watch(self) -> None:
        """To be called a few times a second: restarts pilot and console some times, gives up when another part ended.

        Raises:
            VehicleError: gate, board or world ended, or pilot or console ended too often.
        """
        for part in self.parts.values():
            if part.alive():
                continue
            if part.name not in ("pilot", "console"):
                self._must_live(part.name)
            now_s = time.monotonic()
            if part.next_start_s == 0.0:
                part.ended.append(part.process.returncode)
                if part.restarts >= _PILOT_RESTARTS:
                    raise VehicleError(
                        f"the {part.name} ended {len(part.ended)} times, with status {part.ended}:\n"
                        f"{self.tail(part.name)}",
                        next_step=self._look(part.name),
                    )
                part.next_start_s = now_s + _RESTART_PAUSE_S
            elif now_s >= part.next_start_s:
                part.restarts, part.next_start_s = part.restarts + 1, 0.0
                _close_stdin(part.process)
                part.process = self._launch(part.command, part.log)

    def stop(self) -> dict[str, int]:
        """Stop every process: the gate first, which writes neutral while the pilot still feeds it; the world last.

        Returns:
            the exit status of each; one that had to be killed has a negative one.
        """
        for name in ("gate", "pilot", "console", "board", "world"):
            part = self.parts.get(name)
            if part is None:
                continue
            part.process.send_signal(signal.SIGTERM)  # nothing where it has ended
            try:
                part.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                part.process.kill()
                part.process.wait()
            _close_stdin(part.process)
        return {part.name: int(part.process.returncode) for part in self.parts.values()}

    def pids(self) -> dict[str, int]:
        """Process ids of what runs."""
        return {part.name: part.process.pid for part in self.parts.values() if part.alive()}


def part_environment() -> dict[str, str]:
    """Of every part: numeric libraries on one thread, since they share a small processor, and the word to `parent`."""
    return {**os.environ, **ONE_THREAD, ENVIRONMENT: "1"}


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


@contextlib.contextmanager
def only_drive(runtime: Path) -> Iterator[None]:
    """Hold the lock of the runtime folder: a second simulated car would take the sockets of the first one away.

    Raises:
        VehicleError: another drive holds it.
    """
    with open(runtime / "drive.lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VehicleError(
                f"another hotlap drive runs in {runtime}",
                next_step="end that one, or set HOTLAP_RUNTIME to another folder for a second simulated car",
            ) from None
        yield


@contextlib.contextmanager
def ending_signals() -> Iterator[Callable[[], None]]:
    """The first of SIGINT, SIGTERM, SIGHUP and SIGTSTP raises KeyboardInterrupt, further ones are ignored: whoever is
    impatient must not interrupt the stopping of the parts. One that was ignored before (nohup) stays so.

    Yields:
        to be called before cleaning up: from then on all are ignored.
    """
    deaf = False

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal deaf
        if not deaf:
            deaf = True
            raise KeyboardInterrupt

    def deafen() -> None:
        nonlocal deaf
        deaf = True

    numbers = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield deafen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
