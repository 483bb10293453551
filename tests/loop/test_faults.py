"""The fault matrix, once: every case within its limit, in time altogether, and docs/faults.md about the same cases."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT
from vehicle.fault_bench import Case, Result, run
from vehicle.fault_cases import CASES, GROUPS
from vehicle.fault_report import MARK

pytestmark = pytest.mark.slow

ALL_WITHIN_S = 90.0
LEAST_CASES = 40
_ROW = re.compile(r"\| ([^|]+) \| ([^|]+) \| (\d+) \| [\d-]+ \|.*\|")


@dataclass(frozen=True)
class Matrix:
    results: dict[str, Result]
    wall_s: float


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    begun_s = time.monotonic()
    results = run(GROUPS)
    yield Matrix({result.case.name: result for result in results}, time.monotonic() - begun_s)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_neutral_within_the_limit_and_stays_so(matrix: Matrix, case: Case) -> None:
    result = matrix.results[case.name]
    if result.skipped:
        pytest.skip(result.skipped)
    assert not result.problems, (result.problems, f"machine late by {result.late_ms} ms", result.retried)
    assert result.neutral_ms is not None
    assert 0.0 <= result.neutral_ms <= case.limit_ms


def test_there_are_enough_cases_and_they_take_little_time(matrix: Matrix) -> None:
    assert sum(result.ok for result in matrix.results.values()) >= LEAST_CASES
    assert matrix.wall_s < ALL_WITHIN_S


def test_the_docs_list_the_same_cases_and_limits() -> None:
    table = (ROOT / "docs" / "faults.md").read_text().partition(MARK)[2]
    listed = [_ROW.fullmatch(line) for line in table.splitlines()]
    assert {(f"{row[1]}: {row[2]}", float(row[3])) for row in listed if row} == {
        (case.name, case.limit_ms) for case in CASES
    }
    assert "**missed**" not in table
