"""The model store on a real disk: installs, roles, damage, sweeping, the lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vehicle import slot_files
from vehicle import slots as slots_module
from vehicle.errors import SlotError
from vehicle.slot_state import SLOT_FAULTS, SlotState
from vehicle.slots import ActiveModel, ModelStore

OLD, NEW, THIRD = b"old model" * 1000, b"new model" * 1000, b"third" * 1000


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fault_of(call: Callable[[], object]) -> str:
    with pytest.raises(SlotError) as caught:
        call()
    assert caught.value.fault in SLOT_FAULTS and caught.value.next_step
    return caught.value.fault


def committed(root: Path, *archives: bytes) -> ModelStore:
    """A store in which each of these has been current, the last one now."""
    store = ModelStore(root)
    for archive in archives:
        sha256, _ = store.add(archive, {})
        store.activate(sha256)
        assert store.begin_boot() == ActiveModel(sha256, store.bundle_path(sha256), True)
        store.proved_healthy(sha256)
    return store


def test_an_empty_store_creates_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    assert store.state() == SlotState() and store.list() == () and store.active() is None
    assert store.begin_boot() is None
    sha256 = sha_of(OLD)
    assert fault_of(lambda: store.activate(sha256)) == fault_of(lambda: store.remove(sha256)) == "not_installed"
    assert fault_of(store.rollback) == "no_previous"
    assert fault_of(lambda: store.verify("../x")) == "not_installed"
    for report in (store.proved_healthy, store.crashed, store.ended, store.allow):
        assert report(sha256) == SlotState()
    assert os.listdir(tmp_path) == []


def test_a_model_comes_in_whole(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "state" / "models")
    assert store.add(OLD, {"p99_ms": 1.5}) == (sha_of(OLD), True)
    folder = store.root / sha_of(OLD)
    assert sorted(os.listdir(folder)) == ["bundle.tar.gz", "report.json"]
    assert (folder / "bundle.tar.gz").read_bytes() == OLD
    assert json.loads((folder / "report.json").read_text()) == {"installed": 1, "p99_ms": 1.5}
    assert set(os.listdir(store.root)) == {"incoming", sha_of(OLD), "slots.json"}
    assert os.listdir(store.root / "incoming") == []
    assert store.active() is None and store.begin_boot() is None  # it was not activated


def test_the_same_again_is_nothing_new(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    before = store.state()
    stamp = store.bundle_path(sha_of(OLD)).stat().st_mtime_ns
    assert store.add(OLD, {"other": 1}) == (sha_of(OLD), False)
    assert store.state() == before and store.bundle_path(sha_of(OLD)).stat().st_mtime_ns == stamp


def test_the_list_is_ordered_by_install_and_names_roles(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD, NEW)
    store.add(THIRD, {"p99_ms": 2.0})
    store.activate(sha_of(THIRD))
    assert [(m.sha256, m.role, m.installed) for m in store.list()] == [
        (sha_of(THIRD), "trial", 3), (sha_of(NEW), "current", 2), (sha_of(OLD), "previous", 1)
    ]  # fmt: skip
    assert store.list()[0].report == {"p99_ms": 2.0} and store.list()[0].size_bytes == len(THIRD)
    (store.root / sha_of(NEW) / "report.json").write_text("{")  # the truth is the archive
    assert [m.installed for m in store.list()] == [3, 1, 0]
    assert store.is_whole(sha_of(NEW))


def test_find_by_the_first_characters(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD, NEW)
    assert store.find(sha_of(OLD)[:6].upper()) == store.find(sha_of(OLD)) == sha_of(OLD)
    for text in ("", sha_of(OLD)[:5], "0" * 64, "../../x"):
        assert fault_of(lambda text=text: store.find(text)) == "unknown_sha"  # type: ignore[misc]


def test_a_trial_is_committed_or_falls_back_and_is_barred(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    new, _ = store.add(NEW, {})
    store.activate(new)
    for _ in range(2):  # two drives that the power ended
        active = ModelStore(tmp_path / "models").begin_boot()
        assert active is not None and active.sha256 == new and active.trial
    active = ModelStore(tmp_path / "models").begin_boot()
    assert active == ActiveModel(sha_of(OLD), store.bundle_path(sha_of(OLD)), False)
    assert store.list()[0].barred and store.state().notice is not None
    for refused in (lambda: store.activate(new), lambda: store.add(NEW, {})):
        assert fault_of(refused) == "barred"
    store.remove(new)
    assert store.find(new[:8]) == new  # still barred, so that it can be allowed
    store.allow(new)
    assert store.add(NEW, {}) == (new, True)


def test_crashes_and_clean_ends_are_counted(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    new, _ = store.add(NEW, {})
    store.activate(new)
    for _ in range(4):
        assert store.begin_boot() is not None
        store.ended(new)
    assert store.active() == ActiveModel(new, store.bundle_path(new), True)
    for _ in range(2):
        store.begin_boot()
        store.crashed(new)
    assert store.active() == ActiveModel(sha_of(OLD), store.bundle_path(sha_of(OLD)), False)


def test_roll_back_and_remove(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    assert fault_of(store.rollback) == "no_previous"
    store = committed(tmp_path / "models", NEW)
    assert store.rollback().current == sha_of(OLD)
    assert fault_of(lambda: store.remove(sha_of(OLD))) == "in_use"
    assert store.remove(sha_of(NEW)).previous is None
    assert not (store.root / sha_of(NEW)).exists() and os.listdir(store.root / "incoming") == []
    assert fault_of(lambda: store.remove(sha_of(NEW))) == "not_installed"
    assert fault_of(store.rollback) == "no_previous"


def test_nothing_is_changed_while_armed(tmp_path: Path) -> None:
    committed(tmp_path / "models", OLD, NEW)
    armed = ModelStore(tmp_path / "models", is_armed=lambda: True)
    before = armed.state()
    for change in (
        lambda: armed.add(THIRD, {}),
        lambda: armed.activate(sha_of(OLD)),
        armed.rollback,
        lambda: armed.remove(sha_of(OLD)),
    ):
        assert fault_of(change) == "armed"
    assert armed.state() == before and len(armed.list()) == 2
    first = ModelStore(tmp_path / "none", is_armed=lambda: True)
    assert fault_of(lambda: first.add(OLD, {})) == "armed" and not first.root.exists()


# --- damage


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_model_falls_back_with_a_notice_and_can_come_again(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD, NEW)
    damage(store.bundle_path(sha_of(NEW)))
    active = store.begin_boot()
    assert active is not None and active.sha256 == sha_of(OLD) and not active.trial
    notice = store.state().notice
    assert notice is not None and (notice.reason, notice.sha256) == ("damaged", sha_of(NEW))
    assert "has sha256" in notice.what
    assert fault_of(lambda: store.activate(sha_of(NEW))) == "damaged"
    assert store.add(NEW, {}) == (sha_of(NEW), True)
    store.activate(sha_of(NEW))
    assert store.begin_boot() == ActiveModel(sha_of(NEW), store.bundle_path(sha_of(NEW)), True)


def test_damage_of_all_leaves_none_and_a_damaged_one_is_not_rolled_back_to(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD, NEW)
    damage(store.bundle_path(sha_of(OLD)))
    before = store.state()
    assert fault_of(store.rollback) == "damaged" and store.state() == before
    store.bundle_path(sha_of(NEW)).unlink()
    assert ModelStore(tmp_path / "models").begin_boot() is None
    assert store.state().current is None


def test_a_link_in_place_of_an_archive_is_damage(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    elsewhere = tmp_path / "elsewhere"
    store.bundle_path(sha_of(OLD)).rename(elsewhere)
    store.bundle_path(sha_of(OLD)).symlink_to(elsewhere)  # the right bytes, but anyone's to change
    assert store.begin_boot() is None
    assert "no plain file" in store.state().notice.what  # type: ignore[union-attr]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"current": "x"}', bytes(300)])
def test_a_damaged_state_drives_with_nothing_until_a_person_chooses(tmp_path: Path, text: bytes) -> None:
    store = committed(tmp_path / "models", OLD, NEW)
    (store.root / "slots.json").write_bytes(text)
    assert store.begin_boot() is None
    assert store.state().notice.reason == "state_damaged"  # type: ignore[union-attr]
    assert store.add(THIRD, {})[1]
    assert store.list()[0].sha256 == sha_of(THIRD) and store.list()[0].installed == 3  # counted on from the reports
    store.activate(sha_of(NEW))
    assert store.begin_boot() == ActiveModel(sha_of(NEW), store.bundle_path(sha_of(NEW)), True)


# --- sweeping and the lock


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold the lock of a store as another process would: through a descriptor of its own."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    store = committed(tmp_path / "models", OLD)
    half = store.root / sha_of(NEW)
    half.mkdir()
    (half / "report.json").write_text("{}")
    torn = store.root / "incoming" / sha_of(THIRD)
    torn.mkdir()
    (torn / "bundle.tar.gz").write_bytes(b"half")
    (store.root / "incoming" / "link").symlink_to(tmp_path)
    (store.root / "notes.txt").write_text("a person's")
    with held(store.root):
        ModelStore(tmp_path / "models")  # another process is at work: its files are left alone
        assert half.exists() and torn.exists()
    again = ModelStore(tmp_path / "models")
    assert os.listdir(again.root / "incoming") == [] and not half.exists()
    assert (again.root / "notes.txt").exists() and tmp_path.exists()
    assert again.begin_boot() is not None and again.state() == store.state()


def test_a_store_in_use_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = committed(tmp_path / "models", OLD)
    monkeypatch.setattr(slots_module, "LOCK_WAIT_S", 0.05)
    with held(store.root):
        assert fault_of(lambda: store.add(NEW, {})) == "busy"
        assert fault_of(store.begin_boot) == "busy"
    assert store.begin_boot() is not None


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    archives = [f"model {i}".encode() * 500 for i in range(8)]

    def installs(part: list[bytes]) -> None:
        store = ModelStore(tmp_path / "models")
        for archive in part:
            store.add(archive, {})

    threads = [threading.Thread(target=installs, args=(archives[i::2],), name=f"installer {i}") for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    models = ModelStore(tmp_path / "models").list()
    assert {m.sha256 for m in models} == {sha_of(a) for a in archives}
    assert sorted(m.installed for m in models) == list(range(1, 9))


def test_what_the_disk_refuses_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = committed(tmp_path / "models", OLD)
    full = slot_files.storage_error(OSError(errno.ENOSPC, "No space left on device", "x"))
    assert full.fault == "storage" and "full" in full.cause and "remove" in full.next_step
    (store.root / "slots.json").unlink()
    (store.root / "slots.json").mkdir()
    assert fault_of(store.state) == "storage"
