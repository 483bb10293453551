"""`hotlap drive` up to where processes start: what it refuses, in words, and what it starts them with."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import hotlap
from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import load_calibration, save_calibration
from sim.car_spec import load_car
from tests.vehicle.pilot_rig import make_bundle
from vehicle import drive, supervisor
from vehicle.car_config import CameraConfig, CarConfig, load_car_config
from vehicle.drive import Progress, Seen, WorldFacts, arm_when_ready
from vehicle.errors import GateError, VehicleError
from vehicle.links import endpoint
from vehicle.slots import ModelStore
from vehicle.supervisor import only_drive

NO_ARGUMENTS = argparse.Namespace(laps=None, track=None, seed=3, look="nominal", json=False)
FIGURES = {"p50": 1.0, "p99": 2.0, "max": 3.0, "late": 7, "missed": 9}
RESULT = {
    "laps": 2, "lap_times_s": [12.3456, 11.5], "off_track": 1, "interval_ms": FIGURES, "inference_ms": FIGURES,
    "frame_to_pulse_ms": None, "mode": "disarmed", "board": None,
    "blocked": [{"reason": "stale_frame", "value": "old", "cure": "look"}],
    "exit_status": {"world": 0, "gate": 0, "pilot": 0}, "runtime": "/run/car",
}  # fmt: skip


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hl"))  # short: sockets go there
    monkeypatch.setenv("HOTLAP_RUNTIME", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def car_toml(tmp_path: Path) -> Path:
    """A simulated car in a folder of its own."""
    path = tmp_path / "car.toml"
    path.write_text(f'state_dir = "{tmp_path / "state"}"\n')
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.gz"
    make_bundle(path)
    return path


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing here may start one: everything is refused before."""
    started: list[str] = []
    monkeypatch.setattr(supervisor.Supervisor, "start", lambda self, name, module, arguments: started.append(name))
    return started


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, str]:
    """The JSON error of ``hotlap drive WORDS``."""
    assert hotlap.main(["drive", *map(str, words), "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"error"} and set(printed["error"]) == {"what", "cause", "next"}
    error: dict[str, str] = printed["error"]
    return error


# --- what it refuses


def test_without_a_model(
    runtime: Path, car_toml: Path, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--config", car_toml, "--arm")
    assert error["what"] == "no model is installed" and "hotlap models install BUNDLE" in error["next"]
    assert no_process == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[drive\n", "TOML"),
        ("[drive]\ncontrol_herz = 10\n", "control_herz"),
        ("[drive]\ncontrol_hz = 1e9\n", "control_hz"),
    ],
)
def test_a_broken_car_toml(
    runtime: Path, car_toml: Path, text: str, what: str, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    car_toml.write_text(text)
    error = refused(capsys, "--config", car_toml)
    assert what in error["what"] and str(car_toml) in error["what"]
    assert no_process == [] and list(runtime.iterdir()) == []


@pytest.mark.slow
def test_a_bundle_that_does_not_fit(
    runtime: Path, car_toml: Path, bundle: Path, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with car_toml.open("a") as file:
        file.write("[drive]\ncontrol_hz = 20.0\n")
    error = refused(capsys, "--config", car_toml, "--model", bundle)
    assert error["what"].startswith("misfit: ") and "control_period" in error["what"]
    assert "set drive.control_hz to 10" in error["next"]
    assert no_process == [] and ModelStore(load_car_config(car_toml).state_path() / "models").list() == ()


def test_a_bundle_that_is_none(
    runtime: Path, car_toml: Path, tmp_path: Path, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "missing_file" in refused(capsys, "--config", car_toml, "--model", tmp_path / "no.tar.gz")["what"]
    (tmp_path / "text.tar.gz").write_text("no archive")
    assert "not_an_archive" in refused(capsys, "--config", car_toml, "--model", tmp_path / "text.tar.gz")["what"]
    assert no_process == []


@pytest.mark.slow
def test_without_mujoco(
    runtime: Path,
    car_toml: Path,
    bundle: Path,
    no_process: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = supervisor.importlib.util.find_spec
    monkeypatch.setattr(supervisor.importlib.util, "find_spec", lambda name: None if name == "mujoco" else real(name))
    error = refused(capsys, "--config", car_toml, "--model", bundle, "--arm")
    assert "not installed" in error["what"] and "pip install 'hotlap[train]'" in error["next"]
    assert no_process == []
    with only_drive(runtime):  # nothing is held
        pass


def test_laps_of_a_real_car(
    runtime: Path, car_toml: Path, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    car_toml.write_text('[camera]\nkind = "v4l2"\n[actuator]\nkind = "pca9685"\n')
    error = refused(capsys, "--config", car_toml, "--arm", "--laps", 3)
    assert "simulated car only" in error["what"] and "--duration" in error["next"]
    assert no_process == []


def test_while_a_gate_runs(
    runtime: Path,
    car_toml: Path,
    no_process: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drive, "request", lambda *words, **more: {"ok": True, "pid": 4711, "mode": "manual"})
    error = refused(capsys, "--config", car_toml)
    assert "process 4711, manual" in error["what"] and "HOTLAP_RUNTIME" in error["next"]
    assert no_process == []


def test_while_another_drive_starts(
    runtime: Path, car_toml: Path, no_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with only_drive(runtime):
        assert "another hotlap drive runs" in refused(capsys, "--config", car_toml)["what"]
    assert no_process == []


# --- what it starts with


def test_a_simulated_car_comes_calibrated_and_keeps_what_it_has(tmp_path: Path) -> None:
    config = CarConfig(state_dir=str(tmp_path / "state"))
    store = ModelStore(config.state_path() / "models")
    assert drive._calibration(config) is None
    assert drive._simulated(config, drive._contract(None, store)) == config  # no model, no wishes
    assert load_calibration(config.calibration_path()) == default_sim_calibration()
    save_calibration(config.calibration_path(), Calibration())
    drive._simulated(config, drive._contract(None, store))
    assert load_calibration(config.calibration_path()) == Calibration() == drive._calibration(config)


def test_a_simulated_car_has_the_camera_of_its_model(tmp_path: Path, bundle: Path) -> None:
    config = CarConfig(state_dir=str(tmp_path), camera=CameraConfig(pitch_down_deg=40.0, height_m=0.5, rate_hz=60.0))
    camera = drive._simulated(config, drive._contract(bundle, ModelStore(tmp_path / "models"))).camera
    usual = CameraConfig()
    assert (camera.pitch_down_deg, camera.height_m, camera.rate_hz) == (
        usual.pitch_down_deg, usual.height_m, usual.rate_hz,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("track", "trained_on", "expected"),
    [
        ("little_bean", ["snake_pass"], "little_bean"),
        (None, ["snake_pass", "first_oval"], "snake_pass"),
        (None, ["oval"], "first_oval"),  # none that is shipped
        (None, ["../first_oval/x"], "first_oval"),
        (None, [], "first_oval"),
        (None, "snake_pass", "first_oval"),
        (None, None, "first_oval"),
    ],
)
def test_the_track_is_the_one_of_the_training(
    tmp_path: Path, track: str | None, trained_on: object, expected: str
) -> None:
    contract: Any = argparse.Namespace(trained_on={} if trained_on is None else {"tracks": trained_on})
    args = argparse.Namespace(**{**vars(NO_ARGUMENTS), "track": track})
    words = drive._world_arguments(args, CarConfig(), contract, tmp_path)
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given == {"--track": expected, "--seed": "3", "--look": "nominal", "--car": str(tmp_path / "world.toml")}
    camera, wanted = load_car(tmp_path / "world.toml").camera, CarConfig().camera
    assert (camera.horizontal_fov_deg, camera.pitch_down_deg) == (wanted.horizontal_fov_deg, wanted.pitch_down_deg)
    assert (camera.height_m, camera.forward_m, camera.frame_rate_hz) == (
        wanted.height_m, wanted.forward_m, wanted.rate_hz,
    )  # fmt: skip


# --- arming


def answers(monkeypatch: pytest.MonkeyPatch, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """The gate's answers, one a request, the last one again and again. Returns what was asked."""
    asked: list[dict[str, Any]] = []
    waiting = list(given)

    def request(runtime: Path, socket: str, message: dict[str, Any], **more: Any) -> dict[str, Any]:
        asked.append(message)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    monkeypatch.setattr(drive, "request", request)
    return asked


def test_it_asks_until_it_is_armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, {"ok": False, "reason": "blocked"}, {"ok": False, "reason": "blocked"}, {"ok": True})
    arm_when_ready(tmp_path)
    assert asked == [{"op": "arm", "mode": "autonomous"}] * 3


def test_a_gate_that_stays_blocked_is_told_with_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = [
        {"reason": "uncalibrated", "value": "no file", "cure": "save one"},
        {"reason": "battery", "value": "3 %", "cure": "charge it"},
    ]
    answers(monkeypatch, {"ok": False, "what": "not armed: uncalibrated, battery", "blocked": blocked})
    with pytest.raises(VehicleError) as caught:
        arm_when_ready(tmp_path, timeout_s=0.2)
    assert caught.value.what.splitlines() == [
        "the gate does not arm: not armed: uncalibrated, battery",
        "    uncalibrated: no file; save one",
        "    battery: 3 %; charge it",
    ]


def test_while_it_waits_it_watches_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(supervisor.Supervisor):
        def watch(self) -> None:
            raise VehicleError("the world ended")

    answers(monkeypatch, {"ok": False, "reason": "blocked"})
    with pytest.raises(VehicleError, match="the world ended"):
        arm_when_ready(tmp_path, Dying(tmp_path, None))


# --- watching


def test_the_newest_report_of_the_simulated_car_counts(runtime: Path) -> None:
    context = zmq.Context()
    world = context.socket(zmq.PUB)
    world.setsockopt(zmq.LINGER, 0)
    world.bind(endpoint(runtime, "world.facts"))
    facts = WorldFacts(runtime)
    try:
        assert facts.update() == Seen()
        seen = Seen()
        for laps in range(1, 2000):
            said = {"laps": laps, "lap_times_s": [9.87654] * laps, "off_track": 3, "speed_mps": 0.5, "more": 1}
            world.send(json.dumps(said).encode())
            seen = facts.update()
            if seen.laps > 5:
                break
        assert seen.lap_times_s == [9.877] * seen.laps and (seen.off_track, seen.speed_mps) == (3, 0.5)
        assert facts.update().laps >= seen.laps
    finally:
        facts.close()
        context.destroy(linger=0)


def test_laps_and_leaving_the_road_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(armed=True)
    for seen in (Seen(), Seen(1, [9.5]), Seen(1, [9.5]), Seen(1, [9.5], 1), Seen(2, [9.5, 8.25], 1)):
        progress.car(seen)
    assert capsys.readouterr().err.splitlines() == [
        "drive: lap 1: 9.50 s",
        "drive: off the track, 1 times now; it is put back",
        "drive: lap 2: 8.25 s",
    ]


def test_a_gate_that_disarms_is_told_and_its_time_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    armed = {"ok": True, "mode": "autonomous", "armed": True, "fault": None}
    lost = {"ok": True, "mode": "disarmed", "armed": False, "fault": {"name": "intent_lost", "age_s": 0.3}}
    progress = Progress(armed=True)
    begun_s = progress._asked_s
    asked = answers(monkeypatch, armed, lost)
    assert progress.disarmed_s(tmp_path, begun_s + 0.1) == 0.0 and asked == []  # asked twice a second
    assert progress.disarmed_s(tmp_path, begun_s + 0.6) == 0.0 and len(asked) == 1
    assert progress.disarmed_s(tmp_path, begun_s + 1.2) == pytest.approx(0.6)
    assert progress.disarmed_s(tmp_path, begun_s + 9.2) == pytest.approx(8.6)
    assert capsys.readouterr().err == "drive: disarmed, because of intent_lost; hotlap status says what blocks it\n"


@pytest.mark.parametrize("fault", [None, {"name": "nan", "age_s": 60.0}])
def test_an_old_fault_is_not_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: object
) -> None:
    progress = Progress(armed=True)
    answers(monkeypatch, {"ok": True, "mode": "stopped", "armed": False, "fault": fault})
    progress.disarmed_s(tmp_path, progress._asked_s + 1.0)
    assert capsys.readouterr().err == "drive: stopped; hotlap status says what blocks it\n"


def test_a_gate_that_has_gone_need_not_be_disarmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*words: Any, **more: Any) -> dict[str, Any]:
        raise GateError("no answer")

    monkeypatch.setattr(drive, "request", silent)
    drive._quietly_disarm(tmp_path)


# --- what it says in the end


def text(**changes: Any) -> list[str]:
    args = argparse.Namespace(laps=changes.pop("asked", None))
    return drive._text({**RESULT, **changes}, args).splitlines()


def test_the_result_for_people() -> None:
    assert text(asked=2) == [
        "laps: 2 (12.35 s, 11.50 s), off track 1 times",
        "pilot's loop: p50 1.0 ms, p99 2.0 ms, max 3.0 ms",
        "inference: p50 1.0 ms, p99 2.0 ms, max 3.0 ms",
    ]
    assert text(laps=0, lap_times_s=[])[0] == "laps: 0 (none), off track 1 times"
    assert text(exit_status={"gate": 0, "pilot": 0})[0].startswith("pilot's loop")  # nobody counts a real car's laps


def test_missing_laps_and_bad_ends_are_explained() -> None:
    assert text(asked=3)[3:] == ["asked for 3 laps; the gate is disarmed", "  stale_frame: old; look"]
    assert text(exit_status={"world": 0, "gate": 1, "pilot": 0})[3:] == [
        "the gate ended with status 1: read /run/car/gate.log"
    ]


def test_the_status_is_one_for_missing_laps_only() -> None:
    asked = [argparse.Namespace(laps=laps) for laps in (None, 1, 2, 3)]
    assert [drive._laps_missing(RESULT, args) for args in asked] == [False, False, False, True]
