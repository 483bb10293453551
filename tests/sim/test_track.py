from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import LinearRing

from sim.errors import TrackError
from sim.track import Track, check_track, load_track, save_track, shipped_names, track_from_array, track_to_array

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "tracks"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real DeepRacer tracks are not in ../shared/data/tracks")
REAL_FILES = sorted(REAL.glob("*.npy"))


def ring(radius_m: float, points: int = 60, x_m: float = 0.0, y_m: float = 0.0) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, points + 1)
    xy = np.stack((x_m + radius_m * np.cos(angle), y_m + radius_m * np.sin(angle)), axis=1)
    xy[-1] = xy[0]
    return xy


def table(width_m: float = 0.8, radius_m: float = 2.0) -> np.ndarray:
    return np.concatenate((ring(radius_m), ring(radius_m - width_m / 2), ring(radius_m + width_m / 2)), axis=1)


def refusal(array: np.ndarray) -> TrackError:
    with pytest.raises(TrackError) as caught:
        track_from_array(array, "probe")
    assert caught.value.cause and caught.value.next_step
    return caught.value


def test_a_circle_has_the_facts_of_a_circle() -> None:
    track = track_from_array(table(), "circle")
    assert track.is_ccw
    assert track.length_m == pytest.approx(2 * 60 * 2.0 * np.sin(np.pi / 60))
    assert track.width_m == pytest.approx(0.8)
    assert track.bounds == pytest.approx((-2.4, -2.4, 2.4, 2.4), abs=0.01)
    assert track.waypoints[0] == track.waypoints[-1] == (2.0, 0.0)
    assert len(track.waypoints) == 61 and type(track.waypoints[3][0]) is float
    assert np.hypot(*track.left.T) == pytest.approx(1.6), "counter-clockwise, the left border is the inner one"
    assert track.inner is track.left and track.outer is track.right


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("clockwise", [False, True])
def test_sides_come_from_the_geometry_not_from_the_columns(swapped: bool, clockwise: bool) -> None:
    array = table()
    if swapped:
        array = array[:, [0, 1, 4, 5, 2, 3]]
    if clockwise:
        array = array[::-1]
    track = track_from_array(array, "circle")
    assert track.is_ccw != clockwise
    forward = track.center[1] - track.center[0]
    to_left = track.left[0] - track.center[0]
    assert forward[0] * to_left[1] - forward[1] * to_left[0] > 0.0
    assert np.hypot(*track.inner.T) == pytest.approx(1.6)


def test_reversed_twice_is_the_same_road() -> None:
    track = load_track("chicane_run")
    back = track.reversed()
    assert back.name == "chicane_run_reversed"
    assert back.is_ccw != track.is_ccw
    assert back.length_m == pytest.approx(track.length_m)
    assert np.array_equal(back.left, track.right[::-1])
    assert np.array_equal(back.outer, track.outer[::-1]), (
        "which border is the outer one does not depend on the direction"
    )
    check_track(back)
    for line in ("center", "left", "right"):
        assert np.array_equal(getattr(back.reversed(), line), getattr(track, line))


def test_mirrored_turns_left_bends_into_right_bends() -> None:
    track = load_track("little_bean")
    mirror = track.mirrored()
    check_track(mirror)
    assert mirror.is_ccw != track.is_ccw
    assert np.array_equal(mirror.center, track.center * [-1, 1])


def test_saved_and_loaded_it_has_the_same_bytes(tmp_path: Path) -> None:
    track = load_track("hairpin_alley")
    path = tmp_path / "again.npy"
    save_track(track, path)
    again = load_track(path)
    assert again.name == "again"
    assert track_to_array(again).tobytes() == track_to_array(track).tobytes()
    assert load_track(str(path)).length_m == track.length_m


