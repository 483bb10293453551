"""Machines that are booted for a test, and the checks that pytest runs inside them.

A guest is a Debian root under an overlay, so it begins anew each time, and a folder that it shares with us at ``/mnt``:
in it go the checks of ``tests/machine/guest``, a bundle and pictures; out come pytest's report, its words and figures.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from tests.machine.roots import private

GUEST = Path(__file__).parent / "guest"
HELPERS = ("vehicle/gate_process.py", "vehicle/actuators/fakes.py")  # of other tests, which checks use as well
PYTHON = "/opt/hotlap/venv/bin/python"
OPTIONS = (
    "-p no:cacheprovider -c /dev/null --rootdir=/mnt/checks --import-mode=importlib --junitxml=/mnt/junit.xml"
    " -o python_files='check_*.py' -o python_functions='check_*' -o junit_family=xunit1"
)

OVERLAY = """
work=$1 lower=$2; shift 2
mkdir -p "$work/upper" "$work/scratch" "$work/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/scratch" overlay "$work/root"
"""
# --register=no, --keep-unit and an empty /run: systemd need not be what started this machine, nor run on it.
NSPAWN = f"""{OVERLAY}
mount -t tmpfs tmpfs /run
exec systemd-nspawn --quiet --register=no --keep-unit --console=pipe --private-network --hostname=car \
    --directory="$work/root" --bind="$work/mnt:/mnt" "$@" \
    --boot systemd.journald.forward_to_console=1 systemd.show_status=0
"""
# What is run once the machine is up; then it is switched off.
UNIT = """[Unit]
Description=checks of hotlap
After=hotlap.target hotlap-gate.service multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh /mnt/run
StandardOutput=append:/mnt/log
StandardError=inherit
"""


# As far as sockets, devices and udev; the services of the car wait until a check starts them.
HALF_UP = """[Unit]
Description=this machine is up as far as checks of hotlap need it
Requires=basic.target
After=basic.target
Wants=hotlap-checks.service
AllowIsolate=yes
"""


def checks(*files: str) -> list[str]:
    """``FILE::NAME`` of every check in these files of ``guest``, in their order."""
    found = []
    for file in files:
        tree = ast.parse((GUEST / file).read_text())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        found += [f"{file}::{name}" for name in functions if name.startswith("check_")]
    return found


@dataclass
class Report:
    """What a guest's pytest said: for each check nothing where it passed, else the reason; and figures."""

    bad: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    words: str = ""

    def require(self, check: str) -> None:
        """Fail or skip the test that stands for this check, as the check did."""
        if check in self.skipped:
            pytest.skip(self.skipped[check])
        if check in self.bad:
            pytest.fail(self.bad[check], pytrace=False)
        if check not in self.passed:
            words, self.words = self.words, "see the first one"
            pytest.fail(f"it was not run: {words[-6000:]}", pytrace=False)


def read_report(mnt: Path, words: str) -> Report:
    """What is in the shared folder after a guest has ended; `words` is its console."""
    report = Report()
    log = mnt / "log"
    report.words = words[-3000:] + (log.read_text(errors="replace")[-6000:] if log.exists() else "")
    if (mnt / "facts.json").exists():
        report.facts = json.loads((mnt / "facts.json").read_text())
    if not (mnt / "junit.xml").exists():
        return report
    for case in ElementTree.parse(mnt / "junit.xml").iter("testcase"):
        name = f"{Path(case.get('file') or case.get('classname', '').split('.')[-1] + '.py').name}::{case.get('name')}"
        wrong = [one for kind in ("failure", "error") for one in case.iter(kind)]
        if wrong:
            report.bad[name] = "\n".join(f"{one.get('message')}\n{one.text}" for one in wrong)
        elif (skip := case.find("skipped")) is not None:
            report.skipped[name] = str(skip.get("message"))
        else:
            report.passed.add(name)
    return report


@dataclass
class Guest:
    """One machine in a folder of its own.

    Args:
        folder: made here; `folder/mnt` is shared.
        layers: roots, the uppermost first.
    """

    folder: Path
    layers: Sequence[Path]

    def __post_init__(self) -> None:
        self.mnt, self.units = self.folder / "mnt", self.folder / "upper/etc/systemd/system"
        (self.folder / "upper").mkdir(parents=True)
        self.mnt.mkdir()
        self.mnt.chmod(0o755)

    @property
    def lower(self) -> str:
        return ":".join(map(str, self.layers))

    def bring(self, bundle: Path, pictures: Path) -> None:
        """Copy checks, bundle and pictures to where the guest sees them."""
        tests = self.mnt / "checks/tests"
        shutil.copytree(GUEST, tests / "machine/guest", ignore=shutil.ignore_patterns("__pycache__"))
        for name in HELPERS:
            (tests / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "tests" / name, tests / name)
        shutil.copy(bundle, self.mnt / "bundle.tar.gz")
        shutil.copytree(pictures, self.mnt / "pictures")

    def at_boot(self, command: str, half: bool = False) -> None:
        """Run a shell script once the machine is up, or half up, and switch it off then."""
        (self.mnt / "run").write_text(command)
        wants = self.units / "multi-user.target.wants"
        wants.mkdir(parents=True)
        (self.units / "hotlap-checks.service").write_text(UNIT)
        (wants / "hotlap-checks.service").symlink_to("../hotlap-checks.service")
        (self.units / "half-up.target").write_text(HALF_UP)
        (self.units / "default.target").symlink_to(
            "half-up.target" if half else "/lib/systemd/system/multi-user.target"
        )

    def forget(self) -> None:
        """Take away what `at_boot` wrote, so that what the guest has done is a layer for others."""
        for name in ("hotlap-checks.service", "half-up.target", "default.target"):
            (self.units / name).unlink()
        (self.units / "multi-user.target.wants/hotlap-checks.service").unlink()

    def nspawn(self, timeout_s: float, *options: str) -> str:
        """Boot it in a container until it switches itself off; what its console said."""
        return self.boot(private(NSPAWN, self.folder, self.lower, *options), timeout_s)

    def boot(self, words: Sequence[object], timeout_s: float) -> str:
        """Run a command that is the machine; it is killed after that time."""
        begun_s = time.monotonic()
        log = self.folder / "console"
        with open(log, "wb") as file:
            # It must not outlive us, either.
            command = ["setpriv", "--pdeathsig=TERM", "timeout", "--kill-after=20", f"{timeout_s:g}", *map(str, words)]
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode
        said = log.read_text(errors="replace")
        took_s = time.monotonic() - begun_s
        return said + f"\nended with status {status} after {took_s:.0f} s (limit {timeout_s:.0f} s)\n"


def pytest_command(*files: str, python: str = PYTHON) -> str:
    """The shell command that runs these files of checks in a guest. Pytest lies beside the base install."""
    paths = " ".join(f"/mnt/checks/tests/machine/guest/{file}" for file in files)
    return f"PYTHONPATH=/opt/checks:/mnt/checks {python} -m pytest {OPTIONS} {paths}"
