"""Who may come in, what every answer carries, and how bodies and paths are read."""

from __future__ import annotations

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


def test_static_files_are_ours(app: Flask) -> None:
    folder = Path(app.root_path) / "static"
    browser = Browser(app)
    for path in sorted(folder.iterdir()):
        answer = browser.get(f"/static/{path.name}")
        assert answer.status_code == 200 and answer.data == path.read_bytes()
        answer.close()
