"""Motion JPEG over HTTP: read from a real server in a thread, one that dies, stalls or lies among them."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from vehicle.cameras.faults import CameraFault
from vehicle.cameras.grabber import Grabber
from vehicle.cameras.mjpeg import MAX_HEADER_BYTES, MAX_JPEG_BYTES, Chunks, HttpCamera, Parts, StreamError, open_http
from vehicle.car_config import CameraConfig
from vehicle.errors import CameraError, StaleFrame

Script = Callable[["Handler"], None]


def jpeg(seq: int) -> bytes:
    """A picture whose mean gray is 10 * seq."""
    pixels = np.full((48, 64, 3), 10 * seq, np.uint8)
    pixels[:, ::2] += 5
    pixels[:, 1::2] -= 5 if seq else 0
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def part(body: bytes, *, length: bool = True) -> bytes:
    header = f"Content-Length: {len(body)}\r\n" if length else ""
    return b"--cut\r\nContent-Type: image/jpeg\r\n" + header.encode() + b"\r\n" + body + b"\r\n"


class Handler(BaseHTTPRequestHandler):
    """Runs the server's script; `hold` keeps the connection open without a word until the test ends."""

    server: Server

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        try:
            self.server.script(self)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def begin(self, kind: str = "multipart/x-mixed-replace; boundary=cut", *extra: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def hold(self) -> None:
        self.server.over.wait(10.0)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.seen: list[tuple[str, str]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/stream"


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="mjpeg-server")
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def opened(url: str) -> HttpCamera:
    return open_http(CameraConfig(kind="http", source=url), Path("/"))


def gray(pixels: np.ndarray) -> int:  # type: ignore[type-arg]
    return round(float(pixels.mean()) / 10.0)


def three(handler: Handler, *, length: bool = True) -> None:
    handler.begin()
    for seq in (1, 2, 3):
        handler.send(part(jpeg(seq), length=length))
        time.sleep(0.05)
    if not length:
        handler.send(b"--cut\r\n")  # without a length a picture ends where the next one begins
    handler.hold()


@pytest.mark.parametrize("length", [True, False])
def test_pictures_come_as_they_arrive(length: bool) -> None:
    with serving(lambda handler: three(handler, length=length)) as server:
        camera = opened(server.url)
        frames = [camera.read(2.0) for _ in range(3)]
        assert [frame.seq for frame in frames] == [0, 1, 2]
        assert [gray(frame.pixels) for frame in frames] == [1, 2, 3]
        assert frames[0].pixels.shape == (48, 64, 3) and time.monotonic() - frames[2].stamp_s < 0.2
        assert (camera.facts()["width"], camera.facts()["height"]) == (64, 48)
        camera.close()
        camera.close()


def test_a_stream_in_chunks_is_read_too() -> None:
    def script(handler: Handler) -> None:
        handler.begin("multipart/x-mixed-replace;boundary=--cut", ("Transfer-Encoding", "chunked"))
        data = b"".join(part(jpeg(seq)) for seq in (1, 2))
        for start in range(0, len(data), 100):  # chunks end anywhere
            piece = data[start : start + 100]
            handler.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        handler.hold()

    with serving(script) as server:
        camera = opened(server.url)
        time.sleep(0.2)
        assert gray(camera.read(2.0).pixels) == 2
        camera.close()


def test_of_pictures_that_waited_the_newest_and_the_others_are_counted() -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        for seq in range(8):
            handler.send(part(jpeg(seq)))
        handler.hold()

    with serving(script) as server:
        camera = opened(server.url)
        time.sleep(0.3)  # this process was busy, or stopped
        frame = camera.read(1.0)
        assert (frame.seq, gray(frame.pixels)) == (7, 7)
        with pytest.raises(StaleFrame):
            camera.read(0.05)
        camera.close()


def test_a_server_that_stalls_in_a_picture_is_stale_in_time_and_goes_on_later() -> None:
    go_on = threading.Event()

    def script(handler: Handler) -> None:
        handler.begin()
        data = part(jpeg(1))
        handler.send(data[:200])
        go_on.wait(5.0)
        handler.send(data[200:])
        handler.hold()

    with serving(script) as server:
        camera = opened(server.url)
        for timeout_s in (0.1, 0.0):
            begun_s = time.monotonic()
            with pytest.raises(StaleFrame):
                camera.read(timeout_s)
            assert time.monotonic() - begun_s < timeout_s + 0.2
        go_on.set()
        assert gray(camera.read(2.0).pixels) == 1
        camera.close()


def test_a_server_that_dies_is_an_error_in_the_grabbers_reader() -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        handler.send(part(jpeg(1)))
        time.sleep(0.1)
        handler.send(part(jpeg(2))[:100])

    with serving(script) as server:
        grabber = Grabber(lambda: opened(server.url))
        assert grabber.wait_newer(-1, 2.0) is not None
        deadline_s = time.monotonic() + 2.0
        while not grabber.dead:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        with pytest.raises(CameraFault, match="ended the stream") as caught:
            grabber.newest(10.0, time.monotonic())
        assert caught.value.fault == "camera"
        assert grabber.close()


def test_a_server_that_stalls_leaves_the_grabbers_reader_on_time_and_the_end_quick() -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        handler.send(part(jpeg(1)))
        handler.hold()

    with serving(script) as server:
        grabber = Grabber(lambda: opened(server.url), read_timeout_s=0.2)
        assert grabber.wait_newer(-1, 2.0) is not None
        time.sleep(0.2)
        with pytest.raises(StaleFrame):
            grabber.newest(0.15, time.monotonic())
        begun_s = time.monotonic()
        assert grabber.close()
        assert time.monotonic() - begun_s < 0.6


@pytest.mark.parametrize("body", [b"", b"no picture at all", jpeg(1)[:-200], jpeg(1)[:-2]])
def test_what_is_no_whole_picture_is_garbage_and_the_next_one_is_read(body: bytes) -> None:
    more = threading.Event()

    def script(handler: Handler) -> None:
        handler.begin()
        handler.send(part(body))
        more.wait(5.0)
        handler.send(part(jpeg(2)))
        handler.hold()

    with serving(script) as server:
        camera = opened(server.url)
        with pytest.raises(CameraFault) as caught:
            camera.read(2.0)
        assert caught.value.fault == "garbage"
        more.set()
        assert gray(camera.read(2.0).pixels) == 2
        camera.close()


def test_a_stream_without_end_or_cut_is_an_error() -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        handler.send(b"x" * (MAX_HEADER_BYTES + 1))
        handler.hold()

    with serving(script) as server:
        with pytest.raises(CameraError, match="does not send what it said"):
            camera = opened(server.url)
            try:
                camera.read(2.0)
            finally:
                camera.close()


def page(handler: Handler) -> None:
    handler.begin("text/html")
    handler.send(b"<html>")


def secret(handler: Handler) -> None:
    wanted = "Basic " + base64.b64encode(b"me:p@ss").decode()
    if handler.headers.get("Authorization") != wanted:
        handler.send_error(401)
        return
    three(handler)


def test_a_page_or_a_refusal_is_no_stream() -> None:
    for script, words in ((page, "not multipart"), (lambda handler: handler.send_error(404), "404"), (secret, "401")):
        with serving(script) as server, pytest.raises(CameraError, match=words):
            opened(server.url)


def test_the_password_of_the_address_is_sent_and_never_shown() -> None:
    with serving(secret) as server:
        camera = opened(server.url.replace("//", "//me:p%40ss@") + "?action=stream&x=1")
        assert gray(camera.read(2.0).pixels) == 1
        assert server.seen[0][0] == "/stream?action=stream&x=1"
        assert "me" not in camera.facts()["source"] and "@" not in camera.facts()["source"]
        camera.close()


@pytest.mark.parametrize("url", ["", "rtsp://1.2.3.4/x", "/dev/video0", "http://", "https://127.0.0.1/"])
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(CameraError, match="not the http:// address"):
        opened(url)


def test_a_server_that_is_not_there_is_explained() -> None:
    with serving(page) as server:
        url = server.url
    with pytest.raises(CameraError, match="cannot be reached"):
        opened(url)
    with pytest.raises(CameraError, match="cannot be reached"):
        opened("http://127.0.0.1:99999/")


# --- the two decoders, piece by piece


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("length", [True, False])
def test_parts_may_be_cut_anywhere(step: int, length: bool) -> None:
    bodies = [b"a", b"", b"--c and \r\n--cu and \xff" * 9]
    data = b"preamble\r\n" + b"".join(part(body, length=length) for body in bodies) + b"--cut"
    parts, found = Parts(b"cut"), []
    for start in range(0, len(data), step):
        found += list(parts.feed(data[start : start + step]))
    assert found == bodies


def test_absurd_parts_are_refused() -> None:
    for length in (MAX_JPEG_BYTES + 1, 10**9):
        with pytest.raises(StreamError):
            list(Parts(b"cut").feed(b"--cut\r\nContent-Length: %d\r\n\r\n" % length))
    with pytest.raises(StreamError):
        list(Parts(b"cut").feed(b"--cut\r\n\r\n" + bytes(MAX_JPEG_BYTES + 1)))
    with pytest.raises(StreamError):
        list(Parts(b"cut").feed(b"--cut\r\n" + b"x" * MAX_HEADER_BYTES))


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_chunks_may_be_cut_anywhere(step: int) -> None:
    data = b"4\r\nwiki\r\n6;x=y\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n"
    chunks, found = Chunks(), b""
    for start in range(0, len(data), step):
        found += chunks.feed(data[start : start + step])
    assert found == b"wikipedia in \r\n\r\nchunks."


@pytest.mark.parametrize("data", [b"\r\n", b"xyz\r\n", b"-1\r\n", b"111111111\r\n"])
def test_a_chunk_without_a_length_is_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        Chunks().feed(data)
