"""A custom_files folder as it is: found, checked, and said what will differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hotlap
from tests.trainer.test_deepracer_hyperparameters import CLOUD
from trainer.deepracer import BASE, import_deepracer
from trainer.deepracer_hyperparameters import DIFFERS, HONOURED, IGNORED
from trainer.errors import DeepRacerError
from vehicle.action_space import ContinuousActionSpace, DiscreteActionSpace
from vehicle.errors import ActionSpaceError

REWARD = "def reward_function(params):\n    return float(params['speed'])\n"
ACTIONS = [{"steering_angle": angle, "speed": 0.6} for angle in (-30, -15, 0, 15, 30)]
METADATA: dict[str, Any] = {
    "action_space": ACTIONS, "sensor": ["FRONT_FACING_CAMERA"], "version": "3",
    "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW",
}  # fmt: skip
CONTINUOUS: dict[str, Any] = {
    "action_space": {"steering_angle": {"low": -30.0, "high": 30.0}, "speed": {"low": 1.0, "high": 4.0}},
    "sensor": ["STEREO_CAMERAS", "SECTOR_LIDAR"], "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_DEEP",
    "training_algorithm": "sac", "action_space_type": "continuous", "version": "5",
    "lidar_config": {"num_sectors": 8},
}  # fmt: skip


def custom_files(folder: Path, metadata: Any = METADATA, hyperparameters: Any = CLOUD, reward: str = REWARD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_metadata.json").write_text(json.dumps(metadata))
    (folder / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (folder / "reward_function.py").write_text(reward)
    return folder


def verdicts(imported: Any, file: str = "model_metadata.json") -> dict[str, str]:
    return {f.key: f.verdict for f in imported.findings if f.file == file}


def test_a_folder_becomes_a_run(tmp_path: Path) -> None:
    imported = import_deepracer(custom_files(tmp_path / "custom_files"))
    assert isinstance(imported.space, DiscreteActionSpace) and imported.space.size == 5
    assert imported.reward({"speed": 0.5}) == 0.5
    assert imported.config.ppo.learning_rate == CLOUD["lr"]
    assert (imported.config.control_hz, imported.config.both_directions, imported.config.start) == (
        15.0, False, "advance",
    )  # fmt: skip
    assert verdicts(imported) == {
        "action_space": HONOURED, "sensor": HONOURED, "neural_network": DIFFERS, "version": IGNORED,
    }  # fmt: skip
    assert imported.verbatim()["reward_function.py"] == REWARD.encode()


def test_sensors_networks_and_algorithms_that_we_have_not_are_named(tmp_path: Path) -> None:
    sac = CLOUD | {"num_episodes_between_training": 1, "loss_type": "mean squared error"}
    imported = import_deepracer(custom_files(tmp_path, CONTINUOUS, sac))
    assert imported.space == ContinuousActionSpace(-30.0, 30.0, 1.0, 4.0)
    assert imported.config.network == "DEEP_CONVOLUTIONAL_NETWORK_DEEP"
    said = {(f.key, str(f.value)): (f.verdict, f.text) for f in imported.findings if f.file == "model_metadata.json"}
    assert said[("sensor", "STEREO_CAMERAS")][0] == DIFFERS
    assert said[("sensor", "SECTOR_LIDAR")][0] == IGNORED and "camera alone" in said[("sensor", "SECTOR_LIDAR")][1]
    assert said[("training_algorithm", "sac")] == (DIFFERS, "PPO trains, there is no SAC here")
    assert said[("neural_network", "DEEP_CONVOLUTIONAL_NETWORK_DEEP")][0] == HONOURED


@pytest.mark.parametrize("place", ["custom_files", "model and ip"])
def test_files_are_found_where_deepracers_own_folders_have_them(place: str, tmp_path: Path) -> None:
    custom_files(tmp_path / "custom_files")
    if place == "model and ip":
        places = {"model_metadata.json": "model", "hyperparameters.json": "ip", "reward_function.py": ""}
        for name, folder in places.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / "custom_files" / name).rename(tmp_path / folder / name)
    assert len(import_deepracer(tmp_path).files) == 3


@pytest.mark.parametrize("missing", ["model_metadata.json", "hyperparameters.json", "reward_function.py"])
def test_what_is_not_there_is_a_default_and_named(missing: str, tmp_path: Path) -> None:
    (custom_files(tmp_path) / missing).unlink()
    imported = import_deepracer(tmp_path)
    assert verdicts(imported, missing) == {"(file)": DIFFERS}
    if missing == "hyperparameters.json":
        assert imported.config.ppo == BASE.ppo


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        ({"sensor": ["FRONT_FACING_CAM"]}, "sensor 'FRONT_FACING_CAM'", "FRONT_FACING_CAMERA"),
        ({"sensor": ["LIDAR"]}, "0 cameras", "FRONT_FACING_CAMERA"),
        ({"sensor": ["FRONT_FACING_CAMERA", "STEREO_CAMERAS"]}, "2 cameras", "FRONT_FACING_CAMERA"),
        ({"sensor": ["FRONT_FACING_CAMERA", "LIDAR", "SECTOR_LIDAR"]}, "2 lidars", "FRONT_FACING_CAMERA"),
        ({"sensor": 3}, "sensor is 3", "FRONT_FACING_CAMERA"),
        ({"neural_network": "DEEP_CONVOLUTIONAL"}, "neural_network 'DEEP_CONV", "DEEP_CONVOLUTIONAL_NETWORK"),
        ({"training_algorithm": "ppo"}, "training_algorithm 'ppo'", "clipped_ppo"),
        ({"sensors": ["FRONT_FACING_CAMERA"]}, "unknown key 'sensors'", "'sensor'"),
    ],
)
def test_what_deepracer_would_refuse_is_refused(change: dict[str, Any], said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(DeepRacerError) as caught:
        import_deepracer(custom_files(tmp_path, METADATA | change))
    assert said in caught.value.what and hint in caught.value.next_step


def test_a_key_that_nobody_knows_is_named_not_refused(tmp_path: Path) -> None:
    imported = import_deepracer(custom_files(tmp_path, METADATA | {"comment": "my best one"}))
    assert verdicts(imported)["comment"] == IGNORED


def test_an_action_space_that_no_car_can_drive_is_refused(tmp_path: Path) -> None:
    actions = [*ACTIONS, {"steering_angle": 45, "speed": 1.0}]
    with pytest.raises(ActionSpaceError, match=r"model_metadata\.json: action 5: steering_angle is 45"):
        import_deepracer(custom_files(tmp_path, METADATA | {"action_space": actions}))


def test_folders_with_nothing_and_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DeepRacerError, match=r"holds none of .*notes\.txt"):
        import_deepracer(tmp_path)
    with pytest.raises(DeepRacerError, match="is not there"):
        import_deepracer(tmp_path / "nowhere")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DeepRacerError, match="neither of"):
        import_deepracer(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text('{"lr": 0.1,}')
    with pytest.raises(DeepRacerError, match="not valid JSON"):
        import_deepracer(tmp_path / "broken.json")


def test_a_reward_function_that_looks_for_objects_is_told_that_there_are_none(tmp_path: Path) -> None:
    reward = "def reward_function(params):\n    return 1.0 + len(params['objects_location'])\n"
    imported = import_deepracer(custom_files(tmp_path, reward=reward))
    assert verdicts(imported, "reward_function.py") == {"reward_function": HONOURED, "objects_*": DIFFERS}


# --- as somebody types it ---------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    status = hotlap.main([*map(str, words), "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1, out
    return status, json.loads(out)


def test_import_says_what_will_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = custom_files(tmp_path / "custom_files")
    status, result = run(capsys, "import", folder)
    assert status == 0
    assert {f["verdict"] for f in result["findings"]} == {HONOURED, DIFFERS, IGNORED}
    assert {f["key"] for f in result["findings"]} >= set(CLOUD) | set(METADATA) | {"reward_function"}
    assert f"--deepracer {folder}" in result["next"]
    assert hotlap.main(["import", str(folder)]) == 0
    text = capsys.readouterr().out
    assert all(key in text for key in CLOUD)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("reward_function.py", "--reward"), ("model_metadata.json", "--action-space"),
        ("hyperparameters.json", "--deepracer"),
    ],
)  # fmt: skip
def test_import_of_one_file(name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = run(capsys, "import", custom_files(tmp_path) / name)
    assert status == 0 and list(result["files"]) == [name] and way in result["next"]


def test_import_of_something_wrong_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = run(capsys, "import", custom_files(tmp_path, hyperparameters={"lr": 5}))
    assert status == 2 and "1e-08 to 0.001" in result["error"]["what"]


@pytest.mark.slow
def test_train_takes_a_folder_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = custom_files(tmp_path / "custom_files", hyperparameters=CLOUD | {"term_cond_max_episodes": 2})
    small = tmp_path / "small.toml"
    small.write_text('evaluate_trials = 1\nthreads = 1\nmax_steps = 40\nrandomise = "none"\n[ppo]\ncars = 4\n')
    base = ("train", "--deepracer", folder, "--track", "first_oval", "--out", tmp_path / "run", "--config", small)
    status, result = run(capsys, *base)
    assert status == 0
    assert result["steps"] == 2 * 4 * 500, "two updates, each of about 20 episodes"
    kept = tmp_path / "run" / "inputs" / "deepracer"
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert json.loads((tmp_path / "run" / "ip" / "hyperparameters.json").read_text())["lr"] == CLOUD["lr"]
    status, result = run(capsys, "train", "--resume", "--out", tmp_path / "run", "--deepracer", folder)
    assert status == 2 and "deepracer" in result["error"]["what"]
