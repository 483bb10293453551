"""A training on three worker processes, a Redis server and an S3 server, with both kinds of accident on purpose.

``python -m tools.demo_scale`` starts a redis-server with a password and an S3 server (moto's) of its own, trains into
them, kills a worker once learning has begun, kills the Redis server and starts it again, empty, and looks at what came
of it: a first lap, metrics without a gap that nothing explains, the store's bundle. Exit status 1 where anything is
missing. What it started ends with it, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from rich.console import Group
from rich.table import Table

from hotlap import DURATION
from sim.commands import emit
from tests.trainer.redis_server import RedisServer, is_installed
from tests.trainer.s3_server import S3Server
from tools.metrics_gaps import Row, gaps, incidents

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 3
BUCKET, PREFIX = "laps", "demo"
AWAY_S = 5.0  # how long there is no Redis server
PATIENCE_S = 240.0  # for one step, on a machine that may be busy


class Missing(Exception):
    """Something that should have happened did not."""


class Run:
    """A training as a process, and what its folder says."""

    def __init__(self, folder: Path, words: Sequence[str], environment: dict[str, str]) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "hotlap", "train", "--out", str(folder), "--json", *words]
        # A session of its own: Ctrl-C is ours. Its workers end when it does.
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def rows(self) -> list[Row]:
        """Of the metrics, by now."""
        for path in (self.folder / "live" / "metrics.csv", self.folder / "metrics.csv"):
            with suppress(FileNotFoundError), open(path, newline="") as file:
                return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(file)]
        return []

    def events(self) -> list[dict[str, Any]]:
        """Of the event log, by now."""
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def said(self, text: str) -> bool:
        """Whether an event says so."""
        return any(text in event["text"] for event in self.events())

    def workers(self) -> dict[int, int]:
        """Worker's number -> process id, of those alive."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error, ValueError, IndexError):  # one that has just ended
                words = child.cmdline()
                found[int(words[words.index("trainer.worker_process") + 1])] = child.pid
        return found

    def wait_for(self, what: str, is_so: Callable[[], bool]) -> None:
        """Raises Missing where the training ends, or too much time goes by, before it is so."""
        until_s = time.monotonic() + PATIENCE_S
        while not is_so():
            if self.process.poll() is not None:
                raise Missing(f"{what}: the training ended before (status {self.process.returncode})")
            if time.monotonic() > until_s:
                raise Missing(f"{what}: not within {PATIENCE_S:g} s")
            time.sleep(0.05)

    def result(self) -> dict[str, Any]:
        """What it prints at its end. Raises Missing."""
        try:
            out, _ = self.process.communicate(timeout=PATIENCE_S * 4)
        except subprocess.TimeoutExpired as error:
            raise Missing("the training does not end") from error
        if self.process.returncode:
            raise Missing(f"the training ended with status {self.process.returncode}: {out.strip()}")
        return dict(json.loads(out))

    def close(self) -> None:
        """End it and its workers, whatever they do."""
        children = []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()


class Report:
    """What happened, and what was looked for."""

    def __init__(self) -> None:
        self.happened: list[tuple[float, str]] = []
        self.checks: list[tuple[str, bool, str]] = []
        self.facts: dict[str, Any] = {}
        self._begun_s = time.monotonic()

    def note(self, text: str) -> None:
        """Say it now, and in the table at the end."""
        self.happened.append((time.monotonic() - self._begun_s, text))
        print(f"demo-scale: {text}", file=sys.stderr, flush=True)

    def check(self, what: str, is_so: bool, found: str) -> None:
        """Something that must be so."""
        self.checks.append((what, is_so, found))

    def ok(self) -> bool:
        """Whether everything is."""
        return bool(self.checks) and all(is_so for _, is_so, _ in self.checks)

    def as_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "ok": self.ok(),
            "checks": [{"what": what, "ok": is_so, "found": found} for what, is_so, found in self.checks],
            "happened": [{"at_s": round(at_s, 1), "what": text} for at_s, text in self.happened],
            **self.facts,
        }

    def as_tables(self) -> Group:
        """For people."""
        story = Table(title="what happened", title_justify="left")
        story.add_column("s", justify="right")
        story.add_column("what")
        for at_s, text in self.happened:
            story.add_row(f"{at_s:.1f}", text)
        looked = Table(title="what was looked for", title_justify="left")
        for column in ("", "what", "found"):
            looked.add_column(column)
        for what, is_so, found in self.checks:
            looked.add_row("ok" if is_so else "MISSING", what, found)
        return Group(story, looked)


def have_accidents(run: Run, redis: RedisServer, report: Report) -> None:
    """Kill a worker, and when it is replaced the Redis server. Raises Missing."""
    run.wait_for("learning begins", lambda: len(run.rows()) >= 3)
    run.wait_for("all workers drive", lambda: run.rows()[-1].get("workers", 0) >= WORKERS)
    before = run.workers()
    report.note(f"{len(run.rows())} updates are done; worker 1 (process {before[1]}) is killed with SIGKILL")
    os.kill(before[1], signal.SIGKILL)
    run.wait_for("the dead worker is noticed", lambda: run.said("worker 1 died"))
    run.wait_for("it is replaced", lambda: run.workers().get(1, before[1]) != before[1])
    report.note(f"it is started again (process {run.workers()[1]})")
    noticed_s = run.events()[-1]["wall_s"]
    run.wait_for(
        "an update has data of all workers again",
        lambda: any(row["wall_s"] > noticed_s and row.get("workers", 0) >= WORKERS for row in run.rows()),
    )
    report.note(f"an update has segments of all {WORKERS} workers again; the Redis server is killed with SIGKILL")
    redis.kill()
    run.wait_for("the missing server is noticed", lambda: run.said("is away"))
    time.sleep(AWAY_S)
    redis.start()
    report.note("the Redis server is started again, empty")
    run.wait_for("the server's return is noticed", lambda: run.said("is back"))
    rows = len(run.rows())
    run.wait_for("training goes on", lambda: len(run.rows()) >= rows + 3)
    report.note("three more updates are done")


