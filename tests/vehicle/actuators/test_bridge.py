"""The bridge as an actuator, over a pseudo-terminal to a MODEL of the firmware: when a pulse counts as written.

The same actuator on the real firmware: tests/firmware_bridge/test_real_firmware.py.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calibration.mapping import Calibration, Steering, Throttle
from firmware_bridge.messages import Disarm, Radio, State
from tests.firmware_bridge.model_bridge import BridgeModel, ModelBoard
from vehicle.actuators.base import Actuator, Configurable
from vehicle.actuators.bridge import BridgeActuator, BridgeIsGuard, open_bridge
from vehicle.actuators.record import Recorder
from vehicle.car_config import ActuatorConfig
from vehicle.errors import ActuatorError
from vehicle.gate_pulses import Pulses

pytestmark = pytest.mark.slow  # a board in real time

CALIBRATION = Calibration()  # steering 1200 to 1700, throttle 1311 to 1603.5 us
NEUTRAL = (1450.0, 1446.0)
WAIT_S = 8.0


@pytest.fixture
def board(tmp_path: Path) -> Iterator[ModelBoard]:
    board = ModelBoard(tmp_path / "ttyBoard", BridgeModel(config=None, timeout_s=0.4))
    yield board
    board.close()


@pytest.fixture
def actuator(board: ModelBoard) -> Iterator[BridgeActuator]:
    """Open, configured, and armed by neutral."""
    actuator = opened(board)
    actuator.configure(CALIBRATION)
    assert written(actuator) is None
    yield actuator
    actuator.close()


def opened(board: ModelBoard, radio: bool = False) -> BridgeActuator:
    actuator = open_bridge(ActuatorConfig(kind="bridge", port=board.path, radio=radio), Path("/nowhere"), "gate")
    assert isinstance(actuator, BridgeActuator)
    return actuator


def written(
    actuator: Actuator, pulses: tuple[float, float] = NEUTRAL, timeout_s: float = WAIT_S
) -> ActuatorError | None:
    """Write at 50 Hz until it works; the last error if it does not."""
    deadline_s = time.monotonic() + timeout_s
    error: ActuatorError | None = None
    while time.monotonic() < deadline_s:
        try:
            actuator.write(*pulses, "neutral:disarmed")
            return None
        except ActuatorError as failed:
            error = failed
        time.sleep(0.02)
    return error


def until(condition: Callable[[], bool], actuator: Actuator | None = None, cause: str = "drive",
          pulses: tuple[float, float] = NEUTRAL) -> bool:  # fmt: skip
    """Whether it comes true, while the pulses are written at 50 Hz."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        if condition():
            return True
        if actuator is not None:
            actuator.write(*pulses, cause)
        time.sleep(0.02)
    return False


def state_of(board: ModelBoard, state: State) -> Callable[[], bool]:
    return lambda: board.model.state is state


def test_the_gate_s_way_from_opening_to_driving(board: ModelBoard) -> None:
    actuator = opened(board)
    try:
        assert isinstance(actuator, Actuator) and isinstance(actuator, Configurable)
        pulses = Pulses(actuator, CALIBRATION)
        assert not pulses.neutral("neutral:start")  # taken or on its way, but the firmware is not armed yet
        assert pulses.error is not None and pulses.error.startswith("bridge")
        deadline_s = time.monotonic() + WAIT_S
        while not pulses.neutral("neutral:disarmed") and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert board.model.state is State.ARMED
        assert pulses.error is None
        assert {command.throttle_us for command in board.model.commands()} == {1446.0}
        assert until(lambda: board.model.pulses_us == (1600.0, 1400.0), actuator, pulses=(1600.0, 1400.0))
    finally:
        actuator.close()


