"""The guided steps of the motor. Pure.

A terminal tells when a key is pressed and when it repeats, never when it is let go. So every press asks for the pulse
once, which the gate holds for 0.3 s, and after 0.3 s without one the key counts as let go. Nothing here asks for a
pulse away from neutral but a press of that key.
"""

from __future__ import annotations

from calibration.values import MAX_SPEED_MPS
from vehicle.calibrate_draft import with_pair, with_starts, with_throttle
from vehicle.calibrate_events import Answered, Effect, Pulse, Say, Show
from vehicle.calibrate_steps import Draft, Step, number
from vehicle.controls import THROTTLE_STEP_US
from vehicle.gate_requests import PULSE_RANGE_US

LET_GO_S = 0.3  # as long as the gate holds a pulse
BEAT_S = 0.1  # the pulse changes at most so often, however fast the key repeats
SEARCH_STEP_US = 2.0
END_STEP_US = 3.0
START_REACH_US = 200.0  # nothing turns so far from the middle: then it never will
END_REACH_US = 500.0
_HOLD = "Hold the space bar"


class Ramp:
    """The pulse while the key is held: quickly as far as is known, then slowly, at most so far from neutral."""

    def __init__(self, neutral_us: float) -> None:
        self.neutral_us = neutral_us
        self.holding = False
        self.reached_us: float | None = None  # the last one that the gate took, of this hold
        self._presses = 0
        self._sign = self._known_us = self._farthest_us = self._step_us = 0.0
        self._at_us = neutral_us
        self._pressed_s = self._stepped_s = 0.0

    def start(self, sign: float, known_us: float, farthest_us: float, step_us: float) -> None:
        """Begin at neutral; `sign` 1 for longer pulses, -1 for shorter ones; distances from neutral."""
        self.holding, self.reached_us, self._presses = True, None, 0
        self._sign, self._known_us, self._farthest_us, self._step_us = sign, known_us, farthest_us, step_us
        self.fall_back()

    def fall_back(self) -> None:
        """The gate is back at neutral by itself: the next press begins there."""
        self._at_us, self._stepped_s = self.neutral_us, float("-inf")

    def press(self, now_s: float) -> float:
        """The key is pressed, or repeats: what to ask for."""
        self._pressed_s = now_s
        self._presses += 1
        if now_s - self._stepped_s < BEAT_S:
            return self._at_us
        self._stepped_s = now_s
        done_us = self._sign * (self._at_us - self.neutral_us)
        step_us = self._step_us if done_us >= self._known_us else min(THROTTLE_STEP_US, self._known_us - done_us)
        wanted_us = self.neutral_us + self._sign * min(done_us + step_us, self._farthest_us)
        return min(max(wanted_us, PULSE_RANGE_US[0]), PULSE_RANGE_US[1])

    def confirm(self, us: float) -> None:
        """The gate has taken it."""
        self._at_us = self.reached_us = us

    def let_go(self, now_s: float) -> bool:
        """Whether the key has been let go."""
        return self.holding and now_s - self._pressed_s > LET_GO_S

    def rest(self) -> float | None:
        """The motor rests; the pulse that was reached, if the key was truly held: one tap measures nothing."""
        self.holding = False
        return self.reached_us if self._presses > 1 else None


class Measured:
    """What has been measured of the motor in this round, and the draft brought in line with it."""

    def __init__(self, draft: Draft) -> None:
        throttle = draft.now.throttle
        self.draft = draft
        self.neutral_us = (draft.saved or draft.now).throttle.neutral_us  # where the gate rests
        self.longer_us: float | None = None  # where the wheels begin to turn with longer and with shorter pulses
        self.shorter_us: float | None = None
        self.longer_is_forward: bool | None = None
        self.ends: frozenset[str] = frozenset()
        if throttle.forward_start_us is not None and throttle.reverse_start_us is not None:
            self.shorter_us, self.longer_us = sorted((throttle.forward_start_us, throttle.reverse_start_us))
            self.longer_is_forward = throttle.forward_us > throttle.neutral_us

    def settle(self) -> None:
        """Neutral and the ends follow, once both starts and the direction are known."""
        if self.longer_us is not None and self.shorter_us is not None and self.longer_is_forward is not None:
            self.draft.now = with_starts(
                self.draft.now,
                self.longer_us,
                self.shorter_us,
                longer_is_forward=self.longer_is_forward,
                measured=self.ends,
            )

    def way(self, longer: bool) -> str:
        """Which way the wheels turn with such pulses."""
        if self.longer_is_forward is None:
            return ""
        return "forwards" if self.longer_is_forward == longer else "backwards"


