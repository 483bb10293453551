"""A real Chromium in front of the console's pages. Skipped, with the reason, without Chromium or Playwright."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.browser.rig import Backend, Chromium, Page


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    """The pages over a made-up car."""
    found = Backend()
    yield found
    found.close()


# No longer than for a file: while Playwright runs, nothing else can use asyncio or start another Playwright. A folder
# without an __init__.py is no package to pytest: that scope would keep it to the end.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """One browser for all tests of a file."""
    found = Chromium()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """As of all tests, but the browser may start and end its own processes as it likes."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + 3.0
    # Those of asyncio's executor are Playwright's, which keeps them (for files that it reads) until it ends.
    while threads := [t.name for t in threading.enumerate() if t not in before and not t.name.startswith("asyncio_")]:
        assert time.monotonic() < deadline_s, f"left alive after the test: {threads}"
        time.sleep(0.02)
    names = {child.name() for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}
    assert all(name.startswith(("node", "python")) for name in names), names


@pytest.fixture
def page(chromium: Chromium, backend: Backend) -> Iterator[Page]:
    """A phone, logged in, on a car of the first day."""
    backend.set(begin={})
    found = Page(chromium, backend)
    found.tab.goto(f"{backend.url}/models")
    if found.all("#password"):
        found.log_in()
        found.tab.wait_for_selector("#models")
    chromium.complaints.clear()
    yield found
    found.tab.unroute_all()
    found.tab.goto("about:blank")
