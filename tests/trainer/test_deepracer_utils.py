"""A run of ours in the hands of deepracer-utils 1.5.6, unmodified, as a notebook of log analysis uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotlap

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).with_name("deepracer_notebook.py")
CONFIG = """
randomise = "none"
evaluate_trials = 3
evaluate_every_s = 0
threads = 1
max_steps = 40
control_hz = 15.0
episodes_per_iteration = 5
[ppo]
cars = 4
steps_per_update = 25
minibatch = 50
epochs = 1
"""


def read(run: Path, pictures: Path, track: str = "00-first_oval") -> dict[str, Any]:
    """What the notebook found."""
    pictures.mkdir()
    # Region: boto3 wants one even where nothing is fetched.
    environment = os.environ | {"AWS_DEFAULT_REGION": "eu-west-1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOK), str(run), str(pictures), track],
        capture_output=True, text=True, timeout=280, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def train(folder: Path, *words: object) -> dict[str, Any]:
    config = folder / "small.toml"
    config.write_text(CONFIG)
    out = folder / "run"
    base = ("train", "--track", "first_oval", "--out", out, "--config", config)
    assert hotlap.main([*map(str, base), *map(str, words)]) == 0
    return {"run": out}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 1,200 steps with some evaluations."""
    folder = tmp_path_factory.mktemp("utils")
    train(folder, "--steps", 1200, "--seed", 2)
    return folder / "run"


def test_the_library_is_the_one_that_people_have() -> None:
    assert version("deepracer-utils") == "1.5.6"


def test_a_run_is_loaded_aggregated_and_drawn(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path / "pictures")
    assert found["type"] == "DRFC_MODEL_SINGLE_WORKERS"
    assert found["steps"] == 1200, "every step of every car"
    episodes = found["unique_episodes"]
    assert episodes == found["prepare"] and found["episodes_match"]
    assert found["iterations"][:-1] == [5] * (len(found["iterations"]) - 1), "each iteration as many, but for the last"
    assert found["steps_in_row"] and found["first_step"] == [1]
    assert found["period_s"] == [pytest.approx(1 / 15, abs=1e-3)]
    assert set(found["actions"]) <= set(range(10)) and len(found["actions"]) > 5
    assert {"prepare", "in_progress"} < set(found["statuses"])
    assert set(found["statuses"]) & {"off_track", "time_up", "reversed", "immobilized"}
    assert 0 < found["done_rows"] <= episodes
    assert found["hyperparameters"]["num_episodes_between_training"] == 5
    assert len(found["action_space"]) == 10 and found["agent"]["sensor_list"] == ["FRONT_FACING_CAMERA"]
    assert found["stability_rows"] > 0
    assert np.isfinite(np.array(list(found["agg"].values()))).all()
    assert found["agg"]["reward"] == pytest.approx(found["rewards"])
    assert found["metric_rewards"] == pytest.approx(found["rewards"], abs=1e-2), "metrics and traces tell the same"
    assert len(found["summary"]["iteration"]) == len(found["iterations"])
    assert found["metric_evaluations"] >= 3 and found["metric_evaluations"] % 3 == 0
    assert len(found["streams"]) == 1 and found["eval_trials"] == 3
    assert len(found["pictures"]) >= 7 and min(found["pictures"]) > 1000


def test_evaluate_adds_an_evaluation(run: Path, tmp_path: Path) -> None:
    before = {path.name for path in run.glob("evaluation-*")}
    words = ["evaluate", str(run / "bundle.tar.gz"), "--track", "first_oval", "--trials", "2", "--penalties"]
    assert hotlap.main([*words, "--logs", str(run)]) == 0
    (new,) = {path.name for path in run.glob("evaluation-*")} - before
    metrics = json.loads((run / "metrics" / "evaluation" / f"{new}.json").read_text())["metrics"]
    assert [m["trial"] for m in metrics] == [1, 2]
    rows = (run / new / "evaluation-simtrace" / "0-iteration.csv").read_text().splitlines()
    off = [row for row in rows if ",off_track," in row]
    assert sum(m["off_track_count"] for m in metrics) == len(off) > 0
    assert all(m["elapsed_time_in_milliseconds"] == m["metric_time"] - m["start_time"] for m in metrics)
    assert metrics[1]["start_time"] == metrics[0]["metric_time"]
    found = read(run, tmp_path / "pictures")
    assert set(found["streams"]) == {name.removeprefix("evaluation-") for name in {*before, new}}


def test_a_continuous_space_loads(tmp_path: Path) -> None:
    limits = {"steering_angle": {"low": -25.0, "high": 25.0}, "speed": {"low": 0.4, "high": 0.9}}
    metadata = tmp_path / "model_metadata.json"
    metadata.write_text(json.dumps({"action_space": limits, "action_space_type": "continuous"}))
    train(tmp_path, "--steps", 400, "--action-space", metadata)
    found = read(tmp_path / "run", tmp_path / "pictures")
    assert found["steps"] == 400 and found["actions"] == [-1], "the library reads no pairs"
    assert found["action_space"] == limits
    row = (tmp_path / "run" / "training-simtrace" / "0-iteration.csv").read_text().splitlines()[2].split(",")
    steering, speed = row[7].strip("[]").split()
    assert (float(steering), float(speed)) == pytest.approx((float(row[5]), float(row[6])), abs=0.01)


def test_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    train(tmp_path, "--steps", 400, "--seed", 4)
    assert hotlap.main(["train", "--resume", "--out", str(tmp_path / "run"), "--steps", "900"]) == 0
    found = read(tmp_path / "run", tmp_path / "pictures")
    assert found["episodes_match"] and found["steps_in_row"] and found["unique_episodes"] == found["prepare"]
    assert found["iterations"][:-1] == [5] * (len(found["iterations"]) - 1)
    assert 700 < found["steps"] <= 900, "what was under way when the first session ended is driven again"
    assert found["metric_rewards"] == pytest.approx(found["rewards"], abs=1e-2)


@pytest.mark.parametrize("traces", ["few", "none"])
def test_fewer_or_no_traces(traces: str, tmp_path: Path) -> None:
    train(tmp_path, "--steps", 400, "--traces", traces)
    files = list((tmp_path / "run").glob("training-simtrace/*.csv"))
    if traces == "none":
        assert not files and not list((tmp_path / "run").glob("evaluation-*"))
        return
    rows = sum(len(file.read_text().splitlines()) - 1 for file in files)
    assert 100 <= rows < 150, "one car of four, with a row before each episode"
