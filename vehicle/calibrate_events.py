"""What the guided calibration is told, and what it wants done: the words between its steps and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.values import Calibration

# --- what happened


@dataclass(frozen=True)
class Key:
    """A key: one printable character, or "enter", "space", "backspace", "left", "right", "up", "down", "end"."""

    name: str


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


@dataclass(frozen=True)
class Taken:
    """The controls are held, and the car is armed for calibration."""


@dataclass(frozen=True)
class Lost:
    """The controls are gone, or were refused; the motor is at rest."""

    why: str


@dataclass(frozen=True)
class Answered:
    """The gate has taken this pulse of the motor; or not, for this reason."""

    throttle_us: float
    refused: str = ""


@dataclass(frozen=True)
class Saved:
    """These values are in force."""

    calibration: Calibration


@dataclass(frozen=True)
class NotSaved:
    """They are not; why."""

    why: str


Event = Key | Tick | Taken | Lost | Answered | Saved | NotSaved

# --- what to do, in this order


@dataclass(frozen=True)
class Say:
    """Lines of text."""

    text: str


@dataclass(frozen=True)
class Show:
    """One line that replaces the last one of its kind."""

    text: str


@dataclass(frozen=True)
class Take:
    """Get the controls: answered by `Taken` or `Lost`."""


@dataclass(frozen=True)
class Give:
    """Give the controls back: the motor rests at once."""


@dataclass(frozen=True)
class Pulse:
    """Ask the gate for pulses, while the controls are held. `Answered` says what became of the motor's."""

    steering_us: float | None = None
    throttle_us: float | None = None


@dataclass(frozen=True)
class Save:
    """Put these values in force: answered by `Saved` or `NotSaved`."""

    calibration: Calibration


@dataclass(frozen=True)
class Quit:
    """The end."""


Effect = Say | Show | Take | Give | Pulse | Save | Quit
