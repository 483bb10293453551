"""The world process: which pulses it takes, and two seconds of it in real time. Time limits are wide: slow machines."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from calibration.mapping import default_sim_calibration, speed_pulse_us
from sim.errors import SimError
from sim.simulated_car import SimulatedCar
from sim.track import load_track
from sim.world_process import READY_FILE, PulseInbox, World, main
from vehicle.links import endpoint

TRUE = default_sim_calibration()
FORWARD_US = speed_pulse_us(TRUE, 0.8, model_max_mps=4.0)


def message(throttle_us: object = 1446.0, stamp_s: object = 10.0, sender: object = "gate", **more: object) -> bytes:
    body = {"steering_us": TRUE.steering.center_us, "throttle_us": throttle_us, "stamp_s": stamp_s, "from": sender}
    return json.dumps(body | more).encode()


# --- which pulses ---------------------------------------------------------------------------------------------------


def test_the_newest_stamp_wins_whoever_sent_it() -> None:
    inbox = PulseInbox()
    assert inbox.take(10.0) == (None, None)
    assert inbox.offer(message(1400, 9.98), 10.0)
    assert inbox.offer(message(1446, 9.99, "guard"), 10.0)
    assert inbox.offer(message(1390, 9.97), 10.0)  # overtaken: taken note of, not applied
    assert inbox.take(10.0) == (TRUE.steering.center_us, 1446.0)
    assert inbox.take(10.0) == (None, None)  # once
    assert inbox.offer(message(1400, 9.985), 10.02)  # older than what was applied
    assert inbox.take(10.02) == (None, None)
    assert inbox.refused == 0


def test_pulses_of_the_past_are_no_signal() -> None:
    inbox = PulseInbox()
    assert inbox.offer(message(1400, 9.0), 10.0)
    assert inbox.take(10.0) == (None, None)
    assert inbox.offer(message(1400, 9.95), 10.0)
    assert inbox.take(10.0) == (TRUE.steering.center_us, 1400.0)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xfe", b"nonsense", b"[]", b"null", b'{"steering_us":1450}',
        message(float("nan")), message(float("inf")), message("1400"), message(True), message(None), message([1400]),
        message(10**400), b"[" * 100_000, message(499), message(2501), message(steering_us=3000),
        message(sender="browser"), message(sender=["gate"]), message(extra=1), message(stamp_s=11.0),
        message(stamp_s=float("nan")), message(stamp_s=float("inf")),
    ],
)  # fmt: skip
def test_what_is_not_a_pair_of_pulses_is_counted_and_changes_nothing(data: bytes) -> None:
    inbox = PulseInbox()
    assert inbox.offer(message(1400, 9.99), 10.0)
    assert not inbox.offer(data, 10.0)
    assert inbox.refused == 1 and inbox.last_refusal
    assert inbox.take(10.0) == (TRUE.steering.center_us, 1400.0)


# --- the clock ------------------------------------------------------------------------------------------------------


class PretendTime:
    """A clock that only sleeping moves; one chosen sleep takes longer, as on a machine that was suspended."""

    def __init__(self, oversleep_after_s: float = math.inf, by_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self._from_s, self._by_s = self.now_s + oversleep_after_s, by_s

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + 1e-6
        if self.now_s > self._from_s:
            self.now_s, self._from_s = self.now_s + self._by_s, math.inf


def run_pretended(
    clock: PretendTime, seconds: float, monkeypatch: pytest.MonkeyPatch, speed_up: float = 1.0
) -> tuple[World, list[tuple[float, dict[str, Any]]], list[dict[str, Any]]]:
    """A world after ``seconds`` of the pretended clock: it, (when, header) of its frames, and its facts."""
    monkeypatch.setattr("sim.world_process.time", clock)
    frames: list[tuple[float, dict[str, Any]]] = []
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        world = World(SimulatedCar(load_track("first_oval"), seed=1), Path(folder), speed_up)
        end_s = clock.now_s + seconds

        def on_frame(parts: list[bytes]) -> None:
            frames.append((clock.now_s, json.loads(parts[0])))
            assert len(parts[1]) == 120 * 160

        def on_facts(data: bytes) -> None:
            facts.append(json.loads(data))
            if clock.now_s >= end_s:
                world.stop()

        monkeypatch.setattr(world, "_send_frame", on_frame)
        monkeypatch.setattr(world, "_send_facts", on_facts)
        try:
            world.run()
        finally:
            world.close()
    return world, frames, facts


@pytest.mark.parametrize("speed_up", [1.0, 4.0])
def test_pictures_leave_a_latency_after_their_exposure(speed_up: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world, frames, facts = run_pretended(PretendTime(), 2.0, monkeypatch, speed_up)
    latency_s = world.car.car.camera.latency_s / speed_up
    assert len(frames) == pytest.approx(2.0 * 15 * speed_up, abs=2)
    for sent_s, header in frames:
        assert sent_s - header["stamp_s"] == pytest.approx(latency_s, abs=1e-4)
    assert np.diff([header["stamp_s"] for _, header in frames]) == pytest.approx(1 / 15 / speed_up)
    assert np.diff([fact["stamp_s"] for fact in facts]) == pytest.approx(0.1 / speed_up)
    assert world.skipped_s == 0 and max(fact["late_ms"] for fact in facts) < 0.01
    assert world.car.time_s == pytest.approx(2.0 * speed_up, abs=0.2)


def test_a_little_late_it_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _, facts = run_pretended(PretendTime(0.5, 0.07), 1.0, monkeypatch)
    assert world.skipped_s == 0
    assert max(fact["late_ms"] for fact in facts) == pytest.approx(70, abs=21)
    assert facts[-1]["late_ms"] < 0.01
    assert world.car.time_s == pytest.approx(1.0, abs=0.11)
    assert np.diff([fact["stamp_s"] for fact in facts]) == pytest.approx(0.1)


def test_far_too_late_it_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    world, frames, facts = run_pretended(PretendTime(0.5, 0.6), 1.6, monkeypatch)
    assert world.skipped_s == pytest.approx(0.6, abs=0.021) == facts[-1]["skipped_s"]
    assert world.car.time_s == pytest.approx(1.0, abs=0.13)
    stamps_s = [header["stamp_s"] for _, header in frames]
    assert all(later > earlier for earlier, later in zip(stamps_s, stamps_s[1:], strict=False))
    assert all(sent_s >= header["stamp_s"] for sent_s, header in frames)


# --- the process ----------------------------------------------------------------------------------------------------


@contextmanager
def running_world(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A world that has said that it is ready, and its runtime folder; killed at the end if it still lives."""
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        command = [sys.executable, "-m", "sim.world_process", "--runtime", folder, "--track", "first_oval", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            deadline_s = time.monotonic() + 120
            while not (Path(folder) / READY_FILE).exists():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline_s, "not ready"
                time.sleep(0.05)
            yield process, Path(folder)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Wires:
    """The other ends of the world's sockets, as gate, pilot and supervisor hold them."""

    def __init__(self, runtime: Path) -> None:
        self._context = zmq.Context()
        self._pulses = self._connect(zmq.PUSH, runtime, "world.pulses")
        self._frames = self._connect(zmq.SUB, runtime, "world.frames")
        self._facts = self._connect(zmq.SUB, runtime, "world.facts")
        self.frames: list[tuple[dict[str, Any], bytes, float]] = []  # header, pixels, when it arrived
        self.facts: list[dict[str, Any]] = []

    def _connect(self, kind: int, runtime: Path, name: str) -> zmq.Socket[bytes]:
        end = self._context.socket(kind)
        if kind == zmq.SUB:
            end.setsockopt(zmq.SUBSCRIBE, b"")
        end.connect(endpoint(runtime, name))
        return end

    def run(self, seconds: float, throttle_us: float | None = None) -> None:
        """Collect what comes, and send pulses, steering straight on, at 50 Hz where a throttle is given."""
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s:
            if throttle_us is not None:
                self._pulses.send(message(throttle_us, now_s))
            time.sleep(0.02)
            while self._frames.poll(0):
                header, pixels = self._frames.recv_multipart()
                self.frames.append((json.loads(header), pixels, time.monotonic()))
            while self._facts.poll(0):
                self.facts.append(json.loads(self._facts.recv()))

    def until(self, fact: str, value: object, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait, sending nothing, for facts newer than now in which ``fact`` is ``value``."""
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + timeout_s:
            self.run(0.1)
            for facts in self.facts:
                if facts["stamp_s"] > begin_s and facts[fact] == value:
                    return facts
        raise AssertionError(f"{fact} never became {value}: {self.facts[-1:]}")

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.mark.slow
def test_two_seconds_in_real_time() -> None:
    with running_world("--seed", "3") as (process, runtime):
        wires = Wires(runtime)
        try:
            wires.run(0.3)  # subscriptions take a moment
            wires.frames.clear()
            cpu_before = psutil.Process(process.pid).cpu_times()
            began_s = time.monotonic()
            wires.run(2.0, FORWARD_US)
            took_s = time.monotonic() - began_s
            cpu = psutil.Process(process.pid).cpu_times()
            frames = list(wires.frames)
            driving = wires.facts[-1]
            stopped = wires.until("moving", False)  # nobody sends pulses any more
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            process.send_signal(signal.SIGCONT)
            wires.run(1.0)
            resumed = wires.facts[-1]
        finally:
            wires.close()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
        assert process.returncode == 0
        assert not (runtime / READY_FILE).exists()
    assert stderr == "world: ready\n"

    headers = [header for header, _, _ in frames]
    assert 0.6 * 15 * took_s < len(frames) < 15 * took_s + 2
    assert all(b["seq"] > a["seq"] and b["stamp_s"] > a["stamp_s"] for a, b in zip(headers, headers[1:], strict=False))
    spacing_s = (headers[-1]["stamp_s"] - headers[0]["stamp_s"]) / (headers[-1]["seq"] - headers[0]["seq"])
    assert spacing_s == pytest.approx(1 / 15, rel=0.2)
    assert all((header["height"], header["width"], len(pixels)) == (120, 160, 19200) for header, pixels, _ in frames)
    assert len({pixels for _, pixels, _ in frames}) == len(frames)
    ages_s = [arrived_s - header["stamp_s"] for header, _, arrived_s in frames]
    assert 0.0199 < min(ages_s) and sorted(ages_s)[len(ages_s) // 2] < 0.12

    assert driving["moving"] and driving["signal"] and driving["speed_mps"] == pytest.approx(0.8, rel=0.1)
    assert {"laps", "lap_times_s", "off_track", "x_m", "y_m", "heading_rad", "late_ms", "skipped_s"} <= set(driving)
    assert (driving["laps"], driving["off_track"], driving["refused"]) == (0, 0, 0)
    assert not stopped["signal"]
    # It stood still for 0.6 s and says so.
    assert resumed["skipped_s"] > stopped["skipped_s"] + 0.4
    assert (cpu.user + cpu.system) - (cpu_before.user + cpu_before.system) < 0.5 * took_s


@pytest.mark.slow
def test_speed_up_and_a_wrong_sender() -> None:
    with running_world("--speed-up", "3", "--look", "random") as (process, runtime):
        wires = Wires(runtime)
        try:
            wires.run(0.3)
            wires.run(1.0, FORWARD_US)
            wires.run(0.1, 9999.0)
            wires.run(0.3, FORWARD_US)
            facts = wires.facts[-1]
            spacing_s = (wires.frames[-1][0]["stamp_s"] - wires.frames[0][0]["stamp_s"]) / (
                wires.frames[-1][0]["seq"] - wires.frames[0][0]["seq"]
            )
        finally:
            wires.close()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert process.returncode == 0
    assert spacing_s == pytest.approx(1 / 45, rel=0.2)
    assert facts["travelled_m"] > 1.2  # one second is three
    assert facts["refused"] >= 1 and stderr.count("refused") == 1


# --- what cannot run ------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="cannot be bound"):
        World(SimulatedCar(load_track("first_oval")), tmp_path / "missing")


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--track", "no_such_track"], "no track is called"), (["--car", "gone.toml"], "gone.toml")]
)
def test_what_cannot_be_loaded_ends_it_with_status_1(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--runtime", str(tmp_path), "--track", "first_oval", *arguments]) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / READY_FILE).exists()


@pytest.mark.parametrize("factor", ["0", "nan", "1000", "fast"])
def test_speed_up_has_bounds(factor: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--runtime", str(tmp_path), "--track", "first_oval", "--speed-up", factor])
