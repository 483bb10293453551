"""The tracks that come with hotlap, each drawn here from a few corners, and the seeded generator of more.

``python -m sim.track_library`` writes sim/tracks/NAME.npy from the table below; both are kept, so that loading a track
needs no drawing and a change of the drawing shows in the files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.errors import TrackError
from sim.track import SHIPPED_FOLDER, Track, check_track, load_track, save_track, shipped_names, track_path
from sim.track_generator import generate_track
from sim.track_shapes import MIN_RADIUS_M, describe, min_radius_m, road, rounded_ring

__all__ = ["describe", "draw", "generate_track", "load_track", "main", "shipped_names", "track_path"]


@dataclass(frozen=True)
class Drawing:
    """A track on paper: corners (x m, y m, radius m) in the order of travel, and the road's width."""

    width_m: float
    corners: tuple[tuple[float, float, float], ...]


DRAWINGS: dict[str, Drawing] = {
    # An egg: one wide end, one narrow end, left bends only. The easiest one.
    "first_oval": Drawing(0.9, ((0, 0, 1.3), (6.0, 0.5, 1.0), (6.0, 2.7, 1.0), (0, 3.6, 1.6))),
    # A bean: the least that asks for both directions.
    "little_bean": Drawing(0.8, ((0, 0, 1.2), (6.4, 0, 1.2), (6.4, 3.0, 1.1), (3.4, 2.0, 1.6), (0, 3.2, 1.2))),
    # Two long straights side by side, joined by tight turns, with a third lane folded in. Clockwise.
    "hairpin_alley": Drawing(
        0.75,
        (
            (0, 0, 0.8), (0, 4.4, 0.8), (8.4, 4.4, 0.8), (8.4, 2.75, 0.8), (2.6, 2.9, 0.75), (2.6, 1.4, 0.75),
            (9.4, 1.5, 0.8), (9.4, 0, 0.8),
        ),
    ),
    # Two long sides, each broken by quick flicks from side to side.
    "chicane_run": Drawing(
        0.8,
        (
            (0, 0, 1.2), (2.6, 0, 0.8), (4.0, 1.3, 0.8), (5.5, -0.2, 0.8), (6.9, 0.6, 0.9), (10.4, 0.3, 1.2),
            (10.4, 4.0, 1.2), (7.4, 4.2, 0.8), (6.1, 2.8, 0.8), (4.7, 4.4, 0.8), (3.4, 3.6, 0.8), (0, 3.9, 1.1),
        ),
    ),
    # S bends all the way along one side, a fast way back along the other. Clockwise.
    "snake_pass": Drawing(
        0.85,
        (
            (0, 0, 1.2), (-0.3, 3.0, 1.1), (1.8, 3.9, 0.9), (3.2, 1.9, 0.9), (4.9, 1.9, 0.9), (6.0, 4.4, 0.95),
            (7.8, 4.4, 0.95), (8.9, 1.9, 0.9), (10.5, 2.0, 0.9), (11.6, 4.2, 0.95), (13.4, 3.4, 1.0), (13.0, -0.6, 1.4),
            (6.5, 0.3, 4.0),
        ),
    ),
    # Four leaves around a yard: every lobe a wide left bend, every notch a right one.
    "clover_field": Drawing(
        0.9,
        (
            (4.0, 3.0, 0.9), (4.2, 0, 1.3), (8.0, -0.2, 1.3), (8.2, 3.2, 1.0), (11.4, 3.6, 1.3), (11.4, 7.2, 1.3),
            (8.2, 7.2, 0.9), (8.0, 10.4, 1.3), (4.4, 10.4, 1.3), (4.2, 7.0, 1.0), (1.0, 7.0, 1.3), (1.0, 3.4, 1.3),
        ),
    ),
    # Two long straights, a quick kink on one, a tight loop at each end: full speed, then hard on the brakes. Clockwise.
    "harbour_mile": Drawing(
        1.0,
        (
            (0.4, 3.4, 1.2), (5.6, 3.9, 3.0), (9.6, 2.8, 2.5), (13.2, 2.9, 1.3), (15.2, 4.6, 1.0), (18.8, 4.2, 1.2),
            (18.4, 0.9, 1.1), (11.6, 0.9, 2.5), (9.0, 0, 2.5), (0, 0, 1.1),
        ),
    ),
    # Narrow and busy: hardly a straight longer than a car's braking distance. Clockwise.
    "old_mill": Drawing(
        0.65,
        (
            (0, 0, 0.8), (0.1, 3.1, 0.8), (2.2, 3.2, 0.7), (2.4, 4.9, 0.8), (4.6, 5.0, 0.8), (4.8, 3.0, 0.7),
            (6.8, 2.4, 0.8), (7.0, 0.2, 0.8), (4.9, 0, 0.7), (4.2, 1.2, 0.7), (2.7, 1.2, 0.7), (2.2, 0, 0.7),
        ),
    ),
    # Up one slope, down into the saddle, up the next. Clockwise.
    "twin_peaks": Drawing(
        0.8,
        (
            (-0.9, 2.6, 1.4), (1.4, 5.6, 0.8), (3.2, 5.6, 0.8), (4.3, 2.3, 0.8), (5.4, 2.3, 0.8), (6.6, 5.9, 0.8),
            (8.2, 6.2, 0.8), (10.4, 2.4, 1.4), (9.6, 0, 1.1), (0, 0, 1.1),
        ),
    ),
    # The road winds into the middle, turns about in a hairpin and winds out again. Clockwise.
    "spiral_court": Drawing(
        0.8,
        (
            (0, 0, 1.2), (0, 7.2, 1.2), (8.6, 7.2, 1.2), (8.6, 2.0, 1.0), (3.6, 2.0, 1.0), (3.6, 4.4, 0.75),
            (5.15, 4.4, 0.75), (5.3, 3.6, 0.7), (7.0, 3.6, 0.8), (7.0, 5.7, 0.9), (1.9, 5.7, 1.0), (1.9, 0.3, 0.9),
            (1.2, 0.0, 0.6),
        ),
    ),
    # The long one: a climb of S bends, a hairpin at the top, sweepers on the way down, a last chicane.
    "mountain_road": Drawing(
        0.9,
        (
            (0, 0.3, 1.4), (7.0, 0.3, 1.6), (8.6, 1.8, 1.3), (11.4, 0.4, 1.4), (15.6, 0.4, 1.3), (16.0, 3.0, 1.2),
            (12.6, 3.6, 1.2), (12.4, 6.0, 1.0), (16.2, 6.0, 1.1), (16.4, 9.3, 1.2), (12.6, 9.6, 1.1), (10.6, 7.4, 1.4),
            (8.2, 10.2, 1.2), (6.2, 9.9, 0.9), (6.4, 5.2, 1.0), (4.4, 5.0, 0.9), (4.0, 8.8, 1.0), (0.2, 8.8, 1.5),
            (1.3, 4.6, 2.0),
        ),
    ),
    # Wide sweepers at speed and one flick to the right.
    "wide_bowl": Drawing(
        1.1,
        (
            (0, 0, 2.2), (8.4, -0.6, 2.2), (10.2, 3.4, 1.8), (8.2, 6.6, 1.8), (5.6, 4.4, 1.7), (2.6, 6.6, 1.6),
            (-0.6, 5.2, 1.9),
        ),
    ),
}  # fmt: skip


