"""The production server of the console: cheroot, with three of its habits changed for a car on a school's Wi-Fi.

cheroot shakes hands (TLS) in the thread that accepts connections, so one silent phone would hold up everybody else's
stop button: here a connection waits among the idle ones until it says something, and a worker shakes hands. A request
line that trickles in for ever would hold a worker: here it has ten seconds. What a refused request has not sent yet is
not read, and no connection waits for a queue that is full.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cheroot.makefile import MakeFile
from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.wsgi import Server

from calibration.errors import HotlapError

TIMEOUT_S = 10  # of one read or write: a dead viewer is gone after it
REQUEST_S = 10.0  # from the first byte of a connection's request to the end of its headers
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 66 * 2**20  # a model of 64 MB and its form; the application's own limits are narrower
MAX_DRAINED_BYTES = 2**20
MAX_IDLE_CONNECTIONS = 128
SEND_BUFFER_BYTES = 64 * 1024  # a slow viewer must not have seconds of old pictures before it
_PASSING = (socket.timeout, ConnectionError, ssl.SSLError, OSError)


class ServerError(HotlapError, OSError):
    """A port cannot be listened to."""


class _Tls(Adapter):
    """TLS without the handshake, which is done by the first read."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        """The listening socket speaks no TLS."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """A connection that has been accepted."""
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, Any]:
        """What the application sees of it."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: Any, mode: str = "r", bufsize: int = -1) -> Any:
        """cheroot's buffers around a connection."""
        return MakeFile(sock, mode, bufsize if bufsize > 0 else 8192)


class _OneSlash:
    """Reads a request line; several slashes at the beginning of its path are one."""

    def __init__(self, rfile: Any) -> None:
        self._rfile = rfile

    def readline(self) -> bytes:
        """The next line."""
        return re.sub(rb"^([A-Z]+ )/+", rb"\1/", self._rfile.readline())


class _Headers(HeaderReader):
    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """The headers of a request.

        Raises:
            ValueError: they are none, which the server answers with a 400.
        """
        try:
            return dict(super().__call__(rfile, hdict))
        except UnboundLocalError:  # cheroot's own slip: the first line is the continuation of nothing
            raise ValueError("Illegal continuation line.") from None


class _Request(HTTPRequest):
    header_reader = _Headers()

    def parse_request(self) -> None:
        """The handshake where it is still to be done, then request line and headers, all within `REQUEST_S`."""
        sock = self.conn.socket
        self.server.watch(self.conn, time.monotonic() + REQUEST_S)
        try:
            if isinstance(sock, ssl.SSLSocket) and sock.version() is None:
                sock.do_handshake()
            super().parse_request()
        except _PASSING:
            self.ready = False  # whoever it was has gone, is too slow, or speaks no TLS
        finally:
            self.server.watch(self.conn, None)

    def read_request_line(self) -> bool:
        """DeepRacer's clients ask for ``//login``, which cheroot takes for a host; and what is no URL is a 400."""
        whole = self.rfile
        self.rfile = _OneSlash(whole)
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError:
            self.simple_response("400 Bad Request", "Malformed Request-URI")
            return False
        finally:
            self.rfile = whole

    def send_headers(self) -> None:
        """A large body that nobody has read is not read now either; nor is one of unknown length."""
        if self.chunked_read or getattr(self.rfile, "remaining", 0) > MAX_DRAINED_BYTES:
            self.close_connection = True
        super().send_headers()


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request
    heard = False  # whether it has said anything yet


