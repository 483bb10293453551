"""What the network looks at: asked for on demand only, drawn over its own picture, and told in words."""

from __future__ import annotations

import pytest

from tests.browser.rig import Page

pytestmark = pytest.mark.slow

PATH = "/api/v1/saliency"
HIDE = """
Object.defineProperty(document, "hidden", {configurable: true, get: () => arguments[0]});
document.dispatchEvent(new Event("visibilitychange"));
"""
# The brightest place of the map, as it was painted: column, row, opacity.
BRIGHTEST = """
const map = document.getElementById("look-map");
const {data} = map.getContext("2d").getImageData(0, 0, map.width, map.height);
const alpha = Array.from({length: data.length / 4}, (_, i) => data[4 * i + 3]);
const place = alpha.indexOf(Math.max(...alpha));
return [place % map.width, Math.floor(place / map.width), alpha[place], Math.min(...alpha)];
"""
TOLD = """
const one = (id) => document.getElementById(id);
return {
  boxes: ["look-picture", "look-map"].map((id) => Object.values(one(id).getBoundingClientRect().toJSON())),
  note: one("look-note").textContent, alt: one("look-picture").alt, action: one("look-action").textContent,
  actions: [...one("look-actions").children].map((row) => [
    row.children[0].textContent, parseInt(row.children[2].textContent), row.hasAttribute("data-chosen")]),
};
"""


def asked(page: Page) -> int:
    return len(page.backend.asked(PATH))


def show(page: Page) -> None:
    page.go("/")
    page.press("look")
    page.wait(lambda: page.by("look-shown").is_visible(), "the map")


def test_nothing_is_asked_before_somebody_wants_to_see_it(page: Page) -> None:
    page.go("/")
    page.settle()
    assert asked(page) == 0 and not page.by("look-box").is_visible()
    assert page.by("look").get_attribute("aria-expanded") == "false"


def test_the_map_lies_over_its_picture_and_the_actions_beside_it(page: Page) -> None:
    show(page)
    column, row, alpha, least = page.js(BRIGHTEST)
    assert abs(row - 6) <= 1 and 2 <= column <= 17 and alpha > 150 and least < 5
    page.wait(lambda: page.js("return document.getElementById('look-picture').naturalWidth") == 160, "its picture")
    told = page.js(TOLD)  # at one moment: another map comes every second
    assert told["boxes"][0] == told["boxes"][1]
    assert "It looks most of all" in told["note"] and told["alt"].startswith("What the network saw; most of all")
    assert len(told["actions"]) == 10 and 97 <= sum(share for _, share, _ in told["actions"]) <= 103
    (chosen,) = [(name, share) for name, share, chosen in told["actions"] if chosen]
    assert chosen[1] == max(share for _, share, _ in told["actions"])
    assert told["action"] == f"It chose {chosen[0]}."


def test_asks_once_a_second_and_stops_when_hidden_or_closed(page: Page) -> None:
    def press() -> None:
        page.press("look")

    show(page)
    begun, now_s = asked(page), page.backend.told()["now"]
    page.wait(lambda: asked(page) >= begun + 3, "it goes on")
    assert asked(page) - begun <= page.backend.told()["now"] - now_s + 1.5
    for away, back in ((lambda: page.js(HIDE, True), lambda: page.js(HIDE, False)), (press, press)):
        away()
        page.tab.wait_for_timeout(300.0)  # one may be on its way
        quiet = asked(page)
        page.tab.wait_for_timeout(2500.0)
        assert asked(page) == quiet
        back()
        page.wait(lambda before=quiet: asked(page) > before, "again")


def test_says_why_there_is_no_map_and_goes_on_when_there_is(page: Page) -> None:
    show(page)
    page.backend.set(car={"pilot": False})
    page.wait(lambda: "there is no picture to look at" in page.text("look-note"), page.text("look-note"))
    assert "Health page" in page.text("look-note") and not page.by("look-shown").is_visible()
    page.backend.set(car={"pilot": True})
    page.wait(lambda: page.by("look-shown").is_visible(), "the map again")


def test_a_network_that_is_sure_whatever_is_missing_is_shown_so(page: Page) -> None:
    page.tab.route(f"**{PATH}", lambda route: route.fulfill(json={
        "seq": 1, "picture": "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "rows": 1, "columns": 2,
        "change": [0.001, 0.002], "action": {"steering_deg": -12.0, "speed_mps": 1.25}, "chosen": None, "actions": [],
        "took_ms": 1.0,
    }))  # fmt: skip
    try:
        show(page)
        assert "No single spot decides" in page.text("look-note")
        assert page.js(BRIGHTEST)[2] < 12, "noise is not blown up"
        assert page.text("look-action") == "It gives steering and speed themselves: 12° right, 1.3 m/s."
        assert page.all("#look-actions li") == []
    finally:
        page.tab.unroute(f"**{PATH}")
