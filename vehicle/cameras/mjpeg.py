"""A camera in the network: Motion JPEG over HTTP (``multipart/x-mixed-replace``), as mjpg-streamer, ESP32-CAM,
DeepRacer's own web server and most IP cameras send it.

Read here rather than by OpenCV's FFmpeg, which decodes in as many threads as there are cores and so hands out pictures
that many frames late, and which cannot tell pictures that waited in the network buffer from new ones.
"""

from __future__ import annotations

import base64
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import GARBAGE, CameraFault
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

CONNECT_TIMEOUT_S = 3.0
MAX_HEADER_BYTES = 16 * 2**10
MAX_JPEG_BYTES = 8 * 2**20
_END_OF_IMAGE = b"\xff\xd9"
_RECEIVE_BYTES = 64 * 2**10
_MAX_BACKLOG_READS = 256  # 16 MB at once; more than a socket's buffer holds


class StreamError(ValueError):
    """Bytes that are not what the protocol says."""


class Chunks:
    """Undoes HTTP's chunked transfer coding, piece by piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0  # of the chunk under way, its closing CR LF included

    def feed(self, data: bytes) -> bytes:
        """Coded bytes in, plain bytes out.

        Raises:
            StreamError: the length of a chunk is none.
        """
        self._buffer += data
        plain = bytearray()
        while self._buffer:
            if self._left == 0:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    break
                size = self._buffer[:end].split(b";")[0].strip()
                if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", bytes(size)):
                    raise StreamError(f"{bytes(size[:20])!r} is not the length of a chunk")
                del self._buffer[: end + 2]
                self._left = int(size, 16) + 2
            taken = min(self._left, len(self._buffer))
            of_data = max(0, min(taken, self._left - 2))
            plain += self._buffer[:of_data]
            del self._buffer[:taken]
            self._left -= taken
        return bytes(plain)


class Parts:
    """Cuts a multipart stream into its bodies, piece by piece.

    Args:
        boundary: as the server names it, without the leading dashes.
    """

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"--" + boundary
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Bytes in, every body that is complete by now out.

        Raises:
            StreamError: a header or a body of absurd length.
        """
        self._buffer += data
        while (body := self._take()) is not None:
            yield body

    def _take(self) -> bytes | None:
        start = self._buffer.find(self._mark)
        head_end = self._buffer.find(b"\r\n\r\n", max(start, 0))
        if start < 0 or head_end < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise StreamError(f"{len(self._buffer)} bytes without the header of a picture")
            return None
        begin = head_end + 4
        length = re.search(rb"(?i)\r\ncontent-length:\s*(\d{1,10})\s*\r\n", bytes(self._buffer[start : head_end + 2]))
        if length is not None:
            end = begin + int(length[1])
        else:
            end = self._buffer.find(b"\r\n" + self._mark, begin)
        if (end if end >= 0 else len(self._buffer)) - begin > MAX_JPEG_BYTES:
            raise StreamError(f"a picture of more than {MAX_JPEG_BYTES} bytes")
        if end < 0 or len(self._buffer) < end:
            return None
        body = bytes(self._buffer[begin:end])
        del self._buffer[:end]
        return body


