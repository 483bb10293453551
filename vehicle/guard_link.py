"""The gate's end of the guard: starts it, tells it every tick that the gate lives, and knows whether it does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from vehicle.guard import QUIT

ANSWER_BEATS = 7  # the guard sends every byte back; without one for this many ticks it hangs
HANG_BEATS = 250  # after this many ticks without an answer it is replaced
START_BEATS = 1500  # the same for one that has just been started: a Pi under load reads Python from a slow card
RESTART_S = 1.0  # between attempts
STOP_S = 0.5
_READ_BYTES = 4096


class GuardLink:
    """One guard process at a time.

    Attributes:
        error: why it could not be started, "" otherwise.
        starts: how often one was started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Args: arguments: of ``python -m vehicle.guard``, without the neutral pulses and the socket."""
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._leaving: list[tuple[subprocess.Popen[bytes], float]] = []  # told to end, and when to kill them
        self._neutral_us: tuple[float, float] | None = None
        self._answered = False
        self._unanswered = 0  # beats, not seconds: a gate that was stopped itself must not blame the guard
        self._next_start_s = 0.0
        self.error = ""
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, steering_us: float, throttle_us: float) -> None:
        """Start a guard with this neutral, in place of the one that runs; does not wait for either."""
        self._dismiss(time.monotonic())
        self._neutral_us = steering_us, throttle_us
        self._launch(time.monotonic())

    def _launch(self, now_s: float) -> None:
        assert self._neutral_us is not None
        self._next_start_s = now_s + RESTART_S
        self._answered, self._unanswered = False, 0
        steering_us, throttle_us = self._neutral_us
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self.error = f"the guard cannot be started: {error.strerror or error}"
            return
        with theirs:
            command = [
                sys.executable, "-m", "vehicle.guard", *self._arguments, "--fd", str(theirs.fileno()),
                "--neutral-steering-us", repr(steering_us), "--neutral-throttle-us", repr(throttle_us),
            ]  # fmt: skip
            try:
                # In a session of its own: Ctrl-C in the gate's terminal is not for the guard.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
                )
            except OSError as error:
                ours.close()
                self.error = f"the guard cannot be started: {error.strerror or error}"
                return
        ours.setblocking(False)
        self._process, self._socket = process, ours
        self.starts += 1
        self.error = ""

    def beat(self, now_s: float) -> bool:
        """To be called every tick: one byte to the guard; a dead one is started again, at most once a second.

        Returns:
            whether the guard runs, has the actuator open, and answers.
        """
        self._reap(now_s)
        if self._neutral_us is None:
            return False
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                self.error = f"the guard ended with status {self._process.returncode}"
                self._forget()
            if now_s >= self._next_start_s:
                self._launch(now_s)
            return False
        self.tell()
        self._unanswered += 1
        self._listen()
        if self._unanswered > (HANG_BEATS if self._answered else START_BEATS):
            self.error = f"the guard gave no answer for {self._unanswered} ticks and was killed"
            self._process.kill()  # its end is noticed at the next beat
        return self._answered and self._unanswered <= ANSWER_BEATS

    def tell(self) -> None:
        """Only tell the guard that the gate lives, which keeps it silent."""
        if self._socket is not None:
            # Full: it hangs. Closed: it has ended. Both are seen by its answers.
            with contextlib.suppress(OSError):
                self._socket.send(b".")

    def _listen(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while self._socket.recv(_READ_BYTES):
                self._answered, self._unanswered = True, 0

    def stop(self) -> None:
        """End the guard in good order and wait for it; the caller has held neutral. One that hangs is killed."""
        self._dismiss(time.monotonic())
        for process, _ in self._leaving:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._leaving.clear()

    def abandon(self) -> None:
        """Close our end and leave the guard to write neutral for its second: for a gate that ends in trouble."""
        self._neutral_us = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _dismiss(self, now_s: float) -> None:
        self._neutral_us = None
        if self._process is not None:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.send(QUIT)
            self._leaving.append((self._process, now_s + STOP_S))
        self._forget()

    def _reap(self, now_s: float) -> None:
        for process, deadline_s in self._leaving:
            if process.poll() is None and now_s > deadline_s:
                process.kill()
        self._leaving = [one for one in self._leaving if one[0].returncode is None]

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._process = None


def guard_arguments(
    config: os.PathLike[str] | None, runtime: os.PathLike[str], trace: os.PathLike[str] | None
) -> list[str]:
    """The arguments that guard and gate share."""
    arguments = ["--runtime", os.fspath(runtime)]
    if config is not None:
        arguments += ["--config", os.fspath(config)]
    if trace is not None:
        arguments += ["--trace", os.fspath(trace)]
    return arguments
