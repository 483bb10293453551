"""A model's contract against a car: every misfit by name, at once, with both values and a cure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from calibration.mapping import Calibration, Steering, default_sim_calibration
from vehicle.action_space import default_action_space
from vehicle.car_config import CameraConfig, CarConfig, DriveConfig
from vehicle.contract import STEERING_AND_SPEED, ActionLimits, CameraContract, Contract, contract_for
from vehicle.fit import control_period_s, misfits

CAR = CarConfig()
CALIBRATION = default_sim_calibration()


def contract(**camera: float) -> Contract:
    return contract_for(default_action_space(), control_period_s=0.1, camera=CameraContract(**camera))


def fast(steering_deg: float = 30.0, speed_mps: float = 0.8) -> Contract:
    limits = ActionLimits("continuous", 2, -steering_deg, steering_deg, 0.1, speed_mps)
    return Contract(action=limits, output=STEERING_AND_SPEED)


def names(model: Contract, car: CarConfig = CAR, calibration: Calibration | None = CALIBRATION) -> list[str]:
    found = misfits(model, car, calibration)
    assert all(misfit.value and misfit.cure for misfit in found)
    return [misfit.name for misfit in found]


def camera(**changes: Any) -> CarConfig:
    return replace(CAR, camera=replace(CameraConfig(), **changes))


def test_the_default_model_fits_the_default_car() -> None:
    assert names(contract()) == [] and names(contract(), calibration=None) == [] and names(fast()) == []


@pytest.mark.parametrize(
    ("key", "trained", "inside", "outside", "name"),
    [
        ("pitch_down_deg", 15.0, 20.0, 20.1, "camera_pitch"),
        ("pitch_down_deg", 15.0, 10.0, 9.9, "camera_pitch"),
        ("roll_deg", 0.0, 3.0, 3.1, "camera_roll"),
        ("roll_deg", 2.0, -1.0, -1.1, "camera_roll"),
        ("height_m", 0.127, 0.142, 0.1425, "camera_height"),
        ("height_m", 0.127, 0.112, 0.1115, "camera_height"),
        ("horizontal_fov_deg", 100.0, 108.0, 108.1, "camera_fov"),
        ("horizontal_fov_deg", 100.0, 92.0, 91.9, "camera_fov"),
    ],
)
def test_the_camera_may_be_a_little_off(key: str, trained: float, inside: float, outside: float, name: str) -> None:
    base = replace(CAR, camera=replace(CameraConfig(), horizontal_fov_deg=100.0 if "fov" in key else 64.7))
    model = contract(**{"horizontal_fov_deg": base.camera.horizontal_fov_deg, key: trained})
    assert names(model, replace(base, camera=replace(base.camera, **{key: inside}))) == []  # type: ignore[arg-type]
    found = misfits(model, replace(base, camera=replace(base.camera, **{key: outside})), CALIBRATION)  # type: ignore[arg-type]
    assert [misfit.name for misfit in found] == [name]
    assert f"{outside:g}" in found[0].value and f"{trained:g}" in found[0].value and key in found[0].cure


def test_a_slower_camera_does_not_fit_a_faster_one_does() -> None:
    assert names(contract(frame_rate_hz=30.0), camera(rate_hz=23.9)) == ["camera_rate"]
    assert names(contract(frame_rate_hz=30.0), camera(rate_hz=24.0)) == []
    assert names(contract(frame_rate_hz=15.0), camera(rate_hz=60.0)) == []


def test_the_control_period() -> None:
    def at(rate_hz: float) -> CarConfig:
        return replace(CAR, drive=replace(DriveConfig(), control_hz=rate_hz))

    assert names(contract(), at(11.0)) == [] and names(contract(), at(9.1)) == []
    assert names(contract(), at(11.2)) == ["control_period"] and names(contract(), at(9.0)) == ["control_period"]
    every = replace(camera(rate_hz=30.0), drive=DriveConfig(every_frame=True))
    assert control_period_s(every) == pytest.approx(1 / 30) and control_period_s(CAR) == pytest.approx(0.1)
    (misfit,) = misfits(contract(), every, CALIBRATION)
    assert misfit.name == "control_period" and "camera.rate_hz to 10" in misfit.cure


def test_action_limits() -> None:
    narrow = replace(CALIBRATION, steering=replace(Steering(), max_deg=25.0))
    assert names(fast(25.0), calibration=narrow) == []
    assert names(fast(26.0), calibration=narrow) == ["steering_range"]
    assert names(fast(26.0), calibration=None) == []
    top_mps = CALIBRATION.throttle.curve[-1][0]
    quick = replace(CAR, drive=replace(DriveConfig(), max_speed_mps=10.0))
    assert names(fast(speed_mps=top_mps), quick) == []
    assert names(fast(speed_mps=top_mps + 0.1), quick) == ["speed_range"]
    # DeepRacer's own calibration has no measured curve: its formula scales any speed.
    assert names(fast(speed_mps=top_mps + 0.1), quick, Calibration()) == []
    slow = replace(CAR, drive=replace(DriveConfig(), max_speed_mps=0.7))
    assert names(fast(speed_mps=0.7), slow) == [] and names(fast(speed_mps=0.8), slow) == ["speed_limit"]


def test_every_misfit_at_once() -> None:
    car = replace(
        camera(pitch_down_deg=40.0, height_m=0.3, horizontal_fov_deg=120.0, rate_hz=5.0),
        drive=replace(DriveConfig(), control_hz=30.0, max_speed_mps=0.5),
    )
    narrow = replace(CALIBRATION, steering=replace(Steering(), max_deg=10.0))
    assert names(fast(speed_mps=9.0), car, narrow) == [
        "camera_fov", "camera_pitch", "camera_height", "camera_rate", "control_period", "steering_range", "speed_range",
        "speed_limit",
    ]  # fmt: skip
