"""The calibration file, kept whole through power cuts, and the last twenty that were saved.

``PATH`` is the calibration in force. ``PATH.history/000007.json`` are the saved ones, numbered by a counter, since the
clock of a car without network is wrong; the newest is, byte for byte, the one in force. Each says which one was in
force before it, so that undo after undo goes back step by step, and nothing but age removes one from the history.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from calibration import strict_json
from calibration.document import Document, from_text, to_text
from calibration.durable import (
    TEMPORARY_SUFFIX,
    FileSystem,
    StrPath,
    leftovers,
    lock_folder,
    make_folders,
    write_durably,
)
from calibration.errors import CalibrationError
from calibration.values import Calibration, check_calibration

KEPT = 20
LOCK_WAIT_S = 10.0  # whoever holds it writes two small files
_ENTRY_NAME = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True)
class SavedCalibration:
    """One calibration of the history.

    Args:
        revision: its number.
        previous: the number of the one that was in force before it, or None.
        calibration: None where its file is damaged.
        fault: what is wrong with its file, or "".
    """

    revision: int
    previous: int | None
    calibration: Calibration | None
    fault: str = ""


def load_calibration(path: StrPath) -> Calibration:
    """The calibration in force, checked. Nothing is guessed: without a whole file there is no calibration.

    Raises:
        CalibrationError: no such file, not readable, damaged, or it does not hold together; says how to bring back the
            last one of the history, where there is one.
    """
    where = os.fspath(path)
    try:
        return from_text(_read(Path(path)), where=where).calibration
    except FileNotFoundError as error:
        what, cause = f"there is no calibration at {where}", "this car was never calibrated, or car.toml names another"
        raise CalibrationError(what, cause=cause, next_step=_next_step(Path(path))) from error
    except OSError as error:
        raise CalibrationError(
            f"{where} cannot be read: {error.strerror or error}",
            cause="another user owns it, or the card is failing",
            next_step=f"ls -l {where}",
        ) from error
    except CalibrationError as error:
        next_step = f"{error.next_step}; or {_next_step(Path(path))}"
        raise CalibrationError(error.what, cause=error.cause, next_step=next_step) from error


def save_calibration(path: StrPath, calibration: Calibration, *, fs: FileSystem | None = None) -> None:
    """Put a calibration in force, and in the history. When it returns, it is on the disk.

    After a power cut at any moment the file holds the calibration before or this one, whole. A calibration equal to
    the one in force is written again, and takes no place in the history. Folders are made.

    Raises:
        CalibrationError: `check_calibration` refuses it; the disk is full, read-only or failing (then the file holds
            the one before, or this one); or another process has been saving for `LOCK_WAIT_S`.
    """
    check_calibration(calibration)
    with _changing(Path(path), fs) as store:
        store.save(calibration)


def undo(path: StrPath, *, fs: FileSystem | None = None) -> Calibration:
    """Put the calibration before the one in force in force again, and return it. Undo again goes one further back.

    A file that is damaged or gone is replaced by the newest whole one of the history. One that was put there by hand is
    kept in the history first.

    Raises:
        CalibrationError: there is none before it, it is no longer kept, or its file is damaged; or as
            `save_calibration`.
    """
    target = Path(path)
    if not _history_path(target).is_dir():
        raise _nothing_before(target)
    with _changing(target, fs) as store:
        return store.undo()


def restore(path: StrPath, revision: int, *, fs: FileSystem | None = None) -> Calibration:
    """Put a calibration of the history in force, and return it; `undo` takes that back.

    Raises:
        CalibrationError: there is no such one, or its file is damaged; or as `save_calibration`.
    """
    saved = _read_entry(Path(path), revision)
    save_calibration(path, saved.calibration, fs=fs)
    return saved.calibration


def history(path: StrPath) -> tuple[SavedCalibration, ...]:
    """The saved calibrations, the newest first; at most `KEPT`, damaged ones with their fault."""
    target, found = Path(path), []
    for revision in reversed(_revisions(target)[-KEPT:]):
        try:
            saved = _read_entry(target, revision)
            found.append(SavedCalibration(revision, saved.previous, saved.calibration))
        except CalibrationError as error:
            found.append(SavedCalibration(revision, None, None, error.what))
    return tuple(found)


class _Store:
    """The folder while its lock is held."""

    def __init__(self, path: Path, fs: FileSystem) -> None:
        self._path, self._fs = path, fs

    def save(self, calibration: Calibration) -> None:
        text, current = self._in_force()
        if current is not None and current.calibration == calibration:
            write_durably(self._path, text, fs=self._fs)  # the last time may have failed before it was synced
        else:
            self._append(calibration, self._settle(text, current))

    def undo(self) -> Calibration:
        text, current = self._in_force()
        number = None if current is None else self._number_of(text, current)
        wanted = self._newest_whole() if number is None else _read_entry(self._path, number).previous
        if wanted is None:
            raise _nothing_before(self._path)
        saved = _read_entry(self._path, wanted)
        if current is None:
            write_durably(self._path, _read(_entry_path(self._path, wanted)), fs=self._fs)
        else:
            self._settle(text, current)
            self._append(saved.calibration, saved.previous)
        return saved.calibration

    def _settle(self, text: bytes, current: Document | None) -> int | None:
        """The number, in the history, of the calibration in force; one that was put there by hand is entered first.
        For a damaged or missing file, of the newest whole one, or None."""
        if current is None:
            return self._newest_whole()
        number = self._number_of(text, current)
        if number is None:
            number = self._next_number()
            self._enter(current.calibration, number, self._newest_whole())
        return number

    def _append(self, calibration: Calibration, previous: int | None) -> None:
        """A new entry, then the same bytes in force; then what is too old goes."""
        number = self._next_number()
        try:
            text = self._enter(calibration, number, previous)
            write_durably(self._path, text, fs=self._fs)
        except OSError:
            # It was never in force, or not for sure, so no later undo may find it.
            with contextlib.suppress(OSError):
                self._fs.unlink(_entry_path(self._path, number))
            raise
        self._tidy()

    def _in_force(self) -> tuple[bytes, Document | None]:
        """The file in force and what it says; None where it is damaged or missing."""
        try:
            text = _read(self._path)
            return text, from_text(text, where=str(self._path))
        except (FileNotFoundError, CalibrationError):
            return b"", None

    def _number_of(self, text: bytes, current: Document) -> int | None:
        """The entry that is in force: the one with the same bytes, else the newest whole one if it says the same."""
        for revision in reversed(_revisions(self._path)):
            if _read(_entry_path(self._path, revision)) == text:
                return revision
        newest = self._newest_whole()
        same = newest is not None and _read_entry(self._path, newest).calibration == current.calibration
        return newest if same else None

    def _newest_whole(self) -> int | None:
        for revision in reversed(_revisions(self._path)):
            with contextlib.suppress(CalibrationError):
                _read_entry(self._path, revision)
                return revision
        return None

    def _next_number(self) -> int:
        return max(_revisions(self._path), default=0) + 1

    def _enter(self, calibration: Calibration, number: int, previous: int | None) -> bytes:
        """Write a new entry; its bytes."""
        text = to_text(Document(calibration, number, previous)).encode()
        write_durably(_entry_path(self._path, number), text, fs=self._fs)
        return text

    def _tidy(self) -> None:
        """Delete old entries and what power cuts left. The calibration is saved by now: failing here is no failure."""
        with contextlib.suppress(OSError):
            for revision in _revisions(self._path)[:-KEPT]:
                self._fs.unlink(_entry_path(self._path, revision))
            folder = _history_path(self._path)
            halfway = [folder / name for name in os.listdir(folder) if name.endswith(TEMPORARY_SUFFIX)]
            for leftover in (*leftovers(self._path), *sorted(halfway)):
                self._fs.unlink(leftover)


@contextlib.contextmanager
def _changing(path: Path, fs: FileSystem | None) -> Iterator[_Store]:
    """The store with its lock held; an OSError becomes a CalibrationError."""
    fs = fs or FileSystem()
    try:
        make_folders(_history_path(path), fs=fs)
        with _locked(_history_path(path)):
            yield _Store(path, fs)
    except OSError as error:
        raise CalibrationError(
            f"{path} could not be saved: {error.strerror or error}",
            cause="the disk is full, read-only or failing, or the folder belongs to another user",
            next_step=f"df -h {path.parent}, then save again; the file holds the calibration before or this one, whole",
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The advisory lock on the history folder; the kernel frees it when its holder dies."""
    descriptor = lock_folder(folder, LOCK_WAIT_S)
    if descriptor is None:
        raise CalibrationError(
            f"another process has been saving in {folder} for {LOCK_WAIT_S:g} s",
            cause="the console and a terminal calibrate at once, or one of them is stopped",
            next_step="finish the other calibration, then save again",
        )
    try:
        yield
    finally:
        os.close(descriptor)


