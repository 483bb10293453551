"""The entry point of the microcontroller bridge. Its serial protocol and firmware are not built yet."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError


def open_bridge(config: ActuatorConfig, runtime: Path, role: str) -> NoReturn:
    """Refuse: there is no link to the microcontroller yet.

    Raises:
        ActuatorError: always.
    """
    raise ActuatorError(
        'actuator.kind = "bridge" cannot be opened: the bridge is not built yet',
        cause="the microcontroller's firmware and its serial protocol come with issue 5 (firmware_bridge)",
        next_step='until then set actuator.kind to "sysfs_pwm", "pca9685" or "rpi_gpio" in car.toml',
    )
