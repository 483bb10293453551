"""The world: the simulated car in real time behind three sockets, as a car's hardware would be behind its devices.

``python -m sim.world_process --runtime DIR --track NAME`` binds, in DIR, ``world.pulses`` (PULL), ``world.frames``
(PUB) and ``world.facts`` (PUB), says ``world: ready`` on stderr, creates ``DIR/world.ready`` and drives until SIGTERM.

- world.pulses: one JSON object {"steering_us", "throttle_us", "stamp_s", "from": one of `SENDERS`}. The newest stamp
  wins, whoever sent it; what is older than 100 ms is no signal any more.
- world.frames: two parts, JSON {"seq", "stamp_s", "height", "width"} and the gray bytes, row by row. Delivered the
  camera's latency after ``stamp_s``, the moment of exposure.
- world.facts: `SimulatedCar.facts` as one JSON object at 10 Hz, with ``late_ms`` (the latest step of the last 0.1 s),
  ``skipped_s`` (time that the world stood still because it could not keep up) and ``refused`` (pulses not understood).

All stamps are ``time.monotonic``. Physics runs one servo frame ahead: at its deadline a step takes the pulses of that
moment and computes the next 20 ms, so that pictures exposed within them are delivered on time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import zmq

from sim.car_spec import load_car
from sim.errors import SimError
from sim.simulated_car import LOOKS, SIGNAL_LOST_S, STEP_S, SimulatedCar
from sim.track import load_track
from vehicle.actuators.base import MAX_PULSE_US, MIN_PULSE_US
from vehicle.cameras.base import Frame
from vehicle.errors import HotlapError
from vehicle.links import endpoint
from vehicle.parent import end_with_parent
from vehicle.realtime import go_first

READY_FILE = "world.ready"
SENDERS = ("gate", "guard", "board")  # or what hangs between (`sim.board_process`)
# Further behind than this the world does not catch up: it stood still, and goes on from now.
MAX_LATE_S = 0.1
_FACTS_EVERY = 5  # steps: 10 Hz
_FROM_FUTURE_S = 0.005
OUTLIVES_S = 2.0  # a supervisor that died: the gate holds neutral for 0.2 s and its guard ends a second later
_PULSE_KEYS = {"steering_us", "throttle_us", "stamp_s", "from"}


class Stoppable(Protocol):
    """What a signal stops."""

    def stop(self) -> None:
        """Return before the next step."""
        ...


class PulseInbox:
    """Picks, of the messages that came in since the last step, the pulses to apply. No clock, no socket."""

    def __init__(self) -> None:
        self.refused = 0
        self.last_refusal = ""
        self._newest_stamp_s = -math.inf
        self._pulses: tuple[float, float] | None = None

    def offer(self, data: bytes, now_s: float) -> bool:
        """Read one message; False where it is not what a gate or guard sends, which changes nothing else."""
        try:
            steering_us, throttle_us, stamp_s = _read_pulses(data, now_s)
        except (ValueError, OverflowError, RecursionError) as error:  # an integer of 400 digits, a thousand brackets
            self.refused += 1
            self.last_refusal = str(error)
            return False
        if stamp_s >= self._newest_stamp_s:
            self._newest_stamp_s = stamp_s
            self._pulses = (steering_us, throttle_us)
        return True

    def take(self, now_s: float) -> tuple[float | None, float | None]:
        """The newest pulses in microseconds, steering and throttle; None twice where none came, or only old ones."""
        pulses, self._pulses = self._pulses, None
        if pulses is None or now_s - self._newest_stamp_s > SIGNAL_LOST_S:
            return None, None
        return pulses


def _read_pulses(data: bytes, now_s: float) -> tuple[float, float, float]:
    message = json.loads(data)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
    if not isinstance(message, dict) or set(message) != _PULSE_KEYS or message["from"] not in SENDERS:
        raise ValueError(f"not an object of {sorted(_PULSE_KEYS)} from {' or '.join(SENDERS)}")
    numbers = [message[key] for key in ("steering_us", "throttle_us", "stamp_s")]
    if any(type(number) not in (int, float) or not math.isfinite(number) for number in numbers):
        raise ValueError("pulses and stamp are not finite numbers")
    steering_us, throttle_us, stamp_s = map(float, numbers)
    if not all(MIN_PULSE_US <= pulse_us <= MAX_PULSE_US for pulse_us in (steering_us, throttle_us)):
        raise ValueError(f"a pulse is not within {MIN_PULSE_US:.0f}..{MAX_PULSE_US:.0f} us")
    if stamp_s > now_s + _FROM_FUTURE_S:
        raise ValueError(f"the stamp is {stamp_s - now_s:.3f} s in the future")
    return steering_us, throttle_us, stamp_s


class World:
    """A simulated car and its three sockets.

    Args:
        car: the car, as it starts.
        runtime: folder of the sockets; exists.
        speed_up: simulated seconds in one second.

    Raises:
        SimError: a socket cannot be bound.
        ConfigError: the folder's path is too long for a socket.
    """

    def __init__(self, car: SimulatedCar, runtime: Path, speed_up: float = 1.0) -> None:
        self.car, self.speed_up = car, speed_up
        self.inbox = PulseInbox()
        self.skipped_s = 0.0
        self._stopped = False
        self._late_s = 0.0
        self._context = zmq.Context()
        try:
            self._pulses = self._bind(zmq.PULL, runtime, "world.pulses")
            self._send_frame = self._bind(zmq.PUB, runtime, "world.frames", hwm=2).send_multipart
            self._send_facts = self._bind(zmq.PUB, runtime, "world.facts").send
        except HotlapError:
            self.close()
            raise

    def _bind(self, kind: int, runtime: Path, name: str, hwm: int = 1000) -> zmq.Socket[bytes]:
        bound = self._context.socket(kind)
        bound.setsockopt(zmq.LINGER, 0)
        bound.setsockopt(zmq.SNDHWM if kind == zmq.PUB else zmq.RCVHWM, hwm)
        address = endpoint(runtime, name)
        try:
            bound.bind(address)
        except zmq.ZMQError as error:
            raise SimError(
                f"{address} cannot be bound: {error}",
                cause="the folder is not there, or may not be written to",
                next_step=f"mkdir -m 700 {runtime}",
            ) from error
        return bound

    def stop(self) -> None:
        """Make `run` return before its next step. May be called from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        self._context.destroy(linger=0)

    def run(self) -> None:
        """Drive in real time on absolute deadlines until `stop`."""
        start_s, step = time.monotonic(), 0
        while not self._stopped:
            deadline_s = start_s + step * STEP_S / self.speed_up
            now_s = self._wait_until(deadline_s, start_s)
            late_s = now_s - deadline_s
            self._late_s = max(self._late_s, late_s)
            if late_s > MAX_LATE_S:
                self.skipped_s += late_s
                start_s += late_s
            if step % _FACTS_EVERY == 0:
                self._publish_facts(start_s)
            self._receive()
            self.car.step(*self.inbox.take(now_s))
            step += 1

    def _wait_until(self, deadline_s: float, start_s: float) -> float:
        """Sleep, and hand out pictures that are due meanwhile; returns the time it is then, past the deadline."""
        while True:
            now_s = time.monotonic()
            for frame in self.car.frames((now_s - start_s) * self.speed_up):
                self._publish_frame(frame, start_s)
            if now_s >= deadline_s or self._stopped:
                return now_s
            delivery_s = start_s + self.car.next_delivery_s / self.speed_up
            time.sleep(max(0.0, min(deadline_s, delivery_s) - time.monotonic()))

    def _receive(self) -> None:
        refused = self.inbox.refused
        while self._pulses.poll(0):
            data = self._pulses.recv()
            self.inbox.offer(data, time.monotonic())  # now, lest one that has just been sent is of the future
        if self.inbox.refused and not refused:  # once: a sender that is wrong is so fifty times a second
            _say(f"pulses refused: {self.inbox.last_refusal}; further ones are only counted, in world.facts")

    def _publish_frame(self, frame: Frame, start_s: float) -> None:
        height, width = frame.pixels.shape
        stamp_s = start_s + frame.stamp_s / self.speed_up
        header = {"seq": frame.seq, "stamp_s": stamp_s, "height": height, "width": width}
        self._send_frame([json.dumps(header).encode(), frame.pixels.tobytes()])

    def _publish_facts(self, start_s: float) -> None:
        facts = self.car.facts()
        facts["stamp_s"] = start_s + facts["stamp_s"] / self.speed_up
        facts |= {"late_ms": 1e3 * self._late_s, "skipped_s": self.skipped_s, "refused": self.inbox.refused}
        self._late_s = 0.0
        self._send_facts(json.dumps(facts, allow_nan=False).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the world; returns the exit status: 0 after SIGTERM or SIGINT, 1 for what `HotlapError` explains."""
    args = _arguments(argv)
    end_with_parent(OUTLIVES_S)
    try:
        car = SimulatedCar(
            load_track(args.track), car=load_car(args.car), seed=args.seed, look=args.look,
            signal_lost_s=SIGNAL_LOST_S * args.speed_up,
        )  # fmt: skip
        if args.speed_up <= 1.0:
            go_first()  # hardware does not wait for other programs; now that everything is compiled
        world = World(car, args.runtime, args.speed_up)
        try:
            with stop_signals(world), ready_file(args.runtime / READY_FILE):
                _say("ready")
                world.run()
        finally:
            world.close()
    except HotlapError as error:
        _say(str(error))
        return 1
    return 0


@contextmanager
def stop_signals(running: Stoppable) -> Iterator[None]:
    """SIGTERM and SIGINT call its `stop`."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        running.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ready_file(path: Path) -> Iterator[None]:
    """What a supervisor waits for; it holds the process id."""
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(f"world: {text}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim.world_process", description="The simulated car in real time.")
    parser.add_argument("--runtime", type=Path, required=True, metavar="DIR", help="folder of the sockets")
    parser.add_argument("--track", required=True, metavar="NAME", help="a shipped track, or a DeepRacer .npy file")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of noise, camera phase and look")
    parser.add_argument("--car", type=Path, metavar="FILE", help="TOML of the car; without it a DeepRacer")
    parser.add_argument("--look", choices=LOOKS, default="nominal", help="of the track")
    parser.add_argument("--speed-up", type=_speed_up, default=1.0, metavar="F", help="simulated seconds in a second")
    args = parser.parse_args(argv)
    assert isinstance(args, argparse.Namespace)
    return args


def _speed_up(text: str) -> float:
    factor = float(text)
    if not 0.1 <= factor <= 100.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 100")
    return factor


if __name__ == "__main__":
    sys.exit(main())
