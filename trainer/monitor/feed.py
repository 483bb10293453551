"""Live pictures and positions, from whoever drives to whoever watches, through small files in the run folder.

    RUN/live/viewer-PID       a viewer's mark: which cars' pictures it wants, renewed while somebody looks
    RUN/live/SOURCE.cars      what the driver shows, replaced some times a second only while a mark is renewed
    RUN/live/running          locked by the training for as long as it runs
    RUN/live/metrics.csv      as RUN/metrics.csv, with a row after each update rather than at checkpoints

Nothing here is worth keeping: files are not synced, and a driver that cannot write them goes on driving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FOLDER, ROWS = "live", "metrics.csv"
EVERY_S = 0.1  # a picture this often: the control period, so nothing would be seen of more
MARK_LASTS_S = 3.0  # a viewer that has not renewed its mark for so long has gone
_MOST_PICTURES = 8  # of a message: 19 kB each
_FIELDS = (("xy_m", 2), ("heading_rad", 0), ("progress", 0), ("speed_mps", 0), ("track", 0))


@dataclass(frozen=True)
class LiveCars:
    """What can be seen of n cars at a moment.

    Attributes:
        xy_m: (n, 2) where they are.
        heading_rad: (n,); progress: (n,) percent of the lap; speed_mps: (n,).
        track: (n,) which of the run's tracks each is on.
        pictures: uint8 (120, 160) of some of them, by their place here.
        first: the number of the first of them, where several sources drive.
        stamp: grows with every message of a source.
    """

    xy_m: NDArray[Any]
    heading_rad: NDArray[Any]
    progress: NDArray[Any]
    speed_mps: NDArray[Any]
    track: NDArray[Any]
    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    first: int = 0
    stamp: int = 0

    @property
    def number(self) -> NDArray[np.int64]:
        """(n,) what people call each of them."""
        return self.first + np.arange(len(self.progress))


def encode(cars: LiveCars) -> bytes:
    """One line of JSON, then the arrays' bytes."""
    columns = [np.ascontiguousarray(getattr(cars, name), np.float32) for name, _ in _FIELDS]
    shapes = {str(k): picture.shape for k, picture in cars.pictures.items()}
    head = {"n": len(cars.progress), "first": cars.first, "stamp": cars.stamp, "pictures": shapes}
    line = json.dumps(head).encode() + b"\n"
    return b"".join([line, *(c.tobytes() for c in columns), *(p.tobytes() for p in cars.pictures.values())])


