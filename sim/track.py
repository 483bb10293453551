"""A track: a centre line and two borders, closed curves in metres, in the order of travel.

Left and right are those of a driver. DeepRacer's inner and outer border are the enclosed and the enclosing one, so the
inner border is the left one on a counter-clockwise track. Queries over many cars are in `sim.track_set`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.errors import TrackError
from sim.track_check import MAX_POINTS, check_lines

FloatArray = NDArray[np.float64]

SHIPPED_FOLDER = Path(__file__).resolve().parent / "tracks"
# Rows of real files close to the last bit; a millimetre allows for files that went through text with few digits.
_CLOSED_WITHIN_M = 1e-3
_COLUMNS = ("center x", "center y", "inner x", "inner y", "outer x", "outer y")


@dataclass(frozen=True, eq=False)
class Track:
    """A closed road. The constructor only normalises the arrays; `check_track` judges them.

    Args:
        name: how people call it.
        center: (N+1, 2) metres, in the order of travel, the first row repeated at the end.
        left: (N+1, 2) metres, the border on the driver's left.
        right: (N+1, 2) metres, the border on the driver's right.
        repeats: how often the file has each row of `center` one after the other; () is once each. Geometry does not
            care, but people's reward functions count waypoints as the file does.
    """

    name: str
    center: FloatArray
    left: FloatArray
    right: FloatArray
    repeats: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in ("center", "left", "right"):
            line = np.array(getattr(self, field), dtype=np.float64, order="C")
            line.setflags(write=False)  # shared by threads and by every cached property below
            object.__setattr__(self, field, line)

    @cached_property
    def s_m(self) -> FloatArray:
        """Distance along the centre line at each waypoint, (N+1,) metres, from 0 to `length_m`."""
        steps = np.hypot(*np.diff(self.center, axis=0).T)
        return np.concatenate(([0.0], np.cumsum(steps)))

    @cached_property
    def length_m(self) -> float:
        """Length of the centre line, metres."""
        return float(self.s_m[-1])

    @cached_property
    def is_ccw(self) -> bool:
        """Whether travel is counter-clockwise."""
        return signed_area_m2(self.center) > 0.0

    @cached_property
    def width_m(self) -> float:
        """Median distance between the paired border points, metres."""
        return float(np.median(np.hypot(*(self.left - self.right).T)))

    @cached_property
    def waypoints(self) -> list[tuple[float, float]]:
        """The centre line as DeepRacer's ``waypoints``: (x, y) tuples, metres, the closing duplicate included.

        As many as the file has rows. Made once and shared: give a copy to code that may change it.
        """
        return [(float(x), float(y)) for x, y in self._as_in_file(self.center)]

    @cached_property
    def waypoint_numbers(self) -> NDArray[np.int64]:
        """(N+1,) where each row of `center` is in `waypoints`; the last place of a repeated one, as bisect_right."""
        return np.cumsum(self.repeats or np.ones(len(self.center)), dtype=np.int64) - 1

    def _as_in_file(self, rows: FloatArray) -> FloatArray:
        return np.repeat(rows, self.repeats, axis=0) if self.repeats else rows

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) of the road, metres."""
        road = np.concatenate((self.left, self.right))
        (xmin, ymin), (xmax, ymax) = road.min(axis=0), road.max(axis=0)
        return float(xmin), float(ymin), float(xmax), float(ymax)

    @property
    def inner(self) -> FloatArray:
        """DeepRacer's inner border: the one that the other encloses, (N+1, 2) metres."""
        return self.left if self.is_ccw else self.right

    @property
    def outer(self) -> FloatArray:
        """DeepRacer's outer border: the one that encloses the other, (N+1, 2) metres."""
        return self.right if self.is_ccw else self.left

    def reversed(self) -> Track:
        """The same road driven the other way, named NAME_reversed."""
        return Track(f"{self.name}_reversed", self.center[::-1], self.right[::-1], self.left[::-1], self.repeats[::-1])

    def mirrored(self) -> Track:
        """The road seen in a mirror (x becomes -x): left bends become right bends; named NAME_mirrored."""
        flip = np.array([-1.0, 1.0])
        return Track(f"{self.name}_mirrored", self.center * flip, self.right * flip, self.left * flip, self.repeats)


