"""The console's own JSON API under /api/v1: the car's controls, models, uploads, logs and settings.

``docs/console.md`` has the table. A request that the car refuses is answered with its reason, as
``{"error": {"what", "cause", "next", "reason", "blocked"?}}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from calibration.api_json import body, flag, number, reply, text
from calibration.auth import PasswordError
from calibration.car_link import CarRefused
from calibration.console import console, holder, session
from calibration.uploads import MAX_PIECE_BYTES, MAX_UPLOAD_BYTES

MAX_LOG_LINES = 1000
LEASE_KINDS = ("manual", "calibration")

api = Blueprint("api", __name__, url_prefix="/api/v1")


# --- the car


@api.get("/state")
def state() -> Response:
    """Everything that the Drive page shows."""
    return reply(console().link.state())


@api.get("/events")
def events() -> Response:
    """The state at 5 Hz, as server-sent events. A reader that is too slow is dropped by the server's time limit."""
    sessions, token = console().sessions, request.cookies.get("deepracer_token")
    # Whoever has a page open uses it, so their session does not end meanwhile.
    told = console().events.stream(lambda: sessions.find(token) is not None)
    return Response(told, mimetype="text/event-stream")


@api.post("/arm")
def arm() -> Response:
    """{}: the pilot drives. {"mode": "manual"|"calibration", "lease"}: whoever holds the lease does."""
    values = body(optional=("mode", "lease"))
    mode = values.get("mode", "autonomous")
    asked: dict[str, object] = {"op": "arm", "mode": mode}
    if mode != "autonomous":
        asked["lease"] = console().leases.check(session().key, values.get("lease"))
    return reply(console().link.ask(asked))


def _plain(op: str) -> Callable[[], Response]:
    def view() -> Response:
        # What makes the car safe is obeyed whatever else the request says.
        if op not in ("stop", "disarm"):
            body()
        return reply(console().link.ask({"op": op}))

    return view


for _op in ("disarm", "stop", "reset"):
    api.add_url_rule(f"/{_op}", _op, _plain(_op), methods=["POST"])


@api.post("/cap")
def cap() -> Response:
    """{"percent": 0..100}: how much of full speed the car may use."""
    return reply(console().link.ask({"op": "cap", "percent": number(body("percent"), "percent", 0.0, 100.0)}))


@api.post("/lease")
def lease() -> Response:
    """{"kind": "manual"|"calibration"}: the controls, for a quarter of a second at a time."""
    kind = body("kind")["kind"]
    if kind not in LEASE_KINDS:
        raise CarRefused("out_of_range", "kind must be manual or calibration")
    return reply({"ok": True, "lease": console().leases.grant(session().key, kind, holder())})


def _leased(op: str, *optional: str) -> Callable[[], Response]:
    def view() -> Response:
        values = body("lease", optional=optional)
        checked = console().leases.check(session().key, values["lease"])
        return reply(console().link.ask({**values, "op": op, "lease": checked}))

    return view


for _op, _keys in (
    ("renew", ()), ("release", ()), ("manual", ("steering", "throttle")), ("pulse", ("steering_us", "throttle_us"))
):  # fmt: skip
    api.add_url_rule(f"/{_op}", _op, _leased(_op, *_keys), methods=["POST"])


@api.get("/health")
def health() -> Response:
    """Figures of the computer and the loops, and the state."""
    return reply(console().link.health())


@api.get("/logs")
def logs() -> Response:
    """?n=200: the last lines, the newest last."""
    try:
        wanted = int(request.args.get("n", "200")[:9])
    except ValueError:
        raise CarRefused("bad_request", "n must be a whole number") from None
    return reply({"lines": console().link.logs(min(max(wanted, 1), MAX_LOG_LINES))})


# --- models


@api.get("/models")
def models() -> Response:
    """The models of this car."""
    return reply(console().link.models())


@api.post("/models/<sha256>/activate")
def activate(sha256: str) -> Response:
    """Choose the model, and have the pilot load it."""
    body()
    return reply(console().link.activate(sha256))


@api.post("/models/rollback")
def rollback() -> Response:
    """Back to the model before."""
    body()
    return reply(console().link.rollback())


