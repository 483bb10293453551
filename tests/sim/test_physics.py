"""The car's physics: turning radius, speed, slides, lags, a world for every car, and a million random steps."""

from __future__ import annotations

from dataclasses import fields, replace

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from sim.car_spec import BodySpec, CarSpec, MotorSpec, SteeringSpec
from sim.errors import PhysicsError
from sim.mjcf import DRIVE, STEER_LEFT, STEER_RIGHT, WHEELS
from sim.physics import CarPhysics, Dynamics, ackermann_deg
from sim.world import DRAWS, Randomisation, draw_world

Floats = NDArray[np.float64]
SPEC = CarSpec()
G = 9.81
# A car that is thrown about at 4 m/s lifts wheels for a moment: 13 states of a million were higher than 2 cm, none
# beyond 5 cm or 20 degrees, and all of them came down on their wheels again.
UPRIGHT = np.cos(np.radians(30.0))
FLOOR_M, HIGHEST_M = 0.02, 0.08


def cars(n: int, *, spec: CarSpec = SPEC, control_period_s: float = 0.1, **worlds: object) -> CarPhysics:
    """n cars at rest at the origin, heading along x; ``worlds`` are fields of Dynamics, one value for each car."""
    physics = CarPhysics(spec, n, control_period_s)
    dynamics = Dynamics.nominal(spec, n)
    everyone = np.arange(n)
    physics.set_dynamics(everyone, replace(dynamics, **{k: np.asarray(v, float) for k, v in worlds.items()}))
    physics.place(everyone, np.zeros((n, 2)), np.zeros(n))
    return physics


def drive(physics: CarPhysics, steering_deg: object, speed_mps: object, steps: int) -> dict[str, Floats]:
    """Constant commands for some steps; what was measured after each of them, arrays (steps, n) or (steps, n, 2)."""
    steering = np.broadcast_to(np.asarray(steering_deg, float), physics.n)
    speed = np.broadcast_to(np.asarray(speed_mps, float), physics.n)
    seen: dict[str, list[Floats]] = {"speed": [], "steering_deg": [], "yaw_rate": [], "middle": [], "rear": []}
    for _ in range(steps):
        physics.step(steering, speed)
        seen["speed"].append(physics.forward_speed())
        seen["steering_deg"].append(np.degrees(physics.steering_rad))
        seen["yaw_rate"].append(physics.yaw_rate.copy())
        seen["middle"].append(physics.position[:, :2].copy())
        seen["rear"].append(physics.wheel_points()[:, 2:].mean(axis=1))
    return {name: np.array(rows) for name, rows in seen.items()}


def circle_radius_m(path: Floats) -> float:
    """Radius of the least-squares circle through points (k, 2)."""
    table = np.column_stack((2 * path, np.ones(len(path))))
    x, y, c = np.linalg.lstsq(table, np.sum(path**2, axis=1), rcond=None)[0]
    return float(np.sqrt(c + x * x + y * y))


# --- what the issue asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control_hz", [10.0, 15.0])
def test_turning_radius_is_that_of_ackermann(control_hz: float) -> None:
    """The rear axle's middle goes round on wheelbase / tan(angle), to the left where the angle is positive."""
    angles = np.array([-30.0, -25.0, -20.0, -15.0, -10.0, -5.0, -2.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0])
    physics = cars(len(angles), control_period_s=1 / control_hz)
    drive(physics, angles, 0.5, 30)
    rear = drive(physics, angles, 0.5, 60)
    wanted = SPEC.body.wheelbase_m / np.tan(np.radians(np.abs(angles)))
    radius = [circle_radius_m(rear["rear"][:, i]) for i in range(len(angles))]
    assert radius == pytest.approx(wanted, rel=0.03)
    assert np.array_equal(np.sign(rear["yaw_rate"][-1]), np.sign(angles))


def test_straight_ahead_is_straight() -> None:
    seen = drive(cars(3), 0.0, [0.5, 1.5, 3.0], 50)
    assert np.abs(seen["middle"][:, :, 1]).max() < 0.005
    assert seen["middle"][-1, 2, 0] > 10.0


def test_steady_speed_is_the_command() -> None:
    wanted = np.array([0.2, 0.4, 0.8, 1.2, 2.0, 3.0, -0.5])
    seen = drive(cars(len(wanted)), 0.0, wanted, 60)
    assert seen["speed"][-10:] == pytest.approx(np.broadcast_to(wanted, (10, len(wanted))), rel=0.03)


