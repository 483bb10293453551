"""Which model drives, which is on trial, which is barred: one small state and its transitions, all of them pure.

The life of a model: installed, activated (it is on trial from here on), proved healthy (it is current, and the one
before it is previous). A trial that fails `MAX_FAILED_TRIALS` times is over: its hash is barred, and the current model,
which never stopped being current, drives again. Anchors: Mender's commit after a health check and roll back on a
spontaneous reboot, RAUC's boot counter (spec ``failsafe-anchors.md`` §3.4).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vehicle.config import check, from_mapping, parse_json, ranged
from vehicle.errors import ConfigError, SlotError

FORMAT = "hotlap-slots"
VERSION = 1
MAX_FAILED_TRIALS = 2

# Every value of SlotError.fault that is not a bundle's own, and what it means.
BARRED = "barred"
ARMED = "armed"
NOT_INSTALLED = "not_installed"
NO_MODEL = "no_model"
NO_PREVIOUS = "no_previous"
IN_USE = "in_use"
DAMAGED = "damaged"
MISFIT = "misfit"
TOO_SLOW = "too_slow"
CHECK_CRASHED = "check_crashed"
CHANGED = "changed"
BUSY = "busy"
STORAGE = "storage"
UNKNOWN_SHA = "unknown_sha"

SLOT_FAULTS: dict[str, str] = {
    BARRED: "the model failed its trial before; it stays out until it is allowed again",
    ARMED: "the car is armed; models change only while it is not",
    NOT_INSTALLED: "there is no such model in the store",
    NO_MODEL: "no model is active",
    NO_PREVIOUS: "there is no model to go back to",
    IN_USE: "the model is the current one, or is on trial",
    DAMAGED: "the stored archive is not the one that was installed",
    MISFIT: "the model was trained for another camera, other limits or another control period than this car has",
    TOO_SLOW: "one inference on this processor takes longer than its share of the control period",
    CHECK_CRASHED: "the process that checked the bundle died",
    CHANGED: "the file changed while it was being checked",
    BUSY: "another process holds the store",
    STORAGE: "the disk is full, read-only or failing; nothing was changed",
    UNKNOWN_SHA: "the text given names no model, or more than one",
}

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether the text is a sha256 in lower-case hex, as folders of the store are named."""
    return _SHA256.fullmatch(text) is not None


@dataclass(frozen=True)
class Trial:
    """The model on trial. `boots`: drives begun with it, less those that ended cleanly; `crashes`: reported ones."""

    sha256: str
    boots: int = ranged(0, low=0)
    crashes: int = ranged(0, low=0)

    @property
    def failures(self) -> int:
        """Failed drives, as known when the next one begins: a begun drive that nobody ended was a reboot or a crash."""
        return max(self.boots, self.crashes)


@dataclass(frozen=True)
class Notice:
    """Why the model that drives changed without a person asking for it; kept until the next activation."""

    reason: str
    sha256: str
    what: str


@dataclass(frozen=True)
class SlotState:
    """``slots.json``.

    Args:
        current: the model that has proved itself, or None before the first.
        previous: the one before it, for `rolled_back`.
        trial: the model that was activated and has not proved itself yet; it drives instead of `current`.
        barred: hash to reason.
        counter: how many installs there have been; orders the models without a clock.

    Raises:
        ConfigError: a hash that is none, or one model in two roles that exclude each other.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    barred: Mapping[str, str] = field(default_factory=dict)
    counter: int = ranged(0, low=0)
    notice: Notice | None = None
    format: str = ranged(FORMAT, choices=(FORMAT,))
    version: int = ranged(VERSION, choices=(VERSION,))

    def __post_init__(self) -> None:
        check(self, where="slots")
        trial = self.trial.sha256 if self.trial else None
        for sha256 in (self.current, self.previous, trial, *self.barred):
            if sha256 is not None and not is_sha256(sha256):
                raise ConfigError(f"slots: {sha256[:80]!r} is not a sha256")
        if self.current is not None and self.current in (self.previous, trial):
            raise ConfigError(f"slots: {self.current} is current and something else too")
        for sha256 in (self.current, self.previous, trial):
            if sha256 in self.barred:
                raise ConfigError(f"slots: {sha256} is barred and in use")

    @property
    def driving(self) -> str | None:
        """The model that the next drive takes: the one on trial, else the current one."""
        return self.trial.sha256 if self.trial else self.current

    def roles(self) -> dict[str, Any]:
        """Who is what, as `hotlap models --json` and the console tell it."""
        trial, notice = self.trial, self.notice
        return {
            "current": self.current,
            "previous": self.previous,
            "trial": None if trial is None else {"sha256": trial.sha256, "failures": trial.failures},
            "barred": dict(self.barred),
            "notice": None
            if notice is None
            else {"reason": notice.reason, "sha256": notice.sha256, "what": notice.what},
        }

    def to_json(self) -> str:
        """The text of ``slots.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> SlotState:
        """Parse ``slots.json`` strictly.

        Raises:
            ConfigError: anything but what `to_json` writes.
        """
        return from_mapping(parse_json(text, where="slots.json"), cls, where="slots.json", complete=True)


