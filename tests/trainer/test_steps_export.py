"""Every logged step as one table."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from trainer.errors import RunError
from trainer.steps_export import NoParquet, export_steps
from trainer.trace_log import HEADER

ROW = "{},{}.0000,1.0000,2.0000,90.0000,0.00,1.00,{},0.5000,False,True,3.0000,3,20.00,1.0000,in_progress,0.00,0,12.0000"


def make_run(folder: Path) -> Path:
    for number in (0, 1, 10, 2):
        path = folder / "training-simtrace" / f"{number}-iteration.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [ROW.format(number, step, "[3.5 0.7]") for step in (1, 2, 3)]
        path.write_text("\n".join([HEADER, *rows, ""]) + ("11,1.00" if number == 10 else ""))
    return folder


def test_csv_has_every_whole_row_in_order(tmp_path: Path) -> None:
    target = tmp_path / "steps.csv"
    assert export_steps(make_run(tmp_path / "run"), target) == 12
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [int(row["episode"]) for row in rows[::3]] == [0, 1, 2, 10]
    assert rows[0]["action"] == "[3.5 0.7]" and list(rows[0]) == HEADER.split(",")


def test_rows_of_several_workers_say_whose_they_are(tmp_path: Path) -> None:
    for worker in ("0", "1"):
        make_run(tmp_path / "run" / worker)
    target = tmp_path / "steps.csv"
    assert export_steps(tmp_path / "run", target) == 24
    assert [row["worker"] for row in csv.DictReader(target.read_text().splitlines())] == ["0"] * 12 + ["1"] * 12


def test_parquet_or_what_it_needs(tmp_path: Path) -> None:
    run, target = make_run(tmp_path / "run"), tmp_path / "steps.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(NoParquet) as caught:
            export_steps(run, target)
        assert "pip install pyarrow" in caught.value.next_step and not list(tmp_path.glob("*.parquet"))
        return
    from pyarrow import parquet

    assert export_steps(run, target) == 12
    table = parquet.read_table(target)
    assert table.num_rows == 12 and table.column("done").to_pylist() == [False] * 12
    assert table.column("action")[0].as_py() == "[3.5 0.7]"


def test_no_steps_and_no_such_format_are_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no logged steps"):
        export_steps(tmp_path, tmp_path / "a.csv")
    with pytest.raises(RunError, match="parquet is wanted"):
        export_steps(make_run(tmp_path / "run"), tmp_path / "a.xlsx")
