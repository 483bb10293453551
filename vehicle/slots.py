"""The models on this car: folders named by the hash of what is in them, and one small file that says which one drives.

Under the root (``STATE_DIR/models``): ``<sha256>/bundle.tar.gz``, the verified archive and the only truth about a
model, with ``report.json`` beside it; ``incoming/`` for what is not whole yet; ``slots.json`` (`vehicle.slot_state`).
A model comes in with one rename and goes with one rename, and a role changes with one rename, each after what it
names is on the disk. So the power may fail at any moment: what is found afterwards is the state before or the state
after, and every archive is hashed again before it drives.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibration.durable import FileSystem
from vehicle import slot_state as s
from vehicle.errors import ConfigError, SlotError
from vehicle.slot_files import STATE_NAME, SlotFiles, storage_error
from vehicle.slot_state import SlotState

LOCK_WAIT_S = 30.0  # whoever holds it writes at most one bundle of 64 MB, some 10 s on a slow card
LEAST_SHA_CHARACTERS = 6


@dataclass(frozen=True)
class ActiveModel:
    """The model that a drive takes; its archive has just been verified where it comes from `ModelStore.begin_boot`."""

    sha256: str
    bundle_path: Path
    trial: bool


@dataclass(frozen=True)
class InstalledModel:
    """One model of the store.

    Args:
        role: "current", "trial", "previous" or "".
        installed: the store's count of installs when it came; 0 where the report is lost.
        barred: why it is barred, or "".
        report: golden difference and latency on this processor, as measured at the install.
    """

    sha256: str
    role: str
    installed: int
    size_bytes: int
    barred: str
    report: dict[str, Any]


class ModelStore:
    """The store under one folder. Several processes may have one open: changes are made under a lock.

    Opening sweeps away what a power cut left half made. Nothing is created before the first model comes in.

    Args:
        root: ``STATE_DIR/models``.
        fs: every call that changes the disk goes through it, so that a test can let each one fail.
        is_armed: asked before a person's change; models change only while the car is not armed.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, fs: FileSystem | None = None, is_armed: Callable[[], bool] | None = None
    ) -> None:
        self.root = Path(root)
        self._files = SlotFiles(self.root, fs or FileSystem())
        self._is_armed = is_armed or (lambda: False)
        self._files.sweep()

    # --- looking

    def state(self) -> SlotState:
        """Who is current, previous, on trial and barred. A damaged file is an empty state with a notice, since a car
        that does not know which model is proved drives with none.

        Raises:
            SlotError: ``storage``: the file is there and cannot be read.
        """
        try:
            text = (self.root / STATE_NAME).read_bytes()
        except FileNotFoundError:
            return SlotState()
        except OSError as error:
            raise storage_error(error) from error
        try:
            return SlotState.from_json(text)
        except ConfigError as error:
            what = f"{error.what}; no model is active and none barred until one is activated"
            return SlotState(notice=s.Notice("state_damaged", "", what))

    def active(self) -> ActiveModel | None:
        """The model that the next drive takes, without beginning one: nothing is verified, counted or changed.

        Raises:
            SlotError: ``storage``.
        """
        return self._active(self.state())

    def list(self) -> tuple[InstalledModel, ...]:
        """Every model of the store, the last one installed first.

        Raises:
            SlotError: ``storage``.
        """
        state = self.state()
        trial = state.trial.sha256 if state.trial else None
        models = []
        for sha256 in self._files.models():
            report = self._files.report(sha256)
            role = {state.previous: "previous", state.current: "current", trial: "trial"}.get(sha256, "")
            try:
                size = self.bundle_path(sha256).stat().st_size
            except FileNotFoundError:
                continue  # removed by another process meanwhile
            installed = report.pop("installed", 0)
            models.append(InstalledModel(sha256, role, installed, size, state.barred.get(sha256, ""), report))
        return tuple(sorted(models, key=lambda model: (-model.installed, model.sha256)))

    def find(self, text: str) -> str:
        """The whole hash of the one model, installed or barred, that begins with this text.

        Raises:
            SlotError: ``unknown_sha``.
        """
        known = sorted({*self._files.models(), *self.state().barred})
        text = text.strip().lower()
        found = [sha256 for sha256 in known if sha256.startswith(text)]
        if len(text) >= LEAST_SHA_CHARACTERS and len(found) == 1:
            return found[0]
        what = f"{len(found)} models begin with {text[:64]!r}" if text else "no model was named"
        if len(text) < LEAST_SHA_CHARACTERS:
            what += f"; at least {LEAST_SHA_CHARACTERS} characters of the hash are needed"
        raise SlotError(s.UNKNOWN_SHA, what, next_step="hotlap models list")

    def bundle_path(self, sha256: str) -> Path:
        """Where the archive of this model is, or would be."""
        return self._files.bundle_path(sha256)

    def is_whole(self, sha256: str) -> bool:
        """Whether the stored archive is there and hashes to its name."""
        return s.is_sha256(sha256) and self._files.problem(sha256) is None

    def verify(self, sha256: str) -> None:
        """Hash the stored archive anew.

        Raises:
            SlotError: ``not_installed`` or ``damaged``.
        """
        if not (s.is_sha256(sha256) and (self.root / sha256).is_dir()):
            what = f"there is no model {sha256[:12]} here"
            raise SlotError(s.NOT_INSTALLED, what, next_step="hotlap models install BUNDLE, or hotlap models list")
        problem = self._files.problem(sha256)
        if problem is not None:
            raise SlotError(
                s.DAMAGED,
                f"model {sha256[:12]}: {problem}",
                cause="the disk lost or changed data, or someone edited the folder",
                next_step="hotlap models install BUNDLE again",
            )

    def refuse_while_armed(self) -> None:
        """Raise SlotError ``armed`` where the car is."""
        if self._is_armed():
            raise SlotError(
                s.ARMED,
                "the car is armed",
                cause="models change only while it cannot move",
                next_step="hotlap disarm, then this command again",
            )

    # --- what a person asks for

    def add(self, archive: bytes, report: dict[str, object]) -> tuple[str, bool]:
        """Take in a verified archive; use `vehicle.slot_install.install_bundle`, which verifies it first.

        Returns:
            Its sha256, and False where it was in the store already and whole.

        Raises:
            SlotError: ``barred``, ``armed``, ``busy`` or ``storage`` (nothing was changed).
        """
        sha256 = hashlib.sha256(archive).hexdigest()
        self.refuse_while_armed()  # before anything is created
        with self._changing(create=True):
            state = self.state()
            # A cut between the folder's rename and the state's leaves a report that counts further than the state.
            counts = [state.counter, *(self._files.report(other).get("installed", 0) for other in self._files.models())]
            state = s.installed(replace(state, counter=max(counts)), sha256)
            if self.bundle_path(sha256).exists() and self._files.problem(sha256) is None:
                return sha256, False
            repaired = (self.root / sha256).exists()
            try:
                self._files.put(sha256, archive, {**report, "installed": state.counter})
                self._save(state)
            except OSError:
                if not repaired and (self.root / sha256).exists():
                    with contextlib.suppress(OSError):  # then it stays, whole and in no role
                        self._files.take_out(sha256)
                raise
        return sha256, True

    def activate(self, sha256: str) -> SlotState:
        """Choose the model for the next drive; it is on trial until `proved_healthy`.

        Raises:
            SlotError: ``barred``, ``not_installed``, ``damaged``, ``armed``, ``busy`` or ``storage``.
        """

        def transition(state: SlotState) -> SlotState:
            s.refuse_barred(state, sha256)
            self.verify(sha256)
            return s.activated(state, sha256)

        return self._change(transition, by_person=True)

    def rollback(self) -> SlotState:
        """Back to the model before.

        Raises:
            SlotError: ``no_previous``, ``damaged``, ``not_installed``, ``armed``, ``busy`` or ``storage``.
        """

        def transition(state: SlotState) -> SlotState:
            after = s.rolled_back(state)
            if after.current is not None:
                self.verify(after.current)
            return after

        return self._change(transition, by_person=True)

    def remove(self, sha256: str) -> SlotState:
        """Delete a model's files.

        Raises:
            SlotError: ``in_use``, ``not_installed``, ``armed``, ``busy`` or ``storage``.
        """
        with self._changing():
            self.refuse_while_armed()
            before = self.state()
            after = s.removed(before, sha256)
            if not (s.is_sha256(sha256) and (self.root / sha256).is_dir()):
                what = f"there is no model {sha256[:12]} here"
                raise SlotError(s.NOT_INSTALLED, what, next_step="hotlap models list")
            if after != before:
                self._save(after)
            try:
                self._files.take_out(sha256)
            except OSError:
                if (self.root / sha256).exists() and after != before:
                    with contextlib.suppress(OSError):  # then only the way back to it is lost
                        self._save(before)
                raise
        return after

    def allow(self, sha256: str) -> SlotState:
        """Let a barred hash in again.

        Raises:
            SlotError: ``busy`` or ``storage``.
        """
        return self._change(lambda state: s.allowed(state, sha256))

    # --- what the drive reports

    def begin_boot(self) -> ActiveModel | None:
        """The verified model that this drive takes, or None; a trial is counted, or ended after too many.

        Every call must be followed by `proved_healthy`, `crashed` or `ended`; where none is, the computer went down,
        and that counts as a failed trial. `state().notice` says why the model changed.

        Raises:
            SlotError: ``busy`` or ``storage``: a trial that cannot be counted is not driven.
        """

        def transition(state: SlotState) -> SlotState:
            state = s.boot(state)
            while state.driving is not None:
                problem = self._files.problem(state.driving)
                if problem is None:
                    break
                state = s.damaged(state, state.driving, problem)
            return state

        return self._active(self._change(transition))

    def proved_healthy(self, sha256: str) -> SlotState:
        """The drive went well: commit the trial of this model. Raises SlotError ``busy`` or ``storage``."""
        return self._change(lambda state: s.proved_healthy(state, sha256))

    def crashed(self, sha256: str) -> SlotState:
        """A process of the drive died. Raises SlotError ``busy`` or ``storage``."""
        return self._change(lambda state: s.crashed(state, sha256))

    def ended(self, sha256: str) -> SlotState:
        """The drive was stopped on purpose, with nothing proved. Raises SlotError ``busy`` or ``storage``."""
        return self._change(lambda state: s.ended(state, sha256))

    # --- how

    def _active(self, state: SlotState) -> ActiveModel | None:
        if state.driving is None:
            return None
        return ActiveModel(state.driving, self.bundle_path(state.driving), state.trial is not None)

    def _change(self, transition: Callable[[SlotState], SlotState], *, by_person: bool = False) -> SlotState:
        with self._changing():
            if by_person:
                self.refuse_while_armed()
            before = self.state()
            after = transition(before)
            if after != before:
                self._save(after)
        return after

    @contextlib.contextmanager
    def _changing(self, *, create: bool = False) -> Iterator[None]:
        """Hold the lock; what the disk refuses becomes SlotError ``storage``."""
        try:
            if create:
                self._files.create()
            if not self.root.is_dir():
                yield  # no store, nothing to protect: no transition of an empty state writes
                return
            with self._files.locked(LOCK_WAIT_S):
                yield
        except OSError as error:
            raise storage_error(error) from error

    def _save(self, state: SlotState) -> None:
        self._files.write_state(state.to_json())