def test_limits_and_neutral_come_from_the_calibration(actuator: BridgeActuator, board: ModelBoard) -> None:
    config = board.model.config
    assert config is not None and not config.radio
    assert (config.steering.neutral_us, config.steering.min_us, config.steering.max_us) == (1450.0, 1200.0, 1700.0)
    assert (config.throttle.neutral_us, config.throttle.min_us, config.throttle.max_us) == (1446.0, 1311.0, 1603.5)
    assert config.throttle.slew_us == 52.5  # a third of the longer way: full throttle in three frames
    assert config.steering.slew_us == 0.0


def test_either_direction_may_be_the_longer_pulse(board: ModelBoard) -> None:
    actuator = opened(board)
    try:
        steering = Steering(left_us=1100.0, center_us=1500.0, right_us=1900.0)
        throttle = Throttle(neutral_us=1500.25, forward_us=1800.0, reverse_us=1300.0)
        actuator.configure(Calibration(steering, throttle))
        assert written(actuator, (1500.0, 1500.25)) is None  # rounded as in the configuration, or it would never arm
        config = board.model.config
        assert config is not None and (config.throttle.min_us, config.throttle.max_us) == (1300.0, 1800.0)
        assert config.throttle.neutral_us == 1500.5
    finally:
        actuator.close()


def test_without_a_calibration_nothing_is_written(board: ModelBoard) -> None:
    actuator = opened(board)
    try:
        with pytest.raises(ActuatorError, match="not told where neutral is"):
            actuator.write(*NEUTRAL, "neutral:start")
        assert board.model.commands() == []
    finally:
        actuator.close()


@pytest.mark.parametrize("pulse_us", [float("nan"), float("inf"), 499.0, 2501.0])
def test_no_pulse_is_ever_sent_that_none_takes(actuator: BridgeActuator, board: ModelBoard, pulse_us: float) -> None:
    before = len(board.model.commands())
    for pulses in ((pulse_us, 1446.0), (1450.0, pulse_us)):
        with pytest.raises(ActuatorError, match="is refused"):
            actuator.write(*pulses, "drive")
    assert len(board.model.commands()) == before


def test_beyond_the_calibrated_ends_the_firmware_refuses_and_the_gate_hears_of_it(
    actuator: BridgeActuator, board: ModelBoard
) -> None:
    with pytest.raises(ActuatorError, match="bridge: failsafe, not armed") as caught:
        until(lambda: False, actuator, pulses=(1450.0, 1200.0))  # full throttle is 1311
    assert "range_refused" in caught.value.cause
    assert board.model.pulses_us[1] == 1446.0
    assert written(actuator) is None  # neutral again, and it recovers


def test_silence_of_the_gate_is_neutral_and_an_error_afterwards(actuator: BridgeActuator, board: ModelBoard) -> None:
    actuator.write(1450.0, 1400.0, "drive")
    assert until(state_of(board, State.FAILSAFE))
    time.sleep(0.05)
    with pytest.raises(ActuatorError, match="failsafe, not armed") as caught:
        actuator.write(1450.0, 1400.0, "drive")
    assert "timeouts 1" in caught.value.cause
    assert until(lambda: board.model.commands()[-1].throttle_us == 1446.0)  # neutral went in its place
    assert written(actuator) is None


@pytest.mark.parametrize(
    ("name", "value", "state", "cause", "cure"),
    [
        ("state", State.ESTOP, "estop", "emergency stop", "hotlap bridge reset"),
        ("radio", Radio.OVERRIDE, "override", "transmitter", "switch back"),
    ],
)  # fmt: skip
def test_a_firmware_that_does_not_follow_is_an_error_with_its_cause(
    actuator: BridgeActuator, board: ModelBoard, name: str, value: object, state: str, cause: str, cure: str
) -> None:
    board.act(lambda: setattr(board.model, name, value))
    with pytest.raises(ActuatorError, match=f"bridge: {state}, not armed") as caught:
        until(lambda: False, actuator)
    assert cause in caught.value.cause and cure in caught.value.next_step


