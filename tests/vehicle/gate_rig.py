"""A gate core with a clock that tests move by hand; not a test itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from calibration.mapping import Calibration
from vehicle.gate_core import Facts, GateCore, Limits, Output
from vehicle.messages import Alive, Intent

MODEL = "5a" * 32
OK = Facts(guard_alive=True)
TICK_S = 0.02
NEUTRAL_US = Calibration().throttle.neutral_us
CENTER_US = Calibration().steering.center_us


def an_intent(now_s: float = 100.0, seq: int = 1, **changes: Any) -> Intent:
    """A good intent made at `now_s`, from a frame 20 ms older, but for the changes."""
    good = Intent(
        source="pilot",
        seq=seq,
        stamp_s=now_s,
        frame_seq=seq,
        frame_stamp_s=now_s - 0.02,
        steering_deg=0.0,
        speed_mps=1.0,
        model_max_mps=1.0,
        inference_ms=4.0,
        model=MODEL,
    )
    return dataclasses.replace(good, **changes)


class Rig:
    """The core, its time and the helpers that most tests need; starts at 100 s with nothing having happened."""

    def __init__(self, calibration: Calibration | None = Calibration(), **limits: Any) -> None:  # noqa: B008 - frozen
        self.limits = Limits(**limits)
        self.core = GateCore(calibration, self.limits)
        self.now_s = 100.0
        self.seq = 0

    def tick(self, ticks: int = 1, facts: Facts = OK, step_s: float = TICK_S) -> Output:
        """Let ticks pass; the last output."""
        assert ticks > 0
        for _ in range(ticks):
            self.now_s += step_s
            output = self.core.tick(self.now_s, facts)
        return output

    def intent(self, **changes: Any) -> str | None:
        """Send the next intent, made just now."""
        self.seq += 1
        return self.core.intent(an_intent(self.now_s, self.seq, **changes), self.now_s)

    def alive(self, **changes: Any) -> str | None:
        """Send a sign of life with a frame of just now."""
        good = Alive("pilot", self.now_s, self.seq, self.now_s)
        return self.core.alive(dataclasses.replace(good, **changes), self.now_s)

    def run(self, ticks: int, **changes: Any) -> Output:
        """Let ticks pass with a good intent before each."""
        for _ in range(ticks):
            assert self.intent(**changes) is None
            output = self.tick()
        return output

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """Send a request."""
        return self.core.request({"op": op, **values}, self.now_s)

    def ready(self) -> Rig:
        """Everything done but arming."""
        self.ask("model", sha256=MODEL, trial=False)
        self.run(30)
        return self

    def driving(self, **changes: Any) -> Rig:
        """Armed and at the speed of the intents."""
        self.ready()
        answer = self.ask("arm", mode="autonomous")
        assert answer["ok"], answer
        output = self.run(20, **changes)
        assert output.cause == "drive"
        return self

    def leased(self, mode: str) -> str:
        """Armed in manual or calibration mode; the lease."""
        if self.core.state(self.now_s)["counters"]["ticks"] < self.limits.startup_neutral_frames:
            self.tick(self.limits.startup_neutral_frames)
        lease = str(self.ask("lease", kind=mode, holder="a phone")["lease"])
        answer = self.ask("arm", mode=mode, lease=lease)
        assert answer["ok"], answer
        return lease

    def reasons(self) -> list[str]:
        """The short names of everything that blocks now."""
        return [one.reason for one in self.core.blocked(self.now_s)]


def is_neutral(output: Output) -> bool:
    """Exactly the calibrated neutral."""
    return output.throttle_us == NEUTRAL_US
