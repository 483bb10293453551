"""Every screen at the sizes and in the colours that it is for: no faults, nothing cut off, usable with a screen reader.

A picture of each is left in ``build/screenshots``, for people to look at.
"""

from __future__ import annotations

import pytest

from tests.browser.rig import DESKTOP, PHONE, SMALL, Page

pytestmark = pytest.mark.slow

MIN_TOUCH_PX = 24  # WCAG 2.2, 2.5.8; the buttons of these pages have 44 and more

LOOKS = {
    "phone-light": (PHONE, False),
    "phone-dark": (PHONE, True),
    "desktop-light": (DESKTOP, False),
    "desktop-dark": (DESKTOP, True),
    "small-light": (SMALL, False),
}

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
# What a car knows that was calibrated with measured starts of movement: every step of the motor can be left at once.
MEASURED = {
    "steering": {"left_us": 1700.0, "center_us": 1450.0, "right_us": 1200.0, "max_deg": 30.0, "points": []},
    "throttle": {
        "neutral_us": 1446.0, "forward_us": 1311.0, "reverse_us": 1603.5, "forward_start_us": 1421.0,
        "reverse_start_us": 1476.0, "curve": [[0.5, 1410.0], [1.0, 1398.0], [2.0, 1371.0]],
    },
}  # fmt: skip


def login(page: Page) -> None:
    page.go("/login")


def drive(page: Page) -> None:
    page.go("/")
    page.wait(lambda: page.by("start").is_enabled(), "the model is known")
    page.press("start")
    page.mode("autonomous")
    page.wait(lambda: page.text("ready") == "It drives.", "the page says so")
    pictured(page)
    page.js("document.activeElement.blur(); scrollTo(0, 0)")


def looking(page: Page) -> None:
    page.go("/")
    page.press("look")
    page.wait(lambda: page.by("look-shown").is_visible(), "the map")
    page.show(page.by("look-shown"))


def manual(page: Page) -> None:
    page.go("/")
    page.press("take")
    page.mode("manual")
    page.wait(lambda: page.by("hand").is_visible(), "the stick is there")
    pictured(page)


def blocked(page: Page) -> None:
    page.backend.set(car={"seen": {"battery_fraction": 0.05, "temperature_c": 91.0}})
    page.go("/")
    page.wait(lambda: page.all("[data-reason=battery]"), "it says why")
    pictured(page)


def stopped(page: Page) -> None:
    page.go("/")
    page.by("stop").click()
    page.mode("stopped")
    page.wait(lambda: page.all("#reset"), "it says how to go on")
    pictured(page)


def pictured(page: Page) -> None:
    page.wait(lambda: page.js("return document.getElementById('camera-picture').naturalWidth") > 1, "a picture")


def models(page: Page) -> None:
    page.go("/models")
    page.settle()
    page.press("#models summary")


def calibrate(page: Page) -> None:
    page.go("/calibrate")
    page.wait(lambda: page.by("begin-steering").is_enabled(), "the calibration is shown")
    page.wait(lambda: page.all("#chart-speed .chart-new"), "a curve")


def changed(page: Page) -> None:
    calibrate(page)
    page.press("swap-steering")
    page.wait(lambda: page.all("#chart-steering .chart-saved"), "both curves")
    page.js("document.activeElement.blur(); scrollTo(0, 0)")


def health(page: Page) -> None:
    page.go("/health")


def settings(page: Page) -> None:
    page.go("/settings")


SCREENS = (login, drive, looking, manual, blocked, stopped, models, calibrate, changed, health, settings)


def look_at(page: Page, name: str, look: str) -> None:
    """Every check of a screen, and its picture."""
    page.tab.mouse.move(0, 0)
    page.settle()
    page.picture(f"{name}-{look}")
    # 409 is a car that is not ready to be armed yet, or took the controls back: the page asks anew.
    assert [fault for fault in page.faults() if "409" not in fault] == []
    width = LOOKS[look][0][0]
    assert page.js("return document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    assert page.js(SMALL_TARGETS) == []
    assert page.js(UNLABELLED) == []
    assert page.js("return document.querySelectorAll('h1').length") == 1
    assert page.js("return document.documentElement.lang") == "en"
    assert page.serious() == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
def test_screen(page: Page, screen: object, look: str) -> None:
    assert callable(screen)
    size, dark = LOOKS[look]
    page.size(*size, dark=dark)
    screen(page)
    look_at(page, screen.__name__, look)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("steering", ("steering", "center", "left", "right", "angle")),
        ("throttle", ("throttle", "first", "second", "forward", "reverse")),
    ],
    ids=["steering", "motor"],
)
def test_guided_steps(page: Page, kind: str, steps: tuple[str, ...], look: str) -> None:
    size, dark = LOOKS[look]
    page.size(*size, dark=dark)
    page.go("/calibrate")
    page.save(MEASURED)
    page.tab.reload()
    page.press(f"begin-{kind}")
    for number, step in enumerate(steps, start=1):
        section = page.css(f"[data-step={step}]")
        page.wait(section.is_visible, f"step {step}")
        if step == "throttle":
            page.press("raised")
        if section.get_attribute("data-live") is not None:
            page.mode("calibration")
            page.wait(lambda part=section: part.locator(".live button").first.is_enabled(), "it follows")
        page.js("document.activeElement.blur(); scrollTo(0, 0)")
        look_at(page, f"calibrate-{kind}-{number}-{step}", look)
        page.press("next")
    page.mode("disarmed")