def test_no_command_no_motion() -> None:
    seen = drive(cars(1), 0.0, 0.0, 50)
    assert np.abs(seen["middle"]).max() < 1e-3


def test_beyond_the_friction_limit_the_car_slides_wide() -> None:
    """20 degrees at 2.5 m/s would need 1.4 g across; within the limit (0.6 m/s, 0.08 g) friction does not matter."""
    # Between 1.2 and 0.8 the sliding front wheels take the car's speed before they take its line.
    friction = np.array([1.2, 0.5, 0.3])
    asked_m = SPEC.body.wheelbase_m / np.tan(np.radians(20.0))

    def radii(speed_mps: float) -> Floats:
        physics = cars(3, friction=friction)
        drive(physics, 20.0, speed_mps, 60)
        path = drive(physics, 20.0, speed_mps, 40)["rear"]
        return np.array([circle_radius_m(path[:, i]) for i in range(3)])

    fast, slow = radii(2.5), radii(0.6)
    assert slow == pytest.approx(np.full(3, asked_m), rel=0.03)
    assert np.all(np.diff(fast) > 0.1), "less friction, wider"
    assert fast[1] > 1.3 * asked_m
    assert fast[2] > 3.0 * asked_m


def test_cornering_never_exceeds_what_friction_can_hold() -> None:
    friction = np.array([1.0, 0.6, 0.3])
    physics = cars(3, friction=friction)
    drive(physics, 25.0, 2.0, 60)
    velocity = []
    for _ in range(50):
        physics.step(np.full(3, 25.0), np.full(3, 2.0))
        velocity.append(physics.velocity[:, :2].copy())
    across = np.linalg.norm(np.diff(np.array(velocity), axis=0), axis=2).mean(axis=0) / 0.1
    # A mean over 0.1 s, of the whole force: drive and corner together stay within the circle (the pyramid's 5 % more).
    assert np.all(across < 1.08 * friction * G)
    assert np.all(across > 0.6 * friction * G), "the tyres are at their limit here"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_random_steps() -> None:
    """256 cars with randomised worlds that change now and then: finite, above the floor, on their wheels."""
    n, steps = 256, 3907
    assert n * steps >= 1_000_000
    rng = np.random.default_rng(1)
    physics = CarPhysics(SPEC, n, threads=2)

    def renew(ids: NDArray[np.int64]) -> None:
        xy = rng.uniform(-5, 5, (len(ids), 2))
        physics.set_dynamics(ids, draw_world(Randomisation(), SPEC, rng.random((len(ids), DRAWS)), xy).dynamics)
        physics.place(ids, xy, rng.uniform(-np.pi, np.pi, len(ids)))

    renew(np.arange(n))
    lowest, highest, tilt, farthest, lifted = 0.0, 0.0, 1.0, 0.0, 0
    for step in range(steps):
        if step % 25 == 24:
            renew(np.flatnonzero(rng.random(n) < 0.06))
        before = physics.position.copy()
        physics.step(rng.uniform(-30, 30, n), rng.uniform(-1, 4, n))
        position, (_, x, y, _) = physics.position, physics.quaternion.T
        assert np.isfinite(position).all() and np.isfinite(physics.quaternion).all()
        lowest, highest = min(lowest, float(position[:, 2].min())), max(highest, float(position[:, 2].max()))
        lifted += int(np.count_nonzero(position[:, 2] > FLOOR_M))
        tilt = min(tilt, float((1 - 2 * (x * x + y * y)).min()))
        farthest = max(farthest, float(np.linalg.norm(position - before, axis=1).max()))
    assert lowest > -FLOOR_M, "through the floor"
    assert highest < HIGHEST_M and lifted < 1e-4 * n * steps, "in the air"
    assert tilt > UPRIGHT, "not on its wheels"
    assert 0.2 < farthest < 0.45, "no car jumps: 4 m/s are 0.4 m in a step"


# --- lags and limits --------------------------------------------------------------------------------------------------


