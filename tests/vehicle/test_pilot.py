"""The pilot with a real grabber, policy and sockets: what the gate gets from it, and when it gets nothing."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from tests.vehicle.pilot_rig import FakeGate, FakeWorld, bright, graph, make_bundle, noise
from vehicle.action_space import default_action_space
from vehicle.car_config import CameraConfig, CarConfig, DriveConfig
from vehicle.errors import CameraError, ConfigError, SlotError
from vehicle.links import request
from vehicle.observation import to_observation
from vehicle.pilot import Pilot, main
from vehicle.pilot_core import Proof
from vehicle.pilot_model import FileModel, StoredModel
from vehicle.policy import OnnxPolicy
from vehicle.slot_state import SLOT_FAULTS

pytestmark = pytest.mark.slow  # real processes in real time

ROOT = Path(__file__).resolve().parents[2]
SHA = "a" * 64


@pytest.fixture
def runtime() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "b.tar.gz"
    make_bundle(path)
    return path


@pytest.fixture
def gate(runtime: Path) -> Iterator[FakeGate]:
    gate = FakeGate(runtime)
    yield gate
    gate.close()


@pytest.fixture
def world(runtime: Path) -> Iterator[FakeWorld]:
    world = FakeWorld(runtime)
    yield world
    world.close()


class Camera15:
    """Shows pictures at 15 Hz for the `sim` camera in a thread of its own: what `picture(seq)` gives, None is a gap."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world
        self._over = threading.Event()
        self.picture: Callable[[int], Any] = lambda seq: bright(seq % 10, seq)
        self._thread = threading.Thread(target=self._run, name="camera-15")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(1 / 15):
            pixels = self.picture(self._world.seq)
            if pixels is not None:
                self._world.show(pixels)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def camera(world: FakeWorld) -> Iterator[Camera15]:
    camera = Camera15(world)
    yield camera
    camera.close()


@contextmanager
def running(pilot: Pilot) -> Iterator[Pilot]:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            pilot.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="pilot")
    thread.start()
    try:
        yield pilot
    finally:
        pilot.stop()
        thread.join(5.0)
        assert pilot.close()
    if failed:
        raise failed[0]


def sim_pilot(runtime: Path, bundle_path: Path, **drive: Any) -> Pilot:
    return Pilot(CarConfig(drive=DriveConfig(**drive)), runtime, FileModel(bundle_path, "", False))


def status_of(runtime: Path, gate: FakeGate) -> dict[str, Any]:
    """The pilot's status; the gate goes on meanwhile."""
    found: list[dict[str, Any]] = []
    asking = threading.Thread(
        target=lambda: found.append(request(runtime, "pilot.request", {"op": "status"}, timeout_s=3.0))
    )
    asking.start()
    gate.pump(4.0, lambda: not asking.is_alive())
    asking.join()
    return found[0]


# --- what the gate gets


