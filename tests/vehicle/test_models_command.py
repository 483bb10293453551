"""`hotlap models`: what it prints, what it changes, how it asks the gate."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from tests.vehicle.test_bundle import write
from vehicle import models_command
from vehicle.action_space import default_action_space
from vehicle.contract import contract_for
from vehicle.errors import GateError, SlotError
from vehicle.models_command import is_armed, models
from vehicle.options import models_options
from vehicle.slots import ModelStore

pytestmark = pytest.mark.slow  # every bundle is checked in a process of its own


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    space = default_action_space()
    other = contract_for(space, control_period_s=0.1, trained_on={"seed": 2})
    return write(folder / "a.tar.gz").path, write(folder / "b.tar.gz", contract=other).path


class Car:
    """A car with a state folder of its own and no gate, and the command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.toml = folder / "car.toml"
        self.toml.write_text(f'state_dir = "{folder / "state"}"\n')
        self.models = folder / "state" / "models"
        self._capsys = capsys
        self._parser = argparse.ArgumentParser()
        models_options(self._parser)

    def text(self, *words: str | Path) -> str:
        args = self._parser.parse_args([*map(str, words), "--config", str(self.toml)])
        assert models(args) == 0
        return self._capsys.readouterr().out

    def json(self, *words: str | Path) -> dict[str, Any]:
        out = self.text(*words, "--json")
        assert out.count("\n") == 1
        return dict(json.loads(out))

    def fault(self, *words: str | Path) -> str:
        with pytest.raises(SlotError) as caught:
            self.text(*words)
        assert self._capsys.readouterr().out == ""
        return caught.value.fault


@pytest.fixture
def car(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Car:
    monkeypatch.setattr(models_command, "is_armed", lambda: False)
    return Car(tmp_path, capsys)


def test_the_life_of_two_models(car: Car, bundles: tuple[Path, Path]) -> None:
    assert "no model is installed" in car.text("list") and not car.models.exists()
    assert car.json() == {
        "models": [], "current": None, "previous": None, "trial": None, "barred": {}, "notice": None
    }  # fmt: skip
    first = car.json("install", bundles[0], "--activate")
    assert first["new"] and first["trial"] == {"sha256": first["sha256"], "failures": 0}
    assert first["report"]["p99_ms"] > 0
    assert "was installed already" in car.text("install", bundles[0])
    assert car.fault("rollback") == "no_previous" and car.fault("remove", first["sha256"][:8]) == "in_use"
    store = ModelStore(car.models)
    store.begin_boot()
    store.proved_healthy(first["sha256"])

    text = car.text("install", bundles[1])
    second = next(m["sha256"] for m in car.json("list")["models"] if m["sha256"] != first["sha256"])
    assert "p99" in text and f"hotlap models activate {second[:12]}" in text
    assert "on trial" in car.text("activate", second[:8])
    table = car.text("list")
    assert second[:12] in table and "trial" in table and "current" in table
    assert first["sha256"][:12] in car.text("rollback")
    listed = car.json("list")
    assert listed["current"] == first["sha256"] and listed["trial"] is None
    assert [m["role"] for m in listed["models"]] == ["", "current"]
    assert "is gone" in car.text("remove", second[:8])
    assert len(car.json()["models"]) == 1
    assert car.fault("activate", second[:8]) == "unknown_sha"


def test_a_barred_model_is_listed_with_its_reason_and_allowed(car: Car, bundles: tuple[Path, Path]) -> None:
    sha256 = car.json("install", bundles[0], "--activate")["sha256"]
    store = ModelStore(car.models)
    for _ in range(3):
        store.begin_boot()
    assert "none proved healthy" in car.text("list") and car.json("list")["notice"]["reason"] == "trial_failed"
    assert car.fault("activate", sha256) == car.fault("install", bundles[0]) == "barred"
    car.text("remove", sha256)
    assert "removed" in car.text("list") and sha256 in car.json("list")["barred"]
    assert car.json("allow", sha256[:6])["barred"] == {}
    assert car.json("install", bundles[0])["new"]


def test_while_armed_only_looking_is_allowed(
    car: Car, bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = car.json("install", bundles[0])["sha256"]
    monkeypatch.setattr(models_command, "is_armed", lambda: True)
    for words in (("install", bundles[1]), ("activate", sha256), ("rollback",), ("remove", sha256)):
        assert car.fault(*words) == "armed"
    assert len(car.json("list")["models"]) == 1


def test_what_the_gate_says_of_being_armed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def answering(answer: dict[str, Any] | None) -> None:
        def request(runtime: Path, socket: str, message: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
            asked.append((socket, message))
            if answer is None:
                raise GateError("nobody answers", reason="no_answer")
            return answer

        monkeypatch.setattr(models_command, "request", request)

    monkeypatch.setattr(models_command, "runtime_dir", lambda: tmp_path)
    for answer, armed in (
        (None, False),  # not running
        ({"ok": True, "armed": False}, False),
        ({"ok": True, "armed": True}, True),
        ({"ok": False, "reason": "busy"}, True),  # it runs and does not say: it may be armed
    ):
        answering(answer)
        assert is_armed() is armed
    assert set(map(str, asked)) == {str(("gate.request", {"op": "status"}))}


def test_the_calibration_of_the_car_is_held_against_the_model(car: Car, bundles: tuple[Path, Path]) -> None:
    from dataclasses import replace

    from calibration.mapping import default_sim_calibration
    from calibration.store import save_calibration

    narrow = default_sim_calibration()
    narrow = replace(narrow, steering=replace(narrow.steering, max_deg=20.0))
    path = car.models.parent / "calibration.json"
    path.parent.mkdir()
    save_calibration(path, narrow)
    assert car.fault("install", bundles[0]) == "misfit" and not car.models.exists()
    save_calibration(path, default_sim_calibration())
    assert car.json("install", bundles[0])["new"]
