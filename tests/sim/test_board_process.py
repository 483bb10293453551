"""The board between gate and world: pairs of pulses, what is known of it, and a real one on real sockets."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from firmware_bridge.board import PinPulse, SimulatedBoard
from firmware_bridge.link import open_link
from firmware_bridge.messages import Channel, Config
from sim.board_process import PORT, BoardFacts, BoardProcess, Pair, PinPairs, in_range
from sim.world_process import PulseInbox
from tests.firmware_bridge.firmware_board import built, until
from vehicle.errors import ConfigError
from vehicle.links import endpoint, request
from vehicle.trace import read_trace

CAR = Config(Channel.of(1450.0, 1200.0, 1700.0), Channel.of(1446.0, 1000.0, 2000.0))


def pulse(channel: str, rise_s: float, width_us: float = 1500.0, cut: bool = False) -> PinPulse:
    return PinPulse(rise_s, channel, width_us, cut)


# --- pure


@pytest.mark.parametrize("order", [("steering", "throttle"), ("throttle", "steering")])
def test_both_pulses_of_a_frame_are_a_pair_whichever_ends_first(order: tuple[str, str]) -> None:
    pairs = PinPairs()
    widths = {"steering": 1450.0, "throttle": 1300.0}
    for frame in range(3):
        rise_s = 7.0 + 0.02 * frame
        assert pairs.add(pulse(order[0], rise_s, widths[order[0]])) is None
        assert pairs.add(pulse(order[1], rise_s, widths[order[1]])) == Pair(rise_s, 1450.0, 1300.0, False)


def test_a_pulse_without_its_other_one_is_left_out() -> None:
    pairs = PinPairs()
    assert pairs.add(pulse("throttle", 7.0)) is None
    assert pairs.add(pulse("steering", 7.02)) is None
    assert pairs.add(pulse("throttle", 7.02, 1400.0)) == Pair(7.02, 1500.0, 1400.0, False)
    assert pairs.add(pulse("throttle", 7.04)) is None
    assert pairs.add(pulse("throttle", 7.04)) is None


@pytest.mark.parametrize("cut", ["steering", "throttle"])
def test_a_reset_cuts_the_pair(cut: str) -> None:
    pairs = PinPairs()
    pairs.add(pulse("steering", 7.0, 700.0, cut == "steering"))
    pair = pairs.add(pulse("throttle", 7.0, 700.0, cut == "throttle"))
    assert pair is not None and pair.cut


def test_its_words_become_figures() -> None:
    facts = BoardFacts(100.0)
    assert facts.status(100.0)["cpu_share"] is facts.status(100.0)["throttle_us"] is None
    for line in ("ready", "", "lag 101.000000 6.5", "lag 102.000000 20.0", "cpu 110.000000 0.750", "watchdog 103.0"):
        facts.line(line)
    facts.pair(Pair(109.9, 1450.0625, 1300.0, False))
    facts.pair(Pair(109.92, 1450.0625, 700.0, True))
    assert facts.status(110.0) == {
        "pulses": 2, "cut": 1, "steering_us": 1450.0625, "throttle_us": 700.0, "pulse_age_s": 0.08,
        "watchdog_resets": 1, "late_ms": 20.0, "stood_still_s": 0.0265, "runs_s": 10.0, "cpu_share": 0.075,
    }  # fmt: skip


def test_a_width_at_an_end_is_that_end_and_a_glitch_stays_one() -> None:
    assert [in_range(us) for us in (2500.06, 499.94, 1500.06)] == [2500.0, 500.0, 1500.06]
    assert [in_range(us) for us in (2501.0, 300.0)] == [2501.0, 300.0]  # which the world refuses


# --- a real one


class Bench:
    """The process's loop in a thread, and a socket in the world's place."""

    def __init__(self, runtime: Path) -> None:
        self.runtime, self.record = runtime, runtime / "pins.csv"
        self._context = zmq.Context()
        self.world = self._context.socket(zmq.PULL)
        self.world.bind(endpoint(runtime, "world.pulses"))
        self._board = SimulatedBoard(built(), runtime / PORT)
        self.process = BoardProcess(self._board, runtime, self.record)
        self._thread = threading.Thread(target=self.process.run, name="board")
        self._thread.start()

    def ask(self, **message: Any) -> dict[str, Any]:
        return request(self.runtime, "board.request", message, timeout_s=5.0)

    def close(self) -> None:
        self.process.stop()
        self._thread.join()
        self.process.close()
        self._board.close()
        self._context.destroy(linger=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="hl") as name:  # short: sockets go there
        made = Bench(Path(name))
        yield made
        made.close()


@pytest.mark.firmware
def test_measured_pulses_go_to_the_world_as_it_reads_them(bench: Bench) -> None:
    assert until(lambda: bench.process.ready)
    assert bench.ask(op="status")["pulses"] == 0  # no configuration, no pulses
    link = open_link(str(bench.runtime / PORT), CAR)
    try:
        inbox = PulseInbox()

        def driven() -> tuple[float | None, float | None]:
            while bench.world.poll(20):
                inbox.offer(bench.world.recv(), time.monotonic())
            return inbox.take(time.monotonic())

        assert until(lambda: driven() == pytest.approx((1450.0, 1446.0), abs=0.3))
        assert inbox.refused == 0
        status = bench.ask(op="status")
        assert status["throttle_us"] == pytest.approx(1446.0, abs=0.3) and status["pulse_age_s"] < 1.0
        rows = read_trace(bench.record)
        assert {row.cause for row in rows} == {"pin"} and {row.channel for row in rows} == {"steering", "throttle"}
        assert bench.ask(op="tell", order="reset")["ok"]
    finally:
        link.close()


@pytest.mark.firmware
def test_orders_are_answered_once_obeyed_and_nonsense_is_refused(bench: Bench) -> None:
    asked_s = time.monotonic()
    answer = bench.ask(op="tell", order="unplug")
    assert answer["ok"] and asked_s <= answer["at_s"] <= time.monotonic()
    assert not (bench.runtime / PORT).is_symlink()
    assert bench.ask(op="tell", order="dance") == {"ok": False, "what": "the board knows no order 'dance'"}
    for message in ({}, {"op": "tell"}, {"op": "tell", "order": 7}, {"op": "tell", "order": "reset\nquit"}):
        assert bench.ask(**message)["ok"] is False
    assert bench.ask(op="status")["ok"]


def test_a_record_that_cannot_be_written_is_said_before_it_starts(tmp_path: Path) -> None:
    board: Any = None
    with pytest.raises(ConfigError, match=r"no_folder/pins\.csv"):
        BoardProcess(board, tmp_path, tmp_path / "no_folder" / "pins.csv")
    assert json.dumps(BoardFacts(0.0).status(1.0))