def test_intents_come_at_the_rate_from_fresh_pictures_with_signs_of_life_between(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    shown: dict[int, Any] = {}

    def picture(seq: int) -> Any:
        shown[seq] = bright((3 * seq) % 10, seq)
        return shown[seq]

    camera.picture = picture
    with running(sim_pilot(runtime, bundle_path)) as pilot:
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        gate.clear()
        gate.pump(2.0)
        intents, alives = list(gate.intents), list(gate.alives)
        status = status_of(runtime, gate)
    assert 17 <= len(intents) <= 21
    intervals_s = np.diff([intent.stamp_s for intent in intents])
    assert abs(float(np.median(intervals_s)) - 0.1) < 0.01
    assert [intent.seq for intent in intents] == list(range(intents[0].seq, intents[0].seq + len(intents)))
    policy = OnnxPolicy(graph(), default_action_space())
    for intent in intents:
        assert 0.0 <= intent.stamp_s - intent.frame_stamp_s <= 0.150
        expected = policy.act(to_observation(shown[intent.frame_seq])[None])[0].tolist()
        assert [intent.steering_deg, intent.speed_mps] == pytest.approx(expected, rel=1e-6)  # float32 over 0.8
        assert (intent.source, intent.model_max_mps) == ("pilot", 0.8) and intent.model == status["model"]
        assert 0.0 < intent.inference_ms < 100.0
    assert len({(intent.steering_deg, intent.speed_mps) for intent in intents}) > 3
    # 15 pictures a second, of which ten at most are ticked on: at least five are told of by a sign of life.
    assert len(alives) >= 8
    assert len({message.frame_seq for message in [*intents, *alives]}) >= 26
    assert gate.requests == [{"op": "model", "sha256": status["model"], "trial": False}]

    assert status["ok"] and status["pid"] == os.getpid() and status["fault"] is None and not status["trial"]
    assert status["camera"]["name"] == "sim" and 12.0 < status["fps"] < 18.0
    assert 80.0 < status["interval_ms"]["p50"] < 120.0 and status["interval_ms"]["late"] >= 0
    assert 0.0 < status["inference_ms"]["p50"] <= status["inference_ms"]["p99"]
    assert 0.0 < status["frame_age_ms"]["p50"] < 150.0
    assert status["dropped"] <= status["sent"]
    assert pilot.close(), "may be closed twice"


def test_every_frame_is_an_intent_when_asked_for(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    with running(sim_pilot(runtime, bundle_path, every_frame=True)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        gate.clear()
        gate.pump(1.0)
        assert 13 <= len(gate.intents) <= 17 and not gate.alives
        sequence = [intent.frame_seq for intent in gate.intents]
        assert sequence == sorted(set(sequence))


def black_last_row(seq: int) -> Any:
    pixels = bright(2, seq)
    pixels[119] = 0
    return pixels


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (lambda seq: None, "stale"),
        (lambda seq: bright(1, 1), "frozen"),
        (lambda seq: np.zeros((120, 160), np.uint8), "blank"),
        (lambda seq: bright(1, seq)[:60], "garbage"),
        (black_last_row, "output"),
    ],
    ids=["stale", "frozen", "blank", "garbage", "output"],
)
def test_a_fault_gives_no_intent_and_its_name_and_ends_when_it_ends(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15, picture: Callable[[int], Any], fault: str
) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        camera.picture = picture
        gate.pump(0.5)  # pictures and intents of before may still be on their way
        gate.clear()
        gate.pump(0.6)
        assert gate.intents == []
        if fault != "output":  # the camera is well there, and says so
            assert gate.alives == []
        status = status_of(runtime, gate)
        assert status["fault"] == fault and status["fault_text"] and status["faults"][fault] > 3
        camera.picture = lambda seq: bright(seq % 10, seq)
        assert gate.pump(2.0, lambda: len(gate.intents) > 3)
        assert status_of(runtime, gate)["fault"] is None


def test_a_frozen_picture_is_never_called_fresh(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        last = bright(4, 4)
        frozen_s = time.monotonic()
        camera.picture = lambda seq: last
        gate.pump(0.8)
        newest_s = max(message.frame_stamp_s for message in [*gate.intents, *gate.alives])
        # The first of the frozen pictures is new, the others are not, whatever they are stamped.
        assert newest_s < frozen_s + 2 / 15 + 0.05


def test_old_pictures_are_not_acted_on(runtime: Path, bundle_path: Path, gate: FakeGate, world: FakeWorld) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        for seq in range(15):
            world.show(bright(seq % 10, seq), age_s=0.2)
            gate.pump(0.05)
        assert gate.intents == []
        assert status_of(runtime, gate)["fault"] == "stale"


def test_the_preview_shows_what_was_acted_on(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    preview = context.socket(zmq.SUB)
    preview.setsockopt(zmq.SUBSCRIBE, b"")
    preview.connect(f"ipc://{runtime}/pilot.preview")
    begun_s = time.monotonic()
    shown: list[list[bytes]] = []

    def seen() -> bool:
        while preview.poll(0):
            shown.append(preview.recv_multipart())
        return len(shown) >= 8

    with running(sim_pilot(runtime, bundle_path, every_frame=True)):
        assert gate.pump(5.0, seen)
    assert time.monotonic() - begun_s > 0.65, "at most ten a second"
    context.destroy(linger=0)
    acted = {intent.frame_seq: intent for intent in gate.intents}
    for header_bytes, gray in shown[:-1]:
        header = json.loads(header_bytes)
        assert (header["height"], header["width"], len(gray)) == (120, 160, 19200)
        assert header["steering_deg"] == acted[header["seq"]].steering_deg
        assert gray == bright(header["seq"] % 10, header["seq"]).tobytes()


def test_without_a_gate_intents_are_dropped_and_a_gate_that_comes_gets_new_ones(
    runtime: Path, bundle_path: Path, camera: Camera15
) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        time.sleep(1.0)
        gate = FakeGate(runtime)
        bound_s = time.monotonic()
        try:
            assert gate.pump(3.0, lambda: bool(gate.intents and gate.requests))
            assert gate.intents[0].stamp_s > bound_s - 0.2, "old intents waited for the gate"
            assert status_of(runtime, gate)["dropped"] >= 5
        finally:
            gate.close()


# --- the model


def test_a_gate_that_was_started_again_is_told_the_model_but_an_armed_one_is_not_bothered(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        assert gate.pump(5.0, lambda: len(gate.requests) == 1)
        gate.state |= {"model": None, "armed": True, "mode": "autonomous"}
        gate.pump(1.2)
        assert len(gate.requests) == 1
        gate.state |= {"armed": False, "mode": "disarmed"}
        assert gate.pump(2.0, lambda: len(gate.requests) == 2)
        gate.pump(1.2)
        assert len(gate.requests) == 2, "told once is enough"


def test_a_whole_picture_is_given_only_while_the_gate_says_that_it_is_disarmed(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    camera.picture = lambda seq: np.kron(noise(seq)[0, :, :, 0], np.ones((2, 2), np.uint8))
    with running(sim_pilot(runtime, bundle_path)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 2)
        answer = reload_of(runtime, gate, "picture")
        assert answer["ok"], answer
        packed = np.frombuffer(base64.b64decode(answer["jpeg"]), np.uint8)
        picture = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
        assert picture is not None and picture.shape == (240, 320)
        shown = np.kron(noise(answer["seq"])[0, :, :, 0], np.ones((2, 2), np.uint8))
        assert np.abs(picture.astype(int) - shown).mean() < 5
        gate.state |= {"armed": True, "mode": "manual"}
        gate.pump(0.3)
        answer = reload_of(runtime, gate, "picture")
        assert not answer["ok"] and answer["reason"] == "armed" and "jpeg" not in answer
        gate.state |= {"armed": False, "mode": "disarmed"}
        camera.picture = lambda seq: None
        gate.pump(1.5)
        assert reload_of(runtime, gate, "picture")["reason"] == "no_picture"


def reload_of(runtime: Path, gate: FakeGate, op: str = "reload") -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: found.append(request(runtime, "pilot.request", {"op": op}, timeout_s=8.0)))
    asking.start()
    gate.pump(9.0, lambda: not asking.is_alive())
    asking.join()
    return found[0]


def test_a_model_is_reloaded_only_while_the_gate_says_that_it_is_disarmed(
    runtime: Path, tmp_path: Path, gate: FakeGate, camera: Camera15
) -> None:
    path = tmp_path / "b.tar.gz"
    old = make_bundle(path)
    with running(sim_pilot(runtime, path)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 2)
        new = make_bundle(path, first=20)
        assert new.sha256 != old.sha256
        gate.state |= {"armed": True, "mode": "autonomous"}
        gate.pump(0.3)
        answer = reload_of(runtime, gate)
        assert not answer["ok"] and answer["reason"] == "armed"
        gate.silent = True
        gate.state |= {"armed": False, "mode": "disarmed"}
        gate.pump(1.3)
        answer = reload_of(runtime, gate)
        assert not answer["ok"] and "silent" in answer["what"]
        gate.silent = False
        gate.pump(0.3)
        assert status_of(runtime, gate)["model"] == old.sha256
        assert reload_of(runtime, gate) == {"ok": True, "model": new.sha256, "trial": False}
        assert gate.pump(2.0, lambda: gate.requests[-1]["sha256"] == new.sha256)
        gate.clear()
        assert gate.pump(2.0, lambda: len(gate.intents) > 2)
        assert {intent.model for intent in gate.intents} == {new.sha256}

        path.write_bytes(b"no bundle at all")
        answer = reload_of(runtime, gate)
        assert not answer["ok"] and answer["reason"] == "not_an_archive"
        gate.clear()
        assert gate.pump(2.0, lambda: len(gate.intents) > 2), "the model that drove goes on"


def test_other_requests_are_refused(runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15) -> None:
    with running(sim_pilot(runtime, bundle_path)):
        assert gate.pump(5.0, lambda: bool(gate.intents))
        for message in ({"op": "arm"}, {}, {"op": None}, {"op": ["status"]}):
            answer = request(runtime, "pilot.request", message, timeout_s=3.0)
            assert not answer["ok"] and answer["reason"] == "unknown_op"
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"ipc://{runtime}/pilot.request")
        for text in (b"not json", b"[1]", b"\xff", b"[" * 5000):
            dealer.send(text)
            assert dealer.poll(3000) and json.loads(dealer.recv())["reason"] == "unknown_op"
        context.destroy(linger=0)


class FakeStore:
    """Writes down what `StoredModel` and the pilot tell the store of slots."""

    root = Path("/models")

    def __init__(self, path: Path, sha256: str, trial: bool = True) -> None:
        self.calls: list[str] = []
        self._path, self._sha256, self._trial = path, sha256, trial

    def begin_boot(self) -> Any:
        self.calls.append("begin_boot")
        return type("Active", (), {"sha256": self._sha256, "bundle_path": self._path, "trial": self._trial})()

    def __getattr__(self, name: str) -> Callable[[str], None]:
        return lambda sha256: self.calls.append(f"{name} {sha256[:6]}")


def test_a_model_on_trial_is_committed_once_it_has_driven_well(
    runtime: Path, bundle_path: Path, gate: FakeGate, camera: Camera15, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vehicle.pilot.Proof", lambda: Proof(0.5))
    sha256 = FileModel(bundle_path, "", False).load()[0].sha256
    store = FakeStore(bundle_path, sha256)
    source = StoredModel(store)  # type: ignore[arg-type]
    with running(Pilot(CarConfig(), runtime, source)):
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        assert gate.requests == [{"op": "model", "sha256": sha256, "trial": True}]
        gate.pump(0.8)
        assert store.calls == ["begin_boot"], "standing proves nothing"
        gate.state |= {"armed": True, "mode": "autonomous"}
        committed = f"proved_healthy {sha256[:6]}"
        assert gate.pump(4.0, lambda: committed in store.calls)
        gate.pump(0.5)
        assert not status_of(runtime, gate)["trial"]
        assert len(gate.requests) == 1, "an armed gate keeps the cap of the trial"
        gate.state |= {"armed": False, "mode": "disarmed"}
        assert gate.pump(2.0, lambda: gate.requests[-1]["trial"] is False)
    source.ended()
    assert store.calls == ["begin_boot", committed], "told once"


def test_the_store_is_told_how_a_drive_went(bundle_path: Path) -> None:
    sha256 = FileModel(bundle_path, "", False).load()[0].sha256
    for end in ("ended", "crashed"):
        store = FakeStore(bundle_path, sha256)
        source = StoredModel(store)  # type: ignore[arg-type]
        source.crashed()
        assert store.calls == [], "nothing was begun"
        assert source.load()[1] is True
        getattr(source, end)()
        getattr(source, end)()
        assert store.calls == ["begin_boot", f"{end} {sha256[:6]}"]
        source.load()
        source.load()
        assert store.calls[2:] == ["begin_boot", f"ended {sha256[:6]}", "begin_boot"], "a reload ends the drive before"


def test_a_bundle_that_is_not_the_one_named_or_not_there_is_refused(bundle_path: Path) -> None:
    with pytest.raises(SlotError) as caught:
        FileModel(bundle_path, SHA, False).load()
    assert caught.value.fault == "changed" and caught.value.fault in SLOT_FAULTS
    with pytest.raises(SlotError) as caught:
        StoredModel(FakeStore(bundle_path, SHA)).load()  # type: ignore[arg-type]
    assert caught.value.fault == "changed"
    empty = FakeStore(bundle_path, SHA)
    empty.begin_boot = lambda: None  # type: ignore[method-assign]
    with pytest.raises(SlotError, match="no active model"):
        StoredModel(empty).load()  # type: ignore[arg-type]


# --- the camera


def write_pictures(folder: Path, count: int = 12) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:02d}.png"), bright(i % 10, i))


def test_a_camera_that_comes_back_is_used_again(
    runtime: Path, bundle_path: Path, tmp_path: Path, gate: FakeGate
) -> None:
    folder = tmp_path / "pictures"
    write_pictures(folder)
    config = CarConfig(camera=CameraConfig(kind="folder", source=str(folder), rate_hz=15.0))
    with running(Pilot(config, runtime, FileModel(bundle_path, "", False))):
        assert gate.pump(5.0, lambda: len(gate.intents) > 3)
        shutil.rmtree(folder)  # the cable is pulled
        assert gate.pump(3.0, lambda: status_of(runtime, gate)["fault"] == "camera")
        gate.clear()
        gate.pump(0.5)
        assert gate.intents == [] and gate.alives == []
        write_pictures(folder)
        assert gate.pump(4.0, lambda: len(gate.intents) > 3)


def test_what_is_wrong_at_the_start_is_raised_and_nothing_is_left(
    runtime: Path, bundle_path: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path)
    source = FileModel(bundle_path, "", False)
    with pytest.raises(CameraError, match="unknown camera.kind"):
        Pilot(CarConfig(camera=CameraConfig(kind="simm")), runtime, source)
    with pytest.raises(ConfigError, match="path of the socket"):
        Pilot(CarConfig(camera=CameraConfig(kind="folder", source=str(tmp_path))), runtime / ("x" * 100), source)


# --- the process


def car_toml(runtime: Path, folder: Path) -> Path:
    path = runtime / "car.toml"
    path.write_text(f'[camera]\nkind = "folder"\nsource = "{folder}"\nrate_hz = 15.0\n')
    return path


def test_the_process_drives_says_ready_and_ends_well(
    runtime: Path, bundle_path: Path, tmp_path: Path, gate: FakeGate
) -> None:
    """With pictures of a folder, and nothing of trainer, sim, torch or mujoco in it."""
    import socket

    write_pictures(tmp_path / "pictures")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(runtime / "notify"))
    systemd.settimeout(0.0)
    code = (
        "import json, sys\n"
        "from vehicle.pilot import _leave, main\n"
        "status = main(sys.argv[1:])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "_leave(status)"
    )
    arguments = ["--runtime", str(runtime), "--config", str(car_toml(runtime, tmp_path / "pictures"))]
    arguments += ["--bundle", str(bundle_path), "--trial"]
    environment = {**os.environ, "NOTIFY_SOCKET": str(runtime / "notify"), "WATCHDOG_USEC": "400000"}
    environment.pop("WATCHDOG_PID", None)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert gate.pump(30.0, lambda: len(gate.intents) >= 10)
        assert gate.requests[0]["trial"] is True
        status = status_of(runtime, gate)
        assert status["pid"] == process.pid and status["camera"]["name"] == "folder" and status["trial"] is True
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10.0)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    said = []
    while True:
        try:
            said.append(systemd.recv(100).decode())
        except BlockingIOError:
            break
    systemd.close()
    assert said[0] == "READY=1" and said[-1] == "STOPPING=1" and said.count("WATCHDOG=1") >= 3
    modules = set(json.loads(output))
    assert not modules & {"trainer", "sim", "torch", "mujoco", "onnx", "numba", "gymnasium", "matplotlib"}
    assert {"vehicle", "cv2", "onnxruntime", "zmq"} <= modules


def test_a_camera_stuck_in_its_driver_does_not_keep_the_process(
    runtime: Path, bundle_path: Path, gate: FakeGate
) -> None:
    code = (
        "import sys, time\n"
        "import vehicle.pilot as pilot\n"
        "class Stuck:\n"
        "    def read(self, timeout_s): time.sleep(60)\n"
        "    def facts(self): return {}\n"
        "    def close(self): pass\n"
        "pilot.open_camera = lambda config, runtime: Stuck()\n"
        "pilot._leave(pilot.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--runtime", str(runtime), "--bundle", str(bundle_path)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert gate.pump(30.0, lambda: bool(gate.requests))
        status = status_of(runtime, gate)
        assert status["fault"] == "stale" and gate.intents == []
        begun_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10.0)
        assert process.returncode == 0, errors
        assert time.monotonic() - begun_s < 5.0
        assert "driver does not return" in errors
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("toml", "arguments", "words"),
    [
        ('[camera]\nkind = "foldr"\n', [], "unknown camera.kind"),
        ('[camera]\nkind = "folder"\nsource = "/nowhere"\n', [], "/nowhere"),
        ("[camera]\nknd = 1\n", [], "knd"),
        ("", ["--sha", SHA], "has sha256"),
        ("", ["--bundle", "/nowhere.tar.gz"], "missing_file"),
    ],
)
def test_errors_are_explained_and_end_with_status_1(
    runtime: Path, bundle_path: Path, capfd: pytest.CaptureFixture[str], toml: str, arguments: list[str], words: str
) -> None:
    (runtime / "car.toml").write_text(toml)
    given = ["--runtime", str(runtime), "--config", str(runtime / "car.toml"), "--bundle", str(bundle_path), *arguments]
    before = cv2.getNumThreads()
    try:
        assert main(given) == 1
    finally:
        cv2.setNumThreads(before)
    assert words in capfd.readouterr().err


def test_noise_drives_too(bundle_path: Path) -> None:
    """The rig's own graph: what the other tests call good pictures gives good actions."""
    policy = OnnxPolicy(FileModel(bundle_path, "", False).load()[0])
    table = policy.action_space.table().tolist()  # type: ignore[union-attr]
    for row in range(10):
        assert policy.act(bright(row, row)[None, :, :, None]).tolist() == [table[row]]
    assert np.isfinite(policy(noise(1, 4))).all()
