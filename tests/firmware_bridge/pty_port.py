"""A pseudo-terminal at a symbolic link, which can be unplugged and plugged in again; not a test itself."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import tty
from pathlib import Path


class PtyPort:
    """The far end of a serial port. Used by the thread that plays the board; `unplug` and `plug` are for that one too.

    Attributes:
        path: what the host opens; a link, so that a board that was plugged in again has the same name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master = -1
        self.plug()

    def plug(self) -> None:
        """A new pseudo-terminal at the same link."""
        master, slave = pty.openpty()
        tty.setraw(slave)  # no echo of what comes before the host has set its own modes
        os.set_blocking(master, False)
        name = os.ttyname(slave)
        os.close(slave)  # from now on the master hangs up whenever nobody has the port open
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.symlink_to(name)
        fresh.replace(self.path)
        self._master = master

    def unplug(self) -> None:
        """Pull the cable: whoever has it open gets an error, and there is no such device any more."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        self.path.unlink(missing_ok=True)

    @property
    def opened(self) -> bool:
        """Whether somebody has the port open."""
        if self._master < 0:
            return False
        poller = select.poll()
        poller.register(self._master, select.POLLIN)
        return not any(event & select.POLLHUP for _, event in poller.poll(0))

    def read(self) -> bytes:
        """What the host has sent so far."""
        if self._master < 0:
            return b""
        try:
            return os.read(self._master, 4096)
        except OSError:  # nothing there, or nobody has it open
            return b""

    def write(self, data: bytes) -> None:
        """Send to the host; lost where nobody reads."""
        if self._master >= 0 and data:
            with contextlib.suppress(OSError):
                os.write(self._master, data)