def test_the_servo_lags_and_stops_at_its_travel() -> None:
    lags = np.array([0.0, 0.05, 0.1, 0.3])
    seen = drive(cars(4, steering_lag_s=lags), 30.0, 0.3, 20)["steering_deg"]
    settled = seen[-1]
    # The mean of both wheels' Ackermann angles is above the middle wheel's.
    left, right = ackermann_deg(np.array([30.0]), SPEC)
    assert settled == pytest.approx(np.full(4, (left[0] + right[0]) / 2), rel=0.02)
    assert np.all(np.diff(seen[0]) < -1.0), "after one step the slower servo has turned less"
    # A first-order lag: after 0.3 s, three time constants of the third servo and one of the last.
    assert seen[2, 3] / settled[3] == pytest.approx(1 - np.exp(-1), abs=0.08)
    beyond = drive(cars(2), [45.0, 90.0], 0.3, 20)["steering_deg"][-1]
    assert beyond == pytest.approx(np.full(2, settled[1]), abs=0.01)
    narrow = replace(SPEC, steering=SteeringSpec(max_deg=12.0))
    assert drive(cars(1, spec=narrow), 30.0, 0.3, 20)["steering_deg"][-1, 0] == pytest.approx(12.0, rel=0.05)


def test_the_motor_lags_and_is_limited() -> None:
    # Grippy tyres: on the usual ones a motor without a lag spins its wheels and gets away later.
    lags = np.array([0.02, 0.1, 0.25])
    seen = drive(cars(3, motor_lag_s=lags, friction=[1.8] * 3), 0.0, 0.3, 30)["speed"]
    assert np.all(np.diff(seen[0]) < -0.02), "after 0.1 s the slower motor is slower"
    assert seen[2, 2] / 0.3 == pytest.approx(1 - np.exp(-0.3 / 0.25), abs=0.12)
    assert seen[-1] == pytest.approx(np.full(3, 0.3), rel=0.03)
    # Acceleration: what the motor's force allows, less the share that goes into turning the wheels.
    weak = replace(SPEC, motor=MotorSpec(max_acceleration_mps2=2.0))
    hard = drive(cars(1, spec=weak, motor_lag_s=[0.0]), 0.0, 3.0, 8)["speed"][:, 0]
    assert np.all((np.diff(hard) > 0.17) & (np.diff(hard) < 0.201))
    slow = replace(SPEC, motor=MotorSpec(max_speed_mps=1.0))
    assert drive(cars(1, spec=slow), 0.0, 4.0, 40)["speed"][-1, 0] == pytest.approx(1.0, rel=0.03)


def test_braking_is_limited_by_the_rear_tyres() -> None:
    physics = cars(2, friction=[0.8, 0.4])
    drive(physics, 0.0, 1.5, 30)
    speed = drive(physics, 0.0, 0.0, 20)["speed"]
    assert speed[4, 0] > 0.1, "half a second is not enough: only the rear wheels brake, and braking unloads them"
    assert np.all(speed[4, 1] > speed[4, 0] + 0.2), "less grip, a longer way"
    assert np.abs(speed[-1]).max() < 0.02


# --- every car its own world ------------------------------------------------------------------------------------------


def test_gains_and_offset_take_effect_on_their_own_car() -> None:
    physics = cars(4, steering_gain=[1.0, 0.85, 1.0, 1.0], steering_offset_deg=[0, 0, 3, 0], motor_gain=[1, 1, 1, 1.15])
    drive(physics, 15.0, 0.5, 30)
    seen = drive(physics, 15.0, 0.5, 60)
    radius = [circle_radius_m(seen["rear"][:, i]) for i in range(4)]
    wheel = np.radians([15.0, 0.85 * 15.0, 18.0, 15.0])
    assert radius == pytest.approx(SPEC.body.wheelbase_m / np.tan(wheel), rel=0.03)
    # The middle of the car goes round on a slightly larger circle than the rear axle, at which the wheels turn.
    ahead = drive(cars(4, motor_gain=[1, 1, 1, 1.15]), 0.0, 0.5, 40)["speed"][-1]
    assert ahead == pytest.approx([0.5, 0.5, 0.5, 0.575], rel=0.03)


def test_friction_of_one_car_is_its_own() -> None:
    mixed, alone = cars(2, friction=[0.8, 0.25]), cars(1)
    path = drive(mixed, 25.0, 2.0, 40)["middle"]
    assert np.array_equal(path[:, 0], drive(alone, 25.0, 2.0, 40)["middle"][:, 0])
    assert np.linalg.norm(path[-1, 1] - path[-1, 0]) > 0.1


def test_mass_takes_effect_on_its_own_car() -> None:
    """The motor's force is limited, so twice the chassis accelerates half as fast."""
    scale = np.array([1.0, 2.0])
    weak = replace(SPEC, motor=MotorSpec(max_acceleration_mps2=2.0))
    speed = drive(cars(2, spec=weak, mass_scale=scale, motor_lag_s=[0.0, 0.0]), 0.0, 4.0, 6)["speed"]
    gained = speed[5] - speed[1]
    total = 0.16 + 0.84 * scale  # four wheels of 4 % each stay as they are
    assert gained[1] / gained[0] == pytest.approx(total[0] / total[1], rel=0.06)


