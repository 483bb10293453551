"""A Debian with hotlap on it as on a car: ``tools/install-car.sh`` run in it, booted, with its own systemd."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.machine import roots
from tests.machine.guests import PYTHON, Guest

BOOT_S = 900.0
# From wheels that lie beside it, as on a car without a network. smbus2 comes with a board's extra: jetson has it and
# nothing else.
INSTALL = f"""set -e
cd /mnt/checkout
PIP_FLAGS="--no-index --find-links /mnt/wheels" tools/install-car.sh --extra jetson --wheel wheel/*.whl
{PYTHON} -m pip install --quiet --no-index --find-links /mnt/wheels --target /opt/checks pytest
echo done > /mnt/done
"""


def car_layers() -> list[Path]:
    """The layers of a car's root, the uppermost first; what install-car.sh said is in ``log`` beside the upper one."""
    base, wheels, checkout = roots.debian(roots.CAR), roots.wheels("x86_64"), roots.checkout()

    def make(folder: Path) -> None:
        work = Path(tempfile.mkdtemp(prefix="hotlap-car-", dir=roots.CACHE))
        try:
            guest = Guest(work / "guest", [base])
            shutil.copytree(checkout, guest.mnt / "checkout")
            (guest.mnt / "wheels").mkdir()
            guest.at_boot(INSTALL)
            said = guest.nspawn(BOOT_S, f"--bind-ro={wheels}:/mnt/wheels")
            log = (guest.mnt / "log").read_text() if (guest.mnt / "log").exists() else ""
            assert (guest.mnt / "done").exists(), f"install-car.sh did not end well:\n{said[-2000:]}\n{log[-6000:]}"
            guest.forget()
            (folder / "log").write_text(log)
            (guest.folder / "upper").rename(folder / "upper")
        finally:
            shutil.rmtree(work)

    upper = roots.cached("installed", (base.name, wheels.name, checkout.name, INSTALL), make) / "upper"
    return [upper, base]
