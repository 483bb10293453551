"""The guided calibration: menu, steps, saving. Pure: an event and the time in, what to do out.

The controls are asked for when a step begins that needs them, and given back when it ends, when they are lost, or when
nobody has pressed a key for a while. They never come back by themselves: somebody at the keyboard asks for them.
"""

from __future__ import annotations

from collections.abc import Callable

from calibration.values import Calibration, calibration_faults
from vehicle.calibrate_draft import checks_text, difference_text, swap_steering, swap_throttle, values_text
from vehicle.calibrate_events import (
    Answered,
    Effect,
    Event,
    Give,
    Key,
    Lost,
    NotSaved,
    Quit,
    Save,
    Saved,
    Say,
    Show,
    Take,
    Taken,
    Tick,
)
from vehicle.calibrate_steering import steering_steps
from vehicle.calibrate_steps import Draft, Step
from vehicle.calibrate_throttle import throttle_steps

UNATTENDED_S = 120.0  # without a key, while the controls are held
MAX_LINE = 60
MENU = (
    "1 steering   2 motor   3 swap left and right   4 swap forwards and backwards\n"
    "v values and checks   w save   d throw the new values away   q quit"
)
FIRST_MENU = (
    "This car has no calibration yet. Start with the values of a typical car, then measure your own.\n"
    "s save typical values   q quit"
)
_STEP_KEYS = "Enter: next. b: back. q: leave without these values."
_LINE_KEYS = "b and Enter: back. q and Enter: leave without these values."


