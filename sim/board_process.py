"""The microcontroller between gate and simulated car: the compiled firmware on a serial port, its pins on the car.

``python -m sim.board_process --runtime DIR`` builds and starts the firmware in simavr (`firmware_bridge.board`), whose
serial port is ``DIR/board.tty``, measures the pulses on its pins, and sends each pair to ``world.pulses`` as the `sim`
actuator does. Nothing but the bytes on that port says what the car does. No pulses on the pins (reset, bootloader, no
configuration) are no pulses for the car: its motor idles after 100 ms. What a real ESC does then is not modelled, nor
what it makes of a pulse that a reset cut short, which is left out.

``DIR/board.request`` (ROUTER) answers {"op": "status"} with `BoardFacts.status`, and {"op": "tell", "order": ...} once
the board has obeyed: ``unplug``, ``plug``, ``reset``, ``power``, ``hang loop``, ``corrupt 100`` and the others at the
head of ``firmware/sim/pty_main.c``; "at_s" in the answer is when.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from firmware_bridge.board import SLOW_SHARE, PinPulse, SimulatedBoard, build, read_pulse
from firmware_bridge.errors import BridgeError
from sim.world_process import OUTLIVES_S, ready_file, stop_signals
from vehicle.actuators.base import MAX_PULSE_US, MIN_PULSE_US
from vehicle.actuators.sim import SimActuator
from vehicle.errors import HotlapError
from vehicle.links import bind_socket, json_object
from vehicle.parent import end_with_parent
from vehicle.realtime import go_first
from vehicle.trace import TraceWriter

PORT = "board.tty"
READY_FILE = "board.ready"
REQUEST = "board.request"
BOOT_S = 0.6  # of Optiboot, after the reset that opening the port is
_POLL_MS = 100
_SAME_S = 1e-6  # both pulses of a frame rise at once
_WIDTH_ERROR_US = 0.25


class Pair(NamedTuple):
    """What both pins gave in one servo frame. `rise_s` is of time.monotonic."""

    rise_s: float
    steering_us: float
    throttle_us: float
    cut: bool


class PinPairs:
    """Puts the two pulses of a servo frame together. No clock."""

    def __init__(self) -> None:
        self._first: PinPulse | None = None

    def add(self, pulse: PinPulse) -> Pair | None:
        """The pair, once its second pulse has ended."""
        first, self._first = self._first, pulse
        if first is None or first.channel == pulse.channel or abs(first.rise_s - pulse.rise_s) > _SAME_S:
            return None
        self._first = None
        steering, throttle = (first, pulse) if first.channel == "steering" else (pulse, first)
        return Pair(pulse.rise_s, steering.width_us, throttle.width_us, first.cut or pulse.cut)


class BoardFacts:
    """What is known of the board from its words. No clock: ``now_s`` is an argument."""

    def __init__(self, now_s: float) -> None:
        self.pulses = self.cut = self.watchdog_resets = 0
        self.late_ms = 0.0  # the worst
        self.stood_still_s = 0.0
        self._begun_s = now_s
        self._cpu: tuple[float, float] | None = None  # when it was told, and seconds of processor time until then
        self._last: Pair | None = None

    def pair(self, pair: Pair) -> None:
        """A servo frame has ended."""
        self.pulses += 1
        self.cut += pair.cut
        self._last = pair

    def line(self, line: str) -> None:
        """Any other line."""
        words = line.split()
        if words[:1] == ["lag"]:
            lag_ms = float(words[2])
            self.stood_still_s += 1e-3 * lag_ms
            self.late_ms = max(self.late_ms, lag_ms)
        elif words[:1] == ["cpu"]:
            self._cpu = float(words[1]), float(words[2])
        elif words[:1] == ["watchdog"]:
            self.watchdog_resets += 1

    def status(self, now_s: float) -> dict[str, Any]:
        """For JSON.

        ``stood_still_s`` is time that the chip's clock missed because this machine did not let it run; times on its
        pins are later by so much than a real board's. ``cpu_share`` is of one processor.
        """
        cpu_s = self._cpu[1] / (self._cpu[0] - self._begun_s) if self._cpu and self._cpu[0] > self._begun_s else None
        last = self._last
        return {
            "pulses": self.pulses,
            "cut": self.cut,
            "steering_us": last and round(last.steering_us, 4),
            "throttle_us": last and round(last.throttle_us, 4),
            "pulse_age_s": last and round(now_s - last.rise_s, 3),
            "watchdog_resets": self.watchdog_resets,
            "late_ms": self.late_ms,
            "stood_still_s": round(self.stood_still_s, 4),
            "runs_s": round(now_s - self._begun_s, 3),
            "cpu_share": cpu_s and round(cpu_s, 3),
        }


class BoardProcess:
    """The board, the car that hangs on its pins, and whoever asks.

    Args:
        board: just started; it is the caller's to close.
        record: a file for every pair of pulses measured, in the form of `vehicle.trace`, with the
            cause ``pin`` or ``pin:cut``.

    Raises:
        ConfigError: a socket cannot be bound, or the record not be opened.
    """

    def __init__(self, board: SimulatedBoard, runtime: Path, record: Path | None = None) -> None:
        self.facts = BoardFacts(time.monotonic())
        self.ready = False
        self._board, self._pairs = board, PinPairs()
        self._stopped = False
        self._told: deque[tuple[list[bytes], str]] = deque()  # orders not obeyed yet, and whom to answer
        self._checked_s = time.monotonic()
        self._still_s = 0.0  # of stood_still_s when it was checked
        self._trace = TraceWriter(record) if record is not None else None
        self._car: SimActuator | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._car = SimActuator(runtime, "board")
            self._requests = self._context.socket(zmq.ROUTER)
            self._requests.setsockopt(zmq.LINGER, 0)
            bind_socket(self._requests, runtime, REQUEST)
        except HotlapError:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._requests, zmq.POLLIN)
        self._poller.register(board.fileno(), zmq.POLLIN)

    def stop(self) -> None:
        """Make `run` return. May be called from a signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`.

        Raises:
            BoardError: the board has ended.
            ActuatorError: the simulated car has.
        """
        while not self._stopped:
            self.turn()

    def turn(self) -> None:
        """Wait for words or requests, at most 0.1 s, and take them."""
        self._poller.poll(_POLL_MS)
        for line in self._board.take():
            self._take(line)
        while self._requests.poll(0):
            *envelope, data = self._requests.recv_multipart()
            self._asked(envelope, json_object(data))
        self._watch(time.monotonic())

    def close(self) -> None:
        """Let go of everything but the board. May be called twice."""
        if self._car is not None:
            self._car.close()
        self._context.destroy(linger=0)
        if self._trace is not None:
            self._trace.close()

    def _take(self, line: str) -> None:
        pulse = read_pulse(line)
        if pulse is None:
            self.ready = self.ready or line == "ready"
            self.facts.line(line)
            self._obeyed(line)
            return
        pair = self._pairs.add(pulse)
        if pair is None:
            return
        self.facts.pair(pair)
        if self._car is not None and not pair.cut:
            self._car.write(in_range(pair.steering_us), in_range(pair.throttle_us), "pin")
        if self._trace is not None:
            self._trace.row(pair.rise_s, pair.steering_us, pair.throttle_us, "pin:cut" if pair.cut else "pin")

    def _asked(self, envelope: list[bytes], message: dict[str, Any] | None) -> None:
        op, order = (message or {}).get("op"), (message or {}).get("order")
        if op == "status":
            self._answer(envelope, {"ok": True, **self.facts.status(time.monotonic())})
        elif op == "tell" and isinstance(order, str) and order and order.isprintable() and len(order) < 100:
            self._told.append((envelope, order))
            self._board.tell(order)
        else:
            self._answer(envelope, {"ok": False, "what": 'no {"op": "status"} and no {"op": "tell", "order": TEXT}'})

    def _obeyed(self, line: str) -> None:
        words = line.split(maxsplit=2)
        if self._told and words[0] in ("done", "unknown"):
            envelope, order = self._told.popleft()  # it obeys in order
            if words[0] == "done":
                self._answer(envelope, {"ok": True, "at_s": float(words[1])})
            else:
                self._answer(envelope, {"ok": False, "what": f"the board knows no order {order!r}"})

    def _answer(self, envelope: list[bytes], answer: dict[str, Any]) -> None:
        self._requests.send_multipart([*envelope, json.dumps(answer).encode()])

    def _watch(self, now_s: float) -> None:
        """Say, once a second at most, that this machine does not keep up."""
        passed_s = now_s - self._checked_s
        if passed_s < 1.0:
            return
        still_s = self.facts.stood_still_s - self._still_s
        self._checked_s, self._still_s = now_s, self.facts.stood_still_s
        if still_s > SLOW_SHARE * passed_s:
            say(f"the chip stood still for {1e3 * still_s:.0f} ms of {passed_s:.1f} s: this machine is too busy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the board; returns the exit status: 0 after SIGTERM or SIGINT, 1 for what an error of ours explains."""
    args = _arguments(argv)
    end_with_parent(OUTLIVES_S)
    try:
        board = SimulatedBoard(build(), args.runtime / PORT, BOOT_S)
        try:
            _serve(board, args.runtime, args.record)
        finally:
            board.close()
    except (HotlapError, BridgeError) as error:
        say(str(error))
        return 1
    return 0


def _serve(board: SimulatedBoard, runtime: Path, record: Path | None) -> None:
    go_first()  # as the board itself does: hardware does not wait for other programs
    process = BoardProcess(board, runtime, record)
    try:
        with stop_signals(process):
            while not process.ready:
                process.turn()
            with ready_file(runtime / READY_FILE):
                say(f"ready: {runtime / PORT}")
                process.run()
    finally:
        process.close()


def in_range(width_us: float) -> float:
    """A measured width; one at an end of what servos take, but for the error of measuring, is that end."""
    nearest_us = min(max(width_us, MIN_PULSE_US), MAX_PULSE_US)
    return nearest_us if abs(width_us - nearest_us) <= _WIDTH_ERROR_US else width_us


def say(text: str) -> None:
    """A line on stderr, which is the log."""
    print(f"board: {text}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim.board_process", description="The compiled firmware as the simulated car's microcontroller."
    )
    parser.add_argument("--runtime", type=Path, required=True, metavar="DIR", help="folder of the sockets")
    parser.add_argument("--record", type=Path, metavar="FILE.csv", help="write every pulse measured on the pins")
    args = parser.parse_args(argv)
    assert isinstance(args, argparse.Namespace)
    return args


if __name__ == "__main__":
    sys.exit(main())
