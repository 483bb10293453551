"""The console's side of the local links: many threads ask, one listens. Nothing here sends by itself."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from calibration.car_link import CarRefused, Picture
from vehicle.links import MAX_ANSWER_BYTES, endpoint, json_object

STATE_OLD_S = 1.0  # the gate speaks at 10 Hz
PICTURE_OLD_S = 1.0  # the pilot shows 10 pictures a second
_RECONNECT_MS = 20
_POLL_MS = 200
_MAX_IDLE = 8  # connections kept for each process
_MAX_SIDE = 4096


def granted(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it is no refusal.

    Raises:
        CarRefused: it is one.
    """
    if answer.get("ok") is True:
        return answer
    raise CarRefused(
        str(answer.get("reason") or "refused"),
        str(answer.get("what") or answer.get("reason") or "the car refuses"),
        cause=str(answer.get("cause") or ""),
        next_step=str(answer.get("next") or ""),
        blocked=answer.get("blocked") or (),
    )


class Asker:
    """Requests to one process, each on a connection that no other request uses meanwhile.

    A connection whose answer did not come in time is thrown away, so a late answer is never taken for another one's.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], runtime: Path, name: str) -> None:
        self._context, self._path, self._name = context, runtime / f"{name}.request", name
        self._address = endpoint(runtime, f"{name}.request")
        self._idle: list[zmq.Socket[bytes]] = []
        self._lock = threading.Lock()

    def ask(self, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one JSON object and wait for the one that answers it.

        Raises:
            CarRefused: no_answer, bad_answer.
        """
        deadline_s = time.monotonic() + timeout_s
        dealer = self._take()
        try:
            # POLLOUT: only once it is connected. Nothing is queued for a process that is not there.
            if not dealer.poll(max(0, int(1e3 * timeout_s)), zmq.POLLOUT):
                raise self._silent(timeout_s)
            dealer.send(json.dumps(message).encode())
            if not dealer.poll(max(0, int(1e3 * (deadline_s - time.monotonic())))):
                raise self._silent(timeout_s)
            answer = dealer.recv_multipart()[-1]
        except BaseException:
            dealer.close(linger=0)
            raise
        self._give_back(dealer)
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CarRefused("bad_answer", f"the {self._name} answered what is no JSON object")
        return found

    def close(self) -> None:
        """Close what is idle; nobody asks any more."""
        with self._lock:
            for dealer in self._idle:
                dealer.close(linger=0)
            self._idle.clear()

    def _take(self) -> zmq.Socket[bytes]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        dealer.setsockopt(zmq.MAXMSGSIZE, MAX_ANSWER_BYTES)
        dealer.connect(self._address)
        return dealer

    def _give_back(self, dealer: zmq.Socket[bytes]) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(dealer)
                return
        dealer.close(linger=0)

    def _silent(self, timeout_s: float) -> CarRefused:
        running = self._path.exists()
        return CarRefused(
            "no_answer",
            f"the {self._name} gave no answer within {timeout_s:g} s",
            cause=f"the {self._name} " + ("has ended, or hangs" if running else "is not running"),
            next_step=f"hotlap drive, or on a car: systemctl restart hotlap-{self._name}",
        )


class Listener:
    """What gate and pilot publish, taken in by one thread; readers get the newest that is not old."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], runtime: Path) -> None:
        self._states = _subscribe(context, runtime, "gate.state", 16)
        self._previews = _subscribe(context, runtime, "pilot.preview", 2)
        self._state: dict[str, Any] = {}
        self._state_s = -math.inf
        self._picture: Picture | None = None
        self._picture_s = -math.inf
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-listener", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, Any] | None:
        """The gate's newest words; None where it has been silent for a second."""
        with self._changed:
            return self._state if time.monotonic() - self._state_s <= STATE_OLD_S else None

    def newest(self) -> Picture | None:
        """The newest picture; None where there was none for a second."""
        with self._changed:
            return self._picture if time.monotonic() - self._picture_s <= PICTURE_OLD_S else None

    def picture(self, after_seq: int, timeout_s: float) -> Picture | None:
        """The newest picture once it is another one than `after_seq`; None after `timeout_s` without."""

        def another() -> bool:
            fresh = time.monotonic() - self._picture_s <= PICTURE_OLD_S
            return self._ending.is_set() or (fresh and self._picture is not None and self._picture.seq != after_seq)

        with self._changed:
            self._changed.wait_for(another, timeout_s)
            return self._picture if not self._ending.is_set() and another() else None

    def close(self) -> None:
        """End the thread, and whoever waits for a picture."""
        with self._changed:
            self._ending.set()
            self._changed.notify_all()
        self._thread.join(5.0)

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._states, self._previews):
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._ending.is_set():
                poller.poll(_POLL_MS)
                state, preview = _newest(self._states), _newest(self._previews)
                if state is not None and (found := json_object(state[-1])) is not None:
                    with self._changed:
                        self._state, self._state_s = found, time.monotonic()
                if preview is not None and (picture := as_picture(preview)) is not None:
                    with self._changed:
                        self._picture, self._picture_s = picture, time.monotonic()
                        self._changed.notify_all()
        finally:
            self._states.close(linger=0)
            self._previews.close(linger=0)


def as_picture(frames: list[bytes]) -> Picture | None:
    """A message of pilot.preview; None where it is none."""
    header = json_object(frames[0]) if len(frames) == 2 else None
    if header is None:
        return None
    seq, height, width = (header.get(key) for key in ("seq", "height", "width"))
    if not (isinstance(seq, int) and isinstance(height, int) and isinstance(width, int)):
        return None
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE and len(frames[1]) == height * width):
        return None
    stamp_s, steering_deg, speed_mps = (_number(header.get(key)) for key in ("stamp_s", "steering_deg", "speed_mps"))
    return Picture(seq, stamp_s or 0.0, height, width, frames[1], steering_deg, speed_mps)


def _subscribe(
    context: zmq.Context[zmq.Socket[bytes]], runtime: Path, name: str, waiting: int
) -> zmq.Socket[bytes]:  # fmt: skip
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, waiting)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(endpoint(runtime, name))
    return socket


def _newest(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    found = None
    with contextlib.suppress(zmq.Again):
        while True:
            found = socket.recv_multipart(zmq.NOBLOCK)
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
