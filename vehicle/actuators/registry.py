"""Finds an actuator by its name: hotlap's own from a table, those of others by the entry-point group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vehicle.actuators.base import Actuator
from vehicle.actuators.record import Recorder
from vehicle.backends import Backends
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

GROUP = "hotlap.actuators"
Factory = Callable[[ActuatorConfig, Path, str], Actuator]

BUILT_IN = {
    "sim": "vehicle.actuators.sim:open_sim",
    "rpi_gpio": "vehicle.actuators.rpi_gpio:open_rpi_gpio",
    "sysfs_pwm": "vehicle.actuators.sysfs_pwm:open_sysfs_pwm",
    "pca9685": "vehicle.actuators.pca9685:open_pca9685",
    "bridge": "vehicle.actuators.bridge:open_bridge",
    "none": "vehicle.actuators.none:open_none",
}
_BACKENDS = Backends("actuator", GROUP, BUILT_IN, ActuatorError)


def known_actuators() -> list[str]:
    """The names that `open_actuator` takes: hotlap's own, then those that other installed packages bring."""
    return _BACKENDS.known()


def open_actuator(config: ActuatorConfig, runtime: Path, role: str = "gate") -> Actuator:
    """Open ``config.kind``; nothing is written to it yet. With ``config.record`` every pulse written is recorded too.

    Args:
        runtime: the folder of the local sockets, for the simulated car.
        role: who opens it, "gate" or "guard". Both have it open at the same time.

    Raises:
        ActuatorError: unknown kind, its library is missing, or the device cannot be opened.
        ConfigError: the file of ``config.record`` cannot be opened.
    """
    factory: Factory = _BACKENDS.find(config.kind)
    actuator = factory(config, runtime, role)
    _BACKENDS.check(actuator, config.kind, Actuator, "write, facts or close")
    if not config.record:
        return actuator
    try:
        return Recorder(actuator, config.record)
    except BaseException:
        actuator.close()
        raise
