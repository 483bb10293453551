"""The requests that the gate takes and the form of its answers. Form only: what they do is in `vehicle.gate_core`.

A request is one JSON object with an "op". An answer is ``{"ok": true, ...}`` or
``{"ok": false, "reason", "what", "cause", "next", "blocked": [{"reason", "value", "cure"}]}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from vehicle.arming import ARMED_MODES, Blocked
from vehicle.errors import GateError
from vehicle.leases import LEASE_KINDS

MAX_TEXT = 128
PULSE_RANGE_US = (900.0, 2100.0)  # of calibration mode; outside of it the gears of a hobby servo may break
_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[str, object], object]


class RequestRefused(GateError):
    """A request that the gate does not obey; `blocked` lists the arming checks, where they were the cause."""

    def __init__(
        self, reason: str, what: str, *, cause: str = "", next_step: str = "", blocked: Sequence[Blocked] = ()
    ) -> None:
        self.blocked = tuple(blocked)
        super().__init__(what, reason=reason, cause=cause, next_step=next_step)

    def reply(self) -> dict[str, Any]:
        """The answer."""
        return {
            "ok": False,
            "reason": self.reason,
            "what": self.what,
            "cause": self.cause,
            "next": self.next_step,
            "blocked": [one.as_dict() for one in self.blocked],
        }


def number(low: float, high: float) -> Check:
    """A finite number in low..high; a whole number will do, true and false will not."""

    def check(key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong_type(key, value, "a number")
        if isinstance(value, float) and math.isnan(value):
            raise RequestRefused("nan", f"{key} is not a number (NaN)")
        if isinstance(value, float) and math.isinf(value):
            raise RequestRefused("infinite", f"{key} is infinite")
        if not low <= value <= high:
            raise RequestRefused("out_of_range", f"{key} is {_shown(value)} (allowed: {low:g} to {high:g})")
        return float(value)

    return check


def text(key: str, value: object) -> str:
    """One line of 1 to 128 printable characters."""
    if not isinstance(value, str):
        raise _wrong_type(key, value, "text")
    if not 1 <= len(value) <= MAX_TEXT or not value.isprintable():
        raise RequestRefused("out_of_range", f"{key} must be 1 to {MAX_TEXT} printable characters")
    return value


def sha256(key: str, value: object) -> str:
    """64 hexadecimal digits, lower case."""
    if not isinstance(value, str):
        raise _wrong_type(key, value, "text")
    if not _SHA256.fullmatch(value):
        raise RequestRefused("out_of_range", f"{key} is {_shown(value)}, not 64 hexadecimal digits")
    return value


def boolean(key: str, value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise _wrong_type(key, value, "true or false")
    return value


def choice(*allowed: str) -> Check:
    """One of some words."""

    def check(key: str, value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_type(key, value, "text")
        if value not in allowed:
            raise RequestRefused("out_of_range", f"{key} is {_shown(value)} (allowed: {', '.join(allowed)})")
        return value

    return check


# op -> (keys that must be there, keys that may be there)
_OPS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "arm": ({"mode": choice(*(mode.value for mode in ARMED_MODES))}, {"lease": text}),
    "reset": ({}, {}),
    "lease": ({"kind": choice(*LEASE_KINDS), "holder": text}, {}),
    "renew": ({"lease": text}, {}),
    "release": ({"lease": text}, {}),
    "manual": ({"lease": text, "steering": number(-1.0, 1.0), "throttle": number(-1.0, 1.0)}, {}),
    "pulse": ({"lease": text}, {"steering_us": number(*PULSE_RANGE_US), "throttle_us": number(*PULSE_RANGE_US)}),
    "cap": ({"percent": number(0.0, 100.0)}, {}),
    "model": ({"sha256": sha256, "trial": boolean}, {}),
    "status": ({}, {}),
}
# What makes the car safe is obeyed whatever else the message says.
UNCONDITIONAL = ("stop", "disarm")


def parse_request(message: object) -> tuple[str, dict[str, Any]]:
    """The op and its checked values, absent optional ones left out.

    Raises:
        RequestRefused: not_an_object, unknown_op, unknown_key, missing_key, wrong_type, nan, infinite, out_of_range.
    """
    if not isinstance(message, dict):
        raise RequestRefused("not_an_object", f"a request is a JSON object, this is {_shown(message)}")
    op = message.get("op")
    if op in UNCONDITIONAL:
        return str(op), {}
    if not isinstance(op, str) or op not in _OPS:
        raise RequestRefused(
            "unknown_op", f'"op" is {_shown(op)}', next_step="one of " + ", ".join([*UNCONDITIONAL, *_OPS])
        )
    required, optional = _OPS[op]
    for key in message:
        if key != "op" and key not in required and key not in optional:
            raise RequestRefused("unknown_key", f"{op} has no {_shown(key)}")
    for key in required:
        if key not in message:
            raise RequestRefused("missing_key", f"{op} needs {key}")
    checks = {**required, **optional}
    return op, {key: check(key, message[key]) for key, check in checks.items() if key in message}


def _wrong_type(key: str, value: object, wanted: str) -> RequestRefused:
    return RequestRefused("wrong_type", f"{key} is {_shown(value)} ({type(value).__name__}), not {wanted}")


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets in brackets
        return f"a {type(value).__name__} too large to show"
    return shown if len(shown) <= 60 else shown[:57] + "..."
