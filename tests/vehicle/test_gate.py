"""The gate as a real process: how soon neutral comes, from the recorded pulses, whatever ends it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from calibration.mapping import Calibration, Throttle, speed_pulse_us, steering_pulse_us
from calibration.store import save_calibration
from tests.vehicle.gate_process import CALIBRATION, CENTER_US, NEUTRAL_US, GateProcess, until
from vehicle.drive_log import read_drive_log
from vehicle.links import endpoint

pytestmark = pytest.mark.slow  # real processes in real time

# DESIGN.md's limits; docs/driving.md has what is measured.
SIGNAL_LIMIT_S = 0.100
KILL_LIMIT_S = 0.200
HELD_FRAMES = 10

RAISE_ON_FLAG = """
import os, vehicle.gate_core
real = vehicle.gate_core.GateCore.tick
def tick(self, now_s, facts):
    if os.path.exists({flag!r}):
        raise {error}
    return real(self, now_s, facts)
vehicle.gate_core.GateCore.tick = tick
"""

REFUSE_ON_FLAG = """
import os, vehicle.actuators.none
real = vehicle.actuators.none.NoActuator.write
def write(self, steering_us, throttle_us, cause):
    if os.path.exists({flag!r}):
        raise OSError(121, "Remote I/O error")
    real(self, steering_us, throttle_us, cause)
