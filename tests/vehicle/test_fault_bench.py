"""The judge of the fault matrix: a train that is late, moves again, stops or was never moving must not pass."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from vehicle import fault_bench
from vehicle.errors import ConfigError
from vehicle.fault_bench import Case, Group, Result, judge, latest_ms, run_group
from vehicle.fault_cases import CASES
from vehicle.fault_report import MARK, faults, markdown, summary
from vehicle.fault_rigs import Setup
from vehicle.options import bench_faults_options
from vehicle.trace import TraceRow

NEUTRAL_US, CENTER_US, DRIVE_US, LEFT_US = 1446.0, 1450.0, 1400.0, 1550.0
FAULT_S = 10.0


def case(**changes: Any) -> Case:
    good = {"fault": "a fault", "component": "gate", "limit_ms": 100.0, "inject": lambda rig: FAULT_S}
    return Case(**{**good, **changes})


def train(*pulses: tuple[float, float, float, str]) -> list[TraceRow]:
    """Of (milliseconds after the fault, steering, throttle, cause)."""
    rows = []
    for ms, steering_us, throttle_us, cause in pulses:
        t_s = FAULT_S + ms / 1e3
        rows += [TraceRow(t_s, "steering", steering_us, cause), TraceRow(t_s, "throttle", throttle_us, cause)]
    return rows


def driving(to_ms: int = 0) -> list[tuple[float, float, float, str]]:
    """Every 20 ms, the last one at `to_ms`."""
    return [(ms, LEFT_US, DRIVE_US, "drive") for ms in range(-400, to_ms + 1, 20)]


def neutral(from_ms: int, frames: int = 12, cause: str = "neutral:exit") -> list[tuple[float, float, float, str]]:
    return [(from_ms + 20 * i, CENTER_US, NEUTRAL_US, cause) for i in range(frames)]


def verdict(*pulses: tuple[float, float, float, str], **changes: Any) -> tuple[float | None, str]:
    neutral_ms, problems = judge(train(*pulses), case(**changes), NEUTRAL_US, FAULT_S)
    return neutral_ms, "; ".join(problems)


def test_a_good_train_passes() -> None:
    assert verdict(*driving(-10), *neutral(40)) == (40.0, "")
    assert verdict(*driving(20), *neutral(40), steady=True, by="neutral:exit") == (40.0, "")


@pytest.mark.parametrize(
    ("pulses", "changes", "words"),
    (
        ((*driving(100), *neutral(101)), {}, "neutral after 101 ms, allowed are 100"),
        ((*driving(500),), {}, "no neutral pulse after the fault"),
        ((*driving(-100), *neutral(-80, 40)), {}, "void"),
        (neutral(40), {}, "void"),
        ((*driving(), *neutral(40), (500, CENTER_US, DRIVE_US, "drive"), *neutral(520)), {}, "moving again 500 ms"),
        ((*driving(), *neutral(40), (500, CENTER_US, NEUTRAL_US + 0.001, "drive")), {}, "moving again 500 ms"),
        ((*driving(), *neutral(40, 9)), {}, "neutral for 9 pulses"),
        ((*driving(), *[(40 + i, CENTER_US, NEUTRAL_US, "neutral:exit") for i in range(12)]), {}, "10 frames"),
        ((*driving(), *neutral(40, cause="neutral:stale_intent")), {"by": "neutral:exit"}, "not neutral:exit"),
        ((*driving(), (20, LEFT_US, DRIVE_US - 20, "drive"), *neutral(40)), {"steady": True}, "a throttle pulse after"),
        ((*driving(), (20, LEFT_US + 9, DRIVE_US, "drive"), *neutral(40)), {"steady": True}, "a steering pulse after"),
    ),
)
def test_what_is_wrong_with_a_train_is_said(pulses: Any, changes: dict[str, Any], words: str) -> None:
    assert words in verdict(*pulses, **changes)[1]


def test_the_machine_was_late_where_the_gate_was_not_let_run() -> None:
    rows = train(*driving(), *neutral(90, cause="neutral:guard_gate_silent"), *neutral(400))
    assert latest_ms(rows, FAULT_S - 0.2, FAULT_S) == 20.0
    assert latest_ms(rows, FAULT_S - 0.2, FAULT_S + 1.0) == 400.0  # the guard's pulses are not the gate's


class FakeRig:
    """Stands in for the processes: what each try gives is said before."""

    made = 0

    def __init__(self, setup: Setup, bundle: Path) -> None:
        type(self).made += 1

    def close(self) -> None:
        pass


MISS, VOID_CASE, GOOD = ("neutral after 300 ms, allowed are 100",), ("void: it stood",), ()


@pytest.mark.parametrize(
    ("tries", "ok", "retried", "voids"),
    (
        ([(GOOD, 20.0)], True, False, 0),
        ([(MISS, 60.0)], False, False, 0),  # the machine was not late: that is a miss
        ([(MISS, 61.0), (GOOD, 20.0)], True, True, 0),
        ([(MISS, 61.0), (MISS, 99.0)], False, True, 0),
        ([(VOID_CASE, 20.0), (GOOD, 20.0)], True, False, 1),
        ([(VOID_CASE, 20.0), (VOID_CASE, 99.0), (MISS, 99.0), (GOOD, 20.0)], True, True, 2),
        ([(VOID_CASE, 20.0), (VOID_CASE, 20.0), (VOID_CASE, 20.0)], False, False, 2),
    ),
)
def test_a_miss_is_tried_again_once_if_the_machine_was_late_and_a_void_case_twice(
    monkeypatch: pytest.MonkeyPatch, tries: list[tuple[tuple[str, ...], float]], ok: bool, retried: bool, voids: int
) -> None:
    left = list(tries)
    FakeRig.made = 0

    def run_case(rig: object, tried: Case) -> Result:
        problems, late_ms = left.pop(0)
        return Result(tried, 1.0, problems, late_ms)

    monkeypatch.setattr(fault_bench, "Rig", FakeRig)
    monkeypatch.setattr(fault_bench, "run_case", run_case)
    told: list[Result] = []
    run_group(Group(Setup(), (case(),)), Path(), told.append, lambda: False)
    assert [(result.ok, result.retried, result.voids) for result in told] == [(ok, retried, voids)]
    assert not left
    assert FakeRig.made == len(tries)  # none goes on with what a failed one left behind


def test_the_matrix_is_large_and_no_name_occurs_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


# --- the report


def results() -> list[Result]:
    return [
        Result(case(fault="one", note="why"), 12.0, retried=True),
        Result(case(fault="two", component="pilot"), 120.0, ("neutral after 120 ms, allowed are 100",)),
        Result(case(fault="three"), skipped="needs a thing"),
    ]


def test_what_was_skipped_is_no_case_and_what_missed_is_named() -> None:
    report = summary(results(), 3.21)
    assert [(one["name"], one["neutral_ms"], one["limit_ms"], one["ok"]) for one in report["cases"]] == [
        ("gate: one", 12.0, 100.0, True), ("pilot: two", 120.0, 100.0, False),
    ]  # fmt: skip
    assert report["skipped"] == [{"name": "gate: three", "reason": "needs a thing"}]
    assert report["missed"] == ["pilot: two"]


def test_the_table_is_by_component() -> None:
    rows = markdown(results(), 3.21).splitlines()
    assert rows[0].startswith("2 cases in 3 s")
    assert rows[4:] == [
        "| gate | one | 100 | 12 | why; tried twice: the machine was late |",
        "| gate | three | 100 | - | skipped: needs a thing |",
        "| pilot | two | 100 | 120 | **missed**: neutral after 120 ms, allowed are 100 |",
    ]


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_faults_options(parser)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS)  # of the front door
    return parser.parse_args(words)


def test_a_part_of_the_matrix_runs_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(options("--only", "intents: speed is NaN", "--json")) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert [one["name"] for one in report["cases"]] == ["intents: speed is NaN"]
    assert 0.0 <= report["cases"][0]["neutral_ms"] <= report["cases"][0]["limit_ms"] == 200.0
    assert "1 of 1: intents: speed is NaN" in said.err


@pytest.mark.parametrize(
    ("words", "what"),
    (
        (("--only", "the moon"), "no case's name contains"),
        (("--only", "pilot", "--markdown", "{file}"), "the whole matrix"),
        (("--markdown", "{file}"), "no place for the table"),
        (("--markdown", "{file}.not"), "cannot be read"),
    ),
)
def test_bad_options_run_nothing(tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    file = tmp_path / "faults.md"
    file.write_text("# By hand\n")
    with pytest.raises(ConfigError, match=what):
        faults(options(*(word.format(file=file) for word in words)))
    assert file.read_text() == "# By hand\n"
    assert MARK not in file.read_text()
