"""One open serial port: whole messages in and out, and never waiting for longer than it was told.

pyserial opens and configures the port (also a speed that termios has no name for); bytes are read and written without
it, since its non-blocking write spins for ever on a full buffer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import termios

import serial

from firmware_bridge.errors import LinkError
from firmware_bridge.messages import ToBridge, ToHost
from firmware_bridge.protocol import BAUD, encode, host_decoder

_READ_BYTES = 4096


class Wire:
    """A port of our own: a second program that opens it is refused, unless it is root's and does not ask for a lock.

    Opening pulses DTR, which resets most boards.

    Raises:
        LinkError: no such port, no permission, it is in use, or it is no serial port.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        self._decoder = host_decoder()
        self.counters = self._decoder.counters
        try:
            self._serial = serial.Serial(port, BAUD, timeout=0, exclusive=True)
        except (serial.SerialException, OSError, ValueError, termios.error) as error:
            raise _not_opened(port, error) from error
        self._fd: int = self._serial.fileno()
        with contextlib.suppress(OSError):  # pyserial's lock is known to pyserial only; this is the kernel's
            fcntl.ioctl(self._fd, termios.TIOCEXCL)

    def receive(self, timeout_s: float, wake_fd: int | None = None) -> list[ToHost]:
        """What has come, as soon as something has; [] after the timeout, or when `wake_fd` can be read.

        Raises:
            LinkError: the port is gone.
        """
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, select.POLLIN)
        events = dict(poller.poll(1e3 * timeout_s))
        if self._fd not in events:
            return []
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise self._gone(error) from error
        if not data:  # readable, and nothing to read: hung up
            raise self._gone(None)
        return self._decoder.feed(data)

    def send(self, message: ToBridge) -> None:
        """Hand a message to the system, which does not wait for the line.

        Raises:
            ProtocolError: it does not fit into the protocol.
            LinkError: the port is gone, or takes no more: then the rest of the message is dropped.
        """
        data = encode(message)
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            raise self._gone(error) from error
        if written < len(data):
            raise LinkError(
                f"{self.port} takes no more bytes",
                cause="the USB adapter or its driver hangs",
                next_step="unplug the board and plug it in again",
            )

    def close(self) -> None:
        """Release the port; may be called twice."""
        # What is still to be sent would keep close() waiting for up to 30 s if the device does not take it.
        with contextlib.suppress(termios.error, OSError, ValueError):
            termios.tcflush(self._fd, termios.TCOFLUSH)
        with contextlib.suppress(OSError):
            self._serial.close()
        self._fd = -1

    def _gone(self, error: OSError | None) -> LinkError:
        why = f": {error.strerror or error}" if error is not None else ""
        return LinkError(
            f"{self.port} is gone{why}",
            cause="the board was unplugged, lost its power, or its cable is loose",
            next_step="plug it in; the link opens again by itself",
        )


def _not_opened(port: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    what = f"{port} cannot be opened: {os.strerror(number) if isinstance(number, int) else error}"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        return LinkError(what, cause="the board is not plugged in", next_step="hotlap bridge find")
    if number in (errno.EACCES, errno.EPERM):
        return LinkError(
            what,
            cause="this user is not in the group dialout",
            next_step="sudo usermod -aG dialout $USER, then log in again",
        )
    if number in (errno.EAGAIN, errno.EBUSY):
        return LinkError(
            f"{port} is in use",
            cause="another program has it open, most likely the gate of this car",
            next_step="hotlap status; sudo systemctl stop hotlap.target, then try again",
        )
    return LinkError(what, cause="it is no serial port", next_step="hotlap bridge find")
