"""The whole way in real time: policy, pilot, gate, pyserial, the compiled firmware in simavr, its pins, the MuJoCo car.

What the throttle pin gave is measured on the pin (`sim.board_process`, pins.csv), not read from what was commanded.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.firmware_bridge.firmware_board import built
from tests.loop.test_stop_distance import Facts
from tests.vehicle.drive_rig import Car
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import make_bundle
from vehicle.links import request
from vehicle.trace import TraceRow, read_trace

# A moment in which a busy machine lets nothing run disarms the car too; a fault that met no moving car shows nothing.
NOT_DRIVING = "it was not driving"
pytestmark = [
    pytest.mark.firmware,
    pytest.mark.timeout(900),
    pytest.mark.flaky(reruns=2, only_rerun=[NOT_DRIVING, "it did not come to that"]),
]

NO_TRIAL_CAP = "[drive]\ntrial_cap_percent = 100.0\n"
LIMIT_S = 0.103  # from the last valid byte until the first neutral pulse has ended
WIDTH_US = 0.3  # half of a step of the protocol, and the error of measuring
BEFORE_S = 0.15
REST_S = 3.0
FAULT_S = 1.0  # for so long the line is broken


class Loop(Car):
    """A drive on the firmware, its pins, and its car as seen from above."""

    def __init__(self) -> None:
        super().__init__(NO_TRIAL_CAP)
        self.facts: Facts | None = None
        self.put_back = 0  # times that it left the road after the fault

    def begin(self, bundle: Path, *words: object) -> None:
        self.install(bundle)
        self.drive("--track", "first_oval", "--hardware", "firmware-sim", "--arm", *words)
        self.wait_moving()
        self.facts = Facts(self.runtime)

    def pins(self, channel: str = "throttle") -> list[TraceRow]:
        """Every pulse that was measured, its rising edge and its width; none that a reset cut short."""
        rows = read_trace(self.trace_path.with_suffix(".pins.csv"))
        return [row for row in rows if row.channel == channel and row.cause == "pin"]

    def board(self, **message: Any) -> dict[str, Any]:
        answer = request(self.runtime, "board.request", message, timeout_s=5.0)
        assert answer["ok"], answer
        return answer

    def tell(self, order: str) -> float:
        """An order to the board, and when it obeyed."""
        return float(self.board(op="tell", order=order)["at_s"])

    def is_neutral(self, row: TraceRow) -> bool:
        return abs(row.pulse_us - self.neutral_us()) <= WIDTH_US

    def wait_speed(self, least_mps: float) -> None:
        """Until it is on its way, and its throttle pin has said so for a while; armed again where it is not."""

        def fast(seen: list[dict[str, Any]]) -> bool:
            if len(seen) % 10 == 0:
                request(self.runtime, "gate.request", {"op": "arm", "mode": "autonomous"})
            return all(one["speed_mps"] > least_mps for one in seen[-3:]) and self.drove(seen[-1]["stamp_s"])

        assert self.facts is not None
        self.facts.until(fast, 60.0)

    def drove(self, at_s: float) -> bool:
        rows = [row for row in self.pins() if at_s - BEFORE_S < row.t_s <= at_s]
        return len(rows) >= 5 and not any(map(self.is_neutral, rows))

    def look_away(self) -> None:
        if self.facts is not None:
            self.facts.close()
            self.facts = None

    def close(self) -> None:
        self.look_away()
        if self.driving is not None and self.driving.process.poll() is None:
            self.driving.send(signal.SIGCONT)
        super().close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    built()
    made = Loop()
    yield made
    made.close()


# --- laps -------------------------------------------------------------------------------------------------------------


def was_late(result: dict[str, Any]) -> bool:
    """Whether this machine did not let them run in time: then the laps say nothing."""
    board = result["board"]
    return bool(
        board["stood_still_s"] > 0.02 * board["runs_s"]
        or result["interval_ms"]["max"] > 130.0
        or result["gate_interval_ms"]["max"] > 50.0
    )


@pytest.mark.slow
@pytest.mark.learning
def test_three_laps_in_a_row(loop: Loop, trained: Path) -> None:
    for attempt in range(3):
        loop.trace_path = loop.folder / f"pulses{attempt}.csv"
        loop.begin(trained, "--laps", 3, "--duration", "240s")
        status = loop.run("status")
        assert status["actuator"]["name"] == "bridge" and status["actuator"]["port"] == str(loop.runtime / "board.tty")
        assert status["actuator"]["firmware"] and status["guard"] is None
        drive = loop.driving
        assert drive is not None
        ended = drive.end(300)
        result = drive.result
        loop.look_away()
        if (result["laps"], result["off_track"]) == (3, 0) or not was_late(result):
            break
    assert ended == 0, (f"machine too late: {was_late(result)}", drive.stderr, loop.logs())
    assert result["laps"] == len(result["lap_times_s"]) == 3 and result["off_track"] == 0
    assert result["exit_status"] == {"world": 0, "board": 0, "gate": 0, "pilot": 0}
    # In real time: as long as the laps took, the chip has run.
    board = result["board"]
    print(f"laps {result['lap_times_s']}, board {board}")
    assert board["runs_s"] > sum(result["lap_times_s"]) and board["cut"] == board["watchdog_resets"] == 0
    assert board["stood_still_s"] < 0.1 * board["runs_s"]
    assert 0.0 < board["cpu_share"] < 1.0
    # The pins gave what the gate said, to half a microsecond, and nothing else.
    said = {round(2 * row.pulse_us) for row in loop.rows("steering")}
    given = [round(2 * row.pulse_us) for row in loop.pins("steering")]
    assert len(given) > 1000 and len(set(given)) > 5 and set(given) <= said
    frames_s = [row.t_s for row in loop.pins()]
    gaps_s = [after - before for before, after in zip(frames_s, frames_s[1:], strict=False)]
    assert min(gaps_s) > 0.0199 and sorted(gaps_s)[len(gaps_s) // 2] == pytest.approx(0.02, abs=1e-5)


# --- faults -----------------------------------------------------------------------------------------------------------


def check_stopped(loop: Loop, fault_s: float, stood_still_s: float) -> None:
    """Neutral on the pin in time and for good, and the car at rest.

    Args:
        fault_s: no valid byte came later.
        stood_still_s: time of the chip that this machine has taken away meanwhile.
    """
    facts = loop.facts
    assert facts is not None
    facts.until(lambda seen: seen[-1]["stamp_s"] > fault_s + REST_S and not seen[-1]["moving"], 20.0)
    after = [row for row in loop.pins() if row.t_s >= fault_s]
    assert loop.drove(fault_s), NOT_DRIVING
    first = next(index for index, row in enumerate(after) if loop.is_neutral(row))
    assert all(map(loop.is_neutral, after[first:])) and len(after) - first > 100
    ended_s = after[first].t_s + 1e-6 * after[first].pulse_us - fault_s
    seen = [one for one in facts.seen if one["stamp_s"] >= fault_s]
    moved_s = max((one["stamp_s"] for one in seen if one["moving"]), default=fault_s) - fault_s
    late_ms = 1e3 * stood_still_s
    print(f"neutral over after {1e3 * ended_s:.1f} ms, chip {late_ms:.0f} ms late, at rest in {moved_s:.1f} s")
    assert ended_s <= LIMIT_S + stood_still_s
    assert moved_s < REST_S and not seen[-1]["moving"]
    loop.put_back = len({one["off_track"] for one in seen}) - 1


def stood_still_s(loop: Loop) -> float:
    return float(loop.board(op="status")["stood_still_s"])


def kill_the_gate(loop: Loop) -> None:
    """The drive is held still, so that nothing but the firmware can act; then it is let go on, and says what was."""
    assert loop.driving is not None
    gate = psutil.Process(loop.pids("vehicle.gate")["vehicle.gate"])
    loop.driving.send(signal.SIGSTOP)
    before_s = stood_still_s(loop)
    os.kill(gate.pid, signal.SIGKILL)
    assert until(lambda: gate.status() == psutil.STATUS_ZOMBIE)
    check_stopped(loop, time.monotonic(), stood_still_s(loop) - before_s)
    loop.driving.send(signal.SIGCONT)
    assert loop.driving.end() == 2
    assert "the gate ended with status -9" in loop.driving.result["error"]["what"]
    loop.wait_empty()


def test_the_gate_killed_while_a_policy_that_nobody_trained_drives(loop: Loop, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle.tar.gz")
    loop.begin(tmp_path / "bundle.tar.gz")
    loop.wait_speed(0.1)
    kill_the_gate(loop)


@pytest.mark.slow
@pytest.mark.learning
def test_the_gate_killed_mid_lap(loop: Loop, trained: Path) -> None:
    loop.begin(trained)
    loop.wait_speed(0.3)
    kill_the_gate(loop)
    assert loop.put_back == 0  # it stopped by itself


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize(
    ("break_it", "mend_it"), [("corrupt 100", "corrupt 0"), ("corrupt 40", "corrupt 0"), ("unplug", "plug")]
)
def test_the_line_is_broken_mid_lap_for_a_second(loop: Loop, trained: Path, break_it: str, mend_it: str) -> None:
    """Every byte, or two bytes in five, are changed both ways; or the port is closed from the other side and gone."""
    loop.begin(trained)
    loop.wait_speed(0.3)
    before_s = stood_still_s(loop)
    broken_s = loop.tell(break_it)
    time.sleep(FAULT_S)  # how long it lasts
    still_s = stood_still_s(loop) - before_s
    loop.tell(mend_it)
    check_stopped(loop, broken_s, still_s)
    assert loop.put_back == 0  # it stopped by itself
    # The line is back, and the car does not go on by itself.
    assert until(lambda: [one["reason"] for one in loop.run("status", status=None)["blocked"]] == ["disarmed"], 30.0)
    back_s = time.monotonic()
    assert until(lambda: loop.pins()[-1].t_s > back_s + 0.5)
    assert all(map(loop.is_neutral, (row for row in loop.pins() if row.t_s > broken_s + LIMIT_S + still_s)))
    loop.wait_speed(0.3)  # armed, it drives again
    assert loop.driving is not None
    loop.driving.send(signal.SIGINT)
    assert loop.driving.end() == 0, (loop.driving.stderr, loop.logs())
    assert loop.is_neutral(loop.pins()[-1])
