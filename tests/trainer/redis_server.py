"""A real redis-server for tests, demo and benchmark: with a password, nothing on disk, killed and started at will."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from tests.trainer.s3_server import free_port

PASSWORD = "a long secret"


def is_installed() -> bool:
    """Whether there is one to start."""
    return shutil.which("redis-server") is not None


class RedisServer:
    """One that is killed and started again has lost everything, and is where it was.

    Args:
        folder: its working folder.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:{quote(PASSWORD)}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it takes connections."""
        words = ["--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", "", "--dir", str(self._folder)]
        # A session of its own: Ctrl-C is for whoever started it.
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until_s = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until_s, "redis-server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """With SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
