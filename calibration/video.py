"""What the network sees, as MJPEG: each viewer gets the newest picture when it is ready for one, and no other.

A viewer costs one thread of the server. One that is slow misses pictures, one that is gone is noticed at the next
write; the pilot publishes whether anybody looks or not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from calibration.car_link import CarLink, CarRefused, Picture

BOUNDARY = "boundarydonotcross"  # of web_video_server, which DeepRacer's clients know
MAX_WIDTH, MAX_HEIGHT = 640, 480  # the picture has 160 x 120: more would only be more bytes
MIN_SIDE = 16
_WAIT_S = 1.0  # without a picture, a viewer is told so this often
_QUALITY = 85


class Slots:
    """At most so many at a time."""

    def __init__(self, limit: int, reason: str, what: str) -> None:
        self._limit, self._reason, self._what = limit, reason, what
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many there are now."""
        return self._taken

    def take(self) -> Callable[[], None]:
        """Take a place; the result gives it back, once, however often it is called.

        Raises:
            CarRefused: there is none.
        """
        with self._lock:
            if self._taken >= self._limit:
                raise CarRefused(
                    self._reason, f"{self._limit} {self._what} already", next_step="close one of the other pages"
                )
            self._taken += 1
        given = threading.Event()

        def give_back() -> None:
            with self._lock:
                if not given.is_set():
                    given.set()
                    self._taken -= 1

        return give_back


class Video:
    """The encoder that all viewers share: each picture is encoded once for each size.

    Args:
        stopping: set when the console ends.
    """

    def __init__(self, link: CarLink, slots: Slots, stopping: threading.Event) -> None:
        self._link, self._slots, self._stopping = link, slots, stopping
        self._lock = threading.Lock()
        self._encoded: dict[tuple[int, int], tuple[int, bytes]] = {}

    def stream(self, width: int, height: int, alive: Callable[[], bool]) -> Iterator[bytes]:
        """Parts of a multipart/x-mixed-replace answer, for as long as `alive` says.

        Raises:
            CarRefused: too_many_viewers; at the call, not at the first part.
        """
        give_back = self._slots.take()
        return _Closing(self._parts(width, height, alive), give_back)

    def _parts(self, width: int, height: int, alive: Callable[[], bool]) -> Iterator[bytes]:
        seq = -1
        while not self._stopping.is_set() and alive():
            picture = self._link.picture(seq, _WAIT_S)
            if picture is None:
                seq, jpeg = -1, no_picture(width, height)
            else:
                seq, jpeg = picture.seq, self._jpeg(picture, width, height)
            yield (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                + jpeg
                + b"\r\n"
            )

    def _jpeg(self, picture: Picture, width: int, height: int) -> bytes:
        with self._lock:
            seq, jpeg = self._encoded.get((width, height), (-1, b""))
            if seq != picture.seq:
                gray = np.frombuffer(picture.gray, np.uint8).reshape(picture.height, picture.width)
                jpeg = encode(gray, width, height)
                if len(self._encoded) > 8:  # sizes that nobody asks for any more
                    self._encoded.clear()
                self._encoded[width, height] = picture.seq, jpeg
            return jpeg


class _Closing:
    """An iterator that gives its place back when the server closes it, also where it was never begun."""

    def __init__(self, parts: Iterator[bytes], close: Callable[[], None]) -> None:
        self._parts, self._close = parts, close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Called by the server, whatever ended the answer."""
        with contextlib.suppress(ValueError):  # the generator is being run by another thread
            getattr(self._parts, "close", lambda: None)()
        self._close()


def closing(parts: Iterator[bytes], close: Callable[[], None]) -> Iterator[bytes]:
    """The iterator, with `close` called once it has ended or the server has closed it."""
    return _Closing(parts, close)


def size_of(width: str | None, height: str | None) -> tuple[int, int]:
    """The size to send for what a client asks for, which may be nonsense: 4 to 3, at most 640 x 480."""
    wanted_width, wanted_height = _side(width, 480, MAX_WIDTH), _side(height, 360, MAX_HEIGHT)
    fitted = min(wanted_width, wanted_height * 4 // 3)
    return fitted, fitted * 3 // 4


def _side(text: str | None, default: int, limit: int) -> int:
    try:
        wanted = int((text or "")[:6])
    except ValueError:
        return default
    return min(max(wanted, MIN_SIDE * 2), limit)


def encode(gray: npt.NDArray[np.uint8], width: int, height: int) -> bytes:
    """A gray picture, (rows, columns), as JPEG of that size."""
    if gray.shape != (height, width):
        # Nearest: the page shows the very pixels that the network gets.
        gray = np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    good, jpeg = cv2.imencode(".jpg", gray, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    if not good:
        raise CarRefused("bad_answer", "the picture cannot be encoded")
    return bytes(jpeg.tobytes())


def no_picture(width: int, height: int) -> bytes:
    """A JPEG that says that there is none."""
    gray = np.full((height, width), 40, np.uint8)
    scale = width / 320.0
    cv2.putText(
        gray, "no picture from the pilot", (int(30 * scale), height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6 * scale, 200, 1
    )
    return encode(gray, width, height)
