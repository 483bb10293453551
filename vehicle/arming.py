"""What must hold before the car may be armed: every check with its reason, the measured value and the cure.

Pure functions of a `Readiness`, which the gate core fills in. All checks are always made, so that a person sees every
reason at once. Reasons are short and stable: programs may compare them, and docs/driving.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vehicle.car_config import DriveConfig
from vehicle.config import check, ranged


class Mode(str, Enum):
    """Who moves the car: nobody, a person, the pilot, the calibration page, or nobody until it is reset."""

    DISARMED = "disarmed"
    MANUAL = "manual"
    AUTONOMOUS = "autonomous"
    CALIBRATION = "calibration"
    STOPPED = "stopped"


ARMED_MODES = (Mode.MANUAL, Mode.AUTONOMOUS, Mode.CALIBRATION)


@dataclass(frozen=True)
class Limits:
    """Every figure that the gate core decides by.

    The ages add up to DESIGN.md's table: a dead pilot is neutral within 160 ms + one 20 ms tick + one 20 ms servo
    frame, a lost browser within 250 ms + the same.

    Raises:
        ConfigError: NaN, infinite or out of range.
    """

    intent_age_s: float = ranged(0.160, low=0.02, high=2.0)
    frame_age_s: float = ranged(0.160, low=0.02, high=2.0)
    lost_s: float = ranged(1.0, low=0.1, high=10.0, doc="autonomous without a fresh intent and frame: disarm")
    future_s: float = ranged(0.005, low=0.0, high=0.1, doc="a stamp may lie this far ahead: now is read once a batch")
    lease_s: float = ranged(0.250, low=0.05, high=2.0)
    manual_age_s: float = ranged(0.250, low=0.05, high=2.0, doc="a manual command holds this long")
    hold_s: float = ranged(0.300, low=0.05, high=2.0, doc="calibration: throttle runs this long after a request")
    gap_s: float = ranged(0.100, low=0.02, high=1.0, doc="a tick later than this: the gate itself was stopped")
    startup_neutral_frames: int = ranged(25, low=1, high=1000, doc="an ESC learns neutral before it arms itself")
    rearm_neutral_frames: int = ranged(5, low=1, high=1000)
    alive_before_arm_s: float = ranged(0.5, low=0.0, high=10.0)
    speed_cap: float = ranged(1.0, low=0.0, high=1.0)
    trial_cap: float = ranged(0.6, low=0.0, high=1.0)
    steering_slew_deg_per_s: float = ranged(600.0, low=10.0, high=1e5)
    acceleration_mps2: float = ranged(6.0, low=0.1, high=1e3)
    max_speed_mps: float = ranged(4.0, low=0.1, high=20.0)
    battery_fraction: float = ranged(0.10, low=0.0, high=1.0)
    temperature_c: float = ranged(85.0, low=0.0, high=150.0, doc="a Pi slows its processor down from 85 C on")
    disk_free_bytes: int = ranged(50_000_000, low=0)

    def __post_init__(self) -> None:
        check(self, where="limits of the gate")

    @classmethod
    def of(cls, drive: DriveConfig) -> Limits:
        """The limits that ``car.toml`` sets, the others at their defaults."""
        return cls(
            speed_cap=drive.speed_cap_percent / 100.0,
            trial_cap=drive.trial_cap_percent / 100.0,
            steering_slew_deg_per_s=drive.steering_slew_deg_per_s,
            acceleration_mps2=drive.acceleration_mps2,
            max_speed_mps=drive.max_speed_mps,
        )


@dataclass(frozen=True)
class Facts:
    """What the gate's shell saw at this tick; None is "not measurable here". The defaults never arm."""

    actuator_error: str | None = None
    guard_alive: bool = False
    log_error: str | None = None
    undervoltage: bool | None = None
    battery_fraction: float | None = None
    temperature_c: float | None = None
    disk_free_bytes: int | None = None
    console_gone: str | None = None  # only where car.toml has an autonomous car stop without its console

    def fault(self) -> str | None:
        """What disarms an armed car at once. The other facts only keep it from being armed."""
        if self.actuator_error is not None:
            return "actuator"
        if not self.guard_alive:
            return "guard"
        return None if self.log_error is None else "log"


@dataclass(frozen=True)
class Blocked:
    """One reason why the car would not drive: its stable name, what was measured, and the next step."""

    reason: str
    value: str
    cure: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"reason": self.reason, "value": self.value, "cure": self.cure}


@dataclass(frozen=True)
class Readiness:
    """What the checks look at. Ages are of now, in seconds; None is "never"."""

    mode: Mode
    calibrated: bool
    uncalibrated_reason: str
    facts: Facts
    tick_age_s: float | None
    neutral_frames: int
    needed_frames: int
    lease: bool
    model: str
    intent_age_s: float | None
    frame_age_s: float | None
    steady_s: float
    refusal: str