vehicle.actuators.none.NoActuator.write = write
"""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[GateProcess]:
    gate = GateProcess(tmp_path)
    yield gate
    gate.close()


# --- from the start


def test_the_first_pulse_is_neutral_and_neutral_goes_on_at_50_hz(gate: GateProcess) -> None:
    gate.start().wait_answer()
    assert until(lambda: len(gate.throttle()) >= 100)
    rows = gate.rows()
    assert [(row.channel, row.pulse_us, row.cause) for row in rows[:2]] == [
        ("steering", CENTER_US, "neutral:start"), ("throttle", NEUTRAL_US, "neutral:start"),
    ]  # fmt: skip
    assert not gate.moving_after(0.0)
    ticks = [row.t_s for row in gate.throttle() if row.cause == "neutral:disarmed"]
    assert statistics.median(b - a for a, b in zip(ticks, ticks[1:], strict=False)) == pytest.approx(0.02, abs=0.002)
    found = gate.status()
    assert found["pid"] == gate.pid
    assert found["processes"]["guard"] not in (None, gate.pid)
    assert set(found["interval_ms"]) == {"p50", "p99", "max"}
    # Deadlines are absolute: as many ticks as there were periods, apart from those that are counted as missed.
    periods = (ticks[-1] - ticks[0]) / 0.02
    assert len(ticks) - 1 + found["missed"] == pytest.approx(periods, abs=2)


def test_without_a_calibration_nothing_is_written_until_there_is_one(tmp_path: Path) -> None:
    gate = GateProcess(tmp_path, calibrated=False).start()
    try:
        gate.wait_answer()
        time.sleep(0.3)
        assert gate.rows() == []
        assert {"uncalibrated", "guard"} <= gate.reasons()
        assert gate.ask("calibration")["reason"] == "bad_calibration"
        save_calibration(gate.state_dir / "calibration.json", CALIBRATION)
        assert gate.ask("calibration")["ok"] is True
        assert until(lambda: gate.status()["guard"]["alive"])
        assert not {"uncalibrated", "guard"} & gate.reasons()
        assert len(gate.neutral_after(0.0, 10)) >= 10
        assert gate.throttle() == gate.neutral_after(0.0)
    finally:
        gate.close()


def test_another_calibration_has_its_own_neutral_and_its_own_guard(gate: GateProcess) -> None:
    gate.start().drive()
    other = Calibration(throttle=Throttle(neutral_us=1450.0, forward_us=1311.0, reverse_us=1603.5))
    save_calibration(gate.state_dir / "calibration.json", other)
    assert gate.ask("calibration")["reason"] == "not_disarmed"
    assert gate.status()["mode"] == "autonomous"
    gate.ask("disarm")
    guard = gate.status()["processes"]["guard"]
    assert gate.ask("calibration")["ok"] is True
    assert until(lambda: gate.status()["guard"]["alive"])
    assert gate.status()["processes"]["guard"] != guard
    assert gate.throttle()[-1].pulse_us == 1450.0
    killed_s = gate.send_signal(signal.SIGKILL)
    gate.wait()
    assert until(lambda: [row for row in gate.throttle(killed_s) if row.cause == "neutral:guard_gate_dead"])
    assert {row.pulse_us for row in gate.throttle(killed_s)} == {1450.0}


def test_a_damaged_calibration_blocks_and_moves_nothing(gate: GateProcess) -> None:
    (gate.state_dir / "calibration.json").write_text("{")
    gate.start().wait_answer()
    assert "uncalibrated" in gate.reasons()
    assert gate.rows() == []


def test_it_drives_by_the_intents(gate: GateProcess) -> None:
    gate.start().drive()
    assert gate.pilot is not None
    assert until(lambda: gate.throttle()[-1].pulse_us == pytest.approx(
        speed_pulse_us(CALIBRATION, 0.5, model_max_mps=1.0), abs=0.01
    ))  # fmt: skip
    assert until(lambda: [row for row in gate.rows() if row.channel == "steering"][-1].pulse_us == pytest.approx(
        steering_pulse_us(CALIBRATION, 10.0), abs=0.01
    ))  # fmt: skip
    found = gate.status()
    assert found["mode"] == "autonomous"
    assert found["armed"] is True
    assert found["blocked"] == []
    # The frame is 10 ms old when the intent is made, and the pulse follows at once, not with the next tick.
    assert until(lambda: (gate.status()["frame_to_pulse_ms"] or {"p50": 99.0})["p50"] < 20.0)


def test_lost_intents_are_neutral(gate: GateProcess) -> None:
    gate.start().drive()
    assert gate.pilot is not None
    gate.pilot.sending = False
    silent_s = time.monotonic()
    assert gate.neutral_after(silent_s)[0].t_s - silent_s < KILL_LIMIT_S
    assert until(lambda: gate.status()["mode"] == "disarmed")


# --- to the end


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
def test_a_signal_is_neutral_at_once_held_and_then_the_end(gate: GateProcess, number: signal.Signals) -> None:
    gate.start().drive()
    guard = gate.status()["processes"]["guard"]
    sent_s = gate.send_signal(number)
    assert gate.wait() == 0
    neutral = gate.neutral_after(sent_s)
    assert neutral[0].t_s - sent_s < SIGNAL_LIMIT_S
    assert len(neutral) >= HELD_FRAMES
    assert neutral[-1].t_s - neutral[0].t_s > 0.02 * (HELD_FRAMES - 1)
    assert {row.cause for row in neutral} == {"neutral:exit"}  # the guard had nothing to do
    assert not gate.moving_after(neutral[0].t_s)
    assert gate.stderr() == ""
    assert not os.path.exists(f"/proc/{guard}")


def test_a_killed_gate_is_neutral_by_its_guard(gate: GateProcess) -> None:
    gate.start().drive()
    sent_s = gate.send_signal(signal.SIGKILL)
    gate.wait()
    neutral = gate.neutral_after(sent_s, HELD_FRAMES)
    assert neutral[0].t_s - sent_s < KILL_LIMIT_S
    assert neutral[0].cause == "neutral:guard_gate_dead"
    assert not gate.moving_after(neutral[0].t_s)


def test_a_stopped_gate_is_neutral_by_its_guard_and_disarmed_when_it_goes_on(gate: GateProcess) -> None:
    gate.start().drive()
    sent_s = gate.send_signal(signal.SIGSTOP)
    neutral = gate.neutral_after(sent_s, HELD_FRAMES)
    assert neutral[0].t_s - sent_s < KILL_LIMIT_S
    assert neutral[0].cause == "neutral:guard_gate_silent"
    gate.send_signal(signal.SIGCONT)
    assert until(lambda: gate.status()["mode"] == "disarmed")
    assert gate.status()["fault"]["name"] == "tick_gap"
    assert not gate.moving_after(neutral[0].t_s)


@pytest.mark.parametrize("error", ("RuntimeError('broken')", "MemoryError", "KeyboardInterrupt", "SystemExit(0)"))
def test_whatever_is_raised_neutral_is_held_and_the_exit_status_says_so(tmp_path: Path, error: str) -> None:
    flag = tmp_path / "flag"
    gate = GateProcess(tmp_path, prelude=RAISE_ON_FLAG.format(flag=str(flag), error=error)).start()
    try:
        gate.drive()
        begun_s = time.monotonic()
        flag.touch()
        assert gate.wait() == 1
        neutral = [row for row in gate.neutral_after(begun_s) if row.cause == "neutral:exit"]
        assert neutral[0].t_s - begun_s < SIGNAL_LIMIT_S
        assert len(neutral) >= HELD_FRAMES
        assert not gate.moving_after(neutral[0].t_s)
        assert "Traceback" in gate.stderr()
        assert error.partition("(")[0] in gate.stderr()
    finally:
        gate.close()


def test_without_file_descriptors_a_signal_is_still_neutral(gate: GateProcess) -> None:
    gate.start().drive()
    guard = gate.status()["processes"]["guard"]
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (8, 8))  # fewer than it has; poll(2) itself needs a few
    killed_s = time.monotonic()
    os.kill(guard, signal.SIGKILL)  # a new one would need some
    assert gate.neutral_after(killed_s)[0].cause == "neutral:fault:guard"
    time.sleep(1.5)  # it tries to start another one meanwhile
    assert gate.throttle()[-1].t_s - killed_s > 1.4
    sent_s = gate.send_signal(signal.SIGTERM)
    assert gate.wait() == 0
    neutral = gate.neutral_after(sent_s)
    assert neutral[0].t_s - sent_s < SIGNAL_LIMIT_S
    assert len(neutral) >= HELD_FRAMES


# --- what fails on the way


def test_a_write_that_fails_disarms_and_after_two_seconds_the_gate_gives_up(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    gate = GateProcess(tmp_path, prelude=REFUSE_ON_FLAG.format(flag=str(flag))).start()
    try:
        gate.drive()
        flag.touch()
        assert until(lambda: gate.status()["mode"] == "disarmed")
        assert gate.status()["fault"]["name"] == "actuator"
        assert "actuator" in gate.reasons()
        flag.unlink()
        back_s = time.monotonic()
        assert gate.neutral_after(back_s)[0].t_s - back_s < 0.1  # it has gone on trying
        assert until(lambda: "actuator" not in gate.reasons())
        assert gate.status()["mode"] == "disarmed"
        flag.touch()
        gone_s = time.monotonic()
        assert gate.wait() == 1
        assert 1.9 < time.monotonic() - gone_s < 4.0
        assert "Remote I/O error" in gate.stderr()
    finally:
        gate.close()


def test_a_guard_that_is_killed_disarms_and_is_replaced(gate: GateProcess) -> None:
    gate.start().drive()
    guard = gate.status()["processes"]["guard"]
    sent_s = time.monotonic()
    os.kill(guard, signal.SIGKILL)
    assert gate.neutral_after(sent_s)[0].t_s - sent_s < SIGNAL_LIMIT_S
    found = gate.status()
    assert (found["mode"], found["fault"]["name"]) == ("disarmed", "guard")
    assert until(lambda: gate.status()["guard"]["alive"])
    assert gate.status()["processes"]["guard"] != guard


def test_a_full_disk_under_the_drive_log_blocks_and_disarms(gate: GateProcess) -> None:
    (gate.state_dir / "logs").mkdir()
    (gate.state_dir / "logs" / "drive.log").symlink_to("/dev/full")
    gate.start().wait_answer()
    assert until(lambda: "log" in gate.reasons())
    found = next(one for one in gate.status()["blocked"] if one["reason"] == "log")
    assert "No space left on device" in found["value"]
    assert gate.ask("arm", mode="autonomous")["reason"] == "blocked"
    assert until(lambda: len(gate.throttle()) > 50)  # and neutral goes on


def test_a_drive_log_that_cannot_be_opened_blocks(gate: GateProcess) -> None:
    (gate.state_dir / "logs").touch()
    gate.start().wait_answer()
    assert "log" in gate.reasons()


def test_the_drive_log_has_intents_outputs_requests_and_states_and_no_lease(gate: GateProcess) -> None:
    gate.start().drive()
    gate.ask("stop")
    gate.ask("reset")
    lease = gate.ask("lease", kind="manual", holder="a phone")["lease"]
    gate.ask("release", lease=lease)
    gate.send_signal(signal.SIGTERM)
    assert gate.wait() == 0
    path = gate.state_dir / "logs" / "drive.log"
    found = read_drive_log(path)
    assert found.damage == []
    assert {record.kind for record in found.records} == {"intent", "output", "request", "state"}
    assert [record.fields["mode"] for record in found.records if record.kind == "state"] == [
        "autonomous", "stopped", "disarmed",
    ]  # fmt: skip
    assert "drive" in {record.fields["cause"] for record in found.records if record.kind == "output"}
    assert lease.encode() not in path.read_bytes()


def test_an_actuator_that_is_safe_by_itself_and_has_one_owner_needs_no_guard(tmp_path: Path) -> None:
    facts = '{"name": "bridge", "fails_safe": True, "shared": False}'
    prelude = f"import vehicle.actuators.none as none\nnone.NoActuator.facts = lambda self: {facts}"
    gate = GateProcess(tmp_path, prelude=prelude).start()
    try:
        gate.drive()
        found = gate.status()
        assert found["guard"] is None
        assert found["processes"]["guard"] is None
    finally:
        gate.close()


def test_with_an_actuator_of_one_owner_a_stopped_gate_is_killed_and_then_neutral_is_written(
    gate: GateProcess, tmp_path: Path
) -> None:
    """As RPi.GPIO: the pulses come from a thread of the gate's process, and only its end makes room for others."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "import vehicle.actuators.none as none\n"
        "none.NoActuator.facts = lambda self: {'name': 'rpi_gpio', 'fails_safe': False, 'shared': False}\n"
    )
    gate.start({"PYTHONPATH": str(tmp_path / "path")}).drive()
    sent_s = gate.send_signal(signal.SIGSTOP)
    assert gate.wait() == -signal.SIGKILL
    neutral = gate.neutral_after(sent_s, HELD_FRAMES)
    assert neutral[0].t_s - sent_s < KILL_LIMIT_S + 0.1  # 150 ms of silence come first
    assert {row.cause for row in neutral} == {"neutral:guard_gate_dead"}


