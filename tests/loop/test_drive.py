"""`hotlap drive` on the simulated car, as processes: laps, a wrong calibration, signals, and parts that die."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import save_calibration
from tests.vehicle.drive_rig import HOTLAP, ROOT, Car, Running
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import make_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# A lap at the trial's 60 % takes too long for a test.
NO_TRIAL_CAP = "[drive]\ntrial_cap_percent = 100.0\n"
TRUE = default_sim_calibration()


@pytest.fixture
def car() -> Iterator[Car]:
    made = Car(NO_TRIAL_CAP)
    yield made
    made.close()


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that nobody trained: it drives, though not along the road."""
    path = tmp_path_factory.mktemp("blind") / "bundle.tar.gz"
    make_bundle(path)
    return path


def drive_blind(car: Car, bundle: Path, *words: object) -> Running:
    """Returns once it moves."""
    car.install(bundle)
    drive = car.drive("--track", "first_oval", "--arm", *words)
    car.wait_moving()
    return drive


# --- laps -------------------------------------------------------------------------------------------------------------


@pytest.mark.learning
def test_a_lap(car: Car, trained: Path) -> None:
    car.install(trained)
    drive = car.drive("--model", trained, "--arm", "--laps", 1, "--duration", "120s")
    car.wait_moving()
    status = car.run("status")
    assert status["mode"] == "autonomous" and status["armed"] and status["blocked"] == []
    pids = car.pids()
    assert {name: pids[f"vehicle.{name}"] for name in ("gate", "guard", "pilot")} == status["processes"]
    maps = Path(f"/proc/{status['processes']['pilot']}/maps").read_text()
    assert "onnxruntime" in maps and "torch" not in maps and "mujoco" not in maps
    assert drive.end(150) == 0, (drive.stderr, car.logs())
    result = drive.result
    assert result["laps"] == 1 and len(result["lap_times_s"]) == 1 and 5.0 < result["lap_times_s"][0] < 120.0
    assert result["off_track"] == 0 and result["mode"] == "autonomous" and result["blocked"] == []
    for name, keys in (
        ("interval_ms", {"p50", "p99", "max", "late", "missed"}),
        ("inference_ms", {"p50", "p99", "max"}),
        ("frame_to_pulse_ms", {"p50", "p99", "max"}),
        ("camera_age_ms", {"p50", "p99", "max"}),
    ):
        assert set(result[name]) == keys and 0.0 < result[name]["p50"] <= result[name]["p99"], name
    assert result["interval_ms"]["p50"] == pytest.approx(100.0, abs=3.0)
    assert result["frame_to_pulse_ms"]["p50"] >= result["inference_ms"]["p50"]
    assert result["exit_status"] == {"world": 0, "gate": 0, "pilot": 0}
    assert f"lap 1: {result['lap_times_s'][0]:.2f} s" in drive.stderr
    car.wait_empty()

    rows = car.rows()
    first = next(index for index, row in enumerate(rows) if row.cause == "drive")
    assert first >= 25  # the ESC was shown neutral for half a second before anything could be armed
    assert {row.pulse_us for row in rows[:first]} == {TRUE.throttle.neutral_us}
    assert all(row.cause.startswith("neutral:") for row in rows[:first])
    assert car.neutral_at_the_end() >= 10 and rows[-1].cause == "neutral:exit"
    assert sum(row.cause == "drive" for row in rows) > 200
    assert car.trace_path.read_text().splitlines()[0] == "t_monotonic_s,channel,pulse_us,cause"
    # It drove for more than ten good seconds: its trial is over.
    listing = car.run("models", "list", "--config", car.config)
    assert listing["current"] == result["model"] and listing["trial"] is None


def steering(left_us: float, right_us: float) -> Calibration:
    """The truth, but for the ends of the steering."""
    return dataclasses.replace(TRUE, steering=dataclasses.replace(TRUE.steering, left_us=left_us, right_us=right_us))


@pytest.mark.learning
@pytest.mark.parametrize(
    ("wrong", "duration"),
    [(steering(1500.0, 1400.0), "25s"), (steering(TRUE.steering.right_us, TRUE.steering.left_us), "15s")],
    ids=["a fifth of the steering", "left and right swapped"],
)
def test_a_wrong_calibration_drives_wrong(car: Car, trained: Path, wrong: Calibration, duration: str) -> None:
    """The simulated car turns pulses into motion by its own calibration, the gate by the file.

    Not with a center that is a little off: the policy sees where it goes, and steers against it.
    """
    car.state.mkdir()
    save_calibration(car.state / "calibration.json", wrong)
    car.install(trained)
    drive = car.drive("--arm", "--duration", duration)
    assert drive.end(120) == 0, (drive.stderr, car.logs())
    assert drive.result["off_track"] >= 1 and drive.result["laps"] == 0, drive.stderr
    assert "off the track, 1 times now" in drive.stderr