class Raised(Step):
    """Nothing turns before somebody has said that the wheels are off the ground; asked for every time."""

    heading = "Motor: get ready"
    text = (
        "The wheels will spin. Put the car on a box or a thick book, so that all four wheels hang free. Keep hair,\n"
        "cables and fingers away. Type yes and Enter once the wheels are off the ground and turn freely."
    )
    line = True

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self.confirmed = False

    def entered(self, words: str) -> list[Effect]:
        """See `Step`."""
        self.confirmed = words.lower() in ("yes", "y")
        said = "The wheels are off the ground. Enter goes on." if self.confirmed else "Not confirmed."
        return [Say(said)]

    def missing(self) -> str:
        """See `Step`."""
        return "" if self.confirmed else "Type yes once the wheels are off the ground and turn freely."


class Hold(Step):
    """A step in which the motor runs while the space bar is held, and what was reached is kept."""

    live = True
    step_us = SEARCH_STEP_US
    reach_us = START_REACH_US

    def __init__(self, measured: Measured) -> None:
        super().__init__(measured.draft)
        self.measured = measured
        self.ramp = Ramp(measured.neutral_us)

    @property
    def longer(self) -> bool:
        """Whether to longer pulses."""
        raise NotImplementedError

    @property
    def value_us(self) -> float | None:
        """What was measured."""
        raise NotImplementedError

    def keep(self, us: float) -> None:
        """Keep what was measured."""
        raise NotImplementedError

    def known_us(self) -> float:
        """As far from neutral the wheels are known to stand, or to turn slower than is wanted."""
        return 0.0

    def enter(self) -> list[Effect]:
        """See `Step`."""
        return [self._shown("The motor is at rest.")]

    def key(self, name: str, now_s: float) -> list[Effect] | None:
        """See `Step`."""
        if name == "space":
            if not self.ramp.holding:
                self.ramp.start(1.0 if self.longer else -1.0, self.known_us(), self.reach_us, self.step_us)
            return [Pulse(throttle_us=self.ramp.press(now_s))]
        if self.ramp.holding:  # any other key is a hand that has left the space bar
            return self.rest()
        us = self.value_us
        if name in ("+", "-") and us is not None:
            self.keep(us + (1.0 if self.longer == (name == "+") else -1.0))
            return [self._shown("The motor is at rest.")]
        return None

    def tick(self, now_s: float) -> list[Effect]:
        """See `Step`."""
        return self.rest() if self.ramp.let_go(now_s) else []

    def answered(self, answer: Answered) -> list[Effect]:
        """See `Step`."""
        if not self.ramp.holding:
            return []
        if answer.refused:
            self.ramp.fall_back()
            return []
        self.ramp.confirm(answer.throttle_us)
        return [Show(f"The motor runs at {answer.throttle_us:.1f} us.")]

    def rest(self) -> list[Effect]:
        """See `Step`."""
        if not self.ramp.holding:
            return []
        reached_us = self.ramp.rest()
        if reached_us is not None:
            self.keep(reached_us)
        return [Pulse(throttle_us=self.measured.neutral_us), self._shown("The motor is at rest.")]

    def _shown(self, state: str) -> Show:
        value = "not measured" if self.value_us is None else f"{self.value_us:.1f} us"
        return Show(f"{state} {self.heading}: {value}")


