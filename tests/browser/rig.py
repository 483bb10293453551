"""What tests of the pages do with the browser and with the made-up car behind it; not a test itself."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, ConsoleMessage, Locator
    from playwright.sync_api import Page as Tab

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PICTURES = ROOT / "build" / "screenshots"
PASSWORD = "test-password"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
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


def until(
    found: Callable[[], Any],
    what: str,
    timeout_s: float = TIMEOUT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Any:
    """Wait for something true and give it back."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := found()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        pause(0.03)
    return value


def axe_source() -> str:
    """The script of axe-core, for `Page.js`: the pages' CSP would not let them load it."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-core (pip install axe-core-python)")
    return (Path(found.origin).parent / "axe.min.js").read_text()


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


class Chromium:
    """One browser with two windows, of a phone and of a desktop, which share what they know (cookies).

    Args:
        more: further options of a Playwright browser context, such as ``ignore_https_errors``.
    """

    def __init__(self, **more: Any) -> None:
        api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
        if not CHROMIUM:
            pytest.skip("needs Chromium (sudo apt-get install chromium fonts-dejavu-core)")
        self._more = more
        self._playwright = api.sync_playwright().start()
        # Debian's own Chromium: Playwright's download is not needed. Root has no sandbox.
        arguments = ("--no-sandbox", "--disable-dev-shm-usage", "--mute-audio")
        self._chromium = self._playwright.chromium.launch(executable_path=CHROMIUM, args=list(arguments))
        self._tabs: dict[bool, Tab] = {}
        self._mobile = True
        self.complaints: list[str] = []  # of the browser's console, of all tabs

    def tab(self, width: int, height: int, *, dark: bool = False) -> Tab:
        """The window of a phone or of a desktop, with that size."""
        mobile = min(width, height) < 600
        if mobile not in self._tabs:
            self._tabs[mobile] = self._open(mobile)
        tab = self._tabs[mobile]
        if mobile != self._mobile and self._mobile in self._tabs:
            other = self._tabs[self._mobile]
            other.goto("about:blank")
            tab.context.clear_cookies()
            tab.context.add_cookies(other.context.cookies())  # type: ignore[arg-type]
        self._mobile = mobile
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme="dark" if dark else "light")
        return tab

    def _open(self, mobile: bool) -> Tab:
        context = self._chromium.new_context(is_mobile=mobile, has_touch=mobile, **self._more)
        context.set_default_timeout(1e3 * TIMEOUT_S)
        context.set_default_navigation_timeout(2e3 * TIMEOUT_S)
        context.add_init_script(WATCH)
        context.on("console", self._said)
        tab: Tab = context.new_page()
        return tab

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def close(self) -> None:
        """End it."""
        self._chromium.close()
        self._playwright.stop()


class Page:
    """What tests do with the browser. Elements are Playwright's locators: they wait for what they need.

    Args:
        browser: the browser.
        backend: what serves the pages.
    """

    def __init__(self, browser: Chromium, backend: Backend) -> None:
        self.browser, self.backend = browser, backend
        self._cdp: tuple[Tab, CDPSession] | None = None
        self.size(*PHONE)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """A window of that size, light or dark. From a phone's to a desktop's it is another, empty one: `go` next."""
        self.tab = self.browser.tab(width, height, dark=dark)

    def go(self, path: str) -> None:
        """Open a page and wait until it has heard of the car (where it listens)."""
        self.tab.goto(self.backend.url + path)
        if self.all("#mode"):
            self.wait(lambda: self.text("mode") not in ("Connecting", ""), "the page hears of the car")

    def settle(self) -> None:
        """Until what a page asks for at first has come, and has been drawn."""
        self.wait(lambda: self.js("return document.readyState") == "complete", "the page is complete")
        self.wait(lambda: not self.all("[aria-busy=true]"), "nothing is busy")
        self.js("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def log_in(self, password: str = PASSWORD) -> None:
        """From the login page on."""
        self.by("password").fill(password)
        self.by("password").press("Enter")

    def by(self, element_id: str) -> Locator:
        """The element."""
        return self.tab.locator(f"[id='{element_id}']")

    def css(self, selector: str) -> Locator:
        """The first element that fits."""
        return self.tab.locator(selector).first

    def all(self, selector: str) -> list[Locator]:
        """Every element that fits, as many as there are now."""
        return self.tab.locator(selector).all()

    def text(self, element_id: str) -> str:
        """What an element says, shown or not."""
        return str(self.by(element_id).text_content()).strip()

    def js(self, source: str, *args: Any) -> Any:
        """Run a script in the page, the body of a function; a promise that it returns is waited for."""
        handed = [one.element_handle() if hasattr(one, "element_handle") else one for one in args]
        return self.tab.evaluate(f"(args) => (function () {{ {source}\n }}).apply(null, args)", handed)

    def show(self, element: Locator) -> Locator:
        """Bring it to the middle, away from the bars at the edges."""
        element.evaluate("(one) => one.scrollIntoView({block: 'center', behavior: 'instant'})")
        return element

    def press(self, what: str) -> None:
        """Click the element with this id, or that fits this selector, as soon as it is enabled."""
        element = self.css(what) if set(what) & set("[.#") else self.by(what)
        self.wait(lambda: element.is_visible() and element.is_enabled(), f"{what} can be pressed")
        self.show(element).click()

    @property
    def cdp(self) -> CDPSession:
        """Chromium's own protocol, for what Playwright has no words for."""
        if self._cdp is None or self._cdp[0] is not self.tab:
            self._cdp = self.tab, self.tab.context.new_cdp_session(self.tab)
        return self._cdp[1]

    def touch(self, event: str, *point: float) -> None:
        """A finger on the screen: "Start" and "Move" at x, y of the window, then "End"."""
        points = [{"x": point[0], "y": point[1]}] if point else []
        self.cdp.send("Input.dispatchTouchEvent", {"type": f"touch{event}", "touchPoints": points})

    def wait(self, found: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
        """As `until`; what the browser has to tell is heard meanwhile."""
        return until(found, what, timeout_s, lambda pause_s: self.tab.wait_for_timeout(1e3 * pause_s))

    def mode(self, wanted: str) -> None:
        """Wait until the gate is in this mode."""
        self.wait(lambda: self.backend.mode == wanted, f"the gate is {wanted}, not {self.backend.mode}")

    def save(self, calibration: dict[str, Any]) -> None:
        """A calibration, without the page's own buttons."""
        token = "document.querySelector('meta[name=csrf-token]').content"
        headers = f"{{'Content-Type': 'application/json', 'X-CSRFToken': {token}}}"
        source = f"return fetch('/api/v1/calibration', {{method: 'PUT', headers: {headers}, body: arguments[0]}})"
        assert self.js(f"{source}.then((answer) => answer.ok)", json.dumps({"calibration": calibration}))

    def picture(self, name: str) -> None:
        """A screenshot of the window, for people: ``build/screenshots/NAME.png``."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(self.tab.screenshot())

    def serious(self) -> list[str]:
        """What axe-core finds wrong with the page as it is now, of impact serious or critical."""
        if not self.js("return typeof axe !== 'undefined'"):
            self.js(axe_source())
        # A colour on its way to another one has neither's contrast.
        self.js("return Promise.allSettled(document.getAnimations().filter("
                "(one) => one instanceof CSSTransition).map((one) => one.finished)).then(() => true)")  # fmt: skip
        found = self.js("return axe.run({resultTypes: ['violations']})")["violations"]
        return [
            f"{one['id']}: {[node['html'][:100] for node in one['nodes']]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def offline(self, gone: bool) -> None:
        """The browser's network is cut, or there again."""
        self.tab.context.set_offline(gone)

    def faults(self) -> list[str]:
        """Script errors, CSP violations and whatever else the browser complains of; each is told once."""
        found = [*(self.js("return window.hotlapFaults") or []), *self.browser.complaints]
        self.browser.complaints.clear()
        return found
