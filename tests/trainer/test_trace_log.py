"""The log of a training: row by row what the cars did, cut where a checkpoint was, and no burden where it cannot be."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.batch_env import IN_PROGRESS, STATUS_NAMES, BatchEnv, EnvSpec, Step
from sim.track import load_track
from trainer.errors import RunError
from trainer.sim_log import write_sim_log
from trainer.trace_log import HEADER, TraceLog

PER_ITERATION = 4
Seen = list[tuple[np.ndarray, Step]]


def drive(log: TraceLog, steps: int, seed: int = 1, cars: int = 3) -> Seen:
    """Random driving with a log of it; what each step gave."""
    rng, seen = np.random.default_rng(seed), []
    spec = EnvSpec(control_hz=15.0, max_steps=20, both_directions=True)
    with closing(BatchEnv([load_track("chicane_run")], cars, spec=spec, seed=seed, draw=False)) as env:
        env.reset()
        log.begin(env)
        for _ in range(steps):
            actions = rng.integers(0, 10, cars)
            step = env.step(actions)
            log.step(env, actions, step)
            seen.append((actions, replace(step)))
        log.flush()
    return seen


def rows(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("training-simtrace/*.csv"), key=lambda path: int(path.name.partition("-")[0]))
    return [row for file in files for row in csv.DictReader(file.read_text().splitlines())]


def metrics(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "metrics" / "TrainingMetrics.json").read_text())["metrics"]
    return entries


def test_rows_are_what_the_cars_did(tmp_path: Path) -> None:
    log = TraceLog(tmp_path, "all", PER_ITERATION)
    seen = drive(log, 50)
    log.close()
    assert (tmp_path / "training-simtrace" / "0-iteration.csv").read_text().splitlines()[0] == HEADER
    # The same, told from the steps themselves: episodes are numbered in the order in which they end.
    wanted, current, number = [], [[], [], []], 0
    line = np.array(load_track("chicane_run").waypoints)
    for t, (actions, step) in enumerate(seen):
        c = step.columns
        for car in range(3):
            own = {name: column[car] for name, column in c.items()}
            current[car].append((t, actions[car], step.reward[car], step.status[car], own))
            if step.status[car] != IN_PROGRESS:
                wanted.append((number, current[car]))
                current[car], number = [], number + 1
    wanted += [(number + k, rest) for k, rest in enumerate(rest for rest in current if rest)]
    found = rows(tmp_path)
    at = 0
    for number, episode in wanted:
        prepare = found[at]
        assert (prepare["episode_status"], prepare["steps"], prepare["reward"]) == ("prepare", "1", "0.0000")
        assert float(prepare["tstamp"]) == pytest.approx(episode[0][0] / 15, abs=1e-3)
        assert prepare["action"] == str(episode[0][1]), "not done yet, but it is the first one's"
        at += 1
        for t, action, reward, status, c in episode:
            row = found[at]
            at += 1
            assert (row["episode"], row["steps"]) == (str(number), str(c["steps"] + 1))
            numbers = [float(row[name]) for name in ("X", "Y", "yaw", "steer", "throttle", "reward", "progress")]
            exact = [c["x"], c["y"], c["heading_deg"], c["steering_deg"], c["speed_mps"], reward, c["progress"]]
            assert numbers == pytest.approx(exact, abs=6e-3)
            assert row["action"] == str(action) and row["episode_status"] == STATUS_NAMES[status]
            assert row["done"] == str(status != IN_PROGRESS)
            assert row["all_wheels_on_track"] == str(c["all_wheels_on_track"])
            assert float(row["tstamp"]) == pytest.approx((t + 1) / 15, abs=1e-3)
            here = np.array([c["x"], c["y"]])
            points = line[::-1] if c["is_reversed"] else line
            beside = [int(c["prev_waypoint"]), int(c["next_waypoint"])]
            apart_m = np.hypot(*(points[beside] - here).T)
            assert apart_m[beside.index(int(row["closest_waypoint"]))] <= apart_m.min() + 1e-9
    assert at == len(found)
    assert {int(row["episode"]) // PER_ITERATION for row in found} == set(range(-(-len(wanted) // PER_ITERATION)))


def test_metrics_are_sums_of_the_rows(tmp_path: Path) -> None:
    log = TraceLog(tmp_path, "all", PER_ITERATION)
    drive(log, 60)
    for trial in range(6):  # more trials than episodes in an iteration: their reader counts by the largest
        log.metrics.evaluation(trial, 5.0, log.clock_s, 2.0, 100.0, 1)
    log.save()
    entries = metrics(tmp_path)
    training = [entry for entry in entries if entry["phase"] == "training"]
    assert [e["episode"] for e in training] == list(range(1, len(training) + 1))
    assert [e["trial"] for e in training] == [k % PER_ITERATION + 1 for k in range(len(training))]
    for entry in training:
        of = [row for row in rows(tmp_path) if int(row["episode"]) == entry["episode"] - 1]
        assert entry["reward_score"] == pytest.approx(sum(float(row["reward"]) for row in of), abs=0.01)
        assert entry["elapsed_time_in_milliseconds"] == pytest.approx(1000 * (len(of) - 1) / 15, abs=2)
        assert entry["completion_percentage"] == max(0, int(float(of[-1]["progress"])))
        assert entry["episode_status"].lower().replace(" ", "_") == of[-1]["episode_status"]
    evaluation = [entry for entry in entries if entry["phase"] == "evaluation"]
    assert {e["episode"] for e in evaluation} == {len(training)}
    assert max(e["trial"] for e in evaluation) == PER_ITERATION


def test_a_restored_log_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = TraceLog(tmp_path, "all", PER_ITERATION)
    drive(log, 30)
    state = log.save()
    kept, entries = rows(tmp_path), metrics(tmp_path)
    drive(log, 30, seed=2)
    log.close()
    assert len(rows(tmp_path)) > len(kept)
    again = TraceLog(tmp_path, "all", PER_ITERATION)
    again.restore(state)
    assert rows(tmp_path) == kept
    drive(again, 30, seed=3)
    again.save()
    found = rows(tmp_path)
    assert found[: len(kept)] == kept and metrics(tmp_path)[: len(entries)] == entries
    numbers = [int(row["episode"]) for row in found]
    assert numbers == sorted(numbers) and set(numbers) == set(range(numbers[-1] + 1))
    assert float(found[len(kept)]["tstamp"]) == pytest.approx(state["clock_s"], abs=1e-3)
    # Without a state (a run that was killed before its first checkpoint) it begins anew.
    TraceLog(tmp_path, "all", PER_ITERATION).restore(None)
    assert rows(tmp_path) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond ``size``, much as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_ends_the_log_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = TraceLog(tmp_path, "all", 1000)
    drive(log, 30)
    before = rows(tmp_path)
    with largest_file((tmp_path / "training-simtrace" / "0-iteration.csv").stat().st_size + 500):
        drive(log, 30, seed=2)
        drive(log, 30, seed=3)
        log.save()
    assert log.failure
    assert rows(tmp_path) == before, "and no half row"
    said = capsys.readouterr().err
    assert said.count("the training goes on") == 1 and "--traces few" in said


def test_the_simulators_lines_are_the_same_rows(tmp_path: Path) -> None:
    log = TraceLog(tmp_path, "all", PER_ITERATION)
    with pytest.raises(RunError, match="has no traces"):
        write_sim_log(tmp_path, tmp_path / "sim.log")
    drive(log, 60)
    for name in ("ip", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "ip" / "hyperparameters.json").write_text('{"lr": 0.001, "num_episodes_between_training": 4}')
    facts = {"action_space": [{"speed": 1}], "sensor": ["FRONT_FACING_CAMERA"], "neural_network": "N", "version": "5"}
    (tmp_path / "model" / "model_metadata.json").write_text(json.dumps(facts))
    count = write_sim_log(tmp_path, tmp_path / "sim.log")
    text = (tmp_path / "sim.log").read_text()
    head, *lines = text.split("SIM_TRACE_LOG:")
    assert count == len(lines)
    assert [line.strip().split(",") for line in lines] == [list(row.values()) for row in rows(tmp_path)]
    assert "Using the following hyper-parameters\n{" in head
    assert "Sensor list ['FRONT_FACING_CAMERA'], network N, simapp_version 5.0" in head
