"""The pages, the login, and the video: what a browser opens. Paths and forms of the login are the original car's."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from calibration.api import take_attempt
from calibration.api_json import body, reply, text
from calibration.auth import PasswordError
from calibration.car_link import CarRefused
from calibration.console import address, console
from calibration.security import CSRF_FIELD, check_csrf
from calibration.video import BOUNDARY, size_of

TOKEN_COOKIE = "deepracer_token"
PAGES = {"models": "models.html", "calibrate": "calibrate.html", "health": "health.html", "settings": "settings.html"}
# Open to everybody. The login checks its own CSRF token, since a form may carry it in a field.
OPEN = ("pages.home", "pages.login_page", "pages.log_in", "pages.auth", "pages.log_out", "static")

pages = Blueprint("pages", __name__)


@pages.get("/")
@pages.get("/home")
def home() -> str:
    """The Drive page, or the login: both with status 200 and the CSRF token, which DeepRacer's clients read here."""
    return render_template("drive.html" if _logged_in() else "login.html")


def _page(name: str) -> AnyResponse:
    return make_response(render_template(PAGES[name]))


for _name in PAGES:
    pages.add_url_rule(f"/{_name}", _name, lambda name=_name: _page(name))


@pages.get("/login")
def login_page() -> str:
    """The login."""
    return render_template("login.html")


@pages.post("/login")
def log_in() -> AnyResponse:
    """``password=...`` as a form, or JSON. A wrong password is status 403; the original's was 200."""
    if request.mimetype == "application/json":
        field, given = None, text(body("password"), "password")
    else:
        field, given = request.form.get(CSRF_FIELD), request.form.get("password", "")
    check_csrf(request, field)
    shared = console()
    take_attempt(address())
    if not shared.passwords.verify(given):
        raise PasswordError(
            "wrong_password",
            "failure: this is not the password of this car",
            next_step="on the car itself: hotlap console --show-password",
        )
    shared.limiter.succeeded(address())
    shared.sessions.end(request.cookies.get(TOKEN_COOKIE))
    plain_form = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    answer = redirect("/", 303) if plain_form else reply({"redirect": "/home"})
    token = shared.sessions.create(address())
    answer.set_cookie(
        TOKEN_COOKIE,
        token,
        max_age=round(shared.settings.absolute_s),
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    return answer


@pages.route("/auth", methods=["GET", "POST"])
def auth() -> Response:
    """200 where the caller is logged in, else 401."""
    return Response("", 200 if _logged_in() else 401, mimetype="text/plain")


@pages.route("/logout", methods=["GET", "POST"])
@pages.route("/redirect_login", methods=["GET", "POST"])
def log_out() -> Response:
    """The login page; the session is over. Another site cannot make a browser come here: its cookie is SameSite."""
    console().sessions.end(request.cookies.get(TOKEN_COOKIE))
    answer = make_response(render_template("login.html"))
    answer.delete_cookie(TOKEN_COOKIE, secure=True, httponly=True, samesite="Strict")
    return answer


@pages.get("/route")
def route() -> Response:
    """MJPEG of what the network sees; ``topic`` is not asked for, width and height are, up to 640 x 480."""
    token = request.cookies.get(TOKEN_COOKIE)
    width, height = size_of(request.args.get("width"), request.args.get("height"))
    sessions = console().sessions
    parts = console().video.stream(width, height, lambda: sessions.find(token) is not None)
    return Response(parts, mimetype=f"multipart/x-mixed-replace;boundary={BOUNDARY}")


def _logged_in() -> bool:
    return console().sessions.find(request.cookies.get(TOKEN_COOKIE)) is not None


def refuse_stranger() -> AnyResponse:
    """What somebody gets who is not logged in: the login instead of a page, else status 401.

    Raises:
        CarRefused: unauthenticated.
    """
    if request.method == "GET" and (request.endpoint or "") in {f"pages.{name}" for name in PAGES}:
        return redirect(f"/login?next={quote(request.path)}", 302)
    raise CarRefused("unauthenticated", "you are not logged in", next_step="log in at /login")