# --- requests


def test_a_stop_is_neutral_before_it_is_answered(gate: GateProcess) -> None:
    gate.start().drive()
    sent_s = time.monotonic()
    assert gate.ask("stop") == {"ok": True, "mode": "stopped"}
    answered_s = time.monotonic()
    neutral = gate.neutral_after(sent_s)
    assert neutral[0].t_s < answered_s
    assert neutral[0].t_s - sent_s < SIGNAL_LIMIT_S
    assert neutral[0].cause == "neutral:stopped"
    time.sleep(0.3)
    assert not gate.moving_after(neutral[0].t_s)
    assert "stopped" in gate.reasons()


def test_a_stop_gets_through_a_flood(gate: GateProcess) -> None:
    gate.start().drive()
    gaps = gate.status()["counters"]["gaps"]
    context = zmq.Context()
    floods = [context.socket(zmq.DEALER) for _ in range(3)]
    done = threading.Event()

    def flood() -> None:
        while not done.is_set():
            for one in floods:
                for _ in range(200):
                    try:
                        one.send(b'{"op":"cap","percent":100}', zmq.NOBLOCK)
                    except zmq.Again:
                        break
            time.sleep(0.005)

    thread = threading.Thread(target=flood)
    try:
        for one in floods:
            one.connect(endpoint(gate.runtime, "gate.request"))
        thread.start()
        time.sleep(0.3)
        sent_s = time.monotonic()
        assert gate.ask("stop")["mode"] == "stopped"
        assert gate.neutral_after(sent_s)[0].t_s - sent_s < KILL_LIMIT_S
        assert gate.status()["counters"]["gaps"] == gaps  # it has gone on ticking
    finally:
        done.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.parametrize("text", (b"", b"nonsense", b"\xff\xfe", b"[" * 20_000, b"[1]", b'{"op":"fly"}', b'{"op":NaN}'))
