"""The Drive page: by itself, by hand, and what becomes of the controls when the page is not looked at any more."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from tests.browser.rig import Page

pytestmark = pytest.mark.slow

MANUAL = "/api/v1/manual"
RENEWALS = (MANUAL, "/api/v1/renew")
FAR_PX = 150  # off the stick: as far as it goes


def take(page: Page) -> None:
    page.go("/")
    page.press("take")
    page.mode("manual")
    page.wait(lambda: page.by("hand").is_visible(), "the stick is there")


def push(page: Page, right_px: int, down_px: int) -> None:
    """The mouse on the stick, and not off it."""
    x, y = middle_of_stick(page)
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x + right_px, y + down_px, steps=4)


def middle_of_stick(page: Page) -> tuple[float, float]:
    box = page.show(page.by("stick")).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def last_manual(page: Page) -> tuple[float, float]:
    asked = page.backend.asked(MANUAL)
    return (asked[-1]["body"]["steering"], asked[-1]["body"]["throttle"]) if asked else (0.0, 0.0)


def renewals(page: Page) -> list[float]:
    return [one["t"] for one in page.backend.told()["log"] if one["path"] in RENEWALS]


def test_shows_moving_pictures_figures_and_the_action(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.js("return document.getElementById('camera-picture').naturalWidth") == 480, "a picture")
    page.wait(lambda: "m/s" in page.text("figure-speed"), "the action's speed")
    assert "°" in page.text("figure-steering")
    assert page.text("figure-latency") == "26\u00a0ms"
    assert page.text("figure-rate") == "15\u00a0/s"
    first = page.by("camera").screenshot()
    page.wait(lambda: page.by("camera").screenshot() != first, "another picture")


def test_starts_and_ends_driving(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.text("ready") == "Ready to drive.", "model and pilot are known")
    page.press("start")
    page.mode("autonomous")
    page.wait(lambda: page.backend.moved(), "it moves")
    page.wait(lambda: page.text("ready") == "It drives.", "the page says so")
    page.press("finish")
    page.mode("disarmed")


def test_every_blocked_reason_is_told_with_its_cure(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.by("start").is_enabled(), "the model is known")
    page.backend.set(car={"pilot": False, "seen": {"battery_fraction": 0.05, "temperature_c": 91.0}})
    page.wait(lambda: page.all("[data-reason=stale_frame]"), "all of them")
    reasons = {one.get_attribute("data-reason"): one.inner_text() for one in page.all("#blocked li")}
    assert set(reasons) == {"battery", "temperature", "stale_intent", "stale_frame"}
    assert page.text("ready") == "It does not drive, for 4 reasons:"
    assert "Charge the battery." in reasons["battery"] and "5 % (at least 10 %)" in reasons["battery"]
    assert not page.by("start").is_enabled()
    page.backend.set(begin={})
    page.wait(lambda: page.by("start").is_enabled(), "all is well again")


def test_a_refusal_is_told_in_plain_words(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.by("start").is_enabled(), "the page believes that it may")
    page.js("document.getElementById('start').click()")
    page.mode("autonomous")
    page.tab.reload()
    page.backend.set(begin={}, faults={"/api/v1/arm": [500]})
    page.press("start")
    page.wait(lambda: "error 500" in page.text("errors"), page.text("errors"))
    assert "What to do:" in page.text("errors")
    page.press("#errors .close")
    assert page.text("errors") == ""


def test_the_speed_limit_goes_to_the_car(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.text("cap-value") == "100 %", "what the car has")
    page.js("const cap = document.getElementById('cap'); cap.value = 40;"
            "for (const name of ['input', 'change']) cap.dispatchEvent(new Event(name))")  # fmt: skip
    page.wait(lambda: page.backend.asked("/api/v1/cap"), "it is told")
    assert page.backend.asked("/api/v1/cap")[-1]["body"] == {"percent": 40}
    page.tab.reload()
    page.wait(lambda: page.text("cap-value") == "40 %", "the car has it")


def test_a_model_on_trial_is_said_to_be_slower(page: Page) -> None:
    page.backend.set(car={"trial": True})
    page.go("/")
    page.wait(lambda: "on trial: at most 60 %" in page.text("cap-note"), page.text("cap-note"))


def test_the_stick_drives_while_it_is_held(page: Page) -> None:
    take(page)
    assert last_manual(page) == (0.0, 0.0)
    x, y = middle_of_stick(page)
    page.touch("Start", x, y)
    page.touch("Move", x - FAR_PX, y)
    page.wait(lambda: last_manual(page)[0] > 0.99 and abs(last_manual(page)[1]) < 0.1, "full left")
    page.touch("Move", x, y - FAR_PX)
    page.wait(lambda: abs(last_manual(page)[0]) < 0.1 and last_manual(page)[1] > 0.99, "full speed forwards")
    page.wait(page.backend.moved, "the motor runs")
    page.touch("End")
    page.wait(lambda: last_manual(page) == (0.0, 0.0), "let go is rest")
    page.press("give")
    page.mode("disarmed")


def test_the_lease_is_renewed_ten_times_a_second(page: Page) -> None:
    take(page)
    push(page, 0, -40)
    time.sleep(2.0)
    times = renewals(page)
    recent = [t for t in times if t > times[-1] - 1.5]
    gaps = [b - a for a, b in itertools.pairwise(recent)]
    assert 8 <= len(recent) <= 32, gaps
    assert sorted(gaps)[len(gaps) // 2] <= 0.15
    page.tab.mouse.up()


def test_the_keyboard_drives(page: Page) -> None:
    take(page)
    page.tab.keyboard.down("ArrowUp")
    page.tab.keyboard.down("a")
    page.wait(lambda: last_manual(page)[0] == 1.0 and last_manual(page)[1] > 0.5, "forwards and left")
    page.tab.keyboard.up("ArrowUp")
    page.wait(lambda: last_manual(page)[1] == 0.0, "rest")
    page.tab.keyboard.up("a")
    page.tab.keyboard.down("s")
    page.wait(lambda: last_manual(page)[1] < -0.3, "backwards")
    page.tab.keyboard.up("s")
    page.wait(lambda: last_manual(page) == (0.0, 0.0), "rest")


PAD = """
const buttons = Array.from({length: 17}, () => ({pressed: false, value: 0}));
window.pad = {connected: true, id: "made-up", axes: [0, 0, 0, 0], buttons};
navigator.getGamepads = () => [window.pad];
"""


def test_a_game_controller_drives_and_stops(page: Page) -> None:
    take(page)
    page.js(PAD)
    page.js("pad.axes[0] = 1; pad.buttons[7].value = 0.5")
    page.wait(lambda: last_manual(page) == (-1.0, 0.5), "right, half speed")
    page.js("pad.axes[0] = 0.05; pad.buttons[7].value = 0")
    page.wait(lambda: last_manual(page) == (0.0, 0.0), "a stick at rest is not quite at zero")
    page.js("pad.buttons[1].pressed = true")
    page.mode("stopped")


def hide(page: Page) -> None:
    """As when another tab or the phone's lock screen comes to the front."""
    page.js("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))")  # fmt: skip


