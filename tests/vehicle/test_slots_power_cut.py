"""Power cuts and full disks at every call that changes the disk: afterwards there is always the old state or the new
one, and a model that is whole; and a process that is killed at random moments leaves the same."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibration.durable import FileSystem
from tests.conftest import ROOT
from vehicle.errors import SlotError
from vehicle.slot_state import SlotState
from vehicle.slots import ModelStore

pytestmark = pytest.mark.slow  # a disk fails at every call, and real kills

PREVIOUS, CURRENT, NEW, MORE = (name * 5000 for name in (b"previous", b"current", b"new", b"more"))


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class PowerCut(BaseException):
    """The process is gone: nothing catches this, and nothing that it would still do reaches the disk."""


class FailingDisk(FileSystem):
    """Counts the calls that change the disk and lets the k-th one fail, from 0; -1 lets none.

    After a power cut, files that were not synced hold half of what was written to them. Nothing is truly synced, which
    makes these tests fast; `test_no_bytes_are_trusted_before_they_are_synced` looks at the order of the calls.

    Args:
        cut: the power fails, so that every later call fails too; else this one call is refused with "disk full".
        half: of what is written by the failing call, the first half reaches the disk; a call that writes nothing is
            carried out wholly before it fails.
    """

    def __init__(self, k: int = -1, *, cut: bool = False, half: bool = False) -> None:
        self.k, self.cut, self.half, self.calls = k, cut, half, 0
        self.order: list[tuple[str, str]] = []
        self._open: dict[int, Path] = {}
        self._unsynced: set[Path] = set()

    def attempt(self, name: str, arguments: tuple[Any, ...]) -> Any:
        number, self.calls = self.calls, self.calls + 1
        self.order.append((name, " ".join(str(a) for a in arguments if isinstance(a, str | Path))))
        if self.k < 0 or number < self.k or (number > self.k and not self.cut):
            return self._carry_out(name, arguments)
        if number == self.k and self.half:
            self._carry_out(name, tuple(a[: len(a) // 2] if isinstance(a, memoryview) else a for a in arguments))
        if not self.cut:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for path in self._unsynced if number == self.k else ():
            os.truncate(path, path.stat().st_size // 2)
        raise PowerCut

    def _carry_out(self, name: str, arguments: tuple[Any, ...]) -> Any:
        result = None if name in ("fsync", "fsync_dir") else getattr(FileSystem, name)(self, *arguments)
        if name == "create":
            self._open[result] = Path(arguments[0])
            self._unsynced.add(Path(arguments[0]))
        elif name == "fsync":
            self._unsynced.discard(self._open[arguments[0]])
        elif name == "replace":
            source, target = map(Path, arguments)
            self._unsynced = {target / p.relative_to(source) if p.is_relative_to(source) else p for p in self._unsynced}
        elif name == "unlink":
            self._unsynced.discard(Path(arguments[0]))
        return result


def _counted(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: self.attempt(name, arguments)


CALLS = [name for name in vars(FileSystem) if not name.startswith("_")]
for _name in CALLS:
    setattr(FailingDisk, _name, _counted(_name))


def commit(store: ModelStore, archive: bytes) -> None:
    sha256, _ = store.add(archive, {"p99_ms": 1.0})
    store.activate(sha256)
    store.begin_boot()
    store.proved_healthy(sha256)


def filled(root: Path, boots: int = 0, trial: bool = False) -> None:
    """A store with a current and a previous model and one that is new, and perhaps on trial."""
    store = ModelStore(root)
    for archive in (PREVIOUS, CURRENT):
        commit(store, archive)
    store.add(NEW, {"p99_ms": 1.0})
    if trial:
        store.activate(sha_of(NEW))
    for _ in range(boots):
        store.begin_boot()


def failed_trial(root: Path) -> None:
    filled(root, trial=True, boots=3)


def damaged(archive: bytes) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        filled(root)
        ModelStore(root).bundle_path(sha_of(archive)).write_bytes(archive[:100])

    return prepare


def littered(root: Path) -> None:
    filled(root)
    for folder in (root / "incoming" / sha_of(MORE), root / sha_of(MORE)):
        folder.mkdir()
        (folder / "report.json").write_text("{}")


def nothing(root: Path) -> None:
    """No store yet."""


# Name: how the store is before, what is done, and the models that may drive afterwards (None: no model).
OPERATIONS: dict[str, tuple[Callable[[Path], None], Callable[[ModelStore], object], set[bytes | None]]] = {
    "first install": (nothing, lambda m: m.add(NEW, {}), {None}),
    "install": (filled, lambda m: m.add(MORE, {}), {CURRENT}),
    "install over a damaged one": (damaged(CURRENT), lambda m: m.add(CURRENT, {}), {CURRENT, PREVIOUS}),
    "first activate": (lambda root: ModelStore(root).add(NEW, {}), lambda m: m.activate(sha_of(NEW)), {None, NEW}),
    "activate": (filled, lambda m: m.activate(sha_of(NEW)), {CURRENT, NEW}),
    "begin the first trial": (lambda r: filled(r, trial=True), lambda m: m.begin_boot(), {NEW}),
    "begin the second trial": (lambda r: filled(r, trial=True, boots=1), lambda m: m.begin_boot(), {NEW, CURRENT}),
    "begin after two trials": (lambda r: filled(r, trial=True, boots=2), lambda m: m.begin_boot(), {CURRENT}),
    "begin with damage": (damaged(CURRENT), lambda m: m.begin_boot(), {PREVIOUS}),
    "commit": (lambda r: filled(r, trial=True, boots=1), lambda m: m.proved_healthy(sha_of(NEW)), {NEW}),
    "crash": (lambda r: filled(r, trial=True, boots=2), lambda m: m.crashed(sha_of(NEW)), {CURRENT}),
    "clean end": (lambda r: filled(r, trial=True, boots=1), lambda m: m.ended(sha_of(NEW)), {NEW}),
    "rollback": (filled, lambda m: m.rollback(), {CURRENT, PREVIOUS}),
    "rollback of a trial": (lambda r: filled(r, trial=True), lambda m: m.rollback(), {NEW, CURRENT}),
    "remove": (filled, lambda m: m.remove(sha_of(PREVIOUS)), {CURRENT}),
    "allow": (failed_trial, lambda m: m.allow(sha_of(NEW)), {CURRENT}),
    "sweep": (littered, lambda m: m.active(), {CURRENT}),
}  # fmt: skip
WAYS = {"cut before": (True, False), "cut half way": (True, True), "full": (False, False), "half full": (False, True)}


def archives(root: Path) -> dict[str, bytes]:
    """Every file under the root but the state."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "slots.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def sound(root: Path) -> ModelStore:
    """The store opened anew after whatever happened, with every promise checked but the one of which model drives."""
    store = ModelStore(root)
    if not root.exists():
        return store
    if (root / "slots.json").exists():
        SlotState.from_json((root / "slots.json").read_bytes())
    folders = {path.name for path in root.iterdir()} - {"incoming", "slots.json"}
    assert folders == {model.sha256 for model in store.list()}, "what is half made is swept"
    assert not (root / "incoming").exists() or os.listdir(root / "incoming") == []
    return store


