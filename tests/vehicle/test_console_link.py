"""The console's link against a real gate process, a played pilot, and the real model store."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.car_link import CarLink, CarRefused
from calibration.errors import CalibrationError
from calibration.store import load_calibration
from calibration.values import Calibration, Steering
from tests.vehicle.console_car import PilotSockets
from tests.vehicle.gate_process import GateProcess, until
from tests.vehicle.pilot_rig import make_bundle
from vehicle import console_facts
from vehicle.car_config import CarConfig, load_car_config
from vehicle.console_link import ConsoleLink
from vehicle.console_sockets import as_picture

pytestmark = pytest.mark.slow  # real processes in real time

WANTED = replace(Calibration(), steering=Steering(1690.0, 1455.0, 1210.0))


@pytest.fixture
def folder() -> Iterator[Path]:
    # A killed gate's guard writes into it for another second.
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def gate(folder: Path) -> Iterator[GateProcess]:
    made = GateProcess(folder).start().wait_answer()
    yield made
    made.close()


@pytest.fixture
def pilot(gate: GateProcess) -> Iterator[PilotSockets]:
    made = PilotSockets(gate.runtime)
    yield made
    made.close()


def make_link(gate: GateProcess) -> ConsoleLink:
    return ConsoleLink(load_car_config(gate.config), gate.runtime, gate.state_dir / "console", "1.2.3")


@pytest.fixture
def link(gate: GateProcess, pilot: PilotSockets) -> Iterator[ConsoleLink]:
    made = make_link(gate)
    yield made
    made.close()


@pytest.fixture
def alone(folder: Path) -> Iterator[ConsoleLink]:
    """A link to a car on which nothing runs."""
    runtime = folder / "run"
    runtime.mkdir()
    made = ConsoleLink(CarConfig(state_dir=str(folder / "state")), runtime, folder / "console")
    yield made
    made.close()


def refused(call: object, *args: object) -> CarRefused:
    assert callable(call)
    with pytest.raises(CarRefused) as caught:
        call(*args)
    return caught.value


# --- the gate


def test_the_gates_answers_and_refusals_come_through(link: ConsoleLink) -> None:
    car: CarLink = link
    assert car.ask({"op": "cap", "percent": 40})["percent"] == 40.0
    error = refused(car.ask, {"op": "arm", "mode": "autonomous"})
    assert error.reason == "blocked" and {"no_model", "stale_intent"} <= {one["reason"] for one in error.blocked}
    assert refused(car.ask, {"op": "fly"}).reason == "unknown_op"


def test_the_link_renews_nothing_by_itself(link: ConsoleLink, gate: GateProcess) -> None:
    assert until(lambda: "esc_neutral" not in gate.reasons())
    lease = link.ask({"op": "lease", "kind": "manual", "holder": "test"})["lease"]
    link.ask({"op": "arm", "mode": "manual", "lease": lease})
    begun_s = time.monotonic()
    while gate.status()["mode"] == "manual":
        link.state()
        link.picture(-1, 0.01)
        assert time.monotonic() - begun_s < 0.5
    assert gate.status()["fault"]["name"] == "lease_lost"


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(link: ConsoleLink) -> None:
    wrong: list[object] = []

    def ask(percent: int) -> None:
        for _ in range(25):
            answer = link.ask({"op": "cap", "percent": percent})
            if answer["percent"] != percent:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(10 + i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_late_answer_is_never_anothers(link: ConsoleLink, gate: GateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    link.ask({"op": "status"})
    os.kill(gate.pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr("vehicle.console_link.TIMEOUT_S", 0.2)
        assert refused(link.ask, {"op": "cap", "percent": 11}).reason == "no_answer"
    finally:
        os.kill(gate.pid, signal.SIGCONT)
    monkeypatch.undo()
    for percent in (21, 22, 23):
        assert link.ask({"op": "cap", "percent": percent})["percent"] == percent


def test_a_gate_that_is_not_there_is_said_and_hardly_waited_for(alone: ConsoleLink) -> None:
    begun_s = time.monotonic()
    state = alone.state()
    assert time.monotonic() - begun_s < 1.5
    assert (state["mode"], state["armed"], state["pilot"]) == (None, False, None)
    assert {"gate_not_running", "pilot_not_running"} == {one["reason"] for one in state["blocked"]}
    assert all("hotlap drive" in one["cure"] for one in state["blocked"])
    error = refused(alone.ask, {"op": "disarm"})
    assert error.reason == "no_answer" and "is not running" in error.cause
    json.dumps(state, allow_nan=False)


# --- what is seen


def test_the_state_is_the_gates_and_the_pilots(link: ConsoleLink, gate: GateProcess) -> None:
    assert until(lambda: link.state()["action"] is not None)
    state = link.state()
    assert state["mode"] == "disarmed" and state["pid"] == gate.pid
    assert state["action"] == {"steering_deg": 3.0, "speed_mps": 0.7}
    assert state["pilot"]["fps"] == 15.0 and state["interval_ms"]["p50"] > 0.0
    assert state["console_version"] == "1.2.3" and state["name"] == "hotlap"
    assert state["calibration"]["steering"]["left_us"] == 1700.0
    assert "gate_not_running" not in {one["reason"] for one in state["blocked"]}
    json.dumps(state, allow_nan=False)
    gate.ask("stop")
    begun_s = time.monotonic()
    assert until(lambda: link.state()["mode"] == "stopped", 2.0)
    assert time.monotonic() - begun_s < 0.5


def test_pictures_come_once_and_stop_with_the_pilot(link: ConsoleLink, pilot: PilotSockets) -> None:
    first = link.picture(-1, 2.0)
    assert first is not None and (first.height, first.width, first.gray[0]) == (120, 160, 90)
    second = link.picture(first.seq, 2.0)
    assert second is not None and second.seq > first.seq
    pilot.close()
    assert until(lambda: link.picture(-1, 0.01) is None, 3.0)
    begun_s = time.monotonic()
    assert link.picture(-1, 0.2) is None
    assert 0.15 < time.monotonic() - begun_s < 1.0


GOOD = json.dumps({"seq": 1, "height": 2, "width": 3, "steering_deg": None}).encode()


@pytest.mark.parametrize(
    "frames",
    ([], [GOOD], [GOOD, b"12345"], [b"{", b"123456"], [b"[]", b"123456"], [GOOD, b"123456", b""],
     [b'{"seq": 1, "height": -2, "width": -3}', b"123456"], [b'{"seq": "1", "height": 2, "width": 3}', b"123456"]),
)  # fmt: skip
def test_what_is_no_picture_is_none(frames: list[bytes]) -> None:
    assert as_picture(frames) is None
    good = as_picture([GOOD, b"123456"])
    assert good is not None and (good.gray, good.steering_deg) == (b"123456", None)


def test_health_facts_and_logs(link: ConsoleLink, gate: GateProcess) -> None:
    def rows() -> dict[str, str]:
        return {row["name"]: row["status"] for row in link.health()["checks"]}

    assert until(lambda: rows()["guard"] == "ok")  # it starts after the gate
    found = rows()
    assert (found["gate"], found["pilot"], found["calibration"], found["model"]) == ("ok", "ok", "ok", "fail")
    facts = link.facts()
    assert facts["version"] == "1.2.3" and 'kind = "none"' in facts["car_toml"]["keys"]
    json.dumps([link.health(), facts], allow_nan=False)
    gate.ask("stop")
    assert until(lambda: any("state    stopped" in line for line in link.logs(50)))
    assert any("request  stop" in line for line in link.logs(50))
    assert len(link.logs(2)) == 2


def test_the_strength_of_the_wifi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wireless"
    monkeypatch.setattr(console_facts, "WIRELESS", path)
    assert console_facts.signal_dbm() is None
    headings = "Inter-| sta-|   Quality\n face | tus | link level noise\n"
    for line, dbm in (("", None), (" wlan0: 0000   53.  -57.  -256  0\n", -57), (" wlan0: 0000 70. 40. 0\n", None)):
        path.write_text(headings + line)
        assert console_facts.signal_dbm() == dbm


# --- calibration


def test_a_calibration_is_saved_and_the_gate_takes_it(link: ConsoleLink, gate: GateProcess) -> None:
    link.save_calibration(WANTED)
    assert link.calibration() == WANTED
    assert until(lambda: gate.status()["pulses"]["steering_us"] == 1455.0)
    assert link.undo_calibration() == Calibration() == link.calibration()
    assert until(lambda: gate.status()["pulses"]["steering_us"] == 1450.0)
    assert link.restore_calibration(link.calibration_history()[1].revision) == WANTED
    assert until(lambda: gate.status()["pulses"]["steering_us"] == 1455.0)


@pytest.mark.parametrize("mode", ("stopped", "manual"))
def test_nothing_is_saved_unless_disarmed(link: ConsoleLink, gate: GateProcess, mode: str) -> None:
    if mode == "stopped":
        gate.ask("stop")
    else:
        assert until(lambda: "esc_neutral" not in gate.reasons())
        lease = gate.ask("lease", kind="manual", holder="x")["lease"]
        assert gate.ask("arm", mode="manual", lease=lease)["ok"]
    path = gate.state_dir / "calibration.json"
    before = path.read_bytes()
    for call, args in (
        (link.save_calibration, (WANTED,)),
        (link.undo_calibration, ()),
        (link.restore_calibration, (1,)),
    ):
        error = refused(call, *args)
        assert error.reason == "not_disarmed" and mode in error.what
        if mode == "manual":
            gate.ask("renew", lease=lease)
    assert path.read_bytes() == before


def test_a_calibration_that_the_gate_refuses_is_taken_back(
    link: ConsoleLink, gate: GateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The car was armed between the question and the saving."""
    monkeypatch.setattr(link._keeper, "refuse_unless_disarmed", lambda: gate.ask("stop"))
    assert refused(link.save_calibration, WANTED).reason == "not_disarmed"
    assert load_calibration(gate.state_dir / "calibration.json") == Calibration() == link.calibration()


