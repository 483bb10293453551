"""What a sweep tries: a run's TOML in which a value may also be a list or a range.

    time_limit_s = 60
    [ppo]
    learning_rate = [3e-4, 1e-3]                                # each of these
    entropy = { low = 1e-3, high = 0.1, log = true, count = 3 } # three, evenly spaced
    discount = { low = 0.9, high = 0.99 }                       # drawn; needs samples
    [sweep]
    samples = 12                                                # so many drawn; without it every combination
    reward = ["center_line.py", "mine.py"]                      # beside this file

Everything is checked before anything runs.
"""

from __future__ import annotations

import itertools
import math
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import RunConfig
from vehicle.config import from_mapping, ranged, read_toml
from vehicle.errors import ConfigError

MOST_TRIALS = 1000
REWARD = "reward"  # the name of that choice, beside the keys of RunConfig


@dataclass(frozen=True)
class SweepConfig:
    """The table ``[sweep]``. Options of the command line win over it."""

    track: tuple[str, ...] = ()
    reward: tuple[str, ...] = ()
    samples: int = ranged(0, low=0, high=MOST_TRIALS, doc="combinations drawn; 0: all")
    seed: int = ranged(0, low=0, high=2**31 - 1, doc="of the drawing")
    trials: int = ranged(10, low=1, high=1000, doc="time trials of each finished run, on every track")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``."""

    low: float
    high: float
    log: bool = False
    count: int = ranged(0, low=0, high=MOST_TRIALS, doc="so many, evenly spaced; 0: drawn")

    def at(self, share: float) -> float:
        """The number that ``share`` of the numbers are below."""
        if not self.log:
            return self.low + share * (self.high - self.low)
        return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))


Choice = tuple[Any, ...] | Range


@dataclass(frozen=True)
class Plan:
    """A sweep file, read and checked.

    Args:
        fixed: settings of all trials, by dotted key.
        choices: what is searched, by dotted key.
    """

    sweep: SweepConfig
    fixed: Mapping[str, Any]
    choices: Mapping[str, Choice]
    where: str

    def trials(self) -> list[dict[str, Any]]:
        """The settings of each trial, those that are searched. Raises ConfigError."""
        if not self.choices:
            raise ConfigError(
                f"{self.where}: nothing is searched: no key has a list or a range, and there are not two reward files",
                next_step="write for instance ppo.learning_rate = [3e-4, 1e-3], or name two --reward files",
            )
        return self._drawn() if self.sweep.samples else self._all()

    def config(self, settings: Mapping[str, Any]) -> RunConfig:
        """The run's configuration with these settings. Raises ConfigError."""
        mapping: dict[str, Any] = {}
        for key, value in {**self.fixed, **settings}.items():
            if key == REWARD:
                continue
            *tables, name = key.split(".")
            inner = mapping
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[name] = value
        return from_mapping(mapping, RunConfig, where=self.where)

    def _all(self) -> list[dict[str, Any]]:
        values = []
        for key, choice in self.choices.items():
            if isinstance(choice, Range):
                if not choice.count:
                    raise ConfigError(
                        f"{self.where}: the range of {key} says neither how many values, nor are combinations drawn",
                        next_step=f"give {key} a count, or the sweep --samples",
                    )
                steps = max(1, choice.count - 1)
                choice = tuple(dict.fromkeys(self._typed(key, choice.at(k / steps)) for k in range(choice.count)))
            values.append(choice)
        count = math.prod(len(each) for each in values)
        if count > MOST_TRIALS:
            raise ConfigError(
                f"{self.where}: {count} combinations are more than {MOST_TRIALS}",
                next_step="shorter lists, or --samples",
            )
        return [dict(zip(self.choices, each, strict=True)) for each in itertools.product(*values)]

    def _drawn(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(self.sweep.seed)
        drawn = []
        for _ in range(self.sweep.samples):
            settings = {}
            for key, choice in self.choices.items():
                if isinstance(choice, Range):
                    settings[key] = self._typed(key, choice.at(float(rng.random())))
                else:
                    settings[key] = choice[int(rng.integers(len(choice)))]
            drawn.append(settings)
        return drawn

    def _typed(self, key: str, value: float) -> float | int:
        return round(value) if _kind(key) is int else float(f"{value:.6g}")


def read_plan(path: Path | None, options: Mapping[str, Any], rewards: Sequence[Path], fixed: Mapping[str, Any]) -> Plan:
    """The plan of a sweep file (None: of nothing) with the command line's options over it.

    Args:
        options: fields of `SweepConfig`; None where one was not given.
        rewards: files given on the command line, instead of the file's own.
        fixed: settings that win over the file, by dotted key.

    Raises:
        ConfigError: the file cannot be read, an unknown key, an empty list, a wrong range, a value out of range.
    """
    where = "hotlap sweep" if path is None else os.fspath(path)
    content = {} if path is None else read_toml(path, hint="check the path of PLAN.toml")
    table = content.pop("sweep", {})
    if isinstance(table, dict):
        table = {k: [v] if k in ("track", "reward") and isinstance(v, str) else v for k, v in table.items()}
    sweep = from_mapping(table, SweepConfig, where=f"{where} [sweep]")
    given = {name: value for name, value in options.items() if value is not None}
    sweep = from_mapping(vars(sweep) | given, SweepConfig, where=where)
    beside = Path() if path is None else path.parent
    files = [os.fspath(p) for p in rewards] or [os.fspath(beside / name) for name in sweep.reward]
    constants: dict[str, Any] = {}
    choices: dict[str, Choice] = {}
    for key, value in _flat(content).items():
        if key in fixed:
            continue
        choice = _choice(key, value, where)
        if choice is None:
            constants[key] = value
        else:
            choices[key] = choice
    if len(files) > 1:
        choices[REWARD] = tuple(files)
    elif files:
        constants[REWARD] = files[0]
    plan = Plan(sweep, constants | dict(fixed), choices, where)
    # Every single value, whatever the combinations and draws are.
    plan.config({})
    for key, choice in choices.items():
        for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
            plan.config({key: plan._typed(key, value) if isinstance(choice, Range) else value})
    for settings in plan.trials():
        plan.config(settings)
    return plan


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted key; ``"ppo.clip" = [...]`` in quotes is the same as ``clip`` in the table ``[ppo]``."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not {"low", "high"} & set(value):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _choice(key: str, value: Any, where: str) -> Choice | None:
    """The choice that a value stands for; None for a plain value."""
    if isinstance(value, list):
        if typing.get_origin(_kind(key)) is tuple and not (value and all(isinstance(v, list) for v in value)):
            return None  # an array is this key's plain value; [[...], [...]] are two of them
        if not value:
            raise ConfigError(f"{where}: {key} = [] is an empty list", next_step=f"give {key} values, or leave it out")
        doubled = [v for v in value if value.count(v) > 1]
        if doubled:
            raise ConfigError(f"{where}: {key} names {doubled[0]!r} twice", next_step="name every value once")
        return tuple(value)
    if not isinstance(value, dict):
        return None
    found = from_mapping(value, Range, where=f"{where}: {key}")
    kind = _kind(key)
    if kind not in (int, float, None):  # None: an unknown key, which is refused by its name in a moment
        raise ConfigError(f"{where}: {key} is no number: it has no range", next_step=f"write {key} = [...]")
    if not found.low < found.high or found.log and found.low <= 0 or found.count == 1:
        raise ConfigError(
            f"{where}: {key} is no range: low = {found.low:g}, high = {found.high:g}, count = {found.count}",
            cause="low must be below high, above zero with log = true, and a count is at least 2",
            next_step=f"{key} = {{ low = 1e-4, high = 1e-2, log = true, count = 3 }}, say",
        )
    return found


def _kind(key: str) -> Any:
    """The type of a key of RunConfig; None for an unknown one."""
    kind: Any = RunConfig
    for name in key.split("."):
        if not is_dataclass(kind) or name not in {f.name for f in fields(kind)}:
            return None
        kind = typing.get_type_hints(kind)[name]
    return kind
