"""``hotlap sweep``: many runs, one after the other or through Ray Tune, and which of them is best.

    SWEEP/sweep.json          the trials and their settings, the engine, the time trials that they are judged by
    SWEEP/NNN/                each trial: a run folder like any other
    SWEEP/NNN.json            its result, once it is finished
    SWEEP/leaderboard.csv     by completion rate, then by lap time

A sweep that was stopped or killed goes on with ``--resume``: what is finished stays, what was under way is resumed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sim.car_spec import load_car
from sim.commands import emit
from sim.reward import load_reward
from sim.track import load_track
from trainer.commands import check_race
from trainer.errors import RunError
from trainer.metrics_log import replace_text
from trainer.run_folder import RunFolder
from trainer.store import ask_first, check_free
from trainer.sweep_plan import REWARD, read_plan
from trainer.training import NO_TIME_LIMIT_S, stop_signals
from vehicle.action_space import default_action_space, load_action_space
from vehicle.child import ROOT, child_environment
from vehicle.parent import ENVIRONMENT
from vehicle.store import open_store

FIGURES = ("completion_rate", "mean_lap_time_s", "best_lap_time_s", "first_lap_s", "steps", "wall_s")
_STOP_WAIT_S = 120.0  # a trial that is stopped evaluates and saves
Trial = dict[str, Any]


class Sweep:
    """A sweep's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads((path / "sweep.json").read_bytes())
        self.trials: list[Trial] = self.content["trials"]
        self.judged_by = int(self.content["judged_by"])

    def store_of(self, trial: Trial) -> str:
        """Where the trial is published; an empty text for nowhere."""
        store = self.content.get("store")
        return f"{store}/{trial['name']}" if store else ""

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """What came of a trial; None while it is not finished."""
        try:
            found = json.loads((self.path / f"{trial['name']}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def finish(self, trial: Trial, result: dict[str, Any]) -> None:
        """Keep a trial's result, and the leaderboard with it."""
        replace_text(self.path / f"{trial['name']}.json", json.dumps(result, indent=1))
        self.write_leaderboard()

    def open_trials(self) -> list[Trial]:
        """What is left to do: without a result, or failed."""
        return [t for t in self.trials if not (self.result(t) or {}).get("finished")]

    def leaderboard(self) -> list[dict[str, Any]]:
        """A row for each trial: the finished ones by completion rate, then lap time; then the failed, then the open."""
        rows = []
        for trial in self.trials:
            result = self.result(trial)
            status = "open" if result is None else "finished" if result.get("finished") else "failed"
            row = {"trial": trial["name"], "status": status, **{name: (result or {}).get(name) for name in FIGURES}}
            row |= trial["settings"]
            row["error"] = (result or {}).get("error")
            rows.append(row | {"run": str(self.path / trial["name"])})
        rows.sort(key=_order)
        return [{"rank": rank if row["status"] == "finished" else None, **row} for rank, row in enumerate(rows, 1)]

    def write_leaderboard(self) -> None:
        """SWEEP/leaderboard.csv as it stands."""
        rows = self.leaderboard()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        replace_text(self.path / "leaderboard.csv", text.getvalue())


def _order(row: dict[str, Any]) -> tuple[int, float, float]:
    rate, lap_s = row["completion_rate"], row["mean_lap_time_s"]
    status = ("finished", "failed", "open").index(row["status"])
    return status, -(rate if rate is not None else 0.0), lap_s if lap_s is not None else float("inf")


def sweep(args: argparse.Namespace) -> int:
    """Run ``hotlap sweep``. Exit status 1 where no trial could be finished.

    Raises:
        HotlapError: anything of the plan is wrong, before anything is made or run.
    """
    engine: Callable[[Sweep, argparse.Namespace], None] = _one_by_one
    if args.engine == "ray":
        from trainer.sweep_ray import run_on_ray as engine
    if args.resume:
        if args.plan or args.track or args.reward or args.store:
            again = f"hotlap sweep --resume --out {args.out}"
            raise RunError("--resume goes on with the sweep as it was", next_step=again)
        found = _opened(args.out)
    else:
        found = _made(args)
    engine(found, args)
    found.write_leaderboard()
    rows = found.leaderboard()
    finished = [row for row in rows if row["status"] == "finished"]
    best = finished[0] if finished else None
    result = {
        "sweep": str(args.out), "engine": args.engine, "trials": len(rows), "finished": len(finished),
        "failed": sum(row["status"] == "failed" for row in rows),
        "best": best["run"] if best else None, "bundle": f"{best['run']}/bundle.tar.gz" if best else None,
        "leaderboard": rows,
    }  # fmt: skip
    emit(args.json, result, _table(rows, f"{len(finished)} of {len(rows)} trials, {args.out}/leaderboard.csv"))
    if any(row["status"] == "open" for row in rows):
        print(f"hotlap: stopped; next: hotlap sweep --resume --out {args.out}", file=sys.stderr)
        return 130
    return 0 if finished else 1


def _opened(path: Path) -> Sweep:
    if not (path / "sweep.json").is_file():
        raise RunError(f"{path} is not a sweep: it has no sweep.json", next_step=f"hotlap sweep PLAN --out {path}")
    return Sweep(path)


def _made(args: argparse.Namespace) -> Sweep:
    """A new sweep's folder with a run folder for each trial, after everything has been looked at."""
    path: Path = args.out
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists already and is not empty",
            cause="an earlier sweep went there",
            next_step=f"go on with it: hotlap sweep --resume --out {path}; or choose another --out",
        )
    fixed: dict[str, Any] = {}
    if args.time_limit_s is not None:
        fixed["time_limit_s"] = args.time_limit_s
    if args.steps is not None:
        fixed["steps"] = args.steps
        fixed.setdefault("time_limit_s", NO_TIME_LIMIT_S)  # as `hotlap train --steps`
    options = {"track": args.track, "samples": args.samples, "trials": args.trials}
    plan = read_plan(args.plan, options, args.reward or (), fixed)
    if not plan.sweep.track:
        raise RunError("no track is named", next_step="hotlap tracks, then hotlap sweep PLAN --track NAME --out SWEEP")
    tracks = [load_track(name) for name in dict.fromkeys(plan.sweep.track)]
    space = load_action_space(args.action_space) if args.action_space is not None else default_action_space()
    car = load_car(args.car)
    chosen = plan.choices.get(REWARD, (plan.fixed.get(REWARD),))
    assert isinstance(chosen, tuple)
    rewards = {name: load_reward(None if name is None else Path(name)) for name in chosen}
    trials: list[Trial] = [{"name": f"{k:03d}", "settings": each} for k, each in enumerate(plan.trials(), start=1)]
    runs = []
    for trial in trials:
        config = plan.config(trial["settings"])
        reward = rewards[trial["settings"].get(REWARD, plan.fixed.get(REWARD))]
        check_race(config, tracks, reward)
        runs.append((path / str(trial["name"]), config, reward))
    if args.store:
        ask_first(open_store(f"{args.store}/{trials[0]['name']}"), check_free)
    for folder, config, reward in runs:
        RunFolder.create(folder, config, tracks, reward, space, car)
    content = {"trials": trials, "judged_by": plan.sweep.trials, "store": args.store}
    # Last, since a folder with it counts as a sweep.
    replace_text(path / "sweep.json", json.dumps(content, indent=1))
    return Sweep(path)


def _one_by_one(found: Sweep, args: argparse.Namespace) -> None:
    """The embedded engine: a process for each trial, one after the other."""
    with stop_signals() as stopped:
        for trial in found.open_trials():
            if stopped():
                return
            words = ", ".join(f"{key} = {value}" for key, value in trial["settings"].items())
            print(f"trial {trial['name']} of {len(found.trials)}: {words}", file=sys.stderr, flush=True)
            result = _in_child(found, trial, stopped)
            if result.get("finished") or "error" in result:
                found.finish(trial, result)


def _in_child(found: Sweep, trial: Trial, stopped: Callable[[], bool]) -> dict[str, Any]:
    command = [sys.executable, "-m", "trainer.sweep_trial", str((found.path / trial["name"]).resolve())]
    command += [str(found.judged_by), found.store_of(trial)]
    # A group of its own: Ctrl-C comes to this process, which passes it on once. If this one is killed, its end of the
    # pipe closes, and the child stops as well (vehicle.parent).
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**child_environment(), ENVIRONMENT: "1"},
    ) as process:  # fmt: skip
        asked = False
        while True:
            try:
                out = _output(process, _STOP_WAIT_S if asked else 0.2)
                break
            except subprocess.TimeoutExpired:
                if asked:
                    process.kill()
                elif stopped():
                    asked = True
                    process.send_signal(signal.SIGINT)
            except BaseException:  # a second Ctrl-C
                process.kill()
                raise
    try:
        result = json.loads(out)
        assert isinstance(result, dict)
        return result
    except (ValueError, AssertionError):
        if stopped():
            return {"finished": False}
        return {"finished": False, "error": f"the trial's process ended with status {process.returncode}"}


def _output(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What the process said, once it has ended. Its stdin stays open meanwhile. Raises TimeoutExpired."""
    process.wait(timeout_s)
    assert process.stdout is not None
    return process.stdout.read()


def _table(rows: list[dict[str, Any]], caption: str) -> Table:
    searched = [key for key in rows[0] if key not in {"rank", "trial", "status", "error", "run", *FIGURES}]
    table = Table(title="Leaderboard", caption=caption, box=box.SIMPLE_HEAVY)
    for name in ("rank", "trial", "completed", "mean lap s", "best lap s", *searched):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        rate = row["completion_rate"]
        laps = ("-" if row[k] is None else f"{row[k]:.2f}" for k in ("mean_lap_time_s", "best_lap_time_s"))
        done = row["status"] if rate is None else f"{100 * rate:.0f} %"
        table.add_row(str(row["rank"] or "-"), row["trial"], done, *laps, *(_word(row[key]) for key in searched))
    return table


def _word(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