def draw(name: str) -> Track:
    """Draw a shipped track from its corners. Raises TrackError for an unknown name or a road unfit to race on."""
    drawing = DRAWINGS.get(name)
    if drawing is None:
        raise TrackError(f"no drawing is called {name!r}", cause="it is not in DRAWINGS", next_step="hotlap tracks")
    corners = np.array(drawing.corners, dtype=np.float64)
    track = road(name, rounded_ring(corners[:, :2], corners[:, 2]), drawing.width_m)
    check_track(track)
    tightest_m = min_radius_m(track)
    if tightest_m < MIN_RADIUS_M:
        raise TrackError(
            f"the drawing {name!r} has a bend of radius {tightest_m:.2f} m, the least is {MIN_RADIUS_M} m",
            cause="two corners are too close for their radii",
            next_step="move them apart in sim/track_library.py",
        )
    return track


def main() -> None:
    """Write every shipped track."""
    SHIPPED_FOLDER.mkdir(exist_ok=True)
    for name in DRAWINGS:
        track = draw(name)
        save_track(track, SHIPPED_FOLDER / f"{name}.npy")
        facts = describe(track)
        print(
            f"{name:15} {facts['length_m']:6.2f} m long, {facts['width_m']:.2f} m wide, {facts['direction']}, "
            f"tightest radius {facts['min_radius_m']:.2f} m"
        )


if __name__ == "__main__":
    main()
