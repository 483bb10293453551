"""The experience buffer on a Redis server: a bounded stream of segments, and beside it the run and its policy.

    hotlap:NAME:session   of the learner; another one is another run
    hotlap:NAME:run       configuration, tracks, reward function, action space, car
    hotlap:NAME:version, hotlap:NAME:policy
    hotlap:NAME:segments  the stream; what the learner has taken is deleted

NAME is ``?run=NAME`` of the address, "default" without. The server may go away, and come back with or without its
data: the learner then publishes again, and every segment that was not taken yet is lost or not, no more. Workers run
the reward function that the learner publishes: who may write to the server may run code on the workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

from trainer.errors import BufferLost, TrainerError
from trainer.experience import ENVIRONMENT, check_address

try:
    import redis
except ModuleNotFoundError as error:
    raise TrainerError(
        "an experience buffer on Redis needs the package redis, which is not installed",
        cause="what lets a training grow beyond one machine is an extra",
        next_step="pip install 'hotlap[scale]'",
    ) from error

T = TypeVar("T")
_TIMEOUT_S = 5.0
_RETRY_S = 0.25
_POLL_S = 0.02
_TAKE = 16  # segments in one answer
_HARD_BOUND = 4  # times the capacity: what the stream itself never exceeds, whatever workers do


class Server:
    """A connection that outlives the server's absences.

    Args:
        address: ``redis://`` or ``rediss://`` (TLS), as redis-py takes it, and ``run=NAME``.
        note: told when the server goes and when it is back.
    """

    def __init__(self, address: str, note: Callable[[str], None]) -> None:
        check_address(address)
        parts = urlsplit(address)
        query = parse_qs(parts.query, keep_blank_values=True)
        name = query.pop("run", ["default"])[-1]
        rest = "&".join(f"{key}={value[-1]}" for key, value in query.items())
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self.key = f"hotlap:{name}:".__add__
        self._note = note
        self._away_since: float | None = None
        try:
            self.client: Any = redis.Redis.from_url(
                urlunsplit(parts._replace(query=rest)), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
        except (ValueError, TypeError) as error:
            raise BufferLost(f"the address of the Redis server cannot be read: {error}") from error

    def once(self, ask: Callable[[Any], T]) -> T:
        """Ask, without patience. Raises BufferLost."""
        try:
            return ask(self.client)
        except redis.RedisError as error:
            raise self._lost(error) from error

    def attempt(self, ask: Callable[[Any], T]) -> T | None:
        """Ask; None where the server is away at the moment, after a short wait.

        Raises:
            BufferLost: it is there and refuses us.
        """
        try:
            answer = ask(self.client)
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise self._lost(error) from error
        except (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError) as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
                self._note(f"{self.shown} is away: {error}")
            time.sleep(_RETRY_S)
            return None
        except redis.RedisError as error:
            raise self._lost(error) from error
        if self._away_since is not None:
            self._note(f"{self.shown} is back after {time.monotonic() - self._away_since:.1f} s")
            self._away_since = None
        return answer

    def _lost(self, error: Exception) -> BufferLost:
        refused = isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError))
        return BufferLost(
            f"the Redis server at {self.shown} cannot be used: {error}",
            cause="a wrong user or password" if refused else "it does not run, or another address is meant",
            next_step="redis://:PASSWORD@HOST:6379/0" if refused else f"redis-cli -u {self.shown} ping",
        )


class RedisBuffer:
    """The learner's end.

    Args:
        address: of the server; run: what is published of the run; session: this learner's.
        capacity: segments that may wait; note: told of the server's absences.

    Raises:
        BufferLost: the server is not there, or refuses us.
    """

    def __init__(self, address: str, run: bytes, session: str, capacity: int, note: Callable[[str], None]) -> None:
        self._server = Server(address, note)
        self._address, self._run, self._session, self._capacity = address, run, session.encode(), capacity
        self._policy: tuple[int, bytes] | None = None
        self._stream = self._server.key("segments")
        self._server.once(self._publish)

    def _publish(self, client: Any) -> None:
        key = self._server.key
        together = client.pipeline(transaction=True)
        together.delete(self._stream)
        together.set(key("run"), self._run)
        together.set(key("capacity"), self._capacity)
        self._add_policy(together)
        together.set(key("session"), self._session)
        together.execute()

    def _add_policy(self, together: Any) -> None:
        version, policy = self._policy or (-1, b"")
        together.set(self._server.key("policy"), policy)
        together.set(self._server.key("version"), version)

    def publish_policy(self, version: int, policy: bytes) -> None:
        """As `ExperienceBuffer.publish_policy`; a server that is away gets it when it is back."""
        self._policy = (version, policy)

        def ask(client: Any) -> None:
            together = client.pipeline(transaction=True)
            self._add_policy(together)
            together.execute()

        self._server.attempt(ask)

    def take(self, timeout_s: float) -> list[bytes]:
        """As `ExperienceBuffer.take`."""

        def ask(client: Any) -> list[bytes]:
            key = self._server.key
            session, version = client.mget(key("session"), key("version"))
            if session != self._session:
                self._publish(client)  # it has lost its data
            elif self._policy is not None and int(version or -1) < self._policy[0]:
                self.publish_policy(*self._policy)  # it was away when that policy was new
            answer = client.xread({self._stream: "0"}, count=_TAKE, block=max(1, round(1000 * min(timeout_s, 1.0))))
            # A dictionary in the newer protocol, a list of pairs in the older.
            answer = list(answer.items()) if isinstance(answer, dict) else answer or []
            entries = [entry for _, got in answer for entry in (got[0] if got and isinstance(got[0], list) else got)]
            if entries:
                client.xdel(self._stream, *(number for number, _ in entries))
            return [content.get(b"segment", b"") for _, content in entries]

        return self._server.attempt(ask) or []

    def worker_environment(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """As `ExperienceBuffer.worker_environment`."""
        return {ENVIRONMENT: self._address}, ()

    def started(self) -> None:
        """As `ExperienceBuffer.started`: nothing was opened for it."""

    def close(self) -> None:
        """As `ExperienceBuffer.close`."""
        key = self._server.key
        self._server.attempt(lambda client: client.delete(key("session"), key("run"), key("policy"), self._stream))
        self._server.attempt(lambda client: client.set(key("over"), self._session, ex=3600))
        self._server.client.close()


def _say(text: str) -> None:
    print(f"hotlap: {text}", file=sys.stderr, flush=True)


class RedisEnd:
    """The worker's end: patient, whatever the server does."""

    def __init__(self, address: str, note: Callable[[str], None] = _say) -> None:
        self._server = Server(address, note)
        self._session: bytes | None = None
        self._capacity = 1

    def run(self) -> bytes:
        """As `WorkerEnd.run`. Raises BufferLost where the server is not there or refuses us."""
        key = self._server.key
        self._server.once(lambda client: client.ping())
        while True:
            found = self._server.attempt(lambda client: client.mget(key("session"), key("run"), key("capacity")))
            if found is not None and None not in found:
                self._session, self._capacity = found[0], int(found[2])
                return bytes(found[1])
            time.sleep(_RETRY_S)

    def policy(self, newer_than: int) -> bytes | None:
        """As `WorkerEnd.policy`."""
        key = self._server.key
        version = self._server.attempt(lambda client: client.get(key("version")))
        if version is None or int(version) <= newer_than:
            return None
        return self._server.attempt(lambda client: client.get(key("policy"))) or None

    def put(self, segment: bytes) -> bool:
        """As `WorkerEnd.put`. A segment in hand is kept until the server takes it."""
        key = self._server.key
        stream = key("segments")
        while True:
            found = self._server.attempt(
                lambda client: (*client.mget(key("session"), key("over")), client.xlen(stream))
            )
            session, over, waiting = found or (None, None, 0)
            if over == self._session or session not in (None, self._session):
                return False
            if session == self._session and waiting < self._capacity:
                bound = _HARD_BOUND * self._capacity
                if self._server.attempt(partial(self._add, segment, bound)) is not None:
                    return True
            time.sleep(_POLL_S if session is not None else _RETRY_S)

    def _add(self, segment: bytes, bound: int, client: Any) -> object:
        return client.xadd(self._server.key("segments"), {"segment": segment}, maxlen=bound, approximate=False)
