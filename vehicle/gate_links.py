"""The gate's three sockets: requests in and answers out, intents in, state out. Nothing here waits but `poll`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from vehicle.links import bind_socket

MAX_BYTES = 65536  # of a message; whoever sends more is disconnected
_INTENTS = 64  # that may wait; with one reader at 50 Hz more than a few only wait while the gate is stopped
_STATES = 10


@dataclass(frozen=True)
class Request:
    """`envelope` leads back to the sender; `message` is what its JSON says, or the text where it is none."""

    envelope: list[bytes]
    message: object


class GateLinks:
    """Binds ``gate.request`` (ROUTER), ``gate.intent`` (PULL) and ``gate.state`` (PUB).

    Raises:
        ConfigError: a path is too long, or a socket cannot be bound.
    """

    def __init__(self, runtime: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._requests = self._bind(zmq.ROUTER, runtime, "gate.request")
            self._intents = self._bind(zmq.PULL, runtime, "gate.intent")
            self._state = self._bind(zmq.PUB, runtime, "gate.state")
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._requests, zmq.POLLIN)
        self._poller.register(self._intents, zmq.POLLIN)

    def _bind(self, kind: int, runtime: Path, name: str) -> zmq.Socket[bytes]:
        link = self._context.socket(kind)
        link.setsockopt(zmq.LINGER, 0)
        link.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        link.setsockopt(zmq.RCVHWM, _INTENTS)
        link.setsockopt(zmq.SNDHWM, _INTENTS if kind == zmq.ROUTER else _STATES)
        bind_socket(link, runtime, name)
        return link

    def watch(self, fd: int) -> None:
        """Let `poll` return when this file descriptor is readable, too."""
        self._poller.register(fd, zmq.POLLIN)

    def poll(self, timeout_ms: int) -> bool:
        """Wait for a message, or for a watched file descriptor; whether there is any."""
        return bool(self._poller.poll(timeout_ms))

    def next_request(self) -> Request | None:
        """The next request that waits."""
        frames = _receive(self._requests)
        if frames is None:
            return None
        try:
            message: object = json.loads(frames[-1])
        except (ValueError, RecursionError):
            message = frames[-1][:80].decode(errors="replace")
        return Request(frames[:-1], message)

    def next_intent(self) -> bytes | None:
        """The next message of the pilot that waits."""
        frames = _receive(self._intents)
        return None if frames is None else frames[-1]

    def answer(self, envelope: list[bytes], answer: dict[str, Any]) -> None:
        """Send an answer; it is dropped where the sender has gone, or does not read."""
        _send(self._requests, [*envelope, json.dumps(answer).encode()])

    def publish(self, state: dict[str, Any]) -> None:
        """Send the state to whoever listens."""
        _send(self._state, [json.dumps(state).encode()])

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        self._context.destroy(linger=0)


def _receive(link: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return link.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _send(link: zmq.Socket[bytes], frames: list[bytes]) -> None:
    try:
        link.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return  # dropping is what a slow reader gets