def done(prepare: Callable[[Path], None], operation: Callable[[ModelStore], object], root: Path) -> tuple[int, Any]:
    """What the operation comes to where nothing fails, and how many calls it takes."""
    root.parent.mkdir()
    prepare(root)
    disk = FailingDisk()
    operation(ModelStore(root, fs=disk))
    store = sound(root)
    return disk.calls, (store.state(), {m.sha256 for m in store.list()})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_call_fails_the_old_or_the_new_is_there(name: str, way: str, tmp_path: Path) -> None:
    prepare, operation, driving = OPERATIONS[name]
    calls, after = done(prepare, operation, tmp_path / "whole" / "models")
    assert calls >= 2
    template = tmp_path / "template" / "models"
    template.parent.mkdir()
    prepare(template)
    before, damaged_before = looked_at(template, tmp_path / "copy")
    cut, half = WAYS[way]
    for k in range(calls):
        root = tmp_path / str(k) / "models"
        shutil.copytree(template.parent, root.parent)
        at_first = archives(root)
        disk, raised = FailingDisk(k, cut=cut, half=half), False
        try:
            operation(ModelStore(root, fs=disk))
        except (PowerCut, SlotError) as error:
            raised = True
            assert cut == isinstance(error, PowerCut)
            assert cut or error.fault == "storage"  # type: ignore[union-attr]
        assert disk.calls > k
        store = sound(root)
        state, models = store.state(), {m.sha256 for m in store.list()}
        where = f"{name}, {way}, call {k} of {calls}"
        # An install that is undone may have counted; a removal has first to give up the way back to what it removes.
        assert _same(state, before[0], after[0]), where
        # A damaged archive is moved out before the whole one is moved in.
        assert models | damaged_before in (before[1] | damaged_before, after[1] | damaged_before), where
        if raised and not cut and name in ("install", "first install", "first activate", "activate"):
            assert models == before[1] and archives(root) == at_first, where
        assert all(store.is_whole(m) or m in damaged_before for m in models), where
        active = store.begin_boot()
        assert (active.sha256 if active else None) in {d if d is None else sha_of(d) for d in driving}, where
        assert active is None or store.is_whole(active.sha256), where
        shutil.rmtree(root.parent)


def _same(state: SlotState, before: SlotState, after: SlotState) -> bool:
    """Whether a state is the one before or after, but for the count of installs."""
    return any(replace(state, counter=0) == replace(other, counter=0) for other in (before, after))


def looked_at(template: Path, copy: Path) -> tuple[tuple[SlotState, set[str]], set[str]]:
    """State and models before, and which of them are damaged; from a copy, since opening a store may sweep it."""
    if template.exists():
        shutil.copytree(template, copy)
    store = sound(copy)
    models = {m.sha256 for m in store.list()}
    return (store.state(), models), {m for m in models if not store.is_whole(m)}