class ConsoleServer(Server):
    """One listening port.

    Args:
        tls: None for plain HTTP.
        threads: requests that are answered at a time; one more is refused while `2 * threads` wait.

    Raises:
        ServerError: the port is taken, or needs root.
    """

    ConnectionClass = _Connection
    timeout = TIMEOUT_S
    keep_alive_conn_limit = MAX_IDLE_CONNECTIONS
    max_request_header_size = MAX_HEADER_BYTES
    max_request_body_size = MAX_BODY_BYTES

    def __init__(
        self, application: Callable[..., Any], host: str, port: int, *, tls: ssl.SSLContext | None, threads: int
    ) -> None:
        super().__init__(
            (host, port),
            application,
            numthreads=threads,
            max=threads,
            server_name="hotlap",
            request_queue_size=64,
            timeout=TIMEOUT_S,
            accepted_queue_size=2 * threads,
            accepted_queue_timeout=0,
        )
        if tls is not None:
            self.ssl_adapter = _Tls(tls)
        self._parsing: dict[Any, float] = {}
        self._parsing_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        try:
            self.prepare()
        except OSError as error:
            cause = "another program listens there" if "in use" in str(error) else "ports below 1024 need root"
            raise ServerError(
                f"{host or 'every address'} port {port} cannot be listened to: {error}",
                cause=cause,
                next_step="choose another one: hotlap console --port 8443 --http-port 8080",
            ) from error
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    @property
    def port(self) -> int:
        """The port that is listened to, also where any was asked for."""
        return int(self.bind_addr[1])

    def run(self, name: str) -> None:
        """Serve, from a thread of that name, until `close`."""
        self._thread = threading.Thread(target=self.serve, name=name, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive() and self.interrupt is None

    def close(self) -> None:
        """Answer what is being answered, at most for some seconds, and let go of the port."""
        self.stop()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S)

    # --- cheroot's habits, changed

    @staticmethod
    def bind_socket(sock: socket.socket, address: Any) -> socket.socket:
        """Bind; a socket that cannot be is closed."""
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        return sock

    def process_conn(self, conn: Any) -> None:
        """A connection that has said nothing yet waits among the idle ones, others are given to a worker."""
        if not conn.heard:
            conn.heard = True
            self.put_conn(conn)
            return
        try:
            self.requests.put(conn)
        except queue.Full:
            conn.close()

    def put_conn(self, conn: Any) -> None:
        """Wait for the next request, unless it is here already, where the selector does not see it: inside of TLS."""
        if conn.heard and isinstance(conn.socket, ssl.SSLSocket) and conn.socket.pending() and self.ready:
            self.process_conn(conn)
        else:
            super().put_conn(conn)

    def watch(self, conn: Any, by_s: float | None) -> None:
        """A request must be there by then; None: it is."""
        with self._parsing_lock:
            if by_s is None:
                self._parsing.pop(conn, None)
            else:
                self._parsing[conn] = by_s

    def drop_slow(self) -> None:
        """Cut connections whose request does not come to its end; to be called about once a second."""
        now_s = time.monotonic()
        with self._parsing_lock:
            late = [conn for conn, by_s in self._parsing.items() if now_s > by_s]
        for conn in late:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(conn.socket, socket.SHUT_RDWR)  # of the TCP connection, TLS or not

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Only what is wrong with the server itself; people who go away are no news."""
        if level >= logging.ERROR:
            print(f"console: {msg}", file=sys.stderr, flush=True)


def redirecting(https_port: int) -> Callable[..., Any]:
    """A WSGI application that sends everybody to the same path under https."""
    port = "" if https_port == 443 else f":{https_port}"

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        host = _host_of(environ.get("HTTP_HOST", ""))
        if host is None:
            start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        asked = environ.get("PATH_INFO", "")
        path = "/" + "".join(c for c in asked if c.isascii() and (c.isalnum() or c in "-_./")).lstrip("/")
        body = f"this console speaks https: https://{host}{port}{path}\n".encode()
        start_response(
            "302 Found",
            [
                ("Location", f"https://{host}{port}{path}"),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
            ],
        )
        return [body]

    return application


def _host_of(text: str) -> str | None:
    """The host of a Host header without its port; None for what is no host, such as a whole header of an attacker's."""
    host = text.rpartition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
    inner = host.strip("[]")
    allowed = all(c.isascii() and (c.isalnum() or c in "-.:") for c in inner)
    return host if inner and allowed and len(host) <= 253 else None
