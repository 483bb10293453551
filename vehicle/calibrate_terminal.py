"""A terminal in which every key counts as it is pressed, and is as it was when the program ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import termios
import tty
from types import FrameType
from typing import Any

ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
_MAX_READ = 4096
_NAMED = {
    "\r": "enter", "\n": "enter", " ": "space", "\x7f": "backspace", "\b": "backspace", "\x04": "end",
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
}  # fmt: skip
_TOKEN = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1bO.|\x1b|.", re.DOTALL)
_HALF = re.compile(r"\x1b(\[[0-9;?]*|O)?\Z")  # the rest of a key may come with the next read


class Ended(BaseException):
    """A signal, or a terminal that is gone (SIGHUP, as the kernel says it). Not an Exception: nothing goes on."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class Keys:
    """Bytes to names of keys. What a line held up is not made up for: a key that repeats is one press a read."""

    def __init__(self) -> None:
        self._half = ""

    def names(self, data: bytes) -> list[str]:
        """The keys in what was read; unknown ones are left out."""
        text = self._half + data.decode(errors="ignore")
        half = _HALF.search(text)
        self._half, text = (half.group(), text[: half.start()]) if half else ("", text)
        found: list[str] = []
        for token in _TOKEN.findall(text):
            name = _NAMED.get(token, token if len(token) == 1 and token.isprintable() else "")
            if name and not (name == "space" and found[-1:] == ["space"]):
                found.append(name)
        return found


class Terminal:
    """The terminal of this process, for a ``with`` statement.

    Args:
        input_fd, output_fd: both a terminal.
    """

    def __init__(self, input_fd: int = 0, output_fd: int = 1) -> None:
        self.input_fd, self._output_fd = input_fd, output_fd
        self._keys = Keys()
        self._shown = 0  # characters of the line that `show` has written last
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self.suspend = False  # Ctrl-Z was pressed
        self.wake_fd, self._wake_write = os.pipe()

    def __enter__(self) -> Terminal:
        """Keys come as they are pressed, without an echo. SIGINT, SIGTERM, SIGHUP, SIGQUIT raise `Ended`."""
        os.set_blocking(self._wake_write, False)
        self._before = termios.tcgetattr(self.input_fd)
        self._handlers = {number: signal.signal(number, self._end) for number in ENDING}
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_suspend)
        self._raw()
        return self

    def __exit__(self, *_: object) -> None:
        """The terminal as it was."""
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.wake_fd)
        os.close(self._wake_write)

    def read(self) -> list[str]:
        """The keys that have come.

        Raises:
            Ended: the terminal is gone.
        """
        try:
            data = os.read(self.input_fd, _MAX_READ)
        except OSError:
            data = b""
        if not data:
            raise Ended(signal.SIGHUP)
        return self._keys.names(data)

    def forget_keys(self) -> None:
        """What was typed before now was not meant for what comes."""
        with contextlib.suppress(termios.error):
            termios.tcflush(self.input_fd, termios.TCIFLUSH)

    def say(self, text: str) -> None:
        """Whole lines."""
        self._write(("\n" if self._shown else "") + text + "\n")
        self._shown = 0

    def show(self, text: str) -> None:
        """One line, over the last one that was shown so. No escape sequences: any terminal will do."""
        text = text[: self._columns() - 1]
        self._write("\r" + text.ljust(self._shown))
        self._shown = len(text)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._output_fd).columns or 80
        except OSError:
            return 80

    def stop(self) -> None:
        """Let the shell have the terminal until it continues us."""
        self.suspend = False
        self._restore()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self._raw()

    def _raw(self) -> None:
        tty.setcbreak(self.input_fd, termios.TCSANOW)
        self.forget_keys()

    def _restore(self) -> None:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(self.input_fd, termios.TCSANOW, self._before)

    def _write(self, text: str) -> None:
        data = text.encode()
        try:
            while data:
                data = data[os.write(self._output_fd, data) :]
        except OSError:
            raise Ended(signal.SIGHUP) from None

    def _end(self, number: int, frame: FrameType | None) -> None:
        for ending in ENDING:  # a second one shall not interrupt the tidying up
            signal.signal(ending, signal.SIG_IGN)
        raise Ended(number)

    def _on_suspend(self, number: int, frame: FrameType | None) -> None:
        self.suspend = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"z")
