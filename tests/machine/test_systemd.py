"""The units booted by a real systemd, in a container: each test stands for a check of ``guest/check_services.py``.

``make test-systemd``. The car was installed there by ``tools/install-car.sh``, in an earlier boot of the same root.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine.car_root import car_layers
from tests.machine.conftest import skip_where_it_cannot_run
from tests.machine.guests import Guest, Report, checks, pytest_command, read_report

LIMIT_S = 2400.0  # it takes two minutes where the machine is idle
Tell = Callable[[str, Report], None]


@pytest.fixture(scope="module")
def report(folder: Path, bundle: Path, pictures: Path, tell: Tell) -> Report:
    skip_where_it_cannot_run("systemd")
    guest = Guest(folder / "systemd", car_layers())
    guest.bring(bundle, pictures)
    guest.at_boot(pytest_command("check_services.py"))
    found = read_report(guest.mnt, guest.nspawn(LIMIT_S))
    said = subprocess.run(["systemd-nspawn", "--version"], capture_output=True, text=True).stdout
    found.facts["systemd-nspawn"] = said.splitlines()[0]
    tell("systemd", found)
    return found


@pytest.mark.parametrize("check", checks("check_services.py"))
def test_systemd(check: str, report: Report) -> None:
    report.require(check)
