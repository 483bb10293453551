"""The drive log in words, as the console's Health page lists it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

from vehicle.drive_log import DriveLogContents, Record, scan

TAIL_BYTES = 512 * 1024  # of the drive log: some minutes of driving
KEPT_LINES = 2000


class LogTail:
    """The end of a drive log that grows: each call reads only what was written since the one before.

    Any thread may ask. A log that was rotated or emptied is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines: deque[tuple[float, str]] = deque(maxlen=KEPT_LINES)
        self._file: int | None = None  # its inode
        self._read_to = 0

    def lines(self, wanted: int) -> list[str]:
        """The last lines, the newest last; ages are of now."""
        with self._lock:
            with contextlib.suppress(OSError), open(self._path, "rb") as file:
                self._read_on(file)
            lines = list(self._lines)[-wanted:]
        now_s = time.monotonic()
        return [f"{_when(now_s - t_s)}  {words}" for t_s, words in lines]

    def _read_on(self, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        if found.st_ino != self._file or found.st_size < self._read_to:
            self._file, self._read_to = found.st_ino, 0
            self._lines.clear()
        self._read_to = max(self._read_to, found.st_size - TAIL_BYTES)
        file.seek(self._read_to)
        data = file.read(TAIL_BYTES)
        contents = DriveLogContents()
        scan(data, self._path.name, contents)
        self._read_to += len(data)
        if contents.damage and contents.damage[-1].fault == "torn":  # a record that is being written
            self._read_to -= contents.damage[-1].length
        for record in contents.records:
            words = _words(record)
            if words and not (self._lines and self._lines[-1][1] == words):
                self._lines.append((record.t_s, words))


def _when(age_s: float) -> str:
    return f"{age_s:9.1f} s ago" if age_s >= 0.0 else "before the start"  # of the computer


def _words(record: Record) -> str:
    fields = record.fields
    if record.kind == "state":
        blocked = ", ".join(one["reason"] for one in fields.get("blocked") or [] if isinstance(one, dict))
        fault = fields.get("fault") or {}
        return f"state    {fields.get('mode')}" + (f", fault {fault.get('name')}" if fault else "") + (
            f" (blocked: {blocked})" if blocked else ""
        )  # fmt: skip
    if record.kind == "request":
        asked = fields.get("request") or {}
        if not isinstance(asked, dict) or (asked.get("op") in ("manual", "pulse") and fields.get("ok")):
            return ""
        rest = {key: value for key, value in asked.items() if key != "op"}
        refused = "" if fields.get("ok") else f" refused: {fields.get('reason')}"
        return f"request  {asked.get('op')} {json.dumps(rest) if rest else ''}".rstrip() + refused
    if record.kind == "intent":
        return f"intent   refused: {fields['fault']}" if fields.get("fault") else ""
    if record.kind == "output":
        return f"output   {fields.get('cause')}" + (f", error {fields['error']}" if fields.get("error") else "")
    return ""