def test_a_bad_request_is_answered_with_its_reason_and_changes_nothing(gate: GateProcess, text: bytes) -> None:
    gate.start().wait_answer()
    context = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(endpoint(gate.runtime, "gate.request"))
        dealer.send(text)
        assert dealer.poll(2000)
        answer = json.loads(dealer.recv())
        dealer.close()
    finally:
        context.destroy(linger=0)
    assert answer["ok"] is False
    assert answer["reason"] in ("not_an_object", "unknown_op")
    assert gate.status()["mode"] == "disarmed"


def test_rubbish_on_the_intent_socket_is_counted_and_disarms(gate: GateProcess) -> None:
    gate.start().drive()
    assert gate.pilot is not None
    sent_s = time.monotonic()
    gate.pilot.send(b"rubbish")
    assert gate.neutral_after(sent_s)[0].t_s - sent_s < SIGNAL_LIMIT_S
    found = gate.status()
    assert found["fault"]["name"] == "not_json"
    assert found["counters"]["refused"] == {"not_json": 1}


def test_the_state_is_published_ten_times_a_second_and_when_the_mode_changes(gate: GateProcess) -> None:
    gate.start().wait_answer()
    context = zmq.Context()
    try:
        listener = context.socket(zmq.SUB)
        listener.setsockopt(zmq.SUBSCRIBE, b"")
        listener.connect(endpoint(gate.runtime, "gate.state"))
        stamps = []
        for _ in range(11):
            assert listener.poll(2000)
            stamps.append(json.loads(listener.recv())["stamp_s"])
        assert stamps[-1] - stamps[0] == pytest.approx(1.0, abs=0.1)
        sent_s = time.monotonic()
        gate.ask("stop")
        while (state := json.loads(listener.recv()))["mode"] != "stopped":
            assert time.monotonic() - sent_s < 2.0
        assert state["stamp_s"] - sent_s < 0.05
        listener.close()
    finally:
        context.destroy(linger=0)


