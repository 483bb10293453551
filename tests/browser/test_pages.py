"""What a page weighs, how soon it is there, and what every page has: navigation, focus, news of the connection."""

from __future__ import annotations

import pytest

from tests.browser.rig import PAGES, Page

pytestmark = pytest.mark.slow

MAX_PAGE_BYTES = 200_000
MAX_PAINT_MS = 1000.0
TRIES = 8  # of the paint: the machine may be busy with something else
ENDLESS = ("/route", "/api/v1/events")  # pictures and news, for as long as the page is open

PAINT = """
return new Promise((done) => new PerformanceObserver((list) => {
  const [first] = list.getEntriesByName("first-contentful-paint");
  if (first) done(first.startTime);
}).observe({type: "paint", buffered: true}));
"""


def endless(url: str) -> bool:
    return any(path in url for path in ENDLESS)


def fresh(page: Page, path: str) -> None:
    """Opened as for the first time."""
    page.cdp.send("Network.clearBrowserCache")
    page.go(path)
    page.settle()


@pytest.mark.parametrize("path", [*PAGES, "/login"])
def test_weighs_less_than_200_kb(page: Page, path: str) -> None:
    sizes: dict[str, float] = {}
    names: dict[str, str] = {}
    page.cdp.send("Network.enable")
    page.cdp.on("Network.requestWillBeSent", lambda event: names.update({event["requestId"]: event["request"]["url"]}))
    # Of what came over the network, and of what that is unpacked: whichever is more.
    page.cdp.on(
        "Network.dataReceived",
        lambda event: sizes.update({event["requestId"]: sizes.get(event["requestId"], 0.0) + event["dataLength"]}),
    )
    fresh(page, path)
    page.wait(lambda: any("/static/" in name for name in names.values()), "the style sheets are asked for")
    weighed = {names[key]: size for key, size in sizes.items() if key in names and not endless(names[key])}
    assert any(name.endswith(path) for name in weighed) and any(name.endswith("/static/base.css") for name in weighed)
    assert sum(weighed.values()) < MAX_PAGE_BYTES, weighed


@pytest.mark.parametrize("path", [*PAGES, "/login"])
def test_is_painted_within_a_second(page: Page, path: str) -> None:
    took_ms = []
    for _ in range(TRIES):
        fresh(page, path)
        took_ms.append(page.js(PAINT))
        if took_ms[-1] < MAX_PAINT_MS:
            return
    pytest.fail(f"first contentful paint after {took_ms} ms")


@pytest.mark.parametrize("path", PAGES)
def test_the_navigation_says_where_one_is(page: Page, path: str) -> None:
    page.go(path)
    assert [one.get_attribute("href") for one in page.all("nav [aria-current=page]")] == [path]


def test_what_has_the_focus_is_outlined(page: Page) -> None:
    page.go("/settings")
    page.settle()
    for _ in range(9):
        page.tab.keyboard.press("Tab")
        style = page.js(
            "const s = getComputedStyle(document.activeElement);"
            "return [document.activeElement.id || document.activeElement.className, s.outlineStyle, s.outlineWidth]"
        )
        assert style[1] == "solid" and float(style[2].removesuffix("px")) >= 2.0, style


def test_a_car_that_is_gone_is_said_so(page: Page) -> None:
    page.go("/")
    page.settle()
    page.backend.set(gone=True)
    page.wait(lambda: page.text("mode") == "No connection", "the header says so")
    page.wait(lambda: "No connection" in page.text("banner"), "the banner says so")
    assert not page.by("start").is_enabled()
    page.backend.set(gone=False)
    page.wait(lambda: page.text("mode") == "Standing by", "it comes back by itself")
    assert page.text("banner") == ""
