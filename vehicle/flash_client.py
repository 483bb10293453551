"""A client of the console's API: one HTTPS connection, its certificate pinned, a session, JSON in and out."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calibration.durable import make_folders, write_durably
from vehicle.errors import VehicleError
from vehicle.mdns import resolve

TIMEOUT_S = 15.0
PORTS = (443, 8443)  # of a service, and of a laptop
_MAX_ANSWER_BYTES = 4 << 20
_TOKEN = re.compile(r'<meta name="csrf-token" content="([^"]+)"')


class CarUnreachable(VehicleError, ConnectionError):
    """Nobody answers there, or the connection broke."""


class CarDistrusted(VehicleError, ConnectionError):
    """The certificate is not the one that this car had before."""


class CarSaidNo(VehicleError, RuntimeError):
    """The console refused a request: `reason`, `status`, and `blocked` where arming checks were the cause."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        self.status, self.reason = status, str(error.get("reason", ""))
        self.blocked = list(error.get("blocked") or [])
        super().__init__(
            str(error.get("what") or f"the car answered with status {status}"),
            cause=str(error.get("cause") or ""),
            next_step=str(error.get("next") or ""),
        )

    def as_object(self) -> dict[str, Any]:
        """For JSON, as the console says it."""
        return {"what": self.what, "cause": self.cause, "next": self.next_step, "reason": self.reason}


