"""A run's traces as the monitor reads them: where reward was got on each track, and the last episodes, to drive again.

A run of an hour has millions of rows: they are read once, a piece at a time, and only sums are kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.track import Track
from trainer.monitor.tail import Tail
from trainer.run_files import iterations, trace_folders

_COLUMNS = ("episode", "steps", "X", "Y", "yaw", "reward", "progress", "track_len")
_CELLS = 120  # of a heat map along the longer side of the track
_MARGIN_M = 0.3  # cars leave the road
KEPT_EPISODES = 12
_SHORTEST = 20  # steps of an episode worth driving again

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Episode:
    """One that was driven: rows (n, 4) of x, y in metres, heading in radians, progress in percent."""

    number: int
    track: int
    rows: Floats


class HeatMap:
    """Reward by place on one track, (rows, columns) cells from the lower left."""

    def __init__(self, track: Track) -> None:
        xmin, ymin, xmax, ymax = track.bounds
        self.cell_m = max(xmax - xmin, ymax - ymin) / _CELLS
        self.x_m, self.y_m = xmin - _MARGIN_M, ymin - _MARGIN_M
        self.columns = math.ceil((xmax + _MARGIN_M - self.x_m) / self.cell_m)
        self.rows = math.ceil((ymax + _MARGIN_M - self.y_m) / self.cell_m)
        self.clear()

    def clear(self) -> None:
        """Nothing was driven."""
        self.sum = np.zeros(self.rows * self.columns)
        self.count = np.zeros(self.rows * self.columns)

    def add(self, xy_m: Floats, reward: Floats) -> None:
        """Steps that ended at (n, 2) with rewards (n,); those outside are left out."""
        column = np.floor((xy_m[:, 0] - self.x_m) / self.cell_m)
        row = np.floor((xy_m[:, 1] - self.y_m) / self.cell_m)
        good = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows) & np.isfinite(reward)
        cell = (row[good] * self.columns + column[good]).astype(np.int64)
        self.sum += np.bincount(cell, reward[good], len(self.sum))
        self.count += np.bincount(cell, None, len(self.count))

    @property
    def mean(self) -> Floats:
        """(rows, columns) mean reward of a step, NaN where nobody drove."""
        mean = np.divide(self.sum, self.count, out=np.full_like(self.sum, np.nan), where=self.count > 0)
        return mean.reshape(self.rows, self.columns)


class _Folder:
    """One worker's files, N-iteration.csv, read one after the other: a file grows no more once the next is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number: int | None = None
        self._tail: Tail | None = None

    def current(self) -> Tail | None:
        """The file that is being read."""
        if self._tail is None:
            there = iterations(self.path)
            if there:
                self._number, first = there[0]
                self._tail = Tail(first)
        return self._tail

    def next_is_there(self) -> bool:
        """Whether the file that is being read is complete."""
        return self._number is not None and self._file(self._number + 1).exists()

    def go_on(self) -> bool:
        """Turn to the next file."""
        assert self._number is not None
        self._number += 1
        self._tail = Tail(self._file(self._number))
        return True

    def _file(self, number: int) -> Path:
        return self.path / f"{number}-iteration.csv"


class Traces:
    """All traces of a run, of one worker or several.

    Args:
        run: the run folder.
        tracks: the run's, in order.
    """

    def __init__(self, run: Path, tracks: Sequence[Track]) -> None:
        self._run = run
        self._lengths = np.array([track.length_m for track in tracks])
        self.maps = [HeatMap(track) for track in tracks]
        self._folders: dict[Path, _Folder] = {}
        self._unfinished: dict[Path, Floats] = {}  # rows of the episode that the last piece of a folder ended in
        self.episodes: deque[Episode] = deque(maxlen=KEPT_EPISODES)
        self.rows = 0

    def read(self) -> bool:
        """Take in what is new, at most a piece of each worker's; whether there was something."""
        taken = [self._take(self._folders.setdefault(path, _Folder(path))) for path in trace_folders(self._run)]
        return any(taken)

    def _take(self, folder: _Folder) -> bool:
        tail = folder.current()
        if tail is None:
            return False
        ended = folder.next_is_there()  # asked first: what is read after it is the file's last
        data = tail.more()
        if data is None:  # a resumed run has cut it: what was counted stays counted
            tail.skip_to_end()
        if not data:
            return ended and folder.go_on()
        try:
            places = [tail.header.index(name) for name in _COLUMNS]
        except ValueError:
            return False  # somebody else's file
        table = _table(data, places)
        if len(table):
            self._count(folder.path, table)
        return True

    def _count(self, path: Path, table: Floats) -> None:
        self.rows += len(table)
        track = np.abs(table[:, 7, None] - self._lengths[None, :]).argmin(axis=1)
        driven = table[:, 1] > 1  # the first row of an episode is before its first step
        for k, heat in enumerate(self.maps):
            mine = driven & (track == k)
            if mine.any():
                heat.add(table[mine, 2:4], table[mine, 5])
        self._keep(path, table)

    def _keep(self, path: Path, table: Floats) -> None:
        """The last episodes, whole ones."""
        before = self._unfinished.pop(path, np.zeros((0, table.shape[1])))
        joined = np.concatenate([before, table]) if len(before) and before[0, 0] == table[0, 0] else table
        starts = np.flatnonzero(np.diff(joined[:, 0], prepend=np.nan) != 0)
        for begin, end in list(zip(starts, [*starts[1:], len(joined)], strict=True))[-KEPT_EPISODES:]:
            if end - begin >= _SHORTEST:
                rows = np.column_stack([joined[begin:end, 2:4], np.radians(joined[begin:end, 4]), joined[begin:end, 6]])
                while self.episodes and self.episodes[-1].number == int(joined[begin, 0]):
                    self.episodes.pop()  # the same, and now more of it is known
                length = joined[begin, 7]
                self.episodes.append(
                    Episode(int(joined[begin, 0]), int(np.abs(self._lengths - length).argmin()), rows)
                )
        self._unfinished[path] = joined[starts[-1] :]


def _table(data: bytes, places: Sequence[int]) -> Floats:
    """The wanted columns of whole lines, (n, columns); a line that cannot be read is left out."""
    try:
        return np.loadtxt(data.decode("ascii").splitlines(), delimiter=",", usecols=places, ndmin=2)
    except (ValueError, UnicodeDecodeError):
        rows = []
        for line in data.splitlines():
            cells = line.split(b",")
            try:
                rows.append([float(cells[place]) for place in places])
            except (ValueError, IndexError):
                continue
        return np.array(rows).reshape(-1, len(places))
