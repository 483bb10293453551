"""The base of every error hotlap raises on purpose, and the errors of the calibration room.

The base lives here because calibration is the lowest room: every other one imports it from above, most of them through
``vehicle.errors``. An error teaches: what is wrong with the measured value, the likely cause, and the next command.
"""

from __future__ import annotations


class HotlapError(Exception):
    """Something hotlap refuses to do.

    Args:
        what: what is wrong, with the value that was met.
        cause: the likely cause, one sentence.
        next_step: the next command or edit that would help.
    """

    def __init__(self, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.what = what
        self.cause = cause
        self.next_step = next_step
        lines = [what]
        if cause:
            lines.append(f"  likely cause: {cause}")
        if next_step:
            lines.append(f"  next: {next_step}")
        super().__init__("\n".join(lines))


class CalibrationError(HotlapError, ValueError):
    """A calibration is missing, damaged, out of order or out of range, or a command does not fit it."""
