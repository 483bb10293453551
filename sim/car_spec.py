"""The car as numbers: geometry, camera, steering servo, motor. A TOML file can change any of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vehicle.config import load_toml, ranged


@dataclass(frozen=True)
class BodySpec:
    """Geometry and mass. Defaults: DeepRacer's URDF (spec `deepracer-training.md` §3) unless said otherwise."""

    wheelbase_m: float = ranged(0.164, low=0.05, high=1.0, doc="distance between the axles")
    track_m: float = ranged(0.160, low=0.05, high=1.0, doc="distance between the left and right wheels' centres")
    wheel_radius_m: float = ranged(0.036, low=0.01, high=0.2)
    wheel_width_m: float = ranged(0.030, low=0.005, high=0.2)
    length_m: float = ranged(0.324, low=0.1, high=2.0)
    width_m: float = ranged(0.188, low=0.05, high=1.0)
    # The URDF's 7.5 kg is a Gazebo figure; a 1/18 car with battery and board weighs about this (our estimate).
    mass_kg: float = ranged(1.8, low=0.3, high=20.0)
    center_of_mass_height_m: float = ranged(0.045, low=0.01, high=0.3)
    # DeepRacer measures distances from a point ahead of the model's origin (`RELATIVE_POSITION_OF_FRONT_OF_CAR`).
    front_point_m: float = ranged(0.14, low=0.0, high=1.0, doc="reference point of rewards, ahead of the car's middle")


@dataclass(frozen=True)
class CameraSpec:
    """A pinhole camera fixed to the body. Defaults: DeepRacer's URDF."""

    forward_m: float = ranged(0.145, low=-0.5, high=1.0, doc="ahead of the middle between the axles")
    height_m: float = ranged(0.127, low=0.03, high=1.0, doc="above the ground, car at rest")
    pitch_down_deg: float = ranged(15.0, low=-10.0, high=60.0)
    roll_deg: float = ranged(0.0, low=-20.0, high=20.0, doc="+ is clockwise as seen from behind the car")
    horizontal_fov_deg: float = ranged(64.7, low=20.0, high=150.0)
    frame_rate_hz: float = ranged(15.0, low=1.0, high=240.0)
    # Exposure, transfer and decoding of a USB camera: 20 ms is an assumption, not a measurement.
    latency_s: float = ranged(0.020, low=0.0, high=0.2)


@dataclass(frozen=True)
class SteeringSpec:
    """The steering servo. Positive angles steer left."""

    max_deg: float = ranged(30.0, low=5.0, high=45.0, doc="travel limit of the equivalent middle wheel")
    lag_s: float = ranged(0.05, low=0.0, high=0.5, doc="first-order time constant of the servo")


@dataclass(frozen=True)
class MotorSpec:
    """Motor and speed controller, as a speed loop with a lag and a limit of force."""

    lag_s: float = ranged(0.10, low=0.0, high=1.0, doc="first-order time constant of the speed")
    max_acceleration_mps2: float = ranged(6.0, low=0.5, high=50.0)
    max_speed_mps: float = ranged(4.0, low=0.5, high=10.0)


@dataclass(frozen=True)
class CarSpec:
    """A 1/18-scale car. ``CarSpec()`` is a DeepRacer."""

    body: BodySpec = field(default_factory=BodySpec)
    camera: CameraSpec = field(default_factory=CameraSpec)
    steering: SteeringSpec = field(default_factory=SteeringSpec)
    motor: MotorSpec = field(default_factory=MotorSpec)
    friction: float = ranged(0.8, low=0.05, high=2.0, doc="rubber on the road, sliding coefficient")


def load_car(path: str | Path | None) -> CarSpec:
    """Read a CarSpec from a TOML file with the tables body, camera, steering, motor; None is the default car.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, not TOML.
    """
    return CarSpec() if path is None else load_toml(Path(path), CarSpec)
