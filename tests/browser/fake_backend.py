"""The console's own application over a `FakeCar`: ``python tests/browser/fake_backend.py [--port N]``.

For developing the pages and for their tests. Around the application there is ``/_fake``: GET tells what was asked and
which pulses went out; POST sets the car up ({"begin": {...}}, {"car": {...}}), takes it off the network ({"gone":
true}) and lets requests fail ({"faults": {PATH: [STATUS, ...]}}, where -1 hangs, 0 drops the connection, and 1 lets
it pass).
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_car import FakeCar

from calibration.app import ConsoleSettings, create_app
from calibration.auth import PasswordStore
from calibration.server import ConsoleServer

PASSWORD = "test-password"
# As strict as the console may ever be, beside what it says itself: whatever needs more is a fault of the pages.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
THREADS = 24
HANG_S = 4.0
PASS = 1
MAX_LOGGED_BODY = 4096
ENDLESS = ("/api/v1/events", "/route")

Environ = dict[str, Any]
Start = Callable[..., Any]


class Around:
    """A WSGI application around the console's, for tests."""

    def __init__(self, app: Callable[[Environ, Start], Iterable[bytes]], car: FakeCar) -> None:
        self._app, self._car = app, car
        self._log: deque[dict[str, Any]] = deque(maxlen=5000)
        self._faults: dict[str, list[int]] = defaultdict(list)
        self._gone = False

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """One request."""
        path = environ["PATH_INFO"]
        if path == "/_fake":
            return self._fake(environ, start)
        if path.startswith(("/api/", "/route")):
            self._remember(environ, path)
        if self._gone:
            return _drop(start)
        fault = self._faults[path].pop(0) if self._faults[path] else PASS
        if fault != PASS:
            if fault == 0:
                return _drop(start)
            if fault == -1:
                time.sleep(HANG_S)
            return _plain(start, f"{max(fault, 500)} Broken on purpose", b"broken on purpose")

        def with_policy(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start(status, [*headers, ("Content-Security-Policy", CSP)], *rest)

        answer = self._app(environ, with_policy)
        return self._until_gone(answer) if path in ENDLESS else answer

    def _until_gone(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for piece in answer:
                if self._gone:
                    return
                yield piece
        finally:
            getattr(answer, "close", lambda: None)()

    def _remember(self, environ: Environ, path: str) -> None:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = None
        if 0 < length <= MAX_LOGGED_BODY and "json" in environ.get("CONTENT_TYPE", ""):
            raw = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(raw)
            body = json.loads(raw)
        self._log.append({"t": time.monotonic(), "method": environ["REQUEST_METHOD"], "path": path, "body": body})

    def _fake(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            self._set_up(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        with self._car.lock:
            trace, mode = list(self._car.trace), self._car.core.mode.value
        told = {"log": list(self._log), "trace": trace, "mode": mode, "now": time.monotonic()}
        return _plain(start, "200 OK", json.dumps(told).encode())

    def _set_up(self, wanted: dict[str, Any]) -> None:
        if "begin" in wanted:
            self._faults.clear()
            self._gone = False
            self._car.begin(**wanted["begin"])
            self._log.clear()
        with self._car.lock:
            for key, value in wanted.get("car", {}).items():
                setattr(self._car, key, replace(self._car.seen, **value) if key == "seen" else value)
        self._gone = wanted.get("gone", self._gone)
        for path, found in wanted.get("faults", {}).items():
            self._faults[path] = list(found)


def _plain(start: Start, status: str, body: bytes) -> list[bytes]:
    start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _drop(start: Start) -> list[bytes]:
    """More is promised than is sent, so the server ends the connection and the browser has no answer."""
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1000")])
    return [b"cut"]


def main() -> None:
    """Serve until SIGTERM or SIGINT; prints the address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with tempfile.TemporaryDirectory() as folder:
        car = FakeCar(Path(folder))
        passwords = PasswordStore(Path(folder) / "console")
        passwords.change(passwords.ensure() or "", PASSWORD)
        app = create_app(car, ConsoleSettings(Path(folder) / "console", version="0.1.0"))
        app.config["TEMPLATES_AUTO_RELOAD"] = True
        server = ConsoleServer(Around(app.wsgi_app, car), "127.0.0.1", port, tls=None, threads=THREADS)
        car.start()
        server.run("fake-console")
        # localhost: there, and only there, browsers keep cookies for HTTPS without it.
        print(f"http://localhost:{server.port}", flush=True)
        ending.wait()
        app.extensions["hotlap"].stopping.set()
        server.close()
        car.close()


if __name__ == "__main__":
    sys.exit(main())
