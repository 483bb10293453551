"""Bytes of a terminal to keys."""

from __future__ import annotations

import pytest

from vehicle.calibrate_terminal import Keys


@pytest.mark.parametrize(
    ("data", "names"),
    (
        (b"a1.-", ["a", "1", ".", "-"]),
        (b"\r\n", ["enter", "enter"]),
        (b"\x7f\b\x04", ["backspace", "backspace", "end"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOD", ["up", "left"]),
        (b"\x1b[3~\x1b[1;5Cq", ["q"]),  # keys that nobody asked for
        (b"\x00\x01\x1bq\xc3", ["q"]),
        ("ü".encode(), ["ü"]),
    ),
)
def test_keys(data: bytes, names: list[str]) -> None:
    assert Keys().names(data) == names


@pytest.mark.parametrize("cut", (1, 2))
def test_an_arrow_that_comes_in_two_pieces(cut: int) -> None:
    keys = Keys()
    assert keys.names(b"x" + b"\x1b[D"[:cut]) == ["x"]
    assert keys.names(b"\x1b[D"[cut:] + b"y") == ["left", "y"]


def test_what_a_line_held_up_is_one_press() -> None:
    """Two seconds of a key that was held, delivered at once, must not run a motor for two seconds."""
    assert Keys().names(b" " * 60) == ["space"]
    assert Keys().names(b"   x  ") == ["space", "x", "space"]
    assert Keys().names(b"\x1b[D" * 3) == ["left"] * 3
