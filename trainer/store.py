"""Publishing a run into a store, and fetching it back; how a store is laid out is in ``vehicle.store``.

Write, then publish: objects under their hash first, then ``versions/NNNNNNNN.json``, last ``manifest.json``. Killed
between any two, the store still shows the version before, whole.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.errors import RunError
from trainer.metrics_log import replace_text
from trainer.run_folder import RunFolder
from vehicle.errors import StoreError
from vehicle.store import MANIFEST, Entry, Manifest, Store, is_url, open_store, parse_manifest

KEEP_VERSIONS = 3  # beside the newest none is named by it, but a slow reader may still be at an older one
_ASK_TIMEOUT_S = 5.0  # before a training begins somebody is waiting
_STATE = "store.json"
# What a run is in a store. DeepRacer's step logs stay where they were driven: a gigabyte an hour is no model.
_FILES = (
    "config.toml", "versions.json", "metrics.csv", "events.jsonl", "bundle.tar.gz", "checkpoints/last.pt",
    "checkpoints/best.pt", "inputs/**/*", "model/*", "ip/*", "metrics/**/*",
)  # fmt: skip
FileState = tuple[int, int, int]
# Makes a folder a run, and is fetched last.
_LAST = "config.toml"


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a run folder that belong into a store, by their path in it."""
    found = (path for pattern in _FILES for path in folder.glob(pattern))
    return {
        path.relative_to(folder).as_posix(): path
        for path in found
        if path.is_file() and not path.name.startswith(".")
    }  # fmt: skip


def file_state(path: Path) -> FileState:
    """What tells one state of a file from another: inode, size in bytes, time of change; hard links share it."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Writer:
    """Publishes one run folder.

    Every copy of a run folder has a name of its own, kept in RUN/store.json. A store whose newest version stems from
    another copy, and not from the version that this one was fetched from, is left alone: two machines that go on with
    the same run would otherwise overwrite each other's training.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.seen: Manifest | None = None  # the newest version, as this writer knows it
        self._kept: dict[int, Manifest] = {}
        self._hashes: dict[FileState, str] = {}
        self._state = _read_state(folder)
        self._known = "writer" in self._state
        self.name = str(self._state.get("writer", secrets.token_hex(8)))
        self._base = (self._state.get("base_writer"), self._state.get("base_version"))

    def claim(self) -> None:
        """Look whether this run may be published there. Raises StoreError; ``occupied`` is final."""
        newest = self.store.manifest()
        if newest is None:
            self._kept.clear()  # an empty store, or one that has lost everything
        elif newest.writer != self.name and (newest.writer, newest.version) != self._base:
            raise StoreError(
                "occupied",
                f"{self.store.address} holds version {newest.version} of another run, or of this one from elsewhere",
                cause="the prefix was used before, or the run was gone on with on another machine",
                next_step=f"another --store; or hotlap train --resume --store {self.store.address} --out EMPTY",
            )
        self.seen = newest
        if not self._known:
            _write_state(self.folder, self._state | {"writer": self.name})
            self._known = True

    def publish(self, files: Mapping[str, Path]) -> Manifest:
        """Make ``files``, which must not change meanwhile, the newest version.

        Raises:
            StoreError: the store shows the version before; OSError: a file cannot be read.
        """
        if _LAST not in files:
            raise FileNotFoundError(2, "no run", str(self.folder / _LAST))
        self.claim()
        before = self.seen
        there = {e.sha256 for m in (*self._kept.values(), *([before] if before else [])) for e in m.files.values()}
        entries: dict[str, Entry] = {}
        for name, path in files.items():
            entry, data = self._entry(path)
            entries[name] = entry
            if entry.sha256 not in there:
                self.store.backend.put(entry.object, _begin(path, entry.size_bytes) if data is None else data)
                there.add(entry.sha256)
        manifest = Manifest(before.version + 1 if before is not None else 1, self.name, entries)
        if before is not None and before.writer == self.name and before.files == entries:
            return before
        data = manifest.to_json()
        self.store.backend.put(_version(manifest.version), data)
        self.store.backend.put(MANIFEST, data)
        self.seen = self._kept[manifest.version] = manifest
        return manifest

    def prune(self) -> None:
        """Remove versions before the newest ones, and the objects that none of these names. Raises StoreError."""
        newest = self.seen
        if newest is None:
            return
        backend = self.store.backend
        versions = sorted(backend.list("versions"))
        kept = [name for name in versions if name <= _version(newest.version)][-KEEP_VERSIONS:]
        for name in kept:
            number = int(name.rpartition("/")[2].partition(".")[0])
            if number not in self._kept:
                self._kept[number] = parse_manifest(backend.get(name), f"{self.store.address}/{name}")
        self._kept = {n: m for n, m in self._kept.items() if _version(n) in kept}
        # In this order: a version is gone before the objects that it names.
        backend.delete([name for name in versions if name not in kept])
        named = {entry.object for m in (*self._kept.values(), newest) for entry in m.files.values()}
        backend.delete([name for name in backend.list("objects") if name not in named])

    def _entry(self, path: Path) -> tuple[Entry, bytes | None]:
        key = file_state(path)
        _, size_bytes, _ = key
        data = None
        if key not in self._hashes:
            data = _begin(path, size_bytes)
            self._hashes[key] = hashlib.sha256(data).hexdigest()
        return Entry(self._hashes[key], size_bytes), data


