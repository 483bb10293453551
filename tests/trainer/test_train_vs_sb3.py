"""The race against Stable-Baselines3 gives both sides the same world and network, and says what came of it in JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="stable-baselines3 (extra dev) is not installed")

from benchmarks import train_vs_sb3 as race
from sim.batch_env import TIME_UP, BatchEnv, EnvSpec
from sim.track import load_track
from trainer.networks import DEFAULT_NETWORK, NETWORKS, Policy

SMALL = NETWORKS[DEFAULT_NETWORK]


def figures(first_lap_s: float | None, all_trials_s: float | None, wall_s: float = 100.0) -> race.Figures:
    return {
        "first_lap_s": first_lap_s, "first_lap_steps": None, "all_trials_s": all_trials_s, "all_trials_steps": None,
        "wall_s": wall_s, "steps": 1000, "steps_per_s": 10.0,
    }  # fmt: skip


def run_of(ours: race.Figures, sb3: race.Figures) -> race.Figures:
    ratios: race.Figures = {goal: race.ratio(ours, sb3, goal) for goal in race.GOALS}
    return {"seed": 0, "ours": ours, "sb3": sb3, "ratios": ratios | {"steps_per_s": 1.0}}


def test_a_side_that_did_not_get_there_makes_the_ratio_a_bound() -> None:
    both, none = figures(10.0, 20.0), figures(None, None)
    assert race.ratio(both, figures(30.0, 80.0), "first_lap") == {"value": 3.0, "is": "exact"}
    assert race.ratio(both, none, "all_trials") == {"value": 5.0, "is": "at least"}
    assert race.ratio(none, both, "all_trials") == {"value": 0.2, "is": "at most"}
    assert race.ratio(none, none, "first_lap") == {"value": None, "is": "unknown"}


def test_medians_keep_the_marks_of_bounds() -> None:
    exact = run_of(figures(10.0, 20.0), figures(30.0, 80.0))
    at_least = run_of(figures(10.0, 20.0), figures(30.0, None))
    at_most = run_of(figures(10.0, None), figures(30.0, 80.0))
    assert race.medians([exact, exact, exact])["ratios"]["all_trials"] == {"value": 4.0, "is": "exact"}
    mixed = race.medians([exact, at_least, at_least])
    assert mixed["ratios"]["all_trials"] == {"value": 5.0, "is": "at least"}
    assert mixed["ratios"]["first_lap"] == {"value": 3.0, "is": "exact"}
    assert mixed["sb3"]["all_trials_s"] is None and mixed["ours"]["all_trials_s"] == 20.0
    assert race.medians([exact, at_least, at_most])["ratios"]["all_trials"]["is"] == "unknown"


@pytest.mark.parametrize("small", [None, SMALL], ids=["same-settings", "front-once"])
def test_sb3s_extractor_computes_what_our_encoder_computes(small: Any) -> None:
    env = BatchEnv([load_track("first_oval")], 4, seed=3)
    cars = race.Cars(env, small)
    extractor = race.SameEncoder(cars.observation_space, SMALL)  # type: ignore[arg-type]
    policy = Policy(DEFAULT_NETWORK, race.SPACE, symmetric=False)
    extractor.encoder.load_state_dict(policy.encoder.state_dict())
    seen = torch.from_numpy(cars.reset())
    assert cars.observation_space.contains(seen[0].numpy())
    with torch.no_grad():
        ours = policy.encoder(policy.front(torch.from_numpy(env.frames)))
        theirs = extractor(seen.float())
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.01
    cars.close()


def test_sb3_may_bootstrap_at_the_step_limit_and_not_where_a_car_failed() -> None:
    env = BatchEnv([load_track("first_oval")], 4, spec=EnvSpec(max_steps=30), seed=3)
    cars = race.Cars(env, None)
    before = cars.reset()
    left_full = int(np.argmax(race.SPACE.decode(np.arange(race.SPACE.size)).sum(axis=1)))
    bootstrapped = failed = 0
    for _ in range(30):
        kept = before.copy()
        cars.step_async(np.full(4, left_full))
        after, reward, done, infos = cars.step_wait()
        assert reward.shape == done.shape == (4,) and np.isfinite(reward).all()
        np.testing.assert_array_equal(before, kept)  # what SB3 holds is not drawn over
        for car in range(4):
            limit = infos[car].get("TimeLimit.truncated", False)
            bootstrapped += limit
            failed += done[car] and not limit
            if limit:
                assert done[car] and not np.array_equal(infos[car]["terminal_observation"], after[car])
        before = after
    assert bootstrapped + failed and TIME_UP not in env.status
    cars.close()


@pytest.mark.slow
def test_a_tiny_race_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert race.main(["--cap", "0.5s", "--seeds", "2", "--threads", "1", "--json"]) == 0
    finally:
        torch.set_num_threads(threads)
    result = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert result["ppo"]["cars"] == 64 and result["randomise"] == "mild" and result["track"] == "first_oval"
    for run in [*result["runs"], result["medians"]]:
        for side in ("ours", "sb3"):
            assert run[side]["steps"] > 0 and run[side]["steps"] % 2048 == 0, "whole updates"
            assert run[side]["wall_s"] > 0 and run[side]["cpu_s"] > 0 and 0 <= run[side]["untrained_progress"] <= 100
            for goal in race.GOALS:
                assert (run[side][f"{goal}_s"] is None) == (run[side][f"{goal}_steps"] is None)
        for goal in race.GOALS:
            assert run["ratios"][goal]["is"] in {"exact", "at least", "at most", "unknown"}
            assert (run["ratios"][goal]["value"] is None) == (run["ratios"][goal]["is"] == "unknown")
