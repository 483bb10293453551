"""A real Chromium in front of the console's pages. Skipped, with the reason, where there is no Chromium or selenium."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.browser.rig import CHROMIUM, DRIVER, PHONE, WATCH, Backend, Page


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    """The pages over a made-up car."""
    found = Backend()
    yield found
    found.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install selenium)")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Chromium (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(30.0)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """As of all tests, but the browser may start and end its own processes as it likes."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + 3.0
    while threads := [t.name for t in threading.enumerate() if t not in before and t.is_alive()]:
        assert time.monotonic() < deadline_s, f"left alive after the test: {threads}"
        time.sleep(0.02)
    names = {child.name() for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}
    assert names <= {"chromedriver", *(name for name in names if name.startswith("python"))}, names


@pytest.fixture
def page(chromium: Any, backend: Backend) -> Iterator[Page]:
    """A phone, logged in, on a car of the first day."""
    found = Page(chromium, backend)
    backend.set(begin={})
    chromium.get("about:blank")
    chromium.get_log("browser")
    found.size(*PHONE)
    chromium.get(f"{backend.url}/models")
    if chromium.find_elements("id", "password"):
        found.log_in()
        found.wait(lambda: chromium.find_elements("id", "models"), "logged in")
    chromium.get_log("browser")
    yield found
    chromium.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    chromium.get("about:blank")
