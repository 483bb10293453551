"""Opening a session: when to say HELLO, when to be quiet, and whose answer counts. Pure: time is an argument.

Opening a port pulses DTR, which resets a Nano or Uno. Its bootloader then owns the line for 0.5 to 2 s, and some stay
in it for as long as bytes come. So: one HELLO at once, for a board that was not reset; then quiet, until the firmware
says by itself that it has started (``docs/bridge-protocol.md``, section For the host).
"""

from __future__ import annotations

from collections.abc import Sequence

from firmware_bridge.errors import NoAnswer, VersionMismatch
from firmware_bridge.messages import PROTOCOL, ConfigEcho, Hello, HelloReply, ToHost

ANSWER_S = 0.1  # a running firmware answers within this
BOOT_S = 2.5  # quiet time for reset and bootloader
AGAIN_S = 1.5  # between later attempts into silence
GIVE_UP_S = BOOT_S + AGAIN_S + 2 * ANSWER_S


class Greeting:
    """One attempt at a session, from the moment that the port was opened.

    Args:
        nonce: 1..65535, another one than in earlier attempts.
        port: for the words of errors.
        give_up_s: after this much time without an answer it fails.

    Attributes:
        hello: the reply to our HELLO, or None so far.
        echo: the configuration in force, or None so far.
    """

    def __init__(self, nonce: int, now_s: float, port: str, give_up_s: float = GIVE_UP_S) -> None:
        self._nonce, self._port, self._give_up_s = nonce, port, give_up_s
        self._begun_s = now_s
        self._said_s: float | None = None
        self._quiet_s = BOOT_S
        self._heard_s: float | None = None
        self.hello: HelloReply | None = None
        self.echo: ConfigEcho | None = None

    @property
    def done(self) -> bool:
        """Whether the session is open and its configuration known."""
        return self.hello is not None and self.echo is not None

    def step(self, messages: Sequence[ToHost], now_s: float) -> Hello | None:
        """Take what has come; to be called at least every 50 ms.

        Returns:
            what to send now, if anything.

        Raises:
            VersionMismatch: the firmware speaks another version of the protocol.
            NoAnswer: there is none, and it is time to give up.
        """
        for message in messages:
            self._heard_s = now_s
            if isinstance(message, HelloReply):
                self._check(message)
                if message.nonce == self._nonce:
                    self.hello, self.echo = message, None
            elif isinstance(message, ConfigEcho) and self.hello is not None:
                self.echo = message
        if self.done:
            return None
        if now_s - self._begun_s > self._give_up_s:
            raise self._silence()
        if not self._due(now_s):
            return None
        if self._said_s is not None and not self._runs(now_s):
            self._quiet_s = AGAIN_S
        self._said_s = now_s
        return Hello(self._nonce)

    def _due(self, now_s: float) -> bool:
        if self._said_s is None:
            return True
        # What sends telemetry or its own HELLO is no bootloader: it may be asked again soon.
        return now_s - self._said_s >= (ANSWER_S if self._runs(now_s) else self._quiet_s)

    def _runs(self, now_s: float) -> bool:
        return self._heard_s is not None and now_s - self._heard_s < ANSWER_S

    def _check(self, reply: HelloReply) -> None:
        if reply.protocol != PROTOCOL:
            version = ".".join(map(str, reply.firmware))
            raise VersionMismatch(
                f"{self._port}: firmware {version} speaks protocol {reply.protocol}, this hotlap speaks {PROTOCOL}",
                cause="firmware and hotlap are of different releases",
                next_step=f"hotlap bridge flash --port {self._port}",
            )

    def _silence(self) -> NoAnswer:
        if self._heard_s is None:
            return NoAnswer(
                f"{self._port}: nobody answers HELLO within {self._give_up_s:.1f} s",
                cause="another kind of device, a board without this firmware, or a bootloader that does not leave",
                next_step=f"hotlap bridge flash --port {self._port}, or another port: hotlap bridge find",
            )
        return NoAnswer(
            f"{self._port}: a bridge sends, but does not answer HELLO within {self._give_up_s:.1f} s",
            cause="the wire from here to the board (its RX) is broken, or too disturbed for any frame to arrive",
            next_step="another USB cable; on UART pins, check TX and GND",
        )
