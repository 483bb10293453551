from __future__ import annotations

import json
import math

import numpy as np
import pytest
from shapely.geometry import Polygon

from sim.errors import TrackError
from sim.track import check_track, load_track, shipped_names, track_from_array, track_path, track_to_array
from sim.track_library import DRAWINGS, describe, draw, generate_track
from sim.track_shapes import min_radius_m, turning_rad


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, str | float | int]]:
    return {name: describe(load_track(name)) for name in shipped_names()}


def test_the_shipped_tracks_are_the_drawn_ones() -> None:
    assert shipped_names() == sorted(DRAWINGS)
    for name in DRAWINGS:
        # Not bytes: another processor may round the last digit of a cosine the other way.
        assert np.load(track_path(name)) == pytest.approx(track_to_array(draw(name)), abs=2e-6), name


def test_the_shipped_tracks_are_a_spread(facts: dict[str, dict[str, float]]) -> None:
    lengths = [each["length_m"] for each in facts.values()]
    widths = [each["width_m"] for each in facts.values()]
    assert len(facts) >= 10
    assert min(lengths) >= 15.0 and max(lengths) <= 60.0 and max(lengths) - min(lengths) > 35.0
    assert min(widths) >= 0.6 and max(widths) <= 1.1 and max(widths) - min(widths) > 0.3
    assert sum(each["direction"] == "cw" for each in facts.values()) >= 4
    assert sum(each["direction"] == "ccw" for each in facts.values()) >= 4
    assert min(each["min_radius_m"] for each in facts.values()) >= 0.55
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_a_shipped_track_is_even_and_its_road_is_as_wide_as_it_says(name: str) -> None:
    track = load_track(name)
    steps_m = np.diff(track.s_m)
    assert steps_m == pytest.approx(0.15, abs=0.01)
    assert np.hypot(*(track.left - track.right).T) == pytest.approx(track.width_m, abs=1e-5)
    road = Polygon(track.outer, [track.inner])
    assert road.is_valid
    assert road.area == pytest.approx(track.length_m * track.width_m, rel=0.01)
    # The start is on a straight: half a metre each way turns less than 10 degrees.
    direction = np.arctan2(*(track.center[[4, -1]] - track.center[[3, -5]]).T[::-1])
    assert abs(math.remainder(direction[0] - direction[1], 2 * math.pi)) < math.radians(10.0)


def test_min_radius_of_a_circle() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 81)
    unit = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    unit[-1] = unit[0]
    circle = track_from_array(np.concatenate((2 * unit, 1.6 * unit, 2.4 * unit), axis=1), "circle")
    assert min_radius_m(circle) == pytest.approx(2.0, rel=0.01)
    assert turning_rad(circle) == pytest.approx((2 * math.pi, 0.0))
    assert turning_rad(circle.reversed()) == pytest.approx((0.0, 2 * math.pi))


@pytest.mark.parametrize("seed", range(25))
def test_generated_tracks_are_valid_and_turn_both_ways(seed: int) -> None:
    track = generate_track(seed)
    check_track(track)
    assert track.name == f"generated_{seed}"
    assert 14.9 <= track.length_m <= 60.1 and 0.6 - 1e-6 <= track.width_m <= 1.1 + 1e-6
    assert min_radius_m(track) >= 0.55
    assert min(turning_rad(track)) > math.radians(60.0)


def test_same_seed_same_bytes_other_seed_another_track() -> None:
    one, again, other = (generate_track(seed) for seed in (7, 7, 8))
    assert track_to_array(one).tobytes() == track_to_array(again).tobytes()
    assert track_to_array(one).shape != track_to_array(other).shape or not np.allclose(one.center, other.center)
    assert len({round(generate_track(seed).length_m, 3) for seed in range(10)}) == 10


@pytest.mark.parametrize("clockwise", [True, False])
def test_generator_keeps_its_limits(clockwise: bool) -> None:
    for seed in range(4):
        track = generate_track(seed, length_m=(20.0, 22.0), width_m=(1.0, 1.0), clockwise=clockwise)
        assert track.is_ccw != clockwise
        assert 19.9 <= track.length_m <= 22.1
        assert track.width_m == pytest.approx(1.0, abs=1e-5)


def test_generator_draws_both_directions() -> None:
    assert len({generate_track(seed, length_m=(20.0, 30.0)).is_ccw for seed in range(12)}) == 2


def test_generator_refuses_what_cannot_be() -> None:
    with pytest.raises(TrackError, match="limits of the length are 60 to 15 m"):
        generate_track(0, length_m=(60.0, 15.0))
    with pytest.raises(TrackError, match="limits of the width"):
        generate_track(0, width_m=(0.1, 0.2))
    with pytest.raises(TrackError, match="seed is -1"):
        generate_track(-1)
    with pytest.raises(TrackError, match="limits of the length are nan"):
        generate_track(0, length_m=(math.nan, 20.0))
    with pytest.raises(TrackError, match="no track of 10 to 10 m"):
        generate_track(0, length_m=(10.0, 10.0), width_m=(1.5, 1.5))


def test_an_unknown_drawing() -> None:
    with pytest.raises(TrackError, match="no drawing"):
        draw("atlantis")
