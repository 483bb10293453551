"""A car in a folder of its own and `hotlap` as a process on it; not a test itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from tests.vehicle.gate_process import until
from vehicle.trace import TraceRow, read_trace

ROOT = Path(__file__).resolve().parents[2]
HOTLAP = (sys.executable, "-m", "hotlap")
PARTS = ("vehicle.gate", "vehicle.guard", "vehicle.pilot", "sim.board_process", "sim.world_process")


class Running:
    """A command that goes on, its JSON for later."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._said: tuple[str, str] = ("", "")
        # Both pipes must be read, or the command would block on a full one.
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    def _read(self) -> None:
        self._said = self.process.communicate()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = 60.0) -> int:
        """Its exit status, once it has ended."""
        self._reader.join(timeout_s)
        assert not self._reader.is_alive(), "it does not end"
        return self.process.returncode

    @property
    def result(self) -> dict[str, Any]:
        found = json.loads(self._said[0])
        assert isinstance(found, dict)
        return found

    @property
    def stderr(self) -> str:
        return self._said[1]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._reader.join(30)


class Car:
    """``car.toml``, a state folder and a runtime folder, all short-lived.

    Args:
        toml: further lines of ``car.toml``.
        hotlap: the words that start the command line.
    """

    def __init__(self, toml: str = "", hotlap: tuple[str, ...] = HOTLAP, cwd: Path = ROOT) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hl"))  # in /tmp: the path of a socket is short
        self.runtime, self.state, self.config = self.folder / "run", self.folder / "state", self.folder / "car.toml"
        self.trace_path = self.folder / "pulses.csv"
        self.config.write_text(f'state_dir = "{self.state}"\n{toml}')
        self._hotlap, self._cwd = hotlap, cwd
        self.running: list[Running] = []
        self.driving: Running | None = None
        self.environment = {**os.environ, "HOTLAP_RUNTIME": str(self.runtime)}

    def start(self, *words: object) -> Running:
        """``hotlap WORDS --json`` in the background."""
        command = [*self._hotlap, *map(str, words), "--json"]
        self.running.append(
            Running(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=self._cwd,
                    env=self.environment,
                )  # fmt: skip
            )
        )
        return self.running[-1]

    def run(self, *words: object, timeout_s: float = 60.0, status: int | None = 0) -> dict[str, Any]:
        """The same, waited for; what it printed on stdout. Another status than that one fails the test; None is any."""
        running = self.start(*words)
        found = running.end(timeout_s)
        assert status in (None, found), (found, running._said, self.logs())
        return running.result

    def install(self, bundle: Path) -> None:
        """Install and activate; again where a busy machine was too slow for the inferences that are timed then."""
        for _ in range(5):
            found = self.run("models", "install", bundle, "--activate", "--config", self.config, status=None)
            if "too_slow" not in found.get("error", {}).get("what", ""):
                break
        assert "error" not in found, found

    def drive(self, *words: object, trace: bool = True) -> Running:
        """``hotlap drive`` in the background."""
        tracing = ("--trace", self.trace_path) if trace else ()
        self.driving = self.start("drive", "--config", self.config, *tracing, *words)
        return self.driving

    def rows(self, channel: str = "throttle", since_s: float = 0.0) -> list[TraceRow]:
        found = read_trace(self.trace_path) if self.trace_path.exists() else []
        return [row for row in found if row.channel == channel and row.t_s >= since_s]

    def neutral_us(self) -> float:
        return float(json.loads((self.state / "calibration.json").read_text())["throttle"]["neutral_us"])

    def moving(self) -> bool:
        """Whether the newest pulse of the throttle is one of driving."""
        rows = self.rows()[-1:]
        return bool(rows) and rows[0].cause == "drive" and rows[0].pulse_us != self.neutral_us()

    def wait_moving(self, timeout_s: float = 120.0) -> None:
        drive = self.driving
        assert drive is not None
        assert until(lambda: self.moving() or drive.process.poll() is not None, timeout_s), self.logs()
        if drive.process.poll() is not None:
            drive.end()
            raise AssertionError(f"it ended: {drive.stderr} {self.logs()}")

    def neutral_at_the_end(self) -> int:
        """How many pulses of the throttle at the end of the trace are neutral."""
        count = 0
        for row in reversed(self.rows()):
            if row.pulse_us != self.neutral_us():
                break
            count += 1
        return count

    def pids(self, *modules: str) -> dict[str, int]:
        """The processes of this runtime folder, by module."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if str(self.runtime) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                found |= {module: process.pid for module in (modules or PARTS) if module in words}
        return found

    def kill(self, module: str) -> None:
        os.kill(self.pids()[module], signal.SIGKILL)

    def wait_empty(self, timeout_s: float = 10.0) -> None:
        """Until no process of a drive runs any more."""
        assert until(lambda: not self.pids(), timeout_s), self.pids()

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text()[-1500:] for path in sorted(self.runtime.glob("*.log"))}

    def close(self) -> None:
        for running in self.running:
            running.close()
        for pid in self.pids().values():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)