def test_a_lost_radio(board: ModelBoard) -> None:
    board.act(lambda: setattr(board.model, "radio", Radio.LOST))
    actuator = opened(board, radio=True)
    try:
        actuator.configure(CALIBRATION)
        error = written(actuator, timeout_s=1.0)
        assert error is not None and "disarmed, not armed" in error.what and "transmitter" in error.next_step
        assert board.model.config is not None and board.model.config.radio
        board.act(lambda: setattr(board.model, "radio", Radio.STANDBY))
        assert written(actuator) is None
    finally:
        actuator.close()


def test_silent_telemetry_is_an_error_although_bytes_go_out(actuator: BridgeActuator, board: ModelBoard) -> None:
    board.act(lambda: setattr(board.model, "mute", True))
    silent_s = time.monotonic()
    with pytest.raises(ActuatorError, match=r"no telemetry for more than 0\.2 s"):
        until(lambda: False, actuator)
    assert 0.15 < time.monotonic() - silent_s < 1.0
    assert board.model.state is State.ARMED  # it went on hearing us
    board.act(lambda: setattr(board.model, "mute", False))
    assert written(actuator) is None


def test_unplugging_is_an_error_at_once_and_plugging_in_mends_it(actuator: BridgeActuator, board: ModelBoard) -> None:
    board.unplug()
    pulled_s = time.monotonic()
    with pytest.raises(ActuatorError, match="is gone"):
        until(lambda: False, actuator)
    assert time.monotonic() - pulled_s < 0.5
    what = set()
    for _ in range(20):
        with pytest.raises(ActuatorError) as caught:
            actuator.write(*NEUTRAL, "neutral:disarmed")
        what.add(caught.value.what)
        time.sleep(0.02)
    assert len(what) <= 3  # no counting numbers in it: the gate logs each change
    board.plug()
    assert written(actuator) is None
    facts = actuator.facts()
    assert facts["sessions"] == 2 and facts["link"] == "up" and facts["link_error"] is None


def test_a_chip_that_its_watchdog_reset(actuator: BridgeActuator, board: ModelBoard) -> None:
    board.reset_chip(cause=8)
    with pytest.raises(ActuatorError):
        until(lambda: False, actuator)
    assert written(actuator) is None
    assert actuator.facts()["reset_cause"] == "watchdog" and actuator.facts()["resets"] == 1


def test_calibration_mode_has_wider_limits_and_only_it(actuator: BridgeActuator, board: ModelBoard) -> None:
    def wide() -> bool:
        config = board.model.config
        return board.model.state is State.ARMED and config is not None and config.throttle.min_us == 900.0

    # Never an error, though the firmware must be disarmed for the change.
    assert until(wide, actuator, "neutral:not_held")
    config = board.model.config
    assert config is not None and (config.throttle.min_us, config.throttle.max_us) == (900.0, 2100.0)
    assert (config.steering.min_us, config.steering.max_us) == (900.0, 2100.0)
    assert config.throttle.neutral_us == 1446.0
    assert until(lambda: board.model.pulses_us == (1800.0, 1250.0), actuator, "calibration", (1800.0, 1250.0))
    assert [type(message) for _, message in board.model.taken].count(Disarm) == 1
    assert written(actuator) is None  # back to driving: the narrow limits
    config = board.model.config
    assert config is not None and config.throttle.min_us == 1311.0


def test_a_pulse_that_comes_before_the_wider_limits_are_in_force_is_neutral(
    actuator: BridgeActuator, board: ModelBoard
) -> None:
    beyond = (1450.0, 1300.0)  # of the calibrated end, 1311
    assert until(lambda: board.model.pulses_us == beyond, actuator, "calibration", beyond)  # no write was an error
    assert board.model.counters.range_refused == 0
    sent = [command.throttle_us for command in board.model.commands()]
    assert set(sent) == {1446.0, 1300.0} and sent == sorted(sent, reverse=True)