class Start(Hold):
    """Where the wheels begin to turn, first with longer and then with shorter pulses."""

    def __init__(self, measured: Measured, longer: bool) -> None:
        super().__init__(measured)
        self._longer = longer
        self.heading = "First start of movement" if longer else "Second start of movement"

    @property
    def text(self) -> str:
        """See `Step`."""
        if self._longer:
            what = f"{_HOLD}: the pulse gets slowly longer. Let go at the moment when the wheels begin to turn."
            keys = "f: they turn forwards, r: backwards. "
        else:
            way = self.measured.way(longer=False)
            what = f"Now the other way. {_HOLD}, and let go when the wheels begin to turn {way}."
            keys = ""
        return (
            f"{what}\n{keys}+ and -: 1 us further from standstill, or closer.\n"
            "Nothing turns? Many motors want backwards twice: hold, let go, hold again."
        )

    @property
    def longer(self) -> bool:
        """See `Hold`."""
        return self._longer

    @property
    def value_us(self) -> float | None:
        """See `Hold`."""
        return self.measured.longer_us if self._longer else self.measured.shorter_us

    def keep(self, us: float) -> None:
        """See `Hold`."""
        if self._longer:
            self.measured.longer_us = us
        else:
            self.measured.shorter_us = us
        self.measured.settle()

    def key(self, name: str, now_s: float) -> list[Effect] | None:
        """See `Step`."""
        if self._longer and name in ("f", "r"):
            resting = self.rest()
            self.measured.longer_is_forward = name == "f"
            self.measured.settle()
            return [*resting, Say(f"Longer pulses drive {self.measured.way(longer=True)}.")]
        return super().key(name, now_s)

    def missing(self) -> str:
        """See `Step`."""
        if self.value_us is None:
            return "Not measured yet: hold the space bar until the wheels begin to turn."
        return "Which way did they turn? f: forwards, r: backwards." if self.measured.longer_is_forward is None else ""


class FullSpeed(Hold):
    """The greatest speed that is wanted, forwards or backwards."""

    step_us = END_STEP_US
    reach_us = END_REACH_US

    def __init__(self, measured: Measured, name: str) -> None:
        super().__init__(measured)
        self._name = name
        self.heading = f"Full speed {'forwards' if name == 'forward' else 'backwards'}"

    @property
    def text(self) -> str:
        """See `Step`."""
        if self._name == "forward":
            return (
                f"{_HOLD}: the wheels get faster and faster. Let go when they are a little faster than you ever want\n"
                "to drive. This is the most that the car will use. + and -: 1 us faster, or slower."
            )
        return (
            f"{_HOLD}: the same backwards. A slow speed is enough: it is used to get out of a corner.\n"
            "+ and -: 1 us faster, or slower. Nothing turns? Hold, let go, hold again."
        )

    @property
    def longer(self) -> bool:
        """See `Hold`."""
        return (self._name == "forward") == bool(self.measured.longer_is_forward)

    @property
    def value_us(self) -> float | None:
        """See `Hold`."""
        return float(getattr(self.draft.now.throttle, f"{self._name}_us"))

    def keep(self, us: float) -> None:
        """See `Hold`."""
        self.measured.ends |= {self._name}
        self.draft.now = with_throttle(self.draft.now, **{f"{self._name}_us": us})

    def known_us(self) -> float:
        """See `Hold`."""
        start_us = self.measured.longer_us if self.longer else self.measured.shorter_us
        us = self.value_us if self._name in self.measured.ends else start_us
        return 0.0 if us is None else abs(us - self.measured.neutral_us)


class Speeds(Step):
    """How fast the car is on the ground at some pulses; measured elsewhere, typed here."""

    heading = "Speeds (optional)"
    text = (
        "How fast is the car on the ground at a pulse? A measured distance, divided by the time for it. Type the\n"
        "speed in m/s (backwards is negative) and the pulse in us, as 0.5 1410, and Enter. With these, 0.8 m/s is\n"
        "0.8 m/s.\n"
        "x and Enter: take them all away. Enter alone: done."
    )
    line = True

    def entered(self, words: str) -> list[Effect]:
        """See `Step`."""
        curve = self.draft.now.throttle.curve
        speed_mps, us = [*(number(word) for word in words.split()), None, None][:2]
        if words == "x":
            self.draft.now = with_throttle(self.draft.now, curve=())
        elif speed_mps is None or us is None or len(words.split()) != 2 or not 0.0 < abs(speed_mps) <= MAX_SPEED_MPS:
            return [Say(f"{words!r} is not a speed in m/s and a pulse in us, as 0.5 1410.")]
        else:
            self.draft.now = with_throttle(self.draft.now, curve=with_pair(curve, speed_mps, us))
        return [Say(f"measured speeds: {len(self.draft.now.throttle.curve)}")]


def throttle_steps(draft: Draft) -> tuple[Step, ...]:
    """In the order in which they are done; what was measured before is kept until it is measured anew."""
    measured = Measured(draft)
    return (
        Raised(draft),
        Start(measured, longer=True),
        Start(measured, longer=False),
        FullSpeed(measured, "forward"),
        FullSpeed(measured, "reverse"),
        Speeds(draft),
    )
