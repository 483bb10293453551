"""`hotlap bridge`: what it prints and its exit status, over a pseudo-terminal to a MODEL of the firmware."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.messages import Radio, State
from tests.firmware_bridge.model_bridge import BridgeModel, ModelBoard
from vehicle.bridge_command import BridgeCommandError, add_options, bridge
from vehicle.errors import HotlapError

pytestmark = pytest.mark.slow  # boards in real time

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[ModelBoard]:
    board = ModelBoard(tmp_path / "ttyBoard")
    yield board
    board.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command's exit status and stdout."""

    def run(*words: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        add_options(parser)
        status = bridge(parser.parse_args(list(words)))
        return status, capsys.readouterr().out

    return run


def as_json(answer: tuple[int, str]) -> dict[str, Any]:
    assert answer[1].count("\n") == 1
    return dict(json.loads(answer[1]))


def test_find(board: ModelBoard, run: Run) -> None:
    status, text = run("find", "--port", board.path)
    assert status == 0 and f"{board.path}: bridge, firmware 1.0.0, protocol 1" in text
    found = as_json(run("find", "--port", board.path, "--json"))
    assert found["bridges"] == [board.path]
    assert found["ports"][0]["bridge"]["reset_cause"] == "power on" and found["ports"][0]["error"] is None


def test_find_finds_none(tmp_path: Path, run: Run) -> None:
    status, text = run("find", "--port", str(tmp_path / "ttyGone"))
    assert status == 1 and "cannot be opened" in text and "hotlap bridge flash" in text
    answer = run("find", "--port", str(tmp_path / "ttyGone"), "--json")
    assert answer[0] == 1 and as_json(answer)["bridges"] == []


def test_info(board: ModelBoard, run: Run) -> None:
    status, text = run("info", "--port", board.path)
    assert status == 0
    assert "1.0.0" in text and "4.98 V" in text and "1311 / 1446 / 1603.5 us" in text and "disarmed" in text
    info = as_json(run("info", "--json", "--port", board.path))
    assert info["config"]["throttle"]["neutral_us"] == 1446.0 and info["telemetry"]["supply_v"] == 4.98
    assert info["telemetry"]["counters"]["crc_errors"] == 0 and info["link"] == "up"


def test_info_of_a_board_without_configuration(tmp_path: Path, run: Run) -> None:
    board = ModelBoard(tmp_path / "ttyFresh", BridgeModel(config=None, supply_mv=0))
    try:
        text = run("info", "--port", board.path)[1]
        assert "not configured" in text and "not measured" in text
        assert as_json(run("info", "--port", board.path, "--json"))["config"] is None
    finally:
        board.close()


def test_monitor(board: ModelBoard, run: Run) -> None:
    status, text = run("monitor", "--port", board.path, "--duration", "1.2s")
    assert status == 0 and len(text.splitlines()) in (2, 3) and "disarmed" in text
    watched = as_json(run("monitor", "--port", board.path, "--duration", "1", "--json"))
    assert 20 < watched["telemetry_hz"] < 60 and watched["seconds"] < 2.0


def test_selftest(board: ModelBoard, run: Run) -> None:
    status, text = run("selftest", "--port", board.path)
    assert status == 0 and "every promise is kept" in text
    report = as_json(run("selftest", "--port", board.path, "--json"))
    assert report["ok"] is True and len(report["checks"]) == 9


def test_a_selftest_that_fails_is_exit_status_1(tmp_path: Path, run: Run) -> None:
    board = ModelBoard(tmp_path / "ttyFresh", BridgeModel(config=None))
    try:
        status, text = run("selftest", "--port", board.path)
        assert status == 1 and "FAIL  configuration" in text and "do not drive" in text and "cure of" in text
    finally:
        board.close()


def test_reset_ends_an_emergency_stop(board: ModelBoard, run: Run) -> None:
    board.act(lambda: setattr(board.model, "state", State.ESTOP))
    status, text = run("reset", "--port", board.path)
    assert status == 0 and text == f"{board.path}: disarmed\n"
    assert board.model.state is State.DISARMED
    assert as_json(run("reset", "--port", board.path, "--json")) == {"port": board.path, "state": "disarmed"}


def test_reset_does_not_end_an_override(board: ModelBoard, run: Run) -> None:
    board.act(lambda: setattr(board.model, "radio", Radio.OVERRIDE))
    with pytest.raises(BridgeCommandError, match="still override") as caught:
        run("reset", "--port", board.path)
    assert "transmitter" in caught.value.next_step


def test_errors_of_the_bridge_room_reach_the_front_door(tmp_path: Path, run: Run) -> None:
    for words in (["info"], ["monitor"], ["selftest"], ["reset"]):
        with pytest.raises(HotlapError, match="ttyGone cannot be opened") as caught:
            run(*words, "--port", str(tmp_path / "ttyGone"))
        assert caught.value.cause and caught.value.next_step


def test_flash_without_a_built_firmware(board: ModelBoard, tmp_path: Path, run: Run) -> None:
    with pytest.raises(BridgeCommandError, match="is not there") as caught:
        run("flash", "--port", board.path, "--hex", str(tmp_path / "no.hex"))
    assert "make -C firmware_bridge/firmware" in caught.value.next_step


def test_flash_writes_and_then_asks_the_board(
    board: ModelBoard, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "avrdude"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/args\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    hex_file = tmp_path / "bridge.hex"
    hex_file.write_text(":0200000061623B\n:00000001FF\n")
    status, text = run("flash", "--port", board.path, "--hex", str(hex_file))
    assert status == 0 and "2 bytes written and verified; firmware 1.0.0 answers" in text
    done = as_json(run("flash", "--port", board.path, "--hex", str(hex_file), "--baud", "57600", "--json"))
    assert done["bytes"] == 2 and done["bridge"]["firmware"] == "1.0.0"
    assert as_json(run("flash", "--hex", str(hex_file), "--programmer", "usbasp", "--json"))["bridge"] is None
    first, second, third = (tmp_path / "args").read_text().splitlines()
    assert f"-P {board.path} -b 115200 -D" in first and "-b 57600" in second
    assert "-c usbasp" in third and "-P" not in third.split()


@pytest.mark.parametrize("words", [[], ["fly"], ["monitor", "--duration", "0"], ["monitor", "--duration", "soon"],
                                   ["flash", "--baud", "9600"]])  # fmt: skip
def test_wrong_words_are_refused(words: list[str], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(*words)
    assert capsys.readouterr().err


def test_building_the_parser_loads_nothing_heavy(root: Path) -> None:
    program = (
        "import argparse, sys\nfrom vehicle.bridge_command import add_options\nadd_options(argparse.ArgumentParser())\n"
        "print(*{'serial', 'numpy', 'firmware_bridge', 'zmq'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
