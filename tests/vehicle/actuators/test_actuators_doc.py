"""docs/actuators.md against the code: the tests that its table names exist, and no back-end is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vehicle.actuators.registry import BUILT_IN

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "actuators.md").read_text()
TABLE = TEXT.partition("## Who fails safe")[2].partition("\n`none` moves nothing")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")]
NAMED = sorted(set(re.findall(r"`([a-z_/]+/test_[a-z0-9_]+\.py)(?:::(test_[a-z0-9_]+))?`", TABLE)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_the_table_names_exists(file: str, test: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert not test or f"def {test}(" in text


def test_the_table_has_every_fault_for_every_back_end() -> None:
    assert len(NAMED) > 15 and ROWS[0] == ["fault", "back-end", "what the wheels do", "shown by", "untested"]
    faults: dict[str, str] = {}
    fault = ""
    for row in ROWS[1:]:
        assert len(row) == 5 and all(row[1:]), row
        fault = row[0] or fault
        faults[fault] = f"{faults.get(fault, '')} {row[1]}"
    everybody = set(BUILT_IN) - {"none"}
    for fault, backends in faults.items():
        found = set(re.findall(r"`([a-z0-9_]+)`", backends))
        # A simulated car has no kernel and no chip.
        allowed = {"sim"} if fault.startswith(("kernel hung", "the chip")) else set()
        assert backends.strip() == "all" or everybody - found <= allowed, (fault, found)
    assert len(faults) == 7
    for word in ("real ESC", "scillator", "baud error"):
        assert word in TEXT
