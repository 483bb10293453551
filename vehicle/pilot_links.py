"""The pilot's five sockets. Nothing here waits: what cannot be sent now is dropped, what has not come is not there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from vehicle.links import bind_socket, endpoint, json_object
from vehicle.observation import HEIGHT, WIDTH

GATE_SILENT_S = 1.0  # the gate speaks at 10 Hz; what it said longer ago than this is not known any more
_INTENT_QUEUE = 4  # an old intent is worth nothing
_KERNEL_BYTES = 4096
_RECONNECT_MS = 20
_MAX_REQUEST_BYTES = 64 * 2**10
_REQUESTS_AT_ONCE = 4


class PilotLinks:
    """Connects to the gate, and binds the pilot's own sockets.

    Args:
        runtime: the folder of the sockets; exists.

    Raises:
        VehicleError: a socket cannot be bound.
        ConfigError: the path is too long for a socket.
    """

    def __init__(self, runtime: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self.sent = self.dropped = 0
        self._gate: dict[str, Any] = {}
        self._gate_s: float | None = None
        self.refusal = ""  # why the gate did not take the last request
        try:
            self._intents = self._open(zmq.PUSH, runtime, "gate.intent", bind=False, hwm=_INTENT_QUEUE)
            self._state = self._open(zmq.SUB, runtime, "gate.state", bind=False, hwm=_INTENT_QUEUE)
            self._state.setsockopt(zmq.SUBSCRIBE, b"")
            self._ask = self._open(zmq.DEALER, runtime, "gate.request", bind=False, hwm=_INTENT_QUEUE)
            self._requests = self._open(zmq.ROUTER, runtime, "pilot.request", bind=True, hwm=100)
            self._preview = self._open(zmq.PUB, runtime, "pilot.preview", bind=True, hwm=1)
        except BaseException:
            self.close()
            raise

    def _open(self, kind: int, runtime: Path, name: str, *, bind: bool, hwm: int) -> zmq.Socket[bytes]:
        opened = self._context.socket(kind)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.SNDHWM, hwm)
        opened.setsockopt(zmq.RCVHWM, hwm)
        opened.setsockopt(zmq.MAXMSGSIZE, -1 if kind == zmq.SUB else _MAX_REQUEST_BYTES)
        if kind in (zmq.PUSH, zmq.DEALER):
            opened.setsockopt(zmq.IMMEDIATE, 1)  # without a gate, sending fails at once instead of queueing
            opened.setsockopt(zmq.SNDBUF, _KERNEL_BYTES)
        if bind:
            bind_socket(opened, runtime, name)
        else:
            opened.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
            opened.connect(endpoint(runtime, name))
        return opened

    def send(self, message: bytes) -> bool:
        """An Intent or Alive to the gate; False where it was dropped."""
        try:
            self._intents.send(message, zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def hear(self, now_s: float) -> None:
        """Take in what the gate has published, and its answers."""
        state = None
        with contextlib.suppress(zmq.Again):
            while True:
                state = self._state.recv_multipart(zmq.NOBLOCK)[-1]
        if state is not None and (found := json_object(state)) is not None:
            self._gate, self._gate_s = found, now_s
        with contextlib.suppress(zmq.Again):
            while True:
                answer = json_object(self._ask.recv_multipart(zmq.NOBLOCK)[-1]) or {}
                self.refusal = "" if answer.get("ok") else str(answer.get("what", "an answer that is none"))

    def gate(self, now_s: float) -> dict[str, Any] | None:
        """The gate's newest state; None where it has been silent for a second."""
        return self._gate if self._gate_s is not None and now_s - self._gate_s <= GATE_SILENT_S else None

    def ask_gate(self, request: dict[str, Any]) -> bool:
        """Send a request to the gate, whose answer `hear` takes in; False where there is no gate."""
        try:
            self._ask.send(json.dumps(request).encode(), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def requests(self) -> Iterator[tuple[list[bytes], dict[str, Any] | None]]:
        """The requests that wait, a few at most: where to answer, and the JSON object, None where it is none."""
        with contextlib.suppress(zmq.Again):
            for _ in range(_REQUESTS_AT_ONCE):
                *envelope, text = self._requests.recv_multipart(zmq.NOBLOCK)
                yield envelope, json_object(text)

    def answer(self, envelope: list[bytes], answer: dict[str, Any]) -> None:
        """Answer a request; one who has gone away meanwhile gets none."""
        with contextlib.suppress(zmq.Again):
            self._requests.send_multipart([*envelope, json.dumps(answer).encode()], zmq.NOBLOCK)

    def show(self, header: dict[str, Any], gray: bytes) -> None:
        """Publish a preview, 120 rows of 160 gray bytes."""
        header = {**header, "height": HEIGHT, "width": WIDTH}
        with contextlib.suppress(zmq.Again):
            self._preview.send_multipart([json.dumps(header).encode(), gray], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        self._context.destroy(linger=0)
