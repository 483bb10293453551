"""hyperparameters.json: every key and range of DeepRacer's, and what becomes of each here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sim.batch_env import BatchEnv, EnvSpec
from sim.track import load_track
from trainer.actor import PPOConfig
from trainer.config import RunConfig
from trainer.deepracer_hyperparameters import (
    DIFFERS,
    HONOURED,
    IGNORED,
    KEYS,
    Finding,
    apply_hyperparameters,
    read_hyperparameters,
    to_hyperparameters,
)
from trainer.errors import DeepRacerError
from trainer.networks import Policy
from trainer.ppo import PPO
from vehicle.action_space import default_action_space

# The files that people have: the defaults of the console, of DeepRacer for Cloud, of a notebook.
CLOUD: dict[str, Any] = {
    "batch_size": 64, "beta_entropy": 0.01, "discount_factor": 0.99, "e_greedy_value": 0.05, "epsilon_steps": 10000,
    "exploration_type": "categorical", "loss_type": "huber", "lr": 0.0003, "num_episodes_between_training": 20,
    "num_epochs": 5, "stack_size": 1, "term_cond_avg_score": 350.0, "term_cond_max_episodes": 1000, "sac_alpha": 0.2,
}  # fmt: skip


def applied(values: dict[str, Any], continuous: bool = False, **config: Any) -> tuple[RunConfig, dict[str, Finding]]:
    read = read_hyperparameters(values, "h.json")
    run, findings = apply_hyperparameters(RunConfig(**config), read, "h.json", continuous)
    return run, {finding.key: finding for finding in findings}


def test_every_key_of_deepracers_is_taken_and_named() -> None:
    assert set(CLOUD) == set(KEYS)
    run, found = applied(CLOUD)
    assert list(found) == list(KEYS), "in order, each once"
    ppo = run.ppo
    assert (ppo.minibatch, ppo.epochs, ppo.learning_rate, ppo.discount, ppo.entropy) == (64, 5, 0.0003, 0.99, 0.01)
    assert (ppo.value_loss, ppo.final_learning_rate, ppo.target_kl, ppo.epsilon_steps) == ("huber", 1.0, 0.0, 0)
    assert ppo.cars * ppo.steps_per_update == pytest.approx(20 * 100, rel=0.05)
    assert run.episodes_per_iteration == 20
    assert run.steps == 1000 * ppo.cars * ppo.steps_per_update
    assert {key for key, f in found.items() if f.verdict == IGNORED} == {
        "e_greedy_value", "epsilon_steps", "stack_size", "term_cond_avg_score", "sac_alpha",
    }  # fmt: skip
    assert all(f.text and f.value == CLOUD[key] for key, f in found.items())


def test_loss_and_amounts_follow_the_file() -> None:
    run, _ = applied({"loss_type": "mean squared error", "num_episodes_between_training": 40, "batch_size": 512})
    assert (run.ppo.value_loss, run.ppo.minibatch, run.episodes_per_iteration) == ("mse", 512, 40)
    assert run.ppo.cars * run.ppo.steps_per_update == pytest.approx(4000, rel=0.05)


def test_what_is_not_given_stays_and_is_named_with_deepracers_default() -> None:
    run, found = applied({"lr": 1e-4})
    assert (run.ppo.minibatch, run.ppo.discount) == (PPOConfig.minibatch, PPOConfig.discount)
    assert found["discount_factor"].verdict == DIFFERS and "0.999" in found["discount_factor"].text
    assert run.steps == 0


def test_a_step_limit_of_ones_own_wins() -> None:
    assert applied({"term_cond_max_episodes": 3}, steps=77)[0].steps == 77
    assert applied({"term_cond_max_episodes": 3})[0].steps == 3 * 64 * 32


@pytest.mark.parametrize(("value", "taken"), [(1, 8), (7, 8), (8, 8), (100_000, 65536)])
def test_batch_sizes_that_we_cannot_are_named(value: int, taken: int) -> None:
    run, found = applied({"batch_size": value})
    assert run.ppo.minibatch == taken
    assert found["batch_size"].verdict == (HONOURED if value == taken else DIFFERS)


def test_a_discount_of_one_is_nearly_one() -> None:
    run, found = applied({"discount_factor": 1})
    assert run.ppo.discount == 0.99999 and found["discount_factor"].verdict == DIFFERS


LIMITS = {
    "batch_size": (1, None), "num_epochs": (3, 10), "lr": (1e-8, 1e-3), "discount_factor": (0, 1),
    "beta_entropy": (0, 1), "num_episodes_between_training": (5, 100), "e_greedy_value": (0, 1),
    "epsilon_steps": (1, None), "stack_size": (1, None), "term_cond_max_episodes": (1, None), "sac_alpha": (0, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_ranges_are_deepracers_ends_included(name: str) -> None:
    low, high = LIMITS[name]
    for value in (low, high):
        if value is not None:
            assert read_hyperparameters({name: value}, "h.json") == {name: value}
    whole = isinstance(KEYS[name].default, int)
    outside: list[Any] = [low - (1 if whole else 1e-9)] + ([high * 1.001 + whole] if high is not None else [])
    for value in [*outside, "much", True, None, [1], float("nan"), float("inf")] + ([low + 0.5] if whole else []):
        with pytest.raises(DeepRacerError) as caught:
            read_hyperparameters({name: value}, "h.json")
        assert name in caught.value.what and "DeepRacer takes" in caught.value.what


def test_numbers_as_text_are_numbers() -> None:
    assert read_hyperparameters({"batch_size": "64", "lr": "0.0003"}, "h") == {"batch_size": 64, "lr": 0.0003}
    assert read_hyperparameters({"num_epochs": 5.0}, "h") == {"num_epochs": 5}


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ({"learning_rate": 0.1}, "unknown hyperparameter 'learning_rate'", "'lr'"),
        ({"batchsize": 64}, "unknown hyperparameter 'batchsize'", "'batch_size'"),
        ({"loss_type": "hubert"}, "loss_type is 'hubert'", "'huber'"),
        ({"exploration_type": "egreedy"}, "exploration_type is 'egreedy'", "'e-greedy'"),
        ([64], "holds list", "batch_size"),
    ],
)
def test_what_deepracer_does_not_know_is_refused_with_the_nearest(content: Any, said: str, hint: str) -> None:
    with pytest.raises(DeepRacerError) as caught:
        read_hyperparameters(content, "h.json")
    assert said in caught.value.what and hint in caught.value.next_step


def test_soft_actor_critic_trains_after_every_episode() -> None:
    values = {"num_episodes_between_training": 1, "sac_alpha": 0.2, "exploration_type": "additive_noise"}
    with pytest.raises(DeepRacerError, match="num_episodes_between_training"):
        read_hyperparameters(values, "h.json")
    read = read_hyperparameters(values, "h.json", sac=True)
    run, findings = apply_hyperparameters(RunConfig(), read, "h.json", True, sac=True)
    assert run.ppo.steps_per_update == PPOConfig.steps_per_update and run.episodes_per_iteration == 20
    assert {f.key: f.verdict for f in findings}["sac_alpha"] == IGNORED


def test_e_greedy_is_honoured_for_a_list_of_actions_only() -> None:
    values = {"exploration_type": "e-greedy", "e_greedy_value": 0.2, "epsilon_steps": 500}
    run, found = applied(values)
    assert (run.ppo.epsilon, run.ppo.epsilon_steps) == (0.2, 500)
    assert (found["e_greedy_value"].verdict, found["epsilon_steps"].verdict) == (HONOURED, HONOURED)
    run, found = applied(values, continuous=True)
    assert run.ppo.epsilon_steps == 0 and found["exploration_type"].verdict == DIFFERS


def test_what_e_greedy_draws_from() -> None:
    config = PPOConfig(cars=2, epsilon=0.2, epsilon_steps=1000)
    env = BatchEnv([load_track("first_oval")], 2, spec=EnvSpec(both_directions=False), draw=False)
    try:
        ppo = PPO(env, Policy("HOTLAP_TINY", default_action_space()), config)
        output = torch.randn(3, 10) * 3
        policy = torch.softmax(output, 1)
        for steps, share in ((0, 1.0), (500, 0.6), (1000, 0.2), (10**6, 0.2)):
            ppo.steps = steps
            mixed = ppo.explored(output).exp()
            torch.testing.assert_close(mixed, (1 - share) * policy + share / 10)
        ppo.config = PPOConfig(cars=2)
        assert ppo.explored(output) is output
    finally:
        env.close()


def test_a_run_in_deepracers_words_comes_back() -> None:
    run, _ = applied(CLOUD)
    words = to_hyperparameters(run)
    assert set(words) == set(KEYS) - {"sac_alpha"}
    assert {key: words[key] for key in ("batch_size", "lr", "num_epochs", "discount_factor", "loss_type")} == {
        key: CLOUD[key] for key in ("batch_size", "lr", "num_epochs", "discount_factor", "loss_type")
    }
    assert words["num_episodes_between_training"] == 20
