"""Finds the bridge by its HELLO: a port's name says nothing, since it changes from one boot or plug to the next."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from serial.tools import list_ports

from firmware_bridge.errors import BridgeError, PortNotFound
from firmware_bridge.greeting import GIVE_UP_S, Greeting
from firmware_bridge.messages import ConfigEcho, HelloReply, ToHost
from firmware_bridge.wire import Wire

AUTO = "auto"
_POLL_S = 0.01


@dataclass
class Contact:
    """A port on which a bridge has answered; it is open, and whoever has this closes it."""

    wire: Wire
    hello: HelloReply
    echo: ConfigEcho


@dataclass(frozen=True)
class Found:
    """What one port had to say: the answer of a bridge, or the error in its place."""

    port: str
    hello: HelloReply | None
    echo: ConfigEcho | None
    error: BridgeError | None


def usb_ports() -> list[str]:
    """The serial ports on USB. Others, such as a Pi's UART pins, must be named: a HELLO there may disturb something."""
    return sorted(port.device for port in list_ports.comports() if port.vid is not None)


def candidates(port: str = AUTO) -> list[str]:
    """The ports to ask: the one that is named, or all on USB for "auto"."""
    return usb_ports() if port == AUTO else [port]


def contact(port: str = AUTO, ending: Callable[[], bool] = lambda: False) -> Contact:
    """Open a port and a session on it; with "auto", the first port on which a bridge answers.

    Takes up to 4.2 s: a board that opening has reset is in its bootloader for 0.5 to 2 s.

    Args:
        ending: asked again and again; gives up when it is true.

    Raises:
        LinkError: the named port cannot be opened, is silent, or has another version of the protocol.
        PortNotFound: "auto", and no port has a bridge; says what each had to say.
    """
    ports = candidates(port)
    asking = _Asking(ports)
    try:
        for _ in asking.rounds(ending):
            if asking.contacts:
                return asking.contacts.pop(min(asking.contacts))
    finally:
        asking.close()
    if port != AUTO and port in asking.errors:
        raise asking.errors[port]
    raise _not_found(asking.errors)


def find_bridges(ports: Iterable[str] | None = None, give_up_s: float = GIVE_UP_S) -> list[Found]:
    """Ask every port, all at the same time, and release them again.

    Args:
        ports: which to ask; None for all on USB.
    """
    asked = list(usb_ports() if ports is None else ports)
    asking = _Asking(asked, give_up_s)
    try:
        for _ in asking.rounds():
            pass
        return [asking.found(port) for port in asked]
    finally:
        asking.close()


def greet(wire: Wire, ending: Callable[[], bool] = lambda: False) -> Contact | None:
    """Open a session, again, on a port that is open already; None where `ending` says so first.

    Raises:
        LinkError: it is gone, silent, or has another version of the protocol.
    """
    greeting = _greeting(wire.port)
    messages: Sequence[ToHost] = ()
    while not ending():
        hello = greeting.step(messages, time.monotonic())
        if greeting.hello is not None and greeting.echo is not None:
            return Contact(wire, greeting.hello, greeting.echo)
        if hello is not None:
            wire.send(hello)
        messages = wire.receive(_POLL_S)
    return None


class _Asking:
    """Many ports, one greeting each, one thread."""

    def __init__(self, ports: Iterable[str], give_up_s: float = GIVE_UP_S) -> None:
        self.contacts: dict[str, Contact] = {}
        self.errors: dict[str, BridgeError] = {}
        self._open: dict[str, tuple[Wire, Greeting]] = {}
        for port in dict.fromkeys(ports):
            try:
                self._open[port] = Wire(port), _greeting(port, give_up_s)
            except BridgeError as error:
                self.errors[port] = error

    def rounds(self, ending: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Ask on until every port has answered or failed."""
        while self._open and not ending():
            for port, (wire, greeting) in list(self._open.items()):
                try:
                    hello = greeting.step(wire.receive(0.0), time.monotonic())
                    if hello is not None:
                        wire.send(hello)
                except BridgeError as error:
                    self.errors[port] = error
                    del self._open[port]
                    wire.close()
                    continue
                if greeting.hello is not None and greeting.echo is not None:
                    self.contacts[port] = Contact(wire, greeting.hello, greeting.echo)
                    del self._open[port]
            yield
            time.sleep(_POLL_S)
        yield

    def found(self, port: str) -> Found:
        met = self.contacts.get(port)
        if met is None:
            return Found(port, None, None, self.errors.get(port))
        return Found(port, met.hello, met.echo, None)

    def close(self) -> None:
        for wire, _ in self._open.values():
            wire.close()
        for met in self.contacts.values():
            met.wire.close()
        self._open.clear()


def _greeting(port: str, give_up_s: float = GIVE_UP_S) -> Greeting:
    return Greeting(random.randint(1, 0xFFFF), time.monotonic(), port, give_up_s)


def _not_found(errors: dict[str, BridgeError]) -> PortNotFound:
    if not errors:
        return PortNotFound(
            "no serial port on USB is there",
            cause="the board is not plugged in, or its cable only charges",
            next_step="lsusb; a bridge on UART pins must be named: --port /dev/ttyAMA0, or actuator.port in car.toml",
        )
    said = "; ".join(error.what for error in errors.values())
    return PortNotFound(
        f"no bridge on {len(errors)} serial port{'s' if len(errors) > 1 else ''}: {said}",
        cause="the board has no firmware yet, or another program has its port",
        next_step="hotlap bridge flash --port PORT, or hotlap bridge find",
    )
