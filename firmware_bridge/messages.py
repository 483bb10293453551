"""The messages between computer and microcontroller, protocol version 1: ``docs/bridge-protocol.md``. Pure.

On the wire all pulses are whole half microseconds; here they are microseconds, rounded the same way wherever they come
from, since the firmware arms on *exactly* the configured neutral. `firmware_bridge.protocol` makes bytes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TypeAlias

from firmware_bridge.errors import ProtocolError

PROTOCOL = 1
MIN_PULSE_US, MAX_PULSE_US = 500.0, 2500.0
SEQUENCES = 0x10000
ARMING_FRAMES = 5  # of neutral, before the firmware arms


class State(IntEnum):
    """What the firmware does."""

    UNCONFIGURED = 0
    DISARMED = 1
    ARMED = 2
    FAILSAFE = 3
    ESTOP = 4
    OVERRIDE = 5


class Radio(IntEnum):
    """The RC receiver: not there, silent, leaving the car to the computer, or driving it."""

    OFF = 0
    LOST = 1
    STANDBY = 2
    OVERRIDE = 3


class Result(IntEnum):
    """What became of a CONFIG."""

    IN_FORCE = 0
    REFUSED_STATE = 1
    REFUSED_VALUES = 2
    NONE = 3


class Status(IntFlag):
    """The flags of a `Telemetry`."""

    SESSION = 1
    CONFIGURED = 2
    STORED = 4
    STORING = 8
    ALIVE = 16


RESET_CAUSES = {1: "power on", 2: "external (DTR or button)", 4: "brown-out", 8: "watchdog"}  # bits of MCUSR


def half_us(pulse_us: float) -> int:
    """A pulse in microseconds as the wire has it: half microseconds, rounded to the nearest, halves up.

    Raises:
        ProtocolError: not finite, or not in 0..32767 us.
    """
    if not (math.isfinite(pulse_us) and 0.0 <= pulse_us <= 32767.0):
        raise ProtocolError(f"a pulse of {pulse_us} us does not fit into the protocol")
    return math.floor(2.0 * pulse_us + 0.5)


# --- host to bridge


@dataclass(frozen=True)
class Hello:
    """Opens a session; the nonce, 1..65535, comes back in the reply."""

    nonce: int
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Channel:
    """What one output may do, in microseconds; make it with `of`.

    Args:
        slew_us: the greatest change from one servo frame to the next, 0 is no limit.
    """

    neutral_us: float
    min_us: float
    max_us: float
    slew_us: float = 0.0

    @classmethod
    def of(cls, neutral_us: float, one_end_us: float, other_end_us: float, slew_us: float = 0.0) -> Channel:
        """Rounded as the wire has it, the ends in either order.

        Raises:
            ProtocolError: the firmware would refuse it (`Channel.check`).
        """
        low_us, high_us = sorted((one_end_us, other_end_us))
        channel = cls(*(half_us(us) / 2.0 for us in (neutral_us, low_us, high_us, slew_us)))
        channel.check()
        if slew_us > 0.0 and channel.slew_us == 0.0:
            raise ProtocolError(f"a slew limit of {slew_us:g} us a frame is less than half a microsecond")
        return channel

    def check(self) -> None:
        """Refuse what the firmware refuses.

        Raises:
            ProtocolError: outside of 500..2500 us, neutral not between the ends, or both ends in one place.
        """
        ordered = MIN_PULSE_US <= self.min_us <= self.neutral_us <= self.max_us <= MAX_PULSE_US
        if not ordered or not self.min_us < self.max_us:
            raise ProtocolError(
                f"neutral {self.neutral_us:g} us between {self.min_us:g} and {self.max_us:g} us is no range of pulses",
                cause=f"it must lie between its ends, and they in {MIN_PULSE_US:g} to {MAX_PULSE_US:g} us",
                next_step="hotlap calibrate",
            )

    def clamp(self, pulse_us: float) -> float:
        """The nearest pulse within the ends, rounded."""
        return min(max(half_us(pulse_us) / 2.0, self.min_us), self.max_us)


@dataclass(frozen=True)
class Config:
    """What the outputs may do, and whether an RC receiver is connected (then no receiver is no driving)."""

    steering: Channel
    throttle: Channel
    radio: bool = False


@dataclass(frozen=True)
class Command:
    """Both pulses in microseconds, 50 times a second; the sequence number must go up, modulo 65536."""

    sequence: int
    steering_us: float
    throttle_us: float


@dataclass(frozen=True)
class Estop:
    """Throttle neutral until a `Reset`."""


@dataclass(frozen=True)
class Reset:
    """Back to disarmed; the only way out of an emergency stop."""


@dataclass(frozen=True)
class Disarm:
    """From armed or failsafe to disarmed."""


# --- bridge to host


@dataclass(frozen=True)
class HelloReply:
    """Who is there. With nonce 0 it is unasked: the firmware has just started."""

    protocol: int
    firmware: tuple[int, int, int]
    features: int
    reset_cause: int
    state: State
    nonce: int
    timeout_ms: int
    frame_us: int


@dataclass(frozen=True)
class ConfigEcho:
    """The configuration in force, None if there is none; `stored`: 0 not, 1 in the EEPROM, 2 being written."""

    result: Result
    stored: int
    config: Config | None


@dataclass(frozen=True)
class Counters:
    """Since the chip started, modulo 65536."""

    good: int = 0
    crc_errors: int = 0
    frame_errors: int = 0
    range_refused: int = 0
    sequence_refused: int = 0
    state_refused: int = 0
    timeouts: int = 0
    overruns: int = 0

    def since(self, earlier: Counters) -> dict[str, int]:
        """Those that have gone up, and by how much."""
        rises = {name: (value - getattr(earlier, name)) % SEQUENCES for name, value in vars(self).items()}
        return {name: rise for name, rise in rises.items() if rise}


@dataclass(frozen=True)
class Telemetry:
    """What the firmware does, once a servo frame.

    Args:
        age_ms: since it accepted a command; None: none since HELLO, or longer than 65 s.
        steering_us, throttle_us: the pulses of the frame that begins; 0 while there are none.
        supply_mv: of the chip itself, which is its USB or BEC supply; 0 before it was measured.
    """

    uptime_ms: int
    state: State
    status: Status
    neutral_frames: int
    last_sequence: int
    age_ms: int | None
    steering_us: float
    throttle_us: float
    counters: Counters = field(default_factory=Counters)
    reset_cause: int = 0
    radio: Radio = Radio.OFF
    radio_steering_us: float = 0.0
    radio_throttle_us: float = 0.0
    supply_mv: int = 0


ToBridge: TypeAlias = Hello | Config | Command | Estop | Reset | Disarm
ToHost: TypeAlias = HelloReply | Telemetry | ConfigEcho


def reset_words(cause: int) -> str:
    """The cause of the last reset, for people."""
    names = [name for bit, name in RESET_CAUSES.items() if cause & bit]
    return ", ".join(names) or "unknown"