def blur(page: Page) -> None:
    page.js("window.dispatchEvent(new Event('blur'))")


def leave(page: Page) -> None:
    page.js("location.assign('/settings')")


def only_hidden(page: Page) -> None:
    """Hidden without an event, as some browsers do it: the timer itself must notice."""
    page.js("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")


@pytest.mark.parametrize("away", [hide, blur, leave, only_hidden])
def test_the_controls_are_given_back_when_the_page_is_not_looked_at(page: Page, away: Any) -> None:
    take(page)  # the lease lasts 2 s here: what is seen within 1 s is what the page does
    push(page, 0, -FAR_PX)
    page.wait(lambda: page.backend.moved(), "the motor runs")
    began_s = page.backend.told()["now"]
    away(page)
    page.wait(lambda: page.backend.mode == "disarmed", "disarmed", timeout_s=5.0)
    released = page.backend.asked("/api/v1/release")
    assert len(released) == 1
    page.wait(lambda: not page.backend.told()["trace"][-1][3], "neutral")
    told = page.backend.told()
    neutral_s = min(t for t, _, _, moving in told["trace"] if t > began_s and not moving)
    assert neutral_s - began_s < 1.0
    assert last_manual(page) == (0.0, 0.0)
    time.sleep(0.5)
    late = [t for t in renewals(page) if t > released[-1]["t"] + 0.15]
    assert late == [], "no renewal once it was given back"
    assert not page.backend.moved(neutral_s + 0.15)


def test_a_closed_tab_lets_go(page: Page) -> None:
    first = page.tab
    page.tab = first.context.new_page()
    try:
        take(page)
        push(page, 0, -FAR_PX)
        page.wait(lambda: page.backend.moved(), "the motor runs")
    finally:
        page.tab.close()
        page.tab = first
    page.wait(lambda: page.backend.mode == "disarmed", "disarmed", timeout_s=5.0)


def test_a_lost_connection_is_told_and_nothing_moves(page: Page) -> None:
    page.backend.set(begin={"lease_s": 0.25})
    take(page)
    push(page, 0, -FAR_PX)
    page.wait(lambda: page.backend.moved(), "the motor runs")
    page.offline(True)
    try:
        page.mode("disarmed")
        page.wait(lambda: "connection to the car was lost" in page.text("errors"), page.text("errors"))
        assert not page.by("hand").is_visible()
    finally:
        page.offline(False)
    time.sleep(0.5)
    assert page.backend.mode == "disarmed"


def test_after_a_slow_moment_the_car_waits_until_everything_was_let_go(page: Page) -> None:
    take(page)
    page.tab.keyboard.down("ArrowUp")
    page.wait(lambda: last_manual(page)[1] > 0.5, "forwards")
    lease = page.backend.asked(MANUAL)[-1]["body"]["lease"]
    page.js("""return fetch("/api/v1/release", {method: "POST", headers: {"Content-Type": "application/json",
        "X-CSRFToken": document.querySelector("meta[name=csrf-token]").content},
        body: JSON.stringify({lease: arguments[0]})}).then((answer) => answer.ok)""", lease)  # fmt: skip
    page.wait(lambda: page.backend.asked(MANUAL)[-1]["body"]["lease"] != lease, "it has the controls again")
    page.mode("manual")
    time.sleep(0.5)
    assert last_manual(page) == (0.0, 0.0), "the key is still down"
    page.tab.keyboard.up("ArrowUp")
    time.sleep(0.3)
    page.tab.keyboard.down("w")
    page.wait(lambda: last_manual(page)[1] > 0.3, "a new press drives")
    page.tab.keyboard.up("w")


def test_somebody_else_has_the_controls(page: Page) -> None:
    page.go("/")
    page.js("""
        const post = (path, body) => fetch(path, {method: "POST", body: JSON.stringify(body), headers: {
          "Content-Type": "application/json", "X-CSRFToken": document.querySelector("meta[name=csrf-token]").content}});
        return post("/api/v1/lease", {kind: "calibration"}).then((answer) => answer.json()).then(({lease}) => {
          setInterval(() => post("/api/v1/renew", {lease}), 300);
        });
    """)
    page.press("take")
    page.wait(lambda: "somebody has the controls" in page.text("errors"), page.text("errors"))
    assert page.by("take").is_enabled() and not page.by("hand").is_visible()
