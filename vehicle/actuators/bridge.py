"""The microcontroller bridge as an actuator: commands out, and nothing believed that the firmware does not say.

The firmware is the last line of defence. Without a command for 80 ms, whatever the reason, it goes to neutral, so there
is no guard process, and one gate owns the port alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration.mapping import Calibration
from firmware_bridge.errors import BridgeError
from firmware_bridge.link import Link, open_link
from firmware_bridge.messages import Channel, Config, Radio, State, Telemetry, reset_words
from firmware_bridge.snapshot import LinkState, Snapshot
from vehicle.actuators.pulses import check_pulses
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError
from vehicle.gate_requests import PULSE_RANGE_US
from vehicle.realtime import go_first

TELEMETRY_AGE_S = 0.2  # ten frames
SETTLE_S = 0.5  # to take another configuration and arm again: 0.12 s, and as much again for each lost frame
FULL_THROTTLE_FRAMES = 3.0  # the firmware's slew limit: nobody gets from neutral to an end faster
CALIBRATING = ("calibration", "neutral:not_held")  # causes of the gate's calibration mode, and of no other
_DRIVABLE = (State.DISARMED, State.ARMED, State.FAILSAFE)


class BridgeActuator:
    """Commands over a link that opens again by itself after unplugging and resets.

    A write that returns has reached a firmware that said within the last 0.2 s that it is armed; everything else is an
    error, also a write of neutral while it is still arming. So a gate whose writes work may drive at once. The one
    exception: calibration mode needs wider limits than driving, and to get them the firmware must be disarmed. For
    `SETTLE_S` from then on, neutral is sent in place of any throttle, and that is no error.

    Args:
        radio: an RC receiver is connected to the board; without a signal from it nothing drives.
    """

    def __init__(self, link: Link, radio: bool = False) -> None:
        self._link, self._radio = link, radio
        self._driving: Config | None = None
        self._calibrating: Config | None = None
        self._asked: Config | None = None
        self._settle_until_s = 0.0
        self._sequence = 0

    def configure(self, calibration: Calibration) -> None:
        """Take neutral and limits from a calibration; the gate calls it before the first write, and for a new one.

        While driving, the firmware refuses whatever is beyond the calibrated ends; in calibration mode, whose purpose
        is to find those, beyond 900..2100 us.

        Raises:
            ActuatorError: a calibration that the firmware would refuse.
        """
        steering, throttle = calibration.steering, calibration.throttle
        sides = (steering.left_us, steering.right_us), (throttle.forward_us, throttle.reverse_us)
        longest_us = max(abs(end_us - throttle.neutral_us) for end_us in sides[1])
        slew_us = longest_us / FULL_THROTTLE_FRAMES
        configs = []
        with explained():
            for more in ((), PULSE_RANGE_US):
                (left, right), (forward, reverse) = ((min(*ends, *more), max(*ends, *more)) for ends in sides)
                configs.append(
                    Config(
                        Channel.of(steering.center_us, left, right),
                        Channel.of(throttle.neutral_us, forward, reverse, slew_us),
                        self._radio,
                    )
                )
            self._driving, self._calibrating = configs
            self._asked = self._driving
            self._settle_until_s = 0.0
            self._link.configure(self._driving)

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`. Rounded to half a microsecond. Never waits."""
        check_pulses(steering_us, throttle_us)
        if self._driving is None or self._calibrating is None:
            raise ActuatorError(
                "bridge: it was not told where neutral is",
                cause="whoever opened it did not call configure() with a calibration",
                next_step="hotlap calibrate",
            )
        now_s = time.monotonic()
        calibrating = cause in CALIBRATING
        config = self._calibrating if calibrating else self._driving
        if config != self._asked:
            self._asked = config
            # The gate is armed when it begins to calibrate, and disarmed, so that it can wait, when it has ended.
            self._settle_until_s = now_s + SETTLE_S if calibrating else 0.0
            with explained():
                self._link.configure(config)
        settling = now_s < self._settle_until_s
        seen = self._link.snapshot()
        if settling and seen.state is LinkState.CONFIGURING:
            return  # disarmed meanwhile, which is neutral
        neutral_us = config.throttle.neutral_us
        armed = seen.telemetry is not None and seen.telemetry.state is State.ARMED
        with explained():
            # Only an armed firmware gives it throttle, and only neutral makes it arm.
            self._sequence = self._link.command(steering_us, throttle_us if armed else neutral_us)
        self._judge(seen, now_s, settling)

    def facts(self) -> dict[str, Any]:
        """Its name and port, what the firmware says of itself, and what went wrong so far.

        It fails safe, has one owner, and ``"recovers"``: it opens the port again by itself, no gate has to end for it.
        """
        seen = self._link.snapshot()
        age_s = seen.age_s(time.monotonic())
        hello, telemetry = seen.hello, seen.telemetry
        return {
            "name": "bridge",
            "fails_safe": True,
            "shared": False,
            "recovers": seen.state is not LinkState.CLOSED,
            "port": seen.port,
            "link": seen.state.value,
            "link_error": seen.error.what if seen.error is not None else None,
            "sessions": seen.sessions,
            "resets": seen.resets,
            "protocol": hello and hello.protocol,
            "firmware": hello and ".".join(map(str, hello.firmware)),
            "reset_cause": hello and reset_words(hello.reset_cause),
            "telemetry_age_s": round(age_s, 3) if telemetry is not None else None,
            "frames": dict(vars(seen.frames)) if seen.frames is not None else None,
            "sent_sequence": self._sequence,
            **_telemetry_facts(telemetry),
        }

    def close(self) -> None:
        """Release the port. The firmware keeps the last pulse, which is neutral, and holds neutral from 80 ms on."""
        with contextlib.suppress(BridgeError):  # a driver that hangs: the process ends anyway
            self._link.close()

    def _judge(self, seen: Snapshot, now_s: float, settling: bool) -> None:
        """Refuse to call a pulse written that the firmware does not give."""
        telemetry = seen.telemetry
        if telemetry is None and settling:
            return
        if telemetry is None or seen.age_s(now_s) > TELEMETRY_AGE_S:
            raise ActuatorError(
                f"bridge: no telemetry for more than {TELEMETRY_AGE_S:g} s",
                cause="the microcontroller hangs or starts, or bytes from it are lost",
                next_step="check the USB cable; hotlap status has the counters",
            )
        if telemetry.state is State.ARMED or (settling and telemetry.state in _DRIVABLE):
            return
        cause, next_step = _why(telemetry, seen)
        raise ActuatorError(f"bridge: {telemetry.state.name.lower()}, not armed", cause=cause, next_step=next_step)


