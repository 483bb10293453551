"""``hotlap import``: check DeepRacer's files, and say what will differ."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence

from sim.commands import emit
from trainer.deepracer import HYPERPARAMETERS, METADATA, REWARD, import_deepracer
from trainer.deepracer_hyperparameters import DIFFERS, Finding
from vehicle.config import to_toml


def import_command(args: argparse.Namespace) -> int:
    """Check a ``custom_files`` folder, or one of its files."""
    imported = import_deepracer(args.path)
    where = shlex.quote(str(args.path))
    option = {REWARD: "--reward", METADATA: "--action-space"}
    alone = next(iter(imported.files)) if args.path.is_file() else ""
    way = "--deepracer" if alone in ("", HYPERPARAMETERS) else option[alone]
    then = f"hotlap train {way} {where} --track NAME --out RUN"
    result = {
        "files": {name: str(path) for name, path in imported.files.items()},
        "findings": [dataclasses.asdict(finding) for finding in imported.findings],
        "config": to_toml(imported.config),
        "next": then,
    }
    emit(args.json, result, f"{table(imported.findings)}\nnext: {then}")
    return 0


def table(findings: Sequence[Finding]) -> str:
    """All findings, by file."""
    lines, file = [], None
    for finding in findings:
        if finding.file != file:
            file = finding.file
            lines.append(file or "simulator")
        lines.append(f"  {finding.verdict:9} {_key(finding):42} {finding.text}")
    return "\n".join(lines)


def notes(findings: Sequence[Finding]) -> str:
    """What differs, for somebody who only wants to train."""
    differ = [f for f in findings if f.verdict == DIFFERS]
    return "\n".join(f"{(f.file or 'simulator')}: {_key(f)}: {f.text}" for f in differ)


def _key(finding: Finding) -> str:
    return finding.key if finding.value in (None, "") else f"{finding.key} = {finding.value}"
