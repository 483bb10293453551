"""A real gate process on an actuator that only records, and a pilot that this test plays; not a test itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from calibration.mapping import Calibration
from calibration.store import save_calibration
from vehicle.errors import GateError
from vehicle.links import endpoint, request
from vehicle.messages import Intent, encode
from vehicle.trace import TraceRow, read_trace

MODEL = "5a" * 32
CALIBRATION = Calibration()
NEUTRAL_US = CALIBRATION.throttle.neutral_us
CENTER_US = CALIBRATION.steering.center_us


def until(condition: Callable[[], object], timeout_s: float = 15.0) -> bool:
    """Whether it comes true in time; it is not asked again once it has."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return bool(found)


class FakePilot:
    """Sends an intent every 50 ms from a thread; the attributes may be changed while it does."""

    def __init__(self, runtime: Path) -> None:
        self.speed_mps, self.steering_deg, self.sending = 0.5, 10.0, True
        self._context = zmq.Context()
        self._push = self._context.socket(zmq.PUSH)
        self._push.connect(endpoint(runtime, "gate.intent"))
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="fake pilot")
        self._thread.start()

    def _run(self) -> None:
        seq = 0
        while not self._done.wait(0.05):
            if self.sending:
                seq += 1
                now_s = time.monotonic()
                self.send(
                    encode(
                        Intent(
                            "pilot", seq, now_s, seq, now_s - 0.01, self.steering_deg, self.speed_mps, 1.0, 4.0, MODEL
                        )
                    )
                )

    def send(self, data: bytes) -> None:
        with self._lock:
            self._push.send(data)

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._context.destroy(linger=0)


class GateProcess:
    """``python -m vehicle.gate`` in a folder of its own.

    Args:
        folder: for everything; a short path.
        prelude: Python statements that run in the gate's process first, to break something in it.
    """

    def __init__(self, folder: Path, *, calibrated: bool = True, prelude: str = "", actuator: str = "none") -> None:
        self.runtime, self.trace_path, self.state_dir = folder / "run", folder / "pulses.csv", folder / "state"
        self.config = folder / "car.toml"
        self.config.write_text(f'state_dir = "{self.state_dir}"\n[actuator]\nkind = "{actuator}"\n')
        self.state_dir.mkdir()
        if calibrated:
            save_calibration(self.state_dir / "calibration.json", CALIBRATION)
        self.stderr_path = folder / "stderr"
        self._prelude = prelude
        self.process: subprocess.Popen[bytes] | None = None
        self.pilot: FakePilot | None = None

    def start(self, env: dict[str, str] | None = None, arguments: tuple[str, ...] = ()) -> GateProcess:
        words = ["--config", str(self.config), "--runtime", str(self.runtime), "--trace", str(self.trace_path)]
        with self.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*self._python(), *words, *arguments],
                stderr=stderr,
                env={**os.environ, **(env or {})},
                cwd=Path(__file__).parents[2],
            )
        return self

    def _python(self) -> list[str]:
        if not self._prelude:
            return [sys.executable, "-m", "vehicle.gate"]
        return [sys.executable, "-c", f"{self._prelude}\nimport sys, vehicle.gate\nsys.exit(vehicle.gate.main())"]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def ask(self, op: str, **keys: Any) -> dict[str, Any]:
        return request(self.runtime, "gate.request", {"op": op, **keys}, timeout_s=2.0)

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def reasons(self) -> set[str]:
        return {one["reason"] for one in self.status()["blocked"]}

    def wait_answer(self) -> GateProcess:
        assert self.process is not None

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.stderr()
            try:
                return self.status()["ok"] is True
            except GateError:
                return False

        assert until(answers), self.stderr()
        return self

    def drive(self) -> GateProcess:
        """Armed, with pulses of an intent going out."""
        self.wait_answer()
        self.pilot = FakePilot(self.runtime)
        assert self.ask("model", sha256=MODEL, trial=False)["ok"]
        answer: dict[str, Any] = {}

        def armed() -> bool:
            answer.clear()
            answer.update(self.ask("arm", mode="autonomous"))
            return answer["ok"] is True

        assert until(armed), (answer, self.stderr())
        assert until(lambda: self.throttle()[-1].cause == "drive" and self.throttle()[-1].pulse_us != NEUTRAL_US)
        return self

    def rows(self) -> list[TraceRow]:
        return read_trace(self.trace_path) if self.trace_path.exists() else []

    def throttle(self, since_s: float = 0.0) -> list[TraceRow]:
        return [row for row in self.rows() if row.channel == "throttle" and row.t_s >= since_s]

    def neutral_after(self, since_s: float, count: int = 1) -> list[TraceRow]:
        """The neutral throttle pulses from then on, as soon as there are so many."""

        def found() -> list[TraceRow]:
            return [row for row in self.throttle(since_s) if row.pulse_us == NEUTRAL_US]

        assert until(lambda: len(found()) >= count), (self.throttle()[-3:], self.stderr())
        return found()

    def moving_after(self, t_s: float) -> list[TraceRow]:
        """Pulses that are not neutral from then on."""
        return [row for row in self.throttle(t_s) if row.pulse_us != NEUTRAL_US]

    def send_signal(self, number: int) -> float:
        """Returns when it was sent."""
        sent_s = time.monotonic()
        os.kill(self.pid, number)
        return sent_s

    def wait(self, timeout_s: float = 10.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def close(self) -> None:
        if self.pilot is not None:
            self.pilot.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
