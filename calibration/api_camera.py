"""The camera part of /api/v1: a sheet to print, pictures of it, what they say of the camera, and what is kept of it.

Corners, not pictures, are what counts; they wait in the console's memory until somebody saves or throws them away.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
from flask import Blueprint, Response, current_app, request

from calibration.api_json import body, error_object, number, reply
from calibration.camera import Board, CameraFault, CameraMeasurement
from calibration.camera_board import Gray, Sighting, find_board
from calibration.camera_file import MEASURED_KEYS, to_car_toml
from calibration.camera_pose import is_4_to_3, solve
from calibration.camera_sheet import board_pdf
from calibration.car_link import CarRefused
from calibration.console import console

CAMERA = "hotlap-camera"
MAX_PICTURES = 12
_SHOWN_WIDTH = 480  # of a picture that was taken, on the page
_KEYS = ("columns", "rows", "square_mm")
_SHOWN_KEYS = (*MEASURED_KEYS, "forward_m")

camera_api = Blueprint("camera_api", __name__, url_prefix="/api/v1/camera")


@dataclass
class CameraSession:
    """The pictures taken so far, one session for all browsers: there is one camera.

    Args:
        lock: held while a picture is searched, so that a phone cannot start ten searches at once.
    """

    board: Board = field(default_factory=Board)
    found: dict[int, tuple[Sighting, bytes]] = field(default_factory=dict)  # number -> corners, JPEG to look at
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    lock: threading.Lock = field(default_factory=threading.Lock)


@camera_api.get("")
def show() -> Response:
    """What is saved, the pictures, and what they say."""
    return _shown()


@camera_api.post("/pictures")
def take() -> Response:
    """{"columns"?, "rows"?, "square_mm"?}: look for the board in the newest picture. Another board begins anew."""
    values = body(optional=_KEYS)
    _refuse_while_armed()
    with _searching() as session:
        board = _board(values, session.board)
        if board != session.board:
            session.board = board
            session.found.clear()
        if len(session.found) >= MAX_PICTURES:
            raise CarRefused("too_many", f"{MAX_PICTURES} pictures are enough", next_step="throw one away, or save")
        picture = console().link.whole_picture()
        gray = np.frombuffer(picture.gray, np.uint8).reshape(picture.height, picture.width)
        if not is_4_to_3(picture.width, picture.height):
            raise CameraFault(
                "not_4_to_3",
                f"the camera gives {picture.width} x {picture.height}, which the policy sees squeezed to 4 to 3",
                cause="camera.width and camera.height in car.toml; the simulator's camera has square pixels",
                next_step="set them to 4 to 3, for instance 640 and 480, and start the car again",
            )
        sighting = find_board(gray, board)
        number_ = next(session.numbers)
        session.found[number_] = sighting, _with_corners(gray, sighting, board)
    return _shown(taken=number_)


@camera_api.get("/pictures/<int:wanted>")
def look(wanted: int) -> Response:
    """A picture that was taken, as JPEG, with the corners that were found."""
    return Response(_taken(wanted)[1], mimetype="image/jpeg")


@camera_api.delete("/pictures/<int:wanted>")
def throw_away(wanted: int) -> Response:
    """One picture."""
    _taken(wanted)
    _session().found.pop(wanted, None)
    return _shown()


@camera_api.delete("/pictures")
def throw_all_away() -> Response:
    """All of them."""
    _session().found.clear()
    return _shown()


@camera_api.put("")
def save() -> Response:
    """{}: keep what the pictures say; refused while armed."""
    body()
    found = solve([sighting for sighting, _ in list(_session().found.values())])
    console().link.save_camera(found)
    return _shown(found)


@camera_api.get("/car.toml")
def car_toml() -> Response:
    """What is kept, as a CarSpec for ``hotlap train --car``."""
    pose = console().link.measured_camera()
    if pose is None:
        raise CarRefused("not_found", "this car's camera has not been measured yet", next_step="measure and save it")
    forward_m = (console().link.facts().get("camera") or {}).get("forward_m")
    answer = Response(to_car_toml(pose, forward_m), mimetype="application/toml")
    answer.headers["Content-Disposition"] = 'attachment; filename="car-camera.toml"'
    return answer


@camera_api.get("/board.pdf")
def sheet() -> Response:
    """?columns=9&rows=6&square_mm=25: the board to print."""
    given = {key: _figure(key) for key in _KEYS if key in request.args}
    answer = Response(board_pdf(_board(given, Board())), mimetype="application/pdf")
    answer.headers["Content-Disposition"] = 'attachment; filename="hotlap-board.pdf"'
    return answer


def _figure(key: str) -> float:
    try:
        return float(request.args[key][:12])
    except ValueError:
        raise CarRefused("bad_request", f"{key} must be a number") from None


def _board(values: dict[str, Any], default: Board) -> Board:
    columns, rows = (int(number({key: getattr(default, key), **values}, key, 3, 30)) for key in ("columns", "rows"))
    return Board(columns, rows, number({"square_mm": default.square_mm, **values}, "square_mm", 2.0, 500.0))


def _session() -> CameraSession:
    return cast(CameraSession, current_app.extensions[CAMERA])


@contextmanager
def _searching() -> Iterator[CameraSession]:
    session = _session()
    if not session.lock.acquire(timeout=0.2):
        raise CarRefused("busy", "a picture is being looked at just now", next_step="wait a second, then try again")
    try:
        yield session
    finally:
        session.lock.release()


def _taken(wanted: int) -> tuple[Sighting, bytes]:
    found = _session().found.get(wanted)
    if found is None:
        raise CarRefused("not_found", f"there is no picture {wanted} any more", next_step="load the page again")
    return found


def _refuse_while_armed() -> None:
    """Looking for a board takes the processor that an armed car needs."""
    if console().link.state().get("armed"):
        raise CarRefused(
            "armed", "the car is armed", cause="pictures are looked at only while it cannot move", next_step="disarm it"
        )


def _with_corners(gray: Gray, sighting: Sighting, board: Board) -> bytes:
    zoom = _SHOWN_WIDTH / gray.shape[1]
    size = (_SHOWN_WIDTH, round(gray.shape[0] * zoom))
    picture = cv2.cvtColor(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    corners = ((sighting.corners_px + 0.5) * zoom - 0.5).astype(np.float32).reshape(-1, 1, 2)
    cv2.drawChessboardCorners(picture, (board.columns, board.rows), corners, True)
    good, jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 80))
    if not good:
        raise CarRefused("bad_answer", "the picture cannot be encoded")
    return bytes(jpeg.tobytes())


def _shown(result: CameraMeasurement | None = None, **more: int) -> Response:
    """Everything that the page shows; `result` where the pictures have been made sense of already."""
    session, link = _session(), console().link
    found = list(session.found.items())
    problem: dict[str, Any] | None = None
    if found and result is None:
        try:
            result = solve([sighting for _, (sighting, _) in found])
        except CameraFault as fault:
            problem = error_object(fault)
    saved = link.measured_camera()
    pictures = [{"id": key, "width": one.width, "height": one.height} for key, (one, _) in found]
    return reply(
        {
            "saved": None if saved is None else dataclasses.asdict(saved),
            "nominal": {key: value for key, value in (link.facts().get("camera") or {}).items() if key in _SHOWN_KEYS},
            "board": dataclasses.asdict(session.board),
            "pictures": pictures,
            "max_pictures": MAX_PICTURES,
            "result": None if result is None else dataclasses.asdict(result),
            "problem": problem,
            **more,
        }
    )
