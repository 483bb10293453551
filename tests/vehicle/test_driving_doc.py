"""docs/driving.md against the code: the reasons, the figures, and the commands that are told to people."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import hotlap
from vehicle import client, pilot_core, supervisor
from vehicle.arming import Limits
from vehicle.car_config import DriveConfig
from vehicle.guard import SILENCE_S
from vehicle.slot_state import MAX_FAILED_TRIALS
from vehicle.trace import HEADER

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "driving.md").read_text()
SOURCES = ("vehicle/arming.py", "vehicle/gate_core.py")


def blocked_in_code() -> set[str]:
    """The first argument of every Blocked(...) in the gate's decisions."""
    found = set()
    for name in SOURCES:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Blocked":
                reason = node.args[0]
                assert isinstance(reason, ast.Constant) and isinstance(reason.value, str), ast.unparse(node)
                found.add(reason.value)
    return found


def reasons_in_doc() -> list[str]:
    """The first column of the table under "Why it does not drive"."""
    section = DOC.partition("## Why it does not drive")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z_]+)` \|", section, flags=re.MULTILINE)


def test_every_reason_is_in_the_doc_once(tmp_path: Path) -> None:
    silent = {one["reason"] for one in client.status(tmp_path)["blocked"]}  # where nothing runs
    assert silent == {"gate_not_running", "pilot_not_running"}
    listed = reasons_in_doc()
    assert len(listed) == len(set(listed)) > 15
    assert set(listed) == blocked_in_code() | silent


@pytest.mark.parametrize(
    "figure",
    [
        f"{1e3 * Limits().intent_age_s:.0f} ms",
        f"{1e3 * Limits().frame_age_s:.0f} ms",
        f"{1e3 * Limits().lease_s:.0f} ms",
        f"{1e3 * Limits().gap_s:.0f} ms",
        f"{1e3 * pilot_core.MAX_FRAME_AGE_S:.0f} ms",
        f"{1e3 * SILENCE_S:.0f} ms",
        f"{Limits().startup_neutral_frames} neutral frames",
        f"{DriveConfig().trial_cap_percent:.0f} %",
        f"{MAX_FAILED_TRIALS} times",
        f"{supervisor._PILOT_RESTARTS} times",
        HEADER,
    ],
)
def test_its_figures_are_those_of_the_code(figure: str) -> None:
    assert figure in " ".join(DOC.split())


def cures() -> str:
    """Every text of the code that makes the reasons, a line each."""
    nodes = [node for name in SOURCES for node in ast.walk(ast.parse((ROOT / name).read_text()))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(text for text in texts if "\n" not in text)  # docstrings are for readers of the code


def test_the_cures_name_commands_that_exist() -> None:
    found = re.findall(r"\bhotlap((?: (?:[a-z]+|[A-Z]+|--[a-z]+))+)", cures())
    assert {"stop --reset", "disarm", "doctor", "models install BUNDLE --activate"} <= {text.strip() for text in found}
    for text in found:
        hotlap.build_parser().parse_args(text.split())


def test_the_doc_names_commands_that_exist() -> None:
    found = re.findall(r"^ {4}hotlap (.+)$|`hotlap ([^`]+)`", DOC, flags=re.MULTILINE)
    assert len(found) > 20
    for block, span in found:
        hotlap.build_parser().parse_args(shlex.split(block or span))