def parse_car(text: str) -> tuple[str, tuple[int, ...]]:
    """Host and the ports to try, from ``hotlap.local``, ``10.0.0.7:8443`` or ``https://hotlap.local``.

    Raises:
        VehicleError: no address of a car.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _no_address(text, str(error)) from error
    if parts.scheme != "https" or not host or parts.username or parts.path.strip("/") or parts.query:
        raise _no_address(text, "an address is a host name or number, perhaps with a port; consoles speak https")
    return host, PORTS if port is None else (port,)


def _no_address(text: str, cause: str) -> VehicleError:
    return VehicleError(f"{text!r} is no address of a car", cause=cause, next_step="--car hotlap.local")


class Pins:
    """The certificates of the cars that were met: ``{"host:port": sha256}``.

    Args:
        path: by default ``$XDG_CONFIG_HOME/hotlap/cars.json``.
    """

    def __init__(self, path: Path | None = None) -> None:
        config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        self.path = path or config / "hotlap" / "cars.json"

    def get(self, car: str) -> str | None:
        """The certificate that this car had; None for a new one.

        Raises:
            VehicleError: the file is damaged: then no car can be trusted.
        """
        try:
            found = json.loads(self.path.read_text())
            pin = found.get(car)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise VehicleError(
                f"{self.path} cannot be read: {error}",
                cause="it was edited, or belongs to another user",
                next_step=f"mend it, or delete it: cars are met anew then (rm {self.path})",
            ) from error
        return pin if isinstance(pin, str) else None

    def set(self, car: str, sha256: str) -> None:
        """Remember.

        Raises:
            OSError: it cannot be written.
        """
        try:
            known = json.loads(self.path.read_text())
        except FileNotFoundError:
            known = {}
        make_folders(self.path.parent)
        write_durably(self.path, (json.dumps({**known, car: sha256}, indent=2) + "\n").encode(), mode=0o600)


class CarClient:
    """A connection to one console. `met`: its certificate was seen for the first time, and is remembered from now on.

    Args:
        pins: None: any certificate will do (--insecure).
        trust_new: take a changed certificate for the car's new one.

    Raises:
        CarUnreachable: nobody answers.
        CarDistrusted: another certificate than before.
    """

    def __init__(self, host: str, ports: tuple[int, ...], pins: Pins | None, *, trust_new: bool = False) -> None:
        self._host, self._pins, self._trust_new = host, pins, trust_new
        self._cookies: dict[str, str] = {}
        self._token = ""
        self.met = False
        self.sha256 = ""
        self._address = _address_of(host)
        for port in ports:
            self.port = port
            try:
                self.reconnect()
                break
            except CarUnreachable:
                if port == ports[-1]:
                    raise

    @property
    def name(self) -> str:
        """``host:port``."""
        return f"{self._host}:{self.port}"

    def reconnect(self) -> None:
        """Connect, and look at the certificate before anything is sent.

        Raises:
            CarUnreachable: nobody answers.
            CarDistrusted: another certificate than before.
        """
        # The certificate is signed by itself: what is verified is that it is the one that this car had before.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(self._address, self.port, timeout=TIMEOUT_S, context=context)
        try:
            self._connection.connect()
            raw = self._connection.sock.getpeercert(binary_form=True) or b""
        except OSError as error:
            self._connection.close()
            raise CarUnreachable(
                f"no console answers at https://{self.name}: {error}",
                cause="the car is off, in another network, or its console does not run",
                next_step="hotlap console (on the car), and look that this computer is in the same Wi-Fi",
            ) from error
        self.sha256 = hashlib.sha256(raw).hexdigest()
        try:
            self._check_pin()
        except BaseException:
            self._connection.close()
            raise

    def _check_pin(self) -> None:
        if self._pins is None:
            return
        known = self._pins.get(self.name)
        if known == self.sha256:
            return
        if known is not None and not self._trust_new:
            raise CarDistrusted(
                f"the certificate of {self.name} is {self.sha256[:16]}..., it was {known[:16]}... before",
                cause="its card was written anew, another car has its name now, or somebody listens in",
                next_step="compare it with what hotlap console prints on the car, then: hotlap flash ... --trust-new",
            )
        try:
            self._pins.set(self.name, self.sha256)
        except (OSError, ValueError) as error:
            raise VehicleError(f"{self._pins.path} cannot be written: {error}", next_step="--insecure") from error
        self.met, self._trust_new = True, False

    def log_in(self, password: str) -> None:
        """Open a session.

        Raises:
            CarSaidNo: wrong_password, too_many_attempts.
            CarUnreachable: the connection broke, or this is no console.
        """
        _, page = self._send("GET", "/login", None, {})
        found = _TOKEN.search(page.decode(errors="replace"))
        if found is None:
            raise CarUnreachable(f"what answers at https://{self.name} is no hotlap console", next_step="check --car")
        self._token = found[1]
        self.ask("POST", "/login", {"password": password})

    def ask(
        self, method: str, path: str, values: Mapping[str, Any] | bytes | None = None, **headers: str
    ) -> dict[str, Any]:  # fmt: skip
        """One request: JSON, or raw bytes, in; JSON out.

        Raises:
            CarSaidNo: the console's refusal.
            CarUnreachable: the connection broke.
        """
        raw = values if isinstance(values, bytes) else None if values is None else json.dumps(values).encode()
        kind = "application/octet-stream" if isinstance(values, bytes) else "application/json"
        status, body = self._send(method, path, raw, {"Content-Type": kind, **headers})
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            found = {"error": {"what": f"the car answered what is no JSON, with status {status}"}}
        if status >= 400 or "error" in found:
            error = found.get("error")
            raise CarSaidNo(status, error if isinstance(error, dict) else {})
        return found

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()), **headers}
        if self._token:
            sent["X-CSRFToken"] = self._token
        try:
            self._connection.request(method, path, body, sent)
            answer = self._connection.getresponse()
            text = answer.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise CarUnreachable(
                f"the connection to https://{self.name} broke: {error or type(error).__name__}",
                cause="Wi-Fi, or the console has ended",
                next_step="try again: an upload goes on where it stopped",
            ) from error
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value
        return answer.status, text

    def log_out(self) -> None:
        """End the session, if there is one and somebody listens."""
        if "deepracer_token" in self._cookies:
            with contextlib.suppress(CarUnreachable):
                self._send("POST", "/logout", b"", {})

    def wait_for(self, timeout_s: float) -> None:
        """How long the next answers may take."""
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _address_of(host: str) -> str:
    """The host, or its number where only multicast knows the name."""
    if not host.lower().rstrip(".").endswith(".local"):
        return host
    try:
        socket.getaddrinfo(host, 443)
        return host
    except OSError:
        return resolve(host) or host
