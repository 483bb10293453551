"""Where episodes begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.errors import SimError
from sim.track_set import TrackSet
from sim.world import Randomisation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STARTS = ("anywhere", "start_line", "advance")
_ADVANCE = 0.05  # of the lap, DeepRacer's ROUND_ROBIN_ADVANCE_DIST


@dataclass(frozen=True)
class Start:
    """Where k cars begin."""

    track: Ints  # (k,)
    xy_m: Floats  # (k, 2) middle between the axles
    heading_rad: Floats  # (k,)


class Starts:
    """Draws starts: anywhere on the track; the start line; or, as DeepRacer, 5 % of the lap further each episode.

    Tracks are visited in turn, so that every one gets its share.
    """

    def __init__(
        self, kind: str, tracks: TrackSet, lengths_m: Floats, widths_m: Floats, n: int, randomise: Randomisation,
        stretch: tuple[float, float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        if kind not in STARTS:
            raise SimError(f"unknown start {kind!r}", next_step=f"choose one of {', '.join(STARTS)}")
        self._kind, self._tracks, self._lengths, self._widths = kind, tracks, lengths_m, widths_m
        self._n, self._randomise, self._stretch = n, randomise, stretch

    def draw(self, ids: Ints, episode: Ints, uniform: Floats) -> Start:
        """Starts of the cars ``ids`` (k,) in their ``episode`` (k,), from uniform numbers (k, at least 3)."""
        track = (ids + episode) % len(self._lengths)
        length = self._lengths[track]
        if self._kind == "anywhere":
            low, high = self._stretch
            s = (low + (high - low) * uniform[:, 0]) * length
        elif self._kind == "start_line":
            s = np.zeros(len(ids))
        else:
            s = (ids / self._n + _ADVANCE * episode) % 1.0 * length
        side = self._randomise.start_lateral * self._widths[track] / 2
        lateral = (2 * uniform[:, 1] - 1) * side
        xy, heading = self._tracks.pose_at(track, s, lateral)
        heading = heading + np.radians(self._randomise.start_heading_deg) * (2 * uniform[:, 2] - 1)
        return Start(track.astype(np.int64), xy, heading)