class HttpCamera:
    """Reads the stream of one URL. Stamps are of arrival: such a camera does not say when it took a picture.

    Raises:
        CameraError: not an http URL, no connection, or not a stream of pictures.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._url = config.source
        self._shown = re.sub(r"//[^/@]*@", "//", self._url)  # without the password
        self._seq = -1
        self._shape: tuple[int, ...] | None = None
        self._complete: list[bytes] = []
        url = urlsplit(self._url)
        if url.scheme != "http" or not url.hostname:
            raise CameraError(
                f"source is {self._shown!r}, not the http:// address of a stream",
                next_step='for instance source = "http://192.168.1.20:8080/?action=stream" in car.toml',
            )
        try:
            self._socket = socket.create_connection((url.hostname, url.port or 80), CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise CameraError(
                f"{self._shown} cannot be reached: {error}",
                cause="the camera is off, in another network, or its address has changed",
                next_step=f"ping {url.hostname}",
            ) from error
        try:
            self._ask(url.hostname, url.path or "/", url.query, url.username, url.password)
        except BaseException:
            self._socket.close()
            raise

    def _ask(self, host: str, path: str, query: str, user: str | None, password: str | None) -> None:
        target = path + (f"?{query}" if query else "")
        # HTTP/1.0: a server need not cut the stream into chunks; some do it all the same.
        lines = [f"GET {target} HTTP/1.0", f"Host: {host}", "Accept: multipart/x-mixed-replace"]
        if user is not None:
            pair = f"{unquote(user)}:{unquote(password or '')}".encode()
            lines.append("Authorization: Basic " + base64.b64encode(pair).decode())
        received = bytearray()
        deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
        try:
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
            while (end := received.find(b"\r\n\r\n")) < 0:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data or len(received) > MAX_HEADER_BYTES or time.monotonic() > deadline_s:
                    raise CameraError(f"{self._shown} does not answer as an HTTP server does")
                received += data
        except OSError as error:
            if isinstance(error, CameraError):
                raise
            raise CameraError(f"{self._shown} does not answer: {error}", next_step="open it in a browser") from error
        head = bytes(received[: end + 2]).decode("latin-1")
        status = head.split("\r\n", 1)[0]
        kind = re.search(r"(?i)\r\ncontent-type:\s*multipart/[^\r\n]*boundary=\"?([^\"\r\n;]+)", head)
        if not re.match(r"HTTP/1\.[01] 200\b", status) or kind is None:
            raise CameraError(
                f"{self._shown} is no stream of pictures: it answers {status[:80]!r}"
                + ("" if kind else ", which is not multipart/x-mixed-replace"),
                cause="the page of the camera instead of its stream, a single picture, or a missing password",
                next_step="look up the stream's address in its manual; http://USER:PASSWORD@HOST/... is allowed",
            )
        # Some servers put the dashes into the name of the boundary as well.
        self._parts = Parts(kind[1].strip().removeprefix("--").encode("latin-1"))
        self._chunks = Chunks() if re.search(r"(?i)\r\ntransfer-encoding:\s*chunked", head) else None
        self._take_in(bytes(received[end + 4 :]))

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`; of several pictures that have arrived, the newest.

        Raises:
            StaleFrame: none was complete in time.
            CameraFault: "garbage": what came is no JPEG picture.
            CameraError: the server closed the stream.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._complete:
            self._receive(deadline_s - time.monotonic())
        for _ in range(_MAX_BACKLOG_READS):
            if not self._receive_waiting():
                break
        arrival_s = time.monotonic()
        self._seq += len(self._complete)
        newest = self._complete[-1]
        self._complete.clear()
        # Of a picture cut short, OpenCV would decode the upper part and make the rest gray.
        whole = newest.rstrip(b"\r\n\0").endswith(_END_OF_IMAGE)
        pixels = cv2.imdecode(np.frombuffer(newest, dtype=np.uint8), cv2.IMREAD_COLOR) if whole else None
        if pixels is None:
            raise CameraFault(
                GARBAGE,
                f"{len(newest)} bytes from {self._shown} are no whole JPEG picture",
                cause="the network or the camera loses parts of its pictures",
                next_step="a smaller picture or a lower rate, set at the camera",
            )
        self._shape = pixels.shape
        return Frame(np.asarray(pixels, dtype=np.uint8), arrival_s, self._seq)

    def _receive(self, timeout_s: float) -> None:
        if timeout_s <= 0.0:
            raise StaleFrame(f"no whole picture came from {self._shown} in time", cause="camera or network stalls")
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            return  # the caller sees that the time is up
        except OSError as error:
            raise CameraError(f"{self._shown}: {error}", cause="the camera or the network went away") from error
        if not data:
            raise CameraError(f"{self._shown} has ended the stream", cause="the camera was restarted or switched off")
        self._take_in(data)

    def _receive_waiting(self) -> bool:
        self._socket.settimeout(0.0)
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError:
            return False  # nothing waits; what else it may be, the next read will say
        if data:
            self._take_in(data)
        return bool(data)

    def _take_in(self, data: bytes) -> None:
        try:
            plain = data if self._chunks is None else self._chunks.feed(data)
            self._complete.extend(self._parts.feed(plain))
        except StreamError as error:
            # What follows cannot be trusted to be cut in the right places: only a new connection helps.
            raise CameraError(f"{self._shown} does not send what it said: {error}") from error

    def facts(self) -> dict[str, Any]:
        """Name, address without its password, and the size once a picture has come."""
        height, width = (None, None) if self._shape is None else self._shape[:2]
        return {"name": "http", "source": self._shown, "width": width, "height": height}

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def open_http(config: CameraConfig, runtime: Path) -> HttpCamera:
    """The entry point ``http``."""
    return HttpCamera(config)
