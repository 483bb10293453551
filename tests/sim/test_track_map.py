from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sim.errors import SimError
from sim.track import load_track
from sim.track_map import draw_map


def dark(picture: np.ndarray) -> np.ndarray:
    """Where the picture shows asphalt: dark and without colour."""
    return (picture.max(axis=2) < 100) & (np.ptp(picture.astype(int), axis=2) < 20)


@pytest.mark.parametrize("name", ["first_oval", "harbour_mile", "spiral_court"])
def test_the_map_shows_the_road_at_its_true_size(name: str, tmp_path: Path) -> None:
    track = load_track(name)
    picture = draw_map(track, tmp_path / "map.png", 600)
    assert np.array_equal(cv2.imread(str(tmp_path / "map.png")), picture)
    assert picture.dtype == np.uint8 and picture.shape[1] == 600
    rows, columns = np.nonzero(dark(picture[: int(picture.shape[0] - 70)]))
    xmin, ymin, xmax, ymax = track.bounds
    shape = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
    assert shape == pytest.approx((xmax - xmin) / (ymax - ymin), rel=0.05)
    px_per_m = (np.ptp(columns) + 1) / (xmax - xmin)
    area_m2 = len(rows) / px_per_m**2
    assert area_m2 == pytest.approx(track.length_m * track.width_m, rel=0.3), "lines and arrow cover some of it"


def test_the_direction_of_travel_shows() -> None:
    track = load_track("chicane_run")
    there, back = draw_map(track, None, 500), draw_map(track.reversed(), None, 500)
    places = []
    for picture in (there, back):
        b, g, r = (picture[..., channel].astype(int) for channel in range(3))
        arrow = (r > 200) & (g < 150) & (b < 120)
        assert arrow.sum() > 20
        places.append(np.argwhere(arrow).mean(axis=0))
    assert np.hypot(*(places[0] - places[1])) > 20.0, "the arrow is on the other side of the start line"


def test_too_small_or_unwritable(tmp_path: Path) -> None:
    track = load_track("first_oval")
    with pytest.raises(SimError, match="too small"):
        draw_map(track, None, 50)
    with pytest.raises(SimError, match="cannot be written"):
        draw_map(track, tmp_path / "no" / "such" / "folder.png", 200)
