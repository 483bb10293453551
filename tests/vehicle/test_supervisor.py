"""The supervisor on small made-up processes: started, watched, and stopped in order; and what ends them without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.vehicle.gate_process import until
from vehicle import supervisor
from vehicle.errors import VehicleError
from vehicle.supervisor import Part, Supervisor, ending_signals, only_drive, part_environment

pytestmark = pytest.mark.slow  # real processes

ROOT = Path(__file__).resolve().parents[2]

# `python -m made_up WHAT --runtime DIR`: a part that does as told, and writes down when it ended.
MADE_UP = """
import argparse, json, os, pathlib, signal, sys, time
import zmq
from vehicle.parent import end_with_parent
parser = argparse.ArgumentParser()
parser.add_argument("--runtime", type=pathlib.Path, required=True)
parser.add_argument("--config")
parser.add_argument("--name", default="gate")
parser.add_argument("--do", default="serve")
args = parser.parse_args()

def end(number, frame):
    with (args.runtime / "ended").open("a") as file:
        file.write(args.name + "\\n")
    os._exit(0)  # at once: no waiting for ZeroMQ

signal.signal(signal.SIGTERM, signal.SIG_IGN if args.do == "stubborn" else end)
end_with_parent()
print("hello from", args.name, "with", args.config, flush=True)
print("threads:", os.environ["OMP_NUM_THREADS"], flush=True)
if args.do == "fail":
    print("the wire is loose", file=sys.stderr)
    sys.exit(3)
if args.do == "world":
    (args.runtime / "world.ready").write_text("1")
if args.do == "serve":
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(f"ipc://{args.runtime}/{args.name}.request")
    while True:
        if not socket.poll(50):  # not for ever: a signal that comes just before the wait would not end it
            continue
        *envelope, text = socket.recv_multipart()
        socket.send_multipart([*envelope, json.dumps({"ok": True, "pid": os.getpid()}).encode()])
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl") as name:  # short: sockets go there
        (Path(name) / "made_up.py").write_text(MADE_UP)
        monkeypatch.setenv("PYTHONPATH", f"{name}{os.pathsep}{ROOT}")
        yield Path(name)


@pytest.fixture
def parts(folder: Path) -> Iterator[Supervisor]:
    made = Supervisor(folder, folder / "car.toml")
    yield made
    for part in made.parts.values():
        if part.alive():
            part.process.kill()
    made.stop()


def start(parts: Supervisor, name: str, do: str = "serve") -> Part:
    parts.start(name, "made_up", ["--name", name, "--do", do])
    return parts.parts[name]


def says(part: Part, text: str) -> bool:
    return until(lambda: text in part.log.read_text())


# --- starting


def test_a_part_runs_in_its_own_session_with_a_log(parts: Supervisor) -> None:
    part = start(parts, "gate")
    answer = parts.wait_answer("gate")
    assert answer["pid"] == part.process.pid == parts.pids()["gate"]
    assert os.getsid(part.process.pid) == part.process.pid != os.getsid(0)
    assert says(part, "hello from gate with None") and says(part, "threads: 1")


def test_modules_of_the_car_are_told_its_configuration(parts: Supervisor) -> None:
    parts.start("gate", "vehicle.gate", ["--help"])
    assert parts.parts["gate"].command[1:] == [
        "-m", "vehicle.gate", "--runtime", str(parts.runtime), "--help", "--config", str(parts.car_toml),
    ]  # fmt: skip
    parts.parts["gate"].process.wait(10)
    start(parts, "world")
    assert "--config" not in parts.parts["world"].command


def test_a_log_holds_nothing_of_an_earlier_drive(parts: Supervisor, folder: Path) -> None:
    (folder / "gate.log").write_text("old words\n")
    part = start(parts, "gate")
    assert says(part, "hello")
    assert "old words" not in part.log.read_text()


def test_a_part_that_ends_is_not_waited_for(parts: Supervisor) -> None:
    start(parts, "gate", "fail")
    with pytest.raises(VehicleError) as caught:
        parts.wait_answer("gate")
    assert "the gate ended with status 3" in caught.value.what and "the wire is loose" in caught.value.what
    assert caught.value.next_step == f"read {parts.parts['gate'].log}"


def test_a_part_that_does_not_answer_is_given_up(parts: Supervisor) -> None:
    start(parts, "gate", "mute")
    with pytest.raises(VehicleError, match="does not answer within 1 s"):
        parts.wait_answer("gate", timeout_s=1.0)


def test_the_tail_is_the_last_lines(parts: Supervisor) -> None:
    part = start(parts, "gate", "mute")
    assert says(part, "up")
    assert parts.tail("gate", 1) == "    up"
    part.log.unlink()
    assert parts.tail("gate") == ""


# --- the world


