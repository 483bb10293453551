"""The drive log: what was wanted, what was written, and optionally what was seen, in a file that survives a torn write.

A file is a row of records, each ``MARK, length u32, crc32 u32, body`` (little endian); a body is ``t_s f64, header
length u32, header (JSON), raw bytes``. A record that was cut short, or damaged later, fails its checksum; the reader
says so and goes on at the next mark that begins a good record. So a writer may append after any kind of death.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vehicle.errors import ConfigError

MARK = b"\xa5hotlap\x01"  # 0xa5 occurs in no ASCII text; the last byte is the version of the format
_HEAD = struct.Struct("<II")
_BODY = struct.Struct("<dI")
MAX_RECORD_BYTES = 4 << 20
_WRITE_EVERY_S = 0.05  # what a SIGKILL may cost
_SYNC_WRITES = 40  # fdatasync every 2 s: what a power cut may cost


@dataclass(frozen=True)
class Record:
    """`kind` is "intent", "output", "state", "request" or "frame"; `raw` is a frame's bytes, else empty."""

    t_s: float
    kind: str
    fields: dict[str, Any]
    raw: bytes = b""


@dataclass(frozen=True)
class Damage:
    """Bytes of a file that are no good record: where, how many, and in what way."""

    file: str
    offset: int
    length: int
    fault: str


@dataclass
class DriveLogContents:
    """What `read_drive_log` found, the oldest record first."""

    records: list[Record] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


def encode_record(record: Record) -> bytes:
    """The bytes of one record.

    Raises:
        ValueError: longer than 4 MiB.
    """
    header = json.dumps({"kind": record.kind, **record.fields}, separators=(",", ":"), default=str).encode()
    body = _BODY.pack(record.t_s, len(header)) + header + record.raw
    if len(body) > MAX_RECORD_BYTES:
        raise ValueError(f"a record of {len(body)} bytes (allowed: {MAX_RECORD_BYTES})")
    return MARK + _HEAD.pack(len(body), zlib.crc32(body)) + body


