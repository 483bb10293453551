"""The rollout workers of this machine: started, watched, started again when they die, ended with the run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from trainer.errors import TrainerError
from trainer.experience import ExperienceBuffer
from trainer.worker_process import STATUS_BAD_INPUT
from vehicle.child import child_environment
from vehicle.parent import ENVIRONMENT as SUPERVISED

_END_S = 5.0
_QUICK_S = 20.0  # a worker that dies sooner than this ...
_GIVE_UP = 5  # ... so many times in a row will not do better the next time


class Fleet:
    """Worker processes numbered from 0.

    Args:
        buffer: which they drive into.
        workers: how many; threads: of each.
        note: told when one died.
    """

    def __init__(self, buffer: ExperienceBuffer, workers: int, threads: int, note: Callable[[str, str], None]) -> None:
        self._buffer, self._threads, self._note = buffer, threads, note
        self._quick = [0] * workers
        self._born_s = [0.0] * workers
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(workers):
                self.processes.append(self._start(number))
        except BaseException:
            self.close()
            raise

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment, descriptors = self._buffer.worker_environment()
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.worker_process", str(number), str(self._threads)],
            env={**child_environment(), **environment, SUPERVISED: "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors,
        )  # fmt: skip
        self._buffer.started()
        self._born_s[number] = time.monotonic()
        return process

    def check(self) -> None:
        """Start those again that have died.

        Raises:
            TrainerError: one ended with an error that would come again, for instance of the reward function.
        """
        for number, process in enumerate(self.processes):
            status = process.poll()
            if status is None:
                continue
            words = process.stdout.read() if process.stdout is not None else b""
            _close_pipes(process)
            if status == STATUS_BAD_INPUT:
                _raise(number, words)
            quick = time.monotonic() - self._born_s[number] < _QUICK_S
            self._quick[number] = self._quick[number] + 1 if quick else 0
            why = f"signal {-status}" if status < 0 else f"status {status}"
            if self._quick[number] >= _GIVE_UP:
                raise TrainerError(
                    f"worker {number} has died {_GIVE_UP} times in a row, each time soon after its start ({why})",
                    cause="no memory left, or a fault of hotlap's own; its words are above",
                    next_step="train with fewer --workers",
                )
            self._note("worker_died", f"worker {number} died ({why}) and is started again")
            self.processes[number] = self._start(number)

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        deadline_s = time.monotonic() + _END_S
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _raise(number: int, words: bytes) -> None:
    try:
        said = json.loads(words)
    except ValueError:
        said = {"what": os.fsdecode(words), "cause": "", "next": ""}
    raise TrainerError(f"worker {number}: {said['what']}", cause=said["cause"], next_step=said["next"])
