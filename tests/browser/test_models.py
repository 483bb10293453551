"""The Models page: upload in pieces, verdicts, and what can be done with a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.browser.rig import Page

pytestmark = pytest.mark.slow

PIECE = 256 * 1024


def card(page: Page, name: str) -> str:
    """What is shown of a model; all at once, since the list may be drawn anew at any moment."""
    texts: list[str] = page.js("return [...document.querySelectorAll('#models > li')].map((one) => one.innerText)")
    return next((text for text in texts if name in text), "")


def file_of(folder: Path, content: bytes) -> str:
    path = folder / "fast-one.tar.gz"
    path.write_bytes(content)
    return str(path)


def send(page: Page, path: str) -> None:
    page.go("/models")
    page.settle()
    page.by("file").set_input_files(path)
    page.press("send")


def test_lists_what_is_there(page: Page) -> None:
    page.go("/models")
    page.settle()
    assert "Drives" in card(page, "oval")
    assert "The one before" in card(page, "reinvent-2018")
    assert "Barred" in card(page, "bad-one") and "crashed twice" in card(page, "bad-one")
    page.press("#models summary")
    assert "0.8 to 2.0\u00a0m/s" in card(page, "oval")
    assert "first_oval" in card(page, "oval")


def test_uploads_and_drives_with_it(page: Page, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * PIECE // 256) + b"end"
    send(page, file_of(tmp_path, content))
    page.wait(lambda: "has taken the model" in page.text("progress-text"), page.text("progress-text"))
    page.wait(lambda: "On trial" in card(page, "fast-one"), card(page, "fast-one"))
    begun = page.backend.asked("/api/v1/uploads")
    assert begun[0]["body"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert begun[0]["body"]["size"] == len(content)
    pieces = [one for one in page.backend.told()["log"] if one["method"] == "PATCH"]
    assert len(pieces) == 4
    assert page.faults() == []


@pytest.mark.parametrize("broken", [[1, 500, 503], [1, 0]], ids=["errors", "dropped"])
def test_goes_on_after_a_lost_connection(page: Page, tmp_path: Path, broken: list[int]) -> None:
    content = b"x" * (2 * PIECE + 5)
    sha256 = hashlib.sha256(content).hexdigest()
    page.backend.set(faults={f"/api/v1/uploads/{sha256}": broken})
    send(page, file_of(tmp_path, content))
    page.wait(lambda: "has taken the model" in page.text("progress-text"), page.text("progress-text"))
    page.wait(lambda: card(page, "fast-one"), "it is there")


def slow_upload(page: Page, bytes_per_s: int) -> None:
    """As over a weak Wi-Fi; -1: as fast as it goes."""
    page.cdp.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s}
    page.cdp.send("Network.emulateNetworkConditions", limits)


def test_pause_and_go_on(page: Page, tmp_path: Path) -> None:
    content = b"y" * (40 * PIECE)
    slow_upload(page, 2 * PIECE)  # so that it is not over before it can be paused
    try:
        send(page, file_of(tmp_path, content))
        page.wait(lambda: any(one["method"] == "PATCH" for one in page.backend.told()["log"]), "a piece was sent")
        page.press("cancel")
        page.wait(lambda: page.text("progress-text").startswith("Paused"), page.text("progress-text"))
        sent = len([one for one in page.backend.told()["log"] if one["method"] == "PATCH"])
        assert 0 < sent < 40
    finally:
        slow_upload(page, -1)
    page.press("send")
    page.wait(lambda: "has taken the model" in page.text("progress-text"), page.text("progress-text"))
    assert len([one for one in page.backend.told()["log"] if one["method"] == "PATCH"]) <= 42


def test_a_refusal_says_why(page: Page, tmp_path: Path) -> None:
    send(page, file_of(tmp_path, b"too slow"))
    page.wait(lambda: "92 ms" in page.text("upload-errors"), page.text("upload-errors"))
    assert "Likely cause: its network is too large" in page.text("upload-errors")
    assert "What to do: train with a smaller network" in page.text("upload-errors")
    assert card(page, "fast-one") == ""


def test_choose_go_back_let_in_and_delete(page: Page) -> None:
    page.go("/models")
    page.settle()
    page.press("[aria-label='Drive with it: reinvent-2018']")
    page.wait(lambda: "On trial" in card(page, "reinvent-2018"), card(page, "reinvent-2018"))
    page.press("rollback")
    page.wait(lambda: "Drives" in card(page, "oval"), card(page, "oval"))
    page.press("[aria-label='Let it in again: bad-one']")
    page.wait(lambda: "Barred" not in card(page, "bad-one"), card(page, "bad-one"))

    page.press("[aria-label='Delete bad-one']")
    page.press("confirm-no")
    assert not page.by("confirm").is_visible() and card(page, "bad-one")
    page.press("[aria-label='Delete bad-one']")
    assert "bad-one" in page.text("confirm-text")
    page.press("confirm-yes")
    page.wait(lambda: not card(page, "bad-one"), "it is gone")
    assert not page.by("confirm").is_visible()
    assert not page.all("[aria-label='Delete oval']"), "not the one that drives"


def test_the_stop_button_lives_beside_the_question(page: Page) -> None:
    page.go("/models")
    page.settle()
    page.press("[aria-label='Delete bad-one']")
    page.by("stop").click()
    page.mode("stopped")


def test_the_pages_own_sha256(page: Page) -> None:
    page.go("/models")
    for length in (0, 3, 55, 56, 63, 64, 65, 119, 120, 1000, 1 << 20):
        found = page.js(
            """const [length] = arguments;
            const data = Uint8Array.from({length}, (_, i) => (i * 7 + 3) & 255);
            return import("/static/sha256.js").then(({Sha256}) => {
              const hash = new Sha256();
              for (let at = 0; at < length; at += 100003) hash.update(data.subarray(at, at + 100003));
              return hash.hex();
            });""",
            length,
        )
        assert found == hashlib.sha256(bytes((i * 7 + 3) & 255 for i in range(length))).hexdigest(), length
