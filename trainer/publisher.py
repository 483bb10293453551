"""A thread that keeps a store up to date with a run folder, and never keeps the training waiting.

The training says when it has saved something. That moment is kept as hard links, which costs some
milliseconds: every file of a run is replaced, or grows. Of moments that wait only the newest is published. A store
that is down, slow or full is tried again, less and less often; meanwhile the training goes on.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.store import FileState, Writer, file_state, files_of
from vehicle.errors import StoreError
from vehicle.store import Manifest, Store

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
END_WAIT_S = 30.0
_CLOSING_PAUSE_S = 1.0  # at the end nobody wants to wait for the long pauses
_JOIN_S = 10.0
_FOLDER = ".store"  # of the run folder: moments that are being published


class Publisher:
    """Publishes a run folder from now on. To be closed."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store
        self._writer = Writer(folder, store)
        self._changed = threading.Condition()
        self._waiting: Path | None = None  # a moment that nobody has begun to publish
        self._number = 0
        self._working = self._closing = self._final = False
        self._told = self._unpruned = False
        self._published: dict[str, FileState] = {}
        self._manifest: Manifest | None = None
        self.error: StoreError | None = None  # of the last try
        self.result: dict[str, object] = {}  # once it is closed
        shutil.rmtree(folder / _FOLDER, ignore_errors=True)  # of a process that was killed
        self._thread = threading.Thread(target=self._run, name="store-publisher", daemon=True)
        self._thread.start()

    def saved(self) -> None:
        """The run folder holds something new, as it stands at this moment."""
        moment = self._folder / _FOLDER / f"{self._number:08d}"
        self._number += 1
        try:
            for name, path in files_of(self._folder).items():
                link = moment / name
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link)
        except OSError as error:
            shutil.rmtree(moment, ignore_errors=True)
            self._failed(StoreError("refused", f"{self._folder} is not published: {error.strerror or error}"))
            return
        with self._changed:
            older, self._waiting = self._waiting, moment
            self._changed.notify_all()
        if older is not None:
            shutil.rmtree(older, ignore_errors=True)

    def close(self, wait_s: float = END_WAIT_S) -> None:
        """Publish the end, wait for it so long, and say what the store has.

        ``result`` is then ``address``; ``published``, the version of this run that the store shows, or null;
        ``behind``, the files that it does not have as they are here; ``error``, why, or null.
        """
        self.saved()
        try:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
                if self.error is not None and wait_s and not self._final:
                    self._say(f"is waited for, {wait_s:g} s at most")
                self._changed.wait_for(self._done, wait_s)
        finally:
            with self._changed:
                self._final = True
                self._changed.notify_all()
            self._store.backend.abandon()
            self._thread.join(_JOIN_S)
            shutil.rmtree(self._folder / _FOLDER, ignore_errors=True)
        now = _states(files_of(self._folder))
        behind = sorted(name for name in now if self._published.get(name) != now[name])
        error = str(self.error.what) if self.error is not None else None
        if behind and error is None:
            error = f"not done within {wait_s:g} s"
        self.result = {
            "address": self._store.address,
            "published": None if self._manifest is None else self._manifest.version,
            "behind": behind,
            "error": error if behind else None,
        }
        if behind:
            again = f"hotlap train --resume --out {self._folder} --store {self._store.address}"
            self._say(f"does not have {', '.join(behind)} as they are here: {error}; next: {again}")

    def _done(self) -> bool:
        return self._final or self._waiting is None and not self._working

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while (moment := self._next()) is not None:
            try:
                self._publish(moment)
                pause_s = FIRST_PAUSE_S
            except StoreError as error:
                if error.fault == "abandoned":
                    return
                self._failed(error)
                if error.fault == "occupied" or not self._again(moment, pause_s):
                    self._finish()
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the thread's outermost frame: whoever closes it is told
                self._failed(StoreError("refused", f"publishing has failed: {type(error).__name__}: {error}"))
                self._finish()
                return

    def _next(self) -> Path | None:
        """The newest moment; None at the end."""
        with self._changed:
            self._working = False
            self._changed.notify_all()
            while self._waiting is None:
                if self._final or self._closing:
                    return None
                self._changed.wait()
            if self._final:
                return None
            moment, self._waiting, self._working = self._waiting, None, True
            return moment

    def _again(self, moment: Path, pause_s: float) -> bool:
        """After a failure: wait, and put the moment back unless there is a newer one. False at the end."""
        with self._changed:
            begun_s = time.monotonic()
            while not self._final:
                left_s = begun_s + (min(pause_s, _CLOSING_PAUSE_S) if self._closing else pause_s) - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if self._waiting is None:
                self._waiting = moment
            else:
                shutil.rmtree(moment, ignore_errors=True)
            return not self._final

    def _finish(self) -> None:
        with self._changed:
            self._final, self._working = True, False
            self._changed.notify_all()

    def _publish(self, moment: Path) -> None:
        files = files_of(moment)
        self._manifest = self._writer.publish(files)
        self._published = _states(files)
        try:
            self._writer.prune()
        except StoreError as error:
            if error.fault == "abandoned":
                raise
            if not self._unpruned:
                self._say(f"keeps old versions: {error.what}")
            self._unpruned = True  # tried again after each publication, told once
        shutil.rmtree(moment, ignore_errors=True)
        if self.error is not None:
            self.error = None
            self._say(f"is up to date again (version {self._manifest.version})")
            self._told = False

    def _failed(self, error: StoreError) -> None:
        """Note it, and tell people once until it is over."""
        self.error = error
        if not self._told and error.fault != "abandoned":
            self._told = True
            again = "" if error.fault == "occupied" else " and it is tried again"
            hint = f"; next: {error.next_step}" if error.next_step else ""
            self._say(f"is behind: {error.what}; the training goes on{again}{hint}")

    def _say(self, text: str) -> None:
        print(f"hotlap: the store {self._store.address} {text}", file=sys.stderr, flush=True)


@contextmanager
def published(folder: Path, store: Store | None) -> Iterator[Publisher | None]:
    """A publisher for the block, None where there is no store. What is interrupted is not waited for."""
    if store is None:
        yield None
        return
    publisher = Publisher(folder, store)
    try:
        yield publisher
    except KeyboardInterrupt:
        publisher.close(0.0)
        raise
    except BaseException:
        publisher.close()
        raise
    publisher.close()


def _states(files: dict[str, Path]) -> dict[str, FileState]:
    return {name: file_state(path) for name, path in files.items()}
