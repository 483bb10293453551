"""The experience buffer between rollout workers and the learner, and the embedded one, in memory.

The learner publishes the run and every new policy; workers put segments, the learner takes them. A buffer is bounded:
a worker that is too far ahead waits. ``memory`` keeps segments in the learner's process; its workers are processes of
this machine, each at the end of a socket pair. ``redis://`` is in `trainer.redis_buffer`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import Protocol

from trainer.errors import TrainerError
from trainer.rollout import WorkerEnd
from trainer.wire import MAX_FRAME_BYTES

ENVIRONMENT = "HOTLAP_BUFFER"  # where a worker's end is; not on the command line, which every user of a machine can see
_PIPE = "pipe:"
_RUN, _POLICY, _SEGMENT, _GO_ON, _OVER = b"R", b"P", b"S", b"+", b"-"


class ExperienceBuffer(Protocol):
    """The learner's end."""

    def publish_policy(self, version: int, policy: bytes) -> None:
        """Give workers a new policy."""

    def take(self, timeout_s: float) -> list[bytes]:
        """Segments that have come, oldest first; waits so long for the first one. Takes whatever a lost server costs.

        Raises:
            BufferLost: it refuses us.
        """

    def worker_environment(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """What a new worker process on this machine finds its end by: environment, and descriptors to pass on."""

    def started(self) -> None:
        """The process that this was for has begun."""

    def close(self) -> None:
        """The run is over; workers are told."""


class MemoryBuffer:
    """Segments in this process; a thread for each worker, so that a frozen one holds up nobody else.

    Args:
        run: what is published of the run.
        capacity: segments that may wait.
    """

    def __init__(self, run: bytes, capacity: int) -> None:
        self._run, self._capacity = run, capacity
        self._policy: tuple[int, bytes] = (-1, b"")
        self._segments: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._children: list[socket.socket] = []

    def publish_policy(self, version: int, policy: bytes) -> None:
        """As `ExperienceBuffer.publish_policy`."""
        with self._changed:
            self._policy = (version, policy)

    def take(self, timeout_s: float) -> list[bytes]:
        """As `ExperienceBuffer.take`."""
        with self._changed:
            self._changed.wait_for(lambda: self._segments, timeout_s)
            taken = list(self._segments)
            self._segments.clear()
            self._changed.notify_all()
        return taken

    def worker_environment(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """As `ExperienceBuffer.worker_environment`."""
        ours, theirs = socket.socketpair()
        self._children.append(theirs)
        connection = Connection(ours.detach())
        thread = threading.Thread(target=self._serve, args=(connection,), name="hotlap-experience", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return {ENVIRONMENT: f"{_PIPE}{theirs.fileno()}"}, (theirs.fileno(),)

    def started(self) -> None:
        """As `ExperienceBuffer.started`: our copy of its descriptor is closed, so that its end is noticed."""
        while self._children:
            self._children.pop().close()

    def close(self) -> None:
        """As `ExperienceBuffer.close`; returns when the threads have ended, which they do when the workers have."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.started()
        for thread in self._threads:
            thread.join(10.0)

    def _serve(self, connection: Connection) -> None:
        # A worker that dies in the middle of a message ends here, with an error or at its end: nothing else is lost.
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv_bytes(MAX_FRAME_BYTES)
                kind, content = message[:1], message[1:]
                if kind == _RUN:
                    connection.send_bytes(self._run)
                elif kind == _POLICY:
                    with self._changed:
                        version, policy = self._policy
                    connection.send_bytes(policy if version > int(content) else b"")
                elif kind == _SEGMENT:
                    connection.send_bytes(_GO_ON if self._keep(content) else _OVER)

    def _keep(self, segment: bytes) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._segments) < self._capacity)
            if not self._closed:
                self._segments.append(segment)
                self._changed.notify_all()
            return not self._closed


class PipeEnd:
    """The worker's end of a `MemoryBuffer`. Raises EOFError or OSError when the learner has gone."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)

    def _ask(self, message: bytes) -> bytes:
        self._connection.send_bytes(message)
        return self._connection.recv_bytes(MAX_FRAME_BYTES)

    def run(self) -> bytes:
        """As `WorkerEnd.run`."""
        return self._ask(_RUN)

    def policy(self, newer_than: int) -> bytes | None:
        """As `WorkerEnd.policy`."""
        return self._ask(_POLICY + str(newer_than).encode()) or None

    def put(self, segment: bytes) -> bool:
        """As `WorkerEnd.put`."""
        return self._ask(_SEGMENT + segment) == _GO_ON


def worker_end(address: str) -> WorkerEnd:
    """The worker's end at an address: ``redis://…``, ``rediss://…``, or what `MemoryBuffer` gave.

    Raises:
        TrainerError: no such kind of buffer.
    """
    if address.startswith(_PIPE):
        return PipeEnd(int(address.removeprefix(_PIPE)))
    check_address(address)
    from trainer.redis_buffer import RedisEnd

    return RedisEnd(address)


def check_address(address: str) -> None:
    """Raises TrainerError where ``address`` is no experience buffer on a server."""
    if not address.startswith(("redis://", "rediss://")):
        raise TrainerError(
            f"{address.partition('@')[2] or address!r} is no experience buffer",
            next_step="redis://HOST:6379/0 or rediss://HOST:6379/0, with :PASSWORD@ before the host",
        )


def address_from_environment() -> str | None:
    """What HOTLAP_BUFFER says."""
    return os.environ.get(ENVIRONMENT) or None
