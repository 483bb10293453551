"""Installing: what is measured, what is asked of the car, and what a busy, armed or changed world does to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calibration.mapping import default_sim_calibration
from tests.vehicle.test_bundle import CONTINUOUS, write
from vehicle import slot_install, slot_verify
from vehicle.action_space import default_action_space
from vehicle.bundle import MAX_FILE_BYTES
from vehicle.car_config import CarConfig, DriveConfig
from vehicle.contract import Contract, contract_for
from vehicle.errors import SlotError
from vehicle.slot_install import MAX_BYTES, Installed, install_bundle
from vehicle.slot_verify import Verdict, check_here, check_in_child
from vehicle.slots import ModelStore

pytestmark = pytest.mark.slow  # every bundle is checked in a process of its own

CAR, CALIBRATION = CarConfig(), default_sim_calibration()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "good.tar.gz").path


def refused(*args: Any, **options: Any) -> SlotError:
    with pytest.raises(SlotError) as caught:
        install_bundle(*args, **options)
    return caught.value


def test_an_install_measures_this_processor(good: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    done = install_bundle(store, good, CAR, CALIBRATION)
    assert done.new and store.bundle_path(done.sha256).read_bytes() == good.read_bytes()
    (model,) = store.list()
    assert model.report == done.report
    assert 0.0 < done.report["p50_ms"] <= done.report["p99_ms"] < 50.0 == done.report["budget_ms"]
    assert done.report["runs"] >= 50 and 0.0 <= done.report["golden_difference"] < 1e-4
    assert store.begin_boot() is None


def test_the_same_again_is_a_success_without_a_check(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models")
    first = install_bundle(store, good, CAR, CALIBRATION)
    monkeypatch.setattr(slot_install, "check_in_child", None)
    assert install_bundle(store, good, CAR, CALIBRATION) == Installed(first.sha256, False, first.report)
    store.bundle_path(first.sha256).write_bytes(b"damaged")
    with pytest.raises(TypeError):  # a damaged one is checked and written anew
        install_bundle(store, good, CAR, CALIBRATION)
    monkeypatch.undo()
    assert install_bundle(store, good, CAR, CALIBRATION).new and store.is_whole(first.sha256)


def test_a_continuous_policy_is_measured_in_its_own_units(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tar.gz", CONTINUOUS).path
    done = install_bundle(ModelStore(tmp_path / "models"), path, CAR, CALIBRATION)
    assert done.report["golden_difference"] < 1e-4


def test_the_budget_is_half_the_period_of_this_car(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def spy(path: Path, *, budget_s: float, runs: int, timeout_s: float) -> Verdict:
        seen.append(budget_s)
        return check_here(path, budget_s=budget_s, runs=runs)

    monkeypatch.setattr(slot_install, "check_in_child", spy)
    store = ModelStore(tmp_path / "models")
    error = refused(store, good, replace(CAR, drive=replace(DriveConfig(), control_hz=20.0)), CALIBRATION)
    assert error.fault == "misfit" and "control_period" in error.what
    install_bundle(store, good, CAR, CALIBRATION)
    assert seen == pytest.approx([0.025, 0.05])
    error = refused(ModelStore(tmp_path / "other"), good, CAR, CALIBRATION, budget_s=1e-9)
    assert error.fault == "too_slow" and "2 of 2" in error.what
    with pytest.raises(ValueError, match="at least 50"):
        install_bundle(store, good, CAR, CALIBRATION, runs=49)


def test_one_hiccup_is_forgiven_two_are_not(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(slow: set[int]) -> None:
        """Each inference takes 1 ms, those of these numbers 100 ms; two readings an inference, warm-up first."""
        now, readings = 0.0, 0

        def monotonic() -> float:
            nonlocal now, readings
            number, end = divmod(readings, 2)
            readings += 1
            now += (0.1 if number - slot_verify.WARM_UP_RUNS in slow else 0.001) if end else 0.0
            return now

        monkeypatch.setattr(slot_verify, "time", SimpleNamespace(monotonic=monotonic))

    clock({-1, 70})
    verdict = check_here(good, budget_s=0.05)
    assert (verdict.p50_ms, verdict.p99_ms) == (1.0, 1.0)
    clock({70, 99})
    with pytest.raises(SlotError, match="2 of 100 inferences took more than 50.0 ms, the slowest 100.0 ms"):
        check_here(good, budget_s=0.05)


def test_armed_is_refused_before_anything_else(good: Path, tmp_path: Path) -> None:
    armed = ModelStore(tmp_path / "models", is_armed=lambda: True)
    assert refused(armed, good, CAR, CALIBRATION).fault == "armed"
    asked = iter((False, True))
    late = ModelStore(tmp_path / "models", is_armed=lambda: next(asked))  # armed while the checks ran
    assert refused(late, good, CAR, CALIBRATION).fault == "armed"
    assert os.listdir(tmp_path) == []


def test_a_barred_model_is_refused_until_allowed(good: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    done = install_bundle(store, good, CAR, CALIBRATION)
    store.activate(done.sha256)
    for _ in range(3):
        store.begin_boot()
    error = refused(store, good, CAR, CALIBRATION)
    assert error.fault == "barred" and f"hotlap models allow {done.sha256[:12]}" in error.next_step
    store.allow(done.sha256)
    assert not install_bundle(store, good, CAR, CALIBRATION).new


def test_a_file_that_changes_meanwhile_is_refused(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "copying.tar.gz"
    path.write_bytes(good.read_bytes())
    other = write(tmp_path / "other.tar.gz", contract=_other_contract()).path

    def swap(path: Path, **options: Any) -> Verdict:
        path.write_bytes(other.read_bytes())
        return check_in_child(path, **options)

    monkeypatch.setattr(slot_install, "check_in_child", swap)
    assert refused(ModelStore(tmp_path / "models"), path, CAR, CALIBRATION).fault == "changed"
    assert not (tmp_path / "models").exists()


def _other_contract() -> Contract:
    return contract_for(default_action_space(), control_period_s=0.1, trained_on={"seed": 2})


def test_every_misfit_is_told_with_its_cure(good: Path, tmp_path: Path) -> None:
    car = replace(CAR, camera=replace(CAR.camera, pitch_down_deg=40.0, height_m=0.4))
    error = refused(ModelStore(tmp_path / "models"), good, car, CALIBRATION)
    assert error.fault == "misfit" and "camera_pitch" in error.what and "camera_height" in error.what
    assert "camera.pitch_down_deg" in error.next_step and "camera.height_m" in error.next_step
    assert os.listdir(tmp_path) == []


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    assert MAX_BYTES == MAX_FILE_BYTES
    store = ModelStore(tmp_path / "models")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", Path("nul\0")):
        assert refused(store, path, CAR, CALIBRATION).fault == "missing_file"


def test_a_checker_that_dies_is_named(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, output, words in (
        (-signal.SIGKILL, b"", "SIGKILL"), (-signal.SIGSEGV, b"", "SIGSEGV"), (1, b"", "status 1: MemoryError"),
        (0, b'{"sha256": "x"}', "status 0"), (0, b"[]", "status 0"),
    ):  # fmt: skip
        result = subprocess.CompletedProcess([], status, output, b"Traceback\nMemoryError\n")
        monkeypatch.setattr(slot_verify.subprocess, "run", lambda *a, result=result, **k: result)
        error = refused(ModelStore(tmp_path / "models"), good, CAR, CALIBRATION)
        assert error.fault == "check_crashed" and words in error.what
    assert os.listdir(tmp_path) == []


def test_the_parent_needs_no_onnx_runtime(root: Path) -> None:
    code = "import sys, vehicle.slot_install, vehicle.slots; print('onnxruntime' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "False"
