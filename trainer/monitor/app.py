"""The monitor's page and what it asks for. Everything is read only; nothing of it changes a run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, abort, request, send_from_directory

import calibration
from calibration.security import add_headers
from trainer.monitor.metrics import PLOTS
from trainer.monitor.run import Monitor

_PAGE = Path(__file__).parent / "page"
# What every page of hotlap looks like.
_CONSOLE = Path(calibration.__file__).parent / "static"
_SHARED = ("base.css", "parts.css", "controls.css", "favicon.svg", "dom.js")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_X = ("steps", "wall_s")


def create_app(monitor: Monitor, host: str) -> Flask:
    """The application.

    Args:
        monitor: what is shown.
        host: the address that is listened to. On this machine's own, only requests that name it are answered: a page
            of another site, whose name is made to lead here, reads nothing.
    """
    app = Flask("trainer.monitor", static_folder=None)

    @app.before_request
    def check_host() -> None:
        if host in _LOOPBACK and request.host.rpartition(":")[0].strip("[]") not in _LOOPBACK:
            abort(403)

    @app.after_request
    def finish(response: Response) -> Response:
        return add_headers(response, static=request.endpoint == "static")

    @app.get("/")
    def page() -> Response:
        return send_from_directory(_PAGE, "index.html")

    @app.get("/static/<name>", endpoint="static")
    def static(name: str) -> Response:
        return send_from_directory(_CONSOLE if name in _SHARED else _PAGE, name)

    @app.get("/api/run")
    def run() -> Response:
        return _json(monitor.about())

    @app.get("/api/plots")
    def plots() -> Response:
        x = request.args.get("x", "steps")
        if x not in _X:
            abort(400)
        figures = monitor.figures()
        version = f"{figures['updates']}"
        answer = {"version": version, "reading": monitor.reading, "figures": figures}
        if request.args.get("since") != version:
            answer["plots"] = monitor.plots(x)
        return _json(answer)

    @app.get("/api/heat")
    def heat() -> Response:
        return _json(monitor.heat(_number("track", len(monitor.tracks))))

    @app.get("/api/live")
    def live() -> Response:
        return _json(monitor.live(_number("car", 1 << 20)))

    @app.get("/csv/<name>.csv")
    def as_csv(name: str) -> Response:
        plot = next((plot for plot in PLOTS if plot.key == name), None)
        if name == "heat":
            rows = _heat_csv(monitor, _number("track", len(monitor.tracks)))
        elif plot is not None:
            rows = _plot_csv(monitor, [column for column, _ in plot.curves])
        else:
            abort(404)
        file = f"{monitor.run.resolve().name}-{name}.csv"
        disposition = "attachment; filename=" + "".join(c if c.isalnum() or c in "-_." else "_" for c in file)
        return Response(rows, mimetype="text/csv", headers={"Content-Disposition": disposition})

    return app


def _json(value: object) -> Response:
    return Response(json.dumps(value, separators=(",", ":"), allow_nan=False), mimetype="application/json")


def _number(name: str, limit: int) -> int:
    text = request.args.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < limit):
        abort(400)
    return int(text)


def _plot_csv(monitor: Monitor, columns: list[str]) -> Iterator[str]:
    """Every row of the metrics, from the file: what the page draws is reduced."""
    wanted = [*_X, *columns]
    yield ",".join(wanted) + "\n"
    try:
        with open(monitor.metrics.path, newline="") as file:
            for row in csv.DictReader(file):
                yield ",".join(row.get(name) or "" for name in wanted) + "\n"
    except FileNotFoundError:
        return  # no update yet


def _heat_csv(monitor: Monitor, track: int) -> Iterator[str]:
    """The middle of each cell that somebody drove in."""
    yield "x_m,y_m,mean_reward,steps\n"
    if monitor.traces is None:
        return
    heat = monitor.traces.maps[track]
    with monitor.lock:
        mean, count = heat.mean.ravel(), heat.count.copy()
    text = io.StringIO()
    for cell, (reward, steps) in enumerate(zip(mean.tolist(), count.tolist(), strict=True)):
        if math.isfinite(reward):
            row, column = divmod(cell, heat.columns)
            x_m, y_m = heat.x_m + (column + 0.5) * heat.cell_m, heat.y_m + (row + 0.5) * heat.cell_m
            text.write(f"{x_m:.4f},{y_m:.4f},{reward:.6g},{int(steps)}\n")
    yield text.getvalue()
