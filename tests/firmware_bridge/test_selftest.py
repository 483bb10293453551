"""The self-test on a MODEL of the firmware, and on models that break one promise each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.errors import LinkError
from firmware_bridge.link import Link, open_link
from firmware_bridge.messages import Command, Estop, Radio, State, ToBridge
from firmware_bridge.selftest import Check, selftest
from tests.firmware_bridge.model_bridge import STORED, BridgeModel, ModelBoard

ALL = [
    "telemetry", "supply", "configuration", "arms on neutral", "refuses a pulse out of range", "refuses an old command",
    "neutral without commands", "emergency stop", "line",
]  # fmt: skip

pytestmark = pytest.mark.slow  # boards in real time


def run(board: ModelBoard) -> list[Check]:
    link = open_link(board.path)
    try:
        return selftest(link)
    finally:
        link.close()


def broken(folder: Path, model: BridgeModel) -> dict[str, Check]:
    """The checks that fail on this model."""
    board = ModelBoard(folder / "ttyBroken", model)
    try:
        return {check.name: check for check in run(board) if not check.ok}
    finally:
        board.close()


class Changed(BridgeModel):
    """A model whose handling of messages a test changes."""

    change: Callable[[BridgeModel, ToBridge], bool] = staticmethod(lambda model, message: False)

    def _take(self, message: ToBridge, now_s: float) -> None:
        if not self.change(self, message):
            super()._take(message, now_s)


def test_a_good_board_passes_everything_and_no_wheel_has_turned(board: ModelBoard) -> None:
    checks = run(board)
    for _ in range(2):  # a busy machine may see a promise kept too late
        if not all(check.ok for check in checks):
            checks = run(board)
    assert [check.name for check in checks] == ALL
    assert [check for check in checks if not check.ok] == []
    assert all(check.measured and not check.cure for check in checks)
    good = [command for command in board.model.commands() if STORED.throttle.min_us <= command.throttle_us <= 1603.5]
    assert {command.throttle_us for command in good} == {1446.0}
    assert {command.steering_us for command in board.model.commands()} == {1450.0}
    assert board.model.state is State.DISARMED


def test_a_board_without_configuration_cannot_be_tried_further(tmp_path: Path) -> None:
    failed = broken(tmp_path, BridgeModel(config=None))
    assert list(failed) == ["configuration"]
    assert "start the gate" in failed["configuration"].cure


def test_what_takes_pulses_out_of_range_fails(tmp_path: Path) -> None:
    model = Changed()

    def lenient(model: BridgeModel, message: ToBridge) -> bool:
        if isinstance(message, Command) and message.throttle_us > 1603.5:
            model.sequence = message.sequence
            return True
        return False

    model.change = lenient  # type: ignore[method-assign, assignment]
    assert list(broken(tmp_path, model)) == ["refuses a pulse out of range"]


def test_what_takes_old_commands_fails(tmp_path: Path) -> None:
    model = Changed()

    def forgetful(model: BridgeModel, message: ToBridge) -> bool:
        model.sequence = None
        return False

    model.change = forgetful  # type: ignore[method-assign, assignment]
    assert list(broken(tmp_path, model)) == ["refuses an old command"]


def test_what_does_not_fail_safe_fails(tmp_path: Path) -> None:
    failed = broken(tmp_path, BridgeModel(timeout_s=0.4))
    assert "neutral without commands" in failed
    assert "armed" in failed["neutral without commands"].measured


def test_what_does_not_latch_its_stop_fails(tmp_path: Path) -> None:
    model = Changed()

    def resets(model: BridgeModel, message: ToBridge) -> bool:
        if isinstance(message, Estop):
            model.state = State.DISARMED
            return True
        return False

    model.change = resets  # type: ignore[method-assign, assignment]
    failed = broken(tmp_path, model)
    assert list(failed) == ["emergency stop"] and "not latched" in failed["emergency stop"].measured


def test_a_lost_radio_keeps_it_from_arming_and_the_rest_is_left_out(tmp_path: Path) -> None:
    board = ModelBoard(tmp_path / "ttyRadio", BridgeModel(radio=Radio.LOST))
    try:
        checks = run(board)
        assert [check.name for check in checks] == [*ALL[:4], "line"]
        failed = [check for check in checks if not check.ok]
        assert [check.name for check in failed] == ["arms on neutral"] and "radio" in failed[0].cure
    finally:
        board.close()


def test_a_weak_supply_is_said(tmp_path: Path) -> None:
    assert broken(tmp_path, BridgeModel(supply_mv=3900))["supply"].measured == "3.90 V"
    assert broken(tmp_path, BridgeModel(supply_mv=0)) == {}


def test_a_board_that_is_unplugged_meanwhile(board: ModelBoard) -> None:
    link = open_link(board.path)
    real = link.send

    def pull(message: Any) -> None:
        if isinstance(message, Command):
            board.unplug()
        real(message)

    link.send = pull  # type: ignore[method-assign]
    try:
        with pytest.raises(LinkError):
            selftest(link)
    finally:
        link.close()


def test_a_silent_link_ends_it(board: ModelBoard) -> None:
    link: Link = open_link(board.path)
    board.act(lambda: setattr(board.model, "mute", True))
    link.wait(lambda seen: seen.telemetry is None, 3.0)
    try:
        checks = selftest(link)
        assert [(check.name, check.ok) for check in checks] == [("telemetry", False)]
    finally:
        link.close()
