"""A console over TLS in front of a real gate process and a pilot that this test plays. Not a test itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import zmq
from flask import Flask

from calibration.auth import PasswordStore
from tests.vehicle.gate_process import MODEL, FakePilot, GateProcess
from vehicle.car_config import load_car_config
from vehicle.console import ConsoleProcess
from vehicle.links import endpoint


class PilotSockets:
    """pilot.request, whose answers a test may change, and pilot.preview at 20 Hz."""

    def __init__(self, runtime: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, dict[str, Any]] = {
            "status": {"ok": True, "pid": 99, "fps": 15.0, "interval_ms": {"p50": 100.0, "late": 0, "missed": 0}},
            "reload": {"ok": True, "model": MODEL, "trial": False},
        }
        self.value, self.seq = 90, 0
        self._context = zmq.Context()
        self._requests = self._context.socket(zmq.ROUTER)
        self._requests.bind(endpoint(runtime, "pilot.request"))
        self._preview = self._context.socket(zmq.PUB)
        self._preview.bind(endpoint(runtime, "pilot.preview"))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pilot sockets")
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.005):
            while self._requests.poll(0):
                *envelope, text = self._requests.recv_multipart()
                self.asked.append(json.loads(text))
                unknown = {"ok": False, "reason": "unknown_op", "what": "this pilot is played by a test"}
                answer = self.answers.get(self.asked[-1]["op"], unknown)
                self._requests.send_multipart([*envelope, json.dumps(answer).encode()])
            now = int(time.monotonic() * 20)
            if now != self.seq:
                self.seq = now
                header = {
                    "seq": now, "stamp_s": time.monotonic(), "height": 120, "width": 160, "steering_deg": 3.0,
                    "speed_mps": 0.7,
                }  # fmt: skip
                self._preview.send_multipart([json.dumps(header).encode(), bytes([self.value]) * 19200])

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._context.destroy(linger=0)


class ConsoleCar:
    """Gate process, pilot, and a console that serves from threads of this process on 127.0.0.1.

    Args:
        folder: for everything; a short path.
    """

    def __init__(self, folder: Path) -> None:
        self.gate = GateProcess(folder).start().wait_answer()
        self.sockets = PilotSockets(self.gate.runtime)
        self.pilot: FakePilot | None = None
        self.config = load_car_config(self.gate.config)
        self.password = PasswordStore(self.gate.state_dir / "console").reset()
        self.console = ConsoleProcess(
            self.config, self.gate.runtime, host="127.0.0.1", port=0, http_port=None, announce=False
        )
        self._ending = threading.Event()
        self.status: int | None = None
        self._thread = threading.Thread(target=self._serve, name="console main")
        self._thread.start()

    def _serve(self) -> None:
        self.status = self.console.run(self._ending)

    @property
    def port(self) -> int:
        return self.console.https.port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def app(self) -> Flask:
        found = self.console.https.wsgi_app
        assert isinstance(found, Flask)
        return found

    def drive_ready(self) -> None:
        """A pilot sends good intents from now on."""
        self.pilot = FakePilot(self.gate.runtime)
        assert self.gate.ask("model", sha256=MODEL, trial=False)["ok"]

    def close(self) -> None:
        self._ending.set()
        self._thread.join(10.0)
        self.console.close()
        if self.pilot is not None:
            self.pilot.close()
        self.sockets.close()
        self.gate.close()


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def raw(port: int, request: bytes, timeout_s: float = 2.0) -> bytes:
    """What the server says to these very bytes, until it closes the connection, says no more, or time is up."""
    with unverified().wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.settimeout(timeout_s)
        answer, begun_s = b"", time.monotonic()
        with contextlib.suppress(OSError):
            connection.sendall(request)
            while time.monotonic() - begun_s < 3 * timeout_s and (piece := connection.recv(65536)):
                answer += piece
    return answer


class Https:
    """A browser of a few lines: one connection, cookies, the CSRF token, and the statuses that it has seen."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_s, context=unverified())
        self.cookies: dict[str, str] = {}
        self.token = ""
        self.statuses: list[int] = []
        self.lease = ""  # the last one that it got
        self._used_s = 0.0

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], str]:  # fmt: skip
        """Status, the JSON of the answer (or {}), and its text."""
        sent = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()), "X-CSRFToken": self.token}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        if time.monotonic() - self._used_s > 5.0:
            self.connection.close()  # the server does so after ten idle seconds
        self.connection.request(method, path, data, {**sent, **(headers or {})})
        answer = self.connection.getresponse()
        text = answer.read().decode()
        self.statuses.append(answer.status)
        self._used_s = time.monotonic()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        found = found if isinstance(found, dict) else {}
        self.lease = found["lease"] if isinstance(found.get("lease"), str) else self.lease
        return answer.status, found, text

    def log_in(self, password: str) -> Https:
        found = re.search(r'name="csrf-token" content="([^"]+)"', self.ask("GET", "/")[2])
        assert found is not None
        self.token = found[1]
        self.connection.close()  # a busy machine may have let ten idle seconds pass
        status, _, text = self.ask("POST", "/login", {"password": password}, {"Content-Type": "application/json"})
        assert status == 200, text
        return self

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        status, found, text = self.ask("POST", path, {} if body is None else body)
        assert status == 200, text
        return found

    def close(self) -> None:
        self.connection.close()
