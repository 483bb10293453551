"""The car as one TOML file (``car.toml``): which camera, which actuator, which limits, where things are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vehicle.config import load_toml, ranged

CAMERAS = ("sim", "v4l2", "picamera2", "csi", "http", "video", "folder")
ACTUATORS = ("sim", "rpi_gpio", "sysfs_pwm", "pca9685", "bridge", "none")


@dataclass(frozen=True)
class CameraConfig:
    """The camera and how it is mounted; the mounting is compared with what a model was trained for."""

    kind: str = ranged("sim", doc="a camera of the entry-point group hotlap.cameras: " + ", ".join(CAMERAS))
    source: str = ranged("", doc="device, URL, file or folder; for csi a whole GStreamer pipeline, or empty")
    width: int = ranged(640, low=16, high=8192, doc="asked of the device")
    height: int = ranged(480, low=16, high=8192)
    rate_hz: float = ranged(15.0, low=1.0, high=240.0)
    rotate_180: bool = False
    loop: bool = ranged(True, doc="video and folder: begin again at the end")
    horizontal_fov_deg: float = ranged(64.7, low=20.0, high=175.0)
    pitch_down_deg: float = ranged(15.0, low=-45.0, high=90.0)
    roll_deg: float = ranged(0.0, low=-45.0, high=45.0, doc="+ is clockwise as seen from behind the car")
    height_m: float = ranged(0.127, low=0.01, high=1.0)
    forward_m: float = ranged(0.145, low=-0.5, high=1.0, doc="ahead of the middle between the axles")


@dataclass(frozen=True)
class ActuatorConfig:
    """What turns pulses into motion. Keys that a back-end does not use are ignored by it."""

    kind: str = ranged("sim", doc="an actuator of the entry-point group hotlap.actuators: " + ", ".join(ACTUATORS))
    steering_channel: int = ranged(1, low=0, high=15, doc="of the PWM chip; DeepRacer: 1")
    throttle_channel: int = ranged(0, low=0, high=15, doc="of the PWM chip; DeepRacer: 0")
    steering_pin: int = ranged(18, low=0, high=27, doc="rpi_gpio: BCM number")
    throttle_pin: int = ranged(19, low=0, high=27, doc="rpi_gpio: BCM number")
    i2c_bus: int = ranged(1, low=0, high=64)
    i2c_address: int = ranged(0x40, low=0x03, high=0x77)
    oscillator_hz: float = ranged(25e6, low=20e6, high=30e6, doc="pca9685: measured, where pulses are off")
    pwm_root: str = ranged("/sys/class/pwm", doc="sysfs_pwm: the folder of the chips")
    pwm_chip: str = ranged("auto", doc="sysfs_pwm: pwmchipN, or auto: the only one, or the one on the I2C bus")
    enable_gpio: str = ranged("", doc="sysfs_pwm: a GPIO value file; 0 is written to enable the servo rail")
    port: str = ranged("auto", doc="bridge: serial port, or auto: found by its HELLO")
    radio: bool = ranged(False, doc="bridge: an RC receiver is connected; without its signal nothing drives")
    record: str = ranged("", doc="a CSV file that every written pulse is recorded to")


@dataclass(frozen=True)
class DriveConfig:
    """Rates and limits. The ages are chosen for DESIGN.md's table; docs/driving.md has the sums."""

    control_hz: float = ranged(10.0, low=1.0, high=60.0, doc="of the pilot")
    every_frame: bool = ranged(False, doc="infer on every camera frame instead of the fixed rate")
    log_frames: bool = ranged(False, doc="keep what the policy saw, 11 MB a minute, for hotlap drive --replay")
    speed_cap_percent: float = ranged(100.0, low=0.0, high=100.0, doc="as DeepRacer's maximum throttle")
    trial_cap_percent: float = ranged(60.0, low=0.0, high=100.0, doc="while a model is on trial")
    steering_slew_deg_per_s: float = ranged(600.0, low=10.0, high=1e5)
    acceleration_mps2: float = ranged(6.0, low=0.1, high=1e3, doc="slew of the commanded speed upwards; down is free")
    max_speed_mps: float = ranged(4.0, low=0.1, high=20.0, doc="an intent beyond it is refused")
    without_console: str = ranged(
        "go_on", choices=("go_on", "stop"), doc="an autonomous car whose console is gone drives on, or is disarmed"
    )


@dataclass(frozen=True)
class CarConfig:
    """Everything that `hotlap drive --config FILE` may set. ``CarConfig()`` is the simulated car."""

    name: str = "hotlap"
    state_dir: str = ranged(
        "", doc="models, calibration, logs; empty: /var/lib/hotlap if writable, else ~/.hotlap (simulated: its sim)"
    )
    calibration: str = ranged("", doc="empty: STATE_DIR/calibration.json")
    camera: CameraConfig = field(default_factory=CameraConfig)
    actuator: ActuatorConfig = field(default_factory=ActuatorConfig)
    drive: DriveConfig = field(default_factory=DriveConfig)

    @property
    def simulated(self) -> bool:
        """Whether the MuJoCo car is driven: there is a world process then."""
        return self.actuator.kind == "sim" or self.camera.kind == "sim"

    def state_path(self) -> Path:
        """The folder that survives a reboot; it may not exist yet."""
        if self.state_dir:
            return Path(self.state_dir).expanduser()
        if self.simulated:  # its calibration is no real car's
            return Path("~/.hotlap/sim").expanduser()
        system = Path("/var/lib/hotlap")
        return system if os.access(system, os.W_OK) else Path("~/.hotlap").expanduser()

    def calibration_path(self) -> Path:
        """The calibration file; it may not exist yet."""
        return Path(self.calibration).expanduser() if self.calibration else self.state_path() / "calibration.json"


INSTALLED = Path("/etc/hotlap/car.toml")  # where tools/install-car.sh puts it, and what the services read


def this_car(named: Path | None) -> Path | None:
    """The ``car.toml`` that was named, else the installed one; None where there is none: the simulated car."""
    return named if named is not None or not INSTALLED.exists() else INSTALLED


def load_car_config(path: str | os.PathLike[str] | None) -> CarConfig:
    """Read ``car.toml``; None is the simulated car.

    Raises:
        ConfigError: no such file, unknown key, wrong type, out of range, not TOML.
    """
    return CarConfig() if path is None else load_toml(path, CarConfig)
