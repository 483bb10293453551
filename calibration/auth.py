"""Who may use the console: one password, sessions that expire, and login attempts that become slow.

Sessions are kept in memory and timed by `time.monotonic`: a car without network does not know the date, and a console
that was started again asks for the password again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, VerifyMismatchError

from calibration.durable import make_folders, write_durably
from calibration.errors import HotlapError

MIN_PASSWORD = 8
MAX_PASSWORD = 128  # a longer one would only be work for the hash
IDLE_S = 3600.0  # DeepRacer's token lasts an hour; this one is renewed by use
ABSOLUTE_S = 12 * 3600.0
MAX_SESSIONS = 64
FREE_FAILURES = 5
MAX_WAIT_S = 900.0
_MAX_ADDRESSES = 1024
_ATTEMPTS_BURST, _ATTEMPTS_PER_S = 30.0, 0.5  # of all addresses together: bounds guessing by many, and the hashing
# No 0/O, 1/l/i: it is read off a terminal and typed on a phone. 12 of 31 characters are 59 bits.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
# OWASP's least for Argon2id (19 MiB, 2 passes, 1 lane): some 60 ms on a Pi 4, in one thread beside the pilot.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, type=Type.ID)


class PasswordError(HotlapError, ValueError):
    """A password is wrong, too short, or its file is damaged: reason "wrong_password", "bad_password" or "file"."""

    def __init__(self, reason: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.reason = reason
        super().__init__(what, cause=cause, next_step=next_step)


class PasswordStore:
    """The password's hash on disk, readable for its owner only.

    The first password is made at random, and is kept readable beside the hash until somebody changes it: the car's
    owner must be able to look it up (``hotlap console --show-password``), and has no other way in.

    Args:
        folder: of the console's own files; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._hash_path, self._first_path = folder / "password.json", folder / "first-password"
        self._folder = folder
        self._one_at_a_time = threading.Lock()

    def ensure(self) -> str | None:
        """Make the first password where there is none yet, and return it then.

        Raises:
            OSError: it cannot be written.
        """
        return None if self._hash_path.exists() else self.reset()

    def first(self) -> str | None:
        """The first password, while it is still the one in force."""
        try:
            return self._first_path.read_text().strip() if self._hash_path.exists() else None
        except FileNotFoundError:
            return None

    def reset(self) -> str:
        """A new random password, which is returned; the one before is void.

        Raises:
            OSError: it cannot be written.
        """
        groups = ("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))
        password = "-".join(groups)
        make_folders(self._folder)
        self._folder.chmod(0o700)
        write_durably(self._first_path, f"{password}\n".encode(), mode=0o600)
        self._write(password)
        return password

    def verify(self, password: str) -> bool:
        """Whether it is the password; one caller at a time, since each takes 19 MiB and a core.

        Raises:
            PasswordError: the file is damaged or cannot be read: nobody can log in.
        """
        if not 0 < len(password) <= MAX_PASSWORD:
            return False
        with self._one_at_a_time:
            try:
                said = json.loads(self._hash_path.read_text())
                return _HASHER.verify(str(said["argon2"]), password.encode("utf-8", "surrogatepass"))
            except VerifyMismatchError:
                return False
            except (OSError, ValueError, KeyError, TypeError, Argon2Error) as error:
                raise PasswordError(
                    "file",
                    f"{self._hash_path} cannot be used: {error}",
                    cause="it was edited, or the card is failing",
                    next_step="on the car: hotlap console --reset-password",
                ) from error

    def change(self, old: str, new: str) -> None:
        """Another password; the readable first one is deleted.

        Raises:
            PasswordError: the old one is wrong, the new one is too short or too long, or the file is damaged.
            OSError: it cannot be written.
        """
        if not self.verify(old):
            raise PasswordError("wrong_password", "the password is incorrect", next_step="provide the current password")
        if not MIN_PASSWORD <= len(new) <= MAX_PASSWORD or not new.isprintable():
            raise PasswordError(
                "bad_password",
                f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} printable characters",
                next_step="choose another one",
            )
        self._write(new)
        self._first_path.unlink(missing_ok=True)

    def _write(self, password: str) -> None:
        document = {"format": "hotlap-password", "version": 1, "argon2": _HASHER.hash(password)}
        write_durably(self._hash_path, (json.dumps(document) + "\n").encode(), mode=0o600)


