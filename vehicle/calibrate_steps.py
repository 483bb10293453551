"""What a step of the guided calibration is, and the calibration that all of them work on. Pure."""

from __future__ import annotations

import math

from calibration.values import Calibration
from vehicle.calibrate_events import Answered, Effect


class Draft:
    """The calibration that is being made, beside the one in force; None: there is none yet."""

    def __init__(self, saved: Calibration | None) -> None:
        self.saved = saved
        self.now = saved or Calibration()

    @property
    def changed(self) -> bool:
        """Whether there is something to save."""
        return self.now != self.saved


class Step:
    """One step: it says what to do, and takes keys or a line. It asks for pulses only while the controls are held."""

    heading = ""
    live = False  # whether it needs the controls
    line = False  # whether it takes lines of text

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @property
    def text(self) -> str:
        """What to do."""
        return ""

    def enter(self) -> list[Effect]:
        """The step begins, or its controls have come back."""
        return []

    def key(self, name: str, now_s: float) -> list[Effect] | None:
        """A key, first of all for the step; None: it is not the step's."""
        return None

    def entered(self, words: str) -> list[Effect]:
        """A line, not an empty one."""
        return []

    def tick(self, now_s: float) -> list[Effect]:
        """Time has passed."""
        return []

    def answered(self, answer: Answered) -> list[Effect]:
        """The gate has answered a pulse of the motor."""
        return []

    def rest(self) -> list[Effect]:
        """Whatever runs, stops: the step is left, or the controls are gone."""
        return []

    def missing(self) -> str:
        """What must be done before the next step; "": nothing."""
        return ""


def number(words: str) -> float | None:
    """A finite number, with a decimal comma too; None for anything else."""
    try:
        found = float(words.replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
