"""The guide with a clock that tests move by hand, and a gate that obeys, on paper; not a test itself."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.values import Calibration
from vehicle.calibrate_events import (
    Answered,
    Effect,
    Event,
    Give,
    Key,
    Lost,
    NotSaved,
    Pulse,
    Quit,
    Save,
    Saved,
    Say,
    Show,
    Take,
    Taken,
    Tick,
)
from vehicle.calibrate_guide import Guide

BEAT_S = 2**-4  # sums of it are exact


class Paper:
    """A session on paper.

    Args:
        saved: what the car has.
    """

    def __init__(self, saved: Calibration | None = Calibration(), damage: str = "") -> None:  # noqa: B008 - frozen
        self.guide = Guide(saved, damage)
        self.now_s = 100.0
        self.said: list[str] = []
        self.shown = ""
        self.pulses: list[Pulse] = []
        self.held = self.quit = False
        self.given = 0
        self.saved: list[Calibration] = []
        self.refuse_take = self.refuse_save = self.refuse_pulse = ""
        self._do(self.guide.begin(self.now_s))

    def tell(self, event: Event) -> None:
        """Something happens now."""
        self._do(self.guide.on(event, self.now_s))

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self.said.append(effect.text)
            elif isinstance(effect, Show):
                self.shown = effect.text
            elif isinstance(effect, Take):
                self.held = not self.refuse_take
                self.tell(Taken() if self.held else Lost(self.refuse_take))
            elif isinstance(effect, Give):
                self.held, self.given = False, self.given + 1
            elif isinstance(effect, Pulse):
                assert self.held, "a pulse without the controls"
                self.pulses.append(effect)
                if effect.throttle_us is not None:
                    self.tell(Answered(effect.throttle_us, self.refuse_pulse))
            elif isinstance(effect, Save):
                assert not self.held
                if self.refuse_save:
                    self.tell(NotSaved(self.refuse_save))
                else:
                    self.saved.append(effect.calibration)
                    self.tell(Saved(effect.calibration))
            elif isinstance(effect, Quit):
                self.quit = True

    def keys(self, *names: str) -> Paper:
        """Press keys, one after the other."""
        for name in names:
            self.tell(Key(name))
        return self

    def line(self, words: str) -> Paper:
        """Type a line."""
        return self.keys(*("space" if letter == " " else letter for letter in words), "enter")

    def wait(self, seconds: float) -> Paper:
        """Nothing but time."""
        for _ in range(round(seconds / BEAT_S)):
            self.now_s += BEAT_S
            self.tell(Tick())
        return self

    def hold(self, seconds: float) -> Paper:
        """Hold the space bar for so long, as a keyboard repeats it."""
        for _ in range(round(seconds / BEAT_S)):
            self.keys("space").wait(BEAT_S)
        return self

    @property
    def throttle_us(self) -> list[float]:
        """Every pulse that was asked for of the motor."""
        return [pulse.throttle_us for pulse in self.pulses if pulse.throttle_us is not None]

    @property
    def steering_us(self) -> list[float]:
        """Every pulse that was asked for of the servo."""
        return [pulse.steering_us for pulse in self.pulses if pulse.steering_us is not None]

    @property
    def now(self) -> Calibration:
        """The draft."""
        return self.guide.draft.now

    @property
    def heading(self) -> str:
        """Of the step that is being done; "" in the menu."""
        return "" if self.guide.step is None else self.guide.step.heading
