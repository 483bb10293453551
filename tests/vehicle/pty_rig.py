"""A program on a terminal of its own, as sshd gives it one: typed at, read from, hung up. Not a test itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.vehicle.gate_process import until


class OnTerminal:
    """The process is the leader of a session whose terminal this is."""

    def __init__(self, command: Sequence[str], folder: Path, env: dict[str, str] | None = None) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.slave_name = os.ttyname(slave)
        self.modes: list[Any] = termios.tcgetattr(slave)  # as it is before the program changes it
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._text = ""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="pty reader")
        self._thread.start()

    def _read(self) -> None:
        # A copy: closing the other one hangs up while this still waits.
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:  # the last one that had it open is gone, or it was closed here
                return
            if not data:
                return
            with self._lock:
                self._text += data.decode()

    @property
    def text(self) -> str:
        """Everything that was written so far."""
        with self._lock:
            return self._text

    def expect(self, words: str, since: int = 0, timeout_s: float = 60.0) -> int:
        """Wait until these words have been written after the character `since`; the character after them."""
        assert until(lambda: words in self.text[since:], timeout_s), (words, self.text[since:][-2000:])
        return self.text.index(words, since) + len(words)

    def type(self, keys: str) -> None:
        """Type them all at once."""
        os.write(self._master, keys.encode())

    def last(self, pattern: str) -> str:
        """The first group of the last match in what was written."""
        found = re.findall(pattern, self.text)
        assert found, self.text[-2000:]
        return str(found[-1])

    def hang_up(self) -> float:
        """The other end of the line is gone; when."""
        now_s = time.monotonic()
        os.close(self._master)
        self._master = -1
        return now_s

    def close(self) -> None:
        """End whatever is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20.0)
        if self._master >= 0:
            with contextlib.suppress(OSError):
                os.close(self._master)
        self._thread.join(20.0)


class HeldKey:
    """A key that is held down: it repeats from a thread until it is let go."""

    def __init__(self, terminal: OnTerminal, key: str = " ", every_s: float = 0.03) -> None:
        self._terminal, self._key, self._every_s = terminal, key, every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="held key")
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                self._terminal.type(self._key)
            except OSError:  # the line was hung up meanwhile
                return

    def let_go(self) -> None:
        """No more of it."""
        self._done.set()
        self._thread.join()
