"""The link over a real pseudo-terminal to a MODEL of the firmware: sessions, configuration, unplugging, resets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge import link as link_module
from firmware_bridge.errors import LinkError, NoAnswer, ProtocolError, VersionMismatch
from firmware_bridge.finder import Contact
from firmware_bridge.link import Link, open_link
from firmware_bridge.messages import Channel, Config, Disarm, Estop, Hello, Radio, Reset, State
from firmware_bridge.protocol import encode
from firmware_bridge.snapshot import LinkState, Snapshot
from tests.firmware_bridge.model_bridge import STORED, BridgeModel, ModelBoard, open_fds

CAR = Config(Channel.of(1500.0, 1100.0, 1900.0), Channel.of(1480.0, 1300.0, 1700.0, 40.0))
NEUTRAL = CAR.steering.neutral_us, CAR.throttle.neutral_us
WAIT_S = 8.0

pytestmark = pytest.mark.slow  # boards in real time


@pytest.fixture
def links() -> Iterator[list[Link]]:
    """Links that the test has opened; all are closed, whatever happens."""
    opened: list[Link] = []
    yield opened
    for link in opened:
        link.close()


def up(seen: Snapshot) -> bool:
    return seen.state is LinkState.UP and seen.telemetry is not None


def drive(link: Link, until: Callable[[Snapshot], bool], pulses: tuple[float, float] = NEUTRAL) -> bool:
    """Command at 50 Hz until the snapshot is so; neutral while it is not armed, as after a moment's delay."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        try:
            link.command(*(pulses if armed(link.snapshot()) else NEUTRAL))
        except LinkError:
            pass
        if link.wait(until, 0.02):
            return True
    return False


def armed(seen: Snapshot) -> bool:
    return seen.telemetry is not None and seen.telemetry.state is State.ARMED


def arm_stored(link: Link) -> bool:
    """Armed, by the neutral of the configuration that the board has stored."""
    for _ in range(400):
        link.command(STORED.steering.neutral_us, STORED.throttle.neutral_us)
        if link.wait(armed, 0.02):
            return True
    return False


def test_its_thread_is_prepared_first_and_a_failure_of_that_is_no_silent_death(links: list[Link]) -> None:
    prepared: list[str] = []

    def prepare() -> None:
        prepared.append(threading.current_thread().name)
        raise ZeroDivisionError("a fault")

    link = Link("/nowhere", prepare=prepare)
    links.append(link)
    assert link.wait(lambda seen: seen.state is LinkState.CLOSED, WAIT_S)
    assert prepared == ["bridge-link"]
    with pytest.raises(LinkError, match="thread died: ZeroDivisionError"):
        link.command(*NEUTRAL)


