"""The whole car on a real kernel's devices: systemd's units, vivid's pictures, pulses read from the chip's registers.

What only a real kernel shows: the services get to the devices through their closed-in units as the user hotlap, and to
nothing else; and when the gate is dead, the chip, which repeats its last pulse for ever, has been given neutral.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.machine.guest import car, devices
from tests.machine.guest.car import KILL, NEUTRAL_US
from tests.vehicle.gate_process import until

GATE, PILOT = "hotlap-gate.service", "hotlap-pilot.service"


@pytest.fixture(scope="module")
def bus() -> Iterator[int]:
    """All devices; vivid's bars move, so that no picture is like the one before."""
    number = devices.i2c_bus()
    devices.bind_kernel_driver(number)
    devices.set_control(devices.load_camera(), "Horizontal Movement", 0)
    yield number
    car.shell("systemctl", "stop", "hotlap.target", GATE, PILOT)


def throttle_us(bus: int, kind: str) -> float | None:
    return devices.width_us(bus, devices.OURS if kind == "pca9685" else devices.KERNELS, 0)


def neutral(bus: int, kind: str) -> bool:
    found = throttle_us(bus, kind)
    return found is not None and abs(found - NEUTRAL_US) <= devices.STEP_US


def drive(bus: int, kind: str) -> None:
    """Started with this actuator, armed, and the chip's pulses are not neutral."""
    camera = 'kind = "v4l2"\nwidth = 320\nheight = 180\nrate_hz = 15.0\n'
    car.prepare(f'kind = "{kind}"\ni2c_bus = {bus}\n', camera)
    car.install_model()
    car.start()
    assert until(lambda: neutral(bus, kind), car.PATIENCE_S), "the first pulse is neutral"
    arm(bus, kind)


def arm(bus: int, kind: str) -> None:
    def moves() -> bool:
        if not car.armed():
            car.ask("arm", mode="autonomous")
        found = throttle_us(bus, kind)
        return found is not None and abs(found - NEUTRAL_US) > 2 * devices.STEP_US

    assert until(moves, car.PATIENCE_S), (car.ask("status"), car.journal())


def check_pca9685_is_neutral_in_its_registers_after_sigkill(bus: int, facts: dict[str, Any]) -> None:
    kind = "pca9685"
    drive(bus, kind)
    pid = car.main_pid(GATE)
    sent_s = car.send(GATE, KILL)
    took_s = car.neutral_after_s(sent_s)
    assert neutral(bus, kind), "the record says neutral, the chip does not"
    assert took_s <= 0.2, f"{1e3 * took_s:.0f} ms"
    assert until(lambda: car.restarted(GATE, pid), car.PATIENCE_S), car.journal()
    assert not car.armed() and neutral(bus, kind)
    assert all(row.pulse_us == NEUTRAL_US for row in car.throttle(sent_s + took_s))
    facts[f"{kind}: neutral after SIGKILL of the gate"] = f"{1e3 * took_s:.0f} ms"


def check_sysfs_pwm_is_neutral_when_the_gate_and_its_guard_die_at_once(bus: int) -> None:
    kind = "sysfs_pwm"
    drive(bus, kind)
    [guard], gate = car.pids("vehicle.guard"), car.main_pid(GATE)
    os.kill(guard, KILL)
    os.kill(gate, KILL)
    sent_s = time.monotonic()
    # Nobody is left but systemd, whose ExecStopPost writes it.
    assert until(lambda: neutral(bus, kind), car.PATIENCE_S)
    car.neutral_after_s(sent_s)
    assert "neutral:stopped_service" in [row.cause for row in car.throttle(sent_s)]
    assert until(lambda: car.restarted(GATE, gate) and car.answers("pilot.request"), car.PATIENCE_S), car.journal()
    assert not car.armed() and neutral(bus, kind)


def check_a_pwm_chip_that_goes_disarms_and_comes_back_neutral(bus: int) -> None:
    """After the check above, which leaves the car started and disarmed."""
    kind = "sysfs_pwm"
    assert until(car.answers, car.PATIENCE_S), car.journal()
    arm(bus, kind)
    devices.unbind_kernel_driver(bus)
    try:
        assert until(lambda: not car.answers() or not car.armed(), car.PATIENCE_S)
    finally:
        devices.unbind_kernel_driver(bus, again=True)
    devices.bind_kernel_driver(bus)
    assert until(lambda: car.answers() and neutral(bus, kind), car.PATIENCE_S), car.journal()
    assert not car.armed()


def check_the_units_open_their_own_devices_and_no_others(bus: int) -> None:
    for unit, own, others in (
        (GATE, f"/dev/i2c-{bus}", "/dev/video0"),
        (PILOT, "/dev/video0", f"/dev/i2c-{bus}"),
    ):
        policy = [f"--property=DevicePolicy={car.show(unit, 'DevicePolicy')}"]
        policy += [f"--property=DeviceAllow={line}" for line in car.show(unit, "DeviceAllow").splitlines()]
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "--uid=hotlap", *policy]
        car.shell(*run, "python3", "-c", f"open('{own}', 'rb+', buffering=0)")
        car.shell(*run, "python3", "-c", f"open('{others}', 'rb+', buffering=0)", status=1)
