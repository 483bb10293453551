"""Link and actuator on the REAL firmware: the compiled ELF in simavr, on a pseudo-terminal, in real time.

Exact times are shown in lockstep, elsewhere; the bounds here allow for a busy machine (`SLACK_S`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calibration.mapping import Calibration
from firmware_bridge.board import PinPulse
from firmware_bridge.errors import LinkError
from firmware_bridge.finder import find_bridges
from firmware_bridge.link import Link, open_link
from firmware_bridge.messages import Channel, Config, Estop, Reset, State
from firmware_bridge.selftest import selftest
from firmware_bridge.snapshot import LinkState, Snapshot
from tests.firmware_bridge.firmware_board import SLACK_S, FirmwareBoard, built, until
from vehicle.actuators.bridge import BridgeActuator
from vehicle.errors import ActuatorError

pytestmark = [pytest.mark.firmware, pytest.mark.slow]

CAR = Config(Channel.of(1450.0, 1200.0, 1700.0), Channel.of(1446.0, 1000.0, 2000.0))
NEUTRAL = CAR.steering.neutral_us, CAR.throttle.neutral_us
WIDTH_US = 0.25  # what simavr's own granularity allows
# Silence of 80 ms, the frame that has begun, and its pulse (docs/bridge-protocol.md, Timing).
SAFE_S = 0.103


@pytest.fixture(scope="module")
def build() -> Path:
    return built()


@pytest.fixture
def board(build: Path, tmp_path: Path) -> Iterator[FirmwareBoard]:
    board = FirmwareBoard(build, tmp_path / "ttyBoard")
    yield board
    board.close()


@pytest.fixture
def driver(board: FirmwareBoard) -> Iterator[Driver]:
    driver = Driver(open_link(board.path, CAR))
    assert driver.link.wait(lambda seen: seen.state is LinkState.UP, 5.0)
    yield driver
    driver.close()


class Driver:
    """Commands at 50 Hz from a thread, as the gate does, and remembers when the last one went out."""

    def __init__(self, link: Link) -> None:
        self.link, self.pulses, self.driving = link, NEUTRAL, True
        self.stubborn = False  # sends no neutral in between where the firmware is not armed
        self.sent_s = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="driver")
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            if self.driving:
                try:
                    # A moment's delay of this machine is a failsafe, which only neutral ends.
                    armed = self.stubborn or state(self.link.snapshot()) is State.ARMED
                    self.link.command(*(self.pulses if armed else NEUTRAL))
                    self.sent_s = time.monotonic()
                except LinkError:
                    pass

    def armed(self) -> bool:
        return until(lambda: state(self.link.snapshot()) is State.ARMED)

    def silent(self) -> float:
        """Stop commanding; when the last command went out."""
        self.driving = False
        time.sleep(0.03)
        return self.sent_s

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self.link.close()


def state(seen: Snapshot) -> State | None:
    """By telemetry that is fresh."""
    return None if seen.telemetry is None or seen.age_s(time.monotonic()) > 0.2 else seen.telemetry.state


def near(us: float) -> object:
    return pytest.approx(us, abs=WIDTH_US)


def fast(pulses: list[PinPulse], neutral_us: float = NEUTRAL[1]) -> list[PinPulse]:
    """Those that are not neutral, and no stump that a reset has left."""
    return [one for one in pulses if not one.cut and one.width_us != near(neutral_us)]


def test_a_fresh_board_gives_no_pulses_until_it_is_told_where_neutral_is(board: FirmwareBoard) -> None:
    link = open_link(board.path)
    try:
        assert link.wait(lambda seen: state(seen) is State.UNCONFIGURED, 5.0)
        time.sleep(0.3)
        assert board.pulses == []
        link.configure(CAR)
        assert until(lambda: len(board.throttle(0.0)) > 5)
        assert fast(board.throttle(0.0)) == []
        assert link.wait(lambda seen: seen.echo is not None and seen.echo.stored == 1, 5.0)
    finally:
        link.close()


def test_selftest(board: FirmwareBoard, driver: Driver) -> None:
    driver.close()  # it has left its configuration in the EEPROM
    link = open_link(board.path)
    try:
        checks = selftest(link)
        for _ in range(2):  # a busy machine may see a promise kept too late
            if not all(check.ok for check in checks):
                checks = selftest(link)
        assert [check for check in checks if not check.ok] == [] and len(checks) == 9
    finally:
        link.close()
    assert len(board.throttle(0.0)) > 50 and fast(board.throttle(0.0)) == []


def test_what_is_commanded_is_on_the_pins(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    seen = driver.link.snapshot()
    assert seen.frames is not None
    begun = dict(vars(seen.frames))  # a frame that was under way when the port was opened is an error of no one
    for pulses in ((1200.0, 1000.0), (1333.5, 1445.5), (1700.0, 2000.0), (1450.0, 1500.5)):
        driver.pulses = pulses
        assert until(lambda: (board.last("steering"), board.last("throttle")) == tuple(map(near, pulses))), pulses  # noqa: B023
    seen = driver.link.snapshot()
    assert seen.telemetry is not None and seen.baseline is not None
    assert set(seen.telemetry.counters.since(seen.baseline)) <= {"good"}
    assert seen.frames is not None and vars(seen.frames) == begun | {"good": seen.frames.good}
    throttle = board.throttle(0.0)
    gaps = [after.rise_s - before.rise_s for before, after in zip(throttle, throttle[1:], strict=False)]
    assert all(0.0199 < gap < 0.0201 + board.lag_ms / 1e3 for gap in gaps[1:])


def test_silence_is_neutral(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))
    last_s = driver.silent()
    assert driver.link.wait(lambda seen: state(seen) is State.FAILSAFE, 2.0)
    time.sleep(0.1)
    after = fast(board.throttle(last_s))
    assert after and after[-1].rise_s - last_s < SAFE_S + SLACK_S
    assert board.last("throttle") == near(NEUTRAL[1])
    driver.pulses, driver.driving = NEUTRAL, True
    assert driver.armed()


def test_non_neutral_commands_do_not_end_a_failsafe(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    driver.silent()
    assert driver.link.wait(lambda seen: state(seen) is State.FAILSAFE, 2.0)
    driver.pulses, driver.stubborn, driver.driving = (1450.0, 1300.0), True, True
    begun_s = time.monotonic()
    time.sleep(0.5)
    assert state(driver.link.snapshot()) is State.FAILSAFE
    assert fast(board.throttle(begun_s)) == []


def test_unplugged_and_plugged_in_again(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))
    pulled_s = board.tell("unplug")
    assert driver.link.wait(lambda seen: seen.state is LinkState.DOWN, 5.0)
    time.sleep(0.3)
    moving = fast(board.throttle(pulled_s))
    assert not moving or moving[-1].rise_s - pulled_s < SAFE_S + SLACK_S
    driver.pulses = NEUTRAL
    board.tell("plug")
    assert driver.link.wait(lambda seen: seen.state is LinkState.UP and seen.sessions == 2, 10.0)
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))


@pytest.mark.parametrize("where", ["loop", "interrupt"])
def test_a_hung_chip_is_reset_by_its_watchdog_and_the_link_comes_back(
    board: FirmwareBoard, driver: Driver, where: str
) -> None:
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))
    hung_s = board.tell(f"hang {where}")
    assert driver.link.wait(lambda seen: seen.resets == 1 or seen.sessions == 2, 10.0)
    driver.pulses = NEUTRAL
    assert driver.link.wait(lambda seen: seen.sessions == 2 and seen.state is LinkState.UP, 10.0)
    assert driver.armed()
    hello = driver.link.snapshot().hello
    assert hello is not None and hello.reset_cause & 8
    moving = fast(board.throttle(hung_s))
    assert moving[-1].rise_s - hung_s < 0.14 + SLACK_S
    assert len([line for line in board.said if line.startswith("watchdog")]) == 1


def test_a_corrupted_line_never_makes_another_pulse(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))
    corrupted_s = board.tell("corrupt 20")
    time.sleep(1.0)
    board.tell("corrupt 0")
    driver.pulses = NEUTRAL
    assert driver.link.wait(lambda seen: seen.state is LinkState.UP and state(seen) is not None, 10.0)
    assert driver.armed()
    widths = {round(one.width_us) for one in board.throttle(corrupted_s) if not one.cut}
    assert widths <= {1300, 1446}
    seen = driver.link.snapshot()
    assert seen.telemetry is not None and seen.telemetry.counters.crc_errors + seen.telemetry.counters.frame_errors > 10
    assert seen.frames is not None and seen.frames.crc_errors + seen.frames.frame_errors > 10


def test_an_emergency_stop_outlasts_every_command(board: FirmwareBoard, driver: Driver) -> None:
    assert driver.armed()
    driver.pulses = 1500.0, 1300.0
    assert until(lambda: board.last("throttle") == near(1300.0))
    driver.link.send(Estop())
    assert driver.link.wait(lambda seen: state(seen) is State.ESTOP, 2.0)
    stopped_s = time.monotonic()
    driver.pulses = NEUTRAL
    time.sleep(0.5)
    assert state(driver.link.snapshot()) is State.ESTOP and fast(board.throttle(stopped_s + 0.03)) == []
    driver.link.send(Reset())
    assert driver.armed()


def test_the_bootloader_that_opening_starts_is_waited_for(build: Path, tmp_path: Path) -> None:
    board = FirmwareBoard(build, tmp_path / "ttyNano", boot_s=1.5)
    try:
        begun_s = time.monotonic()
        driver = Driver(open_link(board.path, CAR))
        try:
            assert 1.4 < time.monotonic() - begun_s < 4.0
            assert driver.armed()
            hello = driver.link.snapshot().hello
            assert hello is not None and hello.reset_cause & 2
        finally:
            driver.close()
        (found,) = find_bridges([board.path])
        assert found.hello is not None and found.echo is not None and found.echo.config == CAR  # from the EEPROM
    finally:
        board.close()


# --- the actuator


@pytest.fixture
def actuator(board: FirmwareBoard) -> Iterator[BridgeActuator]:
    actuator = BridgeActuator(open_link(board.path))
    actuator.configure(Calibration())
    yield actuator
    actuator.close()


def write(
    actuator: BridgeActuator,
    pulses: tuple[float, float],
    cause: str,
    condition: Callable[[], object],
    timeout_s: float = 5.0,
) -> ActuatorError | None:
    """Write at 50 Hz until the condition holds; the last error, if it does not in time."""
    deadline_s, error = time.monotonic() + timeout_s, ActuatorError("it never happened")
    while time.monotonic() < deadline_s:
        try:
            actuator.write(*pulses, cause)
            if condition():
                return None
        except ActuatorError as failed:
            error = failed
        time.sleep(0.02)
    return error


def test_the_actuator_drives_and_its_limits_are_the_calibration_s(
    board: FirmwareBoard, actuator: BridgeActuator
) -> None:
    neutral = 1450.0, 1446.0
    assert write(actuator, neutral, "neutral:disarmed", lambda: True) is None
    assert actuator.facts()["state"] == "armed" and actuator.facts()["supply_v"] == pytest.approx(5.0, abs=0.1)
    begun_s = time.monotonic()
    assert write(actuator, (1700.0, 1311.0), "drive", lambda: board.last("throttle") == near(1311.0)) is None
    rise = [one.width_us for one in board.throttle(begun_s)]
    assert all(abs(after - before) <= 52.5 + WIDTH_US for before, after in zip(rise, rise[1:], strict=False))  # slew
    error = write(actuator, (1700.0, 1300.0), "drive", lambda: board.last("throttle") == near(1300.0), 1.0)
    assert error is not None and "not armed" in error.what
    assert board.last("throttle") == near(1446.0)


def test_calibration_mode_on_the_real_firmware(board: FirmwareBoard, actuator: BridgeActuator) -> None:
    neutral = 1450.0, 1446.0
    assert write(actuator, neutral, "neutral:disarmed", lambda: True) is None
    for _ in range(40):
        actuator.write(1900.0, 1446.0, "neutral:not_held")  # none of them is an error
        time.sleep(0.02)
    assert board.last("steering") == near(1900.0)
    assert write(actuator, (1900.0, 1250.0), "calibration", lambda: board.last("throttle") == near(1250.0)) is None
    assert write(actuator, neutral, "neutral:disarmed", lambda: board.last("throttle") == near(1446.0)) is None
    assert {round(one.width_us) for one in board.throttle(0.0)} <= set(range(1250, 1447))
