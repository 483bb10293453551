"""Requests of every kind to every path of the console, by chance but seeded. Not a test itself.

The paths come from the application's own table, so a new endpoint is in by itself. Some requests make sense, or nearly:
only so are the console's deeper parts reached, and only so does the car sometimes lawfully move.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import Flask

MARK = "X-Evil"  # no answer may ever carry a header of this name
TOKEN_COOKIE = "deepracer_token"
_VARIABLE = re.compile(r"<(?:[^<>]*:)?(\w+)>")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW")
_OWN = "5a" * 32

# Values as JSON has them, or nearly.
_VALUES = (
    "null", "true", "false", "0", "-0", "-1", "1", "0.5", "-0.25", "1e308", "1e999", "-1e999", "NaN", "Infinity",
    "9" * 400, "1" * 5000, '""', '"x"', '"manual"', '"stop"', '"\\ud800"', '"\\u0000"', '"%s%n"', '"../../etc/passwd"',
    f'"x\\r\\n{MARK}: 1"', '"' + "a" * 300 + '"', '"\U0001f697"', "[]", "{}", "[[]]", '{"a":1}', "[" * 2000,
    "[" * 400 + "]" * 400, '{"a":' * 300 + "1" + "}" * 300, f'"{_OWN}"', '"<script>alert(1)</script>"',
)  # fmt: skip
_BODIES = (
    b"", b"\x00", b"[", b'"', b"null", b"1", b"{}", b"[]", b"\xff\xfe{}", b'{"a":', b"a=b&c", b"--x\r\n\r\n",
    b'{"op":"arm"}', b'{"lease":1,"lease":2}', b"\xef\xbb\xbf{}", b" " * 300_000, b"[" * 100_000,
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="../a.tar.gz"\r\n\r\nnot a model\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff"\r\n' * 20,
)  # fmt: skip
_TYPES = (
    "application/json", "application/json; charset=utf-16", "text/plain", "", "x/", "multipart/form-data; boundary=x",
    "multipart/form-data", "application/x-www-form-urlencoded", "multipart/form-data; boundary=" + "y" * 500,
)  # fmt: skip
_PARTS = (
    "..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", f"%0d%0a{MARK}:%201", _OWN, "x" * 300, "%ff", "a/b", "-1", "9" * 30,
    "model", "angle", "throttle", "core", "5", "stop.js", "%5c..%5c", "%252e%252e", "..;", "\u00e9",
)  # fmt: skip
_ENDS = (
    "/",
    "/x",
    "%00",
    f"%0d%0a{MARK}:%201",
    "?n=x",
    "?n=-1&n=5",
    "?width=-1&height=1e9",
    "//",
    "%ff",
    "?" + "a" * 900,
)
_HEADERS = (
    ("Upload-Offset", "0"), ("Upload-Offset", "-1"), ("Upload-Offset", "9" * 30), ("Upload-Offset", "\u00b2"),
    ("Transfer-Encoding", "chunked"), ("Range", "bytes=0-5"), ("Range", "bytes=9-1,x"), ("If-None-Match", "*"),
    ("If-Modified-Since", "yesterday"), ("X-HTTP-Method-Override", "DELETE"), ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Host", "evil.example"), ("Accept", "text/html"), ("Accept", "*/*;q=x"), ("Content-Encoding", "gzip"),
    ("Authorization", "Basic eDp5"), ("Accept-Language", "\u00ff" * 100), ("Content-MD5", "x"), ("Cookie", "session=x"),
    ("Cookie", f"{TOKEN_COOKIE}=; {TOKEN_COOKIE}=x"), ("Connection", "Upgrade"), ("X-CSRFToken", "x"),
)  # fmt: skip
_FOREIGN = (
    ("Origin", "https://evil.example"), ("Origin", "null"), ("Origin", "https://[x"), ("Sec-Fetch-Site", "cross-site"),
)  # fmt: skip

# What the views read; one that is not here gets keys by chance.
_KEYS = {
    "arm": ("mode", "lease"), "cap": ("percent",), "lease": ("kind",), "renew": ("lease",), "release": ("lease",),
    "manual": ("lease", "steering", "throttle"), "pulse": ("lease", "throttle_us"), "install": ("activate",),
    "begin_upload": ("size", "sha256", "name"), "change_settings": ("name",), "change_password": ("old", "new"),
    "drive_mode": ("drive_mode",), "start_stop": ("start_stop",), "manual_drive": ("angle", "throttle"),
    "max_nav_throttle": ("throttle",), "set_calibration": ("mid", "min", "max", "polarity"), "restore": ("revision",),
    "adjust_calibrating_wheels": ("pwm",), "delete_models": ("filenames",), "log_in": ("password",),
    "password": ("old_password", "new_password"), "save": ("steering", "throttle"),
}  # fmt: skip
_ALL_KEYS = sorted({key for keys in _KEYS.values() for key in keys} | {"op", "holder", "max_speed", "steering_us", "x"})
# What moves a car, in the order in which it does.
_DRIVING = ("lease", "arm", "manual", "pulse", "renew")
_DRIVING_DEEPRACER = ("drive_mode", "start_stop", "manual_drive", "set_calibration_mode", "adjust_calibrating_wheels")


@dataclass(frozen=True)
class Ask:
    """One request. `lawful`: of somebody who is logged in, with the right token, from the console's own page."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    lawful: bool
    endpoint: str


