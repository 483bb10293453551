"""The original car's way of driving, on leases: one mode chosen, started and stopped, commands that just come.

The original drives on with the last command for ever. Here each command holds the controls for a quarter of a second,
so a client that falls silent, or whose Wi-Fi is gone, has stopped its car. Its next command takes the controls again,
but only where its own silence was what ended them: after a stop, a disarm or a fault it must start again. So it must
after ten seconds of silence in manual, that a command which Wi-Fi or a sleeping phone held up moves nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from calibration.car_link import CarLink, CarRefused
from calibration.console import Leases

MANUAL, AUTONOMOUS, CALIBRATION = "manual", "autonomous", "calibration"
# The gate refuses one step of more than 25 us; a little less, since its pulse and ours are floats.
THROTTLE_STEP_US = 24.0
START_WAIT_S = 6.0  # the original answers within 10 s
_AGAIN_S = 0.05
RESUMED_WITHIN_S = 10.0  # of the last command or start, in manual; who calibrates looks at the wheels for longer
# Reasons against arming that go by themselves: the ESC is shown neutral, the guard is started again after a calibration
# was saved, the pilot's first intents come in.
PASSING = frozenset(("esc_neutral", "gate_stalled", "guard"))
PASSING_AUTONOMOUS = PASSING | {"intents_unsteady", "stale_intent", "stale_frame", "no_model"}
_SILENCE = "neutral:fault:lease_lost"


@dataclass
class _Driver:
    """One session: `started` is between start and stop, `lease` what it holds or held last."""

    mode: str = MANUAL
    started: bool = False
    lease: str = ""
    heard_s: float = -math.inf  # its last command that was taken, or its start
    lock: threading.Lock = field(default_factory=threading.Lock)


class DeepRacerDriver:
    """What each session has chosen and started. Methods raise CarRefused where the car says no."""

    def __init__(
        self,
        link: CarLink,
        leases: Leases,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link, self._leases, self._clock, self._sleep = link, leases, clock, sleep
        self._drivers: dict[str, _Driver] = {}
        self._lock = threading.Lock()

    def forget(self, key: str) -> None:
        """A session is over."""
        with self._lock:
            self._drivers.pop(key, None)

    def select(self, key: str, mode: str) -> None:
        """Choose manual or autonomous; a car that was started by this session stops."""
        driver = self._driver(key)
        with driver.lock:
            if driver.started:
                self._stop(driver)
            driver.mode = mode

    def start(self, key: str, holder: str) -> None:
        """Arm in the chosen mode."""
        driver = self._driver(key)
        with driver.lock:
            if driver.mode == AUTONOMOUS:
                self._until_ready(self._arm_autonomous, PASSING_AUTONOMOUS)
            else:
                self._take(key, driver, holder)
            driver.started = True

    def stop(self, key: str) -> None:
        """Disarm, whoever started it."""
        driver = self._driver(key)
        with driver.lock:
            self._stop(driver)

    def calibrate(self, key: str, holder: str) -> None:
        """Choose calibration and start it, from any state but an emergency stop."""
        driver = self._driver(key)
        with driver.lock:
            self._stop(driver)
            driver.mode = CALIBRATION
            self._take(key, driver, holder)
            driver.started = True

    def leave_calibration(self, key: str) -> None:
        """Disarm what `calibrate` of this session armed, so that a calibration can be saved."""
        driver = self._driver(key)
        with driver.lock:
            if driver.mode == CALIBRATION and driver.started:
                self._stop(driver)

    def drive(self, key: str, holder: str, steering: float, throttle: float) -> None:
        """One manual command; steering + is left, throttle + is forward."""
        self._command(key, holder, MANUAL, lambda: {"op": "manual", "steering": steering, "throttle": throttle})

    def adjust_steering(self, key: str, holder: str, pulse_us: float) -> None:
        """Turn the wheels to a pulse in microseconds."""
        self._command(key, holder, CALIBRATION, lambda: {"op": "pulse", "steering_us": pulse_us})

    def adjust_throttle(self, key: str, holder: str, pulse_us: float) -> None:
        """One bounded step of the motor towards a pulse in microseconds; who repeats it gets there."""

        def step() -> dict[str, object]:
            now_us = (self._link.ask({"op": "status"}).get("pulses") or {}).get("throttle_us")
            if not isinstance(now_us, (int, float)):
                return {"op": "pulse", "throttle_us": pulse_us}  # the gate says why not
            change_us = min(max(pulse_us - now_us, -THROTTLE_STEP_US), THROTTLE_STEP_US)
            return {"op": "pulse", "throttle_us": now_us + change_us}

        self._command(key, holder, CALIBRATION, step)

    # --- how

    def _driver(self, key: str) -> _Driver:
        with self._lock:
            return self._drivers.setdefault(key, _Driver())

    def _command(self, key: str, holder: str, mode: str, request: Callable[[], dict[str, object]]) -> None:
        driver = self._driver(key)
        with driver.lock:
            if driver.mode != mode or not driver.started:
                raise CarRefused(
                    "not_started",
                    f"{mode} mode is not started",
                    cause=f"this client has chosen {driver.mode}" + (", and has stopped" if not driver.started else ""),
                    next_step="choose the mode and start it, then send this again",
                )
            try:
                self._link.ask({**request(), "lease": driver.lease})
                driver.heard_s = self._clock()
                return
            except CarRefused as refused:
                if refused.reason == "not_in_control":
                    driver.started = False  # somebody disarmed or stopped the car
                if refused.reason != "lease_lost":
                    raise
            if self._link.ask({"op": "status"}).get("cause") != _SILENCE:
                driver.started = False
                raise CarRefused(
                    "not_started", "the car was stopped, or somebody else took it", next_step="start it again"
                )
            silence_s = self._clock() - driver.heard_s
            if mode == MANUAL and silence_s > RESUMED_WITHIN_S:
                driver.started = False
                raise CarRefused(
                    "not_started",
                    f"the car stopped {silence_s:.0f} s ago, when the commands ended",
                    cause=f"a command goes on within {RESUMED_WITHIN_S:g} s; a later one may have been held up",
                    next_step="start it again",
                )
            self._take(key, driver, holder)
            self._link.ask({**request(), "lease": driver.lease})

    def _arm_autonomous(self) -> None:
        try:
            self._link.ask({"op": "arm", "mode": AUTONOMOUS})
        except CarRefused as refused:
            # It drives already: a second start is no fault, as on the original.
            if not any((one["reason"], one["value"]) == ("already_armed", AUTONOMOUS) for one in refused.blocked):
                raise

    def _take(self, key: str, driver: _Driver, holder: str) -> None:
        """Lease and arm. The ESC may have to see neutral for longer than a lease lasts without being renewed."""

        def attempt() -> None:
            self._release(driver)  # one of its own may still be valid
            driver.lease = self._leases.grant(key, driver.mode, holder)
            try:
                self._link.ask({"op": "arm", "mode": driver.mode, "lease": driver.lease})
            except CarRefused:
                self._release(driver)
                raise
            driver.heard_s = self._clock()

        self._until_ready(attempt, PASSING)

    def _until_ready(self, attempt: Callable[[], object], passing: frozenset[str]) -> None:
        for left in range(round(START_WAIT_S / _AGAIN_S), -1, -1):
            try:
                attempt()
                return
            except CarRefused as refused:
                reasons = {one["reason"] for one in refused.blocked}
                if not left or not reasons or not reasons <= passing:
                    raise
            self._sleep(_AGAIN_S)

    def _stop(self, driver: _Driver) -> None:
        driver.started = False
        self._link.ask({"op": "disarm"})
        self._release(driver)

    def _release(self, driver: _Driver) -> None:
        lease, driver.lease = driver.lease, ""
        if lease:
            try:
                self._link.ask({"op": "release", "lease": lease})
            except CarRefused as refused:
                if refused.reason != "lease_lost":
                    raise
