"""DeepRacer's ``hyperparameters.json``: all of its keys, their ranges, and what each comes to here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from trainer.actor import PPOConfig
from trainer.config import RunConfig
from trainer.errors import DeepRacerError

Value = int | float | str

HONOURED, DIFFERS, IGNORED = "honoured", "differs", "ignored"

# An update here takes a number of steps, not of episodes. A hundred steps are about an episode: 6.7 s at 15 Hz.
STEPS_PER_EPISODE = 100


@dataclass(frozen=True)
class Finding:
    """One thing that a DeepRacer file says, and what becomes of it here."""

    file: str
    key: str
    value: object
    verdict: str  # HONOURED, DIFFERS or IGNORED
    text: str


@dataclass(frozen=True)
class Key:
    """A hyperparameter: DeepRacer's default, and its range or choices (spec `deepracer-training.md` §2)."""

    default: Value
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def allowed(self) -> str:
        """The range in words."""
        if self.choices:
            return "one of " + ", ".join(repr(c) for c in self.choices)
        if math.isinf(self.high):
            return "any number" if math.isinf(self.low) else f"at least {self.low:g}"
        return f"{self.low:g} to {self.high:g}"


KEYS: dict[str, Key] = {
    "batch_size": Key(64, low=1),
    "num_epochs": Key(10, low=3, high=10),
    "lr": Key(3e-4, low=1e-8, high=1e-3),
    "discount_factor": Key(0.999, low=0.0, high=1.0),
    "beta_entropy": Key(0.01, low=0.0, high=1.0),
    "loss_type": Key("mean squared error", choices=("huber", "mean squared error")),
    "num_episodes_between_training": Key(20, low=5, high=100),
    "exploration_type": Key("categorical", choices=("categorical", "e-greedy", "additive_noise")),
    "e_greedy_value": Key(0.05, low=0.0, high=1.0),
    "epsilon_steps": Key(10000, low=1),
    "stack_size": Key(1, low=1),
    "term_cond_max_episodes": Key(100000, low=1),
    "term_cond_avg_score": Key(100000.0),
    "sac_alpha": Key(0.2, low=0.0),
}


def read_hyperparameters(content: object, where: str, sac: bool = False) -> dict[str, Value]:
    """Check a parsed ``hyperparameters.json``.

    Args:
        content: the JSON.
        where: the file, for errors.
        sac: whether it goes with soft actor-critic, which trains after every episode.

    Raises:
        DeepRacerError: not an object, a key that DeepRacer does not know, a wrong type, a value out of range.
    """
    if not isinstance(content, Mapping):
        raise DeepRacerError(
            f"{where} holds {type(content).__name__}, not an object of hyperparameters",
            next_step='it looks like {"batch_size": 64, "lr": 0.0003, ...}',
        )
    unknown = sorted(str(key) for key in content if key not in KEYS)
    if unknown:
        near = difflib.get_close_matches(unknown[0].lower(), [*KEYS, *_OTHER_WORDS], n=1, cutoff=0.0)[0]
        near = _OTHER_WORDS.get(near, near)
        raise DeepRacerError(
            f"{where}: unknown hyperparameter {unknown[0]!r}",
            cause="a misspelled key: DeepRacer would have taken its default without a word",
            next_step=f"the nearest known one is {near!r}; known are {', '.join(KEYS)}",
        )
    return {name: _value(content[name], name, where, sac) for name in KEYS if name in content}