@api.post("/models/<sha256>/allow")
def allow(sha256: str) -> Response:
    """Let a model in again that failed its trial."""
    body()
    return reply(console().link.allow(sha256))


@api.delete("/models/<sha256>")
def remove(sha256: str) -> Response:
    """Delete a model."""
    return reply(console().link.remove(sha256))


# --- uploads


@api.post("/uploads")
def begin_upload() -> Response:
    """{"size", "sha256", "name"}: begin an upload, or find out how far an earlier one of the same file came."""
    values = body("size", "sha256", optional=("name",))
    _refuse_while_armed()
    size, sha256 = int(number(values, "size", 1, 2**40)), text(values, "sha256", 64)
    offset = console().uploads.begin(size, sha256)
    return reply({"upload": sha256, "offset": offset, "size": size, "max_piece": MAX_PIECE_BYTES}, 201)


@api.get("/uploads/<upload>")
def upload_offset(upload: str) -> Response:
    """How many bytes are here."""
    return reply({"upload": upload, "offset": console().uploads.offset(upload), "size": console().uploads.size(upload)})


@api.patch("/uploads/<upload>")
def append(upload: str) -> Response:
    """A piece, raw, with the header Upload-Offset."""
    _refuse_while_armed()
    offset = request.headers.get("Upload-Offset", "")
    if not (offset.isascii() and offset.isdigit() and len(offset) < 16):
        raise CarRefused("bad_request", "the header Upload-Offset must say where this piece begins")
    request.max_content_length = MAX_UPLOAD_BYTES
    length = request.content_length or 0
    have = console().uploads.append(upload, int(offset), length, request.stream)
    return reply({"upload": upload, "offset": have})


@api.post("/uploads/<upload>/install")
def install(upload: str) -> Response:
    """{"activate": bool, "name"?}: the car's own verdict: golden vectors, latency, contract; then take it in."""
    values = body(optional=("activate", "name"))
    wanted, name = flag(values, "activate"), text(values, "name", 128) if "name" in values else ""
    with console().uploads.finished(upload) as path:
        found = console().link.install(path, name)
    answer: dict[str, Any] = {**found, "activated": False}
    if wanted:
        answer |= {**console().link.activate(str(found["sha256"])), "activated": True}
    return reply(answer)


def _refuse_while_armed() -> None:
    """Before the bytes are sent: a disk that is busy with them is not what an armed car needs."""
    if console().link.state().get("armed"):
        raise CarRefused(
            "armed", "the car is armed", cause="models change only while it cannot move", next_step="disarm it first"
        )


# --- settings


@api.get("/settings")
def settings() -> Response:
    """Name, network, camera and car.toml."""
    return reply(console().link.facts())


@api.put("/settings")
def change_settings() -> Response:
    """{"name"}."""
    console().link.rename(text(body("name"), "name", 64))
    return reply(console().link.facts())


@api.post("/password")
def change_password() -> Response:
    """{"old", "new"}: everybody else is logged out."""
    values = body("old", "new")
    set_password(text(values, "old"), text(values, "new"))
    return reply({"ok": True})


def set_password(old: str, new: str) -> None:
    """Change the password; guesses of the old one are limited as those at the login are.

    Raises:
        PasswordError: as `calibration.auth.PasswordStore.change`.
        CarRefused: too_many_attempts, storage.
    """
    shared, who = console(), session()
    take_attempt(who.address)
    try:
        with shared.changing_password:
            shared.passwords.change(old, new)
    except PasswordError as error:
        if error.reason == "bad_password":  # the old one was right
            shared.limiter.succeeded(who.address)
        raise
    except OSError as error:
        raise CarRefused("storage", f"the password cannot be saved: {error.strerror or error}") from error
    shared.limiter.succeeded(who.address)
    shared.sessions.end_others(who.key)


def take_attempt(address: str) -> None:
    """One attempt at the password.

    Raises:
        CarRefused: too_many_attempts.
    """
    wait_s = console().limiter.take(address)
    if wait_s > 0.0:
        raise CarRefused(
            "too_many_attempts",
            "the password was wrong too often",
            next_step=f"wait {max(1, round(wait_s))} s, then try again",
        )
