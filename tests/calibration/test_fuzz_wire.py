"""The whole API under requests by chance over TLS, with a real gate behind it; and bytes that are no HTTP at all."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.calibration.fuzzer import MARK, TOKEN_COOKIE, Ask, Fuzzer
from tests.calibration.test_fuzz import COMMANDS, HARMLESS, MODES, SILENCE_S, expired_cookie
from tests.vehicle.console_car import ConsoleCar, Https, unverified
from tests.vehicle.gate_process import NEUTRAL_US

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 3000


@pytest.fixture
def car() -> Iterator[ConsoleCar]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        made = ConsoleCar(Path(name))
        yield made
        made.close()


@dataclass(frozen=True)
class Granted:
    """A request that the gate has obeyed, and when it was asked and answered."""

    op: str
    mode: str
    asked_s: float
    answered_s: float


class Witness:
    """Between console and gate: who asked for what, and what was granted."""

    def __init__(self, car: ConsoleCar) -> None:
        self._link = car.console.link
        self._ask = self._link.ask
        self.request: Ask | None = None
        self.granted: list[Granted] = []
        self.unlawful: list[object] = []
        self._link.ask = self.ask  # type: ignore[method-assign]

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        op, by = str(request["op"]), self.request
        if op == "console":  # its own sign of life
            return self._ask(request)
        if op not in HARMLESS and not (by is not None and by.lawful):
            self.unlawful.append((request, by))
        asked_s = time.monotonic()
        answer = self._ask(request)
        self.granted.append(Granted(op, str(request.get("mode", "")), asked_s, time.monotonic()))
        return answer

    def explains(self, cause: str, at_s: float) -> bool:
        """Whether a pulse that is not neutral follows from what was granted."""
        before = [one for one in self.granted if one.asked_s <= at_s]
        armed = [one for one in before if one.op == "arm" or (one.op in ("stop", "disarm") and one.answered_s < at_s)]
        if not armed or (armed[-1].op, armed[-1].mode) != ("arm", MODES.get(cause)):
            return False
        if cause not in COMMANDS:
            return True
        commands = [one for one in before if one.op == COMMANDS[cause]]
        return bool(commands) and at_s - commands[-1].answered_s <= SILENCE_S


class Wire:
    """One connection to the console, opened again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: ssl.SSLSocket | None = None

    def send(self, data: bytes, method: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; (0, {}, b"") where the server has closed the connection without a word."""
        for _ in range(2):
            fresh = self._socket is None
            if self._socket is None:
                plain = socket.create_connection(("127.0.0.1", self._port))
                self._socket = unverified().wrap_socket(plain)
                self._socket.settimeout(60.0)
            try:
                self._socket.sendall(data)
                return self._answer(self._socket, method)
            except (OSError, http.client.HTTPException):
                self.close()
                if fresh:  # else it was closed since the last request, which is anybody's right
                    break
        return 0, {}, b""

    def _answer(self, connection: ssl.SSLSocket, method: str) -> tuple[int, dict[str, str], bytes]:
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if headers.get("content-type", "").startswith(("text/event-stream", "multipart/")):
            body = answer.read1(1000)
            self.close()
        else:
            body = answer.read()
            if answer.will_close:
                self.close()
        return answer.status, headers, body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def wire_bytes(ask: Ask, random_: random.Random) -> bytes:
    """The request as a client sends it; one in twenty as none would."""
    target = re.sub(r"[^!-~]", "%20", ask.target)
    lines = [f"{ask.method} {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in ask.headers]
    lines.append(f"Content-Length: {len(ask.body)}")
    odd = random_.randint(0, 140)
    if odd == 0:
        lines[0] = lines[0].replace("HTTP/1.1", random_.choice(("HTTP/1.0", "HTTP/9.9", "HTTP/1.1 x", "ICY", "")))
    elif odd == 1:
        lines[0] = f"{ask.method.lower()} https://car.local{target} HTTP/1.1"
    elif odd == 2:
        lines.append(random_.choice(lines))  # a header twice
    elif odd == 3:
        lines[-1] = f"Content-Length: {random_.choice(('-1', 'x', '1e3', '9' * 30, '0x10', ' ', '+5', '5, 5'))}"
    elif odd == 4:
        lines.insert(
            1, random_.choice((" folded", "no colon", "X: \x00", ": x", "X" * 20000 + ": y", f"A: b\r{MARK}: 1"))
        )
    elif odd == 5:
        lines = [line for line in lines if not line.startswith("Host")]
    elif odd == 6:
        lines.append("Expect: 100-continue")
    text = ("\n" if odd == 7 else "\r\n").join([*lines, "", ""])
    return text.encode("utf-8") + ask.body


def log_in(car: ConsoleCar, fuzzer: Fuzzer) -> None:
    with contextlib.closing(Https(car.port, timeout_s=60.0)) as browser:
        page = browser.ask("GET", "/")[2]
        fuzzer.known.token = re.findall(r'csrf-token" content="([^"]+)"', page)[0]
        token = car.console.console.sessions.create("127.0.0.1")
        fuzzer.known.cookie = f"session={browser.cookies['session']}; {TOKEN_COOKIE}={token}"


def test_requests_by_chance_over_tls_get_no_500_and_move_nothing_unlawfully(car: ConsoleCar) -> None:
    made: list[Fuzzer] = []
    fuzzer = Fuzzer(car.app, 99, lambda: expired_cookie(car.app, made), NEUTRAL_US)
    made.append(fuzzer)
    witness, wire, statuses = Witness(car), Wire(car.port), Counter[int]()
    threads = threading.active_count()
    car.drive_ready()
    sessions = car.console.console.sessions
    for _ in range(COUNT):
        if sessions.find(fuzzer.known.cookie.rpartition("=")[2], use=False) is None:
            log_in(car, fuzzer)
        if fuzzer.random.random() < 0.03:  # a stop that lasted would leave nothing to be wrong
            car.gate.ask("reset")
        witness.request = ask = fuzzer.next()
        status, headers, body = wire.send(wire_bytes(ask, fuzzer.random), ask.method)
        statuses[status] += 1
        assert MARK.lower() not in headers and "\r" not in "".join(headers.values()), ask
        found: object = None
        with contextlib.suppress(ValueError):
            found = json.loads(body)
        if isinstance(found, dict):
            fuzzer.known.learn(ask, found)
        late = status == 503 and b'"no_answer"' in body  # this machine was too busy for the gate's answer
        assert late or status in (0, 505) or status < 500 or b'"storage"' in body, (ask, body)
    wire.close()
    assert witness.unlawful == []
    assert {200, 400, 401, 403, 404, 405, 409} <= set(statuses), statuses
    assert statuses[0] + statuses[503] < COUNT // 50, statuses
    rows = car.gate.throttle()
    unexplained = [
        row for row in rows if not row.cause.startswith("neutral") and not witness.explains(row.cause, row.t_s)
    ]
    assert unexplained == []
    # The calibration may lawfully have changed, and with it what neutral is.
    saved = [one.calibration for one in car.console.link.calibration_history()]
    neutral = {NEUTRAL_US, *(one.throttle.neutral_us for one in saved if one is not None)}
    assert {row.pulse_us for row in rows if row.cause.startswith("neutral")} <= neutral
    # Nothing was worn out by it: gate, console, threads, places of viewers.
    assert car.gate.process is not None and car.gate.process.poll() is None and car.status is None
    assert car.gate.status()["ok"] and car.gate.stderr() == ""
    with contextlib.closing(Https(car.port, timeout_s=60.0)) as other:
        assert other.ask("GET", "/auth")[0] == 401
    assert threading.active_count() <= threads + 1  # and the pilot's own


def test_bytes_that_are_no_http_wear_nothing_out(car: ConsoleCar) -> None:
    random_ = random.Random(5)
    for number in range(60):
        noise = random_.randbytes(random_.choice((1, 20, 300, 5000)))
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", car.port)) as plain:
            if number % 2:
                with unverified().wrap_socket(plain) as connection:
                    connection.sendall(random_.choice((noise, b"GET / HTTP/1.1\r\n" + noise, b"\r\n" * 500)))
            else:
                plain.sendall(random_.choice((noise, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise)))
    with contextlib.closing(Https(car.port, timeout_s=60.0)) as other:
        assert other.ask("GET", "/auth")[0] == 401
    assert {row.pulse_us for row in car.gate.throttle()} == {NEUTRAL_US}
