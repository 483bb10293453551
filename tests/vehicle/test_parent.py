"""A supervised process ends when its supervisor does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vehicle.parent import ENVIRONMENT, end_with_parent

pytestmark = pytest.mark.slow  # real processes

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import signal, sys, time
from vehicle.parent import end_with_parent
if {handled}:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
print(end_with_parent({after_s}), flush=True)
time.sleep({awake_s})
"""


class Child:
    """A process with a pipe for stdin, as a supervisor gives it."""

    def __init__(
        self, *, handled: bool = True, after_s: float = 0.0, supervised: str = "1", awake_s: float = 30.0
    ) -> None:
        code = CODE.format(handled=handled, after_s=after_s, awake_s=awake_s)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", ENVIRONMENT: supervised},
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdin is not None
        self.stdin = self.process.stdin
        self.stdout = self.process.stdout
        self.said = self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stdin.close()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.close()


def test_it_ends_when_the_pipe_closes(children: list[Child]) -> None:
    children.append(child := Child())
    assert child.said == "True"
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(0.3)
    child.stdin.close()
    assert child.process.wait(5) == 7


def test_a_word_on_the_pipe_is_not_its_end(children: list[Child]) -> None:
    children.append(child := Child())
    child.stdin.write(b"?" * 1000)
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(0.3)


def test_without_a_handler_sigterm_ends_it(children: list[Child]) -> None:
    children.append(child := Child(handled=False))
    child.stdin.close()
    assert child.process.wait(5) == -signal.SIGTERM


def test_it_may_outlive_the_others(children: list[Child]) -> None:
    children.append(child := Child(after_s=0.5))
    closed_s = time.monotonic()
    child.stdin.close()
    assert child.process.wait(5) == 7
    assert time.monotonic() - closed_s >= 0.5


@pytest.mark.parametrize("supervised", ["", "0"])
def test_nobody_watches_a_process_without_a_supervisor(children: list[Child], supervised: str) -> None:
    children.append(child := Child(supervised=supervised, awake_s=0.3))
    assert child.said == "False"
    child.stdin.close()
    assert child.process.wait(5) == 0


def test_the_watcher_does_not_hold_up_the_end(children: list[Child]) -> None:
    children.append(child := Child(awake_s=0.0))
    assert child.process.wait(5) == 0


def test_this_process_is_not_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert end_with_parent() is False
