"""``hotlap monitor RUN``, and the process that ``hotlap train --monitor`` starts beside itself."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from calibration.server import ConsoleServer, ServerError
from trainer.errors import TrainerError
from trainer.monitor.app import create_app
from trainer.monitor.run import Monitor, wait_for_run
from vehicle.child import child_environment
from vehicle.parent import ENVIRONMENT as SUPERVISED
from vehicle.parent import end_with_parent

HOST, PORT = "127.0.0.1", 8012
_THREADS = 8
_WAIT_FOR_RUN_S = 120.0


class MonitorError(TrainerError, OSError):
    """The page's port cannot be listened to."""


def monitor(args: argparse.Namespace) -> int:
    """``hotlap monitor``: the page until Ctrl-C; ``--terminal`` a table; ``--json`` the newest figures, once."""
    if args.json:
        from sim.commands import emit

        emit(True, newest(args.run), "")
        return 0
    if args.terminal:
        from trainer.monitor.terminal import show

        return show(args.run)
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with serving(args.run, args.host, args.port) as url:
            print(f"monitor: {url} (Ctrl-C ends it)", flush=True)
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def newest(run: Path) -> Mapping[str, object]:
    """What ``--json`` prints: the last figure of each kind, null where there is none yet."""
    found = Monitor(run, read_traces=False)
    found.read_all()
    figures = found.figures()
    figures.pop("logged_steps")
    return figures


@contextmanager
def serving(run: Path, host: str, port: int | None) -> Iterator[str]:
    """The page of a run at an address.

    Args:
        port: None for the usual one, or any where that is taken; 0 for any.

    Raises:
        RunError: it is no run; MonitorError: the port cannot be listened to.
    """
    watched = Monitor(run)
    server = _listen(watched, host, port)
    watched.start()
    server.run("monitor-http")
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{server.port}/"
    finally:
        server.close()
        watched.close()


def _listen(watched: Monitor, host: str, port: int | None) -> ConsoleServer:
    app = create_app(watched, host)
    for tried in (PORT, 0) if port is None else (port,):
        try:
            return ConsoleServer(app, host, tried, tls=None, threads=_THREADS)
        except ServerError as error:
            if port is None and tried:
                continue
            raise MonitorError(
                error.what, cause=error.cause, next_step=f"hotlap monitor {watched.run} --port 0 takes any free port"
            ) from error
    raise AssertionError("unreachable")


# -- beside a training -------------------------------------------------------------------------------------------------


class Beside:
    """The page in a process of its own, so that it takes nothing of the training's interpreter; it ends with us."""

    def __init__(self, run: Path, host: str, port: int | None) -> None:
        self._command = [sys.executable, "-m", "trainer.monitor", str(run), host, "" if port is None else str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Beside:
        # It ends when its stdin does, however we end. Its address goes to stderr, which is ours too.
        environment = {**child_environment(), SUPERVISED: "1"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def beside(words: list[str]) -> int:
    """What that process does: run folder, host and port as words."""
    run, host, port = Path(words[0]), words[1], int(words[2]) if words[2] else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which ends us
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    end_with_parent()
    wait_for_run(run, _WAIT_FOR_RUN_S, stop)
    try:
        with serving(run, host, port) as url:
            print(f"monitor: {url}", file=sys.stderr, flush=True)
            stop.wait()
    except TrainerError as error:
        print(f"hotlap: no monitor: {error}", file=sys.stderr, flush=True)
        return 2
    return 0