# --- transitions: a state in, a state out; the store writes it and touches nothing else


def installed(state: SlotState, sha256: str) -> SlotState:
    """A verified archive came into the store.

    Raises:
        SlotError: ``barred``.
    """
    refuse_barred(state, sha256)
    return replace(state, counter=state.counter + 1)


def activated(state: SlotState, sha256: str) -> SlotState:
    """A person chose this model: it is on trial, unless it is the current one, which ends a trial of another.

    Choosing the model on trial once more does not forgive its failures.

    Raises:
        SlotError: ``barred``.
    """
    refuse_barred(state, sha256)
    if state.trial is not None and state.trial.sha256 == sha256:
        return state
    trial = None if sha256 == state.current else Trial(sha256)
    return replace(state, trial=trial, notice=None)


def boot(state: SlotState) -> SlotState:
    """A drive begins: a trial is counted, or, after `MAX_FAILED_TRIALS` failed ones, over."""
    if state.trial is None:
        return state
    if state.trial.failures >= MAX_FAILED_TRIALS:
        return _failed(state, f"{state.trial.failures} drives on trial began and none proved healthy")
    return replace(state, trial=replace(state.trial, boots=state.trial.boots + 1))


def proved_healthy(state: SlotState, sha256: str) -> SlotState:
    """The drive went well for long enough: the model on trial becomes current. Of any other model it says nothing."""
    if state.trial is None or state.trial.sha256 != sha256:
        return state
    return replace(state, current=sha256, previous=state.current, trial=None)


def crashed(state: SlotState, sha256: str) -> SlotState:
    """A process of the drive died. It counts against a model on trial only: a proved one is not the suspect."""
    if state.trial is None or state.trial.sha256 != sha256:
        return state
    trial = replace(state.trial, crashes=state.trial.crashes + 1)
    if trial.failures >= MAX_FAILED_TRIALS:
        return _failed(replace(state, trial=trial), f"{trial.failures} drives on trial crashed")
    return replace(state, trial=trial)


def ended(state: SlotState, sha256: str) -> SlotState:
    """A drive was stopped on purpose before it proved anything: it counts neither for nor against the model."""
    if state.trial is None or state.trial.sha256 != sha256:
        return state
    return replace(state, trial=replace(state.trial, boots=max(state.trial.boots - 1, 0)))


def damaged(state: SlotState, sha256: str, what: str) -> SlotState:
    """The stored archive of a model in use is broken: the next best takes its place. The hash is not barred, since the
    storage is at fault and the same bundle can be installed again."""
    notice = Notice(DAMAGED, sha256, what)
    if state.trial is not None and state.trial.sha256 == sha256:
        state = replace(state, trial=None, notice=notice)
    if state.current == sha256:
        return replace(state, current=state.previous, previous=None, notice=notice)
    if state.previous == sha256:
        return replace(state, previous=None, notice=notice)
    return state


def rolled_back(state: SlotState) -> SlotState:
    """A person wants the model before: out of a trial to the current one, else to the previous one, and back again.

    Raises:
        SlotError: ``no_previous``.
    """
    if state.trial is not None and state.current is not None:
        return replace(state, trial=None, notice=None)
    if state.trial is None and state.current is not None and state.previous is not None:
        return replace(state, current=state.previous, previous=state.current, notice=None)
    if state.trial is not None:
        what = f"model {state.trial.sha256[:12]} is on trial, and no model has proved itself before it"
    elif state.current is not None:
        what = f"model {state.current[:12]} is the first that this car drives with"
    else:
        what = "no model is active"
    raise SlotError(NO_PREVIOUS, what, next_step="hotlap models list, then hotlap models activate SHA")


def removed(state: SlotState, sha256: str) -> SlotState:
    """The model's files are to go. What is barred stays barred.

    Raises:
        SlotError: ``in_use``: the current model, or the one on trial.
    """
    if sha256 == state.current or (state.trial is not None and state.trial.sha256 == sha256):
        role = "the current one" if sha256 == state.current else "on trial"
        raise SlotError(
            IN_USE,
            f"model {sha256[:12]} is {role}",
            next_step="hotlap models activate another one, or hotlap models rollback, first",
        )
    return replace(state, previous=None) if state.previous == sha256 else state


def allowed(state: SlotState, sha256: str) -> SlotState:
    """A person lets a barred hash in again; one that is not barred is let be."""
    return replace(state, barred={k: v for k, v in state.barred.items() if k != sha256})


def refuse_barred(state: SlotState, sha256: str) -> None:
    """Raise SlotError ``barred`` where the hash is."""
    if sha256 in state.barred:
        raise SlotError(
            BARRED,
            f"model {sha256[:12]} was barred: {state.barred[sha256]}",
            cause="it crashed the drive, or the computer restarted, while it was on trial",
            next_step=f"hotlap models allow {sha256[:12]}, if the cause was another",
        )


def _failed(state: SlotState, reason: str) -> SlotState:
    assert state.trial is not None
    sha256 = state.trial.sha256
    return replace(
        state,
        trial=None,
        previous=None if state.previous == sha256 else state.previous,
        barred={**state.barred, sha256: reason},
        notice=Notice("trial_failed", sha256, reason),
    )