def decode(data: bytes) -> LiveCars:
    """The reverse of ``encode``.

    Raises:
        ValueError: it is not such a message.
    """
    line, _, rest = data.partition(b"\n")
    try:
        head = json.loads(line)
        n, place, columns = int(head["n"]), 0, {}
        for name, width in _FIELDS:
            count = n * (width or 1)
            column = np.frombuffer(rest, np.float32, count, place)
            columns[name] = column.reshape(n, width) if width else column
            place += 4 * count
        pictures = {}
        for key, (rows, across) in head["pictures"].items():
            pictures[int(key)] = np.frombuffer(rest, np.uint8, rows * across, place).reshape(rows, across)
            place += rows * across
        return LiveCars(**columns, pictures=pictures, first=int(head["first"]), stamp=int(head["stamp"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message of live cars: {error!r}") from error


class LiveFeed:
    """The driver's side. A call while nobody watches costs a microsecond, and ten times a second the look at a folder.

    Args:
        run: the run folder.
        source: who drives, where several do; each has cars of its own.
        first: the number of this source's first car.
    """

    def __init__(self, run: Path, source: int = 0, first: int = 0) -> None:
        self._first = first
        self._folder, self._target = run / FOLDER, run / FOLDER / f"{source}.cars"
        self._next_s = 0.0
        self._marks: dict[str, tuple[int, float]] = {}  # when each mark was changed, and when that was noticed
        self._stamp = time.time_ns() // 1_000_000  # so that it grows beyond that of an earlier process

    def wanted(self) -> list[int] | None:
        """Cars whose pictures somebody wants now; None where nobody watches, or has just been shown something."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return None
        self._next_s = now_s + EVERY_S
        wanted: set[int] = set()
        watched = False
        try:
            names = [name for name in os.listdir(self._folder) if name.startswith("viewer-")]
            for name in names:
                path = self._folder / name
                changed = path.stat().st_mtime_ns
                # Its change is noticed by this process's own clock: clocks of machines that share a folder differ.
                if self._marks.get(name, (-1, 0.0))[0] != changed:
                    self._marks[name] = changed, now_s
                if now_s - self._marks[name][1] < MARK_LASTS_S:
                    watched = True
                    wanted.update(int(word) for word in path.read_text().split()[:_MOST_PICTURES])
        except (OSError, ValueError):
            return sorted(wanted) if watched else None
        return sorted(wanted)[:_MOST_PICTURES] if watched else None

    def show(self, cars: LiveCars) -> None:
        """Put a message where viewers find it."""
        self._stamp += 1
        temporary = self._target.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(encode(dataclasses.replace(cars, first=self._first, stamp=self._stamp)))
            os.replace(temporary, self._target)

    def offer(self, n: int, look: Callable[[Sequence[int]], LiveCars]) -> None:
        """Show what ``look`` sees of n cars, given whose pictures (0 to n - 1) are wanted; called only when due."""
        wanted = self.wanted()
        if wanted is not None:
            self.show(look([k - self._first for k in wanted if 0 <= k - self._first < n]))


class Running:
    """Says that the training runs, for as long as this process lives (a lock goes with its process), and how it goes.

    metrics.csv has rows only up to the last checkpoint; until then they are in a file of the same form here.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        self._lock: IO[str] | None = None
        self._rows: IO[str] | None = None

    def begin(self, rows: str) -> None:
        """From now on, with these lines of metrics so far. A folder that cannot be written to is for others to say."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            self._lock = open(self._folder / "running", "w")  # noqa: SIM115 - open for as long as it runs
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary = self._folder / ".metrics.tmp"
            self._rows = open(temporary, "w", buffering=1, newline="")  # noqa: SIM115
            self._rows.write(rows)
            self._rows.flush()
            os.replace(temporary, self._folder / ROWS)

    def add(self, row: str) -> None:
        """A line of metrics more."""
        if self._rows is not None:
            with contextlib.suppress(OSError):
                self._rows.write(row)
                self._rows.flush()

    def end(self) -> None:
        """No more: all rows are in metrics.csv."""
        for file in (self._rows, self._lock):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._rows = self._lock = None
        with contextlib.suppress(OSError):
            (self._folder / ROWS).unlink(missing_ok=True)


def is_running(run: Path) -> bool:
    """Whether a process on this machine trains in this folder now."""
    try:
        with open(run / FOLDER / "running") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Viewer:
    """The watching side: marks that somebody looks, and reads what drivers show."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        self._mark = self._folder / f"viewer-{os.getpid()}"
        self._renewed_s = 0.0
        self._wanted: list[int] = []

    def look(self, cars: Sequence[int]) -> None:
        """Somebody looks at these cars; to be called again and again while that is so."""
        now_s = time.monotonic()
        wanted = sorted(set(cars))
        if wanted == self._wanted and now_s - self._renewed_s < MARK_LASTS_S / 4:
            return
        self._wanted, self._renewed_s = wanted, now_s
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            self._mark.write_text(" ".join(map(str, wanted)))

    def read(self) -> tuple[list[LiveCars], float] | None:
        """The newest message of each source, and the age of the youngest in seconds; None where nobody ever drove."""
        found: list[tuple[LiveCars, float]] = []
        for path in self._folder.glob("*.cars"):
            with contextlib.suppress(OSError, ValueError):
                age_s = time.time() - path.stat().st_mtime
                found.append((decode(path.read_bytes()), age_s))
        if not found:
            return None
        youngest_s = min(age_s for _, age_s in found)
        fresh = [cars for cars, age_s in found if age_s < youngest_s + MARK_LASTS_S]
        return sorted(fresh, key=lambda cars: cars.first), max(0.0, youngest_s)

    def close(self) -> None:
        """Nobody looks any more."""
        with contextlib.suppress(OSError):
            self._mark.unlink(missing_ok=True)
