"""Attacks on the console, one test each, over TLS and with a real gate behind it: never a 500, and nothing moves.

The car is ready: calibrated, and with a pilot that would drive at once. What is asserted of motion is the train of
pulses that the gate has written (`Target.close`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calibration.test_app import OPEN, PAGES, STOPS, rules
from tests.vehicle.console_car import ConsoleCar, Https, raw
from tests.vehicle.gate_process import CENTER_US, NEUTRAL_US, until

pytestmark = pytest.mark.slow  # a real gate, in real time

CHANGING_GET = "/api/set_calibration_mode"
SECRETS = (b"root:", b"argon2", b"PRIVATE KEY")


class Target:
    """A car that is attacked, and every browser that was used for it."""

    def __init__(self, folder: Path) -> None:
        self.car = ConsoleCar(folder)
        self.car.drive_ready()
        self.shared = self.car.console.console
        self._browsers: list[Https] = []
        self._statuses: list[int] = []

    def browser(self, log_in: bool = True) -> Https:
        made = Https(self.car.port, timeout_s=60.0)
        self._browsers.append(made)
        return made.log_in(self.car.password) if log_in else made

    def raw(self, request: bytes) -> bytes:
        """The answer to these very bytes."""
        found = raw(self.car.port, request, timeout_s=5.0)
        self._statuses += [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", found)]
        return found

    def ready(self) -> None:
        """Until an `arm` would succeed, were it allowed."""
        assert until(lambda: self.car.gate.reasons() == {"disarmed"}), self.car.gate.reasons()

    def held(self, browser: Https, throttle: float = 0.0, steering: float = 0.3) -> tuple[str, dict[str, Any]]:
        """The lease of somebody who has lawfully armed the car by hand, and their last command."""
        for _ in range(20):
            self.ready()
            lease = browser.ask("POST", "/api/v1/lease", {"kind": "manual"})[1].get("lease", "")
            command = {"lease": lease, "steering": steering, "throttle": throttle}
            if (
                browser.ask("POST", "/api/v1/arm", {"mode": "manual", "lease": lease})[0] == 200
                and browser.ask("POST", "/api/v1/manual", command)[0] == 200
            ):
                return lease, command
        raise AssertionError("this machine is too slow for a lease of 0.25 s")

    def no_500(self) -> None:
        seen = self._statuses + [status for browser in self._browsers for status in browser.statuses]
        assert seen and all(status < 500 for status in seen), seen

    def no_motion(self) -> None:
        """Not a pulse of the whole train has left neutral, and the gate that wrote it lives."""
        assert self.car.gate.status()["ok"]
        assert until(lambda: len(self.car.gate.throttle()) > 20, 5.0)  # an attack may be over sooner than that
        rows = self.car.gate.throttle()
        assert {row.pulse_us for row in rows} == {NEUTRAL_US}

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        self.car.close()


@pytest.fixture
def target() -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        made = Target(Path(name))
        try:
            yield made
            with contextlib.closing(Https(made.car.port)) as other:  # and the console is there for everybody else
                assert other.ask("GET", "/auth")[0] == 401
            made.no_500()
            made.no_motion()
        finally:
            made.close()


def everything(target: Target) -> list[tuple[str, str]]:
    """Every method and path that is neither open to all nor a stop."""
    app_rules = rules(target.car.app)
    return [
        (method, path) for method, path in app_rules if path not in OPEN + STOPS and not path.startswith("/static/")
    ]


def test_no_session(target: Target) -> None:
    target.ready()
    stranger = target.browser(log_in=False)
    for cookies in ({}, {"deepracer_token": "x" * 43}, {"deepracer_token": "", "session": "e30.x.y"}):
        stranger.cookies = dict(cookies)
        for method, path in everything(target):
            status, found, text = stranger.ask(method, path, {"mode": "autonomous", "drive_mode": "auto"})
            assert status == 302 if path in PAGES else (status, found["error"]["reason"]) == (401, "unauthenticated")
            assert "csrf-token" not in text
    assert target.car.gate.status()["mode"] == "disarmed"


def test_an_expired_session(target: Target) -> None:
    browser = target.browser()
    lease, command = target.held(browser)
    session = target.shared.sessions.find(browser.cookies["deepracer_token"])
    assert session is not None
    session.created_s -= 13 * 3600.0
    for throttle in (0.8, -0.8):
        status, found, _ = browser.ask("POST", "/api/v1/manual", {**command, "throttle": throttle})
        assert (status, found["error"]["reason"]) == (401, "unauthenticated")
    assert target.car.gate.status()["lease"] is None  # what it held is let go of at once
    target.ready()
    for method, path in everything(target):
        assert browser.ask(method, path, {"mode": "manual", "lease": lease})[0] in (302, 401), path
    assert target.car.gate.status()["mode"] == "disarmed"
    assert browser.post("/api/v1/stop")["mode"] == "stopped"  # but this, always


def test_a_wrong_csrf_token(target: Target) -> None:
    browser, other = target.browser(), target.browser()
    target.ready()
    right = browser.token
    wrong = (
        {"X-CSRFToken": ""}, {"X-CSRFToken": "x" * 43}, {"X-CSRFToken": other.token}, {"X-CSRFToken": right[:-1]},
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        # what a form of another site can send without a preflight
        {"X-CSRFToken": "", "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"},
    )  # fmt: skip
    changing = [one for one in everything(target) if one[0] != "GET" or one[1] == CHANGING_GET]
    for headers in wrong:
        for method, path in changing:
            status, found, _ = browser.ask(method, path, {"mode": "autonomous"}, headers)
            assert (status, found["error"]["reason"]) == (403, "csrf"), (method, path, headers)
    assert target.car.gate.status()["mode"] == "disarmed"


def test_brute_force(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    verify = target.shared.passwords.verify
    monkeypatch.setattr(target.shared.passwords, "verify", lambda given: (tried.append(given), verify(given))[1])
    guesser = target.browser(log_in=False)
    guesser.token = re.findall(r'csrf-token" content="([^"]+)"', guesser.ask("GET", "/")[2])[0]
    begun_s = time.monotonic()
    statuses = [
        guesser.ask("POST", "/login", {"password": f"guess {i}"}, {"Content-Type": "application/json"})[0]
        for i in range(100)
    ]
    spent_s = time.monotonic() - begun_s
    assert set(statuses) == {403, 429} and statuses[:5] == [403] * 5
    # After the fifth: 1 s, 2 s, 4 s, ... A machine that takes ten seconds for this gives away three guesses more.
    assert len(tried) <= 6 + spent_s
    right = {"password": target.car.password}
    assert guesser.ask("POST", "/login", right, {"Content-Type": "application/json"})[0] == 429
    assert guesser.ask("GET", "/auth")[0] == 401
    assert target.car.password not in tried


PATHS = (
    "/static/../console.py", "/static/%2e%2e/auth.py", "/static//etc/passwd", "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/static/..%5c..%5cauth.py", "/static/%252e%252e%252fauth.py", "/static/....//....//etc/passwd",
    "/../../etc/passwd", "//etc/passwd", "/static/\x2e\x2e/tls/key.pem",
    "/api/v1/uploads/..%2f..%2fpassword.json", "/static/%00/etc/passwd",
    "/api/v1/uploads/%2fetc%2fpasswd", "/api/logs/..%2f..%2fetc%2fpasswd/5", "/api/is_model_installed?filename=../../x",
    "file:///etc/passwd", "http://car.local/../../etc/passwd", "/models/../static/../../console/password.json",
)  # fmt: skip


def test_path_traversal(target: Target) -> None:
    browser = target.browser()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    for path in PATHS:
        answer = target.raw(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 ") and not any(secret in answer for secret in SECRETS), (path, answer)
    outside = ("../../evil", "/tmp/evil", "..\\..\\evil", "%2e%2e%2fevil", "..")
    for name in outside:
        assert browser.ask("POST", f"/api/v1/models/{name.replace('/', '%2f')}/activate", {})[0] in (404, 405)
        assert browser.ask("DELETE", f"/api/v1/models/{name.replace('/', '%2f')}")[0] in (404, 405)
        assert browser.ask("PUT", "/api/deleteModels", {"filenames": [name]})[1]["success"] is False
        assert browser.ask("POST", "/api/v1/uploads", {"size": 5, "sha256": name})[0] == 400
        status, found, _ = form(browser, name + ".tar.gz", b"not a model")
        assert (status, found["success"]) == (200, False)
    assert not list(target.car.gate.state_dir.parent.rglob("*evil*")) and not Path("/tmp/evil").exists()


def form(browser: Https, name: str, data: bytes, length: int | None = None) -> tuple[int, dict[str, Any], str]:
    """DeepRacer's upload."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if length is not None:
        headers["Content-Length"] = str(length)
    return browser.ask("PUT", "/api/uploadModels", body, headers)


