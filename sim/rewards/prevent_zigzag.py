"""Follow the centre line without zig-zagging: steering hard costs a fifth of the reward.

A car that flicks its wheels left and right can stay in the middle and still be slow. This makes calm steering pay.
"""

# Steering beyond this many degrees, left or right, counts as hard. Change it to suit your action space:
# with -30, -15, 0, 15, 30 only the two outermost actions are hard.
HARD_STEERING = 15.0


def reward_function(params):
    """The centre line's reward, less a fifth when the steering is hard."""
    track_width = params["track_width"]
    distance_from_center = params["distance_from_center"]

    # First the centre line, in three bands.
    if distance_from_center <= 0.1 * track_width:
        reward = 1.0
    elif distance_from_center <= 0.25 * track_width:
        reward = 0.5
    elif distance_from_center <= 0.5 * track_width:
        reward = 0.1
    else:
        reward = 1e-3

    # Then the steering. Left is positive and right is negative, so look at its size only.
    if abs(params["steering_angle"]) > HARD_STEERING:
        reward *= 0.8

    return reward
