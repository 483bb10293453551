"""Measuring the camera on the Calibrate page: from an empty page to a saved camera, and what goes wrong on the way."""

from __future__ import annotations

import pytest

from tests.browser.rig import DESKTOP, PICTURES, Page

pytestmark = pytest.mark.slow

LOOK_S = 60.0  # the search for a board, on a busy machine


def begin(page: Page, fresh: bool = True) -> None:
    page.go("/calibrate")
    page.press("begin-camera")
    page.wait(lambda: page.by("camera-title").is_visible(), "the camera's part is shown")
    page.wait(lambda: page.all("#pose > tr"), "what there is has come", timeout_s=LOOK_S)
    if fresh and page.by("retake").is_visible():  # pictures are the console's, not the made-up car's
        page.press("retake")
        page.wait(lambda: not page.all("#shots > li"), "none is left", timeout_s=LOOK_S)


def take(page: Page, count: int) -> None:
    page.press("take")
    page.wait(lambda: len(page.all("#shots > li")) == count, f"{count} pictures are there", timeout_s=LOOK_S)


def keep_picture(page: Page, name: str) -> None:
    """The whole page, for people, and what axe-core says of it."""
    assert page.serious() == []
    assert page.js("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"camera-{name}.png").write_bytes(page.tab.screenshot(full_page=True))


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_from_an_empty_page_to_a_saved_camera(page: Page, size: str) -> None:
    if size == "desktop":
        page.size(*DESKTOP)
    begin(page)
    assert page.by("save-camera").is_disabled() and page.by("pose-none").is_visible()
    keep_picture(page, f"{size}-empty")
    for count in (1, 2, 3):
        take(page, count)
    assert "From 3 pictures of 640 × 480" in page.text("pose-fit")
    rows = [row.inner_text().split("\t") for row in page.all("#pose > tr")]
    assert [row[0] for row in rows] == ["Field of view", "Looks down", "Height", "Leans to the right"]
    measured = {row[0]: float(row[2].split("±")[0].rstrip(" °m")) for row in rows}
    assert measured["Field of view"] == pytest.approx(66.0, abs=0.5)
    assert measured["Height"] == pytest.approx(125.0, abs=1.5)
    page.css(".shots .button").click()
    page.wait(lambda: len(page.all("#shots > li")) == 2, "one picture is away", timeout_s=LOOK_S)
    page.press("save-camera")
    page.wait(lambda: page.text("camera-saved").startswith("Saved"), "it is saved", timeout_s=LOOK_S)
    assert "hotlap train" in page.css(".command").inner_text() and page.by("camera-next").is_visible()
    keep_picture(page, f"{size}-saved")
    page.press("leave-camera")
    assert page.by("overview").is_visible() and not page.by("camera-picture").get_attribute("src")
    assert page.js("return document.activeElement.id") == "begin-camera"
    begin(page, fresh=False)
    assert float(page.css("#pose > tr td").inner_text().rstrip("°")) == pytest.approx(66.0, abs=0.5)  # is in use
    assert page.faults() == [] and page.serious() == []


def test_a_picture_without_the_board_says_what_to_do(page: Page) -> None:
    page.backend.set(car={"board": False})
    begin(page)
    page.press("take")
    page.wait(lambda: page.all("#take-errors .notice"), "the reason is told", timeout_s=LOOK_S)
    said = page.text("take-errors")
    assert "9 x 6" in said and "What to do" in said and not page.all("#shots > li")
    page.show(page.by("take-errors"))
    keep_picture(page, "phone-none")
    assert page.by("take").is_enabled() and page.by("save-camera").is_disabled()


def test_a_board_that_cannot_be_is_not_asked_for(page: Page) -> None:
    begin(page)
    page.css("#camera-view summary").click()
    page.by("board-columns").fill("2")
    page.wait(lambda: page.by("take").is_disabled() and not page.by("board-file").is_visible(), "nothing can be asked")
    page.by("board-columns").fill("7")
    page.by("board-square").fill("30")
    page.wait(lambda: page.by("take").is_enabled(), "it can be asked for again")
    address = page.by("board-file").get_attribute("href")
    assert address is not None and "columns=7" in address and "square_mm=30" in address
