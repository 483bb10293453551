"""The guided steps of the steering: the servo follows the arrow keys, and stays where it is. Pure."""

from __future__ import annotations

from calibration.values import MAX_STEERING_DEG, MIN_STEERING_DEG
from vehicle.calibrate_draft import swap_steering, with_pair, with_steering
from vehicle.calibrate_events import Effect, Pulse, Say, Show
from vehicle.calibrate_steps import Draft, Step, number
from vehicle.gate_requests import PULSE_RANGE_US

BY_US = {"left": -10.0, "right": 10.0, "h": -10.0, "l": 10.0, "[": -2.0, "]": 2.0}  # + is to the right
_KEYS = "Keys: arrows left and right (or h and l) 10 us, [ and ] 2 us."


class _Turning:
    """The pulse of the servo while the arrow keys turn the wheels."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.us = draft.now.steering.center_us

    def key(self, name: str) -> bool:
        """Whether it turned the wheels. A pulse may get longer or shorter on the way to the right."""
        if name not in BY_US:
            return False
        steering = self.draft.now.steering
        sign = -1.0 if steering.left_us > steering.right_us else 1.0
        self.us = min(max(self.us + sign * BY_US[name], PULSE_RANGE_US[0]), PULSE_RANGE_US[1])
        return True


class Ready(Step):
    """Before the wheels turn."""

    heading = "Steering: get ready"
    text = (
        "Put the car on the floor and look at it from behind. The front wheels will turn; keep your fingers away from\n"
        "them. The motor stays still."
    )


class End(Step):
    """Straight ahead, full left or full right: `field` of the calibration follows the keys."""

    live = True

    def __init__(self, draft: Draft, field: str, heading: str, text: str) -> None:
        super().__init__(draft)
        self.field, self.heading, self._text = field, heading, text
        self._turning = _Turning(draft)

    @property
    def text(self) -> str:
        """See `Step`."""
        mirror = " m: the wheels turn the other way than the keys." if self.field == "center_us" else ""
        return f"{self._text}\n{_KEYS}{mirror}"

    def enter(self) -> list[Effect]:
        """See `Step`."""
        self._turning.us = getattr(self.draft.now.steering, self.field)
        return self._moved()

    def key(self, name: str, now_s: float) -> list[Effect] | None:
        """See `Step`."""
        if name == "m" and self.field == "center_us":
            self.draft.now = swap_steering(self.draft.now)
            return [Say("Left and right are swapped.")]
        if not self._turning.key(name):
            return None
        self.draft.now = with_steering(self.draft.now, **{self.field: self._turning.us})
        return self._moved()

    def _moved(self) -> list[Effect]:
        us = self._turning.us
        return [Pulse(steering_us=us), Show(f"{self.heading.lower()}: {us:.1f} us")]


class Angle(Step):
    """How far the wheels turn at the ends."""

    heading = "How far do they turn?"
    line = True

    @property
    def text(self) -> str:
        """See `Step`."""
        return (
            "Measure the angle of a front wheel at full left or full right, for instance with a protractor on paper.\n"
            f"Type it in degrees; Enter alone leaves {self.draft.now.steering.max_deg:g}."
        )

    def entered(self, words: str) -> list[Effect]:
        """See `Step`."""
        deg = number(words)
        if deg is None or not MIN_STEERING_DEG <= deg <= MAX_STEERING_DEG:
            return [Say(f"{words!r} is no angle of {MIN_STEERING_DEG:g} to {MAX_STEERING_DEG:g} degrees.")]
        self.draft.now = with_steering(self.draft.now, max_deg=deg)
        return [Say(f"angle at full left and right: {deg:g} degrees")]


class Points(Step):
    """More points between the ends, as many as wanted."""

    heading = "More angles (optional)"
    text = (
        "Turn the wheels to where you can measure their angle, type it in degrees (left is positive), and Enter.\n"
        f"{_KEYS}\nx and Enter: take them all away. Enter alone: done."
    )
    live = line = True

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._turning = _Turning(draft)

    def enter(self) -> list[Effect]:
        """See `Step`."""
        self._turning.us = self.draft.now.steering.center_us
        return self._moved()

    def key(self, name: str, now_s: float) -> list[Effect] | None:
        """See `Step`."""
        return self._moved() if self._turning.key(name) else None

    def entered(self, words: str) -> list[Effect]:
        """See `Step`."""
        steering = self.draft.now.steering
        deg = number(words)
        if words == "x":
            self.draft.now = with_steering(self.draft.now, points=())
        elif deg is None or not 0.0 < abs(deg) < steering.max_deg:
            limit = f"between the ends, {-steering.max_deg:g} to {steering.max_deg:g} degrees, and not 0"
            return [Say(f"{words!r} is no angle {limit}.")]
        else:
            points = with_pair(steering.points, deg, self._turning.us)
            self.draft.now = with_steering(self.draft.now, points=points)
        count = len(self.draft.now.steering.points)
        return [Say(f"measured angles: {count}")]

    def _moved(self) -> list[Effect]:
        return [Pulse(steering_us=self._turning.us), Show(f"steering: {self._turning.us:.1f} us")]


def steering_steps(draft: Draft) -> tuple[Step, ...]:
    """In the order in which they are done."""
    further = "until the wheels go no further or the servo hums. Then go back a little."
    return (
        Ready(draft),
        End(draft, "center_us", "Straight ahead", "Turn the wheels until both point straight ahead."),
        End(draft, "left_us", "Full left", f"Turn the wheels to the left {further}"),
        End(draft, "right_us", "Full right", f"Turn the wheels to the right {further}"),
        Angle(draft),
        Points(draft),
    )
