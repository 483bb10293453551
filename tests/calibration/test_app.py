"""Who may come in, what every answer carries, and what a nonsense request gets: never a 500, never motion."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from flask import Flask

from tests.calibration.console_rig import CAR, Browser, FakeCar, reason, shared

PAGES = ("/", "/home", "/models", "/calibrate", "/health", "/settings")
STOPS = ("/api/v1/stop", "/api/emergency_stop")
OPEN = ("/", "/home", "/login", "/auth", "/logout", "/redirect_login")


def rules(app: Flask) -> list[tuple[str, str]]:
    """Every path, with something in its variables, and every method."""
    found = []
    for rule in app.url_map.iter_rules():
        path = rule.rule
        for name, value in (
            ("<sha256>", "5a" * 32), ("<upload>", "5a" * 32), ("<folder>", "m"), ("<model>", "model"),
            ("<any(angle, throttle):channel>", "angle"), ("<log_type>", "x"), ("<int:lines>", "5"),
            ("<path:filename>", "stop.js"),
        ):  # fmt: skip
            path = path.replace(name, value)
        found += [(method, path) for method in sorted(rule.methods or ()) if method not in ("HEAD", "OPTIONS")]
    return found


def test_without_a_session_everything_but_the_login_and_the_stop_is_closed(app: Flask, car: FakeCar) -> None:
    browser = Browser(app)
    browser.read_token()
    car.asked.clear()
    checked = 0
    for method, path in rules(app):
        if path in OPEN + STOPS or path.startswith("/static/"):
            continue
        answer = browser.ask(method, path, json={} if method != "GET" else None)
        if path in PAGES:
            assert (answer.status_code, answer.headers["Location"]) == (302, f"/login?next={path}")
        else:
            assert (answer.status_code, reason(answer)) == (401, "unauthenticated"), (method, path)
        checked += 1
    assert checked > 60
    assert browser.get("/nothing").status_code == 401
    assert car.asked == []


def test_without_its_token_no_change_is_made(app: Flask, car: FakeCar, browser: Browser) -> None:
    car.asked.clear()
    checked = 0
    for method, path in rules(app):
        changes = method != "GET" or path == "/api/set_calibration_mode"
        if not changes or path in OPEN + STOPS:
            continue
        for headers in ({}, {"X-CSRFToken": "x" * 43}):
            answer = browser.ask(method, path, csrf=False, json={}, headers=headers)
            assert (answer.status_code, reason(answer)) == (403, "csrf"), (method, path)
        checked += 1
    assert checked > 40
    assert car.asked == []


@pytest.mark.parametrize("path", STOPS)
def test_a_stop_needs_neither_session_nor_token(app: Flask, car: FakeCar, browser: Browser, path: str) -> None:
    stranger = Browser(app)
    browser.client.set_cookie("deepracer_token", "of yesterday", domain="car.local")
    for one in (stranger, browser):
        lawful = Browser(app)
        lawful.log_in(shared(app).passwords.reset())
        lease = lawful.post("/api/v1/lease", {"kind": "manual"}).json["lease"]  # type: ignore[index]
        assert lawful.post("/api/v1/arm", {"mode": "manual", "lease": lease}).status_code == 200
        # Rationed as logins are, a stop would come too late.
        for _ in range(50):
            assert one.ask("POST", path, csrf=False, data=b"whatever").status_code == 200
        assert car.mode == "stopped"
        # But it ends nothing else: only who is logged in releases it.
        assert one.ask("POST", "/api/v1/reset", csrf=False, json={}).status_code == 401
        assert lawful.post("/api/v1/reset").status_code == 200
        car.advance(1.0)
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert stranger.ask(method, path).status_code in (401, 405)
    assert car.mode == "disarmed"


@pytest.mark.parametrize("path", STOPS)
@pytest.mark.parametrize(
    "headers", ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"})
)
def test_another_site_cannot_stop_a_car(app: Flask, car: FakeCar, path: str, headers: dict[str, str]) -> None:
    car.asked.clear()
    answer = Browser(app).ask("POST", path, json={}, headers=headers)
    assert (answer.status_code, reason(answer)) == (403, "csrf")
    assert car.asked == []


@pytest.mark.parametrize(
    ("headers", "status"),
    (
        ({"Origin": CAR}, 200), ({"Origin": CAR + "/"}, 200), ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://car.local"}, 403),
        ({"Origin": "https://car.local:8443"}, 403), ({"Origin": "https://[x"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
    ),
)  # fmt: skip
def test_another_site_changes_nothing_even_with_the_token(
    browser: Browser, headers: dict[str, str], status: int
) -> None:
    assert browser.post("/api/v1/disarm", headers=headers).status_code == status


def test_the_pages_are_there_with_their_token(browser: Browser) -> None:
    for path in PAGES:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert f'name="csrf-token" content="{browser.token}"' in answer.text
        assert "<script>" not in answer.text and " onclick=" not in answer.text and " style=" not in answer.text
    assert "password" in Browser(browser.client.application).get("/login").text


def test_every_answer_has_the_headers(browser: Browser) -> None:
    for path in ("/", "/api/v1/state", "/nothing", "/static/stop.js", "/api/v1/models/x/activate"):
        answer = browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")
        answer.close()


def test_no_redirection_leads_away(browser: Browser) -> None:
    for path in ("//evil.example", "///evil.example/..", "/\\evil.example", "/api//v1/state", "/models//"):
        answer = browser.ask("GET", "/", raw_path=path)
        assert answer.status_code == 404
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ("/static/../auth.py", "/static/%2e%2e/auth.py", "/static//etc/passwd", "/static/..%2f..%2fsetup.cfg", "/static/",
     "/api/v1/uploads/..%2f..%2fx", "/api/v1/models/..%2f..%2fx/activate"),
)  # fmt: skip
def test_no_path_leads_out(browser: Browser, path: str) -> None:
    assert browser.get(path).status_code in (404, 405)


@pytest.mark.parametrize(
    ("data", "status", "why"),
    (
        (b"", 400, "missing_key"), (b"{}", 400, "missing_key"), (b"[]", 400, "not_an_object"),
        (b"{", 400, "bad_request"), (b"[" * 100000, 400, "bad_request"),
        (b'{"percent": NaN}', 400, "bad_request"), (b'{"percent": 1e999}', 400, "out_of_range"),
        (b'{"percent": true}', 400, "wrong_type"), (b'{"percent": 5, "percent": 6}', 400, "bad_request"),
        (b'{"percent": 5, "x": 1}', 400, "unknown_key"), (b"\xff", 400, "bad_request"),
        (b'{"percent": ' + b"9" * 5000 + b"}", 400, "bad_request"), (b" " * 300000, 413, "too_large"),
    ),
)  # fmt: skip
def test_bodies_are_read_strictly(browser: Browser, car: FakeCar, data: bytes, status: int, why: str) -> None:
    car.asked.clear()
    answer = browser.ask("POST", "/api/v1/cap", data=data)
    assert (answer.status_code, reason(answer)) == (status, why)
    assert car.asked == []


def test_a_body_of_unknown_length_is_refused(browser: Browser) -> None:
    answer = browser.post("/api/v1/disarm", headers={"Transfer-Encoding": "chunked"})
    assert (answer.status_code, reason(answer)) == (411, "length_required")


def test_what_is_not_there_is_said_in_the_form_of_the_api(browser: Browser) -> None:
    answer = browser.get("/api/v1/nothing")
    assert (answer.status_code, reason(answer)) == (404, "not_found")
    answer = browser.get("/api/v1/arm")
    assert (answer.status_code, reason(answer)) == (405, "bad_method")
    assert "POST" in answer.headers["Allow"]


def test_a_fault_of_our_own_is_a_500_and_logged(
    browser: Browser, car: FakeCar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(car, "models", lambda: 1 / 0)
    answer = browser.get("/api/v1/models")
    assert (answer.status_code, reason(answer)) == (500, "internal")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_a_gate_that_does_not_answer_is_a_503(browser: Browser, car: FakeCar) -> None:
    car.silent = True
    answer = browser.post("/api/v1/stop")
    assert (answer.status_code, reason(answer)) == (503, "no_answer")


# --- nonsense

VALUES = (
    None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, 2**70, "", "x", "manual", "calibration", "autonomous", "stop",
    "start", "\ud800", "a" * 300, "../../etc/passwd", "x\r\nSet-Cookie: a=b", [], {}, [[]], {"a": 1}, "5a" * 32,
)  # fmt: skip
KEYS = (
    "mode", "lease", "kind", "percent", "steering", "throttle", "steering_us", "throttle_us", "size", "sha256", "name",
    "activate", "old", "new", "revision", "calibration", "model_max_mps", "angle", "max_speed", "drive_mode",
    "start_stop", "pwm", "mid", "min", "max", "polarity", "filenames", "old_password", "new_password", "holder",
    "op", "password",
)  # fmt: skip
RAW = (b"", b"\x00", b"[", b'"', b"null", b"1", b"\xff\xfe", b'{"a":', b"a=b&c", b"--x\r\n\r\n")
TYPES = (
    "application/json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "",
    "x/",
)
# A forgotten one of these would log the fuzzer out, or stop the console from being what it is.
LEFT_OUT = ("/logout", "/redirect_login", "/api/v1/events", "/route")


def nonsense(browser: Browser, app: Flask, random_: random.Random, count: int) -> set[int]:
    """Send so many requests of every kind to every path; the statuses."""
    targets = [rule for rule in rules(app) if rule[1] not in LEFT_OUT]
    statuses = set()
    for _ in range(count):
        method, path = random_.choice(targets)
        if random_.random() < 0.1:
            method = random_.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
        if random_.random() < 0.1:
            path += random_.choice(("/", "/x", "%00", "%0d%0aX: y", "?n=x", "?width=-1&height=1e9", "//", "%ff"))
        data = json.dumps({key: random_.choice(VALUES) for key in random_.sample(KEYS, random_.randint(0, 4))}).encode()
        if random_.random() < 0.2:
            data = random_.choice(RAW)
        headers = {"Content-Type": random_.choice(TYPES) if random_.random() < 0.3 else "application/json"}
        if random_.random() < 0.1:
            headers["Upload-Offset"] = random_.choice(("0", "-1", "x", "9" * 30, "²"))
        if random_.random() < 0.05:
            headers["Accept"] = random_.choice(("text/html", "*/*;q=x", ""))
        answer = browser.ask(method, path, data=data, headers=headers)
        statuses.add(answer.status_code)
        assert answer.status_code < 500 or reason(answer) == "storage", (method, path, headers, data, answer.text)
        assert "a=b" not in str(answer.headers)
        answer.close()
    return statuses


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 7))])
def test_nonsense_gets_no_500_and_moves_nothing(
    app: Flask, car: FakeCar, browser: Browser, password: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared(app).passwords, "verify", lambda given: given == password)  # 20 ms each
    stranger = Browser(app)
    stranger.read_token()
    random_ = random.Random(seed)
    # It may hold leases and arm by chance, which is a person's right; but not a pulse may come of nonsense: every
    # command of a lease that it got by chance is refused or neutral, since it never guesses a lease.
    seen = set()
    for _ in range(25):
        seen |= nonsense(stranger, app, random_, 20)
        seen |= nonsense(browser, app, random_, 40)
        car.advance(0.06)
        if browser.get("/auth").status_code != 200:
            shared(app).limiter.succeeded(browser.address)
            browser.log_in(password)
    assert {200, 400, 401, 404, 405, 409} <= seen
    moving = [output for output in car.outputs if not output.cause.startswith("neutral")]
    assert moving == []
    neutral = {output.throttle_us for output in car.outputs}
    assert len(neutral - {None}) >= 1 and all(output.cause.startswith("neutral") for output in car.outputs)


def test_static_files_are_ours(app: Flask) -> None:
    folder = Path(app.root_path) / "static"
    browser = Browser(app)
    for path in sorted(folder.iterdir()):
        answer = browser.get(f"/static/{path.name}")
        assert answer.status_code == 200 and answer.data == path.read_bytes()
        answer.close()