def uploaded(browser: Https, data: bytes) -> tuple[int, dict[str, Any], str]:
    """Sent in pieces and installed; the verdict."""
    sha256 = hashlib.sha256(data).hexdigest()
    assert browser.ask("POST", "/api/v1/uploads", {"size": len(data), "sha256": sha256})[0] == 201
    status, found, text = browser.ask("PATCH", f"/api/v1/uploads/{sha256}", data, {"Upload-Offset": "0"})
    assert (status, found["offset"]) == (200, len(data)), text
    return browser.ask("POST", f"/api/v1/uploads/{sha256}/install", {"activate": True})


def bytes_on_disk(target: Target) -> int:
    folder = target.car.gate.state_dir / "console"
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_an_oversize_upload(target: Target) -> None:
    browser = target.browser()
    before = bytes_on_disk(target)
    sha256 = "5a" * 32
    for size in (64 * 2**20 + 1, 2**40, 2**63, -1):
        status, found, _ = browser.ask("POST", "/api/v1/uploads", {"size": size, "sha256": sha256})
        assert status in (400, 413) and found["error"]["reason"] in ("too_large", "out_of_range")
    assert browser.ask("POST", "/api/v1/uploads", {"size": 64 * 2**20, "sha256": sha256})[0] == 201
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    for method, path, least in (
        ("PATCH", f"/api/v1/uploads/{sha256}", 8 * 2**20 + 1), ("PUT", "/api/uploadModels", 66 * 2**20 + 1),
        ("POST", "/api/v1/cap", 2**18 + 1), ("POST", "/login", 2**18 + 1), ("PUT", "/api/v1/calibration", 2**18 + 1),
    ):  # fmt: skip
        for length in (least, 10**13):  # announced; nobody waits for it
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{target.car.port}\r\nCookie: {cookies}\r\n"
                f"X-CSRFToken: {browser.token}\r\nUpload-Offset: 0\r\nContent-Length: {length}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n\r\n"
            )
            answer = target.raw(head.encode())
            assert re.match(rb"HTTP/1\.1 413", answer), (method, path, answer)
    assert bytes_on_disk(target) - before < 2**20