def test_setting_one_world_leaves_the_others() -> None:
    physics = cars(3, friction=[0.5, 0.6, 0.7])
    one = Dynamics.nominal(SPEC, 1)
    physics.set_dynamics(np.array([1]), one)
    assert physics.dynamics.friction.tolist() == [0.5, SPEC.friction, 0.7]
    for field in fields(Dynamics):
        assert getattr(physics.dynamics, field.name)[1] == getattr(one, field.name)[0]


def test_placing_begins_at_rest() -> None:
    physics = cars(2)
    drive(physics, 20.0, 1.0, 20)
    physics.place(np.array([1]), np.array([[3.0, -2.0]]), np.array([2.5]))
    assert physics.position[1].tolist() == [3.0, -2.0, 0.0]
    assert physics.heading()[1] == pytest.approx(2.5)
    assert physics.forward_speed()[1] == 0.0 and physics.steering_rad[1] == 0.0 and physics.yaw_rate[1] == 0.0
    assert physics.forward_speed()[0] > 0.5, "the other car drives on"
    fresh = cars(1)
    fresh.place(np.array([0]), np.array([[3.0, -2.0]]), np.array([2.5]))
    again, first = drive(physics, 10.0, 0.5, 10), drive(fresh, 10.0, 0.5, 10)
    assert np.array_equal(again["middle"][:, 1], first["middle"][:, 0]), "nothing of the old motion is left"


def test_threads_do_not_matter() -> None:
    paths = []
    for threads in (1, 2, 3):
        physics = CarPhysics(SPEC, 7, threads=threads)
        physics.place(np.arange(7), np.zeros((7, 2)), np.linspace(-2, 2, 7))
        paths.append(drive(physics, np.linspace(-30, 30, 7), np.linspace(0.3, 3, 7), 20)["middle"])
    assert np.array_equal(paths[0], paths[1]) and np.array_equal(paths[0], paths[2])


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_ackermann_axes_meet_on_the_rear_axle() -> None:
    body = SPEC.body
    left, right = ackermann_deg(np.array([20.0, -20.0, 0.0]), SPEC)
    # Seen from the turning centre on the rear axle's line, both front wheels are at right angles to their radius.
    center_m = body.wheelbase_m / np.tan(np.radians(20.0))
    assert np.tan(np.radians(left[0])) == pytest.approx(body.wheelbase_m / (center_m - body.track_m / 2))
    assert np.tan(np.radians(right[0])) == pytest.approx(body.wheelbase_m / (center_m + body.track_m / 2))
    assert (left[1], right[1]) == pytest.approx((-right[0], -left[0]))
    assert (left[2], right[2]) == (0.0, 0.0)


def test_wheel_points_and_model_agree() -> None:
    body = BodySpec(wheelbase_m=0.2, track_m=0.14, mass_kg=2.5, center_of_mass_height_m=0.05)
    physics = cars(1, spec=replace(SPEC, body=body))
    physics.place(np.array([0]), np.array([[1.0, 2.0]]), np.array([np.pi / 2]))
    # front left, front right, rear left, rear right of a car that looks along y
    wanted = [[0.93, 2.1], [1.07, 2.1], [0.93, 1.9], [1.07, 1.9]]
    assert physics.wheel_points()[0] == pytest.approx(np.array(wanted))
    model = physics.model
    data = mujoco.MjData(model)
    data.qpos[:7] = [1.0, 2.0, 0.0, np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)]
    mujoco.mj_forward(model, data)
    assert np.array([data.body(name).xpos[:2] for name in WHEELS]) == pytest.approx(np.array(wanted))
    assert float(model.body_mass.sum()) == pytest.approx(body.mass_kg)
    assert float(data.subtree_com[1][2]) == pytest.approx(body.center_of_mass_height_m)
    names = [model.actuator(k).name for k in (STEER_LEFT, STEER_RIGHT, DRIVE)]
    assert names == ["steer_left", "steer_right", "drive"]


def test_a_state_that_is_not_finite_is_refused() -> None:
    physics = cars(2)
    with pytest.raises(PhysicsError, match="car 1") as caught:
        drive(physics, [0.0, np.nan], 0.5, 1)
    assert caught.value.next_step
