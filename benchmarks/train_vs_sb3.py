"""Our PPO and Stable-Baselines3's, side by side: wall time to the first lap and to 20 of 20 laps, as ratios.

``python -m benchmarks.train_vs_sb3`` trains, for each seed, first ours and then SB3's. A ratio is SB3 / ours: above 1
ours is faster. A side that does not get there within the cap makes it a bound, marked "at least" or "at most".

The same on both sides: simulator, track, cars, threads, worlds and starts (one seed), reward, actions, picture, layers
of the encoder and their initialisation; rollout, minibatch, epochs, learning rate and its fall over the cap, discount,
lambda, clip, entropy, value weight, gradient norm, Adam; and the judge: after every update the greedy policy drives a
lap from the start line, and once it can, the 20 trials (at most once in ``LOOK_EVERY_S``). The clocks count training
only: not these drives, not the making of environments, not compilation, which a throw-away update of each side does
before. SB3's gets all cars in one call and bootstraps where ours does: at the step limit and the unseen finish line.

Not comparable, being what each is:
- Ours has a left-right symmetric policy and a value network on the simulator's state. ``--ours plain`` has neither (its
  value network then has an encoder of its own) and leaves the engineering: pooled pictures in the buffer,
  channels-last, bf16 where the processor has it, Huber.
- SB3's shares one encoder between policy and value (its default, and the faster), fits values by squared error, and
  ends its epochs at the first minibatch of 1.5 times the KL limit, where ours looks at the mean of an epoch.
- SB3's buffer keeps what it is shown, the picture of 120 x 160, and its network crops, pools and standardises that
  again in every epoch. ``--sb3 front-once`` shows it the small picture instead, as a careful user of it might.
- Hyperparameters are ours, found for ours; nobody has tuned them for SB3's.

On an easy track either side may lap after one update, or with the weights that it was born with; the ratio is then
that of the time of an update. ``untrained_progress`` (percent of a lap, before any update) and the steps tell. Machines
in use tell by ``cpu_s``, the processor time of training: well below ``wall_s`` times threads, distrust the ratios.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from rich.table import Table
from stable_baselines3 import PPO as TheirPPO  # noqa: N811  (of the dev extra)
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from hotlap import COUNT, DURATION, WHOLE
from sim.batch_env import BatchEnv, EnvSpec
from sim.commands import emit
from sim.track import Track, load_track
from trainer.actor import PPOConfig, has_bf16
from trainer.config import RunConfig
from trainer.export import Graph
from trainer.networks import NETWORKS, Architecture, Encoder, Policy, front
from trainer.ppo import PPO
from trainer.time_trials import Driver, TimeTrials
from vehicle.action_space import default_action_space
from vehicle.observation import HEIGHT, WIDTH

TRIALS = 20
LOOK_EVERY_S = 1.0  # of training, between two drives of the 20 trials
GOALS = ("first_lap", "all_trials")
SPACE = default_action_space()


@dataclass(frozen=True)
class Setup:
    """What both sides are given."""

    track: Track
    config: RunConfig
    threads: int
    front_once: bool = False

    def make_env(self, seed: int) -> BatchEnv:
        """The world that ``hotlap train`` would make."""
        c = self.config
        spec = EnvSpec(c.control_hz, c.max_steps, c.start, c.both_directions)
        worlds = c.randomisation(tracks=1)
        return BatchEnv([self.track], c.ppo.cars, randomise=worlds, spec=spec, seed=seed, threads=self.threads)


class Watch:
    """A clock that runs while one side trains, and the judge (trials for each goal), for whom it is stopped."""

    def __init__(self, judges: Sequence[TimeTrials], cap_s: float, final_rate: float) -> None:
        self.judges, self.cap_s, self.final_rate = judges, cap_s, final_rate
        self.clock_s, self.cpu_s, self.steps = 0.0, 0.0, 0
        self.reached: dict[str, tuple[float, int]] = {}  # goal -> (seconds, steps)
        self.untrained_progress = 0.0  # percent
        self._begun_s = self._begun_cpu_s = self._next_look_s = 0.0

    def start(self, drive: Driver) -> None:
        """Training begins."""
        self.untrained_progress = self.judges[0].run(drive)[0].progress
        self._go_on()

    def _go_on(self) -> None:
        self._begun_s, self._begun_cpu_s = time.perf_counter(), time.process_time()

    def rate_scale(self) -> float:
        """What is left of the learning rate: it falls linearly over the cap, as in a run of that time limit."""
        running_s = time.perf_counter() - self._begun_s if self._begun_s else 0.0
        return 1.0 - min(1.0, (self.clock_s + running_s) / self.cap_s) * (1.0 - self.final_rate)

    def look(self, drive: Driver, steps: int) -> bool:
        """After an update: try what is not reached yet. True when there is nothing more to train for, or no time."""
        self.clock_s += time.perf_counter() - self._begun_s
        self.cpu_s += time.process_time() - self._begun_cpu_s
        self.steps = steps
        if "first_lap" not in self.reached and self.judges[0].run(drive)[0].completed:
            self.reached["first_lap"] = self.clock_s, steps
        if "first_lap" in self.reached and self.clock_s >= self._next_look_s:
            self._next_look_s = self.clock_s + LOOK_EVERY_S
            if all(trial.completed for trial in self.judges[1].run(drive)):
                self.reached["all_trials"] = self.clock_s, steps
        self._go_on()
        return "all_trials" in self.reached or self.clock_s >= self.cap_s

    def figures(self) -> dict[str, float | None]:
        """What came of it; a goal that was not reached is null."""
        result: dict[str, float | None] = {}
        for goal in GOALS:
            result[f"{goal}_s"], result[f"{goal}_steps"] = self.reached.get(goal, (None, None))
        result |= {"wall_s": self.clock_s, "steps": self.steps, "steps_per_s": self.steps / self.clock_s}
        return result | {"cpu_s": self.cpu_s, "untrained_progress": self.untrained_progress}


def train_ours(setup: Setup, seed: int, watch: Watch) -> None:
    """PPO of ``trainer/ppo.py``, as the loop in ``trainer/training.py`` runs it."""
    env, config = setup.make_env(seed), setup.config.ppo
    torch.manual_seed(seed)
    learner = PPO(env, Policy(setup.config.network, SPACE, config.symmetric), config, seed)
    graph = Graph(learner.policy, SPACE)

    @torch.no_grad()
    def drive(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return SPACE.decode(graph(torch.from_numpy(frames)).numpy().argmax(axis=1))

    watch.start(drive)
    over = False
    while not over:
        learner.update(learner.collect(), watch.rate_scale())
        learner.episodes()
        over = watch.look(drive, learner.steps)
    env.close()


class Cars(VecEnv):
    """All cars as SB3 takes them. Pictures are copied, since SB3 still holds the last one when the next is drawn."""

    def __init__(self, env: BatchEnv, small: Architecture | None) -> None:
        self.env, self.small = env, small
        seen: spaces.Box[Any] = spaces.Box(0, 255, (1, HEIGHT, WIDTH), np.uint8)  # channels first, as SB3 wants it
        if small is not None:
            seen = spaces.Box(-9, 9, self.shown(np.zeros((1, HEIGHT, WIDTH, 1), np.uint8)).shape[1:], np.float32)
        super().__init__(env.n, seen, spaces.Discrete(SPACE.size))

    def shown(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """(n, 120, 160, 1) as the observation space says."""
        if self.small is None:
            return frames.transpose(0, 3, 1, 2).copy()
        return front(torch.from_numpy(frames), self.small).numpy()

    def reset(self) -> NDArray[Any]:
        return self.shown(self.env.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        step = self.env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.env.n)]
        if len(step.last_ids):
            for car, last in zip(step.last_ids.tolist(), self.shown(step.last_frames), strict=True):
                infos[car] = {"TimeLimit.truncated": True, "terminal_observation": last}
        return self.shown(step.frames), step.reward.astype(np.float32), step.terminated | step.truncated, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name, None)] * self.env.n  # SB3 asks for render_mode

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("the cars are one environment")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError("the cars are one environment")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.env.n


class SameEncoder(BaseFeaturesExtractor):
    """Our front and layers as SB3's features extractor; the front is done already where small pictures are shown."""

    def __init__(self, observation_space: spaces.Box, architecture: Architecture) -> None:
        encoder = Encoder(architecture)
        super().__init__(observation_space, encoder.width)
        self.architecture, self.encoder = architecture, encoder
        self.whole = observation_space.shape == (1, HEIGHT, WIDTH)

    def forward(self, observation: Tensor) -> Tensor:
        """(N, 1, h, w) -> (N, width)"""
        picture = front(observation.permute(0, 2, 3, 1), self.architecture) if self.whole else observation
        return torch.as_tensor(self.encoder(picture))