class BridgeIsGuard:
    """The actuator of anybody but the gate: it leaves the port alone.

    The firmware has gone to neutral by itself 80 ms after the gate's last command. To open the port would reset the
    board, which ends all pulses for up to 2 s.
    """

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """Check the pulses, as all do; the firmware holds neutral."""
        check_pulses(steering_us, throttle_us)

    def facts(self) -> dict[str, Any]:
        """Its name, and that it fails safe."""
        return {"name": "bridge", "fails_safe": True, "shared": False}

    def close(self) -> None:
        """Nothing is held."""


def open_bridge(config: ActuatorConfig, runtime: Path, role: str) -> BridgeActuator | BridgeIsGuard:
    """The entry point ``bridge``. Opening takes up to 5 s, most of it the bootloader of a board that it resets.

    Raises:
        ActuatorError: no port, no bridge on it, another program has it, or another version of the protocol.
    """
    if role != "gate":
        return BridgeIsGuard()
    with explained():
        # The gate's loop goes before every ordinary program, and believes only fresh telemetry: so must what reads it.
        return BridgeActuator(open_link(config.port, prepare=go_first), config.radio)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn an error of the bridge room into an `ActuatorError` with the same words."""
    try:
        yield
    except BridgeError as error:
        what = error.what if error.what.startswith("bridge") else f"bridge: {error.what}"
        raise ActuatorError(what, cause=error.cause, next_step=error.next_step) from error


def _why(telemetry: Telemetry, seen: Snapshot) -> tuple[str, str]:
    """Cause and next step for a firmware that is not armed."""
    if telemetry.state is State.ESTOP:
        return "an emergency stop was sent to it, and only a reset ends that", "stop the gate, then hotlap bridge reset"
    if telemetry.state is State.OVERRIDE:
        return "the switch of the RC transmitter says so: the radio drives", "flip the transmitter's switch back"
    if telemetry.radio is Radio.LOST:
        return "the RC receiver gives no signal, and without it nothing drives", "switch the transmitter on"
    if telemetry.state is State.UNCONFIGURED:
        return "it has no configuration yet", "hotlap calibrate"
    risen = telemetry.counters.since(seen.baseline or telemetry.counters)
    risen.pop("good", None)
    said = ", ".join(f"{name} {count}" for name, count in risen.items())
    return (
        f"it arms after five frames of neutral in a row; since the session began: {said or 'nothing went wrong'}",
        "wait 0.2 s; if it stays so, hotlap status has the counters",
    )


def _telemetry_facts(telemetry: Telemetry | None) -> dict[str, Any]:
    if telemetry is None:
        return {"state": None, "supply_v": None, "counters": None, "pulses": None, "radio": None, "uptime_s": None}
    return {
        "state": telemetry.state.name.lower(),
        "supply_v": telemetry.supply_mv / 1000.0 if telemetry.supply_mv else None,
        "counters": dict(vars(telemetry.counters)),
        "pulses": {"steering_us": telemetry.steering_us, "throttle_us": telemetry.throttle_us},
        "last_sequence": telemetry.last_sequence,
        "command_age_ms": telemetry.age_ms,
        "radio": telemetry.radio.name.lower(),
        "uptime_s": telemetry.uptime_ms / 1000.0,
    }

