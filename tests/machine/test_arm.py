"""The base install on aarch64, under qemu-user: each test stands for a check of ``guest/check_arm.py``.

``make test-arm``. The bundles are exported here, on x86, so their golden vectors are another processor's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sim.car_spec import CarSpec
from tests.machine import arm
from tests.machine.conftest import skip_where_it_cannot_run
from tests.machine.guests import Guest, Report, checks, pytest_command, read_report
from tests.vehicle.pilot_rig import noise
from trainer.export import export_bundle
from trainer.networks import Policy
from vehicle.action_space import default_action_space

LIMIT_S = 3600.0  # it takes two minutes where the machine is idle
NETWORKS = ("HOTLAP_FINE", "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW")
Tell = Callable[[str, Report], None]


def networks(folder: Path) -> None:
    """Bundles of untrained policies whose head is loud: their outputs differ from picture to picture."""
    folder.mkdir()
    space = default_action_space()
    for name in NETWORKS:
        torch.manual_seed(4)
        policy = Policy(name, space)
        with torch.no_grad():
            policy.head.weight.normal_(0.0, 0.2)  # type: ignore[operator, union-attr]
        export_bundle(
            folder / f"{name}.tar.gz", policy, space,
            frames=noise(7, 100), car=CarSpec(), control_period_s=0.1, trained_on={"seed": 4},
        )  # fmt: skip


@pytest.fixture(scope="module")
def report(folder: Path, bundle: Path, pictures: Path, tell: Tell) -> Report:
    skip_where_it_cannot_run("arm")
    with arm.programs_of_aarch64():
        guest = Guest(folder / "arm", arm.arm_layers())
        guest.bring(bundle, pictures)
        networks(guest.mnt / "networks")
        guest.mnt.chmod(0o777)
        # As somebody, not as root: an emulated gate with real-time priority would take this machine's processor.
        (guest.mnt / "run").write_text(pytest_command("check_arm.py", python="python3"))
        said = arm.chroot(guest, "exec setpriv --reuid=1000 --regid=1000 --clear-groups sh /mnt/run", LIMIT_S)
        found = read_report(guest.mnt, said)
    found.facts["QEMU"] = f"{arm.version()}, qemu-user"
    found.facts.pop("kernel", None)  # it is this machine's
    tell("arm", found)
    return found


@pytest.mark.parametrize("check", checks("check_arm.py"))
def test_arm(check: str, report: Report) -> None:
    report.require(check)