class Looks(BaseCallback):
    """Calls the judge where SB3 has finished an update and is about to drive again."""

    def __init__(self, watch: Watch, drive: Driver) -> None:
        super().__init__()
        self.watch, self.drive, self.over = watch, drive, False

    def _on_training_start(self) -> None:
        self.watch.start(self.drive)

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:
            self.over = self.watch.look(self.drive, self.model.num_timesteps)

    def _on_step(self) -> bool:
        return not self.over


def train_sb3(setup: Setup, seed: int, watch: Watch) -> None:
    """SB3's PPO in its own loop; what is not given here is its default."""
    config, architecture = setup.config.ppo, NETWORKS[setup.config.network]
    cars = Cars(setup.make_env(seed), architecture if setup.front_once else None)
    model = TheirPPO(
        ActorCriticPolicy, cars, learning_rate=lambda _: config.learning_rate * watch.rate_scale(),
        n_steps=config.steps_per_update, batch_size=config.minibatch, n_epochs=config.epochs, gamma=config.discount,
        gae_lambda=config.gae_lambda, clip_range=config.clip, ent_coef=config.entropy, vf_coef=config.value_weight,
        max_grad_norm=config.max_gradient, target_kl=config.target_kl or None, seed=seed, device="cpu",
        policy_kwargs={
            "features_extractor_class": SameEncoder, "features_extractor_kwargs": {"architecture": architecture},
            "net_arch": [], "normalize_images": False,  # the front scales
        },
    )  # fmt: skip

    def drive(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return SPACE.decode(model.predict(cars.shown(frames), deterministic=True)[0])

    model.learn(sys.maxsize, Looks(watch, drive), log_interval=sys.maxsize)
    cars.close()


Figures = dict[str, Any]


def ratio(ours: Figures, sb3: Figures, goal: str) -> Figures:
    """SB3 / ours of the seconds to a goal; a side that did not get there counts with all the time that it had."""
    mine, theirs = ours[f"{goal}_s"], sb3[f"{goal}_s"]
    if mine is None and theirs is None:
        return {"value": None, "is": "unknown"}
    value = (sb3["wall_s"] if theirs is None else theirs) / (ours["wall_s"] if mine is None else mine)
    return {"value": value, "is": "at least" if theirs is None else "at most" if mine is None else "exact"}


def medians(runs: Sequence[Figures]) -> Figures:
    """Over seeds. Bounds to one side give a bound on the median; to both sides, or none at all, say nothing of it."""
    result: Figures = {"ratios": {}}
    for side in ("ours", "sb3"):
        result[side] = {}
        for name in runs[0][side]:
            each = [math.inf if run[side][name] is None else run[side][name] for run in runs]
            middle = statistics.median(each)
            result[side][name] = middle if math.isfinite(middle) else None
    for goal in GOALS:
        ratios = [run["ratios"][goal] for run in runs]
        kinds = {r["is"] for r in ratios} - {"exact"} or {"exact"}
        if len(kinds) > 1 or "unknown" in kinds:
            result["ratios"][goal] = {"value": None, "is": "unknown"}
        else:
            result["ratios"][goal] = {"value": statistics.median(r["value"] for r in ratios), "is": kinds.pop()}
    result["ratios"]["steps_per_s"] = statistics.median(run["ratios"]["steps_per_s"] for run in runs)
    return result


def rounded(value: Any) -> Any:
    """Figures to three digits after the point, however deep they are."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def table_of(result: Figures) -> Table:
    """A row for each seed and goal, medians last."""
    title = f"{result['track']}: ours ({result['ours']}) against SB3 ({result['sb3']}), cap {result['cap_s']:g} s"
    table = Table(title=title, caption="seconds of training (steps); ratio: SB3 / ours")
    for column in ("seed", "goal", "ours", "SB3", "ratio"):
        table.add_column(column, justify="left" if column == "goal" else "right")
    for run in [*result["runs"], {"seed": "median", **result["medians"]}]:
        for goal, words in zip(GOALS, ("first lap", f"{TRIALS} of {TRIALS}"), strict=True):
            cells = []
            for side in ("ours", "sb3"):
                seconds, steps = run[side][f"{goal}_s"], run[side][f"{goal}_steps"]
                cells.append("not reached" if seconds is None else f"{seconds:.1f} ({steps:,.0f})")
            r = run["ratios"][goal]
            word = "" if r["is"] == "exact" else f"{r['is']} "
            table.add_row(str(run["seed"]), words, *cells, word + ("" if r["value"] is None else f"{r['value']:.2f}"))
        rates = [f"{run[side]['steps_per_s']:,.0f}" for side in ("ours", "sb3")]
        table.add_row(str(run["seed"]), "steps/s", *rates, f"1 / {run['ratios']['steps_per_s']:.2f}")
    return table


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--track", default="first_oval")
    parser.add_argument("--seeds", type=COUNT, default=3, help="how many")
    parser.add_argument("--seed", type=WHOLE, default=0, help="the first one")
    parser.add_argument("--cap", dest="cap_s", type=DURATION, default=300.0, metavar="300s", help="of training, a side")
    parser.add_argument("--threads", type=COUNT, default=os.cpu_count() or 1)
    parser.add_argument("--ours", choices=("shipped", "plain"), default="shipped")
    parser.add_argument("--sb3", choices=("same-settings", "front-once"), default="same-settings")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    plain = PPOConfig(privileged_value=False, symmetric=False)
    config = RunConfig(time_limit_s=args.cap_s, ppo=plain if args.ours == "plain" else PPOConfig())
    setup = Setup(load_track(args.track), config, args.threads, args.sb3 == "front-once")
    judges = [TimeTrials([setup.track], n, action_space=SPACE, threads=args.threads) for n in (1, TRIALS)]
    sides = {"ours": train_ours, "sb3": train_sb3}

    def race(side: str, seed: int, cap_s: float) -> Figures:
        watch = Watch(judges, cap_s, config.ppo.final_learning_rate)
        sides[side](setup, seed, watch)
        return watch.figures()

    runs: list[Figures] = []
    for side in sides:
        race(side, args.seed, cap_s=1e-3)  # one update, for what compiles
    for seed in range(args.seed, args.seed + args.seeds):
        run: Figures = {"seed": seed, "load_before": os.getloadavg()[0]}
        for side in sides:
            run[side] = race(side, seed, args.cap_s)
            print(f"seed {seed}, {side}: {rounded(run[side])}", file=sys.stderr, flush=True)
        run["ratios"] = {goal: ratio(run["ours"], run["sb3"], goal) for goal in GOALS}
        run["ratios"]["steps_per_s"] = run["sb3"]["steps_per_s"] / run["ours"]["steps_per_s"]
        runs.append(run)
    for judge in judges:
        judge.close()
    result = {
        "track": args.track, "seeds": args.seeds, "cap_s": args.cap_s, "threads": args.threads, "ours": args.ours,
        "sb3": args.sb3, "stable_baselines3": version("stable_baselines3"), "torch": torch.__version__,
        "bf16": has_bf16(), "network": config.network, "randomise": config.preset(tracks=1), "ppo": asdict(config.ppo),
        "clock": "training only", "trials": TRIALS, "runs": runs, "medians": medians(runs),
    }  # fmt: skip
    emit(args.json, rounded(result), table_of(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
