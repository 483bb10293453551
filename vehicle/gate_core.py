"""The gate's decisions: may the car move now, and with which pulses. Pure: no I/O, no clock, no threads.

Default deny. The throttle leaves calibrated neutral in one place (`GateCore._drive`), which is reached only while
armed, with a fresh command of the one source in control, and with everything checked at this very tick. Whatever else
happens is neutral. A source that is lost disarms; it never hands over to another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from calibration.errors import CalibrationError
from calibration.mapping import Calibration, check_calibration
from vehicle.arming import ARMED_MODES, Blocked, Facts, Limits, Mode, Readiness, blocked_reasons, fresh
from vehicle.controls import Controls, Manual, RawPulses
from vehicle.errors import GateError
from vehicle.gate_motion import Motion
from vehicle.gate_requests import RequestRefused, parse_request
from vehicle.intent_stream import RECOVERABLE, IntentStream
from vehicle.messages import Alive, Intent

__all__ = ["ARMED_MODES", "Blocked", "Facts", "GateCore", "Limits", "Mode", "Output", "RequestRefused"]

FRAME_S = 0.01  # half a servo frame: a tick that follows sooner shows the ESC nothing new


@dataclass(frozen=True)
class Output:
    """What to write now. Pulses are None only while there is no calibration: then nothing is to be written.

    `cause` is of the throttle: "drive", "manual", "calibration", or "neutral:WHY".
    """

    steering_us: float | None
    throttle_us: float | None
    cause: str
    mode: Mode


class GateCore:
    """The state machine of the gate.

    Every method takes the time of `time.monotonic` at which the message or tick was seen.

    Args:
        calibration: None when there is none or it is damaged: then the core gives no pulses and never arms.
        uncalibrated_reason: why there is none, for `blocked`.

    Raises:
        CalibrationError: the calibration does not hold together.
    """

    def __init__(self, calibration: Calibration | None, limits: Limits, uncalibrated_reason: str = "") -> None:
        self.mode = Mode.DISARMED
        self._limits = limits
        self._stream = IntentStream(limits)
        self._controls = Controls(limits)
        self._facts = Facts()
        self._tick_s: float | None = None
        self._why = "disarmed"  # the neutral cause while nothing is armed
        self._fault: tuple[str, float] | None = None
        self._faults = self._gaps = self._ticks = 0
        self._cap = limits.speed_cap
        self._model = ""
        self._trial = False
        self._fresh_s: float  # autonomous: when there last was something to drive by
        self._output = Output(None, None, "neutral:disarmed", self.mode)
        self._motion = Motion(limits)
        self._calibration: Calibration | None
        self._uncalibrated_reason: str
        self._neutral_frames: int  # that the ESC was shown in a row, with nothing armed
        self._needed_frames: int
        self._framed_s: float | None  # when the last of them was counted
        self.set_calibration(calibration, uncalibrated_reason)

    @property
    def armed(self) -> bool:
        """Whether some source may move the car."""
        return self.mode in ARMED_MODES

    def set_calibration(self, calibration: Calibration | None, uncalibrated_reason: str = "") -> None:
        """Take another calibration; its neutral is shown to the ESC as at the start, before anything can be armed.

        Raises:
            GateError: not disarmed (reason "not_disarmed").
            CalibrationError: the calibration does not hold together; the old one stays.
        """
        if self.mode is not Mode.DISARMED:
            raise GateError(
                f"the gate is {self.mode.value}", reason="not_disarmed", next_step="hotlap disarm, then save again"
            )
        if calibration is not None:
            check_calibration(calibration)
        self._calibration = calibration
        self._uncalibrated_reason = uncalibrated_reason or "there is no calibration"
        self._neutral_frames, self._framed_s = 0, None
        self._needed_frames = self._limits.startup_neutral_frames
        self._stream.drop()  # its steering was judged by the old one

    # --- what the pilot says

    def intent(self, intent: Intent, now_s: float) -> str | None:
        """Take an intent. None: accepted; else the name of the fault, and it moves nothing."""
        autonomous = self.mode is Mode.AUTONOMOUS
        return self._judge(self._stream.offer(intent, now_s, self._calibration, self._model, autonomous), now_s)

    def alive(self, alive: Alive, now_s: float) -> str | None:
        """Take a sign of life. None: accepted; else the name of the fault."""
        return self._judge(self._stream.alive(alive, now_s), now_s)

    def bad_message(self, fault: str, now_s: float) -> None:
        """The shell could not decode a message of the pilot: that counts as a refused intent."""
        self._judge(self._stream.refuse(fault), now_s)

    def _judge(self, fault: str | None, now_s: float) -> str | None:
        if fault is not None and fault not in RECOVERABLE and self.mode is Mode.AUTONOMOUS:
            self._fail(fault, now_s)
        return fault

    # --- what people and programs ask for

    def request(self, message: object, now_s: float) -> dict[str, Any]:
        """Obey or refuse a request (`vehicle.gate_requests` has the forms) and give the answer.

        A refused request changes nothing, but for one: a refused one of whoever drives by hand or calibrates takes
        the throttle to neutral, until their next good one.
        """
        try:
            op, values = parse_request(message)
            handler: Callable[..., dict[str, Any] | None] = getattr(self, f"_op_{op}")
            answer = handler(now_s, **values) or {}
            return {"ok": True, "mode": self.mode.value, **answer}
        except RequestRefused as refused:
            self._controls.rest(message.get("lease") if isinstance(message, dict) else None)
            return refused.reply()

    def _op_stop(self, now_s: float) -> None:
        self._disarm(Mode.STOPPED, "stopped")

    def _op_disarm(self, now_s: float) -> None:
        if self.mode is not Mode.STOPPED:  # only a reset ends a stop
            self._disarm(Mode.DISARMED, "disarmed")

    def _op_reset(self, now_s: float) -> None:
        if self.mode is not Mode.STOPPED:
            raise RequestRefused("not_stopped", f"the gate is {self.mode.value}: there is no stop to reset")
        self._disarm(Mode.DISARMED, "disarmed")

    def _op_arm(self, now_s: float, mode: str, lease: str = "") -> None:
        wanted = Mode(mode)
        ready = self._readiness(now_s, self._controls.held(wanted, lease, now_s))
        blocked = blocked_reasons(ready, wanted, self._limits)
        if blocked:
            raise RequestRefused(
                "blocked",
                "not armed: " + ", ".join(one.reason for one in blocked),
                cause=f"{blocked[0].reason}: {blocked[0].value}",
                next_step=blocked[0].cure,
                blocked=blocked,
            )
        self._controls.take("" if wanted is Mode.AUTONOMOUS else lease)
        self._needed_frames = self._limits.rearm_neutral_frames
        self._fresh_s = now_s
        self.mode = wanted

    def _op_lease(self, now_s: float, kind: str, holder: str) -> dict[str, Any]:
        return {"lease": self._controls.grant(kind, holder, now_s).id, "lease_s": self._limits.lease_s}

    def _op_renew(self, now_s: float, lease: str) -> None:
        self._controls.renew(lease, now_s)

    def _op_release(self, now_s: float, lease: str) -> None:
        if self._controls.release(lease, now_s):
            self._disarm(Mode.DISARMED, "disarmed")

    def _op_manual(self, now_s: float, lease: str, steering: float, throttle: float) -> None:
        self._controls.manual(self.mode, lease, steering, throttle, now_s)

    def _op_pulse(
        self, now_s: float, lease: str, steering_us: float | None = None, throttle_us: float | None = None
    ) -> None:
        neutral_us = None if self._calibration is None else self._calibration.throttle.neutral_us
        self._controls.pulse(self.mode, lease, steering_us, throttle_us, self._output.throttle_us, neutral_us, now_s)

    def _op_cap(self, now_s: float, percent: float) -> dict[str, Any]:
        self._cap = percent / 100.0
        return {"percent": percent, "percent_in_force": 100.0 * self._cap_in_force()}

    def _op_model(self, now_s: float, sha256: str, trial: bool) -> dict[str, Any]:
        if (sha256, trial) != (self._model, self._trial):
            if self.armed:
                raise RequestRefused("armed", "the model changes only while disarmed", next_step="hotlap disarm")
            self._model, self._trial = sha256, trial
            self._stream.drop()  # what the old one wanted is void
        return {"sha256": sha256, "trial": trial}

    def _op_status(self, now_s: float) -> dict[str, Any]:
        return self.state(now_s)

    # --- the tick

    def tick(self, now_s: float, facts: Facts) -> Output:
        """Decide what to write now; to be called at 50 Hz or more, with what the shell saw since the last tick."""
        step_s = now_s - (now_s if self._tick_s is None else self._tick_s)  # NaN where a time is no number
        fault = self._time_fault(step_s)
        self._tick_s = now_s if math.isfinite(now_s) else None
        self._facts = facts
        self._ticks += 1
        fault = fault or facts.fault() or ("lease_lost" if self._controls.lost(now_s) else None)
        if fault is None and facts.console_gone is not None and self.mode is Mode.AUTONOMOUS:
            fault = "console_lost"
        if fault is not None and self.armed:
            self._fail(fault, now_s)
        self._output = self._decide(now_s, step_s)
        # A pulse that was not written, or that the actuator did not take, the ESC did not see.
        written = self._output.throttle_us is not None and facts.actuator_error is None
        if self.armed or not written or self._tick_s is None:
            self._neutral_frames, self._framed_s = 0, None
        elif self._framed_s is None or now_s - self._framed_s >= FRAME_S:
            self._neutral_frames, self._framed_s = self._neutral_frames + 1, self._tick_s
        return self._output

    def _time_fault(self, step_s: float) -> str | None:
        late = step_s > self._limits.gap_s
        if step_s >= 0.0 and not late:  # neither holds for NaN
            return None
        self._neutral_frames, self._framed_s = 0, None
        self._gaps += 1
        if late:
            return "tick_gap"
        self._stream.restart()
        self._controls.forget()
        return "time_backwards"

    def _decide(self, now_s: float, step_s: float) -> Output:
        calibration = self._calibration
        if calibration is None:
            return Output(None, None, "neutral:uncalibrated", self.mode)
        command = self._command(now_s)
        if not isinstance(command, str):
            try:
                return self._drive(calibration, command, step_s)
            except CalibrationError:
                self._fail("mapping", now_s)
                command = self._why
        self._motion.rest()
        steering_us = self._controls.steering_us  # of the calibration page, None in every other mode
        if steering_us is None:
            steering_us = calibration.steering.center_us
        return Output(steering_us, calibration.throttle.neutral_us, f"neutral:{command}", self.mode)

    def _command(self, now_s: float) -> Intent | Manual | RawPulses | str:
        """What the source in control wants, if it is fresh; else the cause of neutral."""
        if self.mode is Mode.AUTONOMOUS:
            return self._wanted_by_pilot(now_s)
        if self.mode is Mode.MANUAL:
            return self._controls.manual_command(now_s) or "no_command"
        if self.mode is Mode.CALIBRATION:
            return self._controls.pulse_command(now_s) or "not_held"
        return self._why

    def _wanted_by_pilot(self, now_s: float) -> Intent | str:
        stream, limits = self._stream, self._limits
        intent = stream.intent
        if intent is None or not fresh(now_s - intent.stamp_s, limits.intent_age_s, limits):
            missing = "intent"
        elif not fresh(stream.frame_age_s(now_s), limits.frame_age_s, limits):
            missing = "frame"
        else:
            self._fresh_s = now_s
            return intent
        # A hiccup passes. A pilot that was gone for longer does not take the car over when it comes back.
        if now_s - self._fresh_s > limits.lost_s:
            self._fail(f"{missing}_lost", now_s)
            return self._why
        return f"stale_{missing}"

    def _drive(self, calibration: Calibration, command: Intent | Manual | RawPulses, step_s: float) -> Output:
        """The one place where the throttle leaves neutral.

        Raises:
            CalibrationError: a pulse that the calibration does not allow.
        """
        if isinstance(command, Intent):
            pulses = self._motion.by_intent(calibration, command, self._cap_in_force(), step_s)
            return Output(*pulses, "drive", self.mode)
        if isinstance(command, Manual):
            pulses = self._motion.by_hand(calibration, command, self._cap, step_s)
            return Output(*pulses, "manual", self.mode)
        steering_us = calibration.steering.center_us if command.steering_us is None else command.steering_us
        return Output(steering_us, command.throttle_us, "calibration", self.mode)

    def _cap_in_force(self) -> float:
        return min(self._cap, self._limits.trial_cap) if self._trial else self._cap

    def _fail(self, fault: str, now_s: float) -> None:
        self._fault = fault, now_s
        self._faults += 1
        self._neutral_frames, self._framed_s = 0, None
        self._disarm(Mode.DISARMED, f"fault:{fault}")

    def _disarm(self, mode: Mode, why: str) -> None:
        self.mode, self._why = mode, why
        self._controls.take("")

    # --- what is told

    def blocked(self, now_s: float) -> list[Blocked]:
        """Every reason why the car does not drive autonomously now; empty while it may."""
        ready = self._readiness(now_s, lease=False)
        if self.mode is Mode.AUTONOMOUS:  # these three are for arming only
            ready = replace(ready, mode=Mode.DISARMED, neutral_frames=ready.needed_frames, steady_s=math.inf)
        reasons = blocked_reasons(ready, Mode.AUTONOMOUS, self._limits)
        if self._cap_in_force() <= 0.0:
            reasons.append(Blocked("speed_cap", "0 %", "raise the speed cap"))
        if self.mode is Mode.DISARMED:
            reasons.append(Blocked("disarmed", "nobody has armed it", "hotlap arm"))
        return reasons

    def state(self, now_s: float) -> dict[str, Any]:
        """Everything for `hotlap status`, as JSON takes it: times in seconds, pulses in microseconds."""
        stream, lease, output = self._stream, self._controls.lease(now_s), self._output
        fault = None if self._fault is None else {"name": self._fault[0], "age_s": finite(now_s - self._fault[1])}
        return {
            "mode": self.mode.value,
            "armed": self.armed,
            "cause": output.cause,
            "blocked": [one.as_dict() for one in self.blocked(now_s)],
            "fault": fault,
            "lease": None if lease is None else {"kind": lease.kind, "holder": lease.holder},
            "cap_percent": 100.0 * self._cap,
            "cap_percent_in_force": 100.0 * self._cap_in_force(),
            "calibrated": self._calibration is not None,
            "model": {"sha256": self._model, "trial": self._trial} if self._model else None,
            "pulses": {"steering_us": output.steering_us, "throttle_us": output.throttle_us},
            "intent_age_s": finite(stream.intent_age_s(now_s)),
            "frame_age_s": finite(stream.frame_age_s(now_s)),
            "inference_ms": None if stream.intent is None else stream.intent.inference_ms,
            "undervoltage": self._facts.undervoltage,
            "battery_fraction": finite(self._facts.battery_fraction),
            "temperature_c": finite(self._facts.temperature_c),
            "disk_free_bytes": self._facts.disk_free_bytes,
            "counters": {
                "ticks": self._ticks,
                "gaps": self._gaps,
                "faults": self._faults,
                "intents": stream.accepted,
                "refused": dict(stream.refused),
            },
        }

    def _readiness(self, now_s: float, lease: bool) -> Readiness:
        return Readiness(
            mode=self.mode,
            calibrated=self._calibration is not None,
            uncalibrated_reason=self._uncalibrated_reason,
            facts=self._facts,
            tick_age_s=None if self._tick_s is None else now_s - self._tick_s,
            neutral_frames=self._neutral_frames,
            needed_frames=self._needed_frames,
            lease=lease,
            model=self._model,
            intent_age_s=self._stream.intent_age_s(now_s),
            frame_age_s=self._stream.frame_age_s(now_s),
            steady_s=self._stream.steady_s(now_s),
            refusal=self._stream.refusal,
        )


def finite(number: float | None) -> float | None:
    """The number where JSON has a form for it."""
    return number if number is not None and math.isfinite(number) else None
