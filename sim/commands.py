"""The command `hotlap tracks`: list, show and generate; and `emit`, how a command prints its result."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import TrackError
from sim.track import Track, load_track, save_track, shipped_names
from sim.track_generator import generate_track
from sim.track_library import describe
from sim.track_map import draw_map

if TYPE_CHECKING:
    from rich.console import RenderableType

DIRECTION_WORDS = {"cw": "clockwise", "ccw": "counter-clockwise"}


def emit(as_json: bool, result: Mapping[str, object], text: RenderableType) -> None:
    """Print a command's result on stdout: one JSON object for programs, or text or a rich table for people.

    Raises:
        ValueError: the result holds NaN or infinity, which JSON cannot say.
        TypeError: it holds something that JSON cannot say.
    """
    if as_json:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    from rich.console import Console  # here, since programs that ask for JSON need not wait for it

    console = Console(soft_wrap=isinstance(text, str), highlight=False, markup=False)
    with console.capture() as page:  # rich would end the process itself where the reader of stdout has gone
        console.print(text)
    print(page.get(), end="", flush=True)


def tracks(args: Namespace) -> int:
    """Run `hotlap tracks`, with ``args.action`` None, "show" or "generate"; returns the exit status.

    Raises:
        TrackError: no such track, a broken one, or limits that no track can meet.
        SimError: a map that cannot be drawn.
        OSError: a file that cannot be written.
    """
    if args.action == "show":
        return _show(args)
    if args.action == "generate":
        return _generate(args)
    return _list(args)


def _list(args: Namespace) -> int:
    from rich.table import Table

    facts = [describe(load_track(name)) for name in shipped_names()]
    table = Table(title="Shipped tracks", title_justify="left")
    table.add_column("name", no_wrap=True)
    for column in ("length m", "width m", "tightest radius m"):
        table.add_column(column, justify="right")
    table.add_column("direction")
    for fact in facts:
        table.add_row(
            str(fact["name"]),
            f"{fact['length_m']:.1f}",
            f"{fact['width_m']:.2f}",
            f"{fact['min_radius_m']:.2f}",
            DIRECTION_WORDS[str(fact["direction"])],
        )
    emit(args.json, {"tracks": facts}, table)
    return 0


def _show(args: Namespace) -> int:
    track = load_track(args.name)
    result = {**describe(track), "map": _map(track, args.out)}
    emit(args.json, result, _sentence(result))
    return 0


def _generate(args: Namespace) -> int:
    if args.out.suffix != ".npy":
        raise TrackError(
            f"a track cannot be saved as {str(args.out)!r}",
            cause="tracks are recognised by their .npy ending",
            next_step=f"hotlap tracks generate --seed {args.seed} --out {args.out.with_suffix('.npy')}",
        )
    limits_m = {
        key: value for key, value in (("length_m", args.length_m), ("width_m", args.width_m)) if value is not None
    }
    clockwise = None if args.direction == "any" else args.direction == "cw"
    track = generate_track(args.seed, clockwise=clockwise, **limits_m)
    save_track(track, args.out)
    result = {**describe(track), "seed": args.seed, "path": str(args.out), "map": _map(track, args.map_out)}
    emit(args.json, result, f"{_sentence(result)}\nsaved as {args.out}")
    return 0


def _map(track: Track, path: Path | None) -> str | None:
    if path is None:
        return None
    draw_map(track, path)
    return str(path)


def _sentence(fact: Mapping[str, object]) -> str:
    text = (
        f"{fact['name']}: {fact['length_m']:.2f} m long, {fact['width_m']:.2f} m wide, "
        f"{DIRECTION_WORDS[str(fact['direction'])]}, {fact['waypoints']} waypoints, "
        f"tightest radius {fact['min_radius_m']:.2f} m"
    )
    return f"{text}\nmap drawn as {fact['map']}" if fact["map"] else text
