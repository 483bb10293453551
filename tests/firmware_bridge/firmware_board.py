"""The REAL firmware, compiled, in simavr on a pseudo-terminal, in real time (``sim/pty_main.c``); not a test itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_bridge" / "firmware"
BUILD = FIRMWARE / "build"
# Real time on a machine with other work: the simulation itself may be late, and says how late it was.
SLACK_S = 0.1


def built() -> Path:
    """The folder with bridge.elf and ptysim, built if they are not; skips without the tools, but not in CI."""
    missing = [tool for tool in ("avr-gcc", "gcc", "make", "pkg-config") if shutil.which(tool) is None]
    if not missing and subprocess.run(["pkg-config", "--exists", "simavr"]).returncode != 0:
        missing = ["libsimavr-dev"]
    if missing:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"{', '.join(missing)} missing: apt-get install gcc-avr avr-libc libsimavr-dev libelf-dev make pkg-config")
    done = subprocess.run(
        ["make", "-C", str(FIRMWARE), "all", "pty"], capture_output=True, text=True, errors="replace", timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILD


@dataclass(frozen=True)
class Pulse:
    """One pulse on a pin: its rising edge on time.monotonic(), and whether a reset of the chip cut it short."""

    t_s: float
    channel: str
    us: float
    cut: bool


class FirmwareBoard:
    """A board that runs the real firmware.

    Args:
        path: of the port, a link.
        boot_s: opening the port resets the chip, whose bootloader then takes so long. None: no reset (UART pins).
    """

    def __init__(self, build: Path, path: Path, boot_s: float | None = None) -> None:
        self.path = str(path)
        self.pulses: list[Pulse] = []
        self.said: list[str] = []
        self.lag_ms = 0.0
        words = [str(build / "ptysim"), str(build / "bridge.elf"), self.path]
        self._process = subprocess.Popen(
            words if boot_s is None else [*words, str(int(1e3 * boot_s))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, name="firmware board")
        self._thread.start()
        assert until(lambda: "ready" in self.said), "the simulator did not start"

    def tell(self, order: str) -> float:
        """Give an order of ``pty_main.c`` and wait until it is obeyed; when it was given."""
        assert self._process.stdin is not None
        begun, told_s = len(self.said), time.monotonic()
        self._process.stdin.write(order + "\n")
        assert until(lambda: f"done {order}" in self.said[begun:]), self.said[begun:]
        return told_s

    def throttle(self, since_s: float, until_s: float = float("inf")) -> list[Pulse]:
        """The throttle pulses that began between the two."""
        return [one for one in list(self.pulses) if one.channel == "throttle" and since_s <= one.t_s < until_s]

    def last(self, channel: str) -> float:
        """Width in microseconds of the newest pulse."""
        return next((one.us for one in reversed(list(self.pulses)) if one.channel == channel), 0.0)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        finally:
            self._process.kill()
            self._process.wait()
            self._thread.join()
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if words[0] == "pulse":
                self.pulses.append(Pulse(float(words[1]), words[2], float(words[3]), len(words) > 4))
            else:
                self.said.append(line.strip())
                if words[0] == "lag":
                    self.lag_ms = float(words[1])


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Whether it comes true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return bool(found)
