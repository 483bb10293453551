"""A run that is over: its last logged episodes driven again, as a viewer of the live view sees them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.camera import Atlas, RoadCamera
from sim.car_spec import load_car
from sim.look import draw_surface, nominal_appearance
from sim.threads import Workers
from sim.track import Track
from trainer.monitor.feed import LiveCars
from trainer.monitor.traces import Episode
from vehicle.observation import HEIGHT, WIDTH

HZ = 10.0  # steps a second of a log
_PAUSE_STEPS = 10  # at its end, before an episode begins again


class Replay:
    """Draws what the camera of a logged car would see, in the tracks' nominal look.

    Logs have a car's position and heading, not how it leans: the picture is that of a car that stands level.
    """

    def __init__(self, run: Path, tracks: Sequence[Track]) -> None:
        self._tracks, self._car = tracks, load_car(run / "inputs" / "car.toml")
        self._cameras: dict[int, RoadCamera] = {}
        self._workers = Workers(1)
        self._lock = threading.Lock()

    def at(self, episodes: Sequence[Episode], time_s: float, car: int) -> LiveCars:
        """Each episode as a car, ``time_s`` after its beginning, over and over, and the picture of one of them."""
        ahead_m = self._car.body.front_point_m
        places = [int(time_s * HZ) % (len(e.rows) + _PAUSE_STEPS) for e in episodes]
        now = np.array([e.rows[min(k, len(e.rows) - 1)] for e, k in zip(episodes, places, strict=True)])
        before = np.array([e.rows[max(0, min(k, len(e.rows) - 1) - 1)] for e, k in zip(episodes, places, strict=True)])
        heading = now[:, 2]
        # Logs tell of a point at the car's front.
        xy_m = now[:, :2] - ahead_m * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        speed = np.hypot(*(now[:, :2] - before[:, :2]).T) * HZ
        pictures = {}
        if 0 <= car < len(episodes):
            pictures[car] = self._picture(episodes[car].track, float(xy_m[car, 0]), float(xy_m[car, 1]), heading[car])
        tracks = np.array([e.track for e in episodes])
        return LiveCars(xy_m, heading, now[:, 3], speed, tracks, pictures, stamp=int(time_s * HZ) + 1)

    def _picture(self, track: int, x_m: float, y_m: float, heading_rad: float) -> NDArray[np.uint8]:
        with self._lock:
            if track not in self._cameras:
                surface = draw_surface(self._tracks[track], nominal_appearance())
                self._cameras[track] = RoadCamera(Atlas([surface]), 1, self._car.camera, self._workers)
            pose = np.array([[x_m, y_m, 0.0, np.cos(heading_rad / 2), 0.0, 0.0, np.sin(heading_rad / 2)]])
            frame = np.zeros((1, HEIGHT, WIDTH), np.uint8)
            self._cameras[track].render(pose, np.ones(1, np.uint64), frame)
            picture: NDArray[np.uint8] = frame[0]
            return picture

    def close(self) -> None:
        """Stop the camera's thread."""
        self._workers.close()
