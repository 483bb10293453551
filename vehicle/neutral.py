"""Neutral, once more: ``python -m vehicle.neutral --runtime DIR [--config car.toml]``.

systemd runs it after the gate has ended, in whatever way (``ExecStopPost=`` of hotlap-gate.service): the last pulse
that a PWM chip was given, it repeats for ever, and this makes sure that it is neutral. It decides nothing, and needs
neither gate nor guard.

Exit status: 0 neutral is written, or there is no calibration, so that nobody can have written anything else; 1 it could
not be written; 2 a bad configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from calibration.store import load_calibration
from vehicle.actuators.base import PERIOD_S
from vehicle.actuators.registry import open_actuator
from vehicle.car_config import CarConfig, load_car_config
from vehicle.errors import ActuatorError, ConfigError, HotlapError
from vehicle.guard import say

FRAMES = 10  # of the servo, as many as the gate promises
GIVE_UP_S = 2.0  # a guard that is just ending (it does within a second) may still hold the pins
CAUSE = "neutral:stopped_service"


def write_neutral(config: CarConfig, runtime: Path, give_up_s: float = GIVE_UP_S) -> bool:
    """Write neutral for ten servo frames; what fails is tried again every 20 ms.

    Args:
        runtime: the folder of the sockets, for the simulated car.
        give_up_s: for how long it is tried.

    Returns:
        False where there is no calibration file: nothing was written.

    Raises:
        CalibrationError: the file is there and cannot be used: where neutral is, nobody knows.
        ActuatorError: it could not be written ten times; the last error.
        ConfigError: the file of ``actuator.record`` cannot be opened.
    """
    if not config.calibration_path().exists():
        return False
    calibration = load_calibration(config.calibration_path())
    steering_us, throttle_us = calibration.steering.center_us, calibration.throttle.neutral_us
    end_s = time.monotonic() + give_up_s
    written = 0
    actuator = None
    try:
        while True:
            try:
                if actuator is None:
                    actuator = open_actuator(config.actuator, runtime, role="guard")
                actuator.write(steering_us, throttle_us, CAUSE)
                written += 1
            except ActuatorError:
                if time.monotonic() >= end_s:
                    raise
            time.sleep(PERIOD_S)  # the tenth, too, lasts for a whole frame
            if written >= FRAMES:
                return True
    finally:
        if actuator is not None:
            with contextlib.suppress(OSError):
                actuator.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Write neutral; the exit status is at the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m vehicle.neutral", description="Write neutral for ten frames.")
    parser.add_argument("--runtime", type=Path, required=True, help="folder of the sockets")
    parser.add_argument("--config", type=Path, help="car.toml (default: the simulated car)")
    args = parser.parse_args(argv)
    try:
        if not write_neutral(load_car_config(args.config), args.runtime):
            say("hotlap neutral: the car is not calibrated, so nothing was ever written")
    except HotlapError as error:
        say(f"hotlap neutral: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
