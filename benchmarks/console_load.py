"""What a class on the car's web page costs the car: the pilot's loop with thirty pages open, and without, in one drive.

``python -m benchmarks.console_load --model RUN/bundle.tar.gz`` drives the simulated car with ``hotlap drive --console``
for a while alone, and then as long with viewers, listeners and requests, and prints the ratio of the two loops' 99th
percentiles. A loop's interval is the time between the stamps of two intents, of those that the gate has logged.

The crowd runs in this process, on the same processor as the car, which makes it harder for the car than thirty phones
would. One viewer in five never reads. ``load`` is the machine's own; above its number of processors, distrust it all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calibration.auth import PasswordStore
from vehicle.drive import WorldFacts
from vehicle.drive_log import read_drive_log
from vehicle.errors import GateError, VehicleError
from vehicle.gate_clock import figures_ms
from vehicle.links import console_url, request

# Issue 3, "must show 5", which holds with a crowd as without one.
LIMITS_MS = {"p99": 110.0, "max": 150.0}
PATHS = (
    "/api/v1/state", "/", "/static/drive.js", "/api/v1/models", "/api/get_battery_level", "/api/v1/logs?n=50",
    "/api/get_device_status", "/health", "/api/v1/calibration", "/static/base.css",
)  # fmt: skip
CONNECTIONS = 20
DEAF_EVERY = 5
SETTLE_S = 3.0
START_S = 180.0
INSTALL_TRIES = 8


@dataclass
class Crowd:
    """What the crowd has seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    waited_s: list[float] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)  # of each viewer that reads
    events: list[int] = field(default_factory=list)
    refused_streams: int = 0
    lost: int = 0  # connections that the server closed in the middle

    def told(self, seconds: float) -> dict[str, Any]:
        """For the result."""
        waited = figures_ms(self.waited_s)
        return {
            "answers": sum(self.statuses.values()), "answers_per_s": round(sum(self.statuses.values()) / seconds, 1),
            "statuses": {str(k): v for k, v in sorted(self.statuses.items())}, "answer_ms": waited,
            "viewers_served": len(self.pictures), "pictures_per_s": _per_s(self.pictures, seconds),
            "listeners_served": len(self.events), "events_per_s": _per_s(self.events, seconds),
            "streams_refused": self.refused_streams, "connections_lost": self.lost,
        }  # fmt: skip


def _per_s(counts: list[int], seconds: float) -> dict[str, float]:
    return {"min": round(min(counts, default=0) / seconds, 1), "max": round(max(counts, default=0) / seconds, 1)}


class Phone:
    """One connection."""

    def __init__(self, port: int, head: str) -> None:
        self._port, self._head = port, head
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Phone:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        return self

    async def __aexit__(self, *why: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 1.0)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        """Send a request and read the head of its answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{self._head}"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return int(answer.split(" ", 2)[1]), answer

    async def whole(self, method: str, path: str, body: bytes = b"") -> tuple[int, str, bytes]:
        """Send a request and read all of its answer."""
        status, head = await self.ask(method, path, body)
        length = re.search(r"(?i)^content-length: *(\d+)", head, re.MULTILINE)
        return status, head, await self.reader.readexactly(int(length[1]) if length else 0)


async def log_in(port: int, password: str) -> str:
    """The headers of somebody who is logged in."""
    async with Phone(port, "") as phone:
        _, head, page = await phone.whole("GET", "/")
        token = re.findall(rb'csrf-token" content="([^"]+)"', page)[0].decode()
        cookie = re.findall(r"(?im)^set-cookie: *([^;\r]+)", head)[0]
    async with Phone(port, f"Cookie: {cookie}\r\nX-CSRFToken: {token}\r\nContent-Type: application/json\r\n") as phone:
        status, head, _ = await phone.whole("POST", "/login", json.dumps({"password": password}).encode())
        assert status == 200, head
        session = re.findall(r"(?im)^set-cookie: *([^;\r]+)", head)
    return f"Cookie: {'; '.join([cookie, *session])}\r\nX-CSRFToken: {token}\r\n"


async def watch(crowd: Crowd, port: int, head: str, path: str, mark: bytes, counts: list[int], deaf: bool) -> None:
    """One viewer or listener, until it is cancelled."""
    seen = 0
    try:
        async with Phone(port, head) as phone:
            status, _ = await phone.ask("GET", path)
            if status != 200:
                crowd.refused_streams += status == 503
                return
            if deaf:
                phone.writer.transport.pause_reading()
                await asyncio.sleep(3600.0)
            counts.append(0)
            mine = len(counts) - 1
            while data := await phone.reader.read(65536):
                seen += data.count(mark)
                counts[mine] = seen
            crowd.lost += 1
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
        crowd.lost += 1


async def ask_on(crowd: Crowd, port: int, head: str, first: int, period_s: float) -> None:
    """One client that asks for one path after the other, on time, until it is cancelled."""
    number, due_s = first, time.monotonic() + period_s * first / CONNECTIONS
    while True:
        try:
            async with Phone(port, head) as phone:
                while True:
                    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                    begun_s, due_s = time.monotonic(), due_s + period_s
                    status, answer, _ = await phone.whole("GET", PATHS[number % len(PATHS)])
                    crowd.statuses[status] += 1
                    crowd.waited_s.append(time.monotonic() - begun_s)
                    number += 1
                    if "connection: close" in answer.lower():
                        break
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            crowd.lost += 1
            await asyncio.sleep(0.1)


async def visit(crowd: Crowd, port: int, password: str, viewers: int, rate: float, seconds: float) -> None:
    """The whole crowd, for so long."""
    head = await log_in(port, password)
    tasks = []
    for number in range(viewers):
        deaf = number % DEAF_EVERY == DEAF_EVERY - 1
        for path, mark, counts in (
            ("/route?width=480&height=360", b"Content-Type: image/jpeg", crowd.pictures),
            ("/api/v1/events", b"data: ", crowd.events),
        ):
            tasks.append(asyncio.create_task(watch(crowd, port, head, path, mark, counts, deaf)))
    for first in range(CONNECTIONS):
        tasks.append(asyncio.create_task(ask_on(crowd, port, head, first, CONNECTIONS / rate)))
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def driving(model: Path, folder: Path, track: str) -> Iterator[tuple[Path, Path]]:
    """``hotlap drive --console --arm``; yields the folders of sockets and state once it moves."""
    runtime, state, config = folder / "run", folder / "state", folder / "car.toml"
    config.write_text(f'state_dir = "{state}"\n[drive]\ntrial_cap_percent = 100.0\n')
    hotlap = [sys.executable, "-m", "hotlap"]
    for left in range(INSTALL_TRIES, 0, -1):  # a busy machine may be too slow for the inferences that are timed then
        install = [*hotlap, "models", "install", str(model), "--activate", "--config", str(config)]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode == 0:
            break
        if left == 1 or "too_slow" not in done.stderr:
            raise VehicleError(f"the model is not taken:\n{done.stderr}")
    words = ["drive", "--config", str(config), "--track", track, "--arm", "--console", "--json"]
    with open(folder / "drive.log", "wb") as log:
        process = subprocess.Popen(
            [*hotlap, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "HOTLAP_RUNTIME": str(runtime)},
        )  # fmt: skip
    try:
        deadline_s = time.monotonic() + START_S
        while console_url(runtime) is None or _mode(runtime) != "autonomous":
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise VehicleError(f"it does not drive:\n{(folder / 'drive.log').read_text()}")
            time.sleep(0.1)
        yield runtime, state
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60.0)


def _mode(runtime: Path) -> object:
    try:
        return request(runtime, "gate.request", {"op": "status"}, timeout_s=0.3).get("mode")
    except GateError:
        return None


def loop_ms(state: Path, begin_s: float, end_s: float) -> dict[str, float]:
    """Intervals between intents within a time, from the gate's log."""
    log = read_drive_log(state / "logs" / "drive.log")
    stamps = [
        float(one.fields["stamp_s"])
        for one in log.records
        if one.kind == "intent" and begin_s <= float(one.fields.get("stamp_s") or 0.0) <= end_s
    ]
    found = figures_ms([later - earlier for earlier, later in zip(stamps, stamps[1:], strict=False)])
    if found is None:
        raise VehicleError("the gate has logged no intents", next_step=f"hotlap status; ls {state}/logs")
    return found | {"ticks": len(stamps)}


