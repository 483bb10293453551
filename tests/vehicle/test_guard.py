"""The guard by itself, as a real process behind a real socket pair; the gate is this test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vehicle.guard import AFTERWARDS_S, SILENCE_S, Guard
from vehicle.guard_link import ANSWER_BEATS, GuardLink, guard_arguments
from vehicle.trace import TraceRow, read_trace

pytestmark = pytest.mark.slow  # real processes in real time

NEUTRAL_US = (1450.0, 1446.0)
LIMIT_S = 0.2  # DESIGN.md; what is measured is some 85 ms and 5 ms


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return bool(found)


def throttle(trace: Path) -> list[TraceRow]:
    return [row for row in read_trace(trace) if row.channel == "throttle"] if trace.exists() else []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "car.toml"
    path.write_text('[actuator]\nkind = "none"\n')
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "pulses.csv"


@pytest.fixture
def link(config: Path, tmp_path: Path, trace: Path) -> Iterator[GuardLink]:
    link = GuardLink(guard_arguments(config, tmp_path, trace))
    yield link
    link.stop()


def beat_until_alive(link: GuardLink) -> None:
    assert until(lambda: (time.sleep(0.02), link.beat(time.monotonic()))[1]), link.error


def beat_for(link: GuardLink, duration_s: float) -> list[bool]:
    alive = []
    due_s = time.monotonic()
    for _ in range(round(duration_s / 0.02)):
        alive.append(link.beat(time.monotonic()))
        due_s += 0.02
        time.sleep(max(0.0, due_s - time.monotonic()))
    return alive


def test_silent_while_the_gate_lives(link: GuardLink, trace: Path) -> None:
    link.start(*NEUTRAL_US)
    assert link.beat(time.monotonic()) is False  # it has not answered yet
    beat_until_alive(link)
    assert all(beat_for(link, 1.0))
    assert throttle(trace) == []
    link.stop()
    assert throttle(trace) == []  # told to end: the gate has held neutral itself


def test_a_gate_that_goes_silent(link: GuardLink, trace: Path) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    silent_s = time.monotonic()
    assert until(lambda: len(throttle(trace)) >= 10)
    rows = throttle(trace)
    assert SILENCE_S - 0.005 < rows[0].t_s - silent_s < LIMIT_S
    assert {(row.pulse_us, row.cause) for row in rows} == {(NEUTRAL_US[1], "neutral:guard_gate_silent")}
    assert {row.pulse_us for row in read_trace(trace) if row.channel == "steering"} == {NEUTRAL_US[0]}
    steps_s = sorted(b.t_s - a.t_s for a, b in zip(rows, rows[1:], strict=False))
    assert 0.015 < steps_s[len(steps_s) // 2] < 0.03
    # It resumes: the guard is silent again, at once.
    link.beat(time.monotonic())
    time.sleep(0.02)
    count = len(throttle(trace))
    assert all(beat_for(link, 0.5))
    assert len(throttle(trace)) == count


def test_a_gate_that_dies(link: GuardLink, trace: Path) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    process = link._process
    assert process is not None
    dead_s = time.monotonic()
    link.abandon()
    assert process.wait(5.0) == 0
    rows = throttle(trace)
    assert rows[0].t_s - dead_s < LIMIT_S
    assert len(rows) >= 40
    assert AFTERWARDS_S - 0.1 < rows[-1].t_s - rows[0].t_s < AFTERWARDS_S + 0.5
    assert {(row.pulse_us, row.cause) for row in rows} == {(NEUTRAL_US[1], "neutral:guard_gate_dead")}


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
def test_signals_do_not_end_it(link: GuardLink, number: signal.Signals) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    pid = link.pid
    assert pid is not None
    os.kill(pid, number)
    assert all(beat_for(link, 0.3))
    assert link.pid == pid


def test_a_dead_guard_is_noticed_at_the_next_beat_and_replaced(link: GuardLink) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    pid = link.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not link.beat(time.monotonic()), 1.0)
    assert link.error == "the guard ended with status -9"
    beat_until_alive(link)
    assert link.pid not in (None, pid)
    assert (link.starts, link.error) == (2, "")


def test_a_guard_that_hangs_is_not_alive_and_is_again_when_it_goes_on(link: GuardLink) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    assert link.pid is not None
    os.kill(link.pid, signal.SIGSTOP)
    alive = beat_for(link, 0.02 * (ANSWER_BEATS + 5))
    assert alive[0] is True
    assert alive[-1] is False
    os.kill(link.pid, signal.SIGCONT)
    beat_until_alive(link)
    assert link.starts == 1


def test_a_guard_that_hangs_for_long_is_replaced(link: GuardLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehicle.guard_link.HANG_BEATS", 20)
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    pid = link.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    beat_for(link, 0.6)
    beat_until_alive(link)
    assert link.pid != pid


def test_a_new_neutral_takes_a_new_guard(link: GuardLink, trace: Path) -> None:
    link.start(*NEUTRAL_US)
    beat_until_alive(link)
    pid = link.pid
    link.start(1400.0, 1500.0)
    assert not link.beat(time.monotonic())
    beat_until_alive(link)
    assert link.pid != pid
    assert until(lambda: throttle(trace))  # the gate is silent now
    assert {row.pulse_us for row in throttle(trace)} == {1500.0}


def test_an_actuator_that_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "car.toml"
    config.write_text('[actuator]\nkind = "sysfs_pwm"\npwm_root = "/nowhere"\n')
    link = GuardLink(guard_arguments(config, tmp_path, None))
    link.start(*NEUTRAL_US)
    try:
        assert until(lambda: link.beat(time.monotonic()) or link.error)
        assert link.error == "the guard ended with status 3"
    finally:
        link.stop()
    assert "no PWM chip" in capfd.readouterr().err


def test_no_descriptors_left_is_an_error_and_not_an_exception(
    link: GuardLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socketpair", refuse)
        link.start(*NEUTRAL_US)
        assert "Too many open files" in link.error
        assert link.beat(time.monotonic()) is False
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        assert until(lambda: link.beat(time.monotonic()) or link._next_start_s > time.monotonic())
        assert "Too many open files" in link.error
    beat_until_alive(link)


class Stubborn:
    """An actuator that refuses the first writes."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.written = refusals, 0

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError(5, f"Input/output error, {self.refusals} more to come")
        self.written += 1

    def facts(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        return


def test_a_write_that_fails_is_tried_again(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    actuator = Stubborn(refusals=5)
    theirs.setblocking(False)
    with theirs:
        ours.close()
        Guard(theirs.fileno(), actuator, *NEUTRAL_US).run()
    assert actuator.written >= 40
    assert capfd.readouterr().err.count("Input/output error") == 1  # said once, not fifty times


def test_with_an_actuator_of_one_owner_a_silent_gate_is_killed_before_anything_is_written() -> None:
    ours, theirs = socket.socketpair()
    actuator = Stubborn(refusals=0)
    theirs.setblocking(False)
    killed_s = []
    begun_s = time.monotonic()

    def kill() -> None:
        killed_s.append(time.monotonic() - begun_s)
        assert actuator.written == 0
        ours.close()

    with theirs:
        Guard(theirs.fileno(), actuator, *NEUTRAL_US, kill_gate=kill).run()
    assert len(killed_s) == 1
    assert 0.14 < killed_s[0] < LIMIT_S + 0.1
    assert actuator.written >= 40


def test_the_guard_imports_nothing_heavy() -> None:
    script = "import sys, vehicle.guard, vehicle.actuators.registry, vehicle.car_config\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "cv2", "zmq", "onnxruntime", "vehicle.gate_core"} & set(loaded)
