"""What the pilot tells the gate: `Intent` and `Alive`, one JSON object a message, decoded strictly.

Decoding judges the form only: bytes that are no such message are a `MessageError` with a named fault. NaN, infinity,
old stamps and angles out of range are well-formed; the gate core refuses those by name (`vehicle.intent_stream`).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from vehicle.errors import VehicleError

MAX_BYTES = 4096  # an intent has about 300
MAX_TEXT = 128
MAX_COUNT = 2**63 - 1
PILOT = "pilot"  # the one source that may drive in autonomous mode

FAULTS = (
    "too_large", "not_json", "not_an_object", "duplicate_key", "unknown_type", "unknown_key", "missing_key",
    "wrong_type", "out_of_range",
)  # fmt: skip


class MessageError(VehicleError, ValueError):
    """Bytes that are no message of the pilot.

    Args:
        fault: one of `FAULTS`.
    """

    def __init__(self, fault: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault}: {what}", cause=cause, next_step=next_step)


@dataclass(frozen=True)
class Intent:
    """What the pilot wants done now.

    `seq` rises by at least one with every intent; stamps are of `time.monotonic`; + degrees are left; `model` is the
    sha256 of the bundle that drives, and `model_max_mps` the greatest speed of its action space.
    """

    source: str
    seq: int
    stamp_s: float
    frame_seq: int
    frame_stamp_s: float
    steering_deg: float
    speed_mps: float
    model_max_mps: float
    inference_ms: float
    model: str


@dataclass(frozen=True)
class Alive:
    """A sign of life between intents, with the newest frame that the pilot has; it moves nothing by itself."""

    source: str
    stamp_s: float
    frame_seq: int
    frame_stamp_s: float


_TYPES: dict[str, type[Intent] | type[Alive]] = {"intent": Intent, "alive": Alive}
# Annotations are text here (`from __future__ import annotations`), and only these three kinds occur.
_KINDS = {cls: {field.name: str(field.type) for field in dataclasses.fields(cls)} for cls in _TYPES.values()}


def encode(message: Intent | Alive) -> bytes:
    """The message as one line of JSON; NaN and infinity are written as Python's json does."""
    name = "intent" if isinstance(message, Intent) else "alive"
    return json.dumps({"type": name, **dataclasses.asdict(message)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Intent | Alive:
    """Read one message.

    Raises:
        MessageError: more than 4096 bytes, not UTF-8 JSON, a key twice, unknown or missing, a value of the wrong
            type, a count outside 0..2**63-1 or a text of more than 128 characters.
    """
    if len(data) > MAX_BYTES:
        raise MessageError("too_large", f"{len(data)} bytes (allowed: {MAX_BYTES})", cause="not a message of the pilot")
    try:
        # RecursionError: 4 kB of "[" are deep enough. UnicodeDecodeError and JSONDecodeError are ValueErrors.
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except MessageError:
        raise
    except (ValueError, RecursionError) as error:
        raise MessageError("not_json", str(error)) from error
    if not isinstance(found, dict):
        raise MessageError("not_an_object", f"JSON of type {type(found).__name__}")
    name = found.pop("type", None)
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise MessageError("unknown_type", f'"type" is {_shown(name)}, not one of {", ".join(_TYPES)}')
    kinds = _KINDS[cls]
    for key in found:
        if key not in kinds:
            raise MessageError("unknown_key", f"{_shown(key)} in {name}", cause="pilot and gate of different versions")
    for key in kinds:
        if key not in found:
            raise MessageError("missing_key", f"{key} in {name}", cause="pilot and gate of different versions")
    return cls(**{key: _value(key, kind, found[key]) for key, kind in kinds.items()})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MessageError("duplicate_key", f"a key stands twice among {_shown([key for key, _ in pairs])}")
    return found


def _value(key: str, kind: str, value: object) -> Any:
    # bool is a subclass of int in Python, but "seq": true is no count.
    if isinstance(value, bool):
        pass
    elif kind == "str" and isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise MessageError("out_of_range", f"{key} has {len(value)} characters (allowed: {MAX_TEXT})")
        return value
    elif kind == "int" and isinstance(value, int):
        if not 0 <= value <= MAX_COUNT:
            raise MessageError("out_of_range", f"{key} is {_shown(value)} (allowed: 0 to 2**63-1)")
        return value
    elif kind == "float" and isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            raise MessageError("out_of_range", f"{key} is a whole number too large for a float") from None
    raise MessageError("wrong_type", f"{key} is {_shown(value)} ({type(value).__name__}), not {kind}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
