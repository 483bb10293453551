"""The back-ends on a stock Debian kernel in QEMU: each test stands for a check of ``guest/check_*.py``.

``make test-kernel``. The car is the one that test_systemd.py's installation made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine import qemu
from tests.machine.car_root import car_layers
from tests.machine.conftest import skip_where_it_cannot_run
from tests.machine.guests import Guest, Report, checks, pytest_command, read_report
from tests.machine.linux import linux

FILES = ("check_pca9685.py", "check_sysfs_pwm.py", "check_v4l2.py", "check_whole_car.py")
LIMIT_S = 5400.0  # it takes minutes where the machine is idle
Tell = Callable[[str, Report], None]


@pytest.fixture(scope="module")
def report(folder: Path, bundle: Path, pictures: Path, tell: Tell) -> Report:
    skip_where_it_cannot_run("kernel")
    guest = Guest(folder / "kernel", car_layers())
    guest.bring(bundle, pictures)
    guest.at_boot(pytest_command(*FILES), half=True)
    found = read_report(guest.mnt, qemu.boot(guest, linux(), LIMIT_S))
    found.facts["QEMU"] = f"{qemu.version()}, TCG"
    tell("kernel", found)
    return found


@pytest.mark.parametrize("check", checks(*FILES))
def test_kernel(check: str, report: Report) -> None:
    report.require(check)