def signed_area_m2(ring: FloatArray) -> float:
    """Area enclosed by a closed (N+1, 2) ring in square metres, positive when it runs counter-clockwise."""
    x, y = (ring - ring[0]).T  # about its own first point: far from the origin the products would lose digits
    return float(0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def shipped_names() -> list[str]:
    """Names of the tracks that come with hotlap, sorted."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.npy"))


def track_path(name: str) -> Path:
    """The file of a shipped track. Raises TrackError for an unknown name."""
    names = shipped_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f" the nearest shipped name is {nearest[0]!r};" if nearest else ""
        raise TrackError(
            f"no track is called {name!r}",
            cause=f"a spelling mistake:{hint} a file needs its .npy ending",
            next_step="hotlap tracks",
        )
    return SHIPPED_FOLDER / f"{name}.npy"


def load_track(name_or_path: str | Path) -> Track:
    """Load a shipped track by name, or a DeepRacer (N, 6) ``.npy`` file by path, and check it.

    Raises:
        TrackError: unknown name, unreadable file, or a road that `check_track` refuses.
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    is_file_name = isinstance(name_or_path, Path) or path.suffix == ".npy" or len(path.parts) > 1
    if not is_file_name:
        path = track_path(text)
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise TrackError(
            f"there is no track file {text}",
            cause="the path is wrong, or a shipped track was meant (give its name without .npy)",
            next_step="hotlap tracks",
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise TrackError(
            f"{text} cannot be read as a track: {error}",
            cause="it is not a NumPy .npy file of numbers",
            next_step="hotlap tracks show NAME, to see one that works",
        ) from error
    if not isinstance(array, np.ndarray):  # an .npz archive
        array.close()
        raise TrackError(
            f"{text} is an archive of arrays, not one array", cause="an .npz file was given", next_step="hotlap tracks"
        )
    return track_from_array(array, path.stem)


def track_from_array(array: ArrayLike, name: str) -> Track:
    """A checked track from DeepRacer's table.

    Which border is left is decided by the geometry (the one with the smaller enclosed area is inner), not by the
    columns. Rows whose centre repeats the row before are dropped from all three lines, and counted: six of ten real
    files have one.

    Args:
        array: (N, 6) metres: center x, y, inner x, y, outer x, y; first row equal to the last.
        name: the track's name.

    Raises:
        TrackError: wrong shape, numbers not finite, an open line, or a road that `check_track` refuses.
    """
    table = np.asarray(array)
    if table.ndim != 2 or table.shape[1] != 6 or table.dtype.kind not in "fiu" or not 5 <= len(table) <= MAX_POINTS:
        raise TrackError(
            f"track {name!r} is an array of shape {table.shape} and type {table.dtype}; "
            f"wanted (N, 6) numbers with N from 5 to {MAX_POINTS}",
            cause="it is not in DeepRacer's form: center x, y, inner x, y, outer x, y in metres",
            next_step="hotlap tracks show NAME, to see one that works",
        )
    table = table.astype(np.float64)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        raise TrackError(
            f"track {name!r}: {len(bad)} of {table.size} numbers are not finite, "
            f"the first in row {row} ({_COLUMNS[column]})",
            cause="the file is damaged, or a border was computed by dividing by a distance of zero",
            next_step="remove these rows or export the track again",
        )
    gaps_m = np.hypot(*(table[-1] - table[0]).reshape(3, 2).T)
    for line, gap_m in zip(("centre", "inner border", "outer border"), gaps_m, strict=True):
        if gap_m <= _CLOSED_WITHIN_M:
            continue
        raise TrackError(
            f"track {name!r} is open: the last point of its {line} is {gap_m:.3f} m from the first",
            cause="it is a drag strip, or the first row is not repeated at the end",
            next_step="close it: repeat the first row as the last row",
        )
    table[-1] = table[0]
    moved = np.any(table[1:, :2] != table[:-1, :2], axis=1)
    kept = np.flatnonzero(np.concatenate(([True], moved)))
    repeats = tuple(np.diff(np.append(kept, len(table))).tolist()) if len(kept) < len(table) else ()
    table = table[kept]
    table[-1] = table[0]  # the last row itself may have been the repeated one
    center, first, second = table[:, 0:2], table[:, 2:4], table[:, 4:6]
    inner, outer = (first, second) if abs(signed_area_m2(first)) <= abs(signed_area_m2(second)) else (second, first)
    left, right = (inner, outer) if signed_area_m2(center) > 0.0 else (outer, inner)
    track = Track(name, center, left, right, repeats)
    check_track(track)
    return track


def track_to_array(track: Track) -> FloatArray:
    """DeepRacer's table: center, inner, outer, metres; repeated rows are repeated."""
    return track._as_in_file(np.concatenate((track.center, track.inner, track.outer), axis=1))


def save_track(track: Track, path: str | Path) -> None:
    """Write DeepRacer's ``.npy`` form. Raises OSError where the file cannot be written."""
    with Path(path).open("wb") as file:  # np.save would append .npy to other names
        np.save(file, track_to_array(track), allow_pickle=False)


def check_track(track: Track) -> None:
    """Refuse a road that cars cannot race on, naming the reason, the place and the measured value.

    Raises:
        TrackError: wrong shape, not finite, open, too short, self-crossing, borders that cross or lie on the wrong
            side, or too narrow.
    """
    check_lines(track.name, track.center, track.left, track.right)
