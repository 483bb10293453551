"""The pages have words for everything that the gate may say against driving."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = (ROOT / "calibration/static/words.js").read_text()
HIDDEN = {"disarmed"}  # that nobody has pressed Start is no reason worth telling


def keys(table: str) -> set[str]:
    """The keys of a table of words.js."""
    body = re.search(rf"const {table} = \{{(.*?)^\}};", WORDS, re.DOTALL | re.MULTILINE)
    assert body is not None
    return set(re.findall(r"^  (\w+):", body[1], re.MULTILINE))


def test_every_blocked_reason_has_words() -> None:
    said: set[str] = set()
    for path in sorted((ROOT / "vehicle").glob("*.py")):
        said |= set(re.findall(r'Blocked\(\s*"(\w+)"', path.read_text()))
    assert {"stopped", "no_model", "stale_frame", "battery"} <= said
    assert said - keys("REASONS") - HIDDEN == set()


def test_every_fault_of_the_gate_has_words() -> None:
    source = (ROOT / "vehicle/gate_core.py").read_text() + (ROOT / "vehicle/arming.py").read_text()
    faults = set(re.findall(r'"(\w+_lost)"', source)) | {"actuator", "guard", "log"}
    assert {"lease_lost", "console_lost"} <= faults
    assert faults - keys("FAULTS") == set()
