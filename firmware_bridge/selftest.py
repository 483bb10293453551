"""What a bridge promises, tried on the board that is plugged in. Only neutral pulses are ever sent: no wheel turns.

Times are seen through USB and this computer's scheduler, so their limits are generous; the exact ones are shown on the
compiled firmware in a simulator (``tests/firmware_bridge``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from firmware_bridge.errors import LinkError
from firmware_bridge.link import Link
from firmware_bridge.messages import (
    ARMING_FRAMES,
    MAX_PULSE_US,
    SEQUENCES,
    Command,
    Config,
    Estop,
    Reset,
    State,
    Telemetry,
)
from firmware_bridge.snapshot import Snapshot

PERIOD_S = 0.02
RATE_HZ = (45.0, 55.0)
MEASURE_S = 1.0
SUPPLY_MV = (4300, 5600)  # of a 5 V board on USB or a BEC, by a reference that is 10 % off at worst
ARM_S = 0.5
SAFE_S = 0.150  # 80 ms of silence, a frame, and the way of the telemetry to here
ANSWER_S = 0.2


@dataclass(frozen=True)
class Check:
    """One promise: whether it was kept, what was measured, and what to do if it was not."""

    name: str
    ok: bool
    measured: str
    cure: str = ""


def selftest(link: Link) -> list[Check]:
    """Try everything, in order; ends early where the rest would make no sense. The bridge is disarmed afterwards.

    Args:
        link: up, and used by nobody else. Nothing is configured: limits and neutral are those that the bridge has.

    Raises:
        LinkError: the link was lost meanwhile.
    """
    return _Tester(link).run()


class _Tester:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._sequence = 0
        self._checks: list[Check] = []

    def run(self) -> list[Check]:
        if not self._telemetry():
            return self._checks
        before = self._now()
        config = self._configuration()
        if config is not None:
            try:
                if self._arms(config):
                    self._refuses(config)
                    self._fails_safe(config)
                    self._stops(config)
            finally:
                self._link.send(Reset())
        self._line(before)
        return self._checks

    # --- the checks

    def _telemetry(self) -> bool:
        """Its rate, by the board's own clock: this computer may be late, and USB sends in bunches."""
        self._link.wait(lambda seen: seen.telemetry is not None, 1.0)
        first, first_frames = self._seen().telemetry, self._good_frames()
        self._link.wait(lambda seen: seen.telemetry is None, MEASURE_S)
        newest, frames = self._seen().telemetry, self._good_frames() - first_frames
        if first is None or newest is None or newest.uptime_ms <= first.uptime_ms:
            self._add("telemetry", False, "none", "hotlap bridge info; another USB cable or port")
            return False
        rate_hz = 1e3 * frames / (newest.uptime_ms - first.uptime_ms)
        good = RATE_HZ[0] <= rate_hz <= RATE_HZ[1]
        self._add("telemetry", good, f"{rate_hz:.1f} Hz", "another USB cable or port")
        low, high = SUPPLY_MV
        measured = "not measured" if newest.supply_mv == 0 else f"{newest.supply_mv / 1000:.2f} V"
        self._add("supply", newest.supply_mv == 0 or low <= newest.supply_mv <= high, measured, "a better 5 V supply")
        return True

    def _configuration(self) -> Config | None:
        echo = self._seen().echo
        config = echo.config if echo is not None else None
        if config is None:
            cure = "start the gate with this board once: it tells it the car's neutral and limits"
            self._add("configuration", False, "none, so that it gives no pulses", cure)
            return None
        throttle = config.throttle
        measured = f"throttle {throttle.min_us:g} / {throttle.neutral_us:g} / {throttle.max_us:g} us"
        self._add("configuration", True, measured)
        return config

    def _arms(self, config: Config) -> bool:
        self._link.send(Reset())  # of an emergency stop, or armed by somebody else
        begun_s = time.monotonic()
        armed = self._neutral_until(config, lambda told: told.state is State.ARMED, ARM_S)
        took_ms = 1e3 * (time.monotonic() - begun_s)
        told = self._now()
        still = f"still {told.state.name.lower()} after {told.neutral_frames} frames"
        measured = f"after {took_ms:.0f} ms" if armed else still
        self._add("arms on neutral", armed, measured, "a radio that is lost or in override keeps it from arming")
        return armed

    def _refuses(self, config: Config) -> None:
        throttle = config.throttle
        beyond_us = throttle.max_us + 1.0 if throttle.max_us < MAX_PULSE_US else throttle.min_us - 1.0
        before = self._now().counters
        self._link.send(Command(self._next(), config.steering.neutral_us, beyond_us))
        self._link.send(Command(self._sequence - 1 if self._sequence else SEQUENCES - 1, *_neutral(config)))
        stands = self._neutral_until(
            config, lambda told: told.counters.since(before).get("sequence_refused", 0) >= 1, ANSWER_S
        )
        told = self._now()
        risen = told.counters.since(before)
        refused = risen.get("range_refused", 0), risen.get("sequence_refused", 0)
        cure = "flash the firmware again: hotlap bridge flash"
        self._add(
            "refuses a pulse out of range", refused[0] == 1 and told.throttle_us == throttle.neutral_us,
            f"{beyond_us:g} us refused {refused[0]} of 1 times", cure,
        )  # fmt: skip
        self._add("refuses an old command", stands and refused[1] == 1, f"{refused[1]} of 1 times", cure)

    def _fails_safe(self, config: Config) -> None:
        silent_s = time.monotonic()
        safe = self._link.wait(lambda seen: _state(seen) is State.FAILSAFE, 2.0 * SAFE_S)
        took_s = time.monotonic() - silent_s
        told = self._now()
        good = safe and took_s <= SAFE_S and told.throttle_us == config.throttle.neutral_us
        measured = f"{1e3 * took_s:.0f} ms after the last command" if safe else f"still {told.state.name.lower()}"
        self._add("neutral without commands", good, f"{measured}, {told.throttle_us:g} us", "hotlap bridge flash")

    def _stops(self, config: Config) -> None:
        self._link.send(Estop())
        stopped = self._link.wait(lambda seen: _state(seen) is State.ESTOP, ANSWER_S)
        self._neutral_until(config, lambda told: told.state is not State.ESTOP, 2 * ARMING_FRAMES * PERIOD_S)
        latched = stopped and self._now().state is State.ESTOP
        self._link.send(Reset())
        released = self._link.wait(lambda seen: _state(seen) is State.DISARMED, ANSWER_S)
        measured = f"{'latched' if latched else 'not latched'}, {'released' if released else 'not released'} by a reset"
        self._add("emergency stop", latched and released, measured, "hotlap bridge flash")

    def _line(self, before: Telemetry) -> None:
        risen = self._now().counters.since(before.counters)
        broken = {name: risen.get(name, 0) for name in ("crc_errors", "frame_errors", "overruns")}
        frames = self._seen().frames
        if frames is not None:
            broken["crc_errors here"] = frames.crc_errors
        said = ", ".join(f"{name} {count}" for name, count in broken.items() if count)
        self._add("line", not said, said or "no byte lost or broken", "another USB cable, away from the motor's wires")

    # --- helpers

    def _neutral_until(self, config: Config, condition: Callable[[Telemetry], bool], timeout_s: float) -> bool:
        """Send neutral at 50 Hz until the telemetry is so."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self._link.send(Command(self._next(), *_neutral(config)))
            if self._link.wait(lambda seen: seen.telemetry is not None and condition(seen.telemetry), PERIOD_S):
                return True
        return False

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % SEQUENCES
        return self._sequence

    def _good_frames(self) -> int:
        frames = self._seen().frames
        return 0 if frames is None else frames.good

    def _seen(self) -> Snapshot:
        return self._link.snapshot()

    def _now(self) -> Telemetry:
        seen = self._seen()
        if seen.telemetry is None:
            raise seen.error if isinstance(seen.error, LinkError) else LinkError(
                "the link was lost during the self-test",
                cause="the board was unplugged, or was reset by its watchdog or a weak supply",
                next_step="hotlap bridge info",
            )
        return seen.telemetry

    def _add(self, name: str, ok: bool, measured: str, cure: str = "") -> None:
        self._checks.append(Check(name, ok, measured, "" if ok else cure))


def _neutral(config: Config) -> tuple[float, float]:
    return config.steering.neutral_us, config.throttle.neutral_us


def _state(seen: Snapshot) -> State | None:
    return None if seen.telemetry is None else seen.telemetry.state
