"""The errors of the vehicle room. Their base, `HotlapError`, is in ``calibration.errors``, the room below."""

from __future__ import annotations

from calibration.errors import HotlapError

__all__ = [
    "ActionSpaceError", "ActuatorError", "BundleError", "CameraError", "ConfigError", "GateError", "HotlapError",
    "SlotError", "StaleFrame", "StoreError", "VehicleError",
]  # fmt: skip


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


class CameraError(VehicleError, OSError):
    """A camera cannot be opened, has stopped, or gives what is no picture."""


class StaleFrame(CameraError, TimeoutError):
    """No new picture arrived within the age that the reader accepts."""


class ActuatorError(VehicleError, OSError):
    """A pulse could not be written, or was not read back as written."""


class GateError(VehicleError, RuntimeError):
    """The gate cannot be reached, or refused a request.

    Args:
        reason: the short name of the refusal, stable for programs.
    """

    def __init__(self, what: str, *, reason: str = "", cause: str = "", next_step: str = "") -> None:
        self.reason = reason
        super().__init__(what, cause=cause, next_step=next_step)


class SlotError(VehicleError, ValueError):
    """A model cannot be installed, activated, rolled back or removed.

    Args:
        fault: the short name of the fault, stable for programs; a `BundleError`'s own where the bundle is at fault.
    """

    def __init__(self, fault: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault}: {what}", cause=cause, next_step=next_step)


class StoreError(VehicleError, OSError):
    """A model store cannot be reached or used, or what it holds is damaged or another's.

    Args:
        fault: the short name of the fault, stable for programs: ``bad_address``, ``not_installed``, ``unreachable``,
            ``denied``, ``no_bucket``, ``refused``, ``missing``, ``damaged``, ``occupied`` or ``abandoned``.
    """

    def __init__(self, fault: str, what: str, *, cause: str = "", next_step: str = "") -> None:
        self.fault = fault
        super().__init__(what, cause=cause, next_step=next_step)