@dataclass
class Known:
    """What a client has learnt from the answers so far."""

    cookie: str = ""  # of a session that is valid
    token: str = ""  # the CSRF token that belongs to it
    lease: str = ""
    kind: str = "manual"  # of the lease
    shas: list[str] = field(default_factory=list)

    def learn(self, ask: Ask, answer: dict[str, Any]) -> None:
        """Take in what an answer says."""
        if isinstance(answer.get("lease"), str):
            self.lease = answer["lease"]
            self.kind = "calibration" if self.lease.startswith("calibration") else "manual"
        for key in ("upload", "sha256"):
            if isinstance(answer.get(key), str):
                self.shas = [*self.shas[-5:], answer[key]]


class Fuzzer:
    """One stream of requests.

    Args:
        expired: makes the cookie of a session that has expired.
        neutral_us: of the car, near which a calibration's throttle may step.
    """

    def __init__(self, app: Flask, seed: int, expired: Callable[[], str], neutral_us: float) -> None:
        self.random = random.Random(seed)
        self._rules = sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ())))
        self._driving = {
            name: [rule for rule in self._rules if rule.endpoint.rpartition(".")[2] == name]
            for name in (*_DRIVING, *_DRIVING_DEEPRACER)
        }
        assert all(self._driving.values())
        self._expired, self._neutral_us = expired, neutral_us
        self._plan: list[str] = []
        self.known = Known()

    def next(self) -> Ask:
        """The next request."""
        draw = self.random
        who = draw.choices(("stranger", "expired", "forger", "user"), (2, 1, 2, 5))[0]
        if not self._plan and draw.random() < 0.06:
            self._plan = [*draw.choice((_DRIVING, _DRIVING_DEEPRACER[:3], _DRIVING_DEEPRACER[3:]))]
            self._plan += draw.choices(self._plan[2:] or self._plan[1:], k=draw.randint(0, 6))
        purposeful = bool(self._plan) and draw.random() < 0.8
        if purposeful:
            who = "user" if draw.random() < 0.8 else who
            rule = draw.choice(self._driving[self._plan.pop(0)])
        else:
            rule = draw.choice(self._rules)
        hostile = 0.03 if purposeful else 0.5
        endpoint = rule.endpoint.rpartition(".")[2]
        method = draw.choice(sorted((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}))
        if draw.random() < hostile / 3:
            method = draw.choice(_METHODS)
        target = _VARIABLE.sub(lambda found: self._part(found[1]), rule.rule)
        if draw.random() < hostile / 3:
            target += draw.choice(_ENDS)
        headers, lawful = self._headers(who, hostile)
        return Ask(method, target, headers, self._body(endpoint, hostile), lawful, rule.endpoint)

    def _part(self, name: str) -> str:
        if name in ("sha256", "upload") and self.known.shas and self.random.random() < 0.5:
            return self.random.choice(self.known.shas)
        if name == "channel" and self.random.random() < 0.8:
            return self.random.choice(("angle", "throttle"))
        return self.random.choice(_PARTS)

    def _headers(self, who: str, hostile: float) -> tuple[tuple[tuple[str, str], ...], bool]:
        draw, known = self.random, self.known
        cookie, token = {
            "stranger": (draw.choice(("", f"{TOKEN_COOKIE}=x", f"{TOKEN_COOKIE}={'y' * 900}", "session=e30.x.y")), ""),
            "expired": (self._expired(), known.token),
            "forger": (known.cookie, draw.choice(("", "x" * 43, known.token[:-1], known.token.lower() + "x"))),
            "user": (known.cookie, known.token),
        }[who]
        found = [("Host", "car.local"), ("Cookie", cookie), ("X-CSRFToken", token)]
        found = [(name, value) for name, value in found if value]
        lawful = who == "user"
        if draw.random() < 0.9:
            found.append(("Content-Type", "application/json" if draw.random() > hostile else draw.choice(_TYPES)))
        while draw.random() < hostile / 2:
            found.append(draw.choice(_HEADERS))
            lawful = lawful and found[-1][0] not in ("Cookie", "X-CSRFToken")
        if draw.random() < 0.05:
            found.append(draw.choice(_FOREIGN))
            lawful = False
        return tuple(found), lawful

    def _body(self, endpoint: str, hostile: float) -> bytes:
        draw = self.random
        if draw.random() < hostile / 4:
            return draw.choice(_BODIES)
        keys = list(_KEYS.get(endpoint, draw.sample(_ALL_KEYS, draw.randint(0, 3))))
        if draw.random() < hostile / 3:
            keys.append(draw.choice(_ALL_KEYS))
        pairs = []
        for key in keys:
            if draw.random() < hostile / 6:
                continue
            hurt = draw.random() < hostile / 2
            pairs.append(f'"{key}":{draw.choice(_VALUES) if hurt else self._sensible(key, endpoint)}')
        return ("{" + ",".join(pairs) + "}").encode("utf-8", "surrogatepass")

    def _sensible(self, key: str, endpoint: str) -> str:
        """A value that may be meant so."""
        draw, known = self.random, self.known
        words: dict[str, tuple[str, ...]] = {
            "lease": (known.lease,), "kind": ("manual", "calibration"), "drive_mode": ("manual", "auto"),
            "start_stop": ("start", "start", "stop"), "mode": (known.kind, known.kind, "autonomous"),
            "name": ("Red 5", "x" * 33), "sha256": (_OWN, *known.shas), "password": ("guess-guess-guess",),
        }  # fmt: skip
        if key in words:
            return f'"{draw.choice(words[key])}"'
        ranges = {
            "throttle_us": (self._neutral_us - 25.0, self._neutral_us + 25.0), "steering_us": (1200.0, 1700.0),
            "percent": (0.0, 100.0), "pwm": (-30.0, 20.0), "size": (1.0, 5.0), "mid": (-6.0, -4.0),
            "min": (-31.0, -29.0), "max": (19.0, 21.0), "revision": (0.0, 4.0),
        }  # fmt: skip
        low, high = (
            (0.0, 100.0) if (key, endpoint) == ("throttle", "max_nav_throttle") else ranges.get(key, (-1.0, 1.0))
        )
        value = draw.uniform(low, high)
        whole = key in ("size", "revision")
        return "true" if key == "activate" else str(round(value)) if whole else repr(value)
