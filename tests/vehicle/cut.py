"""A Wi-Fi that can be cut: it stands between a browser and a port, and loses nothing, but may hold everything up."""

from __future__ import annotations

import contextlib
import socket
import threading


class Wifi:
    """Forwards every connection to a port of this machine until `cut`; neither side is told of it then.

    As with TCP over a radio that comes back, `heal` delivers late what was sent meanwhile.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._clear = threading.Event()
        self._clear.set()
        self._ending = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """From now on nothing comes through, in either direction."""
        self._clear.clear()

    def heal(self) -> None:
        """Everything that was held up comes through."""
        self._clear.set()

    def close(self) -> None:
        """End every connection."""
        self._ending.set()
        self._clear.set()
        for one in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5.0)

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="wifi")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to_port))
            self._sockets += [near, far]
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._clear.wait()
                if self._ending.is_set():
                    return
                sink.sendall(data)
            self._clear.wait()
            sink.shutdown(socket.SHUT_WR)