def test_a_calibration_is_checked_first_and_saved_without_a_gate(alone: ConsoleLink) -> None:
    assert alone.calibration() is None
    with pytest.raises(CalibrationError):
        alone.save_calibration(replace(Calibration(), steering=Steering(1450.0)))
    assert alone.calibration() is None
    alone.save_calibration(WANTED)
    assert alone.calibration() == WANTED


# --- models


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b.tar.gz").path


def test_a_model_is_verified_named_chosen_and_loaded(link: ConsoleLink, pilot: PilotSockets, bundle: Path) -> None:
    done = link.install(bundle, "oval fast.tar.gz")
    assert done["new"] and done["name"] == "oval fast" and done["report"]["p99_ms"] > 0.0
    (row,) = link.models()["models"]
    assert (row["name"], row["role"], row["contract"]["format"]) == ("oval fast", "", "hotlap-bundle")
    assert link.install(bundle, "")["name"] == "oval fast"
    chosen = link.activate(done["sha256"])
    assert (chosen["loaded"], chosen["trial"]["sha256"]) == (True, done["sha256"])
    assert {"op": "reload"} in pilot.asked
    pilot.answers["reload"] = {"ok": False, "reason": "busy", "what": "just being committed"}
    chosen = link.activate(done["sha256"])
    assert chosen["loaded"] is False and "just being committed" in chosen["pilot"]
    assert refused(link.remove, done["sha256"]).reason == "in_use"
    assert link.models()["trial"]["sha256"] == done["sha256"]
    json.dumps(link.models(), allow_nan=False)