def judge(run: Run, result: dict[str, Any], end_s: float, report: Report) -> None:
    """What must be so of the training."""
    lap_s, rows = result["first_lap_s"], run.rows()
    lap = "no lap" if lap_s is None else f"after {lap_s} s, {result['first_lap_steps']} steps"
    report.check("first lap", lap_s is not None, lap)
    found = incidents(rows, run.events(), WORKERS)
    jumps = gaps(rows, found, min(end_s, result["wall_s"]), lap_s)
    for i in found:
        over = "not over" if i.end_s == float("inf") else f"until {i.end_s:.1f} s"
        report.check(f"got over: {i.text.partition(': ')[0]}", i.end_s < float("inf"), f"from {i.begin_s:.1f} s {over}")
    unexplained = [gap for gap in jumps if not gap.why]
    words = [f"{gap.begin_s:.1f}-{gap.end_s:.1f} s: {gap.why or 'NOT EXPLAINED'}" for gap in jumps]
    report.check("every gap in the metrics is explained", not unexplained, "\n".join([f"{len(rows)} updates", *words]))
    clock, steps = [row["wall_s"] for row in rows], [row["steps"] for row in rows]
    grows = all(a < b for column in (clock, steps) for a, b in zip(column, column[1:], strict=False))
    report.check("metrics only grow", grows and bool(rows), f"to {steps[-1]:.0f} steps" if rows else "no rows")
    report.facts |= {
        "train": result,
        "events": run.events(),
        "gaps": [{"begin_s": gap.begin_s, "end_s": gap.end_s, "why": gap.why} for gap in jumps],
        "updates": len(rows),
    }


def judge_store(run: Run, s3: S3Server, environment: dict[str, str], track: str, report: Report) -> None:
    """The store's bundle is the run's, by Amazon's own client, and drives, by ``hotlap evaluate``."""
    client = s3.client()

    def stored(name: str) -> bytes:
        return bytes(client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")["Body"].read())

    manifest = json.loads(stored("manifest.json"))
    bundle = stored(f"objects/{manifest['files']['bundle.tar.gz']['sha256']}")
    client.close()
    same = bundle == (run.folder / "bundle.tar.gz").read_bytes()
    report.check("the store's bundle is the run's", same, f"{len(bundle)} bytes, version {manifest['version']}")
    words = ["evaluate", f"s3://{BUCKET}/{PREFIX}", "--track", track, "--trials", "5", "--require-lap", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hotlap", *words], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=PATIENCE_S,
    )  # fmt: skip
    rate = json.loads(done.stdout).get("completion_rate") if done.stdout else None
    report.check(f"hotlap evaluate s3://{BUCKET}/{PREFIX} drives a lap", done.returncode == 0, f"rate {rate} of 5")
    report.facts["evaluation"] = {"completion_rate": rate}


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """The block's training, ended with it."""
    try:
        yield run
    finally:
        run.close()


def demonstrate(folder: Path, track: str, limit_s: float, seed: int, report: Report) -> None:
    """Everything, in order; whatever is missing is in the report."""
    with (
        tempfile.TemporaryDirectory(prefix="hotlap-redis-") as place,
        RedisServer(Path(place)) as redis,
        S3Server() as s3,
    ):
        s3.make_bucket(BUCKET)
        report.note(f"redis-server at port {redis.port}, S3 server at {s3.url}")
        # Not on the command line, which others can read.
        environment = {**s3.variables(), "HOTLAP_BUFFER": redis.url}
        words = ["--track", track, "--workers", str(WORKERS), "--store", f"s3://{BUCKET}/{PREFIX}"]
        words += ["--time-limit", f"{limit_s}s", "--seed", str(seed)]
        report.note("hotlap train " + " ".join(words))
        with ended(Run(folder, words, environment)) as run:
            try:
                have_accidents(run, redis, report)
                result = run.result()
                report.note(f"the training is over, after {result['wall_s']} s")
                judge(run, result, limit_s, report)
                kept = result["store"]
                behind = kept["error"] or f"version {kept['published']}"
                report.check("the store has everything", not kept["behind"] and not kept["error"], behind)
                judge_store(run, s3, environment, track, report)
            except Missing as error:
                report.check(str(error), False, "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 where everything was found, 1 where not, 2 where it cannot be tried."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--track", default="first_oval")
    parser.add_argument("--time-limit", dest="limit_s", type=DURATION, default=120.0, metavar="120s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="RUN", help="keep the run folder there (default: it is removed)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    if not is_installed():
        print("demo-scale: there is no redis-server\n  next: sudo apt-get install redis-server", file=sys.stderr)
        return 2
    if args.out is not None and args.out.exists():
        print(f"demo-scale: {args.out} exists already\n  next: choose another --out", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    report = Report()
    scratch = Path(tempfile.mkdtemp(prefix="hotlap-demo-scale-"))
    try:
        demonstrate((args.out or scratch / "run").resolve(), args.track, args.limit_s, args.seed, report)
    except KeyboardInterrupt:
        print("demo-scale: interrupted; everything that was started has ended", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    emit(args.json, report.as_json(), report.as_tables())
    return 0 if report.ok() else 1


if __name__ == "__main__":
    sys.exit(main())
