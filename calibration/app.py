"""The console as a Flask application: who may come in, what every answer carries, and its parts put together."""

from __future__ import annotations

import logging
from typing import IO, Any

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from calibration.api import api
from calibration.api_calibration import calibration_api
from calibration.api_camera import CAMERA, CameraSession, camera_api
from calibration.api_car_file import car_file_api
from calibration.api_json import MAX_JSON_BYTES, error_object, error_reply, reply
from calibration.api_saliency import saliency_api
from calibration.auth import secret_key
from calibration.car_link import CarLink, CarRefused
from calibration.console import EXTENSION, Console, ConsoleSettings, console
from calibration.deepracer_api import CHANGING_GETS, DRIVER, deepracer
from calibration.deepracer_driver import DeepRacerDriver
from calibration.errors import HotlapError
from calibration.pages import OPEN, TOKEN_COOKIE, pages, refuse_stranger
from calibration.security import SAFE_METHODS, add_headers, check_csrf, check_site, csrf_token

__all__ = ["ConsoleSettings", "create_app"]

_LOG = logging.getLogger("hotlap.console")
# An emergency stop needs no session: one that has expired must not be what keeps a car moving. It needs no token
# either, and is not rationed. All that a stranger on the same Wi-Fi gains is a car that stands.
STOPS = ("api.stop", "deepracer.emergency_stop")


class ConsoleRequest(Request):
    """A request whose files wait on the car's disk, not in its memory, until it has been answered."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """The parser's place for one file of a form."""
        return console().uploads.spool()


def create_app(link: CarLink, settings: ConsoleSettings) -> Flask:
    """The console of one car.

    The password must have been made (`calibration.auth.PasswordStore.ensure`); without one nobody can log in.

    Raises:
        OSError: the folder of the console cannot be written.
    """
    app = Flask("calibration", static_folder="static", template_folder="templates")
    app.request_class = ConsoleRequest
    app.url_map.merge_slashes = False  # there is no redirection but that to the login
    app.secret_key = secret_key(settings.folder)
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_JSON_BYTES,
        MAX_FORM_PARTS=8,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SEND_FILE_MAX_AGE_DEFAULT=0,
    )
    shared = Console(link, settings)
    driver = DeepRacerDriver(link, shared.leases, settings.clock)
    shared.session_ended.append(driver.forget)
    app.extensions[EXTENSION], app.extensions[DRIVER] = shared, driver
    app.extensions[CAMERA] = CameraSession()
    app.before_request(_guard)
    app.after_request(_finish)
    app.context_processor(_for_templates)
    app.register_error_handler(HotlapError, error_reply)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unforeseen)
    for blueprint in (pages, api, calibration_api, camera_api, saliency_api, car_file_api, deepracer):
        app.register_blueprint(blueprint)
    return app


def _guard() -> AnyResponse | None:
    """Before every view: a session, and a CSRF token for every change; neither for an emergency stop.

    Nothing of the body is read before that.
    """
    if request.headers.get("Transfer-Encoding"):
        raise CarRefused("length_required", "send a Content-Length, not a Transfer-Encoding")
    if request.endpoint in OPEN:
        return None
    if request.endpoint in STOPS and request.method not in SAFE_METHODS:
        check_site(request)
        return None
    found = console().sessions.find(request.cookies.get(TOKEN_COOKIE))
    if found is None:
        return refuse_stranger()
    g.session = found
    if request.method not in SAFE_METHODS or request.endpoint in CHANGING_GETS:
        check_csrf(request)
    return None


def _finish(response: Response) -> Response:
    return add_headers(response, static=request.endpoint == "static")


def _for_templates() -> dict[str, Any]:
    shared = console()
    return {
        "csrf_token": csrf_token,
        "name": shared.link.state().get("name") or "hotlap",
        "console_version": shared.settings.version,
    }


def _http_error(error: HTTPException) -> AnyResponse:
    """What Flask itself refuses (no such path, wrong method, too large), in the form of the API."""
    status = error.code or 500
    if error.response is not None or status < 400:  # a redirection of the router
        return error.get_response()
    reasons = {404: "not_found", 405: "bad_method", 413: "too_large"}
    reason = reasons.get(status, "bad_request" if status < 500 else "internal")
    refused = CarRefused(reason, f"{error.name}: {request.method} {request.path[:120]}")
    answer = reply({"error": error_object(refused)}, status)
    if status == 405 and (allowed := getattr(error, "valid_methods", None)):
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def _unforeseen(error: Exception) -> Response:
    """A fault of the console's own. It asks nothing more of the car, so a lease that it was to renew ends."""
    _LOG.error("%s %s", request.method, request.path, exc_info=error)
    refused = CarRefused(
        "internal",
        f"the console failed: {type(error).__name__}",
        cause="a fault of hotlap's own; the console's log has the traceback",
        next_step="try again, and report it",
    )
    return reply({"error": error_object(refused)}, 500)
