"""Where things are in a run folder, for readers that need neither torch nor a `RunFolder`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sim.track import Track, load_track

TRACES = "training-simtrace"
_ENDING = "-iteration.csv"


def saved_tracks(run: Path) -> list[Track]:
    """The run's tracks, in order and by their names; none where it holds none."""
    files = sorted((run / "inputs").glob("*.npy"))
    return [dataclasses.replace(load_track(file), name=file.stem[3:]) for file in files]


def trace_folders(run: Path) -> list[Path]:
    """The folders of DeepRacer's traces: the run's own, and those of several workers."""
    return [run / TRACES, *sorted(run.glob(f"[0-9]*/{TRACES}"))]


def iterations(folder: Path) -> list[tuple[int, Path]]:
    """The files N-iteration.csv of such a folder and their numbers, in order."""
    found = ((path.name.removesuffix(_ENDING), path) for path in folder.glob(f"*{_ENDING}"))
    return sorted((int(number), path) for number, path in found if number.isdigit())