def test_a_zip_bomb(target: Target) -> None:
    browser = target.browser()
    squeeze = zlib.compressobj(9, wbits=31)
    info = tarfile.TarInfo("policy.onnx")
    info.size = 2**27
    head = io.BytesIO(info.tobuf())
    bomb = squeeze.compress(head.read()) + b"".join(squeeze.compress(bytes(2**20)) for _ in range(128))
    bomb += squeeze.flush()
    assert len(bomb) < 200_000
    before = bytes_on_disk(target)
    status, found, text = uploaded(browser, bomb)
    assert (status, found["error"]["reason"]) == (413, "too_large"), text
    status, found, _ = form(browser, "bomb.tar.gz", bomb)
    assert (status, found["success"]) == (200, False) and "unpack to more than" in found["reason"]
    # A body that claims to be compressed is not unpacked by the console at all.
    assert browser.ask("POST", "/api/v1/cap", bomb, {"Content-Encoding": "gzip"})[0] in (400, 413)
    status, *_ = browser.ask("POST", "/api/v1/cap", b"[" * 200_000)
    assert status == 400
    assert bytes_on_disk(target) - before < 2**20
    assert browser.ask("GET", "/api/v1/models")[1]["models"] == []


INJECTION = "\r\nX-Evil: 1\r\nSet-Cookie: deepracer_token=evil"


def test_header_injection(target: Target) -> None:
    browser = target.browser()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    quoted = "%0d%0aX-Evil:%201%0d%0aSet-Cookie:%20a=b"
    for head in (
        f"GET /models{quoted} HTTP/1.1\r\nHost: x", f"GET /{quoted} HTTP/1.1\r\nHost: x",
        f"GET /login?next={quoted} HTTP/1.1\r\nHost: x", f"GET /models HTTP/1.1\r\nHost: x{quoted}",
        f"GET /static/{quoted} HTTP/1.1\r\nHost: x", f"GET /route?width={quoted} HTTP/1.0\r\nHost: x",
        f"GET /api/v1/logs?n={quoted} HTTP/1.1\r\nHost: x", "GET /models HTTP/1.1\r\nHost: x\nX-Evil: 1",
        "GET /models HTTP/1.1\r\nHost: x\r\nOrigin: https://x\rX-Evil: 1", f"OPTIONS /{quoted} HTTP/1.1\r\nHost: x",
    ):  # fmt: skip
        for cookie in ("", f"\r\nCookie: {cookies}"):
            answer = target.raw(f"{head}{cookie}\r\nConnection: close\r\n\r\n".encode())
            header, _, _ = answer.partition(b"\r\n\r\n")
            assert header.startswith(b"HTTP/1.1 ") and not re.search(rb"(?mi)^(x-evil|set-cookie: a)", header), answer
    # What is stored and told to everybody else.
    assert browser.ask("PUT", "/api/v1/settings", {"name": f"car{INJECTION}"})[0] == 400
    form(browser, "x%0d%0aX-Evil: 1.tar.gz", b"not a model")
    browser.ask("POST", "/api/v1/lease", {"kind": "manual"}, {"X-Forwarded-For": "1.2.3.4%0d%0aX-Evil: 1"})
    # One request inside of another: the body of a refused one is never read as the next.
    inner = f"POST /api/v1/arm HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\nX-CSRFToken: {browser.token}\r\n\r\n"
    for length in (
        "Transfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 0, 9",
    ):
        answer = target.raw(f"POST /login HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n0\r\n\r\n{inner}".encode())
        assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert target.car.gate.status()["mode"] == "disarmed"


