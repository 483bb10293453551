"""`hotlap train`, `evaluate` and `export` as somebody types them: what they print and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hotlap
from trainer.run_folder import RunFolder
from vehicle.action_space import DiscreteActionSpace
from vehicle.bundle import check_bundle

pytestmark = pytest.mark.slow  # whole trainings, if short ones

TINY = """
randomise = "none"
evaluate_trials = 1
threads = 1
both_directions = false
max_steps = 60
[ppo]
cars = 4
steps_per_update = 8
minibatch = 16
epochs = 1
"""
TRAIN_KEYS = {
    "run", "bundle", "wall_s", "steps", "steps_per_s", "first_lap_s", "first_lap_steps", "completion_rate",
}  # fmt: skip
CONTINUOUS = {
    "action_space_type": "continuous",
    "action_space": {"steering_angle": {"low": -25.0, "high": 25.0}, "speed": {"low": 0.4, "high": 0.9}},
    "sensor": ["FRONT_FACING_CAMERA"], "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW", "version": "5",
    "training_algorithm": "clipped_ppo",
}  # fmt: skip
DISCRETE = CONTINUOUS | {
    "action_space_type": "discrete",
    "action_space": [
        {"steering_angle": angle, "speed": speed, "index": i}
        for i, (angle, speed) in enumerate([(-20.0, 0.5), (0.0, 0.9), (20.0, 0.5)])
    ],
}


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A training sets torch's threads for itself."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """The exit status and the one JSON object on stdout."""
    status = hotlap.main([*map(str, words), "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1, out
    return status, json.loads(out)


def config(folder: Path, text: str = TINY) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def train(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> tuple[int, dict[str, Any]]:
    base = ("train", "--track", "first_oval", "--out", folder / "run", "--config", config(folder))
    return run(capsys, *base, *words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 64 steps."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", "--track", "first_oval", "--out", folder / "run", "--config", config(folder), "--steps", 64]
    assert hotlap.main([*map(str, words), "--seed", "5"]) == 0
    return folder / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_prints_what_the_issue_says_and_keeps_its_step_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, result = train(capsys, tmp_path, "--steps", 100, "--seed", 5)
    assert status == 0
    assert set(result) == TRAIN_KEYS
    assert 100 <= result["steps"] < 100 + 32  # an update is 4 cars times 8 steps
    assert result["run"] == str(tmp_path / "run")
    assert result["wall_s"] > 0 and result["steps_per_s"] > 0
    assert 0.0 <= result["completion_rate"] <= 1.0
    assert (result["first_lap_s"] is None) == (result["first_lap_steps"] is None)
    bundle = check_bundle(result["bundle"])
    trained_on = bundle.contract.trained_on
    assert (trained_on["tracks"], trained_on["seed"], trained_on["randomisation"]) == (["first_oval"], 5, "none")
    rows = RunFolder.open(tmp_path / "run").rows()
    assert [row["steps"] for row in rows] == [32, 64, 96, 128]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert (tmp_path / "run" / "training.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_same_seed_learns_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        assert train(capsys, tmp_path / name, "--steps", 64, "--seed", seed)[0] == 0
        learner = RunFolder.open(tmp_path / name / "run").load_checkpoint()["learner"]
        weights.append(torch.cat([w.flatten() for w in learner["policy"].values() if w.is_floating_point()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_options_win_over_the_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_file = config(tmp_path, "seed = 3\nsteps = 32\n" + TINY)
    words = ["train", "--track", "first_oval", "--out", tmp_path / "run", "--config", config_file]
    status, result = run(capsys, *words, "--seed", 8, "--network", "HOTLAP_FINE")
    saved = RunFolder.open(tmp_path / "run").config()
    assert (status, result["steps"]) == (0, 32)
    assert (saved.seed, saved.steps, saved.network, saved.ppo.cars) == (8, 32, "HOTLAP_FINE", 4)


@pytest.mark.slow
def test_a_time_limit_of_the_config_file_holds_beside_a_step_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file = config(tmp_path, "time_limit_s = 0.1\n" + TINY)
    words = ["train", "--track", "first_oval", "--out", tmp_path / "run", "--config", config_file]
    status, result = run(capsys, *words, "--steps", 100_000)
    assert status == 0
    assert result["steps"] < 100_000
    assert check_bundle(result["bundle"])  # even a run that had no time leaves one


@pytest.mark.parametrize("metadata", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_the_action_space_of_a_model_metadata_file(
    metadata: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model_metadata.json"
    file.write_text(json.dumps(metadata))
    status, result = train(capsys, tmp_path, "--steps", 32, "--action-space", file)
    assert status == 0
    bundle = check_bundle(result["bundle"])
    assert bundle.action_space.kind == metadata["action_space_type"]
    if isinstance(bundle.action_space, DiscreteActionSpace):
        assert bundle.action_space.steering_deg == (-20.0, 0.0, 20.0)
    else:
        assert bundle.action_space.max_steering_deg == 25.0
        assert bundle.action_space.max_speed_mps == 0.9
    status, trials = run(capsys, "evaluate", result["bundle"], "--track", "first_oval", "--trials", 1)
    assert (status, len(trials["trials"])) == (0, 1)


@pytest.mark.slow
def test_two_tracks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = train(capsys, tmp_path, "--steps", 32, "--track", "little_bean")
    assert status == 0
    assert check_bundle(result["bundle"]).contract.trained_on["tracks"] == ["first_oval", "little_bean"]


def test_the_reward_file_is_used_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = tmp_path / "mine.py"
    reward.write_text("def reward_function(params):\n    return 7.0\n")
    status, result = train(capsys, tmp_path, "--steps", 256, "--reward", reward)
    assert status == 0
    run_folder = RunFolder.open(tmp_path / "run")
    assert run_folder.reward().source == reward.read_text()
    rewards = [row["reward"] for row in run_folder.rows() if row["episodes"]]
    assert rewards and all(r / 7.0 == pytest.approx(round(r / 7.0 * 4) / 4, abs=0.3) and r >= 7.0 for r in rewards)
    assert result["steps"] == 256


# --- what is refused before a folder is made --------------------------------------------------------------------------


def bad_track(folder: Path) -> Path:
    angle = np.linspace(0.0, np.pi, 40)  # half a ring: open
    line = [r * np.stack([np.cos(angle), np.sin(angle)], axis=1) for r in (3.0, 2.6, 3.4)]
    np.save(folder / "open.npy", np.concatenate(line, axis=1))
    return folder / "open.npy"


@pytest.mark.parametrize(
    ("toml", "said", "hint"),
    [
        ("learning_rat = 1.0\n", "learning_rat", ""),
        ("[ppo]\nlearning_rat = 0.1\n", "learning_rat", "learning_rate"),
        ("[ppo]\nclip = 7.0\n", "clip", ""),
        ("network = 'RESNET'\n", "RESNET", ""),
        ("seed = [", "", ""),
    ],
)
def test_a_wrong_config_is_refused(
    toml: str, said: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(tmp_path, toml)
    words = ["train", "--track", "first_oval", "--out", tmp_path / "run", "--config", file]
    status, result = run(capsys, *words)
    assert status == 2
    assert said in result["error"]["what"] and "tiny.toml" in result["error"]["what"]
    assert hint in " ".join(result["error"].values())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network", "RESNET"], "RESNET"),
        (["--track", "first_oval"], "given twice"),
        (["--track", "no_such_track"], "no_such_track"),
        (["--reward", "no_such_file.py"], "no_such_file.py"),
        (["--action-space", "no_such_file.json"], "no_such_file.json"),
    ],
)
def test_wrong_options_are_refused_before_a_folder_is_made(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, result = train(capsys, tmp_path, *words)
    assert status == 2
    assert said in result["error"]["what"]
    assert not (tmp_path / "run").exists()


def test_a_broken_track_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = run(capsys, "train", "--track", bad_track(tmp_path), "--out", tmp_path / "run")
    assert status == 2
    assert "open" in result["error"]["what"]
    assert result["error"]["cause"] or result["error"]["next"]
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(trained)
    status, result = run(capsys, "train", "--track", "first_oval", "--out", trained)
    assert status == 2
    assert "--resume" in result["error"]["next"]
    assert files(trained) == before


# --- a reward function that fails on the way --------------------------------------------------------------------------

FAULTS = {
    "raises": ("raise ZeroDivisionError('boom')", "boom"),
    "string": ("return 'much'", "'much'"),
    "nan": ("return float('nan')", "nan"),
    "infinite": ("return float('inf')", "inf"),
    "nothing": ("return None", "None"),
}


@pytest.mark.parametrize(
    "fault", ["raises", *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS if name != "raises")]
)
def test_a_reward_that_fails_later_stops_the_run_and_keeps_what_was_trained(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statement, said = FAULTS[fault]
    reward = tmp_path / "later.py"
    reward.write_text(
        "calls = 0\ndef reward_function(params):\n    global calls\n    calls += 1\n"
        f"    if calls > 200:\n        {statement}\n    return 1.0\n"
    )
    status, result = train(capsys, tmp_path, "--steps", 100_000, "--reward", reward)
    assert status == 2
    what = result["error"]["what"]
    assert said in what and '"progress"' in what and '"steering_angle"' in what  # the params it was called with
    folder = RunFolder.open(tmp_path / "run")
    learner = folder.load_checkpoint()["learner"]
    assert 32 <= learner["steps"] <= 200
    assert [row["steps"] for row in folder.rows()][-1] == learner["steps"]
    assert check_bundle(folder.bundle)
    # With the function mended, the run goes on.
    (folder.path / "inputs" / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
    status, result = run(capsys, "train", "--resume", "--out", folder.path, "--steps", learner["steps"] + 64)
    assert (status, result["steps"]) == (0, learner["steps"] + 64)


def test_a_reward_that_fails_at_once_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = tmp_path / "bad.py"
    reward.write_text("def reward_function(params):\n    return params['speeed']\n")
    status, result = train(capsys, tmp_path, "--reward", reward)
    assert status == 2
    assert "speed" in result["error"]["next"]
    assert not (tmp_path / "run").exists()


# --- resume -----------------------------------------------------------------------------------------------------------


def test_resume_goes_on_and_metrics_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = train(capsys, tmp_path, "--steps", 64)
    folder = RunFolder.open(tmp_path / "run")
    rows = folder.rows()
    status, second = run(capsys, "train", "--resume", "--out", tmp_path / "run", "--steps", 128)
    assert status == 0
    assert (first["steps"], second["steps"]) == (64, 128)
    assert second["wall_s"] > first["wall_s"]
    assert folder.rows()[:2] == rows
    assert [row["steps"] for row in folder.rows()] == [32, 64, 96, 128]


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_driven_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(capsys, tmp_path, "--steps", 64)
    folder = RunFolder.open(tmp_path / "run")
    folder.write_metrics([*folder.rows(), {"steps": 96.0, "loss": 1e9}], ["steps", "loss"])
    run(capsys, "train", "--resume", "--out", tmp_path / "run", "--steps", 96)
    assert [row["steps"] for row in folder.rows()] == [32, 64, 96]
    assert folder.rows()[-1]["loss"] < 1e9


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", "7"], "seed"),
        (["--track", "little_bean"], "track"),
        (["--method", "distill"], "method"),
        (["--network", "HOTLAP_FINE"], "network"),
        (["--randomise", "full"], "randomise"),
        (["--reward", "x.py"], "reward"),
        (["--action-space", "x.json"], "action_space"),
        (["--config", "x.toml"], "config"),
    ],
)
def test_resume_with_other_options_is_refused(
    words: list[str], named: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(trained)
    status, result = run(capsys, "train", "--resume", "--out", trained, *words)
    assert status == 2
    assert f"; {named} cannot be changed" in result["error"]["what"]
    assert files(trained) == before


def test_resume_of_a_damaged_checkpoint_leaves_the_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(capsys, tmp_path, "--steps", 64)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    before = files(tmp_path)
    status, result = run(capsys, "train", "--resume", "--out", tmp_path / "run", "--steps", 128)
    assert status == 2
    assert "damaged" in result["error"]["what"] and result["error"]["next"]
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(capsys, tmp_path, "--steps", 64)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    (tmp_path / "run" / "metrics.csv").unlink()
    status, result = run(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert (status, result["steps"]) == (0, 64)


def test_resume_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = run(capsys, "train", "--resume", "--out", tmp_path / "none")
    assert status == 2
    assert "is not a run" in result["error"]["what"]


# --- evaluate and export ----------------------------------------------------------------------------------------------


def test_evaluate_prints_what_the_issue_says(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", trained / "bundle.tar.gz", "--track", "first_oval", "--trials", 3, "--seed", 2)
    status, result = run(capsys, *words)
    assert status == 0
    assert {"completion_rate", "mean_lap_time_s", "best_lap_time_s", "trials"} <= set(result)
    assert len(result["trials"]) == 3
    for trial in result["trials"]:
        assert {"completed", "progress", "lap_time_s", "off_track"} <= set(trial)
        assert trial["completed"] == (trial["lap_time_s"] is not None)
    assert result["completion_rate"] == np.mean([t["completed"] for t in result["trials"]])
    assert run(capsys, *words) == (0, result)
    assert run(capsys, *words[:-1], 3)[1]["trials"] != result["trials"]


def test_require_lap(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", trained / "bundle.tar.gz", "--track", "first_oval", "--trials", 1)
    status, result = run(capsys, *words, "--require-lap")
    assert result["completion_rate"] == 0.0, "64 steps have taught it to drive: this test needs another policy"
    assert status == 1
    assert run(capsys, *words)[0] == 0


def test_evaluate_on_a_random_look_and_with_penalties(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", trained / "bundle.tar.gz", "--track", "first_oval", "--trials", 1)
    status, result = run(capsys, *words, "--look", "random", "--penalties")
    assert (status, result["look"]) == (0, "random")


@pytest.mark.slow
def test_evaluate_draws_and_films(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", trained / "bundle.tar.gz", "--track", "first_oval", "--trials", 1)
    status, _ = run(capsys, *words, "--plot", tmp_path / "p.png", "--video", tmp_path / "v.mp4")
    assert status == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert b"moov" in (tmp_path / "v.mp4").read_bytes()


def test_evaluate_refuses_a_damaged_bundle_by_the_faults_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "b.tar.gz"
    broken.write_bytes((trained / "bundle.tar.gz").read_bytes()[:-1000])
    status, result = run(capsys, "evaluate", broken, "--track", "first_oval")
    assert status == 2
    assert result["error"]["what"].partition(":")[0].isidentifier()


def test_export_writes_the_best_checkpoint(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = run(capsys, "export", trained, "--out", tmp_path / "again.tar.gz")
    assert status == 0
    ours, theirs = check_bundle(tmp_path / "again.tar.gz"), check_bundle(trained / "bundle.tar.gz")
    assert ours.onnx_model == theirs.onnx_model
    assert result["steps"] == ours.contract.trained_on["steps"] == theirs.contract.trained_on["steps"]
    before = files(trained)
    (tmp_path / "file").write_text("")
    status, result = run(capsys, "export", trained, "--out", tmp_path / "file" / "b.tar.gz")
    assert status == 2
    assert "cannot write" in result["error"]["what"]
    assert files(trained) == before


def test_for_people_it_is_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained / "bundle.tar.gz"), "--track", "first_oval", "--trials", "2"]
    assert hotlap.main(words) == 0
    out = capsys.readouterr().out
    assert not out.lstrip().startswith("{")
    assert out.count(" of 2 completed") == 1
