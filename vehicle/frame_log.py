"""What the policy saw and what it made of it: the pilot's own drive log, written where ``drive.log_frames`` says so.

It lies beside the gate's (``STATE_DIR/logs/frames.log`` beside ``drive.log``), since two processes must not append to
one file that is renamed when it is full. A record is an observation as the policy got it, 120 x 160 gray bytes, so a
replay needs neither the camera nor its resizing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vehicle.car_config import CarConfig
from vehicle.drive_log import Damage, DriveLog, Record, read_drive_log
from vehicle.errors import ConfigError
from vehicle.messages import Intent
from vehicle.observation import SHAPE

NAME = "frames.log"
KIND = "frame"
MAX_BYTES = 128 << 20  # 5 to 11 minutes at 10 Hz; a reader has all of it in memory
BAD_FRAME = "bad_frame"  # a whole record, but not of a frame
_SIZE = math.prod(SHAPE)
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "seq": int, "stamp_s": (int, float), "intent_seq": int,
    "steering_deg": (int, float), "speed_mps": (int, float), "model": str,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """One recorded tick.

    Args:
        t_s: when the pilot looked at the picture, of its time.monotonic.
        seq: of the camera's picture; begins again with every start of the pilot.
        stamp_s: of the picture.
        observation: uint8 (120, 160, 1).
        intent_seq: of the intent that was sent, the same as in the gate's log.
        steering_deg, speed_mps: what it asked for; + is left.
        model: sha256 of the bundle that gave it.
    """

    t_s: float
    seq: int
    stamp_s: float
    observation: npt.NDArray[np.uint8]
    intent_seq: int
    steering_deg: float
    speed_mps: float
    model: str


def frame_log_path(config: CarConfig) -> Path:
    """Where the pilot of this car writes; the file may not exist."""
    return config.state_path() / "logs" / NAME


def open_frame_log(config: CarConfig) -> DriveLog | None:
    """The log to write to, or None where the configuration does not want one.

    Raises:
        ConfigError: it cannot be opened for appending.
    """
    return DriveLog(frame_log_path(config), MAX_BYTES) if config.drive.log_frames else None


def put_frame(log: DriveLog, t_s: float, observation: npt.NDArray[np.uint8], intent: Intent) -> None:
    """Hand over what led to an intent. Returns at once, whatever the disk does.

    Args:
        t_s: when the picture was looked at.
        observation: uint8 (120, 160, 1).
    """
    fields = {
        "seq": intent.frame_seq,
        "stamp_s": intent.frame_stamp_s,
        "intent_seq": intent.seq,
        "steering_deg": intent.steering_deg,
        "speed_mps": intent.speed_mps,
        "model": intent.model,
    }
    log.put(t_s, KIND, fields, observation.tobytes())


def log_facts(log: DriveLog | None) -> dict[str, Any] | None:
    """For the pilot's status; None where no frames are kept."""
    return None if log is None else {"path": str(log.path), "error": log.error, "lost": log.lost}


def read_frames(path: Path) -> tuple[list[SeenFrame], list[Damage]]:
    """The recorded frames of a drive log, the oldest first, and what of the file is damaged. Other records are skipped.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    contents = read_drive_log(path)
    frames: list[SeenFrame] = []
    damage = list(contents.damage)
    for record in contents.records:
        if record.kind != KIND:
            continue
        frame = _frame(record)
        if frame is None:
            damage.append(Damage(str(path), -1, len(record.raw), BAD_FRAME))  # a record does not know its place
        else:
            frames.append(frame)
    return frames, damage


def find_frames(path: Path) -> tuple[Path, list[SeenFrame], list[Damage]]:
    """`read_frames` of a log, or of the ``frames.log`` beside it where it has none, or in it where it is a folder.

    Returns:
        the log that has them, at least one frame, and the damage.

    Raises:
        ConfigError: there is no such file, or no frame in it.
    """
    asked = path / NAME if path.is_dir() else path
    damage: list[Damage] = []
    for file in dict.fromkeys((asked, asked.with_name(NAME))):
        if file is not asked and not file.exists():
            continue
        frames, damage = read_frames(file)
        if frames:
            return file, frames, damage
    torn = f"; {len(damage)} places in it are damaged" if damage else ""
    raise ConfigError(
        f"there is no recorded frame in {asked}{torn}",
        cause="frames are kept only where the car's configuration asks for it: they take 11 MB a minute",
        next_step=f"set drive.log_frames = true in car.toml ([drive] log_frames = true), drive, replay "
        f"{asked.with_name(NAME)}",
    )


def _frame(record: Record) -> SeenFrame | None:
    """The frame of a record, or None where it is none."""
    found = record.fields
    for name, kind in _FIELDS.items():
        value = found.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            return None
    if len(record.raw) != _SIZE:
        return None
    observation = np.frombuffer(record.raw, dtype=np.uint8).reshape(SHAPE)
    return SeenFrame(
        record.t_s, found["seq"], float(found["stamp_s"]), observation, found["intent_seq"],
        float(found["steering_deg"]), float(found["speed_mps"]), found["model"],
    )  # fmt: skip