def test_laps_that_do_not_come_are_a_failure(car: Car, blind: Path) -> None:
    car.install(blind)
    words = ("--model", str(blind), "--track", "first_oval", "--arm", "--laps", "1", "--duration", "2s")
    done = subprocess.run(
        [*HOTLAP, "drive", "--config", str(car.config), *words],
        cwd=ROOT, env=car.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, (done.stderr, car.logs())
    lines = done.stdout.splitlines()
    assert lines[0].startswith("laps: 0 (none), off track")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "pilot's loop", "inference", "frame to pulse", "asked for 1 laps; the gate is autonomous",
    ]  # fmt: skip
    assert all(word not in done.stdout for word in ("late", "missed", "{"))
    said = done.stderr.splitlines()
    assert said[0] == "drive: starting the simulated car on first_oval"
    assert said[1].startswith("drive: starting gate and pilot; model ") and said[1].endswith(", on trial")
    assert said[2].startswith("drive: armed")
    assert car.pids() == {}


def test_without_arm_it_waits_for_hotlap_arm(car: Car, blind: Path) -> None:
    car.install(blind)
    drive = car.drive("--track", "first_oval")
    assert until(lambda: [b["reason"] for b in car.run("status", status=None)["blocked"]] == ["disarmed"], 120.0)
    assert not car.moving()
    assert car.run("arm") == {"armed": True, "mode": "autonomous", "reason": None, "blocked": []}
    car.wait_moving(5.0)
    assert car.run("stop") == {"mode": "stopped"}
    assert not car.moving()
    drive.send(signal.SIGINT)
    assert drive.end() == 0 and drive.result["mode"] == "stopped"
    assert "stopped" in [b["reason"] for b in drive.result["blocked"]]


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_neutral(car: Car, blind: Path, number: signal.Signals) -> None:
    drive = drive_blind(car, blind)
    drive.send(number)
    drive.send(number)  # impatience changes nothing
    assert drive.end() == 0, (drive.stderr, car.logs())
    assert drive.result["exit_status"] == {"world": 0, "gate": 0, "pilot": 0}
    assert car.neutral_at_the_end() >= 10
    assert car.pids() == {}


def test_killed_itself_it_takes_everything_along(car: Car, blind: Path) -> None:
    drive = drive_blind(car, blind)
    assert set(car.pids()) == {"vehicle.gate", "vehicle.guard", "vehicle.pilot", "sim.world_process"}
    drive.send(signal.SIGKILL)
    killed_s = car.rows()[-1].t_s
    assert drive.end() == -signal.SIGKILL
    car.wait_empty()
    after = car.rows(since_s=killed_s)
    last_driven_s = max(row.t_s for row in after if row.pulse_us != TRUE.throttle.neutral_us)
    assert last_driven_s - killed_s < 0.2
    assert car.neutral_at_the_end() >= 10
    assert after[-1].cause == "neutral:exit"  # by the gate itself, in good order


@pytest.mark.parametrize("module", ["vehicle.gate", "sim.world_process"])
def test_without_gate_or_world_it_ends(car: Car, blind: Path, module: str) -> None:
    drive = drive_blind(car, blind)
    car.kill(module)
    assert drive.end() == 2, (drive.stderr, car.logs())
    assert "ended with status -9" in drive.result["error"]["what"]
    car.wait_empty()
    if module == "vehicle.gate":
        assert car.neutral_at_the_end() >= 10 and car.rows()[-1].cause == "neutral:guard_gate_dead"
    else:  # there is nobody left to write to: a pulse that was not written is not in the trace
        assert car.neutral_at_the_end() >= 1 and drive.result["error"]["next"].endswith("world.log")


def test_without_its_pilot_it_disarms_and_gives_up_on_its_laps(car: Car, blind: Path) -> None:
    drive = drive_blind(car, blind, "--laps", 9)
    first = car.pids()["vehicle.pilot"]
    car.kill("vehicle.pilot")
    assert until(lambda: car.pids().get("vehicle.pilot", first) != first, 30.0)
    assert drive.end() == 1, (drive.stderr, car.logs())
    result = drive.result
    # The new pilot does not take the car over by itself.
    assert result["mode"] == "disarmed" and [b["reason"] for b in result["blocked"]] == ["disarmed"]
    assert result["exit_status"] == {"world": 0, "gate": 0, "pilot": 0}
    assert "drive: disarmed, because of intent_lost" in drive.stderr
    assert car.neutral_at_the_end() > 400


def test_a_second_one_is_refused_and_the_first_drives_on(car: Car, blind: Path) -> None:
    drive_blind(car, blind)
    before = car.pids()
    error = car.run("drive", "--config", car.config, "--arm", status=2)["error"]
    assert "a gate already runs here" in error["what"] and str(before["vehicle.gate"]) in error["what"]
    assert "HOTLAP_RUNTIME" in error["next"]
    assert car.pids() == before and until(car.moving, 5.0)


def test_a_gate_that_hangs_ends_it(car: Car, blind: Path) -> None:
    drive = drive_blind(car, blind)
    os.kill(car.pids()["vehicle.gate"], signal.SIGSTOP)
    stopped_s = car.rows()[-1].t_s
    assert drive.end() == 2 and "no answer" in drive.result["error"]["what"], (drive.stderr, car.logs())
    assert until(lambda: car.pids() == {}, 5.0), car.pids()  # the guard writes neutral for another second
    neutral = [row for row in car.rows(since_s=stopped_s) if row.cause.startswith("neutral:guard")]
    assert len(neutral) >= 10 and neutral[0].t_s - stopped_s < 0.2
