"""The measured pose of this car's camera, ``STATE_DIR/camera.toml``, in the place of the nominal one of car.toml.

The file is a ``CarSpec`` for `hotlap train --car` as well (``calibration.camera_file`` writes it).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from calibration.camera_file import MEASURED_KEYS
from calibration.camera_pose import FOV_DEG, HEIGHT_M, PITCH_DEG, ROLL_DEG, CameraPose
from vehicle.car_config import CameraConfig, CarConfig
from vehicle.config import load_toml, ranged


@dataclass(frozen=True)
class _Measured:
    """The limits of what is measured; what is not may stand in the file and is not read."""

    horizontal_fov_deg: float = ranged(64.7, low=FOV_DEG[0], high=FOV_DEG[1])
    pitch_down_deg: float = ranged(15.0, low=PITCH_DEG[0], high=PITCH_DEG[1])
    height_m: float = ranged(0.127, low=HEIGHT_M[0], high=HEIGHT_M[1])
    roll_deg: float = ranged(0.0, low=ROLL_DEG[0], high=ROLL_DEG[1])
    forward_m: float = ranged(0.145, low=-0.5, high=1.0)


@dataclass(frozen=True)
class _File:
    camera: _Measured = field(default_factory=_Measured)


def measured_path(config: CarConfig) -> Path:
    """Where it is kept; it may not exist yet."""
    return config.state_path() / "camera.toml"


def measured_pose(config: CarConfig) -> CameraPose | None:
    """What was measured; None where nothing was.

    Raises:
        ConfigError: the file is damaged.
    """
    path = measured_path(config)
    if not path.exists():
        return None
    found = load_toml(path, _File).camera
    return CameraPose(**{key: getattr(found, key) for key in MEASURED_KEYS})


def with_measured_camera(config: CarConfig) -> CarConfig:
    """The car with its camera as it was measured, where it was; what cannot be measured stays car.toml's.

    A simulated camera is as it is told to be.

    Raises:
        ConfigError: the file is damaged.
    """
    pose = None if config.simulated else measured_pose(config)
    if pose is None:
        return config
    camera: CameraConfig = dataclasses.replace(config.camera, **{key: getattr(pose, key) for key in MEASURED_KEYS})
    return dataclasses.replace(config, camera=camera)
