from __future__ import annotations

import bisect
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import LinearRing, Point, Polygon

from sim.errors import TrackError
from sim.track import Track, load_track, track_from_array
from sim.track_set import Projection, TrackSet, progress_percent

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "tracks"
REAL_NAMES = ["reinvent_base", "Bowtie_track", "Spain_track", "penbay_pro_cw", "2022_reinvent_champ_ccw"]
SHIPPED_NAMES = ["first_oval", "spiral_court", "mountain_road"]


def the_track(name: str) -> Track:
    if name in SHIPPED_NAMES:
        return load_track(name)
    path = REAL / f"{name}.npy"
    if not path.is_file():
        pytest.skip("the real DeepRacer tracks are not in ../shared/data/tracks")
    return load_track(path)


def scattered(track: Track, count: int, seed: int = 0) -> np.ndarray:
    """Half of the points near the road, half anywhere around it."""
    rng = np.random.default_rng(seed)
    xmin, ymin, xmax, ymax = track.bounds
    anywhere = rng.uniform((xmin - 1, ymin - 1), (xmax + 1, ymax + 1), (count // 2, 2))
    near = track.center[rng.integers(len(track.center), size=count - count // 2)]
    return np.concatenate((anywhere, near + rng.normal(0.0, 0.4, near.shape)))


def square() -> Track:
    """Centre 4 m × 4 m from (0, 0), borders 0.5 m beside it; counter-clockwise, waypoints 1 m apart."""
    t = np.arange(4.0)
    zero, four = np.zeros(4), np.full(4, 4.0)
    x, y = np.concatenate((t, four, 4 - t, zero)), np.concatenate((zero, t, four, 4 - t))
    center = np.stack((np.append(x, 0.0), np.append(y, 0.0)), axis=1)
    around = center - 2.0
    return track_from_array(np.concatenate((center, around * 0.75 + 2.0, around * 1.25 + 2.0), axis=1), "square")


@pytest.mark.parametrize("direction", ["as stored", "reversed"])
@pytest.mark.parametrize("name", REAL_NAMES + SHIPPED_NAMES)
def test_projection_is_that_of_shapely(name: str, direction: str) -> None:
    track = the_track(name)
    if direction == "reversed":
        track = track.reversed()
    center, left, right = (LinearRing(line) for line in (track.center, track.left, track.right))
    # DeepRacer's own recipe, with inner and outer from the direction.
    inner, outer = (left, right) if center.is_ccw else (right, left)
    normalised = [center.project(Point(p), normalized=True) for p in center.coords[:-1]] + [1.0]
    points = scattered(track, 300)
    found = TrackSet([load_track("first_oval"), track]).project(np.ones(300, dtype=int), points)
    at_waypoint = 0
    for i, xy in enumerate(points):
        point = Point(xy)
        nd = center.project(point, normalized=True)
        nearest = center.interpolate(nd, normalized=True)
        on_inner = inner.interpolate(inner.project(nearest))
        on_outer = outer.interpolate(outer.project(nearest))
        offset_m = abs(found.s_m[i] - nd * center.length)
        assert min(offset_m, center.length - offset_m) < 1e-6
        assert found.distance_m[i] == pytest.approx(point.distance(nearest), abs=1e-6)
        assert found.track_width_m[i] == pytest.approx(on_inner.distance(on_outer), abs=1e-3)
        to_inner, to_outer = point.distance(on_inner), point.distance(on_outer)
        sides = {True: found.left_distance_m[i], False: found.right_distance_m[i]}
        assert sides[center.is_ccw] == pytest.approx(to_inner, abs=1e-3)
        assert sides[not center.is_ccw] == pytest.approx(to_outer, abs=1e-3)
        if abs(to_inner - to_outer) > 1e-6:
            assert found.is_left_of_center[i] == ((to_inner < to_outer) ^ (not center.is_ccw))
        closest = min(abs(nd - each) for each in normalised)
        if closest > 1e-9:
            after = bisect.bisect_right(normalised, nd)
            assert (found.prev_waypoint[i], found.next_waypoint[i]) == (after - 1, after % len(normalised))
        else:
            # Exactly at a waypoint shapely's last bit decides; by the definition that waypoint is the previous one.
            at_waypoint += 1
            here = track.center[found.prev_waypoint[i]]
            assert nearest.distance(Point(here)) < 1e-9
            assert found.next_waypoint[i] == found.prev_waypoint[i] + 1
    assert at_waypoint > 0, "the points should include some on the outside of bends"


@pytest.mark.parametrize("name", REAL_NAMES + SHIPPED_NAMES)
def test_on_track_is_that_of_shapely(name: str) -> None:
    track = the_track(name)
    road = Polygon(track.outer, [track.inner])
    points = scattered(track, 400, seed=1).reshape(100, 4, 2)
    found = TrackSet([track]).on_track(np.zeros(100, dtype=int), points)
    wanted = np.array([[road.contains(Point(wheel)) for wheel in car] for car in points])
    clear = np.array([[road.boundary.distance(Point(wheel)) > 1e-9 for wheel in car] for car in points])
    assert np.array_equal(found[clear], wanted[clear])
    assert 0.2 < found.mean() < 0.9
    assert np.array_equal(found, TrackSet([track.reversed()]).on_track(np.zeros(100, dtype=int), points))


def test_a_wheel_on_the_line_is_off_the_road() -> None:
    tracks = TrackSet([square()])
    wheels = np.array(
        [[[2.0, -0.5], [2.0, 0.5], [4.5, 2.0], [4.5, 4.5]], [[2.0, -0.49], [2.0, 0.49], [4.49, 2.0], [4.49, 4.49]]]
    )
    assert tracks.on_track([0, 0], wheels).tolist() == [[False] * 4, [True] * 4]


def test_projection_on_a_square_by_hand() -> None:
    found = TrackSet([square()]).project([0, 0, 0, 0], [[2.25, 0.1], [2.25, -0.1], [4.2, -0.2], [0.0, 0.5]])
    assert found.s_m == pytest.approx([2.25, 2.25, 4.0, 15.5])
    assert found.lateral_m == pytest.approx([0.1, -0.1, -math.hypot(0.2, 0.2), 0.0])
    assert found.heading_rad == pytest.approx([0.0, 0.0, math.pi / 2, -math.pi / 2])
    assert found.prev_waypoint.tolist() == [2, 2, 4, 15]
    assert found.next_waypoint.tolist() == [3, 3, 5, 16], "16 is the closing duplicate"
    assert found.track_width_m[:2] == pytest.approx([1.0, 1.0])
    assert found.left_distance_m[:2] == pytest.approx([0.4, 0.6])
    assert found.right_distance_m[:2] == pytest.approx([0.6, 0.4])
    assert found.is_left_of_center[:3].tolist() == [True, False, False]


def test_a_point_at_the_first_waypoint_has_no_distance_covered() -> None:
    # Nearest to the corner where the lap begins: it ends one segment and begins another.
    found = TrackSet([square()]).project([0], [[-0.3, -0.3]])
    assert (found.s_m[0], found.prev_waypoint[0], found.next_waypoint[0]) == (0.0, 0, 1)


def test_reversed_track_has_the_mirror_image_answers() -> None:
    track = load_track("mountain_road")
    points = scattered(track, 200, seed=2)
    which = np.zeros(200, dtype=int)
    one, other = (TrackSet([each]).project(which, points) for each in (track, track.reversed()))
    assert one.distance_m == pytest.approx(other.distance_m)
    assert np.array_equal(one.is_left_of_center, ~other.is_left_of_center)
    assert np.mod(one.s_m + other.s_m + 1.0, track.length_m) == pytest.approx(1.0)
    assert one.left_distance_m == pytest.approx(other.right_distance_m)
    assert one.lateral_m == pytest.approx(-other.lateral_m)


def everything(
    tracks: TrackSet, which: np.ndarray, xy: np.ndarray, wheels: np.ndarray, s_m: np.ndarray
) -> list[np.ndarray]:
    projection = tracks.project(which, xy)
    return [
        *(getattr(projection, field.name) for field in fields(Projection)),
        tracks.on_track(which, wheels),
        *tracks.pose_at(which, s_m, xy[:, 0] * 0.05),
        tracks.curvature_ahead(which, s_m, [0.5, 1.0, 2.0]),
    ]


def test_slices_in_threads_give_the_same_bits() -> None:
    tracks = TrackSet([load_track(name) for name in SHIPPED_NAMES])
    rng = np.random.default_rng(3)
    cars = 3000
    which = rng.integers(3, size=cars)
    xy = rng.uniform(0, 14, (cars, 2))
    wheels = rng.uniform(0, 14, (cars, 4, 2))
    s_m = rng.uniform(-50, 100, cars)
    whole = everything(tracks, which, xy, wheels, s_m)
    cuts = [slice(start, start + 37) for start in range(0, cars, 37)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda cut: everything(tracks, which[cut], xy[cut], wheels[cut], s_m[cut]), cuts))
    for index, wanted in enumerate(whole):
        got = np.concatenate([part[index] for part in parts])
        assert got.tobytes() == wanted.tobytes()


def test_a_track_answers_the_same_alone_and_padded_among_longer_ones() -> None:
    short, long = load_track("first_oval"), load_track("mountain_road")
    points = scattered(short, 100)
    wheels = np.repeat(points[:, None], 4, axis=1)
    alone = everything(TrackSet([short]), np.zeros(100, dtype=int), points, wheels, points[:, 0])
    among = everything(TrackSet([long, short]), np.ones(100, dtype=int), points, wheels, points[:, 0])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(alone, among, strict=True))


@pytest.mark.parametrize("name", [*SHIPPED_NAMES, "reinvent_base", "penbay_pro_cw"])
def test_pose_at_goes_there_and_project_comes_back(name: str) -> None:
    track = the_track(name)
    tracks = TrackSet([track])
    s_m = np.random.default_rng(4).uniform(0.0, track.length_m, 300)
    aside_m = np.random.default_rng(5).uniform(-0.25, 0.25, 300)
    which = np.zeros(300, dtype=int)
    xy, heading = tracks.pose_at(which, s_m, aside_m)
    back = tracks.project(which, xy)
    offset_m = np.abs(back.s_m - s_m)
    assert np.minimum(offset_m, track.length_m - offset_m).max() < 0.06
    assert back.lateral_m == pytest.approx(aside_m, abs=0.01)
    difference = np.angle(np.exp(1j * (back.heading_rad - heading)))
    assert np.abs(difference).max() < 0.35, "a bend of 0.57 m radius turns 0.26 rad from one waypoint to the next"
    on_center, _ = tracks.pose_at(which, s_m)
    assert tracks.project(which, on_center).distance_m.max() < 1e-9


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_pose_is_continuous_and_wraps(name: str) -> None:
    track = the_track(name)
    tracks = TrackSet([track])
    s_m = np.linspace(-1.0, track.length_m + 1.0, 20_001)
    xy, heading = tracks.pose_at(np.zeros(len(s_m), dtype=int), s_m, 0.2)
    step_m = s_m[1] - s_m[0]
    assert np.hypot(*np.diff(xy, axis=0).T).max() < 2.0 * step_m
    turn = np.abs(np.angle(np.exp(1j * np.diff(heading))))
    assert turn.max() < step_m / 0.5, "no step in the heading: no bend is tighter than 0.55 m"
    assert heading.min() > -math.pi and heading.max() <= math.pi
    for laps in (-2, 1, 3):
        again, _ = tracks.pose_at([0], [1.25 + laps * track.length_m])
        assert again == pytest.approx(tracks.pose_at([0], [1.25])[0], abs=1e-9)


def test_curvature_ahead_of_a_circle() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 401)
    unit = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    unit[-1] = unit[0]
    circle = track_from_array(np.concatenate((2 * unit, 1.6 * unit, 2.4 * unit), axis=1), "circle")
    tracks = TrackSet([circle, circle.reversed()])
    ahead = tracks.curvature_ahead([0, 1], [12.0, 12.0], [0.0, 0.5, 1.0, 2.0])
    assert ahead[0] == pytest.approx([0.0, 0.25, 0.5, 1.0], abs=1e-3), "12 m + 2 m passes the finish line"
    assert ahead[1] == pytest.approx([0.0, -0.25, -0.5, -1.0], abs=1e-3)
    assert tracks.curvature_ahead([0], [1.0], [7.0])[0, 0] == pytest.approx(3.5 - 2 * math.pi, abs=1e-2)


def test_curvature_over_a_lap_in_steps_is_one_turn() -> None:
    track = load_track("hairpin_alley")
    steps = np.arange(0.0, track.length_m - 1e-9, track.length_m / 200)
    turn = TrackSet([track]).curvature_ahead(np.zeros(200, dtype=int), steps, [track.length_m / 200])
    assert turn.sum() == pytest.approx(-2 * math.pi), "clockwise"


@pytest.mark.parametrize(
    ("s_m", "start_m", "previous", "wanted"),
    [
        (0.0, 0.0, 0.0, 0.0),  # at the start line: 0 becomes 100, which is taken back
        (2.0, 0.0, 0.0, 10.0),
        (19.8, 0.0, 0.0, -1.0),  # rolled back over the start line
        (19.0, 0.0, -1.0, -5.0),
        (19.8, 0.0, 98.0, 99.0),
        (0.2, 0.0, 99.0, 100.0),  # over the finish line: 101, cut to 100
        (0.0, 0.0, 99.0, 100.0),
        (1.0, 15.0, 20.0, 30.0),  # a start elsewhere: the seam of the track is in the middle of the lap
        (14.9, 15.0, 99.0, 99.5),
        (15.1, 15.0, 99.5, 100.0),
        (14.9, 15.0, 0.5, -0.5),
    ],
)
def test_progress(s_m: float, start_m: float, previous: float, wanted: float) -> None:
    assert progress_percent(s_m, start_m, 20.0, previous) == pytest.approx(wanted)


def test_progress_over_a_whole_lap_grows_to_100() -> None:
    start_m = np.array([0.0, 3.7, 19.99])
    percent = np.zeros(3)
    seen = []
    for step in range(1, 101):
        percent = TrackSet.progress_percent(np.mod(start_m + 0.2001 * step, 20.0), start_m, 20.0, percent)
        seen.append(percent)
    assert np.all(np.diff(np.array(seen), axis=0) > 0.0)
    assert percent.tolist() == [100.0] * 3


def test_wrong_arguments_are_refused_before_the_kernels_run() -> None:
    tracks = TrackSet([load_track("first_oval")])
    with pytest.raises(IndexError, match="from 0 to 0"):
        tracks.project([1], [[0.0, 0.0]])
    with pytest.raises(IndexError):
        tracks.on_track([-1], np.zeros((1, 4, 2)))
    with pytest.raises(ValueError, match="points has shape"):
        tracks.project([0], [[0.0, 0.0, 0.0]])
    with pytest.raises(TrackError, match="at least one"):
        TrackSet([])


def test_a_car_without_a_place_is_nowhere() -> None:
    tracks = TrackSet([load_track("first_oval")])
    nowhere = np.full((1, 4, 2), np.nan)
    assert not tracks.on_track([0], nowhere).any()
    assert np.isnan(tracks.project([0], nowhere[:, 0]).distance_m[0])
