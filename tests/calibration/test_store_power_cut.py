"""Power cuts and errors at every call that changes the disk: the calibration before or after is in force, whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.errors import CalibrationError
from calibration.store import KEPT, history, load_calibration, restore, save_calibration, undo
from calibration.values import Calibration
from tests.calibration.cars import car, entry, saved
from tests.calibration.disk import FailingDisk, PowerCut, RememberingDisk, lay_out
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # a disk fails at every call, and real kills


def first(path: Path) -> None:
    path.parent.mkdir(parents=True)


def some(path: Path) -> None:
    saved(path, 1, 2, 3)


def full(path: Path) -> None:
    saved(path, *range(1, KEPT + 3))
    for name in (path.parent / ".calibration.json.00.tmp", entry(path, 1).with_name(".000001.json.00.tmp")):
        name.write_bytes(b"left by an earlier power cut")


def by_hand(path: Path) -> None:
    other = saved(path.parent / "other.json", 51, 52)
    saved(path, 1, 2)
    shutil.copy(other, path)
    shutil.rmtree(path.parent / "other.json.history")
    other.unlink()


def broken(path: Path) -> None:
    saved(path, 1, 2)
    path.write_bytes(b"")


NEW = car(99)
# Name: the folder before, what is done, and the calibration that is in force before and after it.
OPERATIONS: dict[str, tuple[Callable[[Path], None], Callable[..., object], Calibration | None, Calibration]] = {
    "first save": (first, lambda p, fs: save_calibration(p, NEW, fs=fs), None, NEW),
    "save": (some, lambda p, fs: save_calibration(p, NEW, fs=fs), car(3), NEW),
    "save with a full history": (full, lambda p, fs: save_calibration(p, NEW, fs=fs), car(KEPT + 2), NEW),
    "save over one put there by hand": (by_hand, lambda p, fs: save_calibration(p, NEW, fs=fs), car(52), NEW),
    "save over a damaged one": (broken, lambda p, fs: save_calibration(p, NEW, fs=fs), None, NEW),
    "save the same": (some, lambda p, fs: save_calibration(p, car(3), fs=fs), car(3), car(3)),
    "undo": (some, lambda p, fs: undo(p, fs=fs), car(3), car(2)),
    "undo with a full history": (full, lambda p, fs: undo(p, fs=fs), car(KEPT + 2), car(KEPT + 1)),
    "undo of one put there by hand": (by_hand, lambda p, fs: undo(p, fs=fs), car(52), car(2)),
    "undo of a damaged one": (broken, lambda p, fs: undo(p, fs=fs), None, car(2)),
    "restore": (some, lambda p, fs: restore(p, 1, fs=fs), car(3), car(1)),
}
RETURNS_NEWEST = ("undo of one put there by hand", "undo of a damaged one")
WAYS = {"cut before": (True, False), "cut half way": (True, True), "full": (False, False), "half full": (False, True)}


def in_force(path: Path) -> Calibration | None:
    """The calibration, or None where there is none; it never loads as anything else than itself."""
    try:
        return load_calibration(path)
    except CalibrationError:
        return None


def check_history(path: Path, allowed: list[Calibration]) -> None:
    """Every entry is whole and one of those that were ever saved; and the store goes on working."""
    for s in history(path):
        assert s.calibration in allowed, s.fault
    save_calibration(path, car(77))
    assert load_calibration(path) == car(77)
    assert not [p for p in path.parent.rglob("*") if p.name.endswith(".tmp")], "leftovers are swept"
    assert len(history(path)) <= KEPT


EVER = [NEW, *(car(n) for n in range(1, 60))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_call_fails_the_old_or_the_new_is_in_force(name: str, way: str, tmp_path: Path) -> None:
    prepare, operation, before, after = OPERATIONS[name]
    cut, half = WAYS[way]
    template = tmp_path / "template"
    prepare(template / "calibration.json")
    assert in_force(template / "calibration.json") == before
    disk = FailingDisk()
    shutil.copytree(template, tmp_path / "whole")
    operation(tmp_path / "whole" / "calibration.json", disk)
    assert in_force(tmp_path / "whole" / "calibration.json") == after and len(disk.names) >= 5
    outcomes = set()
    for k, call in enumerate(disk.names):
        root = tmp_path / str(k)
        path = root / "calibration.json"
        shutil.copytree(template, root)
        raised: BaseException | None = None
        try:
            operation(path, FailingDisk(k, cut=cut, half=half))
        except (PowerCut, CalibrationError) as error:
            raised = error
        now, where = in_force(path), f"{name}, {way}, call {k}, {call}"
        assert now in (before, after), where
        outcomes.add(now == after)
        if isinstance(raised, CalibrationError):
            assert "No space left" in raised.what and raised.cause and "save again" in raised.next_step, where
        elif raised is None:
            assert now == after and call == "unlink", f"{where}: only failing to delete old ones is no failure"
        known = [s.calibration for s in history(path)]
        if now == before != after and not cut and name not in RETURNS_NEWEST:
            assert after not in known[:1], f"{where}: what was not saved is not the newest"
        if now is not None and before is not None and before != after and name.startswith("save"):
            expected = before if now == after else None
            if expected is not None:
                copy = tmp_path / f"{k} undone"
                shutil.copytree(root, copy)
                assert undo(copy / path.name) == before, where
        check_history(path, EVER)
        shutil.rmtree(root)
    assert outcomes == ({True, False} if before != after else {True})


@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_a_power_cut_leaves_the_old_or_the_new_is_in_force(name: str, tmp_path: Path) -> None:
    """After each call: all that was done, only synced contents, only synced names with synced contents."""
    prepare, operation, before, after = OPERATIONS[name]
    root = tmp_path / "disk"
    prepare(root / "calibration.json")
    disk = RememberingDisk(root)
    operation(root / "calibration.json", disk)
    assert {"create", "write", "fsync", "replace", "fsync_dir"} <= set(disk.names)
    assert ("full" not in name) or "unlink" in disk.names
    outcomes = set()
    for k, trees in enumerate(disk.survivors):
        for i, tree in enumerate(trees):
            left = tmp_path / f"{k} {i}"
            lay_out(tree, left)
            now = in_force(left / "calibration.json")
            assert now in (before, after), f"after call {k}, {disk.names[k]}, survivor {i}"
            outcomes.add(now == after)
            if "by hand" not in name or now == after:
                check_history(left / "calibration.json", EVER)
            shutil.rmtree(left)
    for i, tree in enumerate(disk.survivors[-1]):
        lay_out(tree, tmp_path / f"end {i}")
        assert in_force(tmp_path / f"end {i}" / "calibration.json") == after, "when it returns, it is on the disk"
    assert outcomes == ({True, False} if before != after else {True})


def test_a_disk_that_does_not_sync_would_be_found_out(tmp_path: Path) -> None:
    """The test above can fail."""

    class NoSync(RememberingDisk):
        def fsync(self, descriptor: int) -> None:
            self._remember("fsync")

    path = saved(tmp_path / "disk" / "calibration.json", 1)
    disk = NoSync(path.parent)
    save_calibration(path, NEW, fs=disk)
    lost = 0
    for k, trees in enumerate(disk.survivors):
        for i, tree in enumerate(trees):
            lay_out(tree, tmp_path / f"{k} {i}")
            lost += in_force(tmp_path / f"{k} {i}" / "calibration.json") is None
    assert lost > 0


WORKER = """
import sys
from calibration.store import save_calibration, undo
from tests.calibration.cars import car
print("ready", flush=True)
while True:
    for number in range(2, 59):
        save_calibration(sys.argv[1], car(number))
        if number % 5 == 0:
            undo(sys.argv[1])
"""


def test_real_kills(tmp_path: Path) -> None:
    path = saved(tmp_path / "calibration.json", 1)
    newest = 0
    for kill in range(8):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        with worker:
            assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
            reads = 3 + 7 * kill
            while reads:  # readers see whole files while it works; the machine may be too busy for it to begin at once
                assert load_calibration(path) in EVER
                reads -= history(path)[0].revision > newest + 1
            worker.kill()
        assert load_calibration(path) in EVER
        assert all(s.calibration in EVER for s in history(path))
        assert history(path)[0].revision >= newest
        newest = history(path)[0].revision
    assert newest > 8
    check_history(path, [*EVER, car(77)])
