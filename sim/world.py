"""What differs from episode to episode: the car's response, the camera's mounting, the light, the delays.

A ``Randomisation`` is a set of ranges; a car draws its world from them at every reset, from its own stream of random
numbers, so an episode depends on (seed, car, number of the episode) only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sim.camera import Optics
from sim.car_spec import CarSpec
from sim.physics import Dynamics
from vehicle.errors import ConfigError

Floats = NDArray[np.float64]
Range = tuple[float, float]
DRAWS = 40  # uniform numbers that a car draws at a reset; the first ones are the start's, see sim.starts


@dataclass(frozen=True)
class Randomisation:
    """Ranges (low, high) that worlds are drawn from uniformly. The defaults are the full randomisation.

    Sources of the widths: spec `rl-and-rendering.md` §3 ("DR list").
    """

    friction_scale: Range = (0.65, 1.2)
    mass_scale: Range = (0.9, 1.15)
    steering_gain: Range = (0.85, 1.15)
    steering_offset_deg: Range = (-3.0, 3.0)
    steering_lag_s: Range = (0.03, 0.10)
    motor_gain: Range = (0.85, 1.15)
    motor_lag_s: Range = (0.05, 0.25)
    action_delay_steps: Range = (0.0, 2.0)  # whole steps, ends included
    camera_latency_s: Range = (0.01, 0.05)
    camera_phase: Range = (0.0, 1.0)  # of a frame interval, against the control clock
    camera_pitch_deg: Range = (-3.5, 3.5)
    camera_roll_deg: Range = (-1.5, 1.5)
    camera_yaw_deg: Range = (-1.5, 1.5)
    camera_height_m: Range = (-0.01, 0.01)
    fov_scale: Range = (0.94, 1.06)
    gain: Range = (0.65, 1.35)
    bias: Range = (-25.0, 25.0)
    gamma: Range = (0.7, 1.4)
    blur: Range = (0.0, 1.0)
    vignette: Range = (0.0, 0.4)
    noise: Range = (0.0, 6.0)
    shadow_probability: float = 0.4
    shadow: Range = (0.15, 0.55)
    # Training only: bends the response curve by up to this share of the range at four knots, and inverts it sometimes,
    # so that one drawn appearance stands for many. Evaluations leave it out.
    tone: float = 0.1
    invert_probability: float = 0.3
    looks: int = 16  # appearances of each track; 1 is the nominal one only
    start_lateral: float = 0.5  # of the half width, either side
    start_heading_deg: float = 20.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise ConfigError(
                    f"randomise.{item.name} is {value}",
                    cause="a range is two numbers, the lower one first",
                    next_step=f"write {item.name} = [low, high]",
                )
        if self.looks < 1:
            raise ConfigError(f"randomise.looks is {self.looks}", cause="a track needs at least one appearance")


def nominal() -> Randomisation:
    """No randomness but where the car starts."""
    one, zero = (1.0, 1.0), (0.0, 0.0)
    return Randomisation(
        friction_scale=one, mass_scale=one, steering_gain=one, steering_offset_deg=zero, steering_lag_s=(-1.0, -1.0),
        motor_gain=one, motor_lag_s=(-1.0, -1.0), action_delay_steps=zero, camera_latency_s=(-1.0, -1.0),
        camera_phase=zero, camera_pitch_deg=zero, camera_roll_deg=zero, camera_yaw_deg=zero, camera_height_m=zero,
        fov_scale=one, gain=one, bias=zero, gamma=one, blur=zero, vignette=zero, noise=zero, shadow_probability=0.0,
        tone=0.0, invert_probability=0.0, looks=1,
    )  # fmt: skip


def mild() -> Randomisation:
    """Small differences, as between two cars of one make in one room."""
    return Randomisation(
        friction_scale=(0.9, 1.1), mass_scale=(0.97, 1.03), steering_gain=(0.95, 1.05), steering_offset_deg=(-1.0, 1.0),
        steering_lag_s=(0.04, 0.06), motor_gain=(0.95, 1.05), motor_lag_s=(0.08, 0.14), action_delay_steps=(0.0, 0.0),
        camera_latency_s=(0.015, 0.03), camera_pitch_deg=(-1.0, 1.0), camera_roll_deg=(-0.5, 0.5),
        camera_yaw_deg=(-0.5, 0.5), camera_height_m=(-0.003, 0.003), fov_scale=(0.98, 1.02), gain=(0.9, 1.1),
        bias=(-8.0, 8.0), gamma=(0.9, 1.1), blur=(0.0, 0.5), vignette=(0.0, 0.15), noise=(0.0, 3.0),
        shadow_probability=0.1, shadow=(0.1, 0.3), tone=0.0, invert_probability=0.0, looks=4,
    )  # fmt: skip


PRESETS = {"none": nominal, "mild": mild, "full": Randomisation}


@dataclass(frozen=True)
class World:
    """One drawn world for each of k cars."""

    dynamics: Dynamics
    optics: Optics
    delay_steps: NDArray[np.int64]  # (k,)
    camera_latency_s: Floats  # (k,)
    camera_phase_s: Floats  # (k,)


def draw_world(ranges: Randomisation, spec: CarSpec, uniform: Floats, xy_m: Floats) -> World:
    """Map uniform numbers to worlds.

    Args:
        ranges: what may differ.
        spec: the car around which it differs.
        uniform: (k, DRAWS) in [0, 1).
        xy_m: (k, 2) where the cars start: shadows fall within 3 m of it.
    """
    column = iter(range(uniform.shape[1]))

    def draw(bounds: Range) -> Floats:
        return bounds[0] + (bounds[1] - bounds[0]) * uniform[:, next(column)]

    def or_spec(bounds: Range, value: float) -> Floats:
        """A negative range stands for the car's own value."""
        drawn = draw(bounds)
        return np.where(drawn < 0, value, drawn)

    dynamics = Dynamics(
        friction=spec.friction * draw(ranges.friction_scale),
        mass_scale=draw(ranges.mass_scale),
        steering_gain=draw(ranges.steering_gain),
        steering_offset_deg=draw(ranges.steering_offset_deg),
        steering_lag_s=or_spec(ranges.steering_lag_s, spec.steering.lag_s),
        motor_gain=draw(ranges.motor_gain),
        motor_lag_s=or_spec(ranges.motor_lag_s, spec.motor.lag_s),
    )
    low, high = ranges.action_delay_steps
    delay = np.floor(low + (high - low + 1 - 1e-9) * uniform[:, next(column)]).astype(np.int64)
    camera = spec.camera
    latency = or_spec(ranges.camera_latency_s, camera.latency_s)
    phase = draw(ranges.camera_phase) / camera.frame_rate_hz
    shadowed = uniform[:, next(column)] < ranges.shadow_probability
    strength = np.where(shadowed, draw(ranges.shadow), 0.0)
    angle, where, half = draw((0, 2 * np.pi)), draw((-3, 3)), draw((0.08, 0.6))
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    band = np.concatenate([normal, (np.sum(normal * xy_m, axis=-1) + where)[:, None], half[:, None]], axis=-1)
    invert = uniform[:, next(column)] < ranges.invert_probability
    tone = np.stack([draw((-ranges.tone, ranges.tone)) for _ in range(4)], axis=-1)
    optics = Optics(
        forward_m=np.full(len(uniform), camera.forward_m),
        height_m=camera.height_m + draw(ranges.camera_height_m),
        pitch_down_deg=camera.pitch_down_deg + draw(ranges.camera_pitch_deg),
        roll_deg=camera.roll_deg + draw(ranges.camera_roll_deg),
        yaw_deg=draw(ranges.camera_yaw_deg),
        horizontal_fov_deg=camera.horizontal_fov_deg * draw(ranges.fov_scale),
        gain=draw(ranges.gain),
        bias=draw(ranges.bias),
        gamma=draw(ranges.gamma),
        blur=draw(ranges.blur),
        vignette=draw(ranges.vignette),
        noise=draw(ranges.noise),
        shadow=strength,
        shadow_band=band,
        tone=tone,
        invert=invert,
    )
    return World(dynamics, optics, delay, latency, phase)
