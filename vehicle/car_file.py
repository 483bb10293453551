"""``car.toml`` from the Settings page: shown without passwords, and changed in what a teacher may change from a phone.

Camera mounting and driving limits may be changed; what decides which wires move, where files go and which programs are
started may not: that takes somebody at the car. Nothing changes a drive that goes on: the processes read it when they
start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration.car_link import CarRefused
from calibration.durable import write_durably
from vehicle.calibrate_save import Ask, refuse_unless_disarmed
from vehicle.car_config import CarConfig
from vehicle.config import parse_toml, to_toml
from vehicle.errors import ConfigError

MAX_BYTES = 64 * 1024
# A camera's source may be a pipeline that writes files or starts programs; its kind decides how the source is read.
FREE = ("camera.", "drive.")
LOCKED = ("camera.kind", "camera.source")
_SECRET = re.compile(r"(?<=://)[^/\s\"']*(?=@)")
_HIDDEN = "..."


def without_passwords(text: str) -> str:
    """The text with the user and password of each address left out."""
    return _SECRET.sub(_HIDDEN, text)


def with_passwords(text: str, before: str) -> str:
    """What `without_passwords` left out of `before` put back into a changed text, in its order."""
    secrets = iter(_SECRET.findall(before))
    return _SECRET.sub(lambda found: next(secrets, _HIDDEN) if found[0] == _HIDDEN else found[0], text)


class CarFile:
    """The file that this console was started with; for several threads.

    Args:
        path: None: there is none, it is the simulated car.
        running: what the console read from it when it started.
        runtime: `hotlap drive` writes a file of its own in there for every drive.
        ask: requests to the gate.
    """

    def __init__(
        self,
        path: Path | None,
        running: CarConfig,
        runtime: Path,
        ask: Ask,
    ) -> None:
        self._path, self._running, self._ask = path, running, ask
        self._of_a_drive = path is not None and path.resolve().parent == runtime.resolve()
        self._lock = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """{"path", "text", "sha256", "editable", "why_not", "how", "pending", "undo", "keys"}; text without passwords.

        "pending": it is not what the car was started with. "keys": every key that there is, with its meaning.
        """
        text, why_not = None, self._why_not()
        try:
            text = self._read()
        except CarRefused as refused:
            why_not = why_not or refused.what
        return {
            "path": None if self._path is None else str(self._path),
            "text": None if text is None else without_passwords(text),
            "sha256": None if text is None else _sha256(text),
            "editable": not why_not,
            "why_not": why_not,
            "how": self._how(),
            "pending": text is not None and self._pending(text),
            "undo": self._path is not None and os.path.isfile(self._before_path()),
            "keys": without_passwords(to_toml(self._running)),
        }

    def change(self, text: str, sha256: str) -> None:
        """Put another text in its place; the one before is kept beside it.

        Args:
            sha256: of the text that this one was made from.

        Raises:
            CarRefused: bad_car_file, locked_key, changed, not_editable, not_disarmed, storage.
        """
        with self._lock:
            self._refuse_unless_editable()
            before = self._read()
            if _sha256(before) != sha256:
                raise CarRefused(
                    "changed",
                    "the file was changed by somebody else meanwhile",
                    next_step="load the page again, then make your change again",
                )
            after = with_passwords(text.replace("\r\n", "\n"), before)
            self._refuse_locked(self._parsed(after), self._parsed_or_running(before))
            self._write(after, before)

    def undo(self) -> None:
        """The text before is in its place again, and this one kept: a second time is a redo.

        Raises:
            CarRefused: nothing_before, or as `change`.
        """
        with self._lock:
            self._refuse_unless_editable()
            try:
                after = self._before_path().read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                raise CarRefused("nothing_before", "nothing was changed on this page yet") from None
            before = self._read()
            self._refuse_locked(self._parsed(after), self._parsed_or_running(before))
            self._write(after, before)

    # --- pieces

    def _why_not(self) -> str:
        """Why it cannot be changed here, or ""."""
        if self._path is None:
            return "the simulated car has no file"
        if self._of_a_drive:
            return "hotlap drive has written this file for this one drive"
        if not (os.path.isfile(self._path) and os.access(self._path.parent, os.W_OK)):  # it is replaced
            return "the console may not write it"
        return ""

    def _how(self) -> str:
        """How somebody at the car changes it."""
        if self._path is None or self._of_a_drive:
            return "hotlap drive --config car.toml takes a file of yours"
        return f"sudo nano {self._path}, then sudo systemctl restart hotlap.target"

    def _before_path(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.before")

    def _read(self) -> str:
        if self._path is None:
            raise CarRefused("not_editable", "the simulated car has no file")
        try:
            text = self._path.read_text("utf-8")
            if len(text) > MAX_BYTES:
                raise OverflowError(f"more than {MAX_BYTES} characters")
            return text
        except (OSError, UnicodeDecodeError, OverflowError) as error:
            raise CarRefused("storage", f"car.toml cannot be read: {error}", next_step=self._how()) from error

    def _pending(self, text: str) -> bool:
        try:
            return parse_toml(text, CarConfig, where="car.toml") != self._running
        except ConfigError:
            return True

    def _refuse_unless_editable(self) -> None:
        why_not = self._why_not()
        if why_not:
            raise CarRefused("not_editable", f"car.toml cannot be changed here: {why_not}", next_step=self._how())
        refuse_unless_disarmed(
            self._ask, "the car's file changes only while nothing can move", "end driving, then save again"
        )

    def _parsed(self, text: str) -> CarConfig:
        if len(text.encode()) > MAX_BYTES:
            raise CarRefused("too_large", f"car.toml may have {MAX_BYTES} bytes")
        try:
            return parse_toml(text, CarConfig, where="car.toml")
        except ConfigError as error:
            raise CarRefused("bad_car_file", error.what, cause=error.cause, next_step=error.next_step) from error

    def _parsed_or_running(self, text: str) -> CarConfig:
        """A file that somebody has broken by hand may be mended here, back to what the car runs with."""
        try:
            return parse_toml(text, CarConfig, where="car.toml")
        except ConfigError:
            return self._running

    def _refuse_locked(self, after: CarConfig, before: CarConfig) -> None:
        old = dict(_flat(before))
        for key, value in _flat(after):
            free = key.startswith(FREE) and key not in LOCKED
            if value != old[key] and not free:
                raise CarRefused(
                    "locked_key",
                    f"{key} is not changed from a page",
                    cause="it decides which wires move, where files go or which programs run",
                    next_step=f"put it back as it was; at the car itself: {self._how()}",
                )

    def _write(self, after: str, before: str) -> None:
        assert self._path is not None
        try:
            mode = self._path.stat().st_mode & 0o777
            write_durably(self._before_path(), before.encode(), mode=mode)
            write_durably(self._path, after.encode(), mode=mode)
        except OSError as error:
            raise CarRefused("storage", f"car.toml cannot be written: {error.strerror or error}") from error


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """("camera.width", 640), ... of a configuration."""
    for field in dataclasses.fields(value):
        one = getattr(value, field.name)
        if dataclasses.is_dataclass(one):
            yield from _flat(one, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", one


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
