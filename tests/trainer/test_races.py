"""Races with objects, from the trainer's side: trials, penalties, logs, options."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hotlap import main
from sim.batch_env import STATUS_NAMES, BatchEnv
from sim.race import OBJECT_AVOIDANCE, RaceSpec
from sim.track import load_track
from sim.track_set import TrackSet
from trainer.config import RunConfig
from trainer.evaluation_log import EvaluationLog
from trainer.metrics_log import LABELS
from trainer.time_trials import Conditions, TimeTrials, Trial
from trainer.trace_log import HEADER, place_of
from vehicle.action_space import ContinuousActionSpace
from vehicle.config import load_toml, to_toml

OVAL = load_track("first_oval")
RACE = RaceSpec(race=OBJECT_AVOIDANCE, positions=("0.2,1", "0.6,1"))  # both on the inner lane


class Follower:
    """Drives along a line beside the centre, by looking at the simulator instead of the picture."""

    def __init__(self, lateral_m: float) -> None:
        self.lateral_m = lateral_m

    def begin(self, env: BatchEnv) -> None:
        self.env, self.tracks = env, TrackSet(env.tracks)

    def step(self, *_: object) -> None:
        pass

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        position = self.env.physics.position[:, :2]
        s = self.tracks.project(self.env.track, position).s_m
        target, _ = self.tracks.pose_at(self.env.track, s + 0.5, np.full(len(s), self.lateral_m))
        away = target - position
        angle = np.arctan2(away[:, 1], away[:, 0]) - self.env.physics.heading()
        steering = np.degrees(np.arctan(2 * 0.164 * np.sin(angle) / 0.5)).clip(-30, 30)
        return np.stack([steering, np.full(len(s), 1.0)], axis=1).astype(np.float32)


def drive(lateral_m: float, penalties: bool = False) -> tuple[Trial, EvaluationLog]:
    driver, log = Follower(lateral_m), EvaluationLog()
    trials = TimeTrials(
        [OVAL], 1, action_space=ContinuousActionSpace(-30, 30, 0.5, 2.0), conditions=Conditions(penalties=penalties),
        observers=(driver, log), race=RACE,
    )  # fmt: skip
    with closing(trials):
        return trials.run(driver)[0], log


def test_the_free_lane_is_a_lap_and_the_other_one_a_crash() -> None:
    free, _ = drive(-0.22)
    assert (free.completed, free.crashed, free.off_track) == (True, 0, 0)
    blocked, log = drive(0.22)
    assert (blocked.completed, blocked.crashed, blocked.off_track) == (False, 1, 0)
    assert 15 < blocked.progress < 22, "the first box is at a fifth of the lap"
    assert LABELS[log.trials[0].status] == "Crashed"


def test_penalties_cost_five_seconds_and_are_in_deepracers_logs(tmp_path: Path) -> None:
    trial, log = drive(0.12, penalties=True)  # runs into each box until it is put back on the lane that is free
    assert trial.crashed >= 2
    name = log.write(tmp_path)
    rows = (tmp_path / name / "evaluation-simtrace" / "0-iteration.csv").read_text().splitlines()
    assert rows[0] == HEADER
    cells = [row.partition(",")[2].split(",") for row in rows[1:]]
    crashed = [row for row in cells if row[place_of("episode_status")] == "crashed"]
    assert [int(row[place_of("obstacle_crash_counter")]) for row in crashed] == list(range(1, trial.crashed + 1))
    assert all(float(row[place_of("pause_duration")]) == 5.0 for row in crashed[:100])
    counts = [int(row[place_of("obstacle_crash_counter")]) for row in cells]
    assert counts == sorted(counts)
    entry = json.loads((tmp_path / "metrics" / "evaluation" / f"{name}.json").read_text())["metrics"][0]
    assert (
        entry["crash_count"]
        == trial.crashed
        == entry["reset_count"] - entry["off_track_count"] - (entry["immobilized_count"] + entry["reversed_count"])
    )
    if trial.completed:
        assert trial.lap_time_s == pytest.approx(len(trial.path) / 10 + 5.0 * trial.crashed + 2.0 * trial.off_track)


def test_every_status_has_deepracers_label() -> None:
    assert len(LABELS) == len(STATUS_NAMES) and LABELS[STATUS_NAMES.index("crashed")] == "Crashed"


def test_the_table_survives_its_file(tmp_path: Path) -> None:
    config = RunConfig(race=RaceSpec(race="head_to_bot", bot_cars=5, lane_changes=True, positions=("0.5,-1",)))
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert load_toml(tmp_path / "run.toml", RunConfig) == config


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objects", "3"], "a time trial has an empty road"),
        (["--race", "object_avoidance", "--objects", "9"], "9 objects, 2 m between them"),
        (["--race", "object_avoidance", "--method", "distill"], "cannot train for object_avoidance"),
        (["--race", "head_to_bot", "--objects", "99"], "bot_cars = 99 is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused_before_a_folder_is_made(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--track", "first_oval", "--out", str(tmp_path / "run"), "--json", *options]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]["what"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("race", ["object_avoidance", "head_to_bot"])
def test_a_run_trains_and_its_bundle_knows_its_race(
    race: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    options = ["--race", race, "--objects", "2", "--steps", "4096", "--json"]
    assert main(["train", "--track", "first_oval", "--out", run, *options]) == 0
    capsys.readouterr()
    traces = list((tmp_path / "run" / "training-simtrace").glob("*.csv"))
    crashed = any(",crashed," in path.read_text() for path in traces)
    assert crashed or race == "head_to_bot", "moving cars are not met in every 4,096 steps"
    assert main(["evaluate", f"{run}/bundle.tar.gz", "--track", "first_oval", "--trials", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["race"], result["objects"]) == (race, 2)
    empty = ["evaluate", f"{run}/bundle.tar.gz", "--track", "first_oval", "--trials", "1", "--json"]
    assert main([*empty, "--race", "time_trial"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 0
    assert main(["export", run, "--json"]) == 0