def test_a_failed_operation_can_be_done_again(tmp_path: Path) -> None:
    """After a cut at any call of an install, an activation and a commit, the same three reach the same end."""

    def life(store: ModelStore) -> None:
        commit(store, MORE)
        store.rollback()
        store.remove(sha_of(MORE))

    filled(tmp_path / "whole")
    disk = FailingDisk()
    life(ModelStore(tmp_path / "whole", fs=disk))
    assert disk.calls > 20
    for k in range(disk.calls):
        root = tmp_path / f"at {k}"
        filled(root)
        with pytest.raises(PowerCut):
            life(ModelStore(root, fs=FailingDisk(k, cut=True, half=True)))
        store = sound(root)
        active = store.active()
        assert active is not None and store.is_whole(active.sha256)
        if store.state().current == sha_of(MORE):
            store.rollback()
        life(store)
        assert store.state().current == sha_of(CURRENT) and {m.sha256 for m in store.list()} == {
            sha_of(a) for a in (PREVIOUS, CURRENT, NEW)
        }
        shutil.rmtree(root)


def test_a_full_disk_leaves_even_a_damaged_model_in_its_place(tmp_path: Path) -> None:
    damaged(CURRENT)(tmp_path)
    before = archives(tmp_path)
    with pytest.raises(SlotError, match="disk is full"):
        ModelStore(tmp_path, fs=FailingDisk(2)).add(CURRENT, {})
    assert archives(tmp_path) == before


def test_no_bytes_are_trusted_before_they_are_synced(tmp_path: Path) -> None:
    """The order of the calls: a name appears only after what it names was synced, and is itself synced after."""
    disk = FailingDisk()
    store = ModelStore(tmp_path / "models", fs=disk)
    sha256, _ = store.add(NEW, {})
    order, incoming = disk.order, store.root / "incoming"

    def last(name: str, end: str) -> int:
        return max(i for i, (call, words) in enumerate(order) if call == name and words.endswith(end))

    moved_in = last("replace", f"{incoming / sha256} {store.root / sha256}")
    assert last("replace", "bundle.tar.gz") < last("fsync_dir", str(incoming / sha256)) < moved_in
    assert [call for call, _ in order[:moved_in]].count("fsync") == 2  # archive and report
    root_synced = next(i for i in range(moved_in, len(order)) if order[i] == ("fsync_dir", str(store.root)))
    state_named = last("replace", "slots.json")
    assert root_synced < state_named, "the model is there before the state speaks of it"
    assert order[state_named - 1][0] == "fsync" and order[-1] == ("fsync_dir", str(store.root))


def test_the_failing_disk_fails_every_kind_of_call() -> None:
    assert {"create", "write", "fsync", "fsync_dir", "replace", "unlink", "mkdir", "rmdir"} <= set(CALLS)


# --- a real process, really killed

WORKER = """
import random, sys
from pathlib import Path
from vehicle.errors import SlotError
from vehicle.slots import ModelStore

rng = random.Random(int(sys.argv[2]))
archives = [bytes([65 + i]) * (150_000 + 10_000 * i) for i in range(4)]
store = ModelStore(sys.argv[1])
print("ready", flush=True)
while True:
    sha256, _ = store.add(rng.choice(archives), {"p99_ms": 1.0})
    store.activate(sha256)
    active = store.begin_boot()
    if active is not None and rng.random() < 0.8:
        store.proved_healthy(active.sha256)
    for change in (store.rollback, lambda: store.remove(rng.choice(store.list()).sha256)):
        try:
            change()
        except SlotError as error:
            if error.fault not in ("no_previous", "in_use"):
                raise
    for barred in store.state().barred:
        store.allow(barred)
"""


def test_thirty_two_real_kills(tmp_path: Path) -> None:
    root, rng = tmp_path / "models", random.Random(8)
    wholes = {sha_of(bytes([65 + i]) * (150_000 + 10_000 * i)) for i in range(4)}
    counts, drove, halfway = [0], 0, 0
    for kill in range(32):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), str(kill)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with worker:
            assert worker.stdout is not None and worker.stderr is not None
            assert worker.stdout.readline() == b"ready\n", worker.stderr.read().decode()
            time.sleep(rng.uniform(0.0, 0.15))
            assert worker.poll() is None, worker.stderr.read().decode()
            worker.kill()
        if (root / "incoming").exists():
            halfway += bool(os.listdir(root / "incoming")) or any(p.name.startswith(".") for p in root.iterdir())
        store = sound(root)
        models = {m.sha256 for m in store.list()}
        assert models <= wholes and all(store.is_whole(sha256) for sha256 in models)
        state = store.state()
        assert state.notice is None or state.notice.reason == "trial_failed"
        roles = {state.current, state.previous, state.trial.sha256 if state.trial else None} - {None}
        assert roles <= models, "every model that has a role is there"
        active = store.begin_boot()
        if active is not None:
            drove += 1
            assert sha_of(active.bundle_path.read_bytes()) == active.sha256
            store.ended(active.sha256)
        counts.append(store.state().counter)
    assert counts == sorted(counts) and counts[-1] >= 4, "the workers did work"
    assert drove > 16 and halfway > 0, "and some were killed in the middle of it"