class Guide:
    """One session. `begin`, then `on` for everything that happens; what comes back is to be done in order.

    Args:
        saved: the calibration in force; None: the car has none.
        damage: why it cannot be read, where there is a file.
    """

    def __init__(self, saved: Calibration | None, damage: str = "") -> None:
        self.draft = Draft(saved)
        self._damage = damage
        self.held = False  # whether the controls are
        self._steps: tuple[Step, ...] = ()
        self._at = 0
        self._before = self.draft.now
        self._line = ""
        self._question: Callable[[str], list[Effect]] | None = None
        self._key_s = 0.0

    @property
    def step(self) -> Step | None:
        """The step that is being done; None in the menu."""
        return self._steps[self._at] if self._steps else None

    def begin(self, now_s: float) -> list[Effect]:
        """The first words."""
        self._key_s = now_s
        said = Say("Calibration of steering and motor. Nothing changes on the car before you save.")
        return [said, *([Say(self._damage)] if self._damage else []), *self._menu()]

    def on(self, event: Event, now_s: float) -> list[Effect]:
        """What to do about an event."""
        step = self.step
        if isinstance(event, Key):
            self._key_s = now_s
            return self._on_key(event.name, now_s)
        if isinstance(event, Tick):
            if self.held and now_s - self._key_s > UNATTENDED_S:
                return self._give_up(f"Nobody has pressed a key for {UNATTENDED_S:g} s.")
            return step.tick(now_s) if step is not None and self.held else []
        if isinstance(event, Taken):
            self.held = True
            return step.enter() if step is not None and step.live else self._give()
        if isinstance(event, Lost):
            self.held = False
            resting = [] if step is None else [one for one in step.rest() if isinstance(one, Show)]
            return [*resting, Say(f"{event.why}\nc: take the controls again.")]
        if isinstance(event, Answered):
            return [] if step is None else step.answered(event)
        if isinstance(event, Saved):
            self.draft.saved = self.draft.now = event.calibration
            return [Say("Saved. The car uses these values from now on."), *self._menu()]
        return self._on_not_saved(event)

    def _on_not_saved(self, event: NotSaved) -> list[Effect]:
        return [Say(f"Not saved: {event.why}"), *self._menu()]

    # --- keys

    def _on_key(self, name: str, now_s: float) -> list[Effect]:
        if self._question is not None:
            question, self._question = self._question, None
            return question(name)
        step = self.step
        if step is None:
            return self._in_menu(name)
        if step.live and not self.held:
            if name == "c":
                return [Take()]
        else:
            taken = step.key(name, now_s)
            if taken is not None:
                return taken
        return self._typed(step, name) if step.line else self._go(step, name)

    def _typed(self, step: Step, name: str) -> list[Effect]:
        """A key of a step that takes lines."""
        if name == "enter":
            words, self._line = self._line.strip(), ""
            return self._go(step, words or "enter") if words in ("", "b", "q") else step.entered(words)
        if name == "backspace":
            self._line = self._line[:-1]
        else:
            self._line = (self._line + (" " if name == "space" else name if len(name) == 1 else ""))[:MAX_LINE]
        return [Show(f"> {self._line}")]

    def _go(self, step: Step, name: str) -> list[Effect]:
        """Next, back or out; every other key does nothing."""
        if name == "q" or (name == "b" and self._at == 0):
            self.draft.now = self._before
            return self._leave(step, "These values are thrown away.")
        if name == "b":
            return self._move(step, -1)
        if name != "enter":
            return []
        missing = step.missing()
        if missing:
            return [Say(missing)]
        if self._at < len(self._steps) - 1:
            return self._move(step, 1)
        return self._leave(step, difference_text(self.draft.saved, self.draft.now))

    def _move(self, step: Step, by: int) -> list[Effect]:
        resting = step.rest()
        self._at += by
        return [*resting, *self._begin_step()]

    def _begin_step(self) -> list[Effect]:
        step, self._line = self._steps[self._at], ""
        keys = _LINE_KEYS if step.line else _STEP_KEYS
        said = Say(f"\nStep {self._at + 1} of {len(self._steps)}: {step.heading}\n{step.text}\n{keys}")
        if not step.live:
            return [*self._give(), said]
        return [said, *(step.enter() if self.held else [Take()])]

    def _leave(self, step: Step, words: str) -> list[Effect]:
        resting = step.rest()
        self._steps = ()
        return [*resting, *self._give(), Say(f"\n{words}"), *self._menu()]

    def _give(self) -> list[Effect]:
        held, self.held = self.held, False
        return [Give()] if held else []

    def _give_up(self, why: str) -> list[Effect]:
        return [*self._give(), *self.on(Lost(f"{why} The controls were given back."), self._key_s)]

    # --- the menu

    def _menu(self) -> list[Effect]:
        if self.draft.saved is None:
            return [Say(f"\n{FIRST_MENU}")]
        state = "There are new values that are not saved." if self.draft.changed else "The values in force are saved."
        return [Say(f"\n{state}\n{MENU}")]

    def _in_menu(self, name: str) -> list[Effect]:
        if name == "q":
            return self._quit()
        if self.draft.saved is None:
            return [Save(Calibration())] if name == "s" else []
        if name in ("1", "2"):
            self._before = self.draft.now
            self._steps, self._at = (steering_steps if name == "1" else throttle_steps)(self.draft), 0
            return self._begin_step()
        if name in ("3", "4"):
            self.draft.now = (swap_steering if name == "3" else swap_throttle)(self.draft.now)
            return [Say(difference_text(self.draft.saved, self.draft.now)), *self._menu()]
        if name == "v":
            return [Say(f"\n{values_text(self.draft.now)}\n{checks_text(self.draft.now)}"), *self._menu()]
        if name == "d":
            self.draft.now = self.draft.saved
            return self._menu()
        return self._ask_to_save() if name == "w" else []

    def _ask_to_save(self) -> list[Effect]:
        said = Say(f"\n{difference_text(self.draft.saved, self.draft.now)}\n{checks_text(self.draft.now)}")
        if not self.draft.changed:
            return [said, *self._menu()]
        if calibration_faults(self.draft.now):
            return [said, Say("These values do not hold together, so they cannot be saved."), *self._menu()]
        self._question = self._answer_to_save
        return [said, Say("Save these values? y: yes. Any other key: no.")]

    def _answer_to_save(self, name: str) -> list[Effect]:
        return [Save(self.draft.now)] if name == "y" else self._menu()

    def _quit(self) -> list[Effect]:
        if self.draft.saved is None or not self.draft.changed:
            return [Quit()]
        self._question = self._answer_to_quit
        return [Say("There are new values that are not saved. y: quit without them. Any other key: stay.")]

    def _answer_to_quit(self, name: str) -> list[Effect]:
        return [Quit()] if name == "y" else self._menu()