def world(parts: Supervisor, monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    """`start_world`, with a made-up world instead of MuJoCo's."""
    real = parts.start
    monkeypatch.setattr(parts, "start", lambda name, module, arguments: real(name, "made_up", arguments))
    parts.start_world(["--name", "world", "--do", do])


def test_the_world_is_waited_for(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    (parts.runtime / "world.ready").write_text("of an earlier drive")
    world(parts, monkeypatch, "world")
    assert (parts.runtime / "world.ready").read_text() == "1"


def test_a_world_that_ends_at_the_start(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VehicleError, match="the world ended with status 3"):
        world(parts, monkeypatch, "fail")


def test_a_world_that_never_comes(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_TIMEOUT_S", 0.2)
    with pytest.raises(VehicleError, match="did not start") as caught:
        world(parts, monkeypatch, "mute")
    assert "world.log" in caught.value.next_step


@pytest.mark.parametrize("missing", ["mujoco", "sim"])
def test_without_mujoco_it_says_what_to_install(
    parts: Supervisor, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = supervisor.importlib.util.find_spec
    monkeypatch.setattr(supervisor.importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(VehicleError, match="not installed") as caught:
        parts.start_world([])
    assert "pip install 'hotlap[train]'" in caught.value.next_step and not parts.parts


# --- watching


def test_while_all_run_there_is_nothing_to_do(parts: Supervisor) -> None:
    part = start(parts, "pilot")
    parts.watch()
    assert part.alive() and part.restarts == 0 and part.ended == []


@pytest.mark.parametrize("name", ["gate", "world"])
def test_without_gate_or_world_there_is_no_drive(parts: Supervisor, name: str) -> None:
    part = start(parts, name, "fail")
    part.process.wait(10)
    with pytest.raises(VehicleError, match=f"the {name} ended with status 3"):
        parts.watch()


def test_the_pilot_is_started_again_after_a_pause(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_RESTART_PAUSE_S", 0.3)
    part = start(parts, "pilot")
    first = part.process
    assert says(part, "hello")
    first.kill()
    first.wait()
    seen_s = time.monotonic()
    parts.watch()
    assert part.ended == [-signal.SIGKILL] and part.process is first

    def again() -> bool:
        parts.watch()
        return part.process is not first

    assert until(again)
    assert time.monotonic() - seen_s >= 0.3 and part.restarts == 1 and part.ended == [-signal.SIGKILL]
    assert parts.wait_answer("pilot")["pid"] == part.process.pid != first.pid
    assert part.log.read_text().count("hello from pilot") == 2  # the words of the first one are kept


def test_a_pilot_that_ends_again_and_again_is_given_up(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr(supervisor, "_PILOT_RESTARTS", 2)
    part = start(parts, "pilot", "fail")
    with pytest.raises(VehicleError, match=r"the pilot ended 3 times, with status \[3, 3, 3\]") as caught:
        while part.process.wait(10) is not None:
            parts.watch()
    assert "the wire is loose" in caught.value.what and part.restarts == 2


# --- stopping


def test_the_gate_is_stopped_first_and_the_world_last(parts: Supervisor) -> None:
    for name in ("world", "pilot", "gate"):
        part = start(parts, name, "mute")
        assert says(part, "up")
    assert parts.stop() == {"world": 0, "pilot": 0, "gate": 0}
    assert (parts.runtime / "ended").read_text().split() == ["gate", "pilot", "world"]
    assert parts.pids() == {}
    assert all(part.process.stdin is not None and part.process.stdin.closed for part in parts.parts.values())


def test_one_that_does_not_want_to_end_is_killed(parts: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STOP_TIMEOUT_S", 0.3)
    part = start(parts, "pilot", "stubborn")
    assert says(part, "up")
    assert parts.stop() == {"pilot": -signal.SIGKILL}


def test_one_that_has_ended_keeps_its_status(parts: Supervisor) -> None:
    start(parts, "gate", "fail").process.wait(10)
    assert parts.stop() == {"gate": 3}


def test_a_killed_supervisor_takes_its_parts_along(folder: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom vehicle.supervisor import Supervisor\n"
        f"parts = Supervisor(pathlib.Path({str(folder)!r}), None)\n"
        "parts.start('gate', 'made_up', ['--name', 'gate'])\nparts.start('pilot', 'made_up', ['--name', 'pilot'])\n"
        "print(parts.wait_answer('gate')['pid'], parts.wait_answer('pilot')['pid'], flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    try:
        assert until(lambda: not any(running(pid) for pid in pids), 10.0)
    finally:
        for pid in filter(running, pids):
            os.kill(pid, signal.SIGKILL)
    assert sorted((folder / "ended").read_text().split()) == ["gate", "pilot"]  # by SIGTERM, in good order


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- one at a time, and its signals


def test_there_is_one_drive_in_a_folder(folder: Path) -> None:
    with only_drive(folder):
        with pytest.raises(VehicleError, match="another hotlap drive runs") as caught, only_drive(folder):
            pytest.fail("there are two")
        assert "HOTLAP_RUNTIME" in caught.value.next_step
    with only_drive(folder):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP])
def test_a_signal_interrupts_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ending_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) is before


def test_nothing_interrupts_the_cleaning_up() -> None:
    with ending_signals() as deafen:
        deafen()
        for number in supervisor.ENDING:
            signal.raise_signal(number)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_parts_share_the_processor() -> None:
    environment = part_environment()
    assert environment["OMP_NUM_THREADS"] == "1" and environment["HOTLAP_SUPERVISED"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
