"""What all logging and monitoring costs: throughput of a training with everything on and with everything off.

One training process of each kind, both alive for the whole measurement, learn in turns: one stands still (SIGSTOP)
while the other trains for some updates. So both meet the same noise of the machine, and what starting and
compiling cost is in neither. Counted: processor time of the training for each step, and steps a second of its turns.

On: traces all, TensorBoard, `--monitor`, and a viewer that asks for the live view ten times a second as the page does.
Off: --traces none --no-tensorboard. Usage: python benchmarks/logging_cost.py [TURNS] [UPDATES]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import psutil

WANTED = 0.9
KINDS = {"off": ["--traces", "none", "--no-tensorboard"], "on": ["--traces", "all", "--tensorboard"]}


class Training:
    """A training that runs only in its turns."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        words = ["train", "--track", "first_oval", "--seed", "1", "--time-limit", "3h", *KINDS[kind]]
        command = [sys.executable, "-m", "hotlap", *words, "--out", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._watched = psutil.Process(self._process.pid)
        self.turns: list[tuple[int, float, float]] = []  # steps, seconds, processor seconds

    def steps(self) -> int:
        """So far, by the last whole line of its metrics."""
        try:
            lines = (self.folder / "live" / "metrics.csv").read_text().splitlines()
        except FileNotFoundError:
            return 0
        return int(lines[-1].partition(",")[0]) if len(lines) > 1 else 0

    def wait_for(self, steps: int) -> None:
        """Until it has come so far."""
        while self.steps() < steps:
            if self._process.poll() is not None:
                raise SystemExit(f"the training ({self.kind}) ended with status {self._process.returncode}")
            time.sleep(0.02)

    def pause(self) -> None:
        """Stand still."""
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, updates: int) -> None:
        """Train for so many updates, from the end of one to the end of another."""
        self._process.send_signal(signal.SIGCONT)
        self.wait_for(self.steps() + 1)
        begun, begun_s, begun_cpu = self.steps(), time.perf_counter(), sum(self._watched.cpu_times()[:2])
        self.wait_for(begun + updates * 2048)
        spent = time.perf_counter() - begun_s, sum(self._watched.cpu_times()[:2]) - begun_cpu
        self.turns.append((self.steps() - begun, *spent))
        self.pause()

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


def watch(url: str, stop: threading.Event, looks: threading.Event) -> None:
    """As the page does while somebody ``looks``: the live view ten times a second, plots and heat map now and then."""
    turn = 0
    while not stop.wait(0.1):
        if not looks.is_set():
            continue
        for path in ("api/live?car=3", *(["api/plots?x=steps"] if turn % 15 == 0 else []),
                     *(["api/heat?track=0"] if turn % 40 == 0 else [])):  # fmt: skip
            with urlopen(url + path, timeout=30) as answer:
                answer.read()
        turn += 1


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    updates = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    stop, looks = threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        both = {kind: Training(kind, Path(scratch) / kind) for kind in KINDS}
        page = None
        try:
            for training in both.values():
                training.wait_for(2048)
                training.pause()
            command = [sys.executable, "-u", "-m", "hotlap", "monitor", str(both["on"].folder), "--port", "0"]
            page = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert page.stdout is not None
            url = page.stdout.readline().split()[1]
            viewer = threading.Thread(target=watch, args=(url, stop, looks), name="viewer", daemon=True)
            viewer.start()
            for turn in range(turns):
                for kind in ("off", "on") if turn % 2 == 0 else ("on", "off"):
                    looks.set() if kind == "on" else looks.clear()
                    both[kind].turn(updates)
                    steps, seconds, cpu = both[kind].turns[-1]
                    print(f"{kind:3} {steps / seconds:8.0f} steps/s {1e6 * cpu / steps:8.0f} us a step", flush=True)
            seen = json.load(urlopen(url + "api/live?car=3", timeout=30))
            assert seen["picture"], "nobody was shown anything"
        finally:
            stop.set()
            for training in both.values():
                training.close()
            if page is not None:
                page.terminate()
                page.wait()
                assert page.stdout is not None
                page.stdout.close()
    # Turn by turn, since the two of a turn met the same machine.
    pairs = list(zip(both["off"].turns, both["on"].turns, strict=True))
    share = median((off[2] / off[0]) / (on[2] / on[0]) for off, on in pairs)
    pace = median((on[0] / on[1]) / (off[0] / off[1]) for off, on in pairs)
    print(f"by processor time, throughput with everything on is {share:.3f} of that with everything off; "
          f"by the clock, with page and viewer on the same {os.cpu_count()} cores, {pace:.3f} "
          f"(wanted: at least {WANTED})")  # fmt: skip


if __name__ == "__main__":
    main()
