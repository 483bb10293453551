"""Columns of numbers over time in bounded memory: rows are merged in pairs when there are too many, spikes stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CAPACITY = 1 << 14  # buckets: 2 MB for each column


class Buckets:
    """For each column and bucket of rows: how many numbers, least, largest, sum. Missing values are NaN.

    Args:
        columns: how many there are.
        capacity: buckets at most; at that many, each two neighbours become one.
    """

    def __init__(self, columns: int, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._low, self._high = np.full((2, capacity, columns), np.nan)
        self._sum, self._count = np.zeros((2, capacity, columns))
        self.size = 0  # buckets in use
        self.rows = 0
        self._per_bucket = 1
        self._in_last = 0  # rows in the last bucket

    def add(self, rows: Floats) -> None:
        """Rows (n, columns), in order."""
        place = 0
        while place < len(rows):
            if self._in_last in (0, self._per_bucket) or self.size == 0:
                if self.size == self._capacity:
                    self._halve()
                    continue
                self._open()
            take = min(self._per_bucket - self._in_last, len(rows) - place)
            if self._per_bucket == 1:
                take = min(self._capacity - self.size + 1, len(rows) - place)
                self._put_singly(rows[place : place + take])
            else:
                self._merge_into_last(rows[place : place + take])
            place += take
        self.rows += len(rows)

    def _open(self) -> None:
        k = self.size
        self._low[k], self._high[k], self._sum[k], self._count[k] = np.nan, np.nan, 0.0, 0.0
        self.size, self._in_last = k + 1, 0

    def _put_singly(self, rows: Floats) -> None:
        into = slice(self.size - 1, self.size - 1 + len(rows))
        good = ~np.isnan(rows)
        self._low[into] = self._high[into] = rows
        self._sum[into], self._count[into] = np.where(good, rows, 0.0), good
        self.size += len(rows) - 1
        self._in_last = 1

    def _merge_into_last(self, rows: Floats) -> None:
        k = self.size - 1
        self._low[k] = np.fmin(self._low[k], np.fmin.reduce(rows, axis=0))
        self._high[k] = np.fmax(self._high[k], np.fmax.reduce(rows, axis=0))
        self._sum[k] += np.nansum(rows, axis=0)
        self._count[k] += np.count_nonzero(~np.isnan(rows), axis=0)
        self._in_last += len(rows)

    def _halve(self) -> None:
        half = self._capacity // 2
        self._low[:half] = np.fmin(self._low[0::2], self._low[1::2])
        self._high[:half] = np.fmax(self._high[0::2], self._high[1::2])
        for what in (self._sum, self._count):
            what[:half] = what[0::2] + what[1::2]
        self.size, self._per_bucket = half, 2 * self._per_bucket
        self._in_last = self._per_bucket

    def reduced(self, columns: Sequence[int], points: int) -> tuple[Floats, Floats, Floats]:
        """Least, largest and mean of these columns in at most ``points`` buckets of equally many rows, (k, columns)."""
        edges = np.unique(np.linspace(0, self.size, min(points, self.size) + 1).astype(np.int64))[:-1]
        if not len(edges):
            none = np.zeros((0, len(columns)))
            return none, none, none
        chosen = np.asarray(columns, np.int64)
        low = np.fmin.reduceat(self._low[: self.size, chosen], edges, axis=0)
        high = np.fmax.reduceat(self._high[: self.size, chosen], edges, axis=0)
        total = np.add.reduceat(self._sum[: self.size, chosen], edges, axis=0)
        count = np.add.reduceat(self._count[: self.size, chosen], edges, axis=0)
        return low, high, _mean(total, count)


def _mean(total: Floats, count: Floats) -> Floats:
    mean = np.full_like(total, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
