"""Many MuJoCo cars stepped in one call by ``mujoco.batch.Batch``, each with its own world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from sim.car_spec import CarSpec
from sim.errors import PhysicsError
from sim.mjcf import CHASSIS, DRIVE, STEER_LEFT, STEER_RIGHT, WHEELS, ObjectSize, car_xml

Floats = NDArray[np.float64]
# In one control period: 12.5 ms each at 10 Hz. With 7 tyres hop at the limit of friction, with 5 they chatter.
SUBSTEPS = 8
_MIN_LAG_S = 1e-3


@dataclass(frozen=True)
class Dynamics:
    """What differs between cars, arrays of shape (n,). See ``sim.world`` for how they are drawn."""

    friction: Floats  # sliding coefficient of the tyres
    mass_scale: Floats  # of the chassis
    steering_gain: Floats  # wheel angle over commanded angle
    steering_offset_deg: Floats  # wheel angle at command zero, + is left
    steering_lag_s: Floats
    motor_gain: Floats  # speed over commanded speed; a weak battery is below 1
    motor_lag_s: Floats

    @staticmethod
    def nominal(spec: CarSpec, n: int) -> Dynamics:
        """The car as its spec says, n times."""

        def full(value: float) -> Floats:
            return np.full(n, value, dtype=np.float64)

        return Dynamics(
            full(spec.friction), full(1), full(1), full(0), full(spec.steering.lag_s), full(1), full(spec.motor.lag_s)
        )


def ackermann_deg(steering_deg: Floats, spec: CarSpec) -> tuple[Floats, Floats]:
    """Angles of the left and right front wheels whose axes meet on the rear axle's line.

    Args:
        steering_deg: (n,) angle of the imagined middle wheel, + is left: turning radius = wheelbase / tan(angle).

    Returns:
        left and right wheel angles, (n,) degrees each.
    """
    tangent = np.tan(np.radians(steering_deg))
    ratio = spec.body.track_m / (2 * spec.body.wheelbase_m)
    left, right = np.arctan(tangent / (1 - ratio * tangent)), np.arctan(tangent / (1 + ratio * tangent))
    return np.degrees(left), np.degrees(right)


class CarPhysics:
    """n cars, each alone on an endless floor.

    Args:
        spec: the car.
        n: how many. Their worlds are in ``dynamics``, written through ``set_dynamics`` only.
        control_period_s: time that one ``step`` advances.
        threads: C threads that share the cars; the result does not depend on it.
        objects: sizes of the boxes that every car has around it; ``set_objects`` puts them somewhere.
    """

    def __init__(
        self,
        spec: CarSpec,
        n: int,
        control_period_s: float = 0.1,
        threads: int = 1,
        objects: Sequence[ObjectSize] = (),
    ) -> None:
        self.spec, self.n, self.control_period_s = spec, n, control_period_s
        self.model = mujoco.MjModel.from_xml_string(car_xml(spec, control_period_s / SUBSTEPS, objects=objects))
        self._batch = Batch(self.model, n, threads)
        self._ctrl = self._batch.bind("ctrl")
        self._qpos: Floats = self._batch.bind("qpos")
        self._qvel: Floats = self._batch.bind("qvel")
        self._act = self._batch.bind("act")
        self._chassis = self.model.body(CHASSIS).id
        self._base_mass = float(self.model.body_mass[self._chassis])
        self._base_inertia = self.model.body_inertia[self._chassis].copy()
        self._friction = self._batch.expand("pair_friction")
        self._dynprm = self._batch.expand("actuator_dynprm")
        self._mass = self._batch.expand("body_mass")
        self._inertia = self._batch.expand("body_inertia")
        self._objects: tuple[Floats, Floats] | None = None  # (n, k, 3) places and (n, k, 4) orientations
        if objects:
            self._objects = self._batch.bind("mocap_pos"), self._batch.bind("mocap_quat")
        self.dynamics = Dynamics.nominal(spec, n)
        body = spec.body
        x, y = body.wheelbase_m / 2, body.track_m / 2
        self._wheel_offsets = np.array([[x, y], [x, -y], [-x, y], [-x, -y]])

    @property
    def position(self) -> Floats:
        """(n, 3) metres: the point on the ground between the axles (moves with the body). A live view."""
        return self._qpos[:, 0:3]

    @property
    def quaternion(self) -> Floats:
        """(n, 4) orientation, scalar first. A live view."""
        return self._qpos[:, 3:7]

    @property
    def velocity(self) -> Floats:
        """(n, 3) m/s in the world's axes. A live view."""
        return self._qvel[:, 0:3]

    @property
    def yaw_rate(self) -> Floats:
        """(n,) rad/s about the body's vertical."""
        return self._qvel[:, 5]

    @property
    def steering_rad(self) -> Floats:
        """(n,) mean angle of the two front wheels."""
        left, right = self.model.joint("steer_front_left").qposadr[0], self.model.joint("steer_front_right").qposadr[0]
        return 0.5 * (self._qpos[:, left] + self._qpos[:, right])

    def heading(self) -> Floats:
        """(n,) yaw in radians, (-pi, pi]."""
        w, x, y, z = self.quaternion.T
        yaw: Floats = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return yaw

    def forward_speed(self) -> Floats:
        """(n,) m/s along the heading."""
        yaw = self.heading()
        return np.cos(yaw) * self.velocity[:, 0] + np.sin(yaw) * self.velocity[:, 1]

    def wheel_points(self) -> Floats:
        """(n, 4, 2) ground points of the wheels in the order of ``sim.mjcf.WHEELS``."""
        yaw = self.heading()
        cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        x, y = self._wheel_offsets[:, 0], self._wheel_offsets[:, 1]
        points: Floats = self.position[:, None, :2] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        return points

    def set_dynamics(self, ids: NDArray[np.int64], dynamics: Dynamics) -> None:
        """Give the cars ``ids`` (k,) the worlds of ``dynamics`` (arrays (k,))."""
        for field in Dynamics.__dataclass_fields__:
            getattr(self.dynamics, field)[ids] = getattr(dynamics, field)
        # The pairs of the wheels come first in the model; the last one is the belly's.
        self._friction[ids, : len(WHEELS), :2] = dynamics.friction[:, None, None]
        for actuator in (STEER_LEFT, STEER_RIGHT):
            self._dynprm[ids, actuator, 0] = np.maximum(dynamics.steering_lag_s, _MIN_LAG_S)
        self._dynprm[ids, DRIVE, 0] = np.maximum(dynamics.motor_lag_s, _MIN_LAG_S)
        self._mass[ids, self._chassis] = self._base_mass * dynamics.mass_scale
        self._inertia[ids, self._chassis] = self._base_inertia * dynamics.mass_scale[:, None]
        self._batch.set_const(ids)

    def place(self, ids: NDArray[np.int64], xy: Floats, heading_rad: Floats) -> None:
        """Put the cars ``ids`` (k,) at rest at ``xy`` (k, 2) with wheels straight and the given heading (k,)."""
        kept = [values[ids] for values in self._objects or ()]
        self._batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        for values, before in zip(self._objects or (), kept, strict=True):
            values[ids] = before
        self._qpos[ids, 0:2] = xy
        self._qpos[ids, 3] = np.cos(heading_rad / 2)
        self._qpos[ids, 4:6] = 0.0
        self._qpos[ids, 6] = np.sin(heading_rad / 2)

    def set_objects(self, xy_m: Floats, yaw_rad: Floats) -> None:
        """Put every car's objects at ``xy_m`` (n, k, 2) with the headings ``yaw_rad`` (n, k)."""
        assert self._objects is not None
        place, quaternion = self._objects
        place[..., :2] = xy_m
        quaternion[..., 0], quaternion[..., 3] = np.cos(yaw_rad / 2), np.sin(yaw_rad / 2)
        quaternion[..., 1:3] = 0.0

    def step(self, steering_deg: Floats, speed_mps: Floats) -> None:
        """Advance every car by one control period under its commands, (n,) each.

        Commands beyond the travel limits are limited as the servo's stop and the motor would.

        Raises:
            PhysicsError: a car's state is no longer finite.
        """
        limit = self.spec.steering.max_deg
        wheel = np.clip(self.dynamics.steering_gain * steering_deg + self.dynamics.steering_offset_deg, -limit, limit)
        left, right = ackermann_deg(wheel, self.spec)
        top = self.spec.motor.max_speed_mps
        self._ctrl[:, STEER_LEFT] = np.radians(left)
        self._ctrl[:, STEER_RIGHT] = np.radians(right)
        self._ctrl[:, DRIVE] = np.clip(self.dynamics.motor_gain * speed_mps, -top, top)
        try:
            self._batch.step(nstep=SUBSTEPS)
        except SimulationError as error:
            raise PhysicsError(
                f"MuJoCo stopped on car {int(error.ids[0])}: {error}",
                cause="a car specification outside of what these physics steps can integrate",
                next_step="undo the last change of the car's TOML",
            ) from error
        if self._batch.warning.any():
            car = int(np.argwhere(self._batch.warning)[0][0])
            raise PhysicsError(
                f"the physics of car {car} diverged (MuJoCo warning)",
                cause="a car specification outside of what these physics steps can integrate",
                next_step="undo the last change of the car's TOML",
            )
