"""The errors of the bridge room. It imports nothing of the other rooms, so their base is its own."""

from __future__ import annotations


class BridgeError(Exception):
    """Something that the bridge refuses, with the same parts as every error of hotlap.

    The command line and the actuator turn it into an error of their own room (``vehicle.actuators.bridge.explained``).

    Args:
        what: what is wrong, with the value that was met.
        cause: the likely cause, one sentence.
        next_step: the next command or edit that would help.
    """

    def __init__(self, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.what = what
        self.cause = cause
        self.next_step = next_step
        lines = [what]
        if cause:
            lines.append(f"  likely cause: {cause}")
        if next_step:
            lines.append(f"  next: {next_step}")
        super().__init__("\n".join(lines))


class ProtocolError(BridgeError, ValueError):
    """Bytes that are no frame of this protocol, or a value that its structs cannot hold."""


class LinkError(BridgeError, OSError):
    """The serial port cannot be opened, is gone, or nobody answers on it."""


class NoAnswer(LinkError, TimeoutError):
    """The port is open, and the microcontroller did not answer in time."""


class VersionMismatch(LinkError):
    """The firmware speaks another version of the protocol."""


class PortNotFound(LinkError, FileNotFoundError):
    """No serial port has a bridge on it."""
