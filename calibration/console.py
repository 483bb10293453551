"""What the parts of the console share: the car, who is logged in, who holds which lease, and what is being streamed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import current_app, g, request

from calibration.auth import ABSOLUTE_S, IDLE_S, LoginLimiter, PasswordStore, Session, Sessions
from calibration.car_link import CarLink, CarRefused
from calibration.events import Events
from calibration.uploads import Uploads
from calibration.video import Slots, Video

EXTENSION = "hotlap"
# A class has thirty phones. Each costs a thread; what is sent is encoded once for all, and who is slow misses some.
MAX_VIEWERS = 32
MAX_EVENT_STREAMS = 32


@dataclass(frozen=True)
class ConsoleSettings:
    """How a console is set up.

    Args:
        folder: of its own files: password, key of the cookies, uploads.
        clock: seconds that only go forward.
    """

    folder: Path
    version: str = ""
    idle_s: float = IDLE_S
    absolute_s: float = ABSOLUTE_S
    max_viewers: int = MAX_VIEWERS
    max_event_streams: int = MAX_EVENT_STREAMS
    clock: Callable[[], float] = time.monotonic


class Leases:
    """Which session got which lease from the gate: somebody else's is refused, though the gate would take it.

    The console never renews a lease by itself: only a request of the browser does.
    """

    def __init__(self, link: CarLink) -> None:
        self._link = link
        self._owners: dict[str, str] = {}  # lease -> session key
        self._lock = threading.Lock()

    def grant(self, key: str, kind: str, holder: str) -> str:
        """Ask the gate for a lease.

        Raises:
            CarRefused: somebody has one.
        """
        lease = str(self._link.ask({"op": "lease", "kind": kind, "holder": holder})["lease"])
        with self._lock:
            self._owners = {lease: key}  # the gate grants one at a time: the others are over
        return lease

    def check(self, key: str, lease: object) -> str:
        """The lease, if this session got it.

        Raises:
            CarRefused: lease_lost.
        """
        with self._lock:
            if isinstance(lease, str) and self._owners.get(lease) == key:
                return lease
        raise CarRefused("lease_lost", "this lease has ended, or is not yours", next_step="ask for a lease again")

    def end(self, key: str) -> None:
        """A session is over: so is what it held. The gate would notice as well, a quarter of a second later."""
        with self._lock:
            held = [lease for lease, owner in self._owners.items() if owner == key]
            for lease in held:
                del self._owners[lease]
        for lease in held:
            with contextlib.suppress(CarRefused):
                self._link.ask({"op": "release", "lease": lease})


class Console:
    """Everything behind the pages, made once by `calibration.app.create_app`."""

    def __init__(self, link: CarLink, settings: ConsoleSettings) -> None:
        self.link, self.settings = link, settings
        self.stopping = threading.Event()
        self.passwords = PasswordStore(settings.folder)
        self.leases = Leases(link)
        self.sessions = Sessions(
            settings.clock, idle_s=settings.idle_s, absolute_s=settings.absolute_s, ended=self._session_ended
        )
        self.session_ended: list[Callable[[str], None]] = []
        self.limiter = LoginLimiter(settings.clock)
        self.uploads = Uploads(settings.folder / "uploads")
        viewers = Slots(settings.max_viewers, "too_many_viewers", "people look at the pictures")
        self.video = Video(link, viewers, self.stopping)
        self.event_streams = Slots(settings.max_event_streams, "too_many_viewers", "pages are open")
        self.events = Events(link, self.event_streams, self.stopping)
        self.changing_password = threading.Lock()

    def _session_ended(self, key: str) -> None:
        self.leases.end(key)
        for told in self.session_ended:
            told(key)


def console() -> Console:
    """The console of the request that is being answered."""
    return cast(Console, current_app.extensions[EXTENSION])


def session() -> Session:
    """Who asks; only in views that are not open to everybody."""
    return cast(Session, g.session)


def holder() -> str:
    """Who asks, for people: the gate tells it to whoever else wants the controls."""
    return f"console {address()}"


def address() -> str:
    """Where the request comes from."""
    return request.remote_addr or "unknown"
