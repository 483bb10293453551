"""Fast laps, driven calmly: pay for ground covered along the track, and for nothing else.

Each step earns about its speed (in m/s) in the direction of the road, so that a lap is worth much the same however
long it takes, and getting there sooner is better. Three things reduce it: being close to the border, steering hard
where the road is straight, and going into a bend faster than the tyres can hold. A step is worth 0 to 3.
"""

import math

LOOK_AHEAD = 0.4  # how far down the road to look, twice: for where it goes, and for how it bends. Metres
GRIP = 3.0  # sideways acceleration that the tyres can be trusted with, metres per second squared
TOP_SPEED = 2.0  # speed beyond which more speed earns no more, metres per second
HARD_STEERING = 15.0  # steering beyond this is hard, degrees
STRAIGHT_RADIUS = 1.5  # a road that bends less than a circle of this radius is straight, metres


def reward_function(params):
    """Speed along the road, less what was unwise about it."""
    # Off the road there is nothing to earn. Small, not negative: a car should never be glad that it is over.
    if params["is_offtrack"]:
        return 1e-3

    road_direction, radius = look_at_road(params["waypoints"], params["closest_waypoints"])

    # 1. Speed that counts. In a bend of radius r, v * v / r must stay below the grip; what is above is taken off again.
    safe_speed = math.sqrt(GRIP * radius)
    speed = params["speed"]
    useful_speed = speed if speed <= safe_speed else max(0.0, 2.0 * safe_speed - speed)

    # 2. Only the part of it that goes along the road. Driving across the road or backwards earns nothing.
    heading_error = math.radians(params["heading"]) - road_direction
    pace = min(useful_speed, TOP_SPEED) * max(0.0, math.cos(heading_error))

    # 3. Ground covered so far, in decimetres per step. It sees what the commanded speed does not: sliding, or detours.
    metres_done = params["progress"] / 100.0 * params["track_length"]
    average = min(10.0 * metres_done / max(params["steps"], 1), 1.0)

    # 4. Room to the border. Nearly 1 over most of the road, so the car may cut a corner, and 0 at the border.
    off_center = min(params["distance_from_center"] / (0.5 * params["track_width"]), 1.0)
    room = 1.0 - off_center**4

    # 5. Calm steering where the road asks for none.
    is_straight = radius > STRAIGHT_RADIUS
    calm = 0.8 if is_straight and abs(params["steering_angle"]) > HARD_STEERING else 1.0

    return float(max(1e-3, (pace + 0.5 * average) * room * calm))


def look_at_road(waypoints, closest_waypoints):
    """The direction of the road here (radians), and the radius of the bend ahead (metres; large if straight)."""
    behind = waypoints[closest_waypoints[0]]
    near, index = walk(waypoints, closest_waypoints[1], behind)
    far, _ = walk(waypoints, index, near)

    here = math.atan2(near[1] - behind[1], near[0] - behind[0])
    later = math.atan2(far[1] - near[1], far[0] - near[0])

    # The difference of two directions, brought back to -180..180 degrees, and the way between their middles.
    bend = (later - here + math.pi) % (2.0 * math.pi) - math.pi
    way = 0.5 * (math.dist(behind, near) + math.dist(near, far))
    return here, way / max(abs(bend), 1e-3)


def walk(waypoints, index, origin):
    """The first waypoint from `index` on that is at least LOOK_AHEAD from `origin`, and its index."""
    for _ in range(len(waypoints)):
        if math.dist(waypoints[index], origin) >= LOOK_AHEAD:
            break
        index = (index + 1) % len(waypoints)  # after the last waypoint comes the first again
    return waypoints[index], index
