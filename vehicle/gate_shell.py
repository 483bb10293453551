"""The shell around `vehicle.gate_core`: facts in, pulses out every 20 ms, messages obeyed as they come."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from calibration.errors import CalibrationError
from calibration.mapping import Calibration
from calibration.store import load_calibration
from vehicle.actuators.base import PERIOD_S
from vehicle.car_config import CarConfig
from vehicle.errors import GateError
from vehicle.gate_clock import RING, TickClock, figures_ms
from vehicle.gate_core import Facts, GateCore, Limits, Mode
from vehicle.gate_journal import Journal
from vehicle.gate_links import GateLinks
from vehicle.gate_pulses import Pulses
from vehicle.gate_requests import RequestRefused
from vehicle.guard import say
from vehicle.guard_link import GuardLink
from vehicle.health import HealthMonitor
from vehicle.messages import Intent, MessageError, decode
from vehicle.notify import notify, watchdog_interval_s
from vehicle.realtime import collect, lock_memory, raise_priority, stop_collector

GIVE_UP_S = 2.0  # of failing writes
MESSAGES_A_TICK = 64
STATE_TICKS = 5  # 10 Hz
FACTS_TICKS = 50  # 1 Hz
TIDY_S = 10.0
CONSOLE_S = 2.0  # without a sign of life, which a console gives twice a second, it is gone


class Ending(Protocol):
    """What says that the gate shall end: the number of a signal, and a file descriptor to wait for it."""

    number: int | None

    def fileno(self) -> int:
        """Readable once `number` is set."""
        ...


class Gate:
    """One gate; `vehicle.gate.main` writes neutral before it is made and after it has ended, however that was.

    Args:
        uncalibrated_reason: why `calibration` is None.
        guard_args: of ``python -m vehicle.guard`` (`vehicle.guard_link.guard_arguments`).

    Raises:
        ConfigError: a socket cannot be bound.
    """

    def __init__(
        self,
        config: CarConfig,
        runtime: Path,
        pulses: Pulses,
        calibration: Calibration | None,
        uncalibrated_reason: str,
        guard_args: Sequence[str],
    ) -> None:
        self._config, self._pulses = config, pulses
        self._limits = Limits.of(config.drive)
        self.core = GateCore(calibration, self._limits, uncalibrated_reason)
        # Before the threads, sockets and guard, which inherit it: a thread of lower priority that is not let run while
        # it has the interpreter's lock would hold up the loop.
        self._realtime = raise_priority()
        self._journal = Journal(config.state_path() / "logs" / "drive.log")
        self._health = HealthMonitor(config.state_path())
        self._links = GateLinks(runtime)
        self._actuator_facts = facts = pulses.actuator.facts()
        # A device of one owner that fails safe by itself (the bridge's firmware) has no place for a guard, and no need.
        needed = facts.get("shared", True) or not facts.get("fails_safe", False)
        self._guard = GuardLink(guard_args) if needed else None
        self._guard_alive = self._guard is None
        self._start_guard()
        self._facts = Facts()
        self._mode_put_out = self._mode_told = self.core.mode
        self._frame_s: float | None = None  # stamp of the frame behind the newest intent, until its pulse is out
        self._frame_to_pulse_s: deque[float] = deque(maxlen=RING)
        self._console_s = float("-inf")
        self._ticks = self._messages = 0
        self._early = False  # whether this period has had its step out of turn
        self._begun_s = self._tidied_s = self._watchdog_s = time.monotonic()
        self._watchdog_every_s = watchdog_interval_s()
        self._clock = TickClock(self._begun_s, PERIOD_S)

    # --- the loop

    def run(self, ending: Ending) -> int:
        """Tick until a signal comes, or until an actuator that does not recover could not be written to for 2 s.

        Returns:
            the exit status.
        """
        self._links.watch(ending.fileno())
        lock_memory()
        stop_collector()
        notify(f"READY=1\nSTATUS={self.core.mode.value}")
        while ending.number is None:
            now_s = time.monotonic()
            if now_s < self._clock.deadline_s:
                self._wait(ending)
                continue
            self._clock.begin(now_s)
            self._tick(now_s)
            # One that opens its device again by itself needs no new gate for that.
            if self._pulses.failing_s(now_s) > GIVE_UP_S and not self._actuator_facts.get("recovers", False):
                say(f"hotlap gate: no pulse could be written for {GIVE_UP_S:g} s: {self._pulses.error}")
                return 1
        return 0

    def _tick(self, now_s: float) -> None:
        """One beat: facts, decision, pulses; then what can wait."""
        if self._guard is not None:
            self._guard_alive = self._guard.beat(now_s)
        self._step(now_s)
        self._ticks += 1
        self._messages, self._early = 0, False
        if self._ticks % STATE_TICKS == 0 or self.core.mode is not self._mode_told:
            self._tell_state(now_s)
        if self._watchdog_every_s is not None and now_s - self._watchdog_s >= self._watchdog_every_s:
            self._watchdog_s = now_s
            notify("WATCHDOG=1")
        if self._ticks % FACTS_TICKS == 0:
            self._actuator_facts = self._pulses.actuator.facts()
        if now_s - self._tidied_s >= TIDY_S and not self.core.armed:
            self._tidied_s = now_s
            collect()

    def _step(self, now_s: float) -> None:
        """One decision of the core, written."""
        self._facts = self._facts_now()
        output = self.core.tick(now_s, self._facts)
        seen_s = time.monotonic()
        if seen_s - now_s > self._limits.gap_s:  # stopped just here: what was decided is of another time
            output = self.core.tick(seen_s, self._facts)
        written = self._pulses.write(output.steering_us, output.throttle_us, output.cause)
        if not written and self.core.armed:
            self._facts = self._facts_now()
            output = self.core.tick(time.monotonic(), self._facts)  # disarmed by the error: neutral, and now
            self._pulses.write(output.steering_us, output.throttle_us, output.cause)
        elif written and output.cause == "drive" and self._frame_s is not None:
            self._frame_to_pulse_s.append(time.monotonic() - self._frame_s)
            self._frame_s = None
        self._mode_put_out = output.mode
        self._journal.output(now_s, output, self.core.armed, self._pulses.error)

    def _wait(self, ending: Ending) -> None:
        """Until the next deadline, a message or a signal. Messages are obeyed as they come, up to a number a tick."""
        left_s = self._clock.left_s(time.monotonic())
        if self._messages >= MESSAGES_A_TICK:
            select.select((ending,), (), (), left_s)
        elif left_s < 1e-3:  # finer than the poll can wait
            time.sleep(left_s)
        elif self._links.poll(int(1e3 * left_s)):
            self._take_messages()

    def _take_messages(self) -> None:
        """Requests first. A change of mode is put out before it is answered; a new intent is driven by at once."""
        answers = []
        fresh = False
        while self._messages < MESSAGES_A_TICK and (request := self._links.next_request()) is not None:
            self._messages += 1
            answers.append((request.envelope, self._answer(request.message)))
        while self._messages < MESSAGES_A_TICK and (data := self._links.next_intent()) is not None:
            self._messages += 1
            fresh = self._take_intent(data) or fresh
        now_s = time.monotonic()
        if self.core.mode is not self._mode_put_out or (fresh and not self._early):
            self._early = self._early or fresh
            self._step(now_s)
        for envelope, answer in answers:
            self._links.answer(envelope, answer)
        if self.core.mode is not self._mode_told:
            self._tell_state(now_s)

    def _take_intent(self, data: bytes) -> bool:
        """Whether it is an intent that the car drives by now."""
        now_s = time.monotonic()
        try:
            message = decode(data)
        except MessageError as error:
            self.core.bad_message(error.fault, now_s)
            self._journal.intent(now_s, None, error.fault)
            return False
        if not isinstance(message, Intent):
            self.core.alive(message, now_s)
            return False
        fault = self.core.intent(message, now_s)
        self._journal.intent(now_s, message, fault)
        if fault is not None or self.core.mode is not Mode.AUTONOMOUS:
            return False
        self._frame_s = message.frame_stamp_s
        return True

    # --- requests

    def _answer(self, message: object) -> dict[str, Any]:
        """Obey a request. The core knows all but {"op": "calibration"}, load the file again, its guard with it, and
        {"op": "console"}, the console's sign of life.
        """
        now_s = time.monotonic()
        op = message.get("op") if isinstance(message, dict) else None
        if op == "console":
            self._console_s = now_s
            return {"ok": True, "mode": self.core.mode.value}
        try:
            answer = self._load_calibration() if op == "calibration" else self.core.request(message, now_s)
        except RequestRefused as refused:
            answer = refused.reply()
        if op == "status" and answer["ok"]:
            answer |= self._status(now_s)
        self._journal.request(now_s, message, answer)
        return answer

    def _load_calibration(self) -> dict[str, Any]:
        try:
            if self.core.mode is not Mode.DISARMED:  # before the disk is touched
                raise GateError(f"the gate is {self.core.mode.value}", reason="not_disarmed", next_step="hotlap disarm")
            calibration = load_calibration(self._config.calibration_path())
            self.core.set_calibration(calibration)
        except (CalibrationError, GateError) as error:
            reason = error.reason if isinstance(error, GateError) else "bad_calibration"
            raise RequestRefused(reason, error.what, cause=error.cause, next_step=error.next_step) from error
        self._pulses.calibrate(calibration)
        self._start_guard()
        return {"ok": True, "mode": self.core.mode.value}

    def _start_guard(self) -> None:
        """With the neutral of now; nothing can be armed until it answers."""
        if self._guard is not None and self._pulses.neutral_us is not None:
            self._guard_alive = False
            self._guard.start(*self._pulses.neutral_us)

    # --- what is seen and told

    def _facts_now(self) -> Facts:
        health = self._health.latest
        return Facts(
            actuator_error=self._pulses.error,
            guard_alive=self._guard_alive,
            log_error=self._journal.error,
            undervoltage=health.undervoltage,
            battery_fraction=self._actuator_facts.get("battery_fraction"),
            temperature_c=health.temperature_c,
            disk_free_bytes=health.disk_free_bytes,
            console_gone=self._console_gone(time.monotonic()),
        )

    def _console_gone(self, now_s: float) -> str | None:
        """Since when, where car.toml has the car stop then."""
        age_s = now_s - self._console_s
        if self._config.drive.without_console == "go_on" or age_s <= CONSOLE_S:
            return None
        return f"silent for {age_s:.1f} s (at most {CONSOLE_S:g} s)" if self._console_s > 0.0 else "not seen yet"

    def _status(self, now_s: float) -> dict[str, Any]:
        """What the core does not know of itself."""
        guard = self._guard
        return {
            "pid": os.getpid(),
            "processes": {"gate": os.getpid(), "guard": guard and guard.pid},
            "uptime_s": round(now_s - self._begun_s, 3),
            "interval_ms": figures_ms(self._clock.intervals_s),
            "late": self._clock.late,
            "missed": self._clock.missed,
            "realtime": self._realtime,
            "frame_to_pulse_ms": figures_ms(self._frame_to_pulse_s),
            "load": self._health.latest.load,
            "actuator": {**self._actuator_facts, "error": self._pulses.error},
            "guard": guard and {"alive": self._guard_alive, "error": guard.error, "starts": guard.starts},
            "log": self._journal.facts(),
            "calibration_path": str(self._config.calibration_path().absolute()),
        }

    def _tell_state(self, now_s: float) -> None:
        state = self.core.state(now_s)
        self._links.publish({**state, "stamp_s": now_s, "pid": os.getpid()})
        if self.core.mode is not self._mode_told:
            self._mode_told = self.core.mode
            self._journal.state(now_s, state)
            notify(f"STATUS={self._mode_told.value}")

    def tell_guard(self) -> None:
        """The gate lives, though it only holds neutral now."""
        if self._guard is not None:
            self._guard.tell()

    def close(self, in_order: bool) -> None:
        """Let go of everything but the actuator. `in_order`: neutral has been held, so the guard may end too."""
        if self._guard is not None:
            (self._guard.stop if in_order else self._guard.abandon)()
        self._links.close()
        self._health.close()
        self._journal.close()
