"""The REAL firmware, compiled, in simavr on a pseudo-terminal, in real time (``sim/pty_main.c``); not a test itself."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge.board import PACKAGES, BoardError, PinPulse, SimulatedBoard, build, missing_tools, read_pulse

# Real time on a machine with other work: the simulation itself may be late, and says how late it was.
SLACK_S = 0.1


def require_tools() -> None:
    """Skip without compiler and simulator; in CI that is a failure."""
    missing = missing_tools()
    if missing:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"not installed: {', '.join(missing)}; next: apt-get install --no-install-recommends {PACKAGES}")


def built() -> Path:
    """The folder with bridge.elf and ptysim, built if they are not; skips without the tools."""
    require_tools()
    return build()


class FirmwareBoard:
    """A board that runs the real firmware.

    Args:
        path: of the port, a link.
        boot_s: opening the port resets the chip, whose bootloader then takes so long. None: no reset (UART pins).
    """

    def __init__(self, build: Path, path: Path, boot_s: float | None = None) -> None:
        self.path = str(path)
        self.pulses: list[PinPulse] = []
        self.said: list[str] = []
        self.lag_ms = 0.0
        self._board = SimulatedBoard(build, path, boot_s)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, name="firmware board")
        self._thread.start()
        assert until(lambda: "ready" in self.said), "the simulator did not start"

    def tell(self, order: str) -> float:
        """Give an order of ``pty_main.c`` and wait until it is obeyed; when it was given."""
        begun, told_s = len(self.said), time.monotonic()
        self._board.tell(order)

        def obeyed() -> bool:
            return any(line.startswith("done") and line.endswith(order) for line in self.said[begun:])

        assert until(obeyed), self.said[begun:]
        return told_s

    def throttle(self, since_s: float, until_s: float = float("inf")) -> list[PinPulse]:
        """The throttle pulses that began between the two."""
        return [one for one in list(self.pulses) if one.channel == "throttle" and since_s <= one.rise_s < until_s]

    def last(self, channel: str) -> float:
        """Width in microseconds of the newest pulse."""
        return next((one.width_us for one in reversed(list(self.pulses)) if one.channel == channel), 0.0)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._board.close()

    def _read(self) -> None:
        while not self._ending.is_set():
            select.select([self._board], [], [], 0.05)
            try:
                lines = self._board.take()
            except BoardError:
                return
            for line in lines:
                self._take(line)

    def _take(self, line: str) -> None:
        pulse = read_pulse(line)
        if pulse is not None:
            self.pulses.append(pulse)
            return
        self.said.append(line)
        if line.startswith("lag"):
            self.lag_ms = max(self.lag_ms, float(line.split()[2]))


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Whether it comes true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return bool(found)
