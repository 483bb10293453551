"""The recorded pulse train: ``t_monotonic_s,channel,pulse_us,cause``, which survives the death of its writer.

Each call is one ``write`` to a file opened for appending: the kernel has it when the call returns, so SIGKILL loses
nothing, and rows of two processes (gate and guard) do not mix. Only a full disk can tear a row; a torn row is marked.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
from dataclasses import dataclass
from pathlib import Path

from vehicle.errors import ConfigError

HEADER = "t_monotonic_s,channel,pulse_us,cause"
CHANNELS = ("steering", "throttle")
_TORN = "#torn\n"  # ends a row that was cut short, so that nobody takes its first half for a whole one


@dataclass(frozen=True)
class TraceRow:
    """One pulse width of one channel. `t_s` is of CLOCK_MONOTONIC, `channel` is steering or throttle."""

    t_s: float
    channel: str
    pulse_us: float
    cause: str


class TraceWriter:
    """Appends pulses to a CSV file and never raises once it is open: a full disk must not stop a car's neutral.

    `error` keeps the first failure in words, `lost` counts the calls to `row` that are not whole in the file. A disk
    that stalls would stall the caller; put the file on a memory file system (``/run``) where that matters.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.error: str | None = None
        self.lost = 0
        self._torn = False
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"the pulse trace {self.path} cannot be opened: {error.strerror or error}",
                cause="its folder does not exist, or this user may not write there",
                next_step=f"mkdir -p {os.path.dirname(self.path) or '.'}, or choose another file",
            ) from error
        try:
            self._begin()
        except OSError as error:  # a full disk, or a file system without locks: the pulses matter more
            self._failed(error)

    def row(self, t_s: float, steering_us: float, throttle_us: float, cause: str) -> None:
        """Append both channels.

        Args:
            t_s: of time.monotonic, when the pulses were written to the device.
            steering_us, throttle_us: pulse widths in microseconds.
            cause: one word; commas and line breaks in it are replaced.
        """
        word = " ".join(cause.replace(",", ";").split())
        text = f"{t_s:.6f},steering,{steering_us:.3f},{word}\n{t_s:.6f},throttle,{throttle_us:.3f},{word}\n"
        try:
            self._append(text)
        except OSError as error:
            self.lost += 1
            self._failed(error)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _begin(self) -> None:
        """Write the header into an empty file, or end a row that an earlier writer left torn; once for all writers."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            if size == 0:
                self._append(HEADER + "\n")
            elif os.pread(self._fd, 1, size - 1) != b"\n":
                self._torn = True  # the next row ends it
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _append(self, text: str) -> None:
        data = (_TORN + text if self._torn else text).encode()
        written = os.write(self._fd, data)
        if written != len(data):
            self._torn = not data[:written].endswith(b"\n")
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes fit")
        self._torn = False

    def _failed(self, error: OSError) -> None:
        if self.error is None:
            self.error = f"{self.path}: {error.strerror or error}"


def read_trace(path: str | os.PathLike[str]) -> list[TraceRow]:
    """Read what `TraceWriter` wrote. Rows that were cut short (at the end, or marked as torn) are left out.

    Raises:
        ConfigError: it cannot be read, or a line is neither a row, nor a header, nor torn.
    """
    where = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"the pulse trace {where} cannot be read: {error.strerror or error}") from error
    lines = text.split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line break is torn, or empty
        if line == HEADER or line.endswith(_TORN.strip()):
            continue
        rows.append(_parse(line, where, number))
    return rows


def _parse(line: str, where: str, number: int) -> TraceRow:
    fields = line.split(",")
    try:
        t_s, channel, pulse_us, cause = float(fields[0]), fields[1], float(fields[2]), fields[3]
        if len(fields) != 4 or channel not in CHANNELS or not (math.isfinite(t_s) and math.isfinite(pulse_us)):
            raise ValueError
    except (ValueError, IndexError):
        raise ConfigError(
            f"{where}: line {number} is no pulse: {line[:80]!r}",
            cause="another kind of file, or one that was edited",
            next_step=f"the columns are {HEADER}",
        ) from None
    return TraceRow(t_s, channel, pulse_us, cause)