def measure(model: Path, track: str, viewers: int, rate: float, seconds: float) -> dict[str, Any]:
    """The result of the benchmark."""
    phases: dict[str, Any] = {}
    crowd = Crowd()
    with tempfile.TemporaryDirectory(prefix="hl") as name, driving(model, Path(name), track) as (runtime, state):
        world = WorldFacts(runtime)
        try:
            password = PasswordStore(state / "console").first()
            port = urlsplit(console_url(runtime) or "").port or 443
            assert password is not None
            time.sleep(SETTLE_S)
            times = {}
            for phase in ("alone", "crowd"):
                before, begin_s = world.update(), time.monotonic()
                if phase == "crowd":
                    asyncio.run(visit(crowd, port, password, viewers, rate, seconds))
                else:
                    time.sleep(seconds)
                times[phase] = begin_s, time.monotonic()
                after = world.update()
                phases[phase] = {
                    "laps": after.laps - before.laps, "off_track": after.off_track - before.off_track,
                    "mode": _mode(runtime), "load": os.getloadavg()[0],
                }  # fmt: skip
            gate = request(runtime, "gate.request", {"op": "status"})
            time.sleep(0.5)  # until what the gate has logged is on the disk
            for phase, (begin_s, end_s) in times.items():
                phases[phase]["interval_ms"] = loop_ms(state, begin_s, end_s)
        finally:
            world.close()
    alone, crowded = (phases[phase]["interval_ms"] for phase in ("alone", "crowd"))
    return {
        "viewers": viewers, "rate_per_s": rate, "seconds": seconds, "cpus": len(os.sched_getaffinity(0)),
        **phases, "console": crowd.told(seconds), "fault": gate.get("fault"), "limits_ms": LIMITS_MS,
        "p99_ratio": round(crowded["p99"] / alone["p99"], 3),
        "ok": all(crowded[key] <= limit for key, limit in LIMITS_MS.items())
        and phases["crowd"]["mode"] == "autonomous" and phases["crowd"]["off_track"] == 0,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--track", default="first_oval")
    parser.add_argument("--viewers", type=int, default=20, help="of pictures, and as many of the state")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second beside them")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = measure(args.model, args.track, args.viewers, args.rate, args.seconds)
    if args.json:
        print(json.dumps(found))
    else:
        for phase in ("alone", "crowd"):
            one = found[phase]
            loop = ", ".join(f"{key} {one['interval_ms'][key]:.1f}" for key in ("p50", "p99", "max"))
            print(f"{phase:6} loop {loop} ms; laps {one['laps']}, off track {one['off_track']}, load {one['load']:.1f}")
        print(f"crowd  {json.dumps(found['console'])}")
        kept = "kept" if found["ok"] else "MISSED"
        print(f"p99 with the crowd / alone: {found['p99_ratio']}; limits {LIMITS_MS}: {kept}")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
