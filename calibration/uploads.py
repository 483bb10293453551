"""Uploads that can be resumed: a file comes in pieces, each at the offset where the last one ended.

An upload is named by the SHA-256 that its file shall have, so whoever begins the same file again, after a lost
connection or another start of the console, goes on where it stopped. Its bytes are in ``FOLDER/<sha256>.part``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from calibration.car_link import CarRefused
from calibration.durable import make_folders

MAX_UPLOAD_BYTES = 64 * 2**20  # a hotlap bundle's own cap; DeepRacer's models are 25 MB
MAX_PIECE_BYTES = 8 * 2**20
MAX_UPLOADS = 4
MAX_WRITERS = 3
KEEP_FREE_BYTES = 100 * 10**6  # the gate does not arm with less than 50 MB
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 64 * 1024
_SPOOL_PREFIX = "spool-"


class Uploads:
    """The uploads that are under way.

    Args:
        folder: of the console's own; it is not the model store's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):  # what a killed console left of forms
            for path in folder.glob(f"{_SPOOL_PREFIX}*"):
                path.unlink()

    def begin(self, size: int, sha256: str) -> int:
        """Begin an upload, or go on with it.

        Returns:
            how many bytes are there already.

        Raises:
            CarRefused: out_of_range, too_large, storage.
        """
        if not _SHA256.fullmatch(sha256):
            raise CarRefused("out_of_range", "sha256 must be 64 hexadecimal digits in lower case")
        if not 0 < size <= MAX_UPLOAD_BYTES:
            reason = "too_large" if size > 0 else "out_of_range"
            raise CarRefused(reason, f"a file of {size} bytes (allowed: 1 to {MAX_UPLOAD_BYTES})")
        with self._writing(sha256), _storage():
            make_folders(self.folder)
            path = self._path(sha256)
            if self._size_path(sha256).exists() and self.size(sha256) != size:
                self._delete(sha256)
            self._make_room(sha256)
            offset = path.stat().st_size if path.exists() else 0
            free = os.statvfs(self.folder)
            if free.f_bavail * free.f_frsize < size - offset + KEEP_FREE_BYTES:
                raise CarRefused(
                    "storage", "the car's disk is too full for it", next_step="delete old models, then try again"
                )
            self._size_path(sha256).write_text(str(size))
            path.touch()
            return offset

    def offset(self, sha256: str) -> int:
        """How many bytes are there.

        Raises:
            CarRefused: unknown_upload.
        """
        self.size(sha256)
        return self._path(sha256).stat().st_size

    def size(self, sha256: str) -> int:
        """How many bytes there shall be.

        Raises:
            CarRefused: unknown_upload.
        """
        if _SHA256.fullmatch(sha256):
            with contextlib.suppress(OSError, ValueError):
                if self._path(sha256).is_file():
                    return int(self._size_path(sha256).read_text())
        raise CarRefused("unknown_upload", "there is no such upload", next_step="begin it again")

    def append(self, sha256: str, offset: int, length: int, stream: IO[bytes]) -> int:
        """Write a piece of `length` bytes at `offset`; what came before a lost connection stays.

        Returns:
            the offset after it.

        Raises:
            CarRefused: unknown_upload, wrong_offset, too_large, busy, storage.
        """
        with self._writing(sha256), _storage():
            size, have = self.size(sha256), self.offset(sha256)
            if offset != have:
                raise CarRefused("wrong_offset", f"the piece begins at {offset}, {have} bytes are here")
            if not 0 < length <= min(MAX_PIECE_BYTES, size - have):
                raise CarRefused(
                    "too_large", f"a piece of {length} bytes (allowed: 1 to {min(MAX_PIECE_BYTES, size - have)})"
                )
            with open(self._path(sha256), "ab") as file:
                while have < offset + length and (read := stream.read(min(_READ_BYTES, offset + length - have))):
                    file.write(read)
                    have += len(read)
            return have

    @contextlib.contextmanager
    def finished(self, sha256: str) -> Iterator[Path]:
        """The whole file, held; it is deleted afterwards, unless a CarRefused of `KEPT_AFTER` comes through.

        Raises:
            CarRefused: unknown_upload, incomplete, sha256_mismatch, busy.
        """
        with self._writing(sha256):
            size, have = self.size(sha256), self.offset(sha256)
            if have != size:
                raise CarRefused("incomplete", f"{have} of {size} bytes are here", next_step="send the rest")
            found = _hash_of(self._path(sha256))
            if found != sha256:
                self._delete(sha256)
                raise CarRefused(
                    "sha256_mismatch",
                    f"what arrived hashes to {found[:12]}, not to {sha256[:12]}",
                    cause="the file changed while it was sent",
                    next_step="send it again",
                )
            keep = False
            try:
                yield self._path(sha256)
            except CarRefused as refused:
                keep = refused.reason in KEPT_AFTER
                raise
            finally:
                if not keep:
                    self._delete(sha256)

    def spool(self) -> IO[bytes]:
        """A new file for an upload in one piece, beside the others; it is gone when it is closed. It has a `name`.

        Raises:
            CarRefused: storage.
        """
        with _storage():
            make_folders(self.folder)
            return cast(IO[bytes], tempfile.NamedTemporaryFile(dir=self.folder, prefix=_SPOOL_PREFIX))

    @contextlib.contextmanager
    def _writing(self, sha256: str) -> Iterator[None]:
        with self._lock:
            if sha256 in self._busy or len(self._busy) >= MAX_WRITERS:
                raise CarRefused("busy", "this upload, or too many others, are being written to", next_step="try again")
            self._busy.add(sha256)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(sha256)

    def _make_room(self, sha256: str) -> None:
        """Only the newest few uploads are kept. The order of the times is enough: a car does not know the date."""
        others = [path for path in self.folder.glob("*.part") if path.stem != sha256]
        others.sort(key=lambda path: path.stat().st_mtime_ns)
        with self._lock:
            idle = [path for path in others if path.stem not in self._busy]
        for path in idle[: max(0, len(others) - MAX_UPLOADS + 1)]:
            self._delete(path.stem)

    def _delete(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)
        self._size_path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.part"

    def _size_path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.size"


# What may be over in a minute: the file need not be sent again.
KEPT_AFTER = ("armed", "busy", "storage", "no_answer")


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CarRefused(
            "storage",
            f"the upload cannot be stored: {error.strerror or error}",
            cause="the disk is full, read-only or failing",
            next_step="delete old models, then try again",
        ) from error


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