def blocked_reasons(ready: Readiness, wanted: Mode, limits: Limits) -> list[Blocked]:
    """Every reason against arming in the mode `wanted`; an empty list arms."""
    reasons = [*_mode(ready), *_car(ready, limits), *_health(ready.facts, limits)]
    if wanted is Mode.AUTONOMOUS:
        reasons += _pilot(ready, limits)
    elif not ready.lease:
        reasons.append(Blocked("no_lease", "none", f"ask for a {wanted.value} lease and renew it at 10 Hz"))
    return reasons


def _mode(ready: Readiness) -> Iterator[Blocked]:
    if ready.mode is Mode.STOPPED:
        yield Blocked("stopped", "emergency stop", "look that nobody is near the wheels, then: hotlap stop --reset")
    elif ready.mode in ARMED_MODES:
        yield Blocked("already_armed", ready.mode.value, "hotlap disarm")


def _car(ready: Readiness, limits: Limits) -> Iterator[Blocked]:
    facts = ready.facts
    if not ready.calibrated:
        yield Blocked("uncalibrated", ready.uncalibrated_reason, "hotlap calibrate, or the console")
    if ready.tick_age_s is None or not 0.0 <= ready.tick_age_s <= limits.gap_s:
        yield Blocked("gate_stalled", _age(ready.tick_age_s, limits.gap_s), "wait; if it stays, restart the gate")
    if ready.neutral_frames < ready.needed_frames:
        value = f"{ready.neutral_frames} of {ready.needed_frames} neutral frames"
        yield Blocked("esc_neutral", value, "wait: the ESC is shown neutral, which takes at most a second")
    if facts.actuator_error is not None:
        yield Blocked("actuator", facts.actuator_error, "check wiring and power, then: hotlap doctor")
    if not facts.guard_alive:
        yield Blocked("guard", "the guard process is not running", "wait; if it stays, restart the gate")


def _health(facts: Facts, limits: Limits) -> Iterator[Blocked]:
    # Written as "not fine", so that a NaN from a broken sensor blocks.
    if facts.log_error is not None:
        yield Blocked("log", facts.log_error, "free or mend the disk that the drive log is on")
    if facts.undervoltage:
        yield Blocked("undervoltage", "the computer's supply is too low", "charge the battery or shorten the cable")
    if facts.battery_fraction is not None and not facts.battery_fraction >= limits.battery_fraction:
        value = f"{100 * facts.battery_fraction:.0f} % (at least {100 * limits.battery_fraction:.0f} %)"
        yield Blocked("battery", value, "charge the battery")
    if facts.temperature_c is not None and not facts.temperature_c <= limits.temperature_c:
        value = f"{facts.temperature_c:.0f} C (at most {limits.temperature_c:.0f} C)"
        yield Blocked("temperature", value, "let the computer cool down")
    if facts.disk_free_bytes is not None and not facts.disk_free_bytes >= limits.disk_free_bytes:
        value = f"{facts.disk_free_bytes / 1e6:.0f} MB free (at least {limits.disk_free_bytes / 1e6:.0f} MB)"
        yield Blocked("disk", value, "remove old models or drive logs")


def _pilot(ready: Readiness, limits: Limits) -> Iterator[Blocked]:
    if ready.facts.console_gone is not None:
        cure = 'start it: hotlap console, or its service; or drive.without_console = "go_on" in car.toml'
        yield Blocked("no_console", ready.facts.console_gone, cure)
    if not ready.model:
        cure = "hotlap models install BUNDLE --activate, then start the pilot"
        yield Blocked("no_model", "the pilot has loaded none", cure)
    if ready.refusal:
        yield Blocked("intent_refused", ready.refusal, "read the log of the pilot; then restart it")
    if not fresh(ready.intent_age_s, limits.intent_age_s, limits):
        cure = "start the pilot: hotlap drive, or its service"
        yield Blocked("stale_intent", _age(ready.intent_age_s, limits.intent_age_s), cure)
    elif ready.steady_s < limits.alive_before_arm_s:
        value = f"steady for {ready.steady_s:.1f} s (at least {limits.alive_before_arm_s:.1f} s)"
        yield Blocked("intents_unsteady", value, "wait; if it stays, the pilot is too slow: hotlap status")
    if not fresh(ready.frame_age_s, limits.frame_age_s, limits):
        yield Blocked("stale_frame", _age(ready.frame_age_s, limits.frame_age_s), "check the camera: hotlap doctor")


def fresh(age_s: float | None, limit_s: float, limits: Limits) -> bool:
    """Whether something of this age may still move the car: known, not too old, not from the future, not NaN."""
    return age_s is not None and -limits.future_s <= age_s <= limit_s


def _age(age_s: float | None, limit_s: float) -> str:
    return "never" if age_s is None else f"{1e3 * age_s:.0f} ms old (at most {1e3 * limit_s:.0f} ms)"