def _history_path(path: Path) -> Path:
    return path.with_name(path.name + ".history")


def _entry_path(path: Path, revision: int) -> Path:
    return _history_path(path) / f"{revision:06d}.json"


def _revisions(path: Path) -> list[int]:
    """The numbers in the history, ascending."""
    try:
        names = os.listdir(_history_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(match[1]) for name in names if (match := _ENTRY_NAME.fullmatch(name)))


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(strict_json.MAX_CHARACTERS + 1)


def _read_entry(path: Path, revision: int) -> Document:
    entry = _entry_path(path, revision)
    try:
        document = from_text(_read(entry), where=str(entry))
    except OSError as error:
        kept = ", ".join(map(str, _revisions(path))) or "none"
        raise CalibrationError(
            f"calibration {revision} cannot be read: {error.strerror or error}",
            cause=f"the last {KEPT} are kept; there are: {kept}",
            next_step="restore one of those, or calibrate again (hotlap calibrate)",
        ) from error
    if document.revision != revision:
        raise CalibrationError(
            f"{entry} says that it is calibration {document.revision}",
            cause="it was copied or renamed by hand",
            next_step="delete it, and copy it in the place of the calibration instead",
        )
    return document


def _nothing_before(path: Path) -> CalibrationError:
    return CalibrationError(
        f"there is no calibration before the one at {path}",
        cause="it is the first one that was saved here, or the history was deleted",
        next_step="hotlap calibrate",
    )


def _next_step(path: Path) -> str:
    """What to do without a whole file in force."""
    with contextlib.suppress(OSError):
        for saved in history(path):
            if saved.calibration is not None:
                copy = shlex.join(["cp", str(_entry_path(path, saved.revision)), str(path)])
                return f"undo, back to the last one saved ({copy}), or calibrate again (hotlap calibrate)"
    return "calibrate this car (hotlap calibrate)"
