"""Does a model fit this car? What its contract says, against the car's configuration and calibration."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.mapping import Calibration
from vehicle.car_config import CarConfig
from vehicle.contract import Contract

# How far this car's camera may be from the one that the policy was trained with. Training draws the camera's pose
# around the nominal one (sim/world.py, Randomisation: pitch +-3.5 deg, roll +-1.5 deg, height +-10 mm, field of view
# +-6 %); a little more than that is allowed, since a mounting is measured with a ruler.
PITCH_TOLERANCE_DEG = 5.0
ROLL_TOLERANCE_DEG = 3.0
HEIGHT_TOLERANCE_M = 0.015
FORWARD_TOLERANCE_M = 0.03
FOV_TOLERANCE = 0.08  # of the trained field of view
# A faster camera only gives fresher pictures; a slower one adds delay that the policy has not met.
LEAST_FRAME_RATE = 0.8  # of the trained rate
PERIOD_TOLERANCE = 0.1  # of the trained control period
ROUNDING = 1e-6  # of a value written in TOML or JSON


@dataclass(frozen=True)
class Misfit:
    """One thing that does not fit: a short stable name, the two values in words, and what to do about it."""

    name: str
    value: str
    cure: str


def misfits(contract: Contract, car: CarConfig, calibration: Calibration | None) -> list[Misfit]:
    """Everything about a model that does not fit this car, all at once; an empty list where it fits.

    Args:
        contract: of the bundle.
        car: how the camera is mounted, the control rate and the limits.
        calibration: None for a car without one: what depends on it is left out, and the gate will not arm anyway.

    The names: ``camera_fov``, ``camera_pitch``, ``camera_roll``, ``camera_height``, ``camera_forward``,
    ``camera_rate``, ``control_period``, ``steering_range``, ``speed_range``, ``speed_limit``.
    """
    return [*_camera(contract, car), *_period(contract, car), *_actions(contract, car, calibration)]


def control_period_s(car: CarConfig) -> float:
    """How often this car decides: at its fixed rate, or once a camera frame."""
    return 1.0 / (car.camera.rate_hz if car.drive.every_frame else car.drive.control_hz)


def _camera(contract: Contract, car: CarConfig) -> list[Misfit]:
    trained, here = contract.camera, car.camera
    compared = (
        ("fov", "horizontal_fov_deg", " deg", FOV_TOLERANCE * trained.horizontal_fov_deg),
        ("pitch", "pitch_down_deg", " deg", PITCH_TOLERANCE_DEG),
        ("roll", "roll_deg", " deg", ROLL_TOLERANCE_DEG),
        ("height", "height_m", " m", HEIGHT_TOLERANCE_M),
        ("forward", "forward_m", " m", FORWARD_TOLERANCE_M),
    )
    found = []
    for name, key, unit, tolerance in compared:
        wanted, have = getattr(trained, key), getattr(here, key)
        if abs(have - wanted) > tolerance + ROUNDING:
            found.append(
                Misfit(
                    f"camera_{name}",
                    f"{key} is {have:g}{unit} here, the model was trained with {wanted:g}{unit} "
                    f"(tolerance {tolerance:.3g}{unit})",
                    f"mount the camera as the model expects it and set camera.{key} in car.toml, or train with this "
                    "camera (hotlap train --car FILE)",
                )
            )
    if here.rate_hz < LEAST_FRAME_RATE * trained.frame_rate_hz - ROUNDING:
        found.append(
            Misfit(
                "camera_rate",
                f"the camera gives {here.rate_hz:g} frames/s, the model was trained with {trained.frame_rate_hz:g} "
                f"(at least {LEAST_FRAME_RATE * trained.frame_rate_hz:g} are needed)",
                "set camera.rate_hz in car.toml to what the camera can give, or train with this camera",
            )
        )
    return found


def _period(contract: Contract, car: CarConfig) -> list[Misfit]:
    source = "camera.rate_hz" if car.drive.every_frame else "drive.control_hz"
    here_s, trained_s = control_period_s(car), contract.control_period_s
    if abs(here_s - trained_s) <= PERIOD_TOLERANCE * trained_s + ROUNDING:
        return []
    return [
        Misfit(
            "control_period",
            f"this car decides every {here_s * 1e3:.0f} ms ({source} = {1.0 / here_s:g}), the model was trained for "
            f"{trained_s * 1e3:.0f} ms",
            f"set {source} to {1.0 / trained_s:g} in car.toml, or train with this car's period",
        )
    ]


def _actions(contract: Contract, car: CarConfig, calibration: Calibration | None) -> list[Misfit]:
    action, found = contract.action, []
    steering_deg = max(abs(action.steering_min_deg), abs(action.steering_max_deg))
    if calibration is not None and steering_deg > calibration.steering.max_deg + ROUNDING:
        found.append(
            Misfit(
                "steering_range",
                f"the model steers to {steering_deg:g} deg, this car is calibrated to "
                f"{calibration.steering.max_deg:g} deg",
                "calibrate the steering further out, if the wheels go that far, or train with a narrower action space",
            )
        )
    curve = calibration.throttle.curve if calibration is not None else ()
    if curve and action.speed_max_mps > curve[-1][0] + ROUNDING:
        found.append(
            Misfit(
                "speed_range",
                f"the model drives up to {action.speed_max_mps:g} m/s, this car's speed is measured up to "
                f"{curve[-1][0]:g} m/s",
                "measure the speed curve further up (hotlap console), or train with a slower action space",
            )
        )
    if action.speed_max_mps > car.drive.max_speed_mps + ROUNDING:
        found.append(
            Misfit(
                "speed_limit",
                f"the model drives up to {action.speed_max_mps:g} m/s, drive.max_speed_mps is "
                f"{car.drive.max_speed_mps:g}",
                "raise drive.max_speed_mps in car.toml, or train with a slower action space",
            )
        )
    return found
