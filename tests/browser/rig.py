"""What tests of the pages do with the browser and with the made-up car behind it; not a test itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSWORD = "test-password"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
DRIVER = shutil.which("chromedriver") or ""
PHONE, DESKTOP, SMALL, LANDSCAPE = (390, 844), (1280, 800), (360, 640), (800, 360)
PAGES = ("/", "/models", "/calibrate", "/health", "/settings")
TIMEOUT_S = 15.0  # the machine may be busy with something else

# What a page does wrong is remembered from its first moment on.
WATCH = """
window.hotlapFaults = [];
addEventListener("error", (e) => hotlapFaults.push(`error: ${e.message ?? e.target?.src}`), true);
addEventListener("unhandledrejection", (e) => hotlapFaults.push(`rejection: ${e.reason}`));
addEventListener("securitypolicyviolation", (e) => hotlapFaults.push(`csp: ${e.violatedDirective} ${e.blockedURI}`));
"""


def until(found: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait for something true and give it back."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := found()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.03)
    return value


class Backend:
    """The backend's process, and its ``/_fake``."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, str(HERE / "fake_backend.py"), *args]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http"), "the fake backend did not start"

    def set(self, **what: Any) -> None:
        """See `fake_backend`."""
        self._ask(json.dumps(what).encode())

    def told(self) -> dict[str, Any]:
        """Requests, pulses and the mode."""
        return self._ask(None)

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The requests at this path so far."""
        return [one for one in self.told()["log"] if one["path"] == path]

    @property
    def mode(self) -> str:
        """The gate's mode."""
        return str(self.told()["mode"])

    def moved(self, since_s: float = 0.0) -> bool:
        """Whether any throttle pulse has left neutral since."""
        return any(moving and t > since_s for t, _, _, moving in self.told()["trace"])

    def _ask(self, data: bytes | None) -> dict[str, Any]:
        asked = urllib.request.Request(f"{self.url}/_fake", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10.0) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10.0)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Page:
    """What tests do with the browser."""

    def __init__(self, driver: Any, backend: Backend) -> None:
        self.driver, self.backend = driver, backend

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """A window of that size, light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def go(self, path: str) -> None:
        """Open a page and wait until it has heard of the car (where it listens)."""
        self.driver.get(self.backend.url + path)
        if self.driver.find_elements("id", "mode"):
            self.wait(lambda: self.text("mode") not in ("Connecting", ""), "the page hears of the car")

    def settle(self) -> None:
        """Until what a page asks for at first has come."""
        self.wait(lambda: self.js("return document.readyState") == "complete", "the page is complete")
        self.wait(
            lambda: self.js("return document.querySelectorAll('[aria-busy=true]').length") == 0, "nothing is busy"
        )
        time.sleep(0.4)  # and until it has been drawn

    def log_in(self, password: str = PASSWORD) -> None:
        """From the login page on."""
        self.by("password").send_keys(password)
        self.by("password").submit()

    def by(self, element_id: str) -> Any:
        """The element."""
        return self.driver.find_element("id", element_id)

    def css(self, selector: str) -> Any:
        """The first element that fits."""
        return self.driver.find_element("css selector", selector)

    def text(self, element_id: str) -> str:
        """What an element says, shown or not."""
        return str(self.by(element_id).get_property("textContent")).strip()

    def js(self, source: str, *args: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(source, *args)

    def show(self, element: Any) -> Any:
        """Bring it to the middle, away from the bars at the edges."""
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        return element

    def press(self, what: str) -> None:
        """Click the element with this id, or that fits this selector, as soon as it is enabled."""
        by = "css selector" if set(what) & set("[.#") else "id"
        element = self.wait(lambda: self.driver.find_elements(by, what), f"{what} is there")[0]
        self.wait(lambda: element.is_displayed() and element.is_enabled(), f"{what} can be pressed")
        self.show(element).click()

    def wait(self, found: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
        """As `until`."""
        return until(found, what, timeout_s)

    def mode(self, wanted: str) -> None:
        """Wait until the gate is in this mode."""
        self.wait(lambda: self.backend.mode == wanted, f"the gate is {wanted}, not {self.backend.mode}")

    def faults(self) -> list[str]:
        """Script errors, CSP violations and whatever else the browser complains of."""
        severe = [one["message"] for one in self.driver.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]
        return [*(self.js("return window.hotlapFaults") or []), *severe]
