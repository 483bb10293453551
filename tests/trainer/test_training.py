"""A training as a process: its limits, Ctrl-C, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sim.car_spec import load_car
from sim.reward import load_reward
from sim.track import load_track
from tests.conftest import ROOT
from trainer.actor import PPOConfig
from trainer.config import RunConfig
from trainer.errors import TrainerError
from trainer.run_folder import RunFolder
from trainer.training import Training, load_best, stop_signals
from vehicle.action_space import default_action_space
from vehicle.bundle import check_bundle
from vehicle.policy import OnnxPolicy

pytestmark = pytest.mark.slow  # whole trainings, if short ones

TINY = """
randomise = "none"
evaluate_trials = 1
threads = 1
both_directions = false
max_steps = 60
checkpoint_every_s = 0.0
[ppo]
cars = 8
steps_per_update = 8
minibatch = 32
epochs = 1
"""
PATIENCE_S = 120.0  # how long a machine under load may take to get a training going


@contextmanager
def training(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`hotlap train` on first_oval in a process of its own."""
    (folder / "tiny.toml").write_text(TINY)
    command = [sys.executable, str(ROOT / "hotlap.py"), "train", "--out", str(folder / "run"), "--json", *words]
    if "--resume" not in words:
        command += ["--track", "first_oval", "--config", str(folder / "tiny.toml")]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "the training does not get going"
        time.sleep(0.02)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


@pytest.mark.slow
def test_a_time_limit_ends_a_training(tmp_path: Path) -> None:
    with training(tmp_path, "--time-limit", "8s") as process:
        result = result_of(process)
    assert result["wall_s"] > 8.0
    assert check_bundle(result["bundle"]).contract.trained_on["tracks"] == ["first_oval"]
    rows = RunFolder.open(tmp_path / "run").rows()
    assert rows[-1]["steps"] == result["steps"]
    assert rows[-1]["wall_s"] >= 7.0  # it did use its time
    # The one update during which the time ran out is finished, and no more is begun.
    assert sum(row["wall_s"] > 8.0 for row in rows) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_training_with_a_bundle(number: signal.Signals, tmp_path: Path) -> None:
    with training(tmp_path, "--steps", "10000000") as process:
        wait_for((tmp_path / "run" / "checkpoints" / "last.pt").exists, process)
        process.send_signal(number)
        result = result_of(process)
    assert result["steps"] > 0
    assert check_bundle(result["bundle"])
    folder = RunFolder.open(tmp_path / "run")
    assert folder.load_checkpoint()["learner"]["steps"] == result["steps"] == folder.rows()[-1]["steps"]


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with training(tmp_path, "--steps", "10000000") as process:
        wait_for((folder.path / "checkpoints" / "previous.pt").exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = folder.load_checkpoint()["learner"]["steps"]
    rows = [row for row in folder.rows() if row["steps"] <= saved]
    assert saved >= 64  # killed between the two renames, last.pt is still the first one
    with training(tmp_path, "--resume", "--steps", str(saved + 128)) as process:
        result = result_of(process)
    assert result["steps"] == saved + 128
    after = folder.rows()
    assert after[: len(rows)] == rows
    assert [row["steps"] for row in after[-2:]] == [saved + 64, saved + 128]
    assert [row["wall_s"] for row in after] == sorted(row["wall_s"] for row in after)
    assert check_bundle(result["bundle"])


# --- in this process --------------------------------------------------------------------------------------------------

CONFIG = RunConfig(
    randomise="none", time_limit_s=1e6, steps=64, both_directions=False, max_steps=60, threads=1, evaluate_trials=1,
    ppo=PPOConfig(cars=4, steps_per_update=8, minibatch=16, epochs=1),
)  # fmt: skip


def new_run(path: Path, config: RunConfig = CONFIG) -> RunFolder:
    space = default_action_space()
    return RunFolder.create(path, config, [load_track("first_oval")], load_reward(None), space, load_car(None))


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A training sets torch's threads for itself."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_bundle_is_the_best_policy_and_drives_as_the_learner_does(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    training = Training(folder, CONFIG)
    training.run()
    frames = np.random.default_rng(0).integers(0, 256, (20, 120, 160, 1), dtype=np.uint8)
    policy, steps = load_best(folder)
    assert 0 < steps <= training.learner.steps == 64
    bundle = check_bundle(folder.bundle)
    assert bundle.contract.trained_on["steps"] == steps
    training.learner.policy.load_state_dict(policy.state_dict())
    np.testing.assert_allclose(OnnxPolicy(bundle).act(frames), training.drive(frames))


def test_a_worse_policy_does_not_replace_the_best(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    training = Training(folder, CONFIG)
    training.progress.best = (1.0, -5.0)  # every trial completed, five seconds a lap
    folder.bundle.write_bytes(b"the best so far")
    training.run()
    assert folder.bundle.read_bytes() == b"the best so far"
    assert training.progress.best == (1.0, -5.0)


def test_a_loss_that_diverges_keeps_what_was_trained(tmp_path: Path) -> None:
    config = RunConfig(**vars(CONFIG) | {"steps": 10_000})
    folder = new_run(tmp_path / "run", config)
    training = Training(folder, config)

    def spoil(row: dict[str, float], progress: object) -> None:
        if row["steps"] >= 64:
            with torch.no_grad():
                next(training.learner.value.parameters()).fill_(float("nan"))

    training.report = spoil
    with pytest.raises(TrainerError, match="the loss is nan"):
        training.run()
    assert check_bundle(folder.bundle)
    assert folder.rows()[-1]["steps"] == 64


def test_how_much_is_over_is_the_nearer_limit(tmp_path: Path) -> None:
    config = RunConfig(**vars(CONFIG) | {"steps": 64, "time_limit_s": 1e6})
    training = Training(new_run(tmp_path / "run", config), config)
    training.run()
    assert training.share() == 1.0
    training.learner.steps = 16
    assert training.share() == pytest.approx(0.25)
    training.progress.wall_s = 0.75e6
    assert training.share() == pytest.approx(0.75, abs=0.01)


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_that_does_not_fit_its_config_is_named(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    Training(folder, CONFIG).run()
    text = (folder.path / "config.toml").read_text()
    (folder.path / "config.toml").write_text(text.replace("HOTLAP_FAST", "HOTLAP_FINE"))
    with pytest.raises(TrainerError, match="does not fit its configuration"):
        load_best(folder)