def test_a_second_browser_that_fights_for_the_lease(target: Target) -> None:
    driver, thief = target.browser(), target.browser()
    begun_s = time.monotonic()
    lease, command = target.held(driver)
    attempts = (
        ("POST", "v1/lease", lambda: {"kind": "manual"}), ("POST", "v1/lease", lambda: {"kind": "calibration"}),
        ("POST", "v1/arm", lambda: {"mode": "manual", "lease": lease}), ("POST", "v1/renew", lambda: {"lease": lease}),
        ("POST", "v1/manual", lambda: {"lease": lease, "steering": -1.0, "throttle": 1.0}),
        ("POST", "v1/pulse", lambda: {"lease": lease, "throttle_us": NEUTRAL_US - 20.0}),
        ("POST", "v1/release", lambda: {"lease": lease}), ("PUT", "start_stop", lambda: {"start_stop": "start"}),
        ("PUT", "manual_drive", lambda: {"angle": 1.0, "throttle": 1.0}),
    )  # fmt: skip
    thief.ask("PUT", "/api/drive_mode", {"drive_mode": "manual"})
    fought = 0
    for _ in range(10):
        for method, path, values in attempts:
            driver.ask("POST", "/api/v1/manual", command)
            _, found, _ = thief.ask(method, f"/api/{path}", values())
            won = found.get("ok") or found.get("success")
            if driver.ask("POST", "/api/v1/manual", command)[0] == 200:
                assert not won, (path, found)  # whoever has the controls keeps them
                fought += 1
            else:  # this machine was too slow for 0.25 s; what a thief gets then is theirs by right
                thief.ask("PUT", "/api/start_stop", {"start_stop": "stop"})
                lease, command = target.held(driver)
    assert fought > 20
    steering = [row.pulse_us for row in target.car.gate.rows() if row.channel == "steering" and row.t_s >= begun_s]
    assert min(steering) == CENTER_US and max(steering) > CENTER_US + 50.0  # to the driver's side only


def test_replayed_requests(target: Target) -> None:
    browser = target.browser()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    def recorded(method: str, path: str, values: dict[str, Any]) -> bytes:
        """The very bytes of a lawful request."""
        body = json.dumps(values)
        return (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{target.car.port}\r\nCookie: {cookies}\r\n"
            f"X-CSRFToken: {browser.token}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        ).encode()

    lease, command = target.held(browser)
    full = {**command, "throttle": 1.0}
    tape = [
        recorded("POST", "/api/v1/arm", {"mode": "manual", "lease": lease}),
        recorded("POST", "/api/v1/manual", full), recorded("POST", "/api/v1/renew", {"lease": lease}),
        recorded("POST", "/api/v1/pulse", {"lease": lease, "throttle_us": NEUTRAL_US - 20.0}),
    ]  # fmt: skip
    assert browser.ask("POST", "/api/v1/release", {"lease": lease})[0] in (200, 409)
    target.ready()
    for _ in range(3):  # the session is still valid, what it held is over
        for request in tape:
            assert re.match(rb"HTTP/1\.1 409 ", target.raw(request))
    # With another lease in force, too: the old commands do not come back to life.
    target.held(browser)
    for request in tape[1:]:
        assert re.match(rb"HTTP/1\.1 409 ", target.raw(request))
    tape += [
        recorded("PUT", "/api/drive_mode", {"drive_mode": "manual"}),
        recorded("PUT", "/api/start_stop", {"start_stop": "start"}),
        recorded("PUT", "/api/manual_drive", {"angle": 0.0, "throttle": 1.0}), recorded("POST", "/api/v1/arm", {}),
        recorded("GET", CHANGING_GET, {}),
    ]  # fmt: skip
    browser.ask("GET", "/logout")
    target.ready()
    for request in tape:  # and after a logout nothing at all
        assert re.match(rb"HTTP/1\.1 401 ", target.raw(request))
    assert target.car.gate.status()["mode"] == "disarmed"