# --- around it


def test_a_second_gate_does_not_start(gate: GateProcess, tmp_path: Path) -> None:
    gate.start().wait_answer()
    trace = tmp_path / "second.csv"
    second = subprocess.run(
        [sys.executable, "-m", "vehicle.gate", "--config", gate.config, "--runtime", gate.runtime, "--trace", trace],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "another gate runs" in second.stderr
    assert not trace.exists()
    assert gate.status()["pid"] == gate.pid


@pytest.mark.parametrize(
    ("toml", "status", "words"),
    (
        ('[actuator]\nkimd = "none"\n', 2, "kimd"),
        ('[actuator]\nkind = "nine"\n', 1, "unknown actuator"),
        ('[actuator]\nkind = "sysfs_pwm"\npwm_root = "/nowhere"\n', 1, "no PWM chip"),
    ),
)
def test_what_cannot_be_opened_is_said_and_nothing_is_written(
    gate: GateProcess, toml: str, status: int, words: str
) -> None:
    gate.config.write_text(f'state_dir = "{gate.state_dir}"\n{toml}')
    assert gate.start().wait() == status
    assert words in gate.stderr()
    assert gate.rows() == []


def test_systemd_is_told(gate: GateProcess, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10.0)
        gate.start({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        assert manager.recv(1000) == b"READY=1\nSTATUS=disarmed"
        begun_s = time.monotonic()
        assert [manager.recv(1000) for _ in range(10)] == [b"WATCHDOG=1"] * 10
        assert time.monotonic() - begun_s == pytest.approx(1.0, abs=0.25)
        gate.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        manager.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                manager.recv(1000)
        gate.send_signal(signal.SIGCONT)
        manager.settimeout(10.0)
        gate.send_signal(signal.SIGTERM)
        said = []
        while not said or said[-1] != b"STOPPING=1":
            said.append(manager.recv(1000))
        assert gate.wait() == 0


def test_the_gate_imports_nothing_heavy() -> None:
    script = "import sys, vehicle.gate\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "cv2", "onnxruntime", "flask"} & set(loaded)