@pytest.mark.parametrize("sha256", ("", "x", "..", "5a" * 31, "5A" * 32, "5a" * 32, "../" + "5a" * 31))
def test_a_model_that_is_not_there_is_refused(link: ConsoleLink, sha256: str) -> None:
    for call in (link.activate, link.remove):
        assert refused(call, sha256).reason == "not_installed"


def test_a_refusal_does_not_tell_where_the_upload_lies(link: ConsoleLink, tmp_path: Path) -> None:
    bad = tmp_path / "secret-place.part"
    bad.write_bytes(b"nonsense")
    error = refused(link.install, bad, "x")
    assert error.reason == "not_an_archive" and "secret-place" not in str(error)
    assert link.models()["models"] == []


def test_nothing_is_installed_while_armed(link: ConsoleLink, gate: GateProcess, bundle: Path) -> None:
    assert until(lambda: "esc_neutral" not in gate.reasons())
    lease = gate.ask("lease", kind="manual", holder="x")["lease"]
    assert gate.ask("arm", mode="manual", lease=lease)["ok"]
    assert refused(link.install, bundle, "x").reason == "armed"
    assert link.models()["models"] == []


# --- the name


def test_the_name_stays(link: ConsoleLink, gate: GateProcess) -> None:
    link.rename(" Red 5 ")
    assert link.state()["name"] == "Red 5"
    again = make_link(gate)
    try:
        assert again.facts()["name"] == "Red 5"
    finally:
        again.close()


@pytest.mark.parametrize("name", ("", " ", "x" * 33, "a\nb", "<b>", "a/b", "\ud800"))
def test_what_is_no_name_is_refused(link: ConsoleLink, name: str) -> None:
    assert refused(link.rename, name).reason == "out_of_range"
    assert link.facts()["name"] == "hotlap"
