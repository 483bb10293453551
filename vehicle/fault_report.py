"""``hotlap bench faults``: runs the fault matrix, prints it, and writes the table of docs/faults.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vehicle.client import emit
from vehicle.errors import ConfigError

if TYPE_CHECKING:
    from vehicle.fault_bench import Result

MARK = "<!-- hotlap bench faults --markdown writes what follows -->"
_HEADINGS = ("component", "fault", "limit, ms", "neutral after, ms", "note")


def faults(args: argparse.Namespace) -> int:
    """Run ``hotlap bench faults``.

    Returns:
        the exit status: 1 where a case misses its limit.

    Raises:
        ConfigError: no case has such a name, or the file of ``--markdown`` has no mark.
    """
    from vehicle.fault_bench import Group, run
    from vehicle.fault_cases import GROUPS

    groups = [Group(group.setup, tuple(c for c in group.cases if args.only in c.name)) for group in GROUPS]
    wanted = sum(len(group.cases) for group in groups)
    if not wanted:
        raise ConfigError(f"no case's name contains {args.only!r}", next_step="hotlap bench faults lists them all")
    head = None if args.markdown is None else _head(args.markdown, args.only)
    begun_s = time.monotonic()
    done = 0

    def told(result: Result) -> None:
        nonlocal done
        done += 1
        print(f"faults: {done} of {wanted}: {_line(result)}", file=sys.stderr, flush=True)

    results = run([group for group in groups if group.cases], told)
    wall_s = time.monotonic() - begun_s
    report = summary(results, wall_s)
    if head is not None:
        args.markdown.write_text(head + markdown(results, wall_s))
    emit(getattr(args, "json", False), report, _text(report))
    return 1 if report["missed"] else 0


def summary(results: Sequence[Result], wall_s: float) -> dict[str, Any]:
    """The result as JSON has it; what was skipped is not among the cases."""
    return {
        "cases": [
            {
                "name": result.case.name,
                "neutral_ms": result.neutral_ms,
                "limit_ms": result.case.limit_ms,
                "component": result.case.component,
                "fault": result.case.fault,
                "ok": result.ok,
                "problems": list(result.problems),
                "machine_late_ms": result.late_ms,
                "retried": result.retried,
                "voids": result.voids,
                "note": result.case.note,
            }
            for result in results
            if not result.skipped
        ],
        "skipped": [{"name": result.case.name, "reason": result.skipped} for result in results if result.skipped],
        "missed": [result.case.name for result in results if result.problems],
        "wall_s": round(wall_s, 1),
    }


def markdown(results: Sequence[Result], wall_s: float) -> str:
    """The table, by component, with a line about the run before it."""
    measured = [result for result in results if not result.skipped]
    order = list(dict.fromkeys(result.case.component for result in results))
    rows = [
        (
            result.case.component,
            result.case.fault,
            f"{result.case.limit_ms:g}",
            "-" if result.neutral_ms is None else f"{result.neutral_ms:.0f}",
            _note(result),
        )
        for result in sorted(results, key=lambda result: order.index(result.case.component))
    ]
    lines = [
        f"{len(measured)} cases in {wall_s:.0f} s, with {os.cpu_count()} processors that others use as well.",
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "|---|---|---:|---:|---|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _note(result: Result) -> str:
    words = [result.case.note, *_tries(result)]
    if result.skipped:
        words.append(f"skipped: {result.skipped}")
    words += ["**missed**: " + problem.splitlines()[0] for problem in result.problems]
    return "; ".join(word for word in words if word)


def _tries(result: Result) -> list[str]:
    words = ["tried twice: the machine was late"] if result.retried else []
    return [*words, f"void before, {result.voids} x: it was not driving"] if result.voids else words


def _head(path: Path, only: str) -> str:
    """What is written by hand, mark included."""
    if only:
        raise ConfigError("--markdown needs the whole matrix", next_step="leave out --only")
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise ConfigError(
            f"{path} has no place for the table", next_step=f"put this line where the table is to be: {MARK}"
        )
    return f"{head}{mark}\n\n"


def _line(result: Result) -> str:
    if result.skipped:
        return f"{result.case.name}: skipped, {result.skipped}"
    shown = "never neutral" if result.neutral_ms is None else f"neutral after {result.neutral_ms:.0f} ms"
    line = f"{result.case.name}: {shown} (limit {result.case.limit_ms:g})"
    line = ", ".join([line, *_tries(result)])
    return line + "".join(f"\n    MISSED: {problem}" for problem in result.problems)


def _text(report: dict[str, Any]) -> str:
    cases, missed = report["cases"], report["missed"]
    width = max((len(case["name"]) for case in cases), default=0)
    lines = []
    for case in cases:
        shown = "never" if case["neutral_ms"] is None else f"{case['neutral_ms']:.0f}"
        verdict = "" if case["ok"] else "  MISSED"
        lines.append(f"{case['name']:{width}}  {shown:>5} of {case['limit_ms']:3g} ms{verdict}")
    lines += [f"{one['name']}: skipped, {one['reason']}" for one in report["skipped"]]
    lines.append(f"{len(cases)} cases in {report['wall_s']:.0f} s, {len(missed)} missed")
    return "\n".join(lines)
