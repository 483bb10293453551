"""What the monitor knows of a run, read from its folder by a thread, without torch or the simulator."""

from __future__ import annotations

import base64
import contextlib
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.video import encode
from sim.track import Track
from trainer.errors import RunError
from trainer.monitor.feed import LiveCars, Viewer, is_running
from trainer.monitor.metrics import PLOTS, Metrics, numbers
from trainer.monitor.traces import Traces
from trainer.run_files import saved_tracks

if TYPE_CHECKING:
    from trainer.monitor.replay import Replay

_POLL_S = 0.5
_BREATH_S = 0.004  # between two pieces of a long file, so that requests are answered meanwhile
_STALE_S = 2.0  # cars stand while the policy learns; older than this, they are said to
LEVELS = 254  # of the heat map's colours; 0 is "nobody drove here"


def tracks_of(run: Path) -> list[Track]:
    """The tracks of a run folder, by their names.

    Raises:
        RunError: it is no run folder.
    """
    tracks = saved_tracks(run)
    if not (run / "config.toml").is_file() or not tracks:
        raise RunError(
            f"{run} is not a run: it has no config.toml" if tracks else f"{run} is not a run: it has no inputs/*.npy",
            cause="a wrong path, or a run that was stopped before it began",
            next_step=f"hotlap train --track NAME --out {run} --monitor",
        )
    return tracks


class Monitor:
    """A run under observation.

    Args:
        run: its folder.
        read_traces: the heat map and the last episodes are wanted as well.
    """

    def __init__(self, run: Path, read_traces: bool = True) -> None:
        self.run, self.tracks = run, tracks_of(run)
        self.metrics, self.traces = Metrics(run), Traces(run, self.tracks) if read_traces else None
        self.viewer = Viewer(run)
        self.lock = threading.Lock()
        self.reading = True  # not at the end of what there is yet
        self._stop = threading.Event()
        self._replay: Replay | None = None
        self._begun_s = time.monotonic()
        self._thread = threading.Thread(target=self._read_on, name="monitor-reader", daemon=True)

    def start(self) -> None:
        """Read on until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; nobody looks any more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self.viewer.close()
        if self._replay is not None:
            self._replay.close()

    def read_all(self) -> None:
        """Everything there is now, at once."""
        while self._read_piece():
            pass

    def _read_on(self) -> None:
        while not self._stop.is_set():
            more = self._read_piece()
            self.reading = more
            self._stop.wait(_BREATH_S if more else _POLL_S)

    def _read_piece(self) -> bool:
        with self.lock:
            more = self.metrics.read()
        if not more and self.traces is not None:
            with self.lock, contextlib.suppress(OSError):
                more = self.traces.read()
        return more

    # -- what is asked of it --------------------------------------------------------------------------------------

    def about(self) -> dict[str, object]:
        """What does not change: tracks and plots."""
        return {
            "run": self.run.resolve().name,
            "tracks": [
                {"name": t.name, "length_m": round(t.length_m, 2), **{side: _line(getattr(t, side)) for side in _SIDES}}
                for t in self.tracks
            ],
            "plots": [
                {"key": p.key, "title": p.title, "unit": p.unit, "says": p.says, "curves": [c[1] for c in p.curves]}
                for p in PLOTS
            ],
        }

    def figures(self) -> dict[str, object]:
        """The newest figures, None where there is none yet."""
        with self.lock:
            newest = dict(self.metrics.newest)
            rows = self.metrics.rows
            steps = self.traces.rows if self.traces is not None else 0
        return {"run": str(self.run), "running": is_running(self.run), "updates": rows, "logged_steps": steps} | {
            name: value if math.isfinite(value) else None for name, value in newest.items()
        }

    def plots(self, x: str) -> dict[str, object]:
        """All plots over ``x`` ("steps" or "wall_s"), reduced."""
        with self.lock:
            return {plot.key: self.metrics.plot(plot, x) for plot in PLOTS}

    def heat(self, track: int) -> dict[str, object]:
        """The heat map of a track: colour levels in base64, and what they mean."""
        if self.traces is None:
            return {"steps": 0}
        heat = self.traces.maps[track]
        with self.lock:
            mean, steps = heat.mean, float(heat.count.sum())
        there = mean[np.isfinite(mean)]
        if not len(there):
            return {"steps": 0}
        # Between percentiles: one bad spot must not flatten the colours of all the rest.
        low, high = (float(v) for v in np.percentile(there, [2.0, 98.0]))
        share = np.clip((mean - low) / max(high - low, 1e-9), 0.0, 1.0)
        levels = np.where(np.isfinite(mean), 1 + np.nan_to_num(share) * LEVELS, 0).astype(np.uint8)
        return {
            "steps": int(steps), "rows": heat.rows, "columns": heat.columns, "cell_m": heat.cell_m,
            "x_m": heat.x_m, "y_m": heat.y_m, "low": float(f"{low:.4g}"), "high": float(f"{high:.4g}"),
            "levels": base64.b64encode(levels.tobytes()).decode(),
        }  # fmt: skip

    def live(self, car: int) -> dict[str, object]:
        """Where the cars are, and the picture of one of them."""
        running = is_running(self.run)
        if running:
            self.viewer.look([car])
            found = self.viewer.read()
            if found is not None:
                cars, age_s = found
                return self._shown(cars, car, "live" if age_s < _STALE_S else "waiting") | {"age_s": round(age_s, 2)}
        elif self.traces is not None and self.traces.episodes:
            return self._again(car)
        begun = running or self.metrics.rows
        return {"mode": "starting" if running or not begun else "over", "cars": []}

    def _again(self, car: int) -> dict[str, object]:
        """The last episodes, driven again."""
        assert self.traces is not None
        with self.lock:
            episodes = list(self.traces.episodes)
            if self._replay is None:
                from trainer.monitor.replay import Replay  # the camera is compiled code, which takes a moment to load

                self._replay = Replay(self.run, self.tracks)
        return self._shown([self._replay.at(episodes, time.monotonic() - self._begun_s, car)], car, "replay")

    def _shown(self, several: list[LiveCars], car: int, mode: str) -> dict[str, object]:
        rows, picture = [], None
        for cars in several:
            columns = (
                cars.number, *cars.xy_m.T, cars.heading_rad, cars.progress, cars.speed_mps, cars.track
            )  # fmt: skip
            rows += [numbers(row) for row in np.column_stack(columns).astype(np.float64)]
            found = cars.pictures.get(car - cars.first)
            picture = picture if found is None else data_url(found)
        stamp = sum(cars.stamp for cars in several)
        return {"mode": mode, "stamp": stamp, "cars": rows, "picture": picture}


_SIDES = ("center", "left", "right")


def _line(points: NDArray[np.float64]) -> list[list[float]]:
    every = max(1, len(points) // 400)  # a drawing needs no more
    return [[round(x, 3), round(y, 3)] for x, y in (*points[:-1:every].tolist(), points[0].tolist())]


def data_url(gray: NDArray[np.uint8]) -> str:
    """A gray picture as a JPEG that a page can show."""
    rows, columns = gray.shape
    return "data:image/jpeg;base64," + base64.b64encode(encode(np.ascontiguousarray(gray), columns, rows)).decode()


def wait_for_run(run: Path, timeout_s: float, stop: threading.Event) -> None:
    """Until the folder is a run, or the time is over: a training makes it after having checked its inputs."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and not (run / "config.toml").is_file():
        if stop.wait(0.1):
            return
