"""What every answer of the console carries, and what every change must bring: headers and CSRF tokens."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from flask import Request, Response, session

from calibration.car_link import CarRefused

CSRF_HEADER = "X-CSRFToken"
CSRF_FIELD = "csrf_token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

# Scripts, styles and pictures of the console only. data: and blob: are pictures that scripts of ours have drawn.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# No Strict-Transport-Security: with it, a browser lets nobody past a certificate that the car has signed itself.
HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), gamepad=(self)",
}


def add_headers(response: Response, *, static: bool) -> Response:
    """Put the headers on an answer. Only static files may be kept by browsers, and are asked for again each time."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Cache-Control"] = "no-cache" if static else "no-store"
    return response


def csrf_token() -> str:
    """The token of this browser, made at the first call. It stays after a login: DeepRacer's clients read it once."""
    token = session.get("csrf")
    if not isinstance(token, str):
        token = secrets.token_urlsafe(32)
        session["csrf"] = token
    return token


def check_site(request: Request) -> None:
    """Refuse what a page of another site makes a browser send. Programs send neither of these headers.

    Raises:
        CarRefused: reason "csrf".
    """
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none"):
        raise _csrf(f"it comes from another site (Sec-Fetch-Site: {site[:40]!r})")
    origin = request.headers.get("Origin")
    if origin is not None:
        # DeepRacer's clients send one with a slash at its end.
        if not same_origin(origin, request):
            raise _csrf(f"it comes from {origin[:80]!r}")


def check_csrf(request: Request, field: str | None = None) -> None:
    """Refuse a change without this session's token, or of another site.

    Args:
        field: the token where a form carries it instead of the header.

    Raises:
        CarRefused: reason "csrf".
    """
    check_site(request)
    expected, given = session.get("csrf"), request.headers.get(CSRF_HEADER, field)
    if not isinstance(expected, str) or given is None:
        raise _csrf(f"the header {CSRF_HEADER} or the session cookie is missing")
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass")):
        raise _csrf(f"the token in {CSRF_HEADER} is not this session's")


def same_origin(origin: str, request: Request) -> bool:
    """Whether an Origin header names this very console."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == request.scheme and parts.netloc == request.host


def _csrf(what: str) -> CarRefused:
    return CarRefused("csrf", f"this change is refused: {what}", next_step="load the page again, then try once more")
