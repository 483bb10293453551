"""Finding the bridge among several ports by its answer, over pseudo-terminals to a MODEL of the firmware."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from firmware_bridge import finder
from firmware_bridge.errors import LinkError, NoAnswer, PortNotFound
from firmware_bridge.finder import candidates, contact, find_bridges, greet, usb_ports
from firmware_bridge.link import open_link
from firmware_bridge.snapshot import LinkState
from tests.firmware_bridge.model_bridge import BridgeModel, ModelBoard, open_fds

pytestmark = pytest.mark.slow  # boards in real time


@pytest.fixture
def gps(tmp_path: Path) -> Iterator[ModelBoard]:
    """Another device: it sends, but not our language."""
    board = ModelBoard(tmp_path / "ttyGps", BridgeModel(mute=True))
    yield board
    board.close()


@pytest.fixture
def on_usb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What pyserial finds on USB, for the test to fill."""
    ports: list[str] = []
    monkeypatch.setattr(
        finder.list_ports, "comports",
        lambda: [SimpleNamespace(device=port, vid=0x1A86) for port in ports] +
                [SimpleNamespace(device=str(tmp_path / "ttyS0"), vid=None)],
    )  # fmt: skip
    return ports


def test_auto_asks_only_ports_on_usb(on_usb: list[str]) -> None:
    on_usb += ["/dev/ttyUSB1", "/dev/ttyUSB0"]
    assert usb_ports() == candidates("auto") == ["/dev/ttyUSB0", "/dev/ttyUSB1"]
    assert candidates("/dev/ttyAMA0") == ["/dev/ttyAMA0"]


def test_the_one_that_answers_is_found_at_once_and_the_others_are_released(
    board: ModelBoard, gps: ModelBoard, on_usb: list[str]
) -> None:
    on_usb += [gps.path, str(board.port.path.with_name("ttyGone")), board.path]
    fds = open_fds()
    begun_s = time.monotonic()
    met = contact()
    assert time.monotonic() - begun_s < 2.0
    assert met.wire.port == board.path and met.hello.firmware == (1, 0, 0)
    met.wire.close()
    met.wire.close()
    assert open_fds() == fds


def test_a_link_on_auto_finds_the_board_again_under_another_name(
    board: ModelBoard, gps: ModelBoard, on_usb: list[str], tmp_path: Path
) -> None:
    on_usb += [gps.path, board.path]
    link = open_link()
    try:
        assert link.snapshot().port == board.path
        board.unplug()
        assert link.wait(lambda seen: seen.state is LinkState.DOWN, 5.0)
        other = ModelBoard(tmp_path / "ttyOther")
        try:
            on_usb[1] = other.path
            assert link.wait(lambda seen: seen.sessions == 2, 10.0)
            assert link.snapshot().port == other.path
        finally:
            link.close()
            other.close()
    finally:
        link.close()


def test_find_says_of_every_port_what_it_is(board: ModelBoard, gps: ModelBoard) -> None:
    missing = str(board.port.path.with_name("ttyGone"))
    fds = open_fds()
    found = {one.port: one for one in find_bridges([gps.path, board.path, missing], give_up_s=0.5)}
    assert open_fds() == fds
    assert list(found) == [gps.path, board.path, missing]
    answer = found[board.path]
    assert answer.hello is not None and answer.echo is not None and answer.error is None
    assert isinstance(found[gps.path].error, NoAnswer) and found[gps.path].hello is None
    assert isinstance(found[missing].error, LinkError)


def test_a_port_that_a_gate_has_open_is_left_alone(board: ModelBoard) -> None:
    link = open_link(board.path)
    try:
        (found,) = find_bridges([board.path])
        assert found.error is not None and "in use" in found.error.what
        assert link.snapshot().sessions == 1
    finally:
        link.close()


def test_two_bridges_are_both_found(board: ModelBoard, tmp_path: Path) -> None:
    other = ModelBoard(tmp_path / "ttyOther", BridgeModel(config=None))
    try:
        one, two = find_bridges([board.path, other.path])
        assert one.hello is not None and two.hello is not None
        assert one.echo is not None and one.echo.config is not None
        assert two.echo is not None and two.echo.config is None
    finally:
        other.close()


def test_nothing_on_usb(on_usb: list[str]) -> None:
    with pytest.raises(PortNotFound, match="no serial port on USB") as caught:
        contact()
    assert "actuator.port" in caught.value.next_step
    assert isinstance(caught.value, FileNotFoundError)


def test_ports_but_no_bridge(gps: ModelBoard, on_usb: list[str]) -> None:
    on_usb += [gps.path, gps.path + "2"]
    with pytest.raises(PortNotFound, match="no bridge on 2 serial ports: .*ttyGps2.*; .*ttyGps: nobody answers"):
        contact()


def test_a_named_port_gets_its_own_error(board: ModelBoard) -> None:
    with pytest.raises(LinkError, match="ttyGone cannot be opened"):
        contact(str(board.port.path.with_name("ttyGone")))


def test_giving_up_when_told(gps: ModelBoard) -> None:
    deadline_s = time.monotonic() + 0.3
    with pytest.raises(PortNotFound):
        contact(gps.path, lambda: time.monotonic() > deadline_s)
    assert time.monotonic() < deadline_s + 1.0


def test_greeting_again_on_an_open_port(board: ModelBoard) -> None:
    met = contact(board.path)
    try:
        again = greet(met.wire)
        assert again is not None and again.hello.nonce != 0
        assert greet(met.wire, lambda: True) is None
    finally:
        met.wire.close()
