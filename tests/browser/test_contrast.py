"""Contrast of the pages' colours, computed from the style sheet as WCAG 2.2 has it; needs no browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "calibration" / "static"
TEXT, PART = 4.5, 3.0  # WCAG 1.4.3 text, 1.4.11 edges and states

# foreground, background, least ratio
PAIRS = [
    *((text, ground, TEXT) for text in ("text", "muted", "accent") for ground in ("page", "surface", "raised")),
    *((f"on-{name}", name, TEXT) for name in ("accent", "go", "stop", "warn", "bad", "good")),
    ("on-bad", "surface", TEXT), ("on-good", "surface", TEXT), ("text", "surface", TEXT),
    *((part, ground, PART) for part in ("edge", "accent", "focus", "stop", "go") for ground in ("page", "surface")),
]  # fmt: skip


def colours(dark: bool) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "base.css").read_text(), re.DOTALL)
    found: dict[str, str] = {}
    for block in blocks[: 2 if dark else 1]:
        found.update(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    return found


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert ratio("#ffffff", "#000000") == pytest.approx(21.0)
    assert ratio("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_pair_has_contrast_enough(dark: bool) -> None:
    found = colours(dark)
    poor = [
        f"{front} on {back}: {ratio(found[front], found[back]):.2f}, at least {least}"
        for front, back, least in PAIRS
        if ratio(found[front], found[back]) < least
    ]
    assert poor == []


def test_dark_names_every_colour_again() -> None:
    light, dark = colours(False), colours(True)
    assert set(light) == set(dark) and [name for name in light if light[name] == dark[name]] == ["on-stop"]


def test_nothing_comes_from_elsewhere_or_needs_inline_style() -> None:
    for path in (*STATIC.iterdir(), *(STATIC.parent / "templates").iterdir()):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text, path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|<script>|javascript:|innerHTML|eval\(", text), path