def store_of(address: str, run: Path) -> Store:
    """The store that a training in the folder ``run`` publishes to. Raises StoreError, RunError."""
    if not is_url(address) and Path(address).resolve() == run.resolve():
        raise RunError(f"{address} is the run folder itself", next_step="another --store, or none")
    return open_store(address)


def check_free(store: Store) -> None:
    """Raise StoreError ``occupied`` where a new run would meet an older one."""
    newest = store.manifest()
    if newest is not None:
        raise StoreError(
            "occupied",
            f"{store.address} holds a run already (version {newest.version})",
            cause="an earlier training was published there",
            next_step=f"another --store; or go on with it: hotlap train --resume --store {store.address} --out EMPTY",
        )


def ask_first(store: Store, question: Callable[[Store], None]) -> None:
    """Ask the store before a training begins. One that does not answer is no reason not to begin.

    Raises:
        StoreError: it answers, and this is not going to work.
    """
    try:
        question(open_store(store.address, _ASK_TIMEOUT_S))
    except StoreError as error:
        if error.fault != "unreachable":
            raise
        print(
            f"hotlap: {error.what}; the training begins all the same, and is published as soon as it does",
            file=sys.stderr,
        )


def open_run(path: Path, store: Store) -> RunFolder:
    """The run to go on with: the folder's own, else the store's, fetched. Raises StoreError, RunError."""
    if (path / _LAST).is_file():
        ask_first(store, lambda asked: Writer(path, asked).claim())
        return RunFolder.open(path)
    return fetch_run(store, path)


def fetch_run(store: Store, folder: Path) -> RunFolder:
    """Fetch the newest version of a published run into an empty folder.

    Raises:
        StoreError: the store or what it holds is at fault; RunError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already and is not empty", next_step="choose another --out")
    manifest, files = store.files()
    if _LAST not in files:
        raise StoreError("damaged", f"the run at {store.address} has no {_LAST}", next_step="publish it again")
    folder.mkdir(parents=True, exist_ok=True)
    _write_state(folder, {"base_writer": manifest.writer, "base_version": manifest.version})
    run = RunFolder(folder)
    for name in sorted(files, key=lambda name: name == _LAST):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        run.write(name, files[name])
    (folder / "checkpoints").mkdir(exist_ok=True)
    return run


def _begin(path: Path, size_bytes: int) -> bytes:
    """A file as it was when it had this size: one that is a log may have grown since."""
    with open(path, "rb") as file:
        return file.read(size_bytes)


def _version(number: int) -> str:
    return f"versions/{number:08d}.json"


def _read_state(folder: Path) -> dict[str, Any]:
    """RUN/store.json; one that cannot be read is that of a copy which nobody knows."""
    try:
        state = json.loads((folder / _STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    replace_text(folder / _STATE, json.dumps(state))
