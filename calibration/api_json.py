"""JSON in and out of the console: bodies read strictly, errors in one form, statuses by reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response, request

from calibration import strict_json
from calibration.car_link import CarRefused
from calibration.errors import CalibrationError, HotlapError

MAX_JSON_BYTES = 256 * 1024

# reason -> HTTP status; a reason that is not here is a conflict with what the car does now (409).
_STATUS = {
    "unauthenticated": 401, "wrong_password": 403, "csrf": 403, "not_found": 404, "not_installed": 404,
    "unknown_sha": 404, "unknown_upload": 404, "too_large": 413, "too_many_attempts": 429, "too_many_viewers": 503,
    "no_answer": 503, "bad_answer": 503, "storage": 507, "file": 500,
    "bad_request": 400, "bad_password": 400, "not_an_object": 400, "unknown_op": 400, "unknown_key": 400,
    "missing_key": 400, "wrong_type": 400, "nan": 400, "infinite": 400, "out_of_range": 400, "bad_calibration": 422,
    "bad_car_file": 422, "locked_key": 422,
    "length_required": 411,
}  # fmt: skip


def status_of(error: HotlapError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, CalibrationError):
        return 422
    return _STATUS.get(str(getattr(error, "reason", "")), 409)


def error_object(error: HotlapError) -> dict[str, Any]:
    """{"what", "cause", "next", "reason"}, and "blocked" where arming checks were the cause."""
    reason = str(getattr(error, "reason", "bad_calibration" if isinstance(error, CalibrationError) else ""))
    found: dict[str, Any] = {
        "what": error.what, "cause": error.cause, "next": error.next_step, "reason": reason or "refused"
    }  # fmt: skip
    blocked = getattr(error, "blocked", None)
    return {**found, "blocked": blocked} if blocked else found


def reply(value: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(text + "\n", status, mimetype="application/json")


def error_reply(error: HotlapError) -> Response:
    """{"error": {...}} with its status."""
    return reply({"error": error_object(error)}, status_of(error))


def body(*required: str, optional: tuple[str, ...] = (), open_ended: bool = False) -> dict[str, Any]:
    """The request's body as a JSON object. Its content type is not asked for: a DeepRacer client mislabels it.

    Args:
        required: keys that must be there.
        optional: keys that may be.
        open_ended: any other key may be there too; whoever uses it checks them.

    Raises:
        CarRefused: too_large, bad_request, not_an_object, missing_key, unknown_key.
    """
    found = parse(request.get_data(cache=True))
    if not isinstance(found, dict):
        raise CarRefused("not_an_object", "the body must be a JSON object")
    for key in required:
        if key not in found:
            raise CarRefused("missing_key", f"{key} is missing")
    if not open_ended:
        for key in found:
            if key not in required and key not in optional:
                raise CarRefused("unknown_key", f"there is no {key[:40]!r} here")
    return found


def parse(data: bytes) -> object:
    """JSON of RFC 8259: UTF-8, no NaN, no key twice; an empty text is an empty object.

    Raises:
        CarRefused: bad_request, too_large.
    """
    if len(data) > MAX_JSON_BYTES:
        raise CarRefused("too_large", f"the body has {len(data)} bytes (allowed: {MAX_JSON_BYTES})")
    if not data.strip():
        return {}
    try:
        return strict_json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CarRefused("bad_request", f"the body is no JSON: {str(error)[:120]}") from error


def number(values: Mapping[str, Any], key: str, low: float, high: float) -> float:
    """A finite number of a body.

    Raises:
        CarRefused: missing_key, wrong_type, out_of_range.
    """
    if key not in values:
        raise CarRefused("missing_key", f"{key} is missing")
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CarRefused("wrong_type", f"{key} must be a number")
    if not low <= value <= high:
        raise CarRefused("out_of_range", f"{key} must be {low:g} to {high:g}")
    return float(value)


def text(values: Mapping[str, Any], key: str, longest: int = 256) -> str:
    """Text of a body.

    Raises:
        CarRefused: missing_key, wrong_type, out_of_range.
    """
    if key not in values:
        raise CarRefused("missing_key", f"{key} is missing")
    value = values[key]
    if not isinstance(value, str):
        raise CarRefused("wrong_type", f"{key} must be text")
    if len(value) > longest:
        raise CarRefused("out_of_range", f"{key} must have at most {longest} characters")
    if any("\ud800" <= c <= "\udfff" for c in value):  # JSON can say them, no page can show them
        raise CarRefused("out_of_range", f"{key} has half a character (an unpaired surrogate)")
    return value


def flag(values: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """true or false of a body.

    Raises:
        CarRefused: wrong_type.
    """
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise CarRefused("wrong_type", f"{key} must be true or false")
    return value
