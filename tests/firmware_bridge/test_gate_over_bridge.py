"""The whole way: a real gate process, pyserial, the REAL firmware in simavr, the pulses on its pins."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibration.mapping import speed_pulse_us
from firmware_bridge.board import PinPulse
from tests.firmware_bridge.firmware_board import SLACK_S, FirmwareBoard, built, until
from tests.vehicle.gate_process import CALIBRATION, CENTER_US, MODEL, NEUTRAL_US, FakePilot, GateProcess

pytestmark = [pytest.mark.firmware, pytest.mark.slow]

SAFE_S = 0.103  # docs/bridge-protocol.md: silence, the frame that has begun, and its pulse
DRIVING_US = speed_pulse_us(CALIBRATION, 0.5, model_max_mps=1.0)  # of the fake pilot

KILL_LINK_ON_FLAG = """
import os, firmware_bridge.link
real = firmware_bridge.link.Link._take
def take(self, message, now_s):
    if os.path.exists({flag!r}):
        raise ZeroDivisionError("a fault")
    return real(self, message, now_s)
firmware_bridge.link.Link._take = take
"""


@pytest.fixture(scope="module")
def build() -> Path:
    return built()


@pytest.fixture
def board(build: Path, tmp_path: Path) -> Iterator[FirmwareBoard]:
    """A Nano with Optiboot: it resets when the port is opened."""
    board = FirmwareBoard(build, tmp_path / "ttyBoard", boot_s=0.6)
    yield board
    board.close()


@pytest.fixture
def gate(board: FirmwareBoard, tmp_path: Path) -> Iterator[GateProcess]:
    gate = GateProcess(tmp_path, actuator="bridge")
    with gate.config.open("a") as config:
        config.write(f'port = "{board.path}"\n')
    yield gate
    gate.close()


def drive(gate: GateProcess, board: FirmwareBoard) -> None:
    """Start the gate, and see its pulses on the pin."""
    gate.start().wait_answer()
    gate.pilot = FakePilot(gate.runtime)
    assert gate.ask("model", sha256=MODEL, trial=False)["ok"]
    drive_again(gate, board)


def moving(pulses: list[PinPulse]) -> list[PinPulse]:
    return [one for one in pulses if not one.cut and abs(one.width_us - NEUTRAL_US) > 0.3]


def drive_again(gate: GateProcess, board: FirmwareBoard) -> None:
    """Armed, as soon as nothing is against it, and again where a moment's delay of this machine has disarmed it."""

    def driving() -> bool:
        if board.last("throttle") == pytest.approx(DRIVING_US, abs=0.5):
            return True
        if gate.status()["mode"] == "disarmed":
            gate.ask("arm", mode="autonomous")
        return False

    assert until(driving), gate.status()["blocked"]


def test_it_drives_and_no_guard_is_needed(gate: GateProcess, board: FirmwareBoard) -> None:
    drive(gate, board)
    assert moving(board.throttle(0.0))[0].width_us < NEUTRAL_US
    assert until(lambda: gate.status()["actuator"]["state"] == "armed")  # asked once a second
    status = gate.status()
    assert status["guard"] is None and status["processes"]["guard"] is None
    actuator = status["actuator"]
    assert actuator["name"] == "bridge" and actuator["error"] is None
    assert actuator["counters"]["range_refused"] == actuator["counters"]["sequence_refused"] == 0
    assert {round(one.width_us) for one in board.pulses if one.channel == "steering"} <= set(range(1200, 1701))


def test_a_disarmed_gate_holds_calibrated_neutral(gate: GateProcess, board: FirmwareBoard) -> None:
    gate.start().wait_answer()
    assert until(lambda: len(board.throttle(0.0)) > 50)
    assert moving(board.throttle(0.0)) == []
    assert board.last("steering") == pytest.approx(CENTER_US, abs=0.3)
    assert until(lambda: "actuator" not in gate.reasons())


def test_the_gate_killed_is_neutral_on_the_pin(gate: GateProcess, board: FirmwareBoard) -> None:
    drive(gate, board)
    killed_s = gate.send_signal(signal.SIGKILL)
    gate.wait()
    time.sleep(0.5)
    after = moving(board.throttle(killed_s))
    assert not after or after[-1].rise_s - killed_s < SAFE_S + SLACK_S
    assert board.last("throttle") == pytest.approx(NEUTRAL_US, abs=0.3)
    # And the next gate finds the board, whose port the kernel has closed.
    gate.pilot and gate.pilot.close()
    gate.pilot = None
    drive(gate, board)


