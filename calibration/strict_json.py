"""JSON read strictly: what is not exactly what was asked for is a CalibrationError that names file, key and value."""

from __future__ import annotations

import difflib
import json
import math
from typing import Any

from calibration.errors import CalibrationError

MAX_CHARACTERS = 1_000_000


def loads(text: str) -> object:
    """Parse JSON without NaN, infinity, or a key twice in an object. The one strict reader under every other one.

    Raises:
        ValueError: with line and column for a syntax error.
        RecursionError: brackets within brackets.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def parse(text: str | bytes, *, where: str) -> object:
    """Parse JSON: UTF-8, no NaN or infinity, no key twice in an object, at most `MAX_CHARACTERS`.

    Raises:
        CalibrationError: naming ``where``, and the line for a syntax error.
    """
    if len(text) > MAX_CHARACTERS:
        raise _damaged(f"{where} is {len(text)} characters long, a calibration has a few thousand")
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        if not decoded.strip("\0 \t\r\n"):
            raise _damaged(f"{where} is empty" + (" (zeros)" if "\0" in decoded else ""))
        result = loads(decoded)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise _damaged(f"{where} is not valid JSON: {error}") from error
    return result


def table(value: object, keys: tuple[str, ...], *, where: str, key: str = "", optional: tuple[str, ...] = ()) -> Any:
    """A JSON object with exactly these keys, as a dictionary.

    Args:
        value: what was parsed.
        keys: all of which must be there, but for those in ``optional``.
        where, key: file and dotted key of the object, for errors; "" is the top level.

    Raises:
        CalibrationError: not an object, a key that is not known (with the nearest known one), or one that is missing.
    """
    if not isinstance(value, dict):
        raise _wrong(value, "an object", where, key or "the top level")
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in keys:
            (nearest,) = difflib.get_close_matches(name, keys, n=1, cutoff=0.0)
            raise CalibrationError(
                f"{where}: unknown key {prefix}{name}",
                cause="a misspelled key, or one of another version",
                next_step=f"the nearest known key is {prefix}{nearest}; known here: {', '.join(keys)}",
            )
    for name in keys:
        if name not in value and name not in optional:
            raise CalibrationError(
                f"{where}: {prefix}{name} is missing",
                cause="the file was edited by hand, or is of another version",
                next_step=f"add {prefix}{name}; nothing is guessed",
            )
    return value


def number(value: object, *, where: str, key: str) -> float:
    """A finite number.

    Raises:
        CalibrationError: anything else, ``true`` included.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(value, "a number", where, key)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):  # 1e999 is JSON, and no number of ours
        raise CalibrationError(
            f"{where}: {key} is too large for a number", cause="the file is damaged", next_step=f"correct {key}"
        )
    return result


def whole(value: object, *, where: str, key: str) -> int:
    """A whole number, written without a point.

    Raises:
        CalibrationError: anything else, ``true`` included.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "a whole number", where, key)
    return value


def pairs(value: object, *, where: str, key: str) -> tuple[tuple[float, float], ...]:
    """An array of arrays of two numbers.

    Raises:
        CalibrationError: anything else.
    """
    if not isinstance(value, list):
        raise _wrong(value, "an array", where, key)
    result = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _wrong(pair, "an array of two numbers", where, f"{key}[{i}]")
        first, second = (number(v, where=where, key=f"{key}[{i}][{k}]") for k, v in enumerate(pair))
        result.append((first, second))
    return tuple(result)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in members:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice in one object")
        result[key] = value
    return result


def _damaged(what: str) -> CalibrationError:
    return CalibrationError(
        what,
        cause="it was edited by hand, cut off while it was copied, or the card is failing",
        next_step="calibrate again (hotlap calibrate), or put a copy in its place",
    )


def _wrong(value: object, wanted: str, where: str, key: str) -> CalibrationError:
    text = json.dumps(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return CalibrationError(
        f"{where}: {key} is {shown}, it must be {wanted}",
        cause="the file was edited by hand, or is of another version",
        next_step=f"correct {key}",
    )
