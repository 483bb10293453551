"""Every page at the sizes and in the colours that it is for: no faults, nothing cut off, usable with a screen reader.

With HOTLAP_SCREENSHOTS=DIR in the environment, a picture of each is left there.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.browser.rig import DESKTOP, PAGES, PHONE, SMALL, Page

pytestmark = pytest.mark.slow

MAX_PAGE_BYTES = 200_000
MIN_TOUCH_PX = 24  # WCAG 2.2, 2.5.8; the buttons of these pages have 44 and more

LOOKS = [
    pytest.param(PHONE, False, id="phone-light"),
    pytest.param(PHONE, True, id="phone-dark"),
    pytest.param(DESKTOP, False, id="desktop-light"),
    pytest.param(DESKTOP, True, id="desktop-dark"),
    pytest.param(SMALL, False, id="small"),
]

SMALL_TARGETS = f"""
return [...document.querySelectorAll("main button, main a.button, main input:not([type=hidden]), main summary")]
  .filter((e) => e.checkVisibility() && !e.classList.contains("unseen"))
  .map((e) => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
  .filter(([, box]) => Math.min(box.width, box.height) < {MIN_TOUCH_PX})
  .map(([name, box]) => `${{name}}: ${{box.width}} x ${{box.height}}`);
"""
UNLABELLED = """
return [...document.querySelectorAll("button, a, input:not([type=hidden]), select, svg[role=img], img, progress")]
  .filter((e) => e.getAttribute("aria-hidden") !== "true" && e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.getAttribute("alt")
    || e.textContent.trim() || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 120));
"""
WEIGHT = """
const all = [...performance.getEntriesByType("resource"), ...performance.getEntriesByType("navigation")];
return all.filter((e) => !/route|api/.test(e.name)).reduce((sum, e) => sum + e.decodedBodySize, 0);
"""


@pytest.mark.parametrize("path", [*PAGES, "/login"])
@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_page(page: Page, path: str, size: tuple[int, int], dark: bool) -> None:
    page.size(*size, dark=dark)
    page.go(path)
    page.settle()
    folder = os.environ.get("HOTLAP_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = path.strip("/") or "drive"
        page.tab.screenshot(path=Path(folder) / f"{name}-{size[0]}-{'dark' if dark else 'light'}.png")

    assert page.faults() == []
    assert page.js("return document.documentElement.scrollWidth") <= size[0], "it scrolls sideways"
    assert page.js(SMALL_TARGETS) == []
    assert page.js(UNLABELLED) == []
    assert page.js("return document.querySelectorAll('h1').length") == 1
    assert page.js("return document.documentElement.lang") == "en"
    assert page.js(WEIGHT) < MAX_PAGE_BYTES


@pytest.mark.parametrize("path", PAGES)
def test_the_navigation_says_where_one_is(page: Page, path: str) -> None:
    page.go(path)
    assert [one.get_attribute("href") for one in page.all("nav [aria-current=page]")] == [path]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, "/login"])
def test_axe_finds_nothing_serious(page: Page, path: str, dark: bool) -> None:
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe (pip install axe-core-python)")
    page.size(*PHONE, dark=dark)
    page.go(path)
    page.settle()
    page.js((Path(found.origin).parent / "axe.min.js").read_text())
    result = page.js("return axe.run({resultTypes: ['violations']})")
    serious = [
        f"{one['id']}: {[node['html'][:100] for node in one['nodes']]}"
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


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