def test_the_gate_stopped_is_neutral_on_the_pin(gate: GateProcess, board: FirmwareBoard) -> None:
    drive(gate, board)
    stopped_s = gate.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    after = moving(board.throttle(stopped_s))
    assert not after or after[-1].rise_s - stopped_s < SAFE_S + SLACK_S
    continued_s = gate.send_signal(signal.SIGCONT)
    assert until(lambda: gate.status()["mode"] == "disarmed")
    assert moving(board.throttle(continued_s + SLACK_S)) == []
    drive_again(gate, board)


def test_unplugged_for_longer_than_any_gate_would_wait_and_it_drives_again(
    gate: GateProcess, board: FirmwareBoard
) -> None:
    drive(gate, board)
    pulled_s = board.tell("unplug")
    assert until(lambda: gate.status()["mode"] == "disarmed")
    time.sleep(3.0)
    after = moving(board.throttle(pulled_s))
    assert not after or after[-1].rise_s - pulled_s < SAFE_S + SLACK_S
    assert "actuator" in gate.reasons()
    assert "bridge" in gate.status()["actuator"]["error"]
    board.tell("plug")
    assert until(lambda: "actuator" not in gate.reasons(), 15.0), gate.status()["actuator"]
    assert moving(board.throttle(pulled_s + 1.0)) == []  # not before somebody arms it
    drive_again(gate, board)
    assert gate.process is not None and gate.process.poll() is None


def test_a_corrupted_line_is_neutral_or_what_was_commanded(gate: GateProcess, board: FirmwareBoard) -> None:
    drive(gate, board)
    corrupted_s = board.tell("corrupt 50")
    time.sleep(1.0)
    board.tell("corrupt 0")
    clean_s = time.monotonic()
    low, high = sorted((DRIVING_US, NEUTRAL_US))
    widths = [one.width_us for one in board.throttle(corrupted_s, clean_s) if not one.cut]
    assert widths and all(low - 0.5 <= us <= high + 0.5 for us in widths)
    assert widths[-1] == pytest.approx(NEUTRAL_US, abs=0.3)
    assert until(lambda: "actuator" not in gate.reasons(), 15.0), gate.status()["actuator"]
    drive_again(gate, board)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_neutral_and_a_clean_end(gate: GateProcess, board: FirmwareBoard, number: signal.Signals) -> None:
    drive(gate, board)
    ended_s = gate.send_signal(number)
    assert gate.wait() == 0
    after = moving(board.throttle(ended_s))
    assert not after or after[-1].rise_s - ended_s < 0.1 + SLACK_S
    assert until(lambda: any(line.startswith("closed") for line in board.said))
    assert board.last("throttle") == pytest.approx(NEUTRAL_US, abs=0.3)


def test_a_link_that_has_died_ends_the_gate(gate: GateProcess, board: FirmwareBoard, tmp_path: Path) -> None:
    flag = tmp_path / "break"
    gate._prelude = KILL_LINK_ON_FLAG.format(flag=str(flag))
    drive(gate, board)
    flag.touch()
    broken_s = time.monotonic()
    assert gate.wait() == 1  # systemd starts another one
    assert "thread died: ZeroDivisionError" in gate.stderr()
    after = moving(board.throttle(broken_s))
    assert not after or after[-1].rise_s - broken_s < SAFE_S + 2 * SLACK_S


def test_a_board_that_is_not_there_is_said_at_once(gate: GateProcess, board: FirmwareBoard) -> None:
    board.tell("unplug")
    gate.start()
    assert gate.wait() == 1
    assert "cannot be opened" in gate.stderr() and "hotlap bridge find" in gate.stderr()


def test_calibration_mode_reaches_beyond_the_calibrated_ends(gate: GateProcess, board: FirmwareBoard) -> None:
    gate.start().wait_answer()
    assert until(lambda: not {"actuator", "neutral_frames"} & gate.reasons())
    lease = gate.ask("lease", kind="calibration", holder="a test")["lease"]

    def armed() -> bool:
        return gate.ask("renew", lease=lease)["ok"] and gate.ask("arm", mode="calibration", lease=lease)["ok"]

    assert until(armed)
    assert gate.ask("pulse", lease=lease, steering_us=1850.0)["ok"]

    def turned() -> bool:
        assert gate.ask("renew", lease=lease)["ok"], gate.status()["fault"]
        return board.last("steering") == pytest.approx(1850.0, abs=0.3)

    assert until(turned)
    assert gate.status()["mode"] == "calibration"
    assert gate.ask("release", lease=lease)["ok"]
    assert until(lambda: board.last("steering") == pytest.approx(CENTER_US, abs=0.3))
    assert moving(board.throttle(0.0)) == []
