"""A board without a board: the compiled firmware in simavr, in real time, on a serial port of this machine.

The program is ``firmware/sim/pty_main.c``; it links simavr, which is GPL-3, and so is built from a checkout when it is
needed, and runs as a process of its own. What it says and obeys stands at its head.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.errors import BridgeError

FIRMWARE = Path(__file__).resolve().parent / "firmware"
TOOLS = ("make", "gcc", "avr-gcc", "pkg-config")
PACKAGES = "gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev gcc libc6-dev make pkg-config"
_MAKE_S = 240.0
_CLOSE_S = 5.0
SLOW_SHARE = 0.02  # of the time: a chip that stands still for longer is told of


class BoardError(BridgeError, RuntimeError):
    """The simulated board cannot be built, does not start, or has ended."""


def missing_tools() -> list[str]:
    """What is needed to build it and not installed, by name."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing and subprocess.run(["pkg-config", "--exists", "simavr"], check=False).returncode:
        missing = ["simavr"]
    return missing


def build(folder: Path = FIRMWARE) -> Path:
    """Build the firmware and its simulator, where they are not built yet.

    Returns:
        the folder of ``bridge.elf`` and ``ptysim``.

    Raises:
        BoardError: a tool is missing, this is no checkout, or the build fails.
    """
    if not (folder / "Makefile").is_file():
        raise BoardError(
            f"{folder} is not there",
            cause="the firmware's source is in the checkout, not in the installed package",
            next_step="run hotlap from a checkout: pip install -e .",
        )
    missing = missing_tools()
    if missing:
        raise BoardError(
            f"the simulated microcontroller needs {', '.join(missing)}, which is not installed",
            cause="only whoever builds the firmware or simulates it needs a compiler and simavr",
            next_step=f"sudo apt-get install --no-install-recommends {PACKAGES}",
        )
    made = subprocess.run(
        ["make", "-s", "-C", str(folder), "all", "pty"], capture_output=True, text=True, errors="replace",
        timeout=_MAKE_S, check=False,
    )  # fmt: skip
    if made.returncode:
        said = "\n".join(f"    {line}" for line in (made.stdout + made.stderr).splitlines()[-8:])
        raise BoardError(f"the firmware cannot be built:\n{said}", next_step=f"make -C {folder} clean all pty")
    return folder / "build"


@dataclass(frozen=True)
class PinPulse:
    """A pulse on a pin: its rising edge on time.monotonic(), and whether a reset of the chip cut it short."""

    rise_s: float
    channel: str  # steering or throttle
    width_us: float
    cut: bool

    @property
    def fall_s(self) -> float:
        """Its end."""
        return self.rise_s + 1e-6 * self.width_us


def read_pulse(line: str) -> PinPulse | None:
    """A line of the simulator as a pulse; None for its other lines."""
    words = line.split()
    if not words or words[0] != "pulse":
        return None
    return PinPulse(float(words[1]), words[2], float(words[3]), len(words) > 4)


class SimulatedBoard:
    """The process of one board. Nothing here waits, but `close`.

    Args:
        build: the folder that `build` returns.
        port: becomes a symbolic link to its serial port.
        boot_s: opening the port resets the chip (DTR), whose bootloader then takes so long. None: no reset.
    """

    def __init__(self, build: Path, port: Path, boot_s: float | None = None) -> None:
        words = [str(build / "ptysim"), str(build / "bridge.elf"), str(port)]
        if boot_s is not None:
            words.append(str(int(1e3 * boot_s)))
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None and self._process.stdin is not None
        self._stdout, self._stdin = self._process.stdout, self._process.stdin
        os.set_blocking(self._stdout.fileno(), False)
        self._rest = b""

    def fileno(self) -> int:
        """Readable when it has said something, or has ended."""
        return self._stdout.fileno()

    def take(self) -> list[str]:
        """The lines that it has said since the last call.

        Raises:
            BoardError: it has ended.
        """
        try:
            data = os.read(self._stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            raise BoardError(
                f"the simulated microcontroller ended with status {self._process.wait(_CLOSE_S)}",
                cause="its last words are above, if it had any",
            )
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def tell(self, order: str) -> None:
        """Give an order, one of those at the head of ``pty_main.c``; it says ``done T ORDER`` when it has obeyed.

        Raises:
            BoardError: it has ended.
        """
        try:
            self._stdin.write(f"{order}\n".encode())
            self._stdin.flush()
        except OSError as error:
            raise BoardError(f"the simulated microcontroller does not take orders: {error}") from error

    def close(self) -> None:
        """End it, which takes its port away. May be called twice."""
        with contextlib.suppress(OSError):
            self._stdin.close()  # its end is an order to quit
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
