"""kill -9 of the pilot at 0.8 m/s: neutral in time, and how far the simulated car rolls until it stands still."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.conftest import ROOT
from vehicle.fault_bench import Case, judge
from vehicle.fault_model import SPEED_MPS, make_bundle
from vehicle.fault_rigs import Rig, Setup
from vehicle.links import endpoint

pytestmark = pytest.mark.slow

LIMIT_M = 0.35  # docs/faults.md
LIMIT_MS = 200.0
REST_S = 2.0


@dataclass(frozen=True)
class Stop:
    speed_mps: float  # at the kill
    neutral_ms: float
    rolled_m: float
    rest_ms: float  # from the kill until it stands still, to a tenth of a second


class Facts:
    """What the world says of its car, ten times a second."""

    def __init__(self, runtime: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint(runtime, "world.facts"))
        self.seen: list[dict[str, Any]] = []

    def until(self, condition: Any, timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self._socket.poll(100):
                self.seen.append(json.loads(self._socket.recv()))
                if condition(self.seen):
                    return
        raise AssertionError(f"it did not come to that: {self.seen[-3:]}")

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def facts_of(rig: Rig) -> Iterator[Facts]:
    facts = Facts(rig.runtime)
    try:
        yield facts
    finally:
        facts.close()
        rig.close()


def travelled_m(seen: list[dict[str, Any]], at_s: float) -> float:
    """Between two reports, as a straight line."""
    for a, b in zip(seen, seen[1:], strict=False):
        if a["stamp_s"] <= at_s < b["stamp_s"]:
            share = (at_s - a["stamp_s"]) / (b["stamp_s"] - a["stamp_s"])
            return float(a["travelled_m"] + share * (b["travelled_m"] - a["travelled_m"]))
    raise AssertionError("no reports around the kill")


def kill_at_speed(bundle: Path) -> Stop:
    rig = Rig(Setup(actuator="sim", pilot="real", world=True), bundle)
    with facts_of(rig) as facts:
        rig.drive("autonomous")
        fast = 0.97 * SPEED_MPS
        facts.until(lambda seen: len(seen) > 1 and all(one["speed_mps"] > fast for one in seen[-2:]))
        killed_s = rig.signal("pilot", signal.SIGKILL)
        facts.until(lambda seen: seen[-1]["stamp_s"] > killed_s + REST_S)
        case = Case("killed", "pilot", LIMIT_MS, inject=lambda rig: killed_s)
        neutral_ms, problems = judge(rig.rows(), case, rig.neutral_us, killed_s)
        assert not problems
        assert neutral_ms is not None
        after = [one for one in facts.seen if one["stamp_s"] >= killed_s]
        assert after[-1]["off_track"] == 0  # nobody has put it back meanwhile
        assert not after[-1]["moving"]
        rest = next(one for i, one in enumerate(after) if not any(later["moving"] for later in after[i:]))
        at_kill_mps = [one["speed_mps"] for one in facts.seen if one["stamp_s"] < killed_s][-1]
        rolled_m = after[-1]["travelled_m"] - travelled_m(facts.seen, killed_s)
        return Stop(at_kill_mps, neutral_ms, rolled_m, 1e3 * (rest["stamp_s"] - killed_s))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle.tar.gz").path


@pytest.mark.parametrize("run", (1, 2))
def test_a_car_whose_pilot_is_killed_stands_still_within_the_stated_distance(bundle: Path, run: int) -> None:
    stop = kill_at_speed(bundle)
    assert stop.speed_mps == pytest.approx(SPEED_MPS, rel=0.03)
    assert stop.neutral_ms <= LIMIT_MS
    assert 0.05 < stop.rolled_m <= LIMIT_M, stop


def test_the_docs_state_that_distance() -> None:
    assert f"**{LIMIT_M:g} m**" in (ROOT / "docs" / "faults.md").read_text()