def _value(value: object, name: str, where: str, sac: bool) -> Value:
    key = KEYS[name]
    if name == "num_episodes_between_training" and sac:
        key = replace(key, low=1)
    kind = type(key.default)
    note = f"(DeepRacer takes {key.allowed()}; its default is {key.default!r})"
    if kind is str:
        if value in key.choices:
            return str(value)
        near = difflib.get_close_matches(str(value), key.choices, n=1, cutoff=0.3)
        raise DeepRacerError(
            f"{where}: {name} is {value!r} {note}", next_step=f"did you mean {near[0]!r}?" if near else ""
        )
    number = math.nan
    # SageMaker hands hyperparameters on as text: "64" is a number here as there.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number) or (kind is int and number != int(number)):
        wanted = "a whole number" if kind is int else "a number"
        raise DeepRacerError(f"{where}: {name} is {value!r}, not {wanted} {note}", next_step=f"set {name} to {wanted}")
    if not key.low <= number <= key.high:
        own = _OWN_NAME.get(name)
        other = f", or leave it out and set {own} in a --config file" if own else ""
        raise DeepRacerError(f"{where}: {name} is {value!r} {note}", next_step=f"set {name} to {key.allowed()}{other}")
    return int(number) if kind is int else number


# What other programs call them.
_OTHER_WORDS = {
    "learning_rate": "lr", "gamma": "discount_factor", "epochs": "num_epochs", "entropy": "beta_entropy",
    "minibatch_size": "batch_size", "epsilon": "e_greedy_value",
}  # fmt: skip
_OWN_NAME = {
    "num_epochs": "ppo.epochs", "lr": "ppo.learning_rate", "num_episodes_between_training": "ppo.steps_per_update",
}  # fmt: skip


def apply_hyperparameters(
    config: RunConfig, values: Mapping[str, Value], file: str, continuous: bool, sac: bool = False
) -> tuple[RunConfig, list[Finding]]:
    """A run with DeepRacer's hyperparameters, and what became of each key, in the order of ``KEYS``.

    What the file does not give stays as it is in ``config``.
    """
    findings: list[Finding] = []
    ppo = config.ppo

    def found(name: str, verdict: str, text: str) -> None:
        findings.append(Finding(file, name, values.get(name), verdict, text))

    def simple(name: str, field: str, convert: Callable[[Value], Value], what: str) -> None:
        nonlocal ppo
        if name not in values:
            return
        taken = convert(values[name])
        # mypy cannot follow a field's name
        ppo = replace(ppo, **{field: taken})  # type: ignore[arg-type]
        same = taken == values[name] or isinstance(taken, str)
        found(name, HONOURED if same else DIFFERS, what if same else f"{what}; taken as {taken:g}")

    simple("batch_size", "minibatch", lambda v: min(max(int(v), 8), 65536), "pictures in a minibatch")
    if "num_epochs" in values:
        ppo = replace(ppo, epochs=int(values["num_epochs"]), target_kl=0.0)
        found("num_epochs", HONOURED, "passes over the data of an update, all of them (no early stop)")
    if "lr" in values:
        ppo = replace(ppo, learning_rate=float(values["lr"]), final_learning_rate=1.0)
        found("lr", HONOURED, "constant over the run, as in DeepRacer")
    simple("discount_factor", "discount", lambda v: min(float(v), 0.99999), "of the reward of a step later")
    simple("beta_entropy", "entropy", float, "weight of the entropy bonus")
    simple("loss_type", "value_loss", lambda v: "huber" if v == "huber" else "mse", "of the value network")
    if "num_episodes_between_training" in values:
        episodes = int(values["num_episodes_between_training"])
        if sac and episodes == 1:
            found("num_episodes_between_training", DIFFERS, f"SAC's; PPO takes {config.episodes_per_iteration} here")
        else:
            steps = max(2, round(episodes * STEPS_PER_EPISODE / ppo.cars))
            ppo = replace(ppo, steps_per_update=steps)
            config = replace(config, episodes_per_iteration=episodes)
            found(
                "num_episodes_between_training",
                DIFFERS,
                f"an update takes {ppo.cars} cars x {steps} = {ppo.cars * steps} steps, about {episodes} episodes; "
                f"an iteration of the logs is {episodes} episodes",
            )
    ppo = _exploration(ppo, values, continuous, found)
    if "stack_size" in values:
        found("stack_size", IGNORED, "one picture at a time, as in DeepRacer, which parses the key and ignores it")
    if "term_cond_max_episodes" in values:
        updates = int(values["term_cond_max_episodes"])
        total = min(updates * ppo.cars * ppo.steps_per_update, 10**12)
        if config.steps == 0:
            config = replace(config, steps=total)
        found(
            "term_cond_max_episodes",
            HONOURED,
            f"DeepRacer counts updates, not episodes: the run ends after {total} steps or --time-limit",
        )
    if "term_cond_avg_score" in values:
        found("term_cond_avg_score", IGNORED, "no score ends a run, as in DeepRacer, which parses the key only")
    if "sac_alpha" in values:
        found("sac_alpha", IGNORED, "there is no SAC here: PPO trains, and beta_entropy does what this would")
    for name in ("batch_size", "num_epochs", "lr", "discount_factor"):
        if name not in values:
            own = {
                "batch_size": ppo.minibatch, "num_epochs": ppo.epochs, "lr": ppo.learning_rate,
                "discount_factor": ppo.discount,
            }[name]  # fmt: skip
            found(name, DIFFERS, f"not given: {own:g} here (DeepRacer's default is {KEYS[name].default})")
    order = list(KEYS)
    findings.sort(key=lambda finding: order.index(finding.key))
    return replace(config, ppo=ppo), findings


