"""Drive on, inside the borders, and around what stands or drives ahead: for object avoidance and head-to-bot races.

The console's example for these races pays for keeping to the other lane than the next object. This one asks how near
the objects beside and ahead are to the car's own line, and pays for driving on as well. A step is worth 0 to about 2.
"""

import math

SAFE_ASIDE = 0.36  # a car whose middle passes this far from an object's middle has room, metres
LOOK_AHEAD = 1.2  # from this far on an object counts, metres along the road
TOO_LATE = 0.35  # nearer than this there is no more room to turn


def reward_function(params):
    """Speed along the road, times room to the border, times room to the objects."""
    if params["is_offtrack"] or params["is_crashed"]:
        return 1e-3

    # 1. Speed, as far as it goes along the road.
    waypoints, closest = params["waypoints"], params["closest_waypoints"]
    behind, ahead = waypoints[closest[0]], waypoints[closest[1]]
    road = math.atan2(ahead[1] - behind[1], ahead[0] - behind[0])
    error = math.radians(params["heading"]) - road
    pace = min(params["speed"], 1.5) * max(0.0, math.cos(error))

    # 2. Room to the border: the whole road may be used, but not its edge.
    half_width = 0.5 * params["track_width"]
    off_center = min(params["distance_from_center"] / half_width, 1.0)
    room = 1.0 - off_center**6

    # 3. Room to objects: full if the car is aside of it, little if it drives at it, less the nearer it comes.
    side = 1.0 if params["is_left_of_center"] else -1.0
    mine = side * params["distance_from_center"]
    clear = 1.0
    for index, distance in enumerate(params["objects_distance"]):
        gap = (distance - params["projection_distance"] + 0.5) % params["track_length"] - 0.5
        if gap > LOOK_AHEAD:
            continue
        side = 1.0 if params["objects_left_of_center"][index] else -1.0
        aside = abs(mine - side * params["objects_distance_from_center"][index])
        near = min(1.0, (LOOK_AHEAD - gap) / (LOOK_AHEAD - TOO_LATE))
        clear = min(clear, 1.0 - near * max(0.0, 1.0 - aside / SAFE_ASIDE))

    return float(max(1e-3, (0.5 + pace) * room * clear))