def secret_key(folder: Path) -> bytes:
    """The key that signs the console's cookies, made at the first call.

    Raises:
        OSError: it cannot be read or written.
    """
    path = folder / "secret-key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != 32:
        key = secrets.token_bytes(32)
        make_folders(folder)
        write_durably(path, key, mode=0o600)
    return key


@dataclass
class Session:
    """Somebody who has logged in.

    Args:
        key: names the session inside the console; it is not the token.
        address: where the login came from.
    """

    key: str
    address: str
    created_s: float
    used_s: float


class Sessions:
    """The sessions by their tokens, of which only the hashes are kept.

    Args:
        ended: told the key of each session that is over.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        idle_s: float = IDLE_S,
        absolute_s: float = ABSOLUTE_S,
        ended: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._clock, self._idle_s, self._absolute_s, self._ended = clock, idle_s, absolute_s, ended
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def create(self, address: str) -> str:
        """A new session's token; the one unused for longest goes where there are too many."""
        token, now_s = secrets.token_urlsafe(32), self._clock()
        key = _key(token)
        gone = []
        with self._lock:
            self._sessions[key] = Session(key, address, now_s, now_s)
            while len(self._sessions) > MAX_SESSIONS:
                gone.append(self._sessions.popitem(last=False)[0])
        self._tell(gone)
        return token

    def find(self, token: str | None, *, use: bool = True) -> Session | None:
        """The session of a token, if it is valid. `use`: this counts as a use, so it lasts longer."""
        if not token:
            return None
        key, now_s = _key(token), self._clock()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if now_s - session.used_s <= self._idle_s and now_s - session.created_s <= self._absolute_s:
                if use:
                    session.used_s = now_s
                    self._sessions.move_to_end(key)
                return session
            del self._sessions[key]
        self._tell([key])
        return None

    def end(self, token: str | None) -> None:
        """Log out."""
        if token:
            with self._lock:
                gone = self._sessions.pop(_key(token), None)
            self._tell([gone.key] if gone else [])

    def end_others(self, key: str) -> None:
        """Log out everybody but this session: the password was changed."""
        with self._lock:
            gone = [other for other in self._sessions if other != key]
            for other in gone:
                del self._sessions[other]
        self._tell(gone)

    def _tell(self, keys: list[str]) -> None:
        for key in keys:
            self._ended(key)


def _key(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class LoginLimiter:
    """How long an address must wait before it may try again: after five failures 1 s, then twice as long each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address -> failures, free again at
        self._lock = threading.Lock()
        self._tokens, self._filled_s = _ATTEMPTS_BURST, clock()

    def take(self, address: str) -> float:
        """Ask for one attempt. 0: it may be made, and counts as failed until `succeeded`; else the seconds to wait."""
        who, now_s = _network(address), self._clock()
        with self._lock:
            failures, free_s = self._failures.get(who, (0, 0.0))
            if now_s < free_s:
                return free_s - now_s
            self._tokens = min(_ATTEMPTS_BURST, self._tokens + (now_s - self._filled_s) * _ATTEMPTS_PER_S)
            self._filled_s = now_s
            if self._tokens < 1.0:
                return (1.0 - self._tokens) / _ATTEMPTS_PER_S
            self._tokens -= 1.0
            failures += 1
            wait_s = 0.0 if failures < FREE_FAILURES else min(MAX_WAIT_S, 2.0 ** (failures - FREE_FAILURES))
            self._failures[who] = failures, now_s + wait_s
            self._failures.move_to_end(who)
            while len(self._failures) > _MAX_ADDRESSES:
                self._failures.popitem(last=False)
            return 0.0

    def succeeded(self, address: str) -> None:
        """That attempt was right."""
        with self._lock:
            self._failures.pop(_network(address), None)


def _network(address: str) -> str:
    """An address; of IPv6 the network, since whoever has one address has all of its /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