def test_repeated_rows_are_dropped_from_the_geometry_and_kept_in_the_numbers_of_waypoints(tmp_path: Path) -> None:
    array = table()
    longer = np.concatenate((array[:20], array[19:], array[-1:]))
    track = track_from_array(longer, "twice")
    assert np.array_equal(track.center, array[:, :2]) and np.array_equal(track.inner, array[:, 2:4])
    assert track.waypoints == [tuple(row) for row in longer[:, :2].tolist()]
    assert [track.waypoints[k] for k in track.waypoint_numbers] == [tuple(row) for row in track.center.tolist()]
    assert track.waypoint_numbers[[18, 19, 20]].tolist() == [18, 20, 21], "of a repeated row the last number"
    back = track.reversed()
    assert back.waypoints == track.waypoints[::-1]
    assert back.waypoint_numbers[[40, 41, 42]].tolist() == [41, 43, 44]
    assert track.mirrored().waypoint_numbers.tolist() == track.waypoint_numbers.tolist()
    save_track(track, tmp_path / "twice.npy")
    assert np.array_equal(np.load(tmp_path / "twice.npy"), longer)


def test_the_arrays_of_a_track_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_track("first_oval").center[0] = 0.0


@needs_real
@pytest.mark.parametrize(
    "path", [path for path in REAL_FILES if "Straight" not in path.name], ids=lambda path: path.stem
)
def test_every_closed_real_track_is_accepted(path: Path) -> None:
    array = np.load(path)
    track = load_track(path)
    assert track.length_m == pytest.approx(LinearRing(array[:, :2]).length)
    assert track.is_ccw == LinearRing(array[:, :2]).is_ccw
    areas = [abs(LinearRing(line).envelope.area) for line in (track.inner, track.center, track.outer)]
    assert areas == sorted(areas)
    check_track(track.reversed())
    check_track(track.mirrored())


@needs_real
def test_the_real_straight_is_refused_as_open() -> None:
    with pytest.raises(TrackError, match=r"is open.* 5\.707 m from the first"):
        load_track(REAL / "Straight_track.npy")


def test_unknown_name_names_the_nearest_and_the_command() -> None:
    with pytest.raises(TrackError, match="'hairpin_alley'") as caught:
        load_track("hairpin_aly")
    assert caught.value.next_step == "hotlap tracks"
    assert "hairpin_alley" in shipped_names()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there is no track file"), (b"", "cannot be read"), (b"not numpy at all", "cannot be read")],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "broken.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrackError, match=reason):
        load_track(path)


def test_pickles_and_archives_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TrackError, match="cannot be read"):
        load_track(tmp_path / "objects.npy")
    np.savez(tmp_path / "many.npz", table())
    with pytest.raises(TrackError, match="archive"):
        load_track(tmp_path / "many.npz")


@pytest.mark.parametrize(
    "array",
    [np.zeros((100, 4)), np.zeros(600), np.zeros((3, 6)), np.zeros((6000, 6)), table().astype(complex), table() > 0],
    ids=["four columns", "flat", "three rows", "six thousand rows", "complex", "booleans"],
)
def test_wrong_shape(array: np.ndarray) -> None:
    assert "wanted (N, 6) numbers" in refusal(array).what


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_says_how_many_and_where(value: float) -> None:
    array = table()
    array[7, 3] = array[20, 5] = value
    what = refusal(array).what
    assert "2 of 366 numbers are not finite" in what and "row 7 (inner y)" in what


def test_open_gives_the_gap() -> None:
    assert "open: the last point of its centre is 0.209 m" in refusal(table()[:-1]).what
    array = table()
    array[-1, 4] += 0.05
    assert "outer border is 0.050 m" in refusal(array).what


def test_too_short() -> None:
    assert "2.51 m long, the least is 3 m" in refusal(table(radius_m=0.4, width_m=0.5)).what


def test_too_narrow_says_where() -> None:
    assert "too narrow: 0.30" in refusal(table(width_m=0.3)).what
    assert track_from_array(table(width_m=0.36), "just wide enough").width_m == pytest.approx(0.36)
    array = table(width_m=0.8)
    array[15, 2:4] *= 1.93 / 1.6  # one point of the inner border at (0, 1.93), 0.47 m from the outer one: still fine
    track_from_array(array, "dent")
    array[15, 4:6] *= 2.2 / 2.4
    what = refusal(array).what
    assert "too narrow: 0.27" in what and "(0.00, " in what