def test_a_session_with_the_car_s_configuration(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert link.wait(up, WAIT_S)
    seen = link.snapshot()
    assert seen.port == board.path and seen.error is None and seen.sessions == 1
    assert seen.hello is not None and seen.hello.firmware == (1, 0, 0)
    assert seen.echo is not None and seen.echo.config == CAR == board.model.config
    assert seen.telemetry is not None and seen.telemetry.supply_mv == 4980
    assert seen.age_s(time.monotonic()) < 1.0
    hello = [message for _, message in board.model.taken][0]
    assert isinstance(hello, Hello) and hello.nonce != 0


def test_it_arms_on_neutral_and_drives(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert drive(link, armed)
    fast = (1600.0, 1450.0)
    assert drive(link, lambda seen: seen.telemetry is not None and seen.telemetry.throttle_us == fast[1], fast)
    telemetry = link.snapshot().telemetry
    assert telemetry is not None and telemetry.steering_us == 1600.0
    sequences = [command.sequence for command in board.model.commands()]
    assert sequences == list(range(1, len(sequences) + 1))
    assert telemetry.counters.sequence_refused == telemetry.counters.range_refused == 0


def test_without_commands_the_board_is_neutral_and_says_so(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert drive(link, armed)
    assert link.wait(lambda seen: seen.telemetry is not None and seen.telemetry.state is State.FAILSAFE, WAIT_S)
    telemetry = link.snapshot().telemetry
    assert telemetry is not None and telemetry.throttle_us == NEUTRAL[1] and telemetry.counters.timeouts == 1
    assert drive(link, armed)


def test_the_stored_configuration_is_not_sent_again(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    assert link.wait(up, WAIT_S)
    assert arm_stored(link)
    assert not [message for _, message in board.model.taken if isinstance(message, Config)]


def test_another_configuration_disarms_takes_force_and_arms_again(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    assert arm_stored(link)
    link.configure(CAR)
    assert link.snapshot().state is LinkState.CONFIGURING
    with pytest.raises(LinkError, match="configuring"):
        link.command(*NEUTRAL)
    assert link.wait(up, WAIT_S)
    assert board.model.config == CAR
    assert [type(message) for _, message in board.model.taken if not isinstance(message, (Hello,))].count(Disarm) == 1
    assert drive(link, armed)
    link.configure(CAR)  # the same again changes nothing
    link.command(*NEUTRAL)


def test_a_configuration_is_refused_while_stopped_and_taken_after_a_reset(
    board: ModelBoard, links: list[Link]
) -> None:
    board.act(lambda: setattr(board.model, "state", State.ESTOP))
    link = open_link(board.path, CAR)
    links.append(link)
    assert link.wait(lambda seen: seen.error is not None, WAIT_S)
    with pytest.raises(LinkError, match="refuses the configuration: refused_state") as caught:
        link.command(*NEUTRAL)
    assert "estop" in caught.value.cause and "reset" in caught.value.next_step
    link.send(Reset())
    assert link.wait(up, WAIT_S)
    assert link.snapshot().error is None
    assert drive(link, armed)


def test_an_emergency_stop_needs_no_configuration(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path)
    links.append(link)
    link.send(Estop())
    assert link.wait(lambda seen: seen.telemetry is not None and seen.telemetry.state is State.ESTOP, WAIT_S)


def test_unplugged_and_plugged_in_again(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert drive(link, armed)
    fds = open_fds()
    for round_number in (2, 3):
        board.unplug()
        assert link.wait(lambda seen: seen.state is LinkState.DOWN, WAIT_S)
        with pytest.raises(LinkError) as caught:
            link.command(*NEUTRAL)
        assert caught.value.next_step
        assert link.snapshot().telemetry is None
        board.plug()
        assert link.wait(lambda seen, n=round_number: up(seen) and seen.sessions == n, WAIT_S)  # type: ignore[misc]
        assert link.snapshot().error is None
        assert drive(link, armed)
    assert board.model.config == CAR
    assert open_fds() == fds


def test_it_waits_longer_and_longer_for_a_board_that_is_gone(board: ModelBoard, links: list[Link]) -> None:
    attempts: list[float] = []
    real = link_module.contact

    def counted(port: str, ending: Callable[[], bool]) -> Contact:
        attempts.append(time.monotonic())
        return real(port, ending)

    link = Link(board.path, CAR, connect=counted)
    links.append(link)
    assert link.wait(up, WAIT_S)
    board.unplug()
    time.sleep(2.5)
    pauses = [after - before for before, after in zip(attempts[1:], attempts[2:], strict=False)]
    assert len(attempts) in (3, 4, 5)
    assert pauses == sorted(pauses) and pauses[0] > 0.2
    assert "not plugged in" in str(link.snapshot().error)


def test_a_watchdog_reset_is_noticed_and_the_session_opened_again(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert drive(link, armed)
    board.reset_chip()
    assert link.wait(lambda seen: seen.sessions == 2 and up(seen), WAIT_S)
    seen = link.snapshot()
    assert seen.resets == 1 and seen.hello is not None and seen.hello.reset_cause == 8
    assert drive(link, armed)


def test_a_reset_whose_own_hello_is_lost_shows_in_the_uptime(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert drive(link, armed)
    time.sleep(0.2)  # so that the uptime of the new start is smaller

    def reset_quietly() -> None:
        board.model.reset(time.monotonic())
        board.model.out.clear()
        board.model.session = True  # only the uptime tells

    board.act(reset_quietly)
    assert link.wait(lambda seen: seen.sessions == 2 and up(seen), WAIT_S)
    assert link.snapshot().resets == 1


def test_a_session_that_somebody_else_ended(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert link.wait(up, WAIT_S)
    board.act(lambda: setattr(board.model, "session", False))
    assert link.wait(lambda seen: seen.sessions == 2 and up(seen), WAIT_S)
    assert link.snapshot().resets == 0


def test_a_board_that_falls_silent_is_greeted_and_then_opened_anew(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert link.wait(up, WAIT_S)
    board.act(lambda: setattr(board.model, "mute", True))
    assert link.wait(lambda seen: seen.state is LinkState.GREETING, WAIT_S)
    with pytest.raises(LinkError, match="no telemetry for"):
        link.command(*NEUTRAL)
    board.act(lambda: setattr(board.model, "mute", False))
    assert link.wait(lambda seen: seen.sessions == 2 and up(seen), WAIT_S)
    assert drive(link, armed)


def test_the_bootloader_after_dtr_is_waited_for(tmp_path: Path, links: list[Link]) -> None:
    board = ModelBoard(tmp_path / "ttyBoard", boot_s=1.2)
    try:
        begun_s = time.monotonic()
        link = open_link(board.path, CAR)
        links.append(link)
        assert 1.1 < time.monotonic() - begun_s < 4.0
        assert drive(link, armed)
        assert board.booted == 1
        link.close()
    finally:
        board.close()


def test_noise_and_broken_frames_are_counted_and_survived(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, CAR)
    links.append(link)
    assert link.wait(up, WAIT_S)
    board.send(b"\xff\x00\x11\x22\x33\x00" + encode(Estop()) + bytes(range(1, 200)))
    assert drive(link, armed)
    frames = link.snapshot().frames
    assert frames is not None and frames.crc_errors + frames.frame_errors >= 2
    assert link.snapshot().sessions == 1


def test_another_protocol_is_refused_and_the_port_released(board: ModelBoard) -> None:
    board.act(lambda: setattr(board.model, "protocol", 9))
    fds = open_fds()
    with pytest.raises(VersionMismatch, match="speaks protocol 9"):
        open_link(board.path)
    assert open_fds() == fds
    board.act(lambda: setattr(board.model, "protocol", 1))
    open_link(board.path).close()


def test_a_silent_port_is_an_error_that_helps(tmp_path: Path) -> None:
    board = ModelBoard(tmp_path / "ttyBoard", BridgeModel(mute=True))
    try:
        with pytest.raises(NoAnswer, match="nobody answers HELLO") as caught:
            open_link(board.path)
        assert "hotlap bridge flash" in caught.value.next_step
    finally:
        board.close()


def test_a_port_has_one_owner(board: ModelBoard, links: list[Link]) -> None:
    links.append(open_link(board.path))
    with pytest.raises(LinkError, match="is in use") as caught:
        open_link(board.path)
    assert "gate" in caught.value.cause


def test_what_is_not_there_or_no_port(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot be opened") as caught:
        open_link(str(tmp_path / "nothing"))
    assert "not plugged in" in caught.value.cause
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LinkError, match="cannot be opened") as caught:
        open_link(str(tmp_path / "file"))
    assert "no serial port" in caught.value.cause


def test_bad_values_never_reach_the_wire(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    assert link.wait(up, WAIT_S)
    for pulses in ((float("nan"), 1446.0), (1450.0, float("inf")), (1450.0, -1.0)):
        with pytest.raises(ProtocolError):
            link.command(*pulses)
    with pytest.raises(ProtocolError):
        link.configure(Config(Channel(1446.0, 1500.0, 1600.0), STORED.throttle))
    with pytest.raises(ProtocolError):
        open_link(board.path, Config(Channel(1446.0, 1500.0, 1600.0), STORED.throttle))
    assert link.command(1450.0, 1446.0) == 1  # no sequence number was lost to them


def test_closing_is_final_and_twice_is_once(board: ModelBoard) -> None:
    link = open_link(board.path, STORED)
    assert link.wait(up, WAIT_S)
    fds = open_fds()
    link.close()
    link.close()
    assert open_fds() < fds
    assert link.snapshot().state is LinkState.CLOSED
    with pytest.raises(LinkError, match="closed"):
        link.command(1450.0, 1446.0)
    with pytest.raises(LinkError, match="closed"):
        link.send(Estop())
    link.configure(CAR)  # writes into no other file's descriptor


def test_closing_does_not_wait_for_a_search(tmp_path: Path) -> None:
    board = ModelBoard(tmp_path / "ttyBoard", BridgeModel(mute=True))
    try:
        link = Link(board.path)
        time.sleep(0.3)
        begun_s = time.monotonic()
        link.close()
        assert time.monotonic() - begun_s < 1.0
    finally:
        board.close()


def test_the_death_of_the_thread_is_told_to_whoever_commands(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    assert link.wait(up, WAIT_S)

    def broken(*_: Any) -> bool:
        raise ZeroDivisionError("a fault")

    link._take = broken  # type: ignore[method-assign]
    assert link.wait(lambda seen: seen.state is LinkState.CLOSED, WAIT_S)
    with pytest.raises(LinkError, match="thread died: ZeroDivisionError: a fault"):
        link.command(1450.0, 1446.0)
    open_link(board.path).close()  # the port was released all the same


def test_the_radio_s_override_is_seen(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    board.act(lambda: setattr(board.model, "radio", Radio.OVERRIDE))
    assert link.wait(lambda seen: seen.telemetry is not None and seen.telemetry.state is State.OVERRIDE, WAIT_S)


def test_the_thread_sleeps_while_nothing_happens(board: ModelBoard, links: list[Link]) -> None:
    link = open_link(board.path, STORED)
    links.append(link)
    assert link.wait(up, WAIT_S)
    link.configure(CAR)
    assert link.wait(lambda seen: seen.echo is not None and seen.echo.config == CAR, WAIT_S)
    rounds = 0
    real = link._keep_configured

    def counted(*args: Any) -> None:
        nonlocal rounds
        rounds += 1
        real(*args)

    link._keep_configured = counted  # type: ignore[method-assign]
    time.sleep(1.0)
    assert 20 <= rounds <= 70  # telemetry alone wakes it, not the pipe that configure() wrote to
