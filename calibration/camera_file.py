"""A measured camera as a ``CarSpec`` in TOML: what a car keeps, and what ``hotlap train --car FILE`` takes."""

from __future__ import annotations

from calibration.camera_pose import CameraMeasurement, CameraPose

_UNITS = {"horizontal_fov_deg": ("deg", 3), "pitch_down_deg": ("deg", 3), "height_m": ("m", 5), "roll_deg": ("deg", 3)}
MEASURED_KEYS = tuple(_UNITS)


def to_car_toml(found: CameraMeasurement | CameraPose, forward_m: float | None = None) -> str:
    """The text of the file: a table ``[camera]`` with the measured keys only.

    Args:
        forward_m: of car.toml, for a file that leaves the car; no picture of the ground tells it.
    """
    measurement = found if isinstance(found, CameraMeasurement) else None
    pose = found.pose if isinstance(found, CameraMeasurement) else found
    lines = ["# This car's camera, for: hotlap train --car FILE"]
    if measurement is not None:
        lines.append(
            f"# measured from {measurement.pictures} picture(s) of {measurement.width} x {measurement.height}, corners "
            f"within {measurement.residual_px:.2f} pixels"
        )
    lines.append("[camera]")
    for key, (unit, digits) in _UNITS.items():
        error = f"  # +- {getattr(measurement.errors, key):.{digits}f} {unit}" if measurement is not None else ""
        lines.append(f"{key} = {round(getattr(pose, key), digits + 1)!r}{error}")
    if forward_m is not None:
        lines.append(f"forward_m = {forward_m!r}  # not measured: as car.toml has it")
    return "\n".join(lines) + "\n"
