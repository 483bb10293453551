"""PPO: the estimates against plain loops, the noise, the update, and that it learns."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.batch_env import IN_PROGRESS, LAP_COMPLETE, TIME_UP, BatchEnv, EnvSpec, Step
from sim.reward import RewardFunction, load_reward
from sim.track import load_track
from trainer import actor
from trainer import ppo as module
from trainer.actor import PPOConfig, log_probability
from trainer.errors import TrainerError
from trainer.networks import Policy
from trainer.ppo import PPO, Batch, generalised_advantage
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.4, 1.0)
SMALL = PPOConfig(cars=4, steps_per_update=8, epochs=1, minibatch=16)
Maker = Callable[..., PPO]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On data this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make() -> Iterator[Maker]:
    """Makes learners on first_oval, and closes their worlds."""
    envs = []

    def learner(
        space: ActionSpace | None = None, config: PPOConfig = SMALL, seed: int = 0,
        reward: RewardFunction | None = None, spec: EnvSpec | None = None,
    ) -> PPO:  # fmt: skip
        space = space or default_action_space()
        oval = load_track("first_oval")
        env = BatchEnv([oval], config.cars, action_space=space, reward=reward, spec=spec, seed=seed)
        envs.append(env)
        torch.manual_seed(seed)
        return PPO(env, Policy("HOTLAP_FAST", space, config.symmetric), config, seed)

    yield learner
    for env in envs:
        env.close()


# --- estimates --------------------------------------------------------------------------------------------------------


def naive_advantage(
    reward: list[float], value: list[float], after: float, done: list[bool], last: list[float], g: float, lam: float
) -> list[float]:
    """One car: for every step, the weighted sum of the temporal differences until the episode ends."""
    total = []
    for start in range(len(reward)):
        advantage, weight = 0.0, 1.0
        for t in range(start, len(reward)):
            following = last[t] if done[t] else (value[t + 1] if t + 1 < len(reward) else after)
            advantage += weight * (reward[t] + g * following - value[t])
            if done[t]:
                break
            weight *= g * lam
        total.append(advantage)
    return total


@pytest.mark.parametrize(("discount", "lam"), [(0.97, 0.95), (0.5, 0.0), (0.99, 1.0)])
def test_advantages_agree_with_a_plain_loop(discount: float, lam: float) -> None:
    rng = np.random.default_rng(3)
    steps, cars = 17, 6
    reward, value, last = (rng.normal(size=(steps, cars)) for _ in range(3))
    done = rng.random((steps, cars)) < 0.25
    done[:, 0], done[-1, 1], done[-1, 2] = False, True, False
    last[rng.random((steps, cars)) < 0.5] = 0.0  # failures; the others are laps and step limits
    after = rng.normal(size=cars)
    r, v, a, d, b = (torch.from_numpy(np.asarray(x, np.float64)) for x in (reward, value, after, done, last))
    got = generalised_advantage(r, v, a, d, b, discount, lam)
    for car in range(cars):
        want = naive_advantage(
            reward[:, car].tolist(), value[:, car].tolist(), float(after[car]), done[:, car].tolist(),
            last[:, car].tolist(), discount, lam,
        )  # fmt: skip
        assert got[:, car].tolist() == pytest.approx(want)


def test_a_step_limit_is_not_a_failure() -> None:
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    after = torch.full((1,), 7.0)
    failed = generalised_advantage(one, zero, after, one, zero, discount=0.9, lam=0.95)
    limited = generalised_advantage(one, zero, after, one, one * 10.0, discount=0.9, lam=0.95)
    assert failed.item() == pytest.approx(1.0)
    assert limited.item() == pytest.approx(1.0 + 0.9 * 10.0)


def test_discrete_probabilities_and_entropy() -> None:
    torch.manual_seed(0)
    logits, action = 3 * torch.randn(50, 10), torch.randint(10, (50,))
    reference = torch.distributions.Categorical(logits=logits)
    log, entropy = log_probability(logits, None, action)
    torch.testing.assert_close(log, reference.log_prob(action))
    torch.testing.assert_close(entropy, reference.entropy())


def test_continuous_probabilities_and_entropy() -> None:
    torch.manual_seed(0)
    mean, log_std, action = torch.randn(50, 2), torch.tensor([-0.7, 0.3]), torch.randn(50, 2)
    reference = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    log, entropy = log_probability(mean, log_std, action)
    torch.testing.assert_close(log, reference.log_prob(action))
    torch.testing.assert_close(entropy, reference.entropy())


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_exploration_noise_keeps_its_spread_and_is_correlated(rho: float, make: Maker) -> None:
    learner = make(CONTINUOUS, dataclasses.replace(SMALL, noise_correlation=rho))
    wide, steps = 400, 200
    learner._noise = torch.randn(wide, 2)
    mean = torch.tensor([[0.25, -0.5]]).expand(wide, 2)
    log_std = learner.policy.log_std
    assert log_std is not None
    with torch.no_grad():
        drawn = torch.stack([learner.sample(mean) for _ in range(steps)])
        noise = (drawn - mean) / log_std.exp()
    spread = noise.std(dim=(0, 1))
    assert spread.tolist() == pytest.approx([1.0, 1.0], abs=0.03)
    pairs = (noise[1:] * noise[:-1]).mean(dim=(0, 1))
    assert pairs.tolist() == pytest.approx([rho, rho], abs=0.04)
    assert float((noise[..., 0] * noise[..., 1]).mean()) == pytest.approx(0.0, abs=0.03)


def test_discrete_actions_are_drawn_with_the_policys_probabilities(make: Maker) -> None:
    learner = make()
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3] + [1e-9] * 7])).expand(20_000, 10)
    counts = torch.bincount(learner.sample(logits), minlength=10) / 20_000
    assert counts[:3].tolist() == pytest.approx([0.5, 0.2, 0.3], abs=0.02)


@pytest.mark.parametrize("space", [default_action_space(), CONTINUOUS])
def test_collect_gives_what_the_update_needs(space: ActionSpace, make: Maker) -> None:
    learner = make(space)
    batch = learner.collect()
    rows = SMALL.cars * SMALL.steps_per_update
    assert learner.steps == rows
    assert all(len(getattr(batch, field.name)) == rows for field in dataclasses.fields(Batch) if field.name != "weight")
    with torch.no_grad():
        output = learner.policy(batch.observation).float()
        log, _ = log_probability(output, learner.policy.log_std, batch.action)
        value = learner.value(batch.state, batch.observation).float()
    # The stored figures are those of the stored pictures, up to the rounding of mixed precision.
    torch.testing.assert_close(log, batch.log_probability, atol=0.05, rtol=0.02)
    torch.testing.assert_close(value, batch.value, atol=0.05, rtol=0.05)
    torch.testing.assert_close(batch.target, batch.advantage + batch.value)


def test_step_limits_are_bootstrapped_and_failures_are_not(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make(config=dataclasses.replace(SMALL, steps_per_update=40), spec=EnvSpec(max_steps=6))
    statuses: list[list[int]] = []
    kept: dict[str, Tensor] = {}
    step_of = learner.env.step

    def step_and_note(action: NDArray[np.generic]) -> Step:
        step = step_of(action)
        statuses.append(step.status.tolist())
        return step

    monkeypatch.setattr(learner.env, "step", step_and_note)
    real = module.generalised_advantage

    def spy(*arguments: Any) -> Tensor:
        kept["done"], kept["last"] = arguments[3], arguments[4]
        return real(*arguments)

    monkeypatch.setattr(module, "generalised_advantage", spy)
    learner.collect()
    status = np.array(statuses)
    assert (status == TIME_UP).any()
    assert np.array_equal(kept["done"].numpy() == 1, status != IN_PROGRESS)
    assert np.array_equal(kept["last"].numpy() != 0, (status == TIME_UP) | (status == LAP_COMPLETE))


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [default_action_space(), CONTINUOUS])
def test_update_makes_good_actions_likelier(space: ActionSpace, make: Maker) -> None:
    learner = make(space, dataclasses.replace(SMALL, epochs=4, target_kl=0.0, entropy=0.0, symmetric=False))
    batch = learner.collect()
    good = torch.arange(len(batch.advantage)) % 2 == 0
    if isinstance(space, ContinuousActionSpace):
        batch.action[good] = torch.tensor([0.8, 0.8])
        batch.action[~good] = torch.tensor([-0.8, -0.8])
    else:
        batch.action[good], batch.action[~good] = 7, 2
    batch.advantage = torch.where(good, 1.0, -1.0)

    def likelihood() -> Tensor:
        with torch.no_grad():
            return log_probability(learner.policy(batch.observation).float(), learner.policy.log_std, batch.action)[0]

    batch.log_probability = likelihood()
    figures = learner.update(batch)
    change = likelihood() - batch.log_probability
    assert change[good].mean() > 0.01
    assert change[good].mean() > change[~good].mean() + 0.02
    assert all(math.isfinite(v) for v in figures.values())


def test_update_brings_the_value_to_its_target(make: Maker) -> None:
    learner = make(config=dataclasses.replace(SMALL, epochs=20, target_kl=0.0, learning_rate=5e-3))
    batch = learner.collect()
    batch.target = torch.full_like(batch.target, 3.0)
    before = (learner.value(batch.state, batch.observation) - 3.0).abs().mean()
    learner.update(batch)
    assert (learner.value(batch.state, batch.observation) - 3.0).abs().mean() < 0.5 * before


def test_the_clip_bounds_how_far_one_update_goes(make: Maker) -> None:
    wild = dataclasses.replace(SMALL, epochs=10, minibatch=32, learning_rate=1e-2, entropy=0.0)
    moved = []
    for config in (dataclasses.replace(wild, target_kl=0.0), dataclasses.replace(wild, target_kl=0.005)):
        learner = make(config=config)
        batch = learner.collect()
        batch.advantage = torch.where(torch.arange(len(batch.advantage)) % 2 == 0, 1.0, -1.0)
        learner.update(batch)
        with torch.no_grad():
            log, _ = log_probability(learner.policy(batch.observation).float(), None, batch.action)
        moved.append(float((log - batch.log_probability).abs().mean()))
    assert moved[1] < 0.5 * moved[0]  # target_kl stops the epochs


def test_the_rate_is_scaled_and_zero_learns_nothing(make: Maker) -> None:
    learner = make()
    batch = learner.collect()
    before = [p.clone() for p in learner.parameters]
    learner.update(batch, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))
    learner.update(batch, 0.5)
    assert learner.optimiser.param_groups[0]["lr"] == pytest.approx(0.5 * SMALL.learning_rate)
    assert not all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_changes_nothing(bad: float, make: Maker) -> None:
    learner = make(config=dataclasses.replace(SMALL, minibatch=64))
    batch = learner.collect()
    batch.target[3] = bad
    before = [p.clone() for p in learner.parameters]
    with pytest.raises(TrainerError, match=f"the loss is {bad}") as caught:
        learner.update(batch)
    assert "learning_rate" in caught.value.next_step
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))


def test_a_learner_goes_on_from_its_state(make: Maker) -> None:
    first = make(CONTINUOUS)
    first.update(first.collect())
    batch, saved = first.collect(), copy.deepcopy(first.state_dict())
    second = make(CONTINUOUS, seed=5)
    second.load_state_dict(saved)
    assert second.steps == first.steps
    # Optimiser, weights and shuffling are all as they were, so both learn the same from the same.
    assert first.update(batch) == pytest.approx(second.update(batch))
    for a, b in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)


def test_mixed_precision_is_only_used_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, picture = torch.randn(8, 8), torch.randn(2, 8)
    for has, kind in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(actor, "has_bf16", lambda has=has: has)
        with actor.autocast():
            assert (picture @ weight).dtype == kind
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert actor.has_bf16() is False


@pytest.mark.parametrize("has", [True, False])
def test_an_update_works_in_either_precision(has: bool, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "has_bf16", lambda: has)
    learner = make(CONTINUOUS)
    figures = learner.update(learner.collect())
    assert math.isfinite(figures["loss"])
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in learner.parameters)


def test_episodes_are_counted_once(make: Maker) -> None:
    learner = make(spec=EnvSpec(max_steps=4))
    learner.collect()
    figures = learner.episodes()
    assert figures["episodes"] == 2 * SMALL.cars  # eight steps, at most four each, and nobody falls off in four
    assert figures["completion"] == 0.0
    assert learner.episodes()["episodes"] == 0


def test_it_learns_what_is_rewarded(make: Maker, tmp_path: Path) -> None:
    """A reward for steering left: soon nearly every action does."""
    file = tmp_path / "left.py"
    file.write_text("def reward_function(params):\n    return float(params['steering_angle'] > 0)\n")
    config = PPOConfig(cars=8, steps_per_update=16, minibatch=64, epochs=4, discount=0.0, symmetric=False, target_kl=0)
    learner = make(config=config, reward=load_reward(file))
    left = torch.tensor(default_action_space().steering_deg) > 0
    shares = []
    for _ in range(8):
        batch = learner.collect()
        shares.append(float(left[batch.action].float().mean()))
        learner.update(batch)
    assert shares[0] < 0.6
    assert shares[-1] > 0.85
