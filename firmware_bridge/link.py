"""A link to the bridge that lives through resets, unplugging and plugging in again.

One thread owns the port: it finds and opens it, says HELLO, sees to it that the wanted configuration is in force,
reads telemetry, and begins anew after whatever went wrong. Nothing that the caller calls waits for the port. The caller
sends its commands at 50 Hz itself: a caller that hangs sends none, and the firmware goes to neutral.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from firmware_bridge.errors import BridgeError, LinkError, NoAnswer
from firmware_bridge.finder import AUTO, Contact, contact, greet
from firmware_bridge.messages import (
    SEQUENCES,
    Command,
    Config,
    ConfigEcho,
    Disarm,
    Result,
    State,
    Status,
    Telemetry,
    ToBridge,
    ToHost,
)
from firmware_bridge.snapshot import LinkState, Snapshot

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0  # between attempts to open; doubled after each
SILENCE_S = 1.0  # of telemetry, which comes every 20 ms: then HELLO again, and then the port is opened anew
CONFIG_AGAIN_S = 0.25
JOIN_S = 5.0  # opening a serial port may wait for its driver; everything else ends within 50 ms
_POLL_S = 0.05


class Link:
    """See the module. Make it with `open_link`, which waits for the first session.

    Args:
        port: a device, or "auto": any on USB that a bridge answers on, found again after each loss, since names change.
        config: what is to be in force; None leaves the bridge as it is.
        connect: opens a port and a session (`finder.contact`); for tests.
        prepare: called first by the thread, for instance to get the priority of whoever waits for what it reads.
    """

    def __init__(
        self,
        port: str = AUTO,
        config: Config | None = None,
        connect: Callable[[str, Callable[[], bool]], Contact] = contact,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._port, self._wanted, self._connect, self._prepare = port, config, connect, prepare
        self._changed = threading.Condition()  # guards what follows
        self._seen = Snapshot(LinkState.DOWN)
        self._attempts = 0
        self._wire_sends: Callable[[ToBridge], None] | None = None
        self._sequence = 0
        self._ending = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        for fd in (self._wake_reader, self._wake_writer):
            os.set_blocking(fd, False)
        self._config_s = 0.0  # when CONFIG may be sent again; this and the next are of the thread alone
        self._uptime_ms = 0
        # A daemon, so that a driver that hangs in open() cannot keep the process from ending; close() joins it.
        self._thread = threading.Thread(target=self._run, name="bridge-link", daemon=True)
        self._thread.start()

    # --- for the caller

    def snapshot(self) -> Snapshot:
        """What is known now. A link whose thread has died says so: its state is CLOSED."""
        with self._changed:
            return self._seen

    def wait(self, condition: Callable[[Snapshot], bool], timeout_s: float) -> bool:
        """Wait until the snapshot is so; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._seen), timeout_s)

    def wait_attempt(self, timeout_s: float) -> Snapshot:
        """Wait until the first attempt to open a session has worked or failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._attempts > 0, timeout_s)
            return self._seen

    def configure(self, config: Config) -> None:
        """Want this configuration in force, now and after every loss of the link. Does not wait for it.

        Commands are refused until it is. If the car is armed, it is disarmed for it: the firmware takes a configuration
        only then, and arms again after five frames of neutral.

        Raises:
            ProtocolError: the firmware would refuse it.
        """
        config.steering.check()
        config.throttle.check()
        with self._changed:
            self._wanted = config
            if self._seen.state is LinkState.UP and not self._in_force(self._seen.echo):
                self._see(state=LinkState.CONFIGURING)
        self._wake()

    def command(self, steering_us: float, throttle_us: float) -> int:
        """Send both pulses, in microseconds; to be called every 20 ms.

        Returns:
            the sequence number, which comes back in the telemetry once it is accepted.

        Raises:
            ProtocolError: a pulse does not fit into the protocol.
            LinkError: there is no link, or the wanted configuration is not in force; `what` says which.
        """
        with self._changed:
            if self._seen.state is not LinkState.UP or self._wire_sends is None:
                raise self._not_up()
            sequence = (self._sequence + 1) % SEQUENCES
            self._wire_sends(Command(sequence, steering_us, throttle_us))
            self._sequence = sequence
            return sequence

    def send(self, message: ToBridge) -> None:
        """Send Estop, Reset or Disarm.

        Raises:
            LinkError: there is no link.
        """
        with self._changed:
            if self._wire_sends is None:
                raise self._not_up()
            self._wire_sends(message)

    def close(self) -> None:
        """End the thread and release the port. The firmware holds neutral from 80 ms later on. May be called twice.

        Raises:
            LinkError: the thread did not end within 5 s: the driver of the port hangs.
        """
        if self._ending.is_set() and not self._thread.is_alive():
            return
        self._ending.set()
        self._wake()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            raise LinkError(
                f"{self._seen.port or self._port} does not close within {JOIN_S:.0f} s",
                cause="the driver of the USB adapter hangs",
                next_step="unplug the board",
            )
        for fd in (self._wake_reader, self._wake_writer):
            os.close(fd)
        self._wake_writer = -1  # its number may soon be another file's

    # --- the thread

    def _run(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
            self._keep_open()
        except Exception as error:  # noqa: BLE001 - the thread's outermost frame: who commands next must learn of it
            what = f"the link's thread died: {type(error).__name__}: {error}"
            self._down(LinkError(what, cause="a fault of hotlap's own"), LinkState.CLOSED)
        else:
            self._down(None, LinkState.CLOSED)

    def _keep_open(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            met: Contact | None = None
            try:
                met = self._connect(self._port, self._ending.is_set)
                pause_s = FIRST_PAUSE_S
                self._sessions(met)
            except BridgeError as error:
                self._down(error, LinkState.DOWN)
            finally:
                if met is not None:
                    self._down(None, LinkState.DOWN)
                    met.wire.close()
            self._ending.wait(pause_s)
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)

    def _sessions(self, met: Contact | None) -> None:
        """One after the other on an open port; returns when the link is to be closed.

        Raises:
            LinkError: the port is gone or silent.
        """
        while met is not None:
            self._begin(met)
            self._talk(met)
            with self._changed:
                self._wire_sends = None
                if self._ending.is_set():
                    return
                self._see(state=LinkState.GREETING, telemetry=None, baseline=None)
            met = greet(met.wire, self._ending.is_set)

    def _begin(self, met: Contact) -> None:
        with self._changed:
            self._sequence, self._config_s, self._uptime_ms = 0, 0.0, 0
            self._attempts += 1
            self._wire_sends = met.wire.send
            self._see(
                state=LinkState.UP if self._in_force(met.echo) else LinkState.CONFIGURING,
                port=met.wire.port, error=None, hello=met.hello, echo=met.echo, telemetry=None, baseline=None,
                sessions=self._seen.sessions + 1, frames=met.wire.counters,
            )  # fmt: skip

    def _talk(self, met: Contact) -> None:
        """Until the session is lost: the chip was reset, or is silent."""
        heard_s = time.monotonic()
        while not self._ending.is_set():
            messages = met.wire.receive(_POLL_S, self._wake_reader)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 64)
            now_s = time.monotonic()
            for message in messages:
                heard_s = now_s
                if not self._take(message, now_s):
                    return
            if now_s - heard_s > SILENCE_S:
                silent = NoAnswer(
                    f"{met.wire.port}: no telemetry for {now_s - heard_s:.1f} s",
                    cause="the microcontroller hangs, or the wire from it is broken",
                    next_step="hotlap bridge info",
                )
                with self._changed:
                    self._see(error=silent)
                return
            self._keep_configured(met, now_s)

    def _take(self, message: ToHost, now_s: float) -> bool:
        """Whether the session still stands."""
        with self._changed:
            if isinstance(message, ConfigEcho):
                self._take_echo(message)
            elif isinstance(message, Telemetry):
                reset, self._uptime_ms = message.uptime_ms < self._uptime_ms, message.uptime_ms
                if reset or not message.status & Status.SESSION:
                    self._see(resets=self._seen.resets + reset)
                    return False
                self._see(
                    telemetry=message, telemetry_s=now_s, baseline=self._seen.baseline or message.counters
                )
            elif message.nonce == 0:  # unasked: the firmware has just started
                self._see(resets=self._seen.resets + 1)
                return False
        return True

    def _take_echo(self, echo: ConfigEcho) -> None:
        if self._in_force(echo):
            if self._seen.state is LinkState.CONFIGURING:
                self._see(telemetry=None)  # of before, when it may have been armed
            self._see(state=LinkState.UP, echo=echo, error=None)
            return
        error = self._seen.error
        if echo.result in (Result.REFUSED_STATE, Result.REFUSED_VALUES):
            telemetry = self._seen.telemetry
            state = telemetry.state.name.lower() if telemetry is not None else "of an unknown state"
            error = LinkError(
                f"the bridge refuses the configuration: {echo.result.name.lower()}",
                cause=f"it is {state}; only an unconfigured or disarmed one takes a configuration",
                next_step="end the emergency stop (hotlap bridge reset) or the override on the transmitter",
            )
        self._see(state=LinkState.CONFIGURING, echo=echo, error=error)

    def _keep_configured(self, met: Contact, now_s: float) -> None:
        with self._changed:
            wanted, telemetry = self._wanted, self._seen.telemetry
            if wanted is None or self._seen.state is not LinkState.CONFIGURING or now_s < self._config_s:
                return
        self._config_s = now_s + CONFIG_AGAIN_S
        if telemetry is not None and telemetry.state in (State.ARMED, State.FAILSAFE):
            met.wire.send(Disarm())
        met.wire.send(wanted)

    # --- bookkeeping, under the lock

    def _in_force(self, echo: ConfigEcho | None) -> bool:
        return self._wanted is None or (echo is not None and echo.config == self._wanted)

    def _see(self, **changes: object) -> None:
        self._seen = replace(self._seen, **changes)  # type: ignore[arg-type]
        self._changed.notify_all()

    def _down(self, error: BridgeError | None, state: LinkState) -> None:
        with self._changed:
            self._wire_sends = None
            self._attempts += 1
            self._see(state=state, error=error or self._seen.error, telemetry=None, baseline=None)

    def _not_up(self) -> LinkError:
        seen = self._seen
        error = seen.error
        what = f"the link to the bridge is {seen.state.value}"
        if error is not None:
            return LinkError(f"{what}: {error.what}", cause=error.cause, next_step=error.next_step)
        if seen.state is LinkState.CONFIGURING:
            return LinkError(what, cause="the car's configuration is on its way to the bridge", next_step="wait 0.2 s")
        return LinkError(what, cause="the board starts, or was unplugged", next_step="hotlap bridge find")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            os.write(self._wake_writer, b"w")


def open_link(
    port: str = AUTO,
    config: Config | None = None,
    timeout_s: float = 10.0,
    prepare: Callable[[], object] | None = None,
) -> Link:
    """A link with a session; up to 5 s, most of it the board's bootloader. `prepare`: see `Link`.

    Raises:
        LinkError: no session on the first attempt; the port is released again.
        ProtocolError: the firmware would refuse the configuration.
    """
    if config is not None:
        config.steering.check()
        config.throttle.check()
    link = Link(port, config, prepare=prepare)
    try:
        seen = link.wait_attempt(timeout_s)
        if seen.sessions:
            return link
        raise seen.error or NoAnswer(f"{port}: no session within {timeout_s:.0f} s", next_step="hotlap bridge find")
    except BaseException:
        link.close()
        raise
