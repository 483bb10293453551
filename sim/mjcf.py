"""The MuJoCo model of the car, made from a CarSpec.

The body's frame lies on the ground in the middle between the axles, x ahead, y left, z up. Wheels are ellipsoids (one
contact each, and a rolling ellipsoid of revolution is a wheel); the rear axle is driven through an open differential,
which is a fixed tendon over both wheels; each front wheel has its own steering joint, so that Ackermann geometry is
exact. Servo and motor lags are MuJoCo's exact first-order activations, so every simulated car can have its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.car_spec import CarSpec

CHASSIS = "chassis"
WHEELS = ("front_left", "front_right", "rear_left", "rear_right")
# Actuators, in the order of MuJoCo's ctrl vector.
STEER_LEFT, STEER_RIGHT, DRIVE = 0, 1, 2
_STEER_MARGIN = 1.45  # the inner wheel turns further than the middle one: at 30 degrees by a factor of 1.3
_WHEEL_SHARE = 0.04  # each wheel's part of the car's mass
_MIN_LAG_S = 1e-3  # MuJoCo's filter wants a positive time constant
# What stands on the road gives way by this much before it holds a car: a car that drives into it is then seen to be
# inside at the end of the control period, which is DeepRacer's rule for a crash.
_GIVES_WAY_M = 0.01
_CARDBOARD = 'solref="0.03 3"'  # gives way slowly and does not throw a car back

ObjectSize = tuple[float, float, float]  # half length, half width, height, metres


def car_xml(
    spec: CarSpec, timestep_s: float, scene: str = "", assets: str = "", objects: Sequence[ObjectSize] = ()
) -> str:
    """The MJCF of one car on an infinite plane.

    Args:
        spec: the car.
        timestep_s: physics step; 12.5 ms is stable here (implicitfast, armature on every small joint).
        scene: further worldbody elements, for the reference renderer.
        assets: further asset elements.
        objects: boxes that the car collides with; each is a body that can be put anywhere (``mocap``).

    Returns:
        XML text for ``mujoco.MjModel.from_xml_string``.
    """
    body, steering, motor = spec.body, spec.steering, spec.motor
    radius = body.wheel_radius_m
    wheel_kg = _WHEEL_SHARE * body.mass_kg
    chassis_kg = body.mass_kg - 4 * wheel_kg
    # With the wheels' centres at their radius, this height of the chassis' mass puts the whole car's where it belongs.
    chassis_z = (body.mass_kg * body.center_of_mass_height_m - 4 * wheel_kg * radius) / chassis_kg
    half_length, half_width, half_height = body.length_m / 2, body.width_m / 2, 0.035
    steer_range = _STEER_MARGIN * steering.max_deg
    # The drive force acts on the mean of both wheels' travel, in metres, so gains are in newton and m/s.
    gain = 25.0 * body.mass_kg
    force = motor.max_acceleration_mps2 * body.mass_kg

    def wheel(name: str, x: float, y: float, steered: bool) -> str:
        steer = (
            f'<joint name="steer_{name}" axis="0 0 1" range="{-steer_range} {steer_range}" armature="3e-4" '
            'damping="0.01"/>'
            if steered
            else ""
        )
        return f"""
        <body name="{name}" pos="{x} {y} {radius}">
          {steer}<joint name="roll_{name}" axis="0 1 0" armature="2e-5" damping="1e-5" limited="false"/>
          <geom name="{name}" type="ellipsoid" size="{radius} {body.wheel_width_m / 2} {radius}" mass="{wheel_kg}"
            rgba="0.1 0.1 0.1 1"/>
        </body>"""

    front, rear, side = body.wheelbase_m / 2, -body.wheelbase_m / 2, body.track_m / 2
    # Named pairs instead of contact masks: nothing else can touch, and no search for contacts is made (5 % of a step).
    contacts = "".join(
        f'<pair geom1="{name}" geom2="floor" condim="3" '
        f'friction="{spec.friction} {spec.friction} 0.005 0.0001 0.0001"/>'
        for name in WHEELS
    )
    bodies = ""
    for k, (length, width, height) in enumerate(objects):
        inner = f"{length - _GIVES_WAY_M} {width - _GIVES_WAY_M} {height / 2}"
        bodies += (
            f'<body name="object{k}" mocap="true"><geom name="object{k}" type="box" size="{inner}" '
            f'pos="0 0 {height / 2}"/></body>'
        )
        contacts += (
            f'<pair geom1="{CHASSIS}" geom2="object{k}" condim="3" {_CARDBOARD} '
            'friction="0.3 0.3 0.005 0.0001 0.0001"/>'
        )
    return f"""
<mujoco model="hotlap car">
  <compiler angle="degree" autolimits="true"/>
  <option timestep="{timestep_s}" integrator="implicitfast" cone="pyramidal" iterations="20" ls_iterations="10"/>
  <option><flag island="disable"/></option>
  <size memory="1M"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <asset>{assets}</asset>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1" rgba="0.4 0.4 0.4 0"/>
    {scene}{bodies}
    <body name="{CHASSIS}">
      <freejoint name="free"/>
      <geom name="{CHASSIS}" type="box" size="{half_length} {half_width} {half_height}" pos="0 0 {chassis_z}"
        mass="{chassis_kg}" rgba="0.2 0.2 0.25 1"/>
      <geom name="belly" type="box" size="{half_length} {half_width} 0.01" pos="0 0 0.05" mass="0"
        rgba="0.2 0.2 0.25 1" group="3"/>
      {wheel("front_left", front, side, True)}
      {wheel("front_right", front, -side, True)}
      {wheel("rear_left", rear, side, False)}
      {wheel("rear_right", rear, -side, False)}
    </body>
  </worldbody>
  <contact>
    {contacts}
    <pair geom1="belly" geom2="floor" condim="3" friction="0.3 0.3 0.005 0.0001 0.0001"/>
  </contact>
  <tendon>
    <fixed name="axle">
      <joint joint="roll_rear_left" coef="{radius / 2}"/><joint joint="roll_rear_right" coef="{radius / 2}"/>
    </fixed>
  </tendon>
  <actuator>
    <general name="steer_left" joint="steer_front_left" dyntype="filterexact" dynprm="{max(steering.lag_s, _MIN_LAG_S)}"
      gainprm="3" biastype="affine" biasprm="0 -3 -0.06" forcerange="-0.6 0.6"/>
    <general name="steer_right" joint="steer_front_right" dyntype="filterexact"
      dynprm="{max(steering.lag_s, _MIN_LAG_S)}"
      gainprm="3" biastype="affine" biasprm="0 -3 -0.06" forcerange="-0.6 0.6"/>
    <general name="drive" tendon="axle" dyntype="filterexact" dynprm="{max(motor.lag_s, _MIN_LAG_S)}"
      gainprm="{gain}" biastype="affine" biasprm="0 0 {-gain}" forcerange="{-force} {force}"/>
  </actuator>
</mujoco>"""
