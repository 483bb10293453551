"""The base of every error hotlap raises on purpose, and the errors of the vehicle room.

An error here teaches: what is wrong with the measured value, the likely cause, and the next command to type.
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


class VehicleError(HotlapError):
    """Base of the vehicle room's errors."""


class ConfigError(VehicleError, ValueError):
    """A TOML or JSON file has an unknown key, a wrong type or a value out of range."""


class ActionSpaceError(VehicleError, ValueError):
    """An action space is empty, out of range or not in DeepRacer's model_metadata.json form."""


class BundleError(VehicleError, ValueError):
    """A bundle is damaged, foreign, or does not match what it says of itself.

    Args:
        fault: the short name of the fault, stable for programs: for instance ``"sha256_mismatch"``.
    """

    def __init__(self, fault: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault}: {what}", cause=cause, next_step=next_step)
