"""The whole API under requests by chance, without a network: never a 500, and never a pulse but by a lawful request."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from flask import Flask
from werkzeug.test import run_wsgi_app

from calibration.values import Calibration
from tests.calibration.console_rig import Browser, FakeCar, shared
from tests.calibration.fuzzer import MARK, TOKEN_COOKIE, Ask, Fuzzer

# What a request without session or token may ask of the gate: to stop, and (a logout) to let go of its lease.
HARMLESS = {"stop", "release", "status"}
MODES = {"drive": "autonomous", "manual": "manual", "calibration": "calibration"}  # cause of a pulse -> armed mode
COMMANDS = {"manual": "manual", "calibration": "pulse"}
SILENCE_S = 0.300


class Witness:
    """Between console and car: who asked for what, what was granted, and whether each pulse follows from it."""

    def __init__(self, car: FakeCar) -> None:
        self._car, self._ask = car, car.ask
        self.request: Ask | None = None
        self.moved: Counter[str] = Counter()
        self.ops: Counter[str] = Counter()
        self._armed = ""
        self._commanded_s = {"manual": float("-inf"), "calibration": float("-inf")}
        self._seen = len(car.outputs)
        car.ask = self.ask  # type: ignore[method-assign]

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert self.request is not None
        op = str(request["op"])
        assert self.request.lawful or op in HARMLESS, (op, self.request)
        self.check_pulses()  # a lawful start waits, with the car's clock, for what passes
        answer = self._ask(request)  # raises where it is refused
        self.ops[op] += 1
        if op == "arm":
            self._armed = str(request["mode"])
        elif op in ("stop", "disarm"):
            self._armed = ""
        for mode, command in COMMANDS.items():
            if op == command:
                self._commanded_s[mode] = self._car.rig.now_s
        return answer

    def check_pulses(self) -> None:
        """Every pulse since the last call: neutral, or what was lawfully armed and, by hand, is still asked for."""
        fresh, now_s = self._car.outputs[self._seen :], self._car.rig.now_s
        self._seen += len(fresh)
        for ticks_ago, output in zip(range(len(fresh) - 1, -1, -1), fresh, strict=True):
            if output.mode.value not in MODES.values():
                self._armed = ""  # whatever the reason was, somebody must arm it again
            if output.cause.startswith("neutral"):
                continue
            assert output.cause in MODES and self._armed == MODES[output.cause], (output, self._armed, self.request)
            self.moved[output.cause] += 1
            if output.cause in COMMANDS:
                silence_s = now_s - 0.02 * ticks_ago - self._commanded_s[output.cause]
                assert silence_s <= SILENCE_S, (silence_s, output, self.request)
        if fresh and fresh[-1].cause.startswith("neutral"):
            calibration = self._car.rig.core._calibration
            assert calibration is not None and fresh[-1].throttle_us == calibration.throttle.neutral_us


def environ_of(ask: Ask) -> dict[str, Any]:
    """The request as a WSGI server gives it on."""
    path, _, query = ask.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": ask.method, "SCRIPT_NAME": "", "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query, "SERVER_NAME": "car.local", "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.168.1.20", "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(ask.body),
        "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        "wsgi.version": (1, 0), "CONTENT_LENGTH": str(len(ask.body)),
    }  # fmt: skip
    for name, value in ask.headers:
        key = name.upper().replace("-", "_")
        value = value.encode("utf-8").decode("latin-1")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ


def answer_to(app: Flask, ask: Ask) -> tuple[int, dict[str, Any], str]:
    """Status, the JSON where it is an object, and the text; of a stream only its beginning."""
    parts, status, headers = run_wsgi_app(app.wsgi_app, environ_of(ask), buffered=False)
    try:
        endless = headers.get("Content-Type", "").startswith(("text/event-stream", "multipart/"))
        body = b"".join(part for _, part in zip(range(2 if endless else 10**6), parts, strict=False))
    finally:
        getattr(parts, "close", lambda: None)()
    assert MARK.lower() not in (name.lower() for name in headers.keys()), ask
    assert not any(re.search(r"[\r\n]", value) for value in headers.values()), ask
    assert "Access-Control-Allow-Origin" not in headers
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    return int(status.split()[0]), found if isinstance(found, dict) else {}, body.decode(errors="replace")


def log_in(app: Flask, fuzzer: Fuzzer) -> None:
    """A session of its own, without a password: that would be rationed."""
    browser = Browser(app)
    fuzzer.known.token = browser.read_token()
    signed = browser.client.get_cookie("session", domain="car.local")
    assert signed is not None
    cookie = shared(app).sessions.create("192.168.1.20")
    fuzzer.known.cookie = f"session={signed.value}; {TOKEN_COOKIE}={cookie}"


def logged_in(app: Flask, fuzzer: Fuzzer) -> bool:
    return shared(app).sessions.find(fuzzer.known.cookie.rpartition("=")[2], use=False) is not None


def expired_cookie(app: Flask, fuzzer: list[Fuzzer]) -> str:
    """Of a session that was valid thirteen hours ago."""
    sessions = shared(app).sessions
    token = sessions.create("192.168.1.66")
    found = sessions.find(token)
    assert found is not None
    found.created_s -= 13 * 3600.0
    return f"{fuzzer[0].known.cookie.partition(';')[0]}; {TOKEN_COOKIE}={token}"


def fuzz(app: Flask, car: FakeCar, seed: int, count: int) -> tuple[Counter[int], Witness]:
    """So many requests; the statuses, and what the car was asked and did."""
    made: list[Fuzzer] = []
    fuzzer = Fuzzer(app, seed, lambda: expired_cookie(app, made), Calibration().throttle.neutral_us)
    made.append(fuzzer)
    witness = Witness(car)
    statuses: Counter[int] = Counter()
    car.show(1)
    for number in range(count):
        if not logged_in(app, fuzzer):
            log_in(app, fuzzer)
        if number == count // 2:  # half of the time a pilot is there, so that starting may succeed
            car.autonomous_ready()
            witness.check_pulses()
        if car.mode == "stopped" and fuzzer.random.random() < 0.5:  # else nothing would be lawful any more
            car.rig.core.request({"op": "reset"}, car.rig.now_s)
        if fuzzer.random.random() < 0.01:
            shared(app).limiter.succeeded("192.168.1.20")
        witness.request = ask = fuzzer.next()
        status, found, text = answer_to(app, ask)
        statuses[status] += 1
        assert status < 500 or found["error"]["reason"] == "storage", (ask, text)
        HTTPStatus(status)
        fuzzer.known.learn(ask, found)
        car.advance(fuzzer.random.choice((0.02, 0.02, 0.06, 0.12)))
        witness.check_pulses()
    car.advance(1.0)
    witness.check_pulses()
    return statuses, witness


SLOW = [pytest.param(seed, 1100, marks=pytest.mark.slow) for seed in range(1, 11)]


@pytest.mark.parametrize(("seed", "count"), [(0, 700), *SLOW])
def test_requests_by_chance_get_no_500_and_move_nothing_unlawfully(
    app: Flask, car: FakeCar, seed: int, count: int
) -> None:
    statuses, witness = fuzz(app, car, seed, count)
    assert {200, 400, 401, 403, 404, 405, 409} <= set(statuses)
    # It did reach what it shall not reach unlawfully.
    assert {"arm", "lease", "stop", "disarm"} <= set(witness.ops) and witness.moved, (witness.ops, witness.moved)
    assert shared(app).event_streams.taken == shared(app).video._slots.taken == 0
