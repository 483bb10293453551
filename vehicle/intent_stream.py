"""The stream of the pilot's messages, as the gate core sees it: what is refused and why, and how fresh the rest is.

Pure: time is an argument. A refused message also takes back the intent before it: what the pilot says is trusted as a
whole or not at all.
"""

from __future__ import annotations

import math
from collections import Counter

from calibration.mapping import Calibration
from vehicle.arming import Limits, fresh
from vehicle.messages import PILOT, Alive, Intent

STEERING_TOLERANCE_DEG = 1e-3  # of float32 on the way; what is beyond max_deg by less is held at max_deg
SPEED_TOLERANCE = 1e-6
MODEL_MAX_MPS = (0.01, 100.0)  # beyond these the formula of the throttle loses its meaning

# What delay explains: neutral until the next good message. Any other refusal is an error of the pilot, and disarms.
RECOVERABLE = ("stale", "stale_frame")


def content_fault(intent: Intent, limits: Limits, calibration: Calibration | None, model: str) -> str | None:
    """What is wrong with the numbers of an intent whatever the time: the name of the fault, or None."""
    numbers = (
        intent.stamp_s,
        intent.frame_stamp_s,
        intent.steering_deg,
        intent.speed_mps,
        intent.model_max_mps,
        intent.inference_ms,
    )
    fault = _not_finite(numbers)
    if fault is not None:
        return fault
    if intent.source != PILOT:
        return "wrong_source"
    if intent.speed_mps < 0.0:
        return "speed_negative"
    if not MODEL_MAX_MPS[0] <= intent.model_max_mps <= MODEL_MAX_MPS[1] or intent.inference_ms < 0.0:
        return "out_of_range"
    if intent.speed_mps > min(limits.max_speed_mps, intent.model_max_mps * (1.0 + SPEED_TOLERANCE)):
        return "out_of_range"
    # Without calibration nothing is ever armed; the intent is still of use to say whether the pilot lives.
    if calibration is not None and abs(intent.steering_deg) > calibration.steering.max_deg + STEERING_TOLERANCE_DEG:
        return "out_of_range"
    return "wrong_model" if intent.model != model else None


def _not_finite(numbers: tuple[float, ...]) -> str | None:
    if any(math.isnan(number) for number in numbers):
        return "nan"
    return "infinite" if any(math.isinf(number) for number in numbers) else None


class IntentStream:
    """The newest good intent of the pilot and the newest frame that it knows of.

    Attributes:
        intent: the intent that counts now, or None after a refusal or a loss.
        refused: how many messages were refused for which fault.
        refusal: the fault of the last message, "" once a good intent came after it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.intent: Intent | None = None
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.refusal = ""
        self._last: Intent | None = None  # for sequence and stamp, kept when the intent itself is dropped
        self._frame_stamp_s: float | None = None
        self._since_s: float | None = None

    def offer(
        self, intent: Intent, now_s: float, calibration: Calibration | None, model: str, autonomous: bool
    ) -> str | None:
        """Accept an intent (None) or refuse it (the name of the fault); `autonomous`: it would move the car."""
        fault = content_fault(intent, self._limits, calibration, model)
        fault = fault or self._order_fault(intent, autonomous) or self._time_fault(intent, now_s)
        if fault is not None:
            return self.refuse(fault)
        last = self._last
        if last is not None:
            if intent.seq <= last.seq:  # a pilot that was started again: what the old one saw is void
                self._frame_stamp_s = self._since_s = None
            elif intent.stamp_s - last.stamp_s > self._limits.intent_age_s:
                self._since_s = None
        if self._since_s is None:
            self._since_s = intent.stamp_s
        self._newest_frame(intent)
        self.intent = self._last = intent
        self.accepted += 1
        self.refusal = ""
        return None

    def alive(self, alive: Alive, now_s: float) -> str | None:
        """Accept a sign of life (None) or refuse it (the name of the fault)."""
        fault = _not_finite((alive.stamp_s, alive.frame_stamp_s))
        if fault is None and alive.source != PILOT:
            fault = "wrong_source"
        if fault is None:
            fault = self._future_or_stale(alive, now_s)
        if fault is not None:
            return self.refuse(fault)
        self._newest_frame(alive)
        return None

    def refuse(self, fault: str) -> str:
        """Count a refused message and take back the intent; gives the fault."""
        self.refused[fault] += 1
        self.refusal = fault
        self.drop()
        return fault

    def drop(self) -> None:
        """Take back the intent: the next one begins the steady time anew."""
        self.intent = None
        self._since_s = None

    def restart(self) -> None:
        """Forget all but the counts: the clock went backwards, so no stamp means anything."""
        self.drop()
        self._last = self._frame_stamp_s = None

    def intent_age_s(self, now_s: float) -> float | None:
        """Age of the intent that counts."""
        return None if self.intent is None else now_s - self.intent.stamp_s

    def frame_age_s(self, now_s: float) -> float | None:
        """Age of the newest frame that the pilot knows of."""
        return None if self._frame_stamp_s is None else now_s - self._frame_stamp_s

    def steady_s(self, now_s: float) -> float:
        """For how long intents have come without a gap or a refusal."""
        return 0.0 if self._since_s is None else now_s - self._since_s

    def _order_fault(self, intent: Intent, autonomous: bool) -> str | None:
        last = self._last
        if last is None or (intent.seq > last.seq and intent.stamp_s >= last.stamp_s):
            return None
        # Later, but counted from the start: a pilot that was started again. Welcome only while it moves nothing.
        return None if intent.stamp_s > last.stamp_s and not autonomous else "sequence"

    def _time_fault(self, intent: Intent, now_s: float) -> str | None:
        fault = self._future_or_stale(intent, now_s)
        if fault is None and not fresh(now_s - intent.frame_stamp_s, self._limits.frame_age_s, self._limits):
            fault = "stale_frame"
        return fault

    def _future_or_stale(self, message: Intent | Alive, now_s: float) -> str | None:
        if message.frame_stamp_s > message.stamp_s or message.stamp_s - now_s > self._limits.future_s:
            return "from_future"
        return None if fresh(now_s - message.stamp_s, self._limits.intent_age_s, self._limits) else "stale"

    def _newest_frame(self, message: Intent | Alive) -> None:
        known = self._frame_stamp_s
        self._frame_stamp_s = message.frame_stamp_s if known is None else max(known, message.frame_stamp_s)
