"""Markers of these tests, what the guests are given, and the closing lines: versions, times and figures."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.machine import needs, roots
from tests.machine.guests import Report
from tests.vehicle.pilot_rig import bright, make_bundle

FACTS = pytest.StashKey[dict[str, dict[str, object]]]()
HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FACTS] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(item.path.stem.removeprefix("test_"))
            item.add_marker("slow")
            item.add_marker(pytest.mark.timeout(7200))  # the first of each kind may wait for downloads


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, facts in config.stash[FACTS].items():
        terminalreporter.section(f"make test-{kind}")
        for name, value in facts.items():
            terminalreporter.line(f"{name}: {value}")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """For the machines of this run; not in /tmp, which may be memory. Removed in the end."""
    roots.CACHE.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="run-", dir=roots.CACHE))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Path:
    """A small model that takes an action at the brightest row."""
    make_bundle(folder / "bundle.tar.gz")
    return folder / "bundle.tar.gz"


@pytest.fixture(scope="session")
def pictures(folder: Path) -> Path:
    """Pictures that make it take one action after the other."""
    made = folder / "pictures"
    made.mkdir()
    for number in range(30):
        cv2.imwrite(str(made / f"{number:03d}.png"), bright(number // 6, number))
    return made


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Iterator[object]:
    """Called with a report, it prints its figures in the end, and for how long all of it went on."""
    begun_s = time.monotonic()

    def teller(kind: str, report: Report) -> None:
        report.facts["everything took"] = f"{time.monotonic() - begun_s:.0f} s, downloads and set-up included"
        request.config.stash[FACTS][kind] = report.facts

    yield teller


def skip_where_it_cannot_run(kind: str) -> None:
    """Skip with the reason; `make test-KIND` has asked before, and fails with it."""
    reason = needs.why_not(kind)
    if reason:
        pytest.skip(reason)
