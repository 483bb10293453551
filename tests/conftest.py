"""Fixtures for all tests: the shared data, and a detector of leaked threads and child processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# PyTorch reads this when it is imported: on a shared machine its idle threads must sleep (see trainer/__init__.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT / ".." / "shared" / "data"

# A thread that was told to stop may still be on its way out, and a machine under load is slow to let it: what is alive
# after this long was not told.
GRACE_S = 3.0

# Helpers that Python's multiprocessing starts once and keeps for the life of the process.
LASTING_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DeepRacer tracks and frames beside the checkout; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data (../shared/data) is not here")
    return SHARED_DATA.resolve()


def alive_threads() -> set[threading.Thread]:
    """The threads of this process that Python knows and that run."""
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def alive_children() -> dict[tuple[int, float], str]:
    """Child processes at any depth, as (pid, start time) -> command line; zombies and lasting helpers are left out."""
    children = {}
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            gone = child.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
        if not gone and not any(helper in command for helper in LASTING_HELPERS):
            children[child.pid, child.create_time()] = command
    return children


def leaks_since(
    threads: set[threading.Thread], children: dict[tuple[int, float], str], grace_s: float = GRACE_S
) -> list[str]:
    """One line for each thread or child process that is alive now, was not then, and stays so for ``grace_s``."""
    deadline_s = time.monotonic() + grace_s
    while True:
        lines = [f"thread {thread.name!r}" for thread in alive_threads() - threads]
        lines += [f"process {key[0]}: {text}" for key, text in alive_children().items() if key not in children]
        if not lines or time.monotonic() >= deadline_s:
            return lines
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread or a child process alive."""
    threads, children = alive_threads(), alive_children()
    yield
    leaks = leaks_since(threads, children)
    if leaks:
        pytest.fail("left alive after the test: " + "; ".join(leaks))
