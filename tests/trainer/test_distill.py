"""Teacher, student, fine-tune: the pieces, and the whole on a few hundred steps."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from sim.batch_env import BatchEnv
from sim.car_spec import load_car
from sim.reward import load_reward
from sim.track import load_track
from trainer import distill as module
from trainer.actor import PPOConfig
from trainer.config import DistillConfig, RunConfig
from trainer.distill import Examples, StatePolicy, imitation_loss
from trainer.run_folder import RunFolder
from trainer.training import Progress, Training
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.bundle import check_bundle

pytestmark = pytest.mark.slow  # trains

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.4, 1.0)
SPACES: list[ActionSpace] = [default_action_space(), CONTINUOUS]
CONFIG = RunConfig(
    method="distill", randomise="none", seed=3, time_limit_s=1e7, steps=1_600, both_directions=False, max_steps=60,
    threads=1, evaluate_trials=1, checkpoint_every_s=0.0, evaluate_every_s=1e6,
    ppo=PPOConfig(cars=8, steps_per_update=8, minibatch=32, epochs=1),
    distill=DistillConfig(teacher_share=0.4, dagger_share=0.4, batch=32, gradient_steps=2, buffer_frames=1_000),
)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
def test_the_teacher_is_symmetric(space: ActionSpace) -> None:
    teacher = StatePolicy(space)
    last = teacher.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight)
    state = torch.randn(6, BatchEnv.STATE_SIZE)
    straight, mirrored = teacher(state), teacher(state * torch.as_tensor(BatchEnv.MIRROR_STATE).float())
    if isinstance(space, ContinuousActionSpace):
        expected = straight * torch.tensor([-1.0, 1.0])
    else:
        mirror = space.mirror()
        assert mirror is not None
        expected = straight[:, mirror.tolist()]
    torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=1e-5)
    assert (straight - expected).abs().max() > 0.1


def test_examples_are_a_ring() -> None:
    ring = Examples(10)
    generator = torch.Generator().manual_seed(0)
    for first in (0, 4, 8):
        values = torch.arange(first, first + 4).float()
        ring.add(values[:, None, None], -values[:, None])
        seen, wanted = ring.draw(200, generator)
        assert torch.equal(seen[:, 0], -wanted)
        assert set(seen.flatten().tolist()) == set(map(float, range(max(0, first - 6), first + 4)))
    assert ring.size == 10


def test_the_imitation_loss_is_least_at_the_teachers_output() -> None:
    torch.manual_seed(0)
    for continuous, wanted in ((False, torch.randn(8, 10)), (True, torch.rand(8, 2) * 1.8 - 0.9)):
        output = wanted.clone().requires_grad_()
        loss = imitation_loss(output, wanted, continuous)
        (gradient,) = torch.autograd.grad(loss, output)
        assert gradient.abs().max() < 1e-6
        assert imitation_loss(wanted + torch.randn_like(wanted), wanted, continuous) > loss + 1e-3
    beyond = torch.full((4, 2), 3.0)  # a teacher's mean beyond the box means its edge
    assert imitation_loss(torch.ones(4, 2), beyond, True) == 0.0


def new_run(path: Path, space: ActionSpace, config: RunConfig = CONFIG) -> RunFolder:
    return RunFolder.create(path, config, [load_track("first_oval")], load_reward(None), space, load_car(None))


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
def test_all_three_stages_run(space: ActionSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run(tmp_path / "run", space)
    stages: list[tuple[str, int]] = []
    for name in ("_teach", "_dagger"):
        real = getattr(module, name)

        def spy(run: Training, *rest: object, name: str = name, real: Any = real) -> None:
            stages.append((name, run.learner.steps))
            real(run, *rest)

        monkeypatch.setattr(module, name, spy)
    training = Training(folder, CONFIG)
    result = training.run()
    assert [name for name, _ in stages] == ["_teach", "_dagger"]
    assert stages[0][1] == 0
    assert 640 <= stages[1][1] < 640 + 64  # each stage begins when its share of the steps is over
    assert 1_600 <= training.learner.steps < 1_600 + 64
    assert result["steps"] == training.learner.steps
    bundle = check_bundle(folder.bundle)
    assert bundle.contract.trained_on["method"] == "distill"
    rows = folder.rows()
    assert [r["steps"] for r in rows] == sorted(r["steps"] for r in rows)
    fine_tune = [r for r in rows if r["steps"] > 1_280 + 64]
    assert fine_tune and all("policy_loss" in r for r in fine_tune)
    assert any("policy_loss" not in r and r["loss"] > 0 for r in rows)  # imitation has no policy loss


@pytest.mark.learning
def test_the_student_comes_to_do_what_the_teacher_does(tmp_path: Path) -> None:
    config = RunConfig(**vars(CONFIG) | {
        "steps": 6_000, "distill": DistillConfig(teacher_share=0.2, dagger_share=0.79, batch=128, gradient_steps=8),
    })  # fmt: skip
    losses: list[float] = []
    training = Training(new_run(tmp_path / "run", CONTINUOUS, config), config)
    training.report = lambda row, progress: losses.extend([row["loss"]] if "policy_loss" not in row else [])
    training.run()
    assert len(losses) > 6
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("at", [300, 900])
def test_a_run_that_was_stopped_goes_on_in_its_stage(at: int, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", CONTINUOUS)

    def interrupt(row: dict[str, float], progress: Progress) -> None:
        if row["steps"] >= at:
            os.kill(os.getpid(), signal.SIGINT)
            training.report = None

    training = Training(folder, CONFIG, interrupt)
    first = training.run()
    assert at <= training.learner.steps < at + 600
    saved = folder.load_checkpoint()
    assert check_bundle(folder.bundle)
    again = Training(folder, CONFIG)
    second = again.run(resume=True)
    assert first["steps"] == saved["learner"]["steps"]
    assert 1_600 <= again.learner.steps < 1_600 + 64
    assert second["steps"] == again.learner.steps
    same = all(torch.equal(a, saved["extra"]["teacher"][k]) for k, a in again.extra["teacher"].items())
    assert same == (at == 900)  # past its stage the teacher stays as it was, before that it learns on


def test_shares_of_more_than_the_whole_still_end(tmp_path: Path) -> None:
    shares = DistillConfig(teacher_share=0.5, dagger_share=0.9, batch=32, gradient_steps=1)
    config = RunConfig(**vars(CONFIG) | {"steps": 300, "distill": shares})
    training = Training(new_run(tmp_path / "run", CONTINUOUS, config), config)
    training.run()
    assert 300 <= training.learner.steps < 300 + 64
