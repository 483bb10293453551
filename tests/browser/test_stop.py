"""The emergency stop: on every page, in sight, first in line for the keyboard, and alive when nothing else is."""

from __future__ import annotations

import pytest

from tests.browser.rig import DESKTOP, LANDSCAPE, PAGES, PHONE, SMALL, Page

pytestmark = pytest.mark.slow

MODULES = ("shell", "state", "api", "drive", "lease", "dom")
# Whether the middle and the corners of the button, a little inside, are the button's own.
UNCOVERED = """
const stop = document.getElementById("stop");
const box = stop.getBoundingClientRect();
const points = [[0.5, 0.5], [0.06, 0.3], [0.94, 0.3], [0.06, 0.7], [0.94, 0.7]];
return box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth
  && Math.min(box.width, box.height) >= 44
  && points.map(([x, y]) => document.elementFromPoint(box.left + x * box.width, box.top + y * box.height))
    .every((top) => stop.contains(top));
"""


def drive(page: Page) -> None:
    page.go("/")
    page.press("start")
    page.mode("autonomous")


@pytest.mark.parametrize("size", [PHONE, SMALL, LANDSCAPE, DESKTOP], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("path", [*PAGES, "/login"])
def test_is_in_sight_wherever_one_scrolls(page: Page, path: str, size: tuple[int, int]) -> None:
    page.size(*size)
    page.go(path)
    page.settle()
    for share in (0.0, 0.5, 1.0):
        page.js("scrollTo(0, arguments[0] * document.documentElement.scrollHeight)", share)
        assert page.js(UNCOVERED), f"at {share:.0%} of the page"


@pytest.mark.parametrize("path", PAGES)
def test_two_tabs_of_the_keyboard_reach_it(page: Page, path: str) -> None:
    page.go(path)
    page.settle()
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(2):
        page.tab.keyboard.press("Tab")
    assert page.js("return document.activeElement.id") == "stop"
    page.tab.keyboard.press("Enter")
    page.mode("stopped")


def test_stops_a_car_that_drives_and_says_how_to_go_on(page: Page) -> None:
    drive(page)
    page.by("stop").click()
    page.mode("stopped")
    page.wait(lambda: "Stopped" in page.text("stop-note"), "it says so")
    page.wait(lambda: not page.by("start").is_enabled(), "it cannot be started")
    page.press("reset")
    page.mode("disarmed")
    page.wait(lambda: page.by("start").is_enabled(), "it can be started again")


def test_escape_stops_a_car_that_drives(page: Page) -> None:
    drive(page)
    page.wait(lambda: page.text("mode") == "Drives by itself", "the page knows")
    page.tab.keyboard.press("Escape")
    page.mode("stopped")


def test_escape_is_left_to_others_while_the_car_is_known_to_be_disarmed(page: Page) -> None:
    page.go("/settings")
    page.settle()
    page.by("name").press("Escape")
    assert page.js("return document.getElementById('stop').dataset.pressed") is None
    assert page.backend.asked("/api/v1/stop") == []


@pytest.mark.parametrize("broken", [[500, 500, 503], [-1, -1], [0, 0, 0]], ids=["errors", "hangs", "drops"])
def test_asks_until_the_car_has_answered(page: Page, broken: list[int]) -> None:
    drive(page)
    page.backend.set(faults={"/api/v1/stop": broken})
    page.by("stop").click()
    page.mode("stopped")
    page.wait(lambda: "Stopped" in page.text("stop-note"), "it says so")
    assert len(page.backend.asked("/api/v1/stop")) >= len(broken)


def test_works_when_every_other_script_has_failed(page: Page) -> None:
    drive(page)
    for name in MODULES:
        page.tab.route(f"**/static/{name}.js*", lambda route: route.abort())
    page.tab.goto(page.backend.url + "/")
    assert page.text("mode") == "Connecting"  # the page is dead
    page.by("stop").click()
    page.mode("stopped")


def test_needs_no_token_that_counts(page: Page) -> None:
    drive(page)
    # As after a restart of the console: the token that the page has is nobody's any more.
    page.tab.context.clear_cookies(name="session")
    page.by("stop").click()
    page.mode("stopped")


def log_out(page: Page) -> None:
    """As when the session has ended while the page is open."""
    assert page.js("return fetch('/logout').then((answer) => answer.ok)")


def test_stops_from_the_login_page(page: Page) -> None:
    drive(page)
    log_out(page)
    page.go("/login")
    page.by("stop").click()
    page.mode("stopped")
    page.wait(lambda: page.text("stop-note") == "Stopped. The motor is at rest.", page.text("stop-note"))


@pytest.mark.parametrize("path", PAGES)
def test_stops_after_the_session_has_ended_and_says_how_to_go_on(page: Page, path: str) -> None:
    drive(page)
    page.go(path)
    log_out(page)
    page.by("stop").click()
    page.mode("stopped")
    page.wait(lambda: "You are logged out" in page.text("stop-note"), page.text("stop-note"))
    page.css("#stop-note a").click()
    page.wait(lambda: page.all("#login"), "the login")
    page.log_in()
    page.wait(lambda: page.all("#reset"), "back on the page, where the stop can be released")
    assert page.tab.url == page.backend.url + path


def test_an_open_page_says_that_the_session_has_ended(page: Page) -> None:
    page.go("/")
    log_out(page)
    page.wait(lambda: page.text("mode") == "Logged out", "the header says so")
    page.wait(lambda: "The stop button works all the same" in page.text("banner"), page.text("banner"))
    assert page.css("#banner a").get_attribute("href") == "/login?next=%2F"
    assert page.text("errors") == ""


def test_says_what_to_do_without_an_answer_and_does_not_give_up(page: Page) -> None:
    page.go("/")
    page.offline(True)
    try:
        page.by("stop").click()
        page.wait(lambda: "does not answer" in page.text("stop-note"), "no answer")
    finally:
        page.offline(False)
    page.mode("stopped")


def test_goes_out_though_the_page_is_closed_at_once(page: Page) -> None:
    drive(page)
    page.js("document.getElementById('stop').click(); location.assign('about:blank')")
    page.tab.wait_for_url("about:blank")
    page.mode("stopped")
