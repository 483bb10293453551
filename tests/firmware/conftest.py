"""Builds the firmware, its native twin and the simulator once, and puts each test on a fresh bridge."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.firmware.rigs import Lockstep, Native, Rig, load_lockstep, load_native, lockstep_rig, native_rig

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_bridge/firmware"
PACKAGES = "gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev gcc libc6-dev make pkg-config"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("firmware")


def make(*targets: str, folder: Path = FIRMWARE) -> None:
    """Run make in the firmware's folder, or a copy of it."""
    done = subprocess.run(["make", "-s", "-C", folder, *targets], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"make {' '.join(targets)}:\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def firmware() -> Path:
    """The folder of the firmware, with everything built in build/."""
    missing = [tool for tool in ("avr-gcc", "gcc", "make", "pkg-config") if not shutil.which(tool)]
    if not missing and subprocess.run(["pkg-config", "--exists", "simavr"]).returncode:
        missing = ["simavr"]
    if missing:
        text = f"not installed: {', '.join(missing)}; next: apt-get install --no-install-recommends {PACKAGES}"
        if os.environ.get("HOTLAP_REQUIRE_FIRMWARE") or os.environ.get("CI"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    make("all", "native", "lockstep", "fuzz")
    return FIRMWARE


@pytest.fixture(scope="session")
def library(firmware: Path) -> ctypes.CDLL:
    """The pure C code."""
    return load_native(firmware / "build/libnative.so")


@pytest.fixture(scope="session")
def simulator(firmware: Path) -> ctypes.CDLL:
    """The simulator of the chip."""
    return load_lockstep(firmware / "build/liblockstep.so")


@pytest.fixture
def native(library: ctypes.CDLL) -> Iterator[Native]:
    """A fresh bridge of pure C code."""
    with native_rig(library) as rig:
        yield rig


@pytest.fixture
def chip(simulator: ctypes.CDLL, firmware: Path) -> Iterator[Lockstep]:
    """A fresh simulated chip with the compiled firmware."""
    with lockstep_rig(simulator, firmware / "build/bridge.elf") as rig:
        yield rig


@pytest.fixture(params=["native", "chip"])
def bridge(request: pytest.FixtureRequest) -> Rig:
    """Both, one after the other."""
    rig: Rig = request.getfixturevalue(request.param)
    return rig
