"""The run's metrics as TensorBoard's scalars: ``tensorboard --logdir RUN``.

    RUN/tensorboard/events.out.tfevents.*     a file for each session of the run

Written here, since scalars are one small message in one record format, and either library is slow to load:
tensorboardX brings boto3 in with it, torch.utils.tensorboard needs all of tensorboard. Formats: TensorFlow's
``tfrecord`` (lengths and contents with masked CRC-32C, RFC 3720) and ``event.proto``, ``summary.proto``.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

TAGS = {
    "reward": "episode/reward", "reward_low": "episode/reward_lowest", "reward_high": "episode/reward_highest",
    "progress": "episode/progress_percent", "completion": "episode/completion", "lap_s": "episode/lap_s",
    "loss": "loss/total", "policy_loss": "loss/policy", "value_loss": "loss/value",
    "entropy": "policy/entropy", "kl": "policy/kl", "clipped": "policy/clipped",
    "eval_completion": "evaluation/completion", "eval_lap_s": "evaluation/lap_s",
    "steps_per_s": "system/steps_per_s", "cpu_percent": "system/cpu_percent", "memory_mb": "system/memory_mb",
}  # fmt: skip
_SESSION_START = 1


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C as records carry it: rotated and shifted, so that a CRC of data that holds CRCs is sound."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """A message with its length, and the checksums of both."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _event(what: bytes, step: int = 0) -> bytes:
    wall_time = b"\x09" + struct.pack("<d", time.time())
    return wall_time + (b"\x10" + _varint(step) if step else b"") + what


def _scalar(tag: str, value: float) -> bytes:
    return _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value))


class TensorboardLog:
    """One session's file. A log that cannot be written ends; the training goes on.

    Args:
        run: the run folder.
        from_step: what earlier sessions wrote beyond it is driven again, and TensorBoard leaves it out.
    """

    def __init__(self, run: Path, from_step: int = 0) -> None:
        self._file: BinaryIO | None = None
        folder = run / "tensorboard"
        # TensorBoard reads a run's files in the order of their names; two sessions may begin within a second.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            folder.mkdir(exist_ok=True)
            self._file = open(folder / name, "wb", buffering=0)  # noqa: SIM115 - open for as long as the run
        except OSError as error:
            self._fail(error)
        self._write(_event(_bytes(3, b"brain.Event:2")))
        if from_step:
            self._write(_event(_bytes(7, b"\x08" + _varint(_SESSION_START)), from_step + 1))

    def add(self, row: dict[str, float]) -> None:
        """The finite figures of a row of metrics."""
        scalars = [_scalar(tag, row[name]) for name, tag in TAGS.items() if math.isfinite(row.get(name, math.nan))]
        self._write(_event(_bytes(5, b"".join(scalars)), int(row["steps"])))

    def _write(self, event: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(record(event))
        except (OSError, OverflowError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.close()
        print(f"hotlap: TensorBoard's file ends here, the training goes on: {error}", file=sys.stderr)

    def close(self) -> None:
        """No more of it."""
        if self._file is not None:
            self._file.close()
            self._file = None
