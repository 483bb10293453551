"""Follow the centre line: DeepRacer's default reward, with its values.

The road is split into three bands. The closer to the middle, the more a step is worth.
"""


def reward_function(params):
    """The closer to the centre line, the more."""
    # How wide the road is here, and how far from its middle the front of the car is. Both in metres.
    track_width = params["track_width"]
    distance_from_center = params["distance_from_center"]

    if distance_from_center <= 0.1 * track_width:
        return 1.0  # in the middle
    if distance_from_center <= 0.25 * track_width:
        return 0.5  # half-way to the border
    if distance_from_center <= 0.5 * track_width:
        return 0.1  # close to the border

    return 1e-3  # beyond the border: likely to leave the road. Nearly nothing, but not negative.
