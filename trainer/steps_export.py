"""Every logged step of a run as one table: ``hotlap export RUN --steps FILE.csv|FILE.parquet``."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.errors import RunError, RunStorageError, TrainerError
from trainer.run_files import iterations, trace_folders

_FLAGS = ("done", "all_wheels_on_track")
_WORDS = ("action", "episode_status")
_WHOLE = ("episode", "closest_waypoint", "obstacle_crash_counter")


class NoParquet(TrainerError, ImportError):
    """Parquet is asked for and pyarrow is not installed."""


def export_steps(run: Path, target: Path) -> int:
    """Write the rows of all iterations, in order, and return how many there are.

    With several workers a column ``worker`` comes first. The file appears whole or not at all.

    Raises:
        RunError: the run logged no steps, or the file's name ends in neither .csv nor .parquet.
        NoParquet: pyarrow is missing; RunStorageError: it cannot be written.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise RunError(f"{target}: .csv or .parquet is wanted", next_step=f"hotlap export {run} --steps steps.csv")
    files = _files(run)
    if not files:
        raise RunError(
            f"{run} has no logged steps: no training-simtrace/*-iteration.csv",
            cause="it was trained with --traces none",
            next_step="train with --traces all",
        )
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        count = (_write_csv if target.suffix == ".csv" else _write_parquet)(files, temporary)
        temporary.replace(target)
    except OSError as error:
        raise RunStorageError(f"{target}: {error.strerror or error}", next_step="make room, or name another") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _files(run: Path) -> list[tuple[str, Path]]:
    """(worker, file) in order; the worker is "" where there is one only."""
    return [
        ("" if folder.parent == run else folder.parent.name, path)
        for folder in trace_folders(run)
        for _, path in iterations(folder)
    ]


def _lines(path: Path) -> Iterator[str]:
    with open(path) as file:
        yield from (line for line in file if line.endswith("\n"))  # the last one may be half


def _write_csv(files: list[tuple[str, Path]], target: Path) -> int:
    count, several = 0, any(worker for worker, _ in files)
    with open(target, "w") as out:
        for number, (worker, path) in enumerate(files):
            lines = _lines(path)
            header = next(lines, "")
            if number == 0:
                out.write("worker," + header if several else header)
            for line in lines:
                out.write(f"{worker},{line}" if several else line)
                count += 1
    return count


def _write_parquet(files: list[tuple[str, Path]], target: Path) -> int:
    try:
        pa: Any = importlib.import_module("pyarrow")
        arrow_csv: Any = importlib.import_module("pyarrow.csv")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NoParquet(
            "Parquet needs pyarrow, which is not installed",
            cause="it is 40 MB, and nothing else here needs it",
            next_step="pip install pyarrow, or --steps FILE.csv",
        ) from error
    with open(files[0][1]) as file:
        names = file.readline().strip().split(",")
    kinds = {
        name: pa.bool_() if name in _FLAGS else pa.string() if name in _WORDS else pa.int64() if name in _WHOLE
        else pa.float64()
        for name in names
    }  # fmt: skip
    count, writer = 0, None
    options = arrow_csv.ConvertOptions(column_types=kinds, true_values=["True"], false_values=["False"])
    try:
        for worker, path in files:
            table = arrow_csv.read_csv(io.BytesIO("".join(_lines(path)).encode()), convert_options=options)
            if any(one for one, _ in files):
                table = table.add_column(0, "worker", pa.array([worker] * len(table), pa.string()))
            writer = writer or parquet.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(table)
            count += len(table)
    finally:
        if writer is not None:
            writer.close()
    return count
