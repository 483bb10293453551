"""Pictures of time trials and of a training: driven lines over the track, and curves over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.path import Path as Outline

from trainer.errors import RunStorageError

Points = npt.NDArray[np.float64]


class TrackShape(Protocol):
    """The part of a track that pictures need: closed curves of shape (N+1, 2) in metres, the last point the first."""

    @property
    def name(self) -> str: ...
    @property
    def center(self) -> Points: ...
    @property
    def left(self) -> Points: ...
    @property
    def right(self) -> Points: ...
    @property
    def length_m(self) -> float: ...


class DrivenTrial(Protocol):
    """One time trial as it was driven: positions ``xy`` (T, 2) in metres, measured ``speed_mps`` (T,)."""

    @property
    def xy(self) -> npt.NDArray[np.floating]: ...
    @property
    def speed_mps(self) -> npt.NDArray[np.floating]: ...
    @property
    def completed(self) -> bool: ...
    @property
    def lap_time_s(self) -> float | None: ...


ROAD, BORDER, CENTRE, GROUND, INK = "#30363d", "#ffffff", "#f2c14e", "#dfe7de", "#1f2328"
OFF_TRACK = "#e5383b"
# Slow is blue and fast is red. Light and saturated enough throughout to be seen on the dark road.
SPEED_COLORS = LinearSegmentedColormap.from_list(
    "speed", ["#4895ef", "#3ddbd9", "#8ce99a", "#ffd43b", "#ff922b", "#ff4d4d"]
)
_TELEPORT_M = 0.6
"""Longer than any car moves in one control step; such a gap is a reset, and no line is drawn across it."""


def plot_lines(track: TrackShape, trials: Sequence[DrivenTrial], path_png: str | Path) -> Path:
    """Draw each trial's line over the track, coloured by speed, and return the picture's path.

    A cross marks each place where the front of a car left the road, a ring the end of an unfinished trial; the best
    lap's line is thicker. Raises RunStorageError when the file cannot be written.
    """
    low, high = np.minimum(track.left.min(0), track.right.min(0)), np.maximum(track.left.max(0), track.right.max(0))
    width_m, height_m = high - low
    figure = _figure(10.5, float(np.clip(8.6 * height_m / width_m + 1.6, 4.6, 11.0)))
    axes = figure.add_subplot()
    _draw_road(axes, track)
    lines = _draw_trials(axes, trials)
    _mark_trouble(axes, track, trials)

    # Margins in metres, so that borders and markers are not cut off and off-track lines stay in view.
    everything = np.vstack([low, high, *(t.xy[np.isfinite(t.xy).all(1)] for t in trials if len(t.xy))])
    low, high = everything.min(0), everything.max(0)
    margin_m = 0.04 * float((high - low).max())
    axes.set(xlim=(low[0] - margin_m, high[0] + margin_m), ylim=(low[1] - margin_m, high[1] + margin_m))
    axes.set_aspect("equal")
    axes.set_facecolor(GROUND)
    axes.set_xlabel("x (m)", color=INK)
    axes.set_ylabel("y (m)", color=INK)
    axes.tick_params(color="#8b949e", labelcolor="#57606a", labelsize=9)
    axes.spines[:].set_color("#c3ccc2")
    title, subtitle = _headline(track, trials)
    axes.set_title(title, loc="left", fontsize=16, fontweight="bold", color=INK, pad=29)
    axes.annotate(subtitle, (0, 1), (0, 10), "axes fraction", "offset points", fontsize=11, color="#57606a")
    if lines is not None:
        bar = figure.colorbar(lines, ax=axes, shrink=0.85, aspect=28, pad=0.015)
        bar.set_label("speed (m/s)", color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(color="#8b949e", labelcolor="#57606a", labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9)
    return _save(figure, path_png)


def _draw_road(axes: Axes, track: TrackShape) -> None:
    # One polygon along the left border and back along the right one: its seam has no width, so it fills the ring.
    axes.add_patch(Polygon(np.vstack([track.left, track.right[::-1]]), facecolor=ROAD, edgecolor="none", zorder=1))
    for border in (track.left, track.right):
        axes.plot(*border.T, color=ROAD, linewidth=4.4, zorder=1.5, solid_joinstyle="round")
        axes.plot(*border.T, color=BORDER, linewidth=2.0, zorder=2, solid_joinstyle="round")
    axes.plot(*track.center.T, color=CENTRE, linewidth=1.1, linestyle=(0, (6, 6)), alpha=0.75, zorder=2)
    # The start line: chequered, black dashes on a white line across the road.
    start = start_line(track)
    axes.plot(*start.T, color="white", linewidth=6, solid_capstyle="butt", zorder=2.5)
    axes.plot(*start.T, color="black", linewidth=6, linestyle=(0, (0.7, 0.7)), dash_capstyle="butt", zorder=2.6)


def _draw_trials(axes: Axes, trials: Sequence[DrivenTrial]) -> LineCollection | None:
    """All driven lines as one collection with one colour scale; None when nothing was driven."""
    laps = [t.lap_time_s for t in trials if t.completed and t.lap_time_s is not None]
    segments, speeds, widths = [], [], []
    ordinary = 1.9 if len(trials) <= 5 else 1.2
    for trial in trials:
        xy = np.asarray(trial.xy, dtype=np.float64).reshape(-1, 2)
        pairs = np.stack([xy[:-1], xy[1:]], axis=1)
        step_m = np.hypot(*(pairs[:, 1] - pairs[:, 0]).T)
        keep = step_m < _TELEPORT_M  # false for NaN too
        is_best = bool(laps) and len(trials) > 1 and trial.completed and trial.lap_time_s == min(laps)
        segments.append(pairs[keep])
        speeds.append(np.asarray(trial.speed_mps, dtype=np.float64)[1:][keep])
        widths.append(np.full(int(keep.sum()), 1.7 * ordinary if is_best else ordinary))
    if not segments or not sum(map(len, segments)):
        return None
    speed = np.concatenate(speeds)
    # Between percentiles: one glitch in a speed must not flatten the colours of all the rest.
    slow, fast = (float(v) for v in np.nanpercentile(speed, [1.0, 99.0]))
    middle, half = 0.5 * (slow + fast), max(0.5 * (fast - slow), 0.05)
    pieces = list(np.concatenate(segments))
    # A dark edge around each line keeps it visible on the light ground, and crossing lines apart.
    edge = LineCollection(pieces, colors=ROAD, linewidths=np.concatenate(widths) + 1.2, capstyle="round", zorder=3.5)
    axes.add_collection(edge)
    lines = LineCollection(
        pieces,
        cmap=SPEED_COLORS,
        norm=Normalize(max(0.0, middle - half), middle + half),
        linewidths=np.concatenate(widths),
        capstyle="round",
        alpha=0.9,
        zorder=4,
    )
    lines.set_array(speed)
    axes.add_collection(lines)
    return lines


def _mark_trouble(axes: Axes, track: TrackShape, trials: Sequence[DrivenTrial]) -> None:
    left_road = [leaving_points(track, np.asarray(t.xy, dtype=np.float64)) for t in trials if len(t.xy)]
    crosses = np.concatenate(left_road) if left_road else np.empty((0, 2))
    if len(crosses):
        label = f"left the road ({len(crosses)} times)" if len(crosses) > 1 else "left the road"
        axes.scatter(
            crosses[:, 0],
            crosses[:, 1],
            marker="X",
            s=80,
            color=OFF_TRACK,
            edgecolor="white",
            linewidth=1.0,
            zorder=6,
            label=label,
        )
    ends = np.array([t.xy[-1] for t in trials if len(t.xy) and not t.completed]).reshape(-1, 2)
    if len(ends):
        axes.scatter(
            ends[:, 0],
            ends[:, 1],
            s=110,
            facecolor="none",
            edgecolor=INK,
            linewidth=2.0,
            zorder=5,
            label="trial ended unfinished",
        )


def start_line(track: TrackShape) -> Points:
    """The start line (2, 2) across the road, from the left border to the right one.

    From the nearest point of each border to the first point of the centre line: rows of a DeepRacer file need not lie
    straight across the road.
    """
    return np.stack([_nearest(border, track.center[0]) for border in (track.left, track.right)])


def _nearest(line: Points, point: Points) -> Points:
    start, way = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum((way**2).sum(1), 1e-18)  # a repeated point is a segment without length
    share = np.clip(((point - start) * way).sum(1) / length2, 0.0, 1.0)
    feet = start + share[:, None] * way
    return np.asarray(feet[((feet - point) ** 2).sum(1).argmin()], dtype=np.float64)


def leaving_points(track: TrackShape, xy: Points) -> Points:
    """The points (K, 2) of a line ``xy`` (T, 2) that are off the road where the one before was on it."""
    inside = [Outline(border).contains_points(xy) for border in (track.left, track.right)]
    off = ~(inside[0] ^ inside[1])  # the road is inside one border and outside the other, whichever is the outer one
    first = off & ~np.concatenate([[False], off[:-1]])
    return np.asarray(xy[first], dtype=np.float64)


def _headline(track: TrackShape, trials: Sequence[DrivenTrial]) -> tuple[str, str]:
    done = [t for t in trials if t.completed]
    laps = [t.lap_time_s for t in done if t.lap_time_s is not None]
    completion = f"{len(done)} of {len(trials)} time trials completed" if trials else "no time trials"
    best = f"   ·   best lap {min(laps):.2f} s" if laps else ""
    fastest = f"   ·   {track.length_m / min(laps):.2f} m/s on average" if laps else ""
    return f"{completion}{best}", f"{track.name}   ·   {track.length_m:.1f} m{fastest}"


_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Reward of an episode", "", (("reward", "reward"),)),
    ("Lap completion", "%", (("completion", "training"), ("eval_completion", "evaluation"))),
    ("Entropy of the policy", "nat", (("entropy", "entropy"),)),
    ("Loss", "", (("loss", "total"), ("policy_loss", "policy"), ("value_loss", "value"))),
    ("Simulated steps per second", "1/s", (("steps_per_s", "steps/s"),)),
)
_SERIES_COLORS = ("#2f6fde", "#e8590c", "#2b8a3e")


def plot_training(rows: Sequence[Mapping[str, object]], path_png: str | Path) -> Path:
    """Draw the metrics of a training over its environment steps, and return the picture's path.

    Each row has ``steps`` and any of ``reward``, ``completion`` and ``eval_completion`` (0 to 1), ``entropy``,
    ``loss``, ``policy_loss``, ``value_loss``, ``steps_per_s``. A value that is missing or not a finite number leaves
    a gap for that row only. Raises RunStorageError when the file cannot be written.
    """
    figure = _figure(10.5, 9.0)
    grid = figure.add_gridspec(3, 2, hspace=0.08, wspace=0.06)
    places = [grid[0, :], grid[1, 0], grid[1, 1], grid[2, 0], grid[2, 1]]
    figure.suptitle("Training", fontsize=16, fontweight="bold", color=INK)
    for place, (title, unit, series) in zip(places, _PANELS, strict=True):
        _draw_panel(figure.add_subplot(place), rows, title, unit, series)
    return _save(figure, path_png)


def _draw_panel(
    axes: Axes, rows: Sequence[Mapping[str, object]], title: str, unit: str, series: tuple[tuple[str, str], ...]
) -> None:
    percent = unit == "%"
    drawn = 0
    for (key, label), color in zip(series, _SERIES_COLORS, strict=False):
        points = [(_number(row.get("steps")), _number(row.get(key))) for row in rows]
        steps, values = np.array([p for p in points if not any(map(math.isnan, p))]).reshape(-1, 2).T
        if not len(steps):
            continue
        drawn += 1
        values = 100.0 * values if percent else values
        many = len(steps) > 25
        axes.plot(steps, values, color=color, linewidth=1.0 if many else 1.8, alpha=0.3 if many else 1.0,
                  marker="o" if len(steps) == 1 else None, label=None if many else label)  # fmt: skip
        if many:  # the trend over the noise
            axes.plot(steps, _smooth(values, len(steps) // 25 + 1), color=color, linewidth=2.0, label=label)
    axes.set_title(title + (f" ({unit})" if unit else ""), fontsize=11, loc="left", color=INK, fontweight="bold")
    axes.set_xlabel("steps", fontsize=9, color="#57606a")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, color="#8b949e", labelcolor="#57606a")
    if percent:
        axes.set_ylim(-3.0, 103.0)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=9)
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#8b949e")
        axes.set(xticks=[], yticks=[])


def _number(value: object) -> float:
    """A finite float, or NaN for anything else."""
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    return math.nan


def _smooth(values: Points, reach: int) -> Points:
    """The mean of each value and up to ``reach`` neighbours on either side; at the ends of those there are."""
    kernel = np.ones(2 * reach + 1)
    total = np.convolve(values, kernel, mode="full")[reach:-reach]
    count = np.convolve(np.ones_like(values), kernel, mode="full")[reach:-reach]
    return total / count


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=130)
    figure.set_layout_engine("constrained", w_pad=0.14, h_pad=0.14)
    return figure


def _save(figure: Figure, path_png: str | Path) -> Path:
    path = Path(path_png)
    try:
        figure.savefig(path, format="png", facecolor="white")
    except OSError as error:
        raise RunStorageError(
            f"cannot write the picture {path}: {error.strerror or error}",
            cause="the folder does not exist, is not yours to write to, or the disk is full",
            next_step=f"check with `df -h` and `ls -ld {path.parent}`",
        ) from error
    return path