def _exploration(
    ppo: PPOConfig, values: Mapping[str, Value], continuous: bool, found: Callable[[str, str, str], None]
) -> PPOConfig:
    kind = values.get("exploration_type", "categorical")
    greedy = kind == "e-greedy" and not continuous
    if "exploration_type" in values:
        if greedy:
            text = "some actions are drawn evenly, the others from the policy (DeepRacer: its favourite)"
            found("exploration_type", DIFFERS, text)
        elif continuous or kind != "categorical":
            found("exploration_type", DIFFERS, "drawn from the policy: its own Gaussian, correlated in time")
        else:
            found("exploration_type", HONOURED, "actions are drawn from the policy's distribution")
    if greedy:
        ppo = replace(
            ppo,
            target_kl=0.0,  # the distance to what actions were drawn from is large on purpose
            epsilon=float(values.get("e_greedy_value", KEYS["e_greedy_value"].default)),
            epsilon_steps=int(values.get("epsilon_steps", KEYS["epsilon_steps"].default)),
        )
    for name, text in (
        ("e_greedy_value", "share of actions drawn evenly in the end"),
        ("epsilon_steps", "steps over which that share falls from 1"),
    ):
        if name in values:
            unused = f"only exploration_type e-greedy uses it, as in DeepRacer (here: {kind})"
            found(name, HONOURED if greedy else IGNORED, text if greedy else unused)
    return ppo


def to_hyperparameters(config: RunConfig) -> dict[str, Value]:
    """A run's configuration in DeepRacer's words, for its tools. Every key of theirs that PPO has."""
    ppo = config.ppo
    return {
        "batch_size": ppo.minibatch,
        "beta_entropy": ppo.entropy,
        "discount_factor": ppo.discount,
        "e_greedy_value": ppo.epsilon if ppo.epsilon_steps else KEYS["e_greedy_value"].default,
        "epsilon_steps": ppo.epsilon_steps or KEYS["epsilon_steps"].default,
        "exploration_type": "e-greedy" if ppo.epsilon_steps else "categorical",
        "loss_type": "huber" if ppo.value_loss == "huber" else "mean squared error",
        "lr": ppo.learning_rate,
        "num_episodes_between_training": config.episodes_per_iteration,
        "num_epochs": ppo.epochs,
        "stack_size": 1,
        "term_cond_avg_score": KEYS["term_cond_avg_score"].default,
        "term_cond_max_episodes": KEYS["term_cond_max_episodes"].default,
    }