def figure_of_eight(points: int) -> np.ndarray:
    t = np.linspace(0.0, 2.0 * np.pi, points + 1)
    center = np.stack((4.0 * np.sin(t) + np.sin(2 * t), 2.0 * np.sin(2 * t)), axis=1)
    center[-1] = center[0]
    tangent = np.gradient(center, axis=0)
    tangent[0] = tangent[-1] = center[1] - center[-2]
    normal = np.stack((-tangent[:, 1], tangent[:, 0]), axis=1) / np.hypot(*tangent.T)[:, None]
    return np.concatenate((center, center + 0.35 * normal, center - 0.35 * normal), axis=1)


@pytest.mark.parametrize("points", [80, 81])
def test_a_figure_of_eight_is_refused(points: int) -> None:
    # With 80 points both branches pass through the same waypoint: they touch there, no segment crosses another.
    what = refusal(figure_of_eight(points)).what
    assert "centre that crosses itself at (" in what and "0.00, " in what


def test_a_border_with_a_loop_is_refused() -> None:
    array = table()
    array[[20, 21], 2:4] = array[[21, 20], 2:4]
    assert "border that crosses itself" in refusal(array).what


def test_a_border_that_folds_back_is_refused() -> None:
    track = track_from_array(table(), "circle")
    left = np.array(track.left)
    left[20] = left[19] + 2.0 * (left[19] - left[18])
    left[21] = left[19]
    with pytest.raises(TrackError, match=r"left border that folds back on itself at \("):
        check_track(Track("spike", track.center, left, track.right))


def test_a_border_across_the_centre_is_refused() -> None:
    array = table()
    array[10:20, 2:4] *= 2.2 / 1.6
    assert "centre that crosses its left border at (" in refusal(array).what


def test_overlapping_roads_are_refused() -> None:
    # Two parallel straights 0.7 m apart with a road 0.8 m wide: the centre and each border by itself are fine.
    angle = np.linspace(0.0, 2.0 * np.pi, 121)
    flat = np.stack((3.0 * np.cos(angle), 0.38 * np.tanh(3.0 * np.sin(angle))), axis=1)
    flat[-1] = flat[0]
    wide = flat * [1.2, 2.0]
    thin = flat * [0.8, 1.2]
    what = refusal(np.concatenate((flat, thin, wide), axis=1)).what
    assert "crosses its" in what


def test_borders_on_the_wrong_side() -> None:
    track = track_from_array(table(), "circle")
    with pytest.raises(TrackError, match="left border on the wrong side"):
        check_track(Track("swapped", track.center, track.right, track.left))
    with pytest.raises(TrackError, match="right border on the wrong side"):
        check_track(Track("both inside", track.center, track.left, track.left * 1.1))
    with pytest.raises(TrackError, match="runs against"):
        check_track(Track("against", track.center, track.left[::-1], track.right))


def test_check_track_judges_hand_made_tracks_too() -> None:
    track = track_from_array(table(), "circle")
    with pytest.raises(TrackError, match="shape"):
        check_track(Track("lengths", track.center, track.left[:-1], track.right))
    broken = np.array(track.left)
    broken[5, 1] = np.nan
    with pytest.raises(TrackError, match="1 numbers that are not finite in its left border, the first at point 5"):
        check_track(Track("nan", track.center, broken, track.right))
    with pytest.raises(TrackError, match="open"):
        check_track(Track("open", track.center[:-1], track.left[:-1], track.right[:-1]))
    doubled = [np.insert(line, 9, line[9], axis=0) for line in (track.center, track.left, track.right)]
    with pytest.raises(TrackError, match="repeats point 9"):
        check_track(Track("double", *doubled))
