"""Messages to systemd, without a library: ready, watchdog, status (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import os
import socket


def notify(text: str) -> bool:
    """Send for instance ``"READY=1"`` or ``"WATCHDOG=1"`` to whoever started this process.

    Never raises and never waits: a service manager that is busy must not delay a pulse.

    Returns:
        whether it was sent; False where nobody asked for it ($NOTIFY_SOCKET is not set), or it cannot be.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    # A leading @ stands for the zero byte that begins an abstract address.
    name = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(text.encode(), name)
    except (OSError, ValueError):  # ValueError: an address with a zero byte, or too long
        return False
    return True


def watchdog_interval_s() -> float | None:
    """How often "WATCHDOG=1" should be sent: half of what systemd allows; None where there is no watchdog."""
    pid = os.environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    try:
        allowed_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return allowed_us / 2e6 if allowed_us > 0 else None
