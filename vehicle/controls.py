"""What the one person with the lease wants: manual driving, and the raw pulses of the calibration page.

Pure: time is an argument. The lease that armed the car is the only one that may move it; when it ends, nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vehicle.arming import Limits, Mode, fresh
from vehicle.gate_requests import RequestRefused
from vehicle.leases import Lease, Leases

THROTTLE_STEP_US = 25.0  # of one calibration request away from neutral, counted from what the ESC gets now


@dataclass(frozen=True)
class Manual:
    """What a person asks for: steering -1..1 (+ left) and throttle -1..1 (+ forward)."""

    steering: float
    throttle: float
    stamp_s: float


@dataclass(frozen=True)
class RawPulses:
    """What the calibration page asks for: the steering stays, the throttle must be asked for again and again."""

    steering_us: float | None = None
    throttle_us: float | None = None
    stamp_s: float = 0.0


class Controls:
    """The lease, and the newest command of its holder."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._leases = Leases(limits)
        self._armed_by = ""  # the lease that armed manual or calibration mode, "" in every other mode
        self._manual: Manual | None = None
        self._pulses = RawPulses()

    @property
    def steering_us(self) -> float | None:
        """The steering pulse that the calibration page has asked for."""
        return self._pulses.steering_us

    def lease(self, now_s: float) -> Lease | None:
        """The valid lease."""
        return self._leases.current(now_s)

    def grant(self, kind: str, holder: str, now_s: float) -> Lease:
        """A new lease.

        Raises:
            RequestRefused: lease_held.
        """
        lease = self._leases.grant(kind, holder, now_s)
        if lease is None:
            raise RequestRefused("lease_held", "somebody has the controls", next_step="wait until they let go")
        return lease

    def renew(self, lease_id: str, now_s: float) -> None:
        """Hold the lease for another while.

        Raises:
            RequestRefused: lease_lost.
        """
        if not self._leases.renew(lease_id, now_s):
            raise RequestRefused("lease_lost", "this lease has ended", next_step="ask for a lease again")

    def release(self, lease_id: str, now_s: float) -> bool:
        """End the lease; whether the car was armed by it.

        Raises:
            RequestRefused: lease_lost.
        """
        self.renew(lease_id, now_s)
        self._leases.end()
        return lease_id == self._armed_by

    def held(self, mode: Mode, lease_id: str, now_s: float) -> bool:
        """Whether this is the valid lease, and of the kind that `mode` needs."""
        lease = self._leases.current(now_s)
        return lease is not None and (lease.kind, lease.id) == (mode.value, lease_id)

    def take(self, lease_id: str) -> None:
        """The car is now armed by this lease ("": by none); older commands are void."""
        self._armed_by = lease_id
        self._manual, self._pulses = None, RawPulses()

    def rest(self, lease: object) -> None:
        """A request of this lease was refused: if it drives, its throttle is neutral until the next good one."""
        if lease == self._armed_by:
            self._manual, self._pulses = None, replace(self._pulses, throttle_us=None)

    def forget(self) -> None:
        """End the lease whoever has it: the clock went backwards."""
        self._leases.end()

    def lost(self, now_s: float) -> bool:
        """Whether the lease that armed the car is gone."""
        lease = self._leases.current(now_s)
        return self._armed_by != "" and (lease is None or lease.id != self._armed_by)

    def manual(self, mode: Mode, lease_id: str, steering: float, throttle: float, now_s: float) -> None:
        """Take a manual command.

        Raises:
            RequestRefused: lease_lost, not_in_control.
        """
        self._check(mode, Mode.MANUAL, lease_id, now_s)
        self._manual = Manual(steering, throttle, now_s)

    def pulse(
        self,
        mode: Mode,
        lease_id: str,
        steering_us: float | None,
        throttle_us: float | None,
        held_us: float | None,
        neutral_us: float | None,
        now_s: float,
    ) -> None:
        """Take raw pulses in microseconds; None leaves one as it is.

        Args:
            held_us, neutral_us: what the ESC gets now, and at rest; None while there is no calibration.

        Raises:
            RequestRefused: lease_lost, not_in_control, step_too_large.
        """
        self._check(mode, Mode.CALIBRATION, lease_id, now_s)
        if throttle_us is not None:
            if held_us is None or neutral_us is None or not _may_go(held_us, throttle_us, neutral_us):
                raise RequestRefused(
                    "step_too_large",
                    f"throttle_us is {throttle_us:.1f}, the ESC gets {held_us}",
                    cause=f"one request may take it {THROTTLE_STEP_US:.0f} us further; back to neutral, any distance",
                    next_step="go there in steps; it falls back to neutral when nothing is sent",
                )
            self._pulses = replace(self._pulses, throttle_us=throttle_us, stamp_s=now_s)
        if steering_us is not None:
            self._pulses = replace(self._pulses, steering_us=steering_us)

    def manual_command(self, now_s: float) -> Manual | None:
        """The newest manual command, if it is fresh."""
        manual = self._manual
        if manual is None or not fresh(now_s - manual.stamp_s, self._limits.manual_age_s, self._limits):
            return None
        return manual

    def pulse_command(self, now_s: float) -> RawPulses | None:
        """The newest pulses, if the throttle is among them and was asked for just now."""
        pulses = self._pulses
        if pulses.throttle_us is None or not fresh(now_s - pulses.stamp_s, self._limits.hold_s, self._limits):
            return None
        return pulses

    def _check(self, mode: Mode, needed: Mode, lease_id: str, now_s: float) -> None:
        self.renew(lease_id, now_s)
        if mode is not needed or lease_id != self._armed_by:
            next_step = f"arm it as {needed.value} with this lease"
            raise RequestRefused("not_in_control", f"the gate is {mode.value}", next_step=next_step)


def _may_go(held_us: float, wanted_us: float, neutral_us: float) -> bool:
    """Whether the ESC may go there at once: a small step, or to rest, or part of the way there. Not across neutral."""
    towards_rest = min(held_us, neutral_us) <= wanted_us <= max(held_us, neutral_us)
    return towards_rest or abs(wanted_us - held_us) <= THROTTLE_STEP_US
