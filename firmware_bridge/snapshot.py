"""What a link is and knows, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from firmware_bridge.errors import BridgeError
from firmware_bridge.framing import FrameCounters
from firmware_bridge.messages import ConfigEcho, Counters, HelloReply, Telemetry


class LinkState(str, Enum):
    """How far the link is."""

    DOWN = "down"  # no port, or nobody answers there
    GREETING = "greeting"  # the chip was reset, or is silent: HELLO again
    CONFIGURING = "configuring"  # the wanted configuration is not in force (yet)
    UP = "up"
    CLOSED = "closed"


@dataclass(frozen=True)
class Snapshot:
    """What is known of the link at one moment.

    Args:
        port: the one in use or used last, "" before there was any.
        error: what went wrong last, None while all is well.
        telemetry: the newest of this session; None too when it is older than the configuration in force.
        telemetry_s: time.monotonic() when it came.
        baseline: the counters of the session's first telemetry: what is wrong now is above them.
        sessions: how often a session was opened.
        resets: how often the chip started anew within an open port.
        frames: what the decoder of this port has counted.
    """

    state: LinkState
    port: str = ""
    error: BridgeError | None = None
    hello: HelloReply | None = None
    echo: ConfigEcho | None = None
    telemetry: Telemetry | None = None
    telemetry_s: float = 0.0
    baseline: Counters | None = None
    sessions: int = 0
    resets: int = 0
    frames: FrameCounters | None = None

    def age_s(self, now_s: float) -> float:
        """Of the telemetry; infinite without any in this session."""
        return float("inf") if self.telemetry is None else now_s - self.telemetry_s
