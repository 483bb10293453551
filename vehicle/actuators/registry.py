"""Finds an actuator by its name: hotlap's own from a table, those of others by the entry-point group."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from vehicle.actuators.base import Actuator
from vehicle.actuators.record import Recorder
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError

GROUP = "hotlap.actuators"
Factory = Callable[[ActuatorConfig, Path, str], Actuator]

# setup.cfg lists the same as entry points. This table comes first, so that a plain checkout, whose installed metadata
# may be older than its code, finds them too, and so that no other package can take the place of one of them.
BUILT_IN = {
    "sim": "vehicle.actuators.sim:open_sim",
    "rpi_gpio": "vehicle.actuators.rpi_gpio:open_rpi_gpio",
    "sysfs_pwm": "vehicle.actuators.sysfs_pwm:open_sysfs_pwm",
    "pca9685": "vehicle.actuators.pca9685:open_pca9685",
    "bridge": "vehicle.actuators.bridge:open_bridge",
    "none": "vehicle.actuators.none:open_none",
}


def known_actuators() -> list[str]:
    """The names that `open_actuator` takes: hotlap's own, then those that other installed packages bring."""
    others = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
    return [*BUILT_IN, *sorted(others - BUILT_IN.keys())]


def open_actuator(config: ActuatorConfig, runtime: Path, role: str = "gate") -> Actuator:
    """Open ``config.kind``; nothing is written to it yet. With ``config.record`` every pulse written is recorded too.

    Args:
        runtime: the folder of the local sockets, for the simulated car.
        role: who opens it, "gate" or "guard". Both have it open at the same time.

    Raises:
        ActuatorError: unknown kind, its library is missing, or the device cannot be opened.
        ConfigError: the file of ``config.record`` cannot be opened.
    """
    actuator = _factory(config.kind)(config, runtime, role)
    if not isinstance(actuator, Actuator):
        raise ActuatorError(
            f"actuator {config.kind!r} gave a {type(actuator).__name__}, which lacks write, facts or close",
            cause="a package that was made for another version of hotlap",
            next_step=f"pip list, and look for who brings the entry point {GROUP}: {config.kind}",
        )
    if not config.record:
        return actuator
    try:
        return Recorder(actuator, config.record)
    except BaseException:
        actuator.close()
        raise


def _factory(kind: str) -> Factory:
    target = BUILT_IN.get(kind)
    if target is not None:
        module, _, function = target.partition(":")
        return cast(Factory, getattr(importlib.import_module(module), function))
    for entry in importlib.metadata.entry_points(group=GROUP, name=kind):
        try:
            loaded: Any = entry.load()
        except (ImportError, AttributeError) as error:
            raise ActuatorError(
                f"actuator {kind!r} ({entry.value}) cannot be loaded: {error}",
                cause="its package is installed in part, or needs another one",
                next_step="pip check",
            ) from error
        return cast(Factory, loaded)
    known = known_actuators()
    near = difflib.get_close_matches(kind, known, n=1, cutoff=0.0)
    raise ActuatorError(
        f"unknown actuator.kind {kind!r}; known: {', '.join(known)}",
        cause="a misspelled name, or a package of actuators that is not installed",
        next_step=f"the nearest known one is {near[0]!r}" if near else "",
    )
