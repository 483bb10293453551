"""Saliency maps for the console: one thread and one child process, only while somebody looks, one map a second.

Who asks never waits: the newest map is what there is, and asking is what has the next one made.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibration.car_link import CarRefused, Picture, Saliency
from vehicle.child import ROOT, child_environment
from vehicle.saliency_child import DEADLINE_S

EVERY_S = 0.9  # a page asks once a second, and gets another one each time
OLD_S = 5.0  # a map that old is of another place
IDLE_S = 8.0  # nobody has asked: thread and child end
START_S = 120.0  # ONNX Runtime from a cold card beside a busy program; starting anew would only take longer
_ANSWER_S = DEADLINE_S + 5.0  # the child keeps its own deadline; one that does not is killed


class ConsoleSaliency:
    """The maps of one car; `close` it at the end.

    Args:
        picture: the newest one, or None.
        bundle: where the model is that took the action; raises CarRefused.
    """

    def __init__(self, picture: Callable[[], Picture | None], bundle: Callable[[], Path]) -> None:
        self._picture, self._bundle = picture, bundle
        self._changed = threading.Condition()
        self._asked_s = self._begun_s = self._made_s = float("-inf")
        self._map: Saliency | None = None
        self._refused: CarRefused | None = None
        self._thread: threading.Thread | None = None
        self._child: Child | None = None
        self._ending = False

    def newest(self) -> Saliency | None:
        """The newest map, None where the first one is being made; have another made unless that was a moment ago.

        Raises:
            CarRefused: there is none, and why.
        """
        with self._changed:
            now_s = time.monotonic()
            self._asked_s = now_s
            if self._thread is None and not self._ending:
                self._thread = threading.Thread(target=self._run, name="console-saliency", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if now_s - self._made_s > OLD_S:
                return None
            if self._refused is not None:
                raise self._refused
            return self._map

    def close(self) -> None:
        """End thread and child."""
        with self._changed:
            self._ending = True
            thread, child = self._thread, self._child
            self._changed.notify_all()
        if child is not None:
            child.kill()
        if thread is not None:
            thread.join(5.0)

    # --- the thread

    def _run(self) -> None:
        child = Child()
        with self._changed:
            self._child = child
        try:
            while self._wait_asked():
                made: Saliency | None = None
                refused: CarRefused | None = None
                try:
                    made = self._make(child)
                except CarRefused as error:
                    refused = error
                with self._changed:
                    self._map, self._refused, self._made_s = made, refused, time.monotonic()
        finally:
            child.end()
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _wait_asked(self) -> bool:
        """Until the next map is due; False where it is time to end."""
        with self._changed:
            while not self._ending:
                now_s = time.monotonic()
                if self._asked_s > self._begun_s and now_s - self._begun_s >= EVERY_S:
                    self._begun_s = now_s
                    return True
                if now_s - self._asked_s >= IDLE_S:
                    self._thread = None  # whoever asks from now on starts another
                    break
                self._changed.wait(EVERY_S / 4)
            return False

    def _make(self, child: Child) -> Saliency:
        picture = self._picture()
        if picture is None:
            raise CarRefused(
                "no_picture",
                "there is no picture to look at",
                cause="the pilot does not run, or its camera gives no pictures",
                next_step="look at the reasons on the Health page",
            )
        begun_s = time.monotonic()
        found = child.ask(self._bundle(), picture.gray)
        took_s = time.monotonic() - begun_s
        refused = found.get("refused")
        if isinstance(refused, dict):
            raise CarRefused(refused["reason"], refused["what"], cause=refused["cause"], next_step=refused["next_step"])
        return Saliency(
            picture=picture,
            rows=found["rows"],
            columns=found["columns"],
            change=tuple(found["change"]),
            steering_deg=found["action"][0],
            speed_mps=found["action"][1],
            chosen=found["chosen"],
            actions=tuple((steering, speed, share) for steering, speed, share in found["actions"]),
            took_s=took_s,
        )


class Child:
    """`vehicle.saliency_child`, started when it is first asked. For one thread, but for `kill`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def ask(self, bundle: Path, gray: bytes) -> dict[str, Any]:
        """One map of one observation, 120 x 160 bytes.

        Raises:
            CarRefused: saliency_failed.
        """
        process, timeout_s = self._process, _ANSWER_S
        if process is None or process.poll() is not None:
            self.end()
            process, timeout_s = self._start(), START_S
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"bundle": str(bundle)}).encode() + b"\n" + gray)
            process.stdin.flush()
            return _answer(process.stdout.fileno(), timeout_s)
        except (OSError, ValueError) as error:
            self.end()
            slow = isinstance(error, TimeoutError)
            raise CarRefused(
                "saliency_failed",
                f"no map could be made: {error}" if slow else "the process that makes the maps has ended",
                cause="the network is too large for this computer" + ("" if slow else ", or the memory is full"),
                next_step="try again when the car stands; the Models page says how long one picture takes the model",
            ) from error

    def kill(self) -> None:
        """So that nobody waits for its answer. From another thread."""
        self._killed = True
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """End the process; the next `ask` starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent yet goes nowhere
                    pipe.close()
        process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "vehicle.saliency_child"],
                cwd=ROOT, env=child_environment(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,  # for a nice value of its own
            )  # fmt: skip
        except OSError as error:
            what = f"the process that makes the maps cannot be started: {error.strerror or error}"
            raise CarRefused("saliency_failed", what) from error
        if self._killed:  # meanwhile
            process.kill()
        return process


def _answer(pipe: int, timeout_s: float) -> dict[str, Any]:
    """One line of JSON from a pipe.

    Raises:
        OSError: it has ended, or nothing came in time (TimeoutError).
        ValueError: it is no JSON object.
    """
    deadline_s = time.monotonic() + timeout_s
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nothing within {timeout_s:g} s")
        piece = os.read(pipe, 65536)
        if not piece:
            raise ConnectionResetError("it has ended")
        text += piece
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found
