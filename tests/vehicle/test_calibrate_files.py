"""`hotlap calibrate show` and the others, as a script calls them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import hotlap
from calibration.deepracer import to_deepracer
from calibration.mapping import default_sim_calibration
from calibration.store import load_calibration, save_calibration
from calibration.values import Calibration, Steering
from tests.vehicle.gate_process import GateProcess, until
from vehicle import car_config

OTHER = replace(default_sim_calibration(), steering=Steering(1690.0, 1455.0, 1210.0, 28.0))
Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def car_toml(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A car on which nothing runs."""
    monkeypatch.setenv("HOTLAP_RUNTIME", str(folder / "none"))
    path = folder / "car.toml"
    path.write_text(f'state_dir = "{folder}/state"\n[actuator]\nkind = "none"\n[camera]\nkind = "folder"\n')
    return path


@pytest.fixture
def file(folder: Path, car_toml: Path) -> Path:
    return folder / "state" / "calibration.json"


@pytest.fixture
def call(car_toml: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = hotlap.main(["calibrate", *words, "--config", str(car_toml), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def text_of(capsys: pytest.CaptureFixture[str], car_toml: Path, *words: str) -> str:
    capsys.readouterr()
    assert hotlap.main(["calibrate", *words, "--config", str(car_toml)]) == 0
    return capsys.readouterr().out


def test_show_has_values_checks_and_curves(
    call: Call, file: Path, car_toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_calibration(file, OTHER)
    status, found = call("show")
    assert status == 0 and found["path"] == str(file) and found["faults"] == []
    assert found["calibration"] == json.loads(json.dumps(asdict(OTHER)))
    steering, speed = found["curve"]["steering"], found["curve"]["speed"]
    assert (steering[0], steering[-1]) == ([-28.0, 1210.0], [28.0, 1690.0]) and speed[-1][0] == 4.0
    said = text_of(capsys, car_toml, "show")
    for words in ("1455.0", "checks: order", "deadband: 25.0 us forwards", "+28.0: 1690.0", "+4.00: 1311.0"):
        assert words in said


def test_without_one_or_with_a_damaged_one_it_says_what_to_do(call: Call, file: Path) -> None:
    status, found = call("show")
    assert status == 2 and "no calibration" in found["error"]["what"] and "hotlap calibrate" in found["error"]["next"]
    save_calibration(file, OTHER)
    file.write_text("{")
    status, found = call("show")
    assert status == 2 and "hotlap calibrate" in found["error"]["next"]
    assert call("undo") == (0, {"calibration": json.loads(json.dumps(asdict(OTHER)))})  # the last whole one


def test_history_undo_and_restore(call: Call, file: Path, car_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("history") == (0, {"history": []})
    assert call("undo")[0] == 2
    for calibration in (Calibration(), OTHER):
        save_calibration(file, calibration)
    status, found = call("history")
    rows = [(row["revision"], row["previous"], row["in_force"]) for row in found["history"]]
    assert status == 0 and rows == [(2, 1, True), (1, None, False)]
    assert found["history"][0]["calibration"]["steering"]["center_us"] == 1455.0
    said = text_of(capsys, car_toml, "history")
    assert "number 2, in force" in said and "1455.0" in said and "number 1\n" in said
    assert call("undo")[1]["calibration"]["steering"]["center_us"] == 1450.0
    assert load_calibration(file) == Calibration()
    assert "1455.0" in text_of(capsys, car_toml, "restore", "2") and load_calibration(file) == OTHER
    status, found = call("restore", "9")
    assert status == 2 and "calibration 9" in found["error"]["what"] and load_calibration(file) == OTHER


def test_a_damaged_entry_is_named(call: Call, file: Path) -> None:
    for calibration in (Calibration(), OTHER):
        save_calibration(file, calibration)
    (file.parent / "calibration.json.history" / "000001.json").write_text("{")
    assert call("history")[1]["history"][1]["fault"]
    assert call("restore", "1")[0] == 2 and load_calibration(file) == OTHER


def test_export(call: Call, file: Path, folder: Path, car_toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_calibration(file, OTHER)
    wanted = folder / "out.json"
    assert call("export", str(wanted)) == (0, {"file": str(wanted)})
    assert wanted.read_text() == to_deepracer(OTHER) == text_of(capsys, car_toml, "export", "-")


def test_import_is_only_done_when_somebody_says_yes(call: Call, file: Path, folder: Path) -> None:
    original = folder / "original.json"
    original.write_text(to_deepracer(Calibration()))
    save_calibration(file, OTHER)
    status, found = call("import", str(original))
    assert status == 2 and "--yes" in found["error"]["next"] and load_calibration(file) == OTHER
    status, found = call("import", str(original), "--yes")
    assert status == 0 and found["calibration"]["steering"] == {**asdict(Steering()), "max_deg": 28.0, "points": []}
    assert load_calibration(file).throttle == Calibration().throttle  # the file knows neither starts nor speeds
    original.write_text(original.read_text().replace('"polarity": 1', '"polarity": 0'))
    status, found = call("import", str(original), "--yes")
    assert status == 2 and "polarity" in found["error"]["what"]
    assert call("import", str(folder / "nowhere"), "--yes")[0] == 2
    assert load_calibration(file).throttle == Calibration().throttle


def test_files_of_another_user_are_left_alone(call: Call, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for calibration in (Calibration(), OTHER):
        save_calibration(file, calibration)
    before = file.read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for words in (("undo",), ("restore", "1")):
        status, found = call(*words)
        assert status == 2 and "sudo -u" in found["error"]["next"] and file.read_bytes() == before
    assert call("show")[0] == call("history")[0] == 0


def test_the_installed_car_is_the_one_that_is_meant(
    file: Path, car_toml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_calibration(file, OTHER)
    monkeypatch.setattr(car_config, "INSTALLED", car_toml)
    assert hotlap.main(["calibrate", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(file)


@pytest.mark.slow
def test_with_a_gate_its_own_file_is_meant_and_it_is_told(
    folder: Path, call: Call, car_toml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "car").mkdir()
    gate = GateProcess(folder / "car").start().wait_answer()
    try:
        monkeypatch.setenv("HOTLAP_RUNTIME", str(gate.runtime))
        status, found = call("show")  # call names another car's car.toml
        assert status == 2 and "another car" in found["error"]["cause"]
        original = folder / "original.json"
        original.write_text(to_deepracer(OTHER))
        words = ["calibrate", "import", str(original), "--yes", "--json"]
        capsys.readouterr()
        assert hotlap.main(words) == 0
        assert until(lambda: gate.status()["pulses"]["steering_us"] == 1455.0)
        assert load_calibration(gate.state_dir / "calibration.json").steering.center_us == 1455.0
        gate.ask("stop")
        original.write_text(to_deepracer(Calibration()))
        capsys.readouterr()
        assert hotlap.main(words) == 2
        assert "the car is stopped" in json.loads(capsys.readouterr().out)["error"]["what"]
        assert gate.status()["pulses"]["steering_us"] == 1455.0
    finally:
        gate.close()
