"""Building the simulated board, its words, and what is said where it cannot be."""

from __future__ import annotations

import re
import select
import shutil
import time
from pathlib import Path

import pytest

from firmware_bridge import board
from firmware_bridge.board import FIRMWARE, PACKAGES, BoardError, PinPulse, SimulatedBoard, build, read_pulse
from tests.firmware_bridge.firmware_board import built

ROOT = Path(__file__).resolve().parents[2]


def test_pulses_and_other_lines() -> None:
    assert read_pulse("pulse 12.500000 throttle 1446.0625") == PinPulse(12.5, "throttle", 1446.0625, False)
    cut = read_pulse("pulse 12.500000 steering 700.0000 cut")
    assert cut == PinPulse(12.5, "steering", 700.0, True) and cut.fall_s == pytest.approx(12.5007)
    assert [read_pulse(line) for line in ("ready", "", "lag 1.5 6.3", "done 3.1 corrupt 100")] == [None] * 4


@pytest.mark.parametrize("gone", board.TOOLS)
def test_a_missing_tool_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == gone else f"/usr/bin/{name}")
    with pytest.raises(BoardError) as caught:
        build()
    assert gone in caught.value.what
    assert caught.value.next_step == f"sudo apt-get install --no-install-recommends {PACKAGES}"


def test_without_the_source_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="is not there") as caught:
        build(tmp_path)
    assert "checkout" in caught.value.next_step


def test_one_list_of_packages() -> None:
    """The Makefile, the set-up and the documents install the same."""
    for name in ("Makefile", "tools/setup.sh", "docs/bridge.md", "firmware_bridge/firmware/Makefile"):
        lists = re.findall(r"gcc-avr avr-libc [a-z0-9 -]*", (ROOT / name).read_text())
        assert lists and {one.strip() for one in lists} == {PACKAGES}, name


@pytest.mark.firmware
def test_a_build_that_fails_shows_the_compiler(tmp_path: Path) -> None:
    built()
    copy = tmp_path / "firmware"
    shutil.copytree(FIRMWARE, copy, ignore=shutil.ignore_patterns("build", "__pycache__"))
    (copy / "bridge.c").write_text("no C\n")
    with pytest.raises(BoardError) as caught:
        build(copy)
    assert "bridge.c:1" in caught.value.what and str(copy) in caught.value.next_step


@pytest.mark.firmware
def test_it_says_its_processor_time_obeys_and_ends(tmp_path: Path) -> None:
    simulated = SimulatedBoard(built(), tmp_path / "tty")
    try:
        told_s = time.monotonic()
        simulated.tell("corrupt 7")
        simulated.tell("dance")
        lines: list[list[str]] = []
        while not {"ready", "cpu", "done", "unknown"} <= {words[0] for words in lines}:
            assert time.monotonic() - told_s < 10.0, lines
            select.select([simulated], [], [], 0.1)
            lines += [line.split() for line in simulated.take()]
        (done,) = (words for words in lines if words[0] == "done")
        (unknown,) = (words for words in lines if words[0] == "unknown")
        assert done[2:] == ["corrupt", "7"] and told_s <= float(done[1]) <= float(unknown[1]) <= time.monotonic()
        assert (tmp_path / "tty").is_symlink()
        simulated.tell("quit")
        with pytest.raises(BoardError, match="ended with status 0"):
            while True:
                select.select([simulated], [], [], 0.1)
                simulated.take()
        assert not (tmp_path / "tty").is_symlink()
    finally:
        simulated.close()
