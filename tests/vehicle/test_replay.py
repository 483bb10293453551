"""A recorded drive run through a model again: the same model must answer the same, another one is compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotlap import main
from tests.vehicle.pilot_rig import bright, make_bundle
from vehicle.bundle import Bundle
from vehicle.car_config import CarConfig
from vehicle.config import to_toml
from vehicle.drive_log import Record, encode_record
from vehicle.errors import ConfigError, VehicleError
from vehicle.fast_policy import FastPolicy
from vehicle.replay import SHOWN, replay
from vehicle.slots import ModelStore


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("model") / "b.tar.gz")


def record_drive(
    path: Path, bundle: Bundle, count: int = 30, *, turned: Sequence[int] = (), model: str | None = None
) -> None:
    """The log of a drive with this model; in the frames of `turned` it steered 2.5 degrees further."""
    policy = FastPolicy(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        for seq in range(count):
            observation = bright((3 * seq) % 10, seq)[..., None]
            steering_deg, speed_mps = policy.act(observation)
            fields = {
                "seq": seq,
                "stamp_s": 50.0 + 0.1 * seq,
                "intent_seq": seq + 1,
                "steering_deg": steering_deg + (2.5 if seq in turned else 0.0),
                "speed_mps": speed_mps,
                "model": model or bundle.sha256,
            }
            file.write(encode_record(Record(50.01 + 0.1 * seq, "frame", fields, observation.tobytes())))


def run(
    capsys: pytest.CaptureFixture[str], log: Path, model: Path | None = None, config: Path | None = None
) -> tuple[int, dict[str, Any]]:
    status = replay(argparse.Namespace(replay=log, model=model, config=config, json=True))
    return status, json.loads(capsys.readouterr().out)


def test_the_model_that_drove_gives_the_same_answers(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle)
    status, result = run(capsys, log, bundle.path)
    assert status == 0
    assert result == {
        "log": str(log),
        "frames": 30,
        "same": 30,
        "max_steering_difference_deg": 0.0,
        "max_speed_difference_mps": 0.0,
        "differences": [],
        "model": bundle.sha256,
        "recorded_models": {bundle.sha256: 30},
        "check": "passed",
        "damage": [],
    }


def test_the_same_model_with_other_answers_fails_and_names_them(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, turned=[4, 11])
    status, result = run(capsys, log, bundle.path)
    assert status == 1 and result["check"] == "failed" and result["same"] == 28
    assert result["max_steering_difference_deg"] == 2.5 and result["max_speed_difference_mps"] == 0.0
    assert [one["seq"] for one in result["differences"]] == [4, 11]
    first = result["differences"][0]
    assert first["recorded"]["steering_deg"] - first["now"]["steering_deg"] == pytest.approx(2.5)
    assert first["t_s"] == pytest.approx(50.41)


def test_another_model_is_a_comparison_and_fails_nothing(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, count=60)
    other = make_bundle(tmp_path / "other.tar.gz", first=20)  # other rows decide: it steers otherwise
    status, result = run(capsys, log, other.path)
    assert status == 0 and result["check"] == "comparison"
    assert result["model"] == other.sha256 and result["recorded_models"] == {bundle.sha256: 60}
    assert result["same"] < 40 and len(result["differences"]) == SHOWN == 20
    assert result["max_steering_difference_deg"] >= 15.0


def test_of_a_log_of_two_models_only_the_own_frames_are_a_check(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, count=5)
    record_drive(log, bundle, count=5, turned=[1], model="c" * 64)
    status, result = run(capsys, log, bundle.path)
    assert status == 0 and result["check"] == "passed" and len(result["differences"]) == 1
    assert result["recorded_models"] == {bundle.sha256: 5, "c" * 64: 5}


def test_a_torn_end_costs_one_frame_and_is_reported(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, count=10)
    whole = log.read_bytes()
    log.write_bytes(whole[:-5000])
    status, result = run(capsys, log, bundle.path)
    assert status == 0 and result["frames"] == result["same"] == 9
    (damage,) = result["damage"]
    assert damage["fault"] == "torn" and damage["file"] == str(log)
    assert damage["offset"] + damage["length"] == len(whole) - 5000


def test_a_frame_without_an_answer_is_a_difference(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, count=3)
    dark = np.zeros((120, 160, 1), np.uint8)  # the model of the tests gives NaN for it
    fields = {
        "seq": 9, "stamp_s": 1.0, "intent_seq": 9, "steering_deg": 0.0, "speed_mps": 0.4, "model": bundle.sha256,
    }  # fmt: skip
    with open(log, "ab") as file:
        file.write(encode_record(Record(1.0, "frame", fields, dark.tobytes())))
    status, result = run(capsys, log, bundle.path)
    assert status == 1 and result["same"] == 3
    (difference,) = result["differences"]
    assert difference["seq"] == 9 and "not finite" in difference["error"]


def test_without_a_bundle_the_active_model_of_the_car_runs(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    log, car = tmp_path / "frames.log", tmp_path / "car.toml"
    record_drive(log, bundle, count=3)
    car.write_text(to_toml(CarConfig(state_dir=str(tmp_path / "state"))))
    with pytest.raises(VehicleError, match="no model is installed"):
        run(capsys, log, config=car)
    store = ModelStore(tmp_path / "state" / "models")
    store.add(bundle.path.read_bytes(), {})
    store.activate(bundle.sha256)
    status, result = run(capsys, log, config=car)
    assert status == 0 and result["model"] == bundle.sha256


def test_a_log_without_frames_is_refused_with_the_cure(tmp_path: Path, bundle: Bundle) -> None:
    log = tmp_path / "drive.log"
    log.write_bytes(encode_record(Record(1.0, "state", {"mode": "disarmed"})))
    with pytest.raises(ConfigError, match="no recorded frame") as caught:
        replay(argparse.Namespace(replay=log, model=bundle.path, config=None, json=False))
    assert "drive.log_frames = true" in caught.value.next_step


def test_the_command_for_people(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "frames.log"
    record_drive(log, bundle, count=30, turned=range(25))
    with open(log, "ab") as file:
        file.write(b"\xa5hotl")
    status = main(["drive", "--replay", str(log), "--model", str(bundle.path)])
    text = capsys.readouterr().out
    assert status == 1
    for words in ("30 frames", "FAILED", "5 of 30 are the same", "2.50 degrees", "and 5 more", "5 bytes in 1 places"):
        assert words in text
