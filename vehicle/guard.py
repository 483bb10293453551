"""The guard: a small process that writes neutral when the gate no longer does. ``python -m vehicle.guard``.

The gate starts it with one end of a socket pair and sends a byte every tick; the guard sends each one back, which says
that it lives and has the actuator open. While bytes come it writes nothing. When they stop for 80 ms the gate hangs or
was stopped, and it writes neutral every 20 ms until they come again. When the socket closes the gate is dead, and it
writes neutral for another second and ends. Signals do not end it: it lives as long as the gate.

It imports little, because an armed car waits for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vehicle.actuators.base import PERIOD_S, Actuator
from vehicle.errors import ActuatorError, HotlapError

SILENCE_S = 0.080  # four ticks
AFTERWARDS_S = 1.0  # at least ten servo frames; fifty
KILL_S = 0.150  # an actuator of one owner at a time: the silent gate has to go first
QUIT = b"q"  # the gate has ended in good order and has held neutral itself
STATUS_ACTUATOR = 3
_READ_BYTES = 4096


class Guard:
    """Silent while the gate lives; see the module.

    Args:
        fd: our end of the socket pair, non-blocking.
        kill_gate: ends the gate's process; for an actuator that two processes cannot write to at a time (its
            ``facts()["shared"]`` is false), which is written to only after the gate is dead. None for all others.
    """

    def __init__(
        self,
        fd: int,
        actuator: Actuator,
        steering_us: float,
        throttle_us: float,
        kill_gate: Callable[[], None] | None = None,
    ) -> None:
        self._fd, self._actuator, self._neutral_us = fd, actuator, (steering_us, throttle_us)
        self._kill_gate = kill_gate
        self._failing = False

    def run(self) -> None:
        """Until the gate says so, or has been dead for a second."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        heard_s = time.monotonic()
        next_s = heard_s + SILENCE_S  # of our next neutral
        while True:
            poller.poll(1e3 * max(0.0, next_s - time.monotonic()))
            data = self._read()
            now_s = time.monotonic()
            if data == b"":
                return self._mourn(now_s)
            if data is not None:
                if QUIT in data:
                    return
                heard_s, next_s = now_s, now_s + SILENCE_S
                self._echo(data)
            elif now_s >= next_s:
                next_s = max(next_s + PERIOD_S, now_s)
                self._silence(now_s - heard_s)

    def _silence(self, silence_s: float) -> None:
        if self._kill_gate is None:
            self._write("neutral:guard_gate_silent")
        elif silence_s > KILL_S:
            self._kill_gate()  # the socket closes, and we go on from there

    def _mourn(self, now_s: float) -> None:
        """The gate is dead: neutral at once, then every 20 ms."""
        end_s = now_s + AFTERWARDS_S
        while now_s < end_s:
            self._write("neutral:guard_gate_dead")
            now_s += PERIOD_S
            time.sleep(max(0.0, now_s - time.monotonic()))

    def _write(self, cause: str) -> None:
        try:
            self._actuator.write(*self._neutral_us, cause)
            self._failing = False
        except OSError as error:  # ActuatorError too: all that can be done is to try again, and to say so once
            if not self._failing:
                say(f"hotlap guard: neutral not written: {error}")
            self._failing = True

    def _read(self) -> bytes | None:
        """What has come: None is nothing, b"" is the end."""
        try:
            return os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # the gate's end was reset
            return b""

    def _echo(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a gate that does not read for long, or has just died
            os.write(self._fd, data)


def say(text: str) -> None:
    """To stderr, which may be a pipe that is full or gone: then the words are lost, and nothing waits."""
    with contextlib.suppress(OSError):
        if select.select((), (2,), (), 0)[1]:  # one write of at most PIPE_BUF bytes does not wait then
            os.write(2, text.encode(errors="replace")[:_READ_BYTES - 1] + b"\n")


def _killer(gate_pid: int) -> Callable[[], None]:
    def kill() -> None:
        # As long as it is our parent, the number cannot belong to another process.
        if os.getppid() == gate_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(gate_pid, signal.SIGKILL)

    return kill


def main(argv: Sequence[str] | None = None) -> int:
    """Run the guard.

    Returns:
        the exit status: 0 in the end, 3 where the actuator cannot be opened, 2 for a bad configuration.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m vehicle.guard")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--neutral-steering-us", type=float, required=True)
    parser.add_argument("--neutral-throttle-us", type=float, required=True)
    parser.add_argument("--fd", type=int, required=True, help="our end of the gate's socket pair")
    parser.add_argument("--trace", type=Path)
    args = parser.parse_args(argv)
    gate_pid = os.getppid()

    from vehicle.actuators.record import Recorder
    from vehicle.actuators.registry import open_actuator
    from vehicle.car_config import load_car_config

    try:
        actuator = open_actuator(load_car_config(args.config).actuator, args.runtime, role="guard")
        if args.trace is not None:
            actuator = Recorder(actuator, args.trace)
    except HotlapError as error:
        say(f"hotlap guard: {error}")
        return STATUS_ACTUATOR if isinstance(error, ActuatorError) else 2
    os.set_blocking(args.fd, False)
    shared = actuator.facts().get("shared", True)
    guard = Guard(
        args.fd,
        actuator,
        args.neutral_steering_us,
        args.neutral_throttle_us,
        kill_gate=None if shared else _killer(gate_pid),
    )
    try:
        guard.run()
    finally:
        actuator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
