"""Stay between the borders: any line is fine, as long as all four wheels are on the road."""

# How much road must be left between the front of the car and the border, in metres.
MARGIN = 0.05


def reward_function(params):
    """All four wheels on the road, with a margin: 1. Otherwise nearly nothing."""
    distance_to_border = 0.5 * params["track_width"] - params["distance_from_center"]

    if params["all_wheels_on_track"] and distance_to_border >= MARGIN:
        return 1.0

    return 1e-3
