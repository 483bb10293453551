"""Passwords, sessions and the limit of attempts, without HTTP; then the login as a browser meets it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from flask import Flask

from calibration import auth
from calibration.auth import LoginLimiter, PasswordError, PasswordStore, Sessions, secret_key
from tests.calibration.console_rig import Browser, FakeCar, make_console, reason, shared

NEW = "correct horse"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- the password


def test_the_first_password_is_random_made_once_and_stays_to_be_looked_up(tmp_path: Path) -> None:
    store = PasswordStore(tmp_path / "a" / "console")
    first = store.ensure()
    assert first is not None
    assert re.fullmatch(r"[2-9a-hjkmnp-z]{4}(-[2-9a-hjkmnp-z]{4}){2}", first)
    assert store.ensure() is None
    assert store.first() == first
    assert PasswordStore(tmp_path / "b").ensure() != first
    assert store.verify(first)
    for wrong in ("", first[:-1], first + "x", first.upper(), "x" * 129, "\ud800"):
        assert not store.verify(wrong)


def test_only_the_owner_may_read_the_files_and_the_hash_is_argon2id(tmp_path: Path) -> None:
    folder = tmp_path / "console"
    first = PasswordStore(folder).ensure()
    secret_key(folder)
    assert first is not None
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    text = (folder / "password.json").read_text()
    assert first not in text
    assert json.loads(text)["argon2"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_changed_password_is_readable_nowhere(tmp_path: Path) -> None:
    store = PasswordStore(tmp_path)
    first = store.ensure()
    assert first is not None
    store.change(first, NEW)
    assert store.verify(NEW)
    assert not store.verify(first)
    assert store.first() is None
    assert all(NEW not in path.read_text() and first not in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    ((None, "short", "bad_password"), (None, "x" * 129, "bad_password"), (None, "with\nnewline", "bad_password"),
     ("wrong", NEW, "wrong_password")),
)  # fmt: skip
def test_what_is_no_password_does_not_become_one(tmp_path: Path, old: str | None, new: str, reason: str) -> None:
    store = PasswordStore(tmp_path)
    first = store.ensure()
    assert first is not None
    with pytest.raises(PasswordError) as caught:
        store.change(old or first, new)
    assert caught.value.reason == reason
    assert store.verify(first)


@pytest.mark.parametrize("text", ("", "{}", "[]", '{"argon2": 5}', '{"argon2": "$argon2id$"}', "\x00"))
def test_a_damaged_file_lets_nobody_in_and_says_what_to_do(tmp_path: Path, text: str) -> None:
    store = PasswordStore(tmp_path)
    first = store.ensure()
    assert first is not None
    (tmp_path / "password.json").write_text(text)
    with pytest.raises(PasswordError) as caught:
        store.verify(first)
    assert caught.value.reason == "file"
    assert "--reset-password" in caught.value.next_step
    assert store.verify(store.reset())


def test_the_key_of_the_cookies_is_random_and_stays(tmp_path: Path) -> None:
    key = secret_key(tmp_path / "a")
    assert len(key) == 32
    assert secret_key(tmp_path / "a") == key != secret_key(tmp_path / "b")
    (tmp_path / "a" / "secret-key").write_bytes(b"short")
    assert len(secret_key(tmp_path / "a")) == 32


# --- sessions


def test_a_session_lasts_while_it_is_used_but_not_for_ever(clock: Clock) -> None:
    ended: list[str] = []
    sessions = Sessions(clock, idle_s=10.0, absolute_s=25.0, ended=ended.append)
    token = sessions.create("a")
    for _ in range(3):
        clock.now_s += 8.0
        found = sessions.find(token)
        assert found is not None and found.address == "a"
    assert ended == []
    clock.now_s += 2.0  # 26 s since the login
    assert sessions.find(token) is None
    assert ended == [found.key]
    unused = sessions.create("b")
    clock.now_s += 10.0
    assert sessions.find(unused, use=False) is not None
    clock.now_s += 0.1
    assert sessions.find(unused) is None


def test_only_the_token_opens_a_session_and_logging_out_ends_it(clock: Clock) -> None:
    sessions = Sessions(clock)
    token, other = sessions.create("a"), sessions.create("b")
    key = sessions.find(token)
    assert key is not None
    for wrong in (None, "", "x", token[:-1], key.key, "\ud800"):
        assert sessions.find(wrong) is None
    sessions.end_others(key.key)
    assert sessions.find(other) is None and sessions.find(token) is not None
    sessions.end(token)
    sessions.end(token)
    sessions.end(None)
    assert sessions.find(token) is None


def test_too_many_sessions_push_out_the_one_unused_for_longest(clock: Clock) -> None:
    sessions = Sessions(clock)
    tokens = [sessions.create("a") for _ in range(auth.MAX_SESSIONS)]
    assert sessions.find(tokens[0]) is not None
    newest = sessions.create("a")
    assert sessions.find(tokens[1]) is None
    assert sessions.find(tokens[0]) is not None and sessions.find(newest) is not None


# --- attempts


def test_five_failures_then_waits_that_double(clock: Clock) -> None:
    limiter = LoginLimiter(clock)
    assert [limiter.take("1.2.3.4") for _ in range(5)] == [0.0] * 5
    waits = []
    for _ in range(12):
        wait_s = limiter.take("1.2.3.4")
        waits.append(wait_s)
        clock.now_s += wait_s - 0.01
        assert limiter.take("1.2.3.4") > 0.0
        clock.now_s += 0.01
        assert limiter.take("1.2.3.4") == 0.0
    assert waits[:4] == pytest.approx([1.0, 2.0, 4.0, 8.0])
    assert waits[-1] == pytest.approx(auth.MAX_WAIT_S)
    assert limiter.take("1.2.3.5") == 0.0


def test_a_success_forgets_the_failures(clock: Clock) -> None:
    limiter = LoginLimiter(clock)
    for _ in range(4):
        limiter.take("1.2.3.4")
    limiter.succeeded("1.2.3.4")
    assert [limiter.take("1.2.3.4") for _ in range(5)] == [0.0] * 5


def test_many_addresses_together_are_limited_too(clock: Clock) -> None:
    limiter = LoginLimiter(clock)
    allowed = sum(limiter.take(f"10.0.{i // 250}.{i % 250}") == 0.0 for i in range(2000))
    assert allowed == 30
    clock.now_s += 20.0
    allowed = sum(limiter.take(f"10.1.{i // 250}.{i % 250}") == 0.0 for i in range(2000))
    assert allowed == 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    (("fe80::1%wlan0", "fe80::2", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("::ffff:1.2.3.4", "1.2.3.4", True),
     ("unknown", "unknown", True)),
)  # fmt: skip
def test_an_ipv6_network_is_one_address(clock: Clock, one: str, other: str, same: bool) -> None:
    limiter = LoginLimiter(clock)
    for _ in range(5):
        limiter.take(one)
    assert (limiter.take(other) > 0.0) is same


# --- over HTTP


def test_the_login_is_deepracers(app: Flask, password: str) -> None:
    browser = Browser(app)
    page = browser.get("/")
    assert page.status_code == 200
    cookie = page.headers["Set-Cookie"]
    assert cookie.startswith("session=")
    for word in ("Secure", "HttpOnly", "SameSite=Strict"):
        assert word in cookie
    assert browser.get("/auth").status_code == 401
    browser.read_token()
    answer = browser.log_in(password)
    assert (answer.status_code, answer.json) == (200, {"redirect": "/home"})
    (cookie,) = [text for text in answer.headers.getlist("Set-Cookie") if text.startswith("deepracer_token=")]
    for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert browser.get("/auth").status_code == 200
    before = browser.token
    assert browser.read_token() == before  # DeepRacer's clients read it once, before they log in
    assert browser.get("/logout").status_code == 200
    assert browser.get("/auth").status_code == 401


def test_a_form_without_scripts_is_sent_on(app: Flask, password: str) -> None:
    browser = Browser(app)
    token = browser.read_token()
    answer = browser.ask(
        "POST",
        "/login",
        csrf=False,
        data={"password": password, "csrf_token": token},
        headers={"Accept": "text/html,*/*;q=0.8"},
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert browser.get("/auth").status_code == 200


def test_a_login_as_json_and_one_that_replaces_another(app: Flask, password: str) -> None:
    browser = Browser(app)
    browser.read_token()
    assert browser.post("/login", {"password": password}).status_code == 200
    old = browser.client.get_cookie("deepracer_token", domain="car.local")
    assert old is not None
    assert browser.post("/login", {"password": password}).status_code == 200
    assert shared(app).sessions.find(old.value) is None


@pytest.mark.parametrize("given", ("", "wrong", "x" * 5000))
def test_a_wrong_password_is_refused_and_the_attempts_are_limited(
    app: Flask, car: FakeCar, password: str, given: str
) -> None:
    browser, other = Browser(app), Browser(app, "192.168.1.99")
    for _ in range(5):
        answer = browser.log_in(given)
        assert (answer.status_code, reason(answer)) == (403, "wrong_password")
        assert "deepracer_token" not in str(answer.headers)
    answer = browser.log_in(password)  # the right one, but too soon
    assert (answer.status_code, reason(answer)) == (429, "too_many_attempts")
    assert other.log_in(password).status_code == 200
    car.advance(1.1)
    assert browser.log_in(password).status_code == 200


def test_a_login_needs_its_csrf_token(app: Flask, password: str) -> None:
    browser = Browser(app)
    browser.read_token()
    for headers in ({}, {"X-CSRFToken": ""}, {"X-CSRFToken": "x"}, {"X-CSRFToken": "\xff"}):
        answer = browser.ask("POST", "/login", csrf=False, data={"password": password}, headers=headers)
        assert (answer.status_code, reason(answer)) == (403, "csrf")
    stranger = Browser(app)
    answer = stranger.ask("POST", "/login", data={"password": password}, headers={"X-CSRFToken": browser.token})
    assert reason(answer) == "csrf"  # somebody else's token


def test_an_expired_session_is_none(browser: Browser, car: FakeCar) -> None:
    car.rig.now_s += 3590.0
    assert browser.get("/api/v1/state").status_code == 200
    car.rig.now_s += 3610.0
    answer = browser.get("/api/v1/state")
    assert (answer.status_code, reason(answer)) == (401, "unauthenticated")


def test_a_session_that_ends_lets_go_of_the_car(app: Flask, car: FakeCar, browser: Browser, password: str) -> None:
    lease = browser.post("/api/v1/lease", {"kind": "manual"}).json["lease"]  # type: ignore[index]
    assert browser.post("/api/v1/arm", {"mode": "manual", "lease": lease}).status_code == 200
    browser.get("/logout")
    assert car.mode == "disarmed"
    assert car.rig.core.state(car.rig.now_s)["lease"] is None


def test_changing_the_password_logs_everybody_else_out(app: Flask, browser: Browser, password: str) -> None:
    other = Browser(app)
    assert other.log_in(password).status_code == 200
    answer = browser.post("/api/v1/password", {"old": "wrong", "new": NEW})
    assert (answer.status_code, reason(answer)) == (403, "wrong_password")
    assert reason(browser.post("/api/v1/password", {"old": password, "new": "short"})) == "bad_password"
    assert browser.post("/api/v1/password", {"old": password, "new": NEW}).status_code == 200
    assert browser.get("/auth").status_code == 200
    assert other.get("/auth").status_code == 401
    assert Browser(app, "10.0.0.9").log_in(password).status_code == 403
    assert Browser(app, "10.0.0.8").log_in(NEW).status_code == 200


def test_guesses_of_the_old_password_are_limited_too(browser: Browser, password: str) -> None:
    answers = [browser.post("/api/v1/password", {"old": "wrong", "new": NEW}).status_code for _ in range(7)]
    assert answers == [403] * 5 + [429] * 2
    assert browser.post("/api/password", {"old_password": password, "new_password": NEW}).json["success"] is False  # type: ignore[index]


def test_another_start_of_the_console_asks_again(tmp_path: Path) -> None:
    app, _, password = make_console(tmp_path)
    browser = Browser(app)
    browser.log_in(password)
    token = browser.client.get_cookie("deepracer_token", domain="car.local")
    again, _, _ = make_console(tmp_path)
    other = Browser(again)
    assert token is not None
    other.client.set_cookie("deepracer_token", token.value, domain="car.local")
    assert other.get("/auth").status_code == 401
