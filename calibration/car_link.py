"""What the console needs of a car. ``vehicle.console_link`` implements it; tests have another one.

The console decides nothing about motion: it passes requests on to the gate and tells what the gate answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calibration.camera_pose import CameraMeasurement, CameraPose
from calibration.errors import HotlapError
from calibration.store import SavedCalibration
from calibration.values import Calibration


class CarRefused(HotlapError, RuntimeError):
    """The car refused a request, or does not answer (reason "no_answer").

    Args:
        reason: its short name, stable for programs: the gate's, a model slot's or a bundle's own.
        blocked: every arming check that failed, as {"reason", "value", "cure"}, where they were the cause.
    """

    def __init__(
        self,
        reason: str,
        what: str,
        *,
        cause: str = "",
        next_step: str = "",
        blocked: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.reason = reason
        self.blocked = [dict(one) for one in blocked]
        super().__init__(what, cause=cause, next_step=next_step)


@dataclass(frozen=True)
class Picture:
    """What the network saw, and what it made of it.

    Args:
        gray: ``height * width`` bytes, row by row.
        steering_deg, speed_mps: the action taken on it; + is left.
    """

    seq: int
    stamp_s: float
    height: int
    width: int
    gray: bytes
    steering_deg: float | None = None
    speed_mps: float | None = None


@dataclass(frozen=True)
class Saliency:
    """What in one picture the network's action hangs on, and which actions it weighed.

    Args:
        change: rows * columns figures of 0..1, row by row: how far the action moves without that place.
        steering_deg, speed_mps: the action taken on this picture.
        chosen: its place in `actions`; None where the network gives steering and speed themselves.
        actions: (steering_deg, speed_mps, probability) of each action that there is.
    """

    picture: Picture
    rows: int
    columns: int
    change: tuple[float, ...]
    steering_deg: float
    speed_mps: float
    chosen: int | None
    actions: tuple[tuple[float, float, float], ...]
    took_s: float


class CarLink(Protocol):
    """One car. Every method may be called by several threads at once, and raises CarRefused where the car says no."""

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """One request to the gate ("op": arm, disarm, stop, reset, lease, renew, release, manual, pulse, cap, status).

        Returns:
            the gate's answer, "ok" is true in it.

        Raises:
            CarRefused: the gate's refusal, by its reason, or "no_answer".
        """
        ...

    def state(self) -> dict[str, Any]:
        """Mode, blocked reasons and figures of gate and pilot, at most 0.3 s old. Never waits long, never raises."""
        ...

    def picture(self, after_seq: int, timeout_s: float) -> Picture | None:
        """The newest picture, once there is another one than `after_seq`; None after `timeout_s` without."""
        ...

    def saliency(self) -> Saliency | None:
        """The newest map, or None while the first one is being made; asking has the next one made. Never waits.

        At most one a second is made, however many ask, and none when nobody does.

        Raises:
            CarRefused: no model, no picture, or this computer is too slow for it.
        """
        ...

    def models(self) -> dict[str, Any]:
        """{"models": [{"sha256", "name", "role", "size_bytes", "barred", "report"}], "current", "trial", ...}."""
        ...

    def install(self, bundle: Path, name: str) -> dict[str, Any]:
        """Verify a bundle on this car and take it in; it does not drive before `activate`.

        Returns:
            {"sha256", "new", "name", "report"}.
        """
        ...

    def activate(self, sha256: str) -> dict[str, Any]:
        """Choose a model, and have the pilot load it: {"loaded": bool, "pilot": TEXT, ...}."""
        ...

    def rollback(self) -> dict[str, Any]:
        """Back to the model before; as `activate`."""
        ...

    def remove(self, sha256: str) -> dict[str, Any]:
        """Delete a model."""
        ...

    def allow(self, sha256: str) -> dict[str, Any]:
        """Let a model in again that failed its trial."""
        ...

    def calibration(self) -> Calibration | None:
        """The calibration in force; None where there is none, or it is damaged."""
        ...

    def calibration_history(self) -> tuple[SavedCalibration, ...]:
        """The saved ones, the newest first."""
        ...

    def save_calibration(self, calibration: Calibration) -> None:
        """Check, save, and have the gate take it. Only while disarmed.

        Raises:
            CarRefused: not disarmed, or the gate did not take it (then the one before stays in force).
            CalibrationError: it does not hold together, or cannot be saved.
        """
        ...

    def undo_calibration(self) -> Calibration:
        """The one before the one in force is in force again; raises as `save_calibration`."""
        ...

    def restore_calibration(self, revision: int) -> Calibration:
        """One of the history is in force again; raises as `save_calibration`."""
        ...

    def whole_picture(self) -> Picture:
        """The camera's newest picture in its own size. Only while disarmed.

        Raises:
            CarRefused: armed, no picture, or the pilot does not answer.
        """
        ...

    def measured_camera(self) -> CameraPose | None:
        """The camera's pose as it was measured and saved; None where it was not."""
        ...

    def save_camera(self, measurement: CameraMeasurement) -> None:
        """Keep it; models are held against it from now on. Only while disarmed.

        Raises:
            CarRefused: not disarmed, or the disk does not take it.
        """
        ...

    def logs(self, lines: int) -> list[str]:
        """The last lines of what happened, the newest last."""
        ...

    def health(self) -> dict[str, Any]:
        """Temperature, load, disk, versions, and every figure of the loops."""
        ...

    def facts(self) -> dict[str, Any]:
        """{"name", "version", "addresses", "ssid", "signal_dbm", "camera", "car_toml", ...}, for the settings page."""
        ...

    def change_car_file(self, text: str, sha256: str) -> None:
        """Put a changed text in the place of car.toml; in force after a restart. Only while disarmed.

        Args:
            sha256: of the text that it was made from.

        Raises:
            CarRefused: it is not a good one, or changes what is not changed from a page.
        """
        ...

    def undo_car_file(self) -> None:
        """The car.toml before the last change; raises as `change_car_file`."""
        ...

    def rename(self, name: str) -> None:
        """Give the car a name, 1 to 32 letters, digits, blanks, hyphens and dots."""
        ...