class DriveLog:
    """Appends records from a thread of its own; `put` never waits for the disk and never raises.

    At `max_bytes` / 2 the file becomes ``PATH.1`` (the one before it is lost) and a new one begins.

    Args:
        path: the file; its folder is made where it is missing.
        max_bytes: of both files together.
        queue_bytes: what may wait for a slow disk, about; more is lost, and counted.

    Raises:
        ConfigError: the file cannot be opened for appending.
    """

    def __init__(self, path: Path, max_bytes: int = 64 << 20, queue_bytes: int = 4 << 20) -> None:
        self.path, self._max_bytes = path, max_bytes // 2
        self.lost = 0
        self._error: str | None = None
        self._queue: deque[Record] = deque(maxlen=10_000)
        self._queued_bytes, self._written_bytes, self._queue_bytes = 0, 0, queue_bytes
        self._unsynced = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
        except OSError as error:
            raise ConfigError(
                f"the drive log {path} cannot be opened: {error.strerror or error}",
                cause="its folder cannot be made, or this user may not write there",
                next_step=f"mkdir -p {path.parent}, or set state_dir in car.toml",
            ) from error
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drive-log", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str | None:
        """What is wrong now: the disk is full, the thread has died, or records had to be dropped. None: all is well."""
        if not self._thread.is_alive() and not self._end.is_set():
            return f"{self.path}: its writer has died"
        return self._error

    def put(self, t_s: float, kind: str, fields: Mapping[str, Any], raw: bytes = b"") -> None:
        """Hand over a record; `fields` must not change afterwards. Returns at once, whatever the disk does.

        Args:
            t_s: of time.monotonic.
        """
        size = len(raw) + 256
        full = self._queued_bytes - self._written_bytes + size > self._queue_bytes
        if full or len(self._queue) == self._queue.maxlen:
            self.lost += 1
            self._error = f"{self.path}: the disk is too slow, {self.lost} records were lost"
            return
        self._queued_bytes += size
        self._queue.append(Record(t_s, kind, dict(fields), raw))

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, sync and close; a disk that hangs for longer is left to the end of the process."""
        self._end.set()
        self._thread.join(timeout_s)

    # --- the thread

    def _run(self) -> None:
        try:
            ending = False
            while not ending:
                ending = self._end.wait(_WRITE_EVERY_S)
                self._write_waiting(ending)
        finally:
            os.close(self._fd)

    def _write_waiting(self, sync: bool) -> None:
        records = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            if records:
                self._append([_encoded(record) for record in records])
                self._error = None
            self._unsynced += 1
            if sync or self._unsynced >= _SYNC_WRITES:
                self._unsynced = 0
                os.fdatasync(self._fd)
        except OSError as error:
            self.lost += len(records)
            self._error = f"{self.path}: {error.strerror or error}"
        finally:
            self._written_bytes += sum(len(record.raw) + 256 for record in records)

    def _append(self, encoded: list[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for data in encoded:
            if self._size + size and self._size + size + len(data) > self._max_bytes:
                self._write(b"".join(batch))
                self._rotate()
                batch, size = [], 0
            batch.append(data)
            size += len(data)
        self._write(b"".join(batch))

    def _write(self, data: bytes) -> None:
        # A write that is cut short leaves a torn record, which the reader skips; the next one begins with a mark.
        written = os.write(self._fd, data)
        self._size += written
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # an earlier try got no further than this line
            os.replace(self.path, older(self.path))
        old = self._fd
        self._fd = self._open()
        os.close(old)

    def _open(self) -> int:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(fd).st_size
        return fd


def _encoded(record: Record) -> bytes:
    try:
        return encode_record(record)
    except (ValueError, TypeError) as error:  # one record that cannot be written must not cost the others
        return encode_record(Record(record.t_s, "unwritable", {"was": record.kind[:64], "error": str(error)[:200]}))


def older(path: Path) -> Path:
    """The file that was full before this one."""
    return path.with_name(path.name + ".1")


def read_drive_log(path: Path) -> DriveLogContents:
    """Read a log, the older file first; damage is reported, never raised.

    Raises:
        ConfigError: there is no such file, or it cannot be read at all.
    """
    contents = DriveLogContents()
    files = [file for file in (older(path), path) if file.exists()]
    if not files:
        raise ConfigError(f"there is no drive log {path}", next_step=f"ls {path.parent}")
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"the drive log {file} cannot be read: {error.strerror or error}") from error
        scan(data, str(file), contents)
    return contents


def scan(data: bytes, file: str, contents: DriveLogContents) -> None:
    """Add what ``data``, any stretch of a log, holds to ``contents``: records, and where it is damaged."""
    at = 0
    while at < len(data):
        found = _record_at(data, at)
        if isinstance(found, tuple):
            record, at = found
            contents.records.append(record)
            continue
        following = data.find(MARK, at + 1)
        while following >= 0 and isinstance(_record_at(data, following), str):
            following = data.find(MARK, following + 1)
        end = following if following >= 0 else len(data)
        contents.damage.append(Damage(file, at, end - at, found))
        at = end


def _record_at(data: bytes, at: int) -> tuple[Record, int] | str:
    """The record that begins there and where the next one does, or why there is none."""
    head = at + len(MARK)
    begin = head + _HEAD.size
    if data[at:head] != MARK:
        return "torn" if MARK.startswith(data[at:head]) else "no_mark"
    if begin > len(data):
        return "torn"
    length, checksum = _HEAD.unpack_from(data, head)
    end = begin + length
    if not _BODY.size <= length <= MAX_RECORD_BYTES:
        return "bad_length"
    if end > len(data):
        return "torn"
    body = data[begin:end]
    if zlib.crc32(body) != checksum:
        return "bad_checksum"
    t_s, size = _BODY.unpack_from(body)
    try:
        fields = json.loads(body[_BODY.size : _BODY.size + size])
        kind = fields.pop("kind")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return "bad_header"
    return Record(t_s, str(kind), fields, body[_BODY.size + size :]), end