def test_wider_limits_that_are_refused_become_an_error(actuator: BridgeActuator, board: ModelBoard) -> None:
    board.act(lambda: setattr(board.model, "radio", Radio.OVERRIDE))
    with pytest.raises(ActuatorError):
        until(lambda: False, actuator, "calibration")


def test_another_calibration_while_running(actuator: BridgeActuator, board: ModelBoard) -> None:
    other = Calibration(throttle=Throttle(neutral_us=1450.0, forward_us=1311.0, reverse_us=1603.5))
    actuator.configure(other)
    assert written(actuator, (1450.0, 1450.0)) is None
    assert board.model.config is not None and board.model.config.throttle.neutral_us == 1450.0
    assert board.model.state is State.ARMED


def test_facts(actuator: BridgeActuator, board: ModelBoard) -> None:
    assert until(lambda: actuator.facts()["state"] == "armed", actuator)
    facts = actuator.facts()
    assert (facts["name"], facts["fails_safe"], facts["shared"], facts["recovers"]) == ("bridge", True, False, True)
    assert facts["port"] == board.path and facts["link"] == "up"
    assert facts["firmware"] == "1.0.0" and facts["protocol"] == 1
    assert facts["supply_v"] == 4.98 and facts["reset_cause"] == "power on"
    assert facts["counters"]["timeouts"] == 0 and facts["counters"]["good"] > 5
    assert facts["telemetry_age_s"] < 1.0 and facts["pulses"] == {"steering_us": 1450.0, "throttle_us": 1446.0}
    assert facts["sent_sequence"] >= facts["last_sequence"] > 0
    board.unplug()
    assert until(lambda: actuator.facts()["link"] == "down")
    facts = actuator.facts()
    assert facts["state"] is None and facts["supply_v"] is None and "gone" in facts["link_error"]
    assert facts["firmware"] == "1.0.0"  # the last that was known


def test_a_recorder_around_it_passes_the_calibration_on(board: ModelBoard, tmp_path: Path) -> None:
    recorder = Recorder(opened(board), tmp_path / "pulses.csv")
    try:
        Pulses(recorder, CALIBRATION)
        assert written(recorder) is None
    finally:
        recorder.close()


def test_closing_twice_and_writing_afterwards(board: ModelBoard) -> None:
    actuator = opened(board)
    actuator.configure(CALIBRATION)
    actuator.close()
    actuator.close()
    with pytest.raises(ActuatorError, match="closed"):
        actuator.write(*NEUTRAL, "neutral:exit")


def test_what_reads_the_telemetry_is_not_held_up_by_other_programs(actuator: BridgeActuator) -> None:
    (thread,) = (one for one in threading.enumerate() if one.name == "bridge-link")
    assert thread.native_id is not None
    allowed = subprocess.run(["chrt", "--rr", "10", "true"], capture_output=True).returncode == 0
    assert os.sched_getscheduler(thread.native_id) == (os.SCHED_RR if allowed else os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # of no other thread


def test_opening_explains_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="bridge: .*ttyGone cannot be opened") as caught:
        open_bridge(ActuatorConfig(port=str(tmp_path / "ttyGone")), tmp_path, "gate")
    assert "not plugged in" in caught.value.cause and "hotlap bridge find" in caught.value.next_step


def test_nobody_but_the_gate_opens_the_port(board: ModelBoard) -> None:
    guard = open_bridge(ActuatorConfig(port=board.path), Path("/nowhere"), "guard")
    assert isinstance(guard, BridgeIsGuard) and isinstance(guard, Actuator)
    guard.write(*NEUTRAL, "neutral:stopped_service")
    with pytest.raises(ActuatorError):
        guard.write(float("nan"), 1446.0, "neutral:stopped_service")
    assert guard.facts() == {"name": "bridge", "fails_safe": True, "shared": False}
    guard.close()
    assert board.model.taken == []
