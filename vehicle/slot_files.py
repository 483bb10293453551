"""The files of the model store: one folder a model, moved in whole and moved out whole, and a lock.

`vehicle.slots` says what the folder holds and which model has which role; this is how it comes onto the disk. Each
change is one rename of something that was synced before; `SlotFiles.sweep` deletes what a power cut left half made.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration.durable import FileSystem, leftovers, lock_folder, make_folders, write_durably
from vehicle.config import parse_json
from vehicle.errors import ConfigError, SlotError
from vehicle.slot_state import BUSY, STORAGE, is_sha256

STATE_NAME = "slots.json"
INCOMING_NAME = "incoming"
BUNDLE_NAME = "bundle.tar.gz"
REPORT_NAME = "report.json"
_CHUNK_BYTES = 2**20


class SlotFiles:
    """The folder ``STATE_DIR/models``. What changes it must be called with the lock held; it raises OSError.

    Args:
        root: it need not exist; nothing is created before `put`.
        fs: every call that changes the disk goes through it, so that a test can let each one fail.
    """

    def __init__(self, root: Path, fs: FileSystem) -> None:
        self.root, self._fs = root, fs

    # --- looking

    def bundle_path(self, sha256: str) -> Path:
        """Where the archive of this model is, or would be."""
        return self.root / sha256 / BUNDLE_NAME

    def models(self) -> tuple[str, ...]:
        """The hashes of all models here. Raises SlotError ``storage``."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_error(error) from error
        return tuple(name for name in names if is_sha256(name) and self.bundle_path(name).is_file())

    def report(self, sha256: str) -> dict[str, Any]:
        """What is known of a model beside its archive; it is not needed to drive, so a damaged one is only empty."""
        try:
            report = parse_json((self.root / sha256 / REPORT_NAME).read_bytes(), where=REPORT_NAME)
        except (OSError, ConfigError):
            return {}
        if not isinstance(report, dict) or type(report.get("installed")) is not int:
            return {}
        return report

    def problem(self, sha256: str) -> str | None:
        """What is wrong with the stored archive, or None."""
        path = self.bundle_path(sha256)
        try:
            if not stat.S_ISREG(path.lstat().st_mode) or not stat.S_ISDIR(path.parent.lstat().st_mode):
                return f"{BUNDLE_NAME} is no plain file"
            actual = _hash_of(path)
        except OSError as error:
            return f"{BUNDLE_NAME} cannot be read: {error.strerror or error}"
        return None if actual == sha256 else f"{BUNDLE_NAME} has sha256 {actual}"

    # --- changing

    @contextlib.contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """The advisory lock on the root folder itself; the kernel frees it when its holder dies.

        Raises:
            SlotError: ``busy``: another process held it for ``wait_s``.
        """
        descriptor = lock_folder(self.root, wait_s)
        if descriptor is None:
            what = f"another process has been changing {self.root} for {wait_s:g} s"
            raise SlotError(BUSY, what, next_step="wait for the other hotlap command")
        try:
            yield
        finally:
            os.close(descriptor)

    def write_state(self, text: str) -> None:
        """Replace ``slots.json`` in one step."""
        write_durably(self.root / STATE_NAME, text.encode(), fs=self._fs)

    def create(self) -> None:
        """Make the folder itself, and those above it."""
        make_folders(self.root, fs=self._fs)

    def put(self, sha256: str, archive: bytes, report: dict[str, object]) -> None:
        """Make the whole folder in ``incoming``, read the archive back, then move it in with one rename."""
        incoming = self.root / INCOMING_NAME
        folder = incoming / sha256
        make_folders(incoming, fs=self._fs)
        try:
            self._delete_tree(folder)
            self._fs.mkdir(folder)
            write_durably(folder / BUNDLE_NAME, archive, fs=self._fs)
            text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n"
            write_durably(folder / REPORT_NAME, text.encode(), fs=self._fs)
            if _hash_of(folder / BUNDLE_NAME) != sha256:
                raise OSError(errno.EIO, "what was written does not read back the same", str(folder / BUNDLE_NAME))
            self._fs.fsync_dir(incoming)
            if (self.root / sha256).exists():  # damaged, or it would have been left alone
                self.take_out(sha256)
            self._fs.replace(folder, self.root / sha256)
        except OSError:
            with contextlib.suppress(OSError):
                self._delete_tree(folder)
            raise
        self._fs.fsync_dir(self.root)
        self._fs.fsync_dir(incoming)

    def take_out(self, sha256: str) -> None:
        """Take a model out of the store with one rename, then delete its files at leisure."""
        incoming = self.root / INCOMING_NAME
        make_folders(incoming, fs=self._fs)
        grave = incoming / f"{sha256}.removed"
        self._delete_tree(grave)
        self._fs.replace(self.root / sha256, grave)
        self._fs.fsync_dir(self.root)
        with contextlib.suppress(OSError):  # it is out of the store; the next opening sweeps what is left
            self._delete_tree(grave)

    def _delete_tree(self, path: Path) -> None:
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)  # a link to a folder is deleted, not followed
        except FileNotFoundError:
            return
        if not is_folder:
            self._fs.unlink(path)
            return
        for entry in sorted(path.iterdir()):
            self._delete_tree(entry)
        self._fs.rmdir(path)

    def sweep(self) -> None:
        """Delete what is half made. Another process at work keeps its files: with the lock held, nothing is swept."""
        if not self.root.is_dir():
            return
        with contextlib.suppress(OSError, SlotError), self.locked(0.0):
            halves = [p for p in self.root.iterdir() if is_sha256(p.name) and not self.bundle_path(p.name).is_file()]
            incoming = self.root / INCOMING_NAME
            strays = list(incoming.iterdir()) if incoming.is_dir() and not incoming.is_symlink() else []
            for path in sorted((*halves, *strays, *leftovers(self.root / STATE_NAME))):
                with contextlib.suppress(OSError):  # it only takes space, and a reader may not be allowed to
                    self._delete_tree(path)


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def storage_error(error: OSError) -> SlotError:
    """What the disk refused, as the error of the store."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return SlotError(
        STORAGE,
        f"{error.filename or 'the model store'}: {error.strerror or error}",
        cause="the disk is full" if full else "the disk is read-only or failing, or the folder belongs to another user",
        next_step="hotlap models remove SHA" if full else "hotlap doctor",
    )
