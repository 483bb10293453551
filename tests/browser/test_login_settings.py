"""The way in, the Settings page, and the Health page."""

from __future__ import annotations

import pytest

from tests.browser.rig import PASSWORD, Page

pytestmark = pytest.mark.slow


def log_out(page: Page) -> None:
    page.js("return fetch('/logout').then((answer) => answer.ok)")


def test_log_in_and_go_where_one_wanted(page: Page) -> None:
    page.go("/models")
    log_out(page)
    page.go("/health")
    assert page.tab.url.endswith("/login?next=/health")
    assert page.js("return document.activeElement.id") == "password"
    page.log_in("wrong")
    page.wait(lambda: "This is not the password" in page.text("login-errors"), page.text("login-errors"))
    assert page.by("password").get_attribute("aria-invalid") == "true"
    page.log_in()
    page.wait(lambda: page.tab.url.endswith("/health"), page.tab.url)


@pytest.mark.parametrize("where", ["https://example.org/", "//example.org/", "javascript:alert(1)", "/login"])
def test_the_way_in_leads_nowhere_else(page: Page, where: str) -> None:
    page.go("/models")
    log_out(page)
    page.go(f"/login?next={where}")
    page.log_in()
    page.wait(lambda: page.all("#start"), "the Drive page")
    assert page.tab.url == page.backend.url + "/"


def test_the_password_can_be_shown(page: Page) -> None:
    page.go("/login")
    page.press("show")
    assert page.by("password").get_attribute("type") == "text"


def test_a_session_that_ended_is_said_so(page: Page) -> None:
    page.go("/settings")
    page.settle()
    log_out(page)
    page.press("#name-form button")
    page.wait(lambda: "You are logged out" in page.text("name-errors"), page.text("name-errors"))
    link = page.css("#name-errors a")
    assert link.get_attribute("href") == "/login?next=%2Fsettings"


def test_the_name(page: Page) -> None:
    page.go("/settings")
    page.settle()
    page.by("name").fill("Blue car")
    page.press("#name-form button")
    page.wait(lambda: page.text("name-said") == "Saved.", "saved")
    assert page.text("car-name") == "Blue car"
    page.go("/health")
    assert page.text("car-name") == "Blue car"


def test_the_facts(page: Page) -> None:
    page.go("/settings")
    page.wait(lambda: "Classroom" in page.text("net"), page.text("net"))
    assert "good (-57 dBm)" in page.text("net") and "pca9685" in page.text("net")
    assert "64.7°" in page.text("camera") and "127\u00a0mm" in page.text("camera")


def test_the_cars_file(page: Page) -> None:
    page.go("/settings")
    page.settle()
    area = page.by("file-text")
    text = area.input_value()
    assert "rotate_180 = false" in text and "secret" not in text and "://...@" in text
    assert "horizontal_fov_deg" in page.text("file-keys")
    assert not page.by("file-pending").is_visible() and not page.by("file-undo").is_visible()

    def save(changed: str) -> None:
        area.fill(changed)
        page.press("file-save")

    save(text.replace("rotate_180", "rotate_181"))
    page.wait(lambda: "camera.rotate_180" in page.text("file-errors"), page.text("file-errors"))
    assert area.input_value() == text.replace("rotate_180", "rotate_181"), "what was typed is not lost"
    save(text.replace("pca9685", "sysfs_pwm"))
    page.wait(lambda: "actuator.kind is not changed from a page" in page.text("file-errors"), "wires are locked")

    save(text.replace("rotate_180 = false", "rotate_180 = true"))
    page.wait(lambda: "Saved" in page.text("file-said"), page.text("file-errors"))
    assert page.by("file-pending").is_visible() and page.text("file-errors") == ""
    page.tab.reload()
    page.settle()
    assert "rotate_180 = true" in area.input_value() and page.by("file-pending").is_visible()
    page.press("file-undo")
    page.wait(lambda: area.input_value() == text, "as it was")
    page.wait(lambda: not page.by("file-pending").is_visible(), "nothing is pending")


def test_the_password(page: Page) -> None:
    page.go("/settings")
    page.settle()

    def change(old: str, new: str, again: str) -> None:
        for name, value in (("old", old), ("new", new), ("again", again)):
            page.by(name).fill(value)
        page.press("#password-form button")

    change(PASSWORD, "new-password", "other-password")
    page.wait(lambda: "not the same" in page.text("password-errors"), page.text("password-errors"))
    assert page.backend.asked("/api/v1/password") == []
    change("wrong", "new-password", "new-password")
    page.wait(lambda: "incorrect" in page.text("password-errors"), page.text("password-errors"))
    assert len(page.backend.asked("/api/v1/password")) == 1, "a wrong password is not tried twice"
    change(PASSWORD, "new-password", "new-password")
    page.wait(lambda: "Changed" in page.text("password-said"), page.text("password-said"))
    change("new-password", PASSWORD, PASSWORD)
    page.wait(lambda: len(page.backend.asked("/api/v1/password")) == 3, "as it was")
    page.wait(lambda: page.by("old").input_value() == "", "that was taken as well")
    assert page.by("new").input_value() == ""


def test_health_tells_figures_reasons_checks_and_the_log(page: Page) -> None:
    page.backend.set(car={"seen": {"temperature_c": 91.0}})
    page.go("/health")
    page.settle()
    page.wait(lambda: "The computer is too hot" in page.text("blocked"), page.text("blocked"))
    assert "91\u00a0°C" in page.text("car") and "82 %" in page.text("car")
    rows = [row.inner_text().split() for row in page.all("#timing tr")]
    assert rows[0] == "Picture to wheels 26.4 41.0 48.7".split()
    assert "free some disk" in page.text("checks")
    assert "s ago  state    disarmed" in page.text("logs")
    box = "const box = document.getElementById('logs'); "
    left = page.js(f"{box} return box.scrollHeight - box.scrollTop - box.clientHeight")
    assert left <= 2, "the newest line is in sight"
