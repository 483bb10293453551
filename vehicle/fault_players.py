"""Who plays the other parts while faults are injected: a pilot, a camera, a browser, and somebody who floods a socket.

The browser can be a process of its own, so that it can be killed: ``python -m vehicle.fault_players --runtime DIR``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq

from vehicle.links import endpoint
from vehicle.messages import PILOT, Intent, encode
from vehicle.parent import end_with_parent

MODEL = "fa" * 32  # the hash that a played pilot names
INTENT_PERIOD_S = 0.05
STEERING_DEG, SPEED_MPS, MODEL_MAX_MPS = 10.0, 0.5, 1.0
COMMAND_PERIOD_S = 0.05
_JOIN_S = 5.0
_ANSWER_MS = 1000
_ARM_S = 15.0

Spoil = Callable[[Intent], bytes]
Command = Callable[[str, int], dict[str, Any]]


class _Player:
    """A thread that does one thing until it is closed, and whose failure is told when it is closed."""

    def __init__(self, name: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._over = threading.Event()
        self._lock = threading.Lock()  # a socket is for one thread at a time
        self._thread = threading.Thread(target=self.run, name=f"fault-{name}", daemon=True)

    def run(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        self._context.destroy(linger=0)


class PlayedPilot(_Player):
    """Sends an intent every 50 ms, straight from here to the gate.

    Attributes:
        silent: send none.
        spoil: what is sent instead of each good intent.
        late_s: the latest that one was sent after its time; whoever wants to know sets it to 0 first.
    """

    def __init__(self, runtime: Path) -> None:
        super().__init__("pilot")
        self.silent = False
        self.spoil: Spoil | None = None
        self.late_s = 0.0
        self._seq = 0
        self._push = self._context.socket(zmq.PUSH)
        self._push.connect(endpoint(runtime, "gate.intent"))

    def run(self) -> None:
        """See `_Player.run`."""
        last_s = time.monotonic()
        while not self._over.wait(INTENT_PERIOD_S):
            with self._lock:
                last_s, before_s = time.monotonic(), last_s
                self.late_s = max(self.late_s, last_s - before_s - INTENT_PERIOD_S)
                if not self.silent:
                    self._send(encode if self.spoil is None else self.spoil)

    def say(self, spoil: Spoil, *, always: bool = False) -> float:
        """Send this in place of an intent, now.

        Args:
            always: and from now on.

        Returns:
            the moment just before, of time.monotonic.
        """
        with self._lock:
            self.spoil = spoil if always else self.spoil
            return self._send(spoil)

    def hush(self) -> float:
        """Send nothing any more; returns the moment from which on."""
        with self._lock:
            self.silent = True
            return time.monotonic()

    def mend(self) -> None:
        """Be a good pilot again."""
        with self._lock:
            self.silent, self.spoil = False, None

    def _send(self, make: Spoil) -> float:
        self._seq += 1
        now_s = time.monotonic()
        intent = Intent(
            PILOT, self._seq, now_s, self._seq, now_s - 0.01, STEERING_DEG, SPEED_MPS, MODEL_MAX_MPS, 4.0, MODEL
        )
        data = make(intent)
        self._push.send(data)
        return now_s


class Console(_Player):
    """A browser that drives by hand or calibrates: holds a lease and sends a command every 50 ms.

    Attributes:
        command: makes a command, of the lease and how many there were before.
        error: why it could not arm the car; None where it could.
    """

    def __init__(self, runtime: Path, mode: str, neutral_us: float) -> None:
        super().__init__("console")
        self.mode = mode
        self.command: Command = manual_command if mode == "manual" else pulse_command(neutral_us)
        self.error: str | None = None
        self.silent = False
        self.lease = ""
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.connect(endpoint(runtime, "gate.request"))

    def run(self) -> None:
        """Take the lease, arm, and drive."""
        self.error = self._arm()
        count = 0
        while self.error is None and not self._over.wait(COMMAND_PERIOD_S):
            with self._lock:
                if not self.silent:
                    self._ask(self.command(self.lease, count))
                    count += 1

    def hush(self) -> float:
        """Send nothing any more; returns the moment from which on."""
        with self._lock:
            self.silent = True
            return time.monotonic()

    def say(self, command: Command) -> float:
        """Send this, now and from now on; returns the moment just before."""
        with self._lock:
            self.command = command
            now_s = time.monotonic()
            self._ask(command(self.lease, 0))
            return now_s

    def _arm(self) -> str | None:
        deadline_s = time.monotonic() + _ARM_S
        answer: dict[str, Any] = {}
        while time.monotonic() < deadline_s and not self._over.wait(COMMAND_PERIOD_S):
            if not self.lease:
                answer = self._ask({"op": "lease", "kind": self.mode, "holder": "hotlap bench faults"})
                self.lease = str(answer.get("lease", ""))
                continue
            answer = self._ask({"op": "arm", "mode": self.mode, "lease": self.lease})
            if answer.get("ok"):
                return None
            if not self._ask({"op": "renew", "lease": self.lease}).get("ok"):
                self.lease = ""
        return f"not armed as {self.mode}: {answer.get('what', 'no answer')}"

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._dealer.send(json.dumps(message).encode())
        if not self._dealer.poll(_ANSWER_MS):
            return {"ok": False, "what": "no answer"}
        answer = json.loads(self._dealer.recv())
        assert isinstance(answer, dict)
        return answer


def manual_command(lease: str, count: int) -> dict[str, Any]:
    """Slowly ahead and a little to the left."""
    return {"op": "manual", "lease": lease, "steering": 0.2, "throttle": 0.4}


def pulse_command(neutral_us: float, step_us: float = 20.0, to_us: float = 60.0) -> Command:
    """From neutral on in steps, as the calibration page does it, and then held."""

    def command(lease: str, count: int) -> dict[str, Any]:
        return {"op": "pulse", "lease": lease, "throttle_us": neutral_us - min(to_us, step_us * (count + 1))}

    return command


@contextlib.contextmanager
def flood(runtime: Path, socket: str, make: Callable[[int], bytes], at_once: int = 200) -> Iterator[None]:
    """Send on three connections, every 5 ms, until the block ends.

    Args:
        socket: "gate.request" or "gate.intent".
        make: makes a message, of how many there were before.
        at_once: messages on each connection; by default more than the gate takes.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    over = threading.Event()
    links = [context.socket(zmq.PUSH if socket == "gate.intent" else zmq.DEALER) for _ in range(3)]

    def run() -> None:
        count = 0
        while not over.wait(0.005):
            for link in links:
                with contextlib.suppress(zmq.Again):
                    for _ in range(at_once):
                        link.send(make(count), zmq.NOBLOCK)
                        count += 1

    thread = threading.Thread(target=run, name="fault-flood", daemon=True)
    try:
        for link in links:
            link.setsockopt(zmq.LINGER, 0)
            link.setsockopt(zmq.SNDHWM, 64)
            link.connect(endpoint(runtime, socket))
        thread.start()
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join(_JOIN_S)
        context.destroy(linger=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Be a browser that drives by hand, until killed; 1 where it could not arm the car."""
    parser = argparse.ArgumentParser(prog="python -m vehicle.fault_players")
    parser.add_argument("--runtime", type=Path, required=True)
    end_with_parent()
    console = Console(parser.parse_args(argv).runtime, "manual", 0.0)
    console.run()
    print(console.error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
