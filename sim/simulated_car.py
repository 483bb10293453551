"""The MuJoCo car as hardware, in lockstep: servo and motor pulses in, camera pictures out, laps counted from above.

The car's own calibration says what its servo and speed controller truly make of a pulse. Whoever sends pulses has a
calibration file of his own: where the two differ, the car drives wrong, as a real one does. Time is simulated and only
moves with `SimulatedCar.step`; `sim.world_process` ties it to the clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.mapping import Calibration, default_sim_calibration, speed_mps_of, steering_deg_of
from sim.camera import Atlas, RoadCamera
from sim.car_spec import CarSpec
from sim.errors import SimError
from sim.look import HELD_OUT, Appearance, draw_surface, nominal_appearance, random_appearance
from sim.physics import CarPhysics
from sim.threads import Workers
from sim.track import Track
from sim.track_set import TrackSet
from sim.world import DRAWS, Randomisation, draw_world, nominal
from vehicle.actuators.base import MAX_PULSE_US, MIN_PULSE_US, PERIOD_S
from vehicle.cameras.base import Frame
from vehicle.observation import HEIGHT, WIDTH

Floats = NDArray[np.float64]

STEP_S = PERIOD_S  # one servo frame a step
SIGNAL_LOST_S = 0.1  # a receiver gives up after five missing frames
LOOKS = ("nominal", "random")
SENSOR_NOISE_GRAYS = 2.0  # at least: two pictures of a standing car differ, a repeated one is a frozen camera
MOVING_MPS = 0.02  # slower is standing still
_HISTORY = 3000  # steps that `SimulatedCar.history` keeps: a minute
_KEPT_LAP_TIMES = 1000
# The nearest point of the centre line does not move so far in 20 ms: it is on another stretch of the road.
_JUMP_M = 1.0


class Pose(NamedTuple):
    """Where the car was at the end of a step."""

    time_s: float
    x_m: float  # middle between the axles
    y_m: float
    heading_rad: float
    speed_mps: float  # along the heading
    travelled_m: float  # length of the path so far, backwards counts too; put-backs do not


class LapCounter:
    """Counts laps of a road of ``length_m`` metres from distances along it.

    A lap ends where its start was; driving back over the line and forth again does not count twice. The first lap
    begins when the car first moves, every other one when the line is crossed, interpolated within the step.
    """

    def __init__(self, length_m: float) -> None:
        self.length_m = length_m
        self.laps = 0
        self.lap_times_s: deque[float] = deque(maxlen=_KEPT_LAP_TIMES)
        self.distance_m = 0.0  # since the start; negative is behind it
        self._began_s: float | None = None

    def advance(self, gained_m: float, from_s: float, to_s: float, moving: bool) -> None:
        """Add ``gained_m`` metres, driven between two simulated times."""
        if self._began_s is None:
            if not moving:
                return
            self._began_s = from_s
        before, goal = self.distance_m, (self.laps + 1) * self.length_m
        self.distance_m = before + gained_m
        if self.distance_m >= goal > before:
            crossed_s = from_s + (goal - before) / gained_m * (to_s - from_s)
            self.lap_times_s.append(crossed_s - self._began_s)
            self._began_s = crossed_s
            self.laps += 1


class SimulatedCar:
    """One car on one track, at rest on the start line. Same seed and same pulses give the same pictures, bit for bit.

    A car with all four wheels off the road is counted and put back at rest on its middle where progress stopped, as
    DeepRacer does. The loops that numba compiles are compiled when the constructor returns.

    Args:
        track: the road.
        calibration: what servo and speed controller truly do; None is ``default_sim_calibration()``.
        car: the car; None is a DeepRacer.
        seed: of sensor noise, camera phase, look "random" and what ``randomise`` draws.
        look: "nominal", "random" (one that no training has seen), or an appearance.
        randomise: what differs from ``car``; None is nothing but the camera's phase. Delays of actions are left out:
            in this loop they are real. Sensor noise is at least ``SENSOR_NOISE_GRAYS``.
        signal_lost_s: simulated seconds without a pulse until the signal is lost.

    Raises:
        SimError: an unknown look.
    """

    def __init__(
        self,
        track: Track,
        *,
        calibration: Calibration | None = None,
        car: CarSpec | None = None,
        seed: int = 0,
        look: str | Appearance = "nominal",
        randomise: Randomisation | None = None,
        signal_lost_s: float = SIGNAL_LOST_S,
    ) -> None:
        self.track, self.car, self.seed = track, car or CarSpec(), seed
        self.calibration = calibration or default_sim_calibration()
        self.off_track = 0
        self.history: deque[Pose] = deque(maxlen=_HISTORY)
        self._steps = 0
        self._one = np.zeros(1, np.int64)  # the only car, on the only track
        self._set = TrackSet([track])
        surface = draw_surface(track, _appearance(look, track, seed))
        self._camera = RoadCamera(Atlas([surface]), 1, self.car.camera, Workers(1))
        self.physics = CarPhysics(self.car, 1, STEP_S)
        ranges = randomise or replace(nominal(), camera_phase=(0.0, 1.0))
        uniform = np.random.default_rng([seed & 0x7FFFFFFF, 0]).random((1, DRAWS))
        xy, heading = self._set.pose_at(self._one, np.zeros(1))
        world = draw_world(ranges, self.car, uniform, xy)
        noise = np.maximum(world.optics.noise, SENSOR_NOISE_GRAYS)
        self._camera.set_optics(self._one, replace(world.optics, noise=noise))
        self.physics.set_dynamics(self._one, world.dynamics)
        self.physics.place(self._one, xy, heading)
        self._latency_s = float(world.camera_latency_s[0])
        self._phase_s = float(world.camera_phase_s[0])
        self._exposures = 0
        self._waiting: deque[Frame] = deque()  # taken, not yet delivered
        self._lost_after = max(1, round(signal_lost_s / STEP_S))
        self._silent = [self._lost_after, self._lost_after]  # steps without a pulse: steering, throttle
        self._steering_deg = self._speed_mps = 0.0  # what servo and speed controller make of the last pulses
        self._travelled_m = 0.0
        # Progress counts from where the car's front point starts, as in `sim.batch_env`.
        self._start_s_m = self._front_s_m()
        self.counter = LapCounter(track.length_m)
        self._pose = self._physics_pose()
        self._picture(self._pose, np.uint64(0))  # compiles the camera's loops
        self._remember()

    # -- pulses in --------------------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Simulated seconds since the start."""
        return self._steps * STEP_S

    def step(self, steering_us: float | None, throttle_us: float | None) -> None:
        """Advance 20 ms.

        Without a pulse (None) servo and speed controller go on with the last one, until the signal is lost: then the
        motor idles and the servo stays where it is.

        Args:
            steering_us, throttle_us: pulse widths in microseconds, from 500 to 2500, or None.

        Raises:
            SimError: a pulse that no servo takes.
            PhysicsError: the physics diverged.
        """
        for channel, pulse_us in enumerate((steering_us, throttle_us)):
            if pulse_us is None:
                self._silent[channel] += 1
                continue
            if not MIN_PULSE_US <= pulse_us <= MAX_PULSE_US:  # false for NaN too
                raise SimError(
                    f"a pulse of {pulse_us} us", cause=f"pulses are from {MIN_PULSE_US:.0f} to {MAX_PULSE_US:.0f} us"
                )
            self._silent[channel] = 0
        if steering_us is not None:
            self._steering_deg = steering_deg_of(self.calibration, steering_us)
        if throttle_us is not None:
            top_mps = self.car.motor.max_speed_mps
            self._speed_mps = speed_mps_of(self.calibration, throttle_us, model_max_mps=top_mps)
        elif self._silent[1] >= self._lost_after:
            self._speed_mps = 0.0
        before, before_s = self._pose, self.time_s
        self.physics.step(np.array([self._steering_deg]), np.array([self._speed_mps]))
        self._steps += 1
        self._pose = self._physics_pose()
        self._travelled_m += math.hypot(*(self._pose[:2] - before[:2]))
        self._expose(before, before_s)
        self._judge(before_s)
        self._remember()

    @property
    def signal(self) -> bool:
        """Whether both servo and speed controller have had pulses lately."""
        return max(self._silent) < self._lost_after

    # -- pictures out -----------------------------------------------------------------------------------------------

    def frames(self, now_s: float | None = None) -> list[Frame]:
        """The pictures, (120, 160) gray, delivered since the last call, oldest first.

        Args:
            now_s: simulated time up to which they are handed out; None is the car's.

        Returns:
            frames whose stamps are the simulated times of exposure; each is delivered the camera's latency later.
        """
        now_s = self.time_s if now_s is None else now_s
        ready = []
        while self._waiting and self._due_s(self._waiting[0]) <= now_s + 1e-9:
            ready.append(self._waiting.popleft())
        return ready

    @property
    def next_delivery_s(self) -> float:
        """Simulated time at which the next picture that has been taken is delivered; infinite where there is none."""
        return self._due_s(self._waiting[0]) if self._waiting else math.inf

    def _due_s(self, frame: Frame) -> float:
        return frame.stamp_s + self._latency_s

    def _expose(self, before: Floats, before_s: float) -> None:
        """Take the pictures whose moment was in the step that has just ended."""
        while (moment_s := self._phase_s + self._exposures / self.car.camera.frame_rate_hz) <= self.time_s:
            share = min(max((moment_s - before_s) / STEP_S, 0.0), 1.0)
            pose = before + share * (self._pose - before)
            pose[3:] /= np.linalg.norm(pose[3:])  # so close together, a normalised mean is as good as a slerp
            seed = np.uint64((self.seed * 0x9E3779B97F4A7C15 + self._exposures + 1) & 0xFFFFFFFFFFFFFFFF)
            self._waiting.append(Frame(self._picture(pose, seed), moment_s, self._exposures))
            self._exposures += 1

    def _picture(self, pose: Floats, seed: np.uint64) -> NDArray[np.uint8]:
        out = np.empty((1, HEIGHT, WIDTH), np.uint8)
        self._camera.render(pose[None], np.array([seed], np.uint64), out)
        picture: NDArray[np.uint8] = out[0]
        return picture

    # -- seen from above --------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What a marshal beside the track knows, ready for JSON: ``world.facts``. Times are simulated seconds."""
        pose, distance_m = self.history[-1], self.counter.distance_m
        return {
            "laps": self.counter.laps,
            "lap_times_s": [round(seconds, 4) for seconds in self.counter.lap_times_s],
            "off_track": self.off_track,
            "progress_percent": 100.0 * (distance_m / self.track.length_m - self.counter.laps),
            "x_m": pose.x_m,
            "y_m": pose.y_m,
            "heading_rad": pose.heading_rad,
            "speed_mps": pose.speed_mps,
            "travelled_m": pose.travelled_m,
            "moving": self._moving(),
            "signal": self.signal,
            "steering_deg": self._steering_deg,  # what servo and speed controller make of the pulses: where one would
            "motor_mps": self._speed_mps,  # see the wheels point, and how fast they would turn off the ground
            "stamp_s": pose.time_s,
        }

    def _moving(self) -> bool:
        return bool(np.hypot(*self.physics.velocity[0, :2]) > MOVING_MPS)

    def _judge(self, before_s: float) -> None:
        """Progress and laps; a car that has left the road is put back."""
        if not self._set.on_track(self._one, self.physics.wheel_points()).any():
            self.off_track += 1
            self._put_back()
            return
        here_m = self._start_s_m + self.counter.distance_m
        half_m = self.track.length_m / 2
        gained_m = (self._front_s_m() - here_m + half_m) % self.track.length_m - half_m
        if abs(gained_m) > _JUMP_M:
            return  # nearer to another stretch: a short cut does not count, progress waits where it was left
        self.counter.advance(gained_m, before_s, self.time_s, self._moving())

    def _put_back(self) -> None:
        s_m = self._start_s_m + self.counter.distance_m - self.car.body.front_point_m
        self.physics.place(self._one, *self._set.pose_at(self._one, np.array([s_m])))
        self._pose = self._physics_pose()  # no picture between the two places

    def _front_s_m(self) -> float:
        """Distance along the centre line of the car's front point."""
        heading = float(self.physics.heading()[0])
        ahead = self.car.body.front_point_m * np.array([[math.cos(heading), math.sin(heading)]])
        return float(self._set.project(self._one, self.physics.position[:, :2] + ahead).s_m[0])

    def _physics_pose(self) -> Floats:
        return np.concatenate([self.physics.position[0], self.physics.quaternion[0]])

    def _remember(self) -> None:
        speed_mps, heading = float(self.physics.forward_speed()[0]), float(self.physics.heading()[0])
        x, y = self._pose[:2].tolist()
        self.history.append(Pose(self.time_s, x, y, heading, speed_mps, self._travelled_m))


def _appearance(look: str | Appearance, track: Track, seed: int) -> Appearance:
    if isinstance(look, Appearance):
        return look
    if look not in LOOKS:
        raise SimError(f"unknown look {look!r}", next_step=f"choose one of {', '.join(LOOKS)}")
    return nominal_appearance() if look == "nominal" else random_appearance(track.name, HELD_OUT, seed)
