"""The text of a calibration file: JSON that is read back exactly, or not at all."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from calibration import strict_json
from calibration.errors import CalibrationError
from calibration.values import Calibration, Steering, Throttle, check_calibration

FORMAT = "hotlap-calibration"
VERSION = 1
_KEYS = ("format", "version", "revision", "previous", "steering", "throttle")
_OPTIONAL_US = ("forward_start_us", "reverse_start_us")


@dataclass(frozen=True)
class Document:
    """What one file says.

    Args:
        calibration: checked.
        revision: its number in the history.
        previous: the number of the one that was in force before it, or None.
    """

    calibration: Calibration
    revision: int
    previous: int | None


def to_text(document: Document) -> str:
    """A line for each value, with the measured points in one line."""
    head = {"format": FORMAT, "version": VERSION, "revision": document.revision, "previous": document.previous}
    parts = [f'  "{key}": {json.dumps(value)}' for key, value in head.items()]
    for name in ("steering", "throttle"):
        values = getattr(document.calibration, name)
        rows = [
            f'    "{field.name}": {json.dumps(getattr(values, field.name), allow_nan=False)}'
            for field in dataclasses.fields(values)
        ]
        parts.append(f'  "{name}": {{\n' + ",\n".join(rows) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def from_text(text: bytes, *, where: str) -> Document:
    """Exactly what `to_text` writes, with the calibration checked.

    Args:
        text: the file.
        where: its name, for errors.

    Raises:
        CalibrationError: anything else; names the file, the key and the value.
    """
    parsed = strict_json.parse(text, where=where)
    if isinstance(parsed, dict) and "Calibration" in parsed:
        raise CalibrationError(
            f"{where} is the original car's calibration file", cause="it was copied here", next_step="import it instead"
        )
    top = strict_json.table(parsed, _KEYS, where=where)
    for key, wanted in (("format", FORMAT), ("version", VERSION)):
        if top[key] != wanted or isinstance(top[key], bool):
            raise CalibrationError(
                f"{where}: {key} is {json.dumps(top[key])[:60]}, this hotlap reads {json.dumps(wanted)}",
                cause="it was written by another version, or is another file",
                next_step="use the hotlap that wrote it, or calibrate again",
            )
    revision = strict_json.whole(top["revision"], where=where, key="revision")
    previous = None if top["previous"] is None else strict_json.whole(top["previous"], where=where, key="previous")
    if revision < 1 or (previous is not None and not 1 <= previous < revision):
        raise CalibrationError(
            f"{where}: revision {revision} after {previous} does not count up from 1",
            cause="the file was edited by hand",
            next_step="correct revision and previous",
        )
    calibration = Calibration(
        Steering(**_values(top["steering"], Steering, where, "steering")),
        Throttle(**_values(top["throttle"], Throttle, where, "throttle")),
    )
    try:
        check_calibration(calibration)
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error.what}", cause=error.cause, next_step=error.next_step) from error
    return Document(calibration, revision, previous)


def _values(value: object, cls: type[Steering] | type[Throttle], where: str, key: str) -> dict[str, Any]:
    names = tuple(field.name for field in dataclasses.fields(cls))
    values = strict_json.table(value, names, where=where, key=key)
    result: dict[str, Any] = {}
    for name, item in values.items():
        dotted = f"{key}.{name}"
        if name in ("points", "curve"):
            result[name] = strict_json.pairs(item, where=where, key=dotted)
        elif not (name in _OPTIONAL_US and item is None):
            result[name] = strict_json.number(item, where=where, key=dotted)
    return result
