"""Builds the firmware, its native twin and the simulator once, and puts each test on a fresh bridge."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.board import FIRMWARE
from tests.firmware.rigs import Lockstep, Native, Rig, load_lockstep, load_native, lockstep_rig, native_rig
from tests.firmware_bridge.firmware_board import require_tools


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
    require_tools()
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
