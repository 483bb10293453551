"""Frames of a drive: written by the pilot beside its loop, read back with what is damaged named."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vehicle.pilot_rig import FakeGate, FakeWorld, bright, make_bundle, noise
from vehicle.car_config import CarConfig, DriveConfig
from vehicle.drive_log import DriveLog, Record, encode_record
from vehicle.errors import ConfigError
from vehicle.frame_log import BAD_FRAME, find_frames, frame_log_path, log_facts, open_frame_log, put_frame, read_frames
from vehicle.links import request
from vehicle.messages import PILOT, Intent
from vehicle.pilot import Pilot
from vehicle.pilot_model import FileModel

INTENT = Intent(PILOT, 41, 10.02, 7, 9.98, -12.5, 0.8, 0.8, 0.3, "a" * 64)
GOOD = {"seq": 1, "stamp_s": 1.0, "intent_seq": 1, "steering_deg": 3.0, "speed_mps": 0.4, "model": "b" * 64}


def put(path: Path, *records: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        for record in records:
            file.write(encode_record(record))


def test_a_frame_comes_back_as_it_was_seen(tmp_path: Path) -> None:
    log = DriveLog(tmp_path / "frames.log")
    observation = noise(3)[0]
    put_frame(log, 10.0, observation, INTENT)
    facts = log_facts(log)
    log.close()
    assert facts == {"path": str(tmp_path / "frames.log"), "error": None, "lost": 0} and log_facts(None) is None
    (frame,), damage = read_frames(tmp_path / "frames.log")
    assert damage == []
    np.testing.assert_array_equal(frame.observation, observation)
    assert frame.observation.shape == (120, 160, 1)
    assert (frame.t_s, frame.seq, frame.stamp_s, frame.intent_seq) == (10.0, 7, 9.98, 41)
    assert (frame.steering_deg, frame.speed_mps, frame.model) == (-12.5, 0.8, "a" * 64)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({}, 19199),
        ({"seq": True}, 19200),
        ({"model": 3}, 19200),
        ({"speed_mps": "fast"}, 19200),
        ({"seq": None}, 19200),
    ],
)
def test_a_whole_record_that_is_no_frame_is_damage(tmp_path: Path, change: dict[str, Any], size: int) -> None:
    path = tmp_path / "frames.log"
    put(
        path,
        Record(1.0, "output", {"cause": "drive"}),
        Record(1.1, "frame", {**GOOD, **change}, bytes(size)),
        Record(1.2, "frame", GOOD, bytes(19200)),
    )
    frames, damage = read_frames(path)
    assert [frame.t_s for frame in frames] == [1.2]
    assert [(one.fault, one.length) for one in damage] == [(BAD_FRAME, size)]


def test_frames_are_found_beside_the_gates_log_and_in_its_folder(tmp_path: Path) -> None:
    gates, frames = tmp_path / "drive.log", tmp_path / "frames.log"
    put(gates, Record(1.0, "output", {"cause": "drive"}))
    put(frames, Record(1.2, "frame", GOOD, bytes(19200)))
    for asked in (frames, gates, tmp_path):
        file, found, _ = find_frames(asked)
        assert file == frames and len(found) == 1


def test_a_log_without_frames_says_how_to_have_them(tmp_path: Path) -> None:
    gates = tmp_path / "drive.log"
    put(gates, Record(1.0, "output", {"cause": "drive"}))
    with pytest.raises(ConfigError, match=r"no recorded frame in .*drive\.log") as caught:
        find_frames(gates)
    assert "drive.log_frames = true" in caught.value.next_step
    with open(gates, "ab") as file:
        file.write(b"\xa5hotlap")
    with pytest.raises(ConfigError, match="1 places in it are damaged"):
        find_frames(gates)
    with pytest.raises(ConfigError, match="there is no drive log"):
        find_frames(tmp_path / "none" / "frames.log")


def test_nothing_is_kept_unless_the_configuration_asks(tmp_path: Path) -> None:
    config = CarConfig(state_dir=str(tmp_path))
    assert open_frame_log(config) is None and not frame_log_path(config).exists()
    asked = dataclasses.replace(config, drive=DriveConfig(log_frames=True))
    log = open_frame_log(asked)
    assert log is not None and log.path == tmp_path / "logs" / "frames.log"
    log.close()


# --- the pilot


@pytest.fixture
def runtime() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def driven(runtime: Path, config: CarConfig, bundle: Path) -> tuple[list[Intent], dict[int, Any], dict[str, Any]]:
    """A second of a pilot: its intents, the pictures that it was shown, and its status."""
    gate, world = FakeGate(runtime), FakeWorld(runtime)
    pilot = Pilot(config, runtime, FileModel(bundle, "", False))
    thread = threading.Thread(target=pilot.run, name="pilot")
    shown: dict[int, Any] = {}
    status: dict[str, Any] = {}
    thread.start()
    try:
        deadline_s = time.monotonic() + 8.0
        while len(gate.intents) < 10 and time.monotonic() < deadline_s:
            seq = world.seq
            shown[seq] = bright((3 * seq) % 10, seq)
            world.show(shown[seq])
            gate.pump(0.06)
        status = request(runtime, "pilot.request", {"op": "status"}, timeout_s=3.0)
    finally:
        pilot.stop()
        thread.join(5.0)
        assert pilot.close()
        gate.pump(0.2)
        gate.close()
        world.close()
    return gate.intents, shown, status


def test_the_pilot_keeps_every_frame_that_it_acted_on(runtime: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b.tar.gz")
    config = CarConfig(state_dir=str(tmp_path / "state"), drive=DriveConfig(log_frames=True))
    intents, shown, status = driven(runtime, config, bundle.path)
    frames, damage = read_frames(frame_log_path(config))
    assert damage == [] and len(intents) >= 10
    recorded = {frame.intent_seq: frame for frame in frames}
    assert {intent.seq for intent in intents} <= set(recorded)
    for intent in intents:
        frame = recorded[intent.seq]
        assert (frame.seq, frame.stamp_s, frame.model) == (intent.frame_seq, intent.frame_stamp_s, bundle.sha256)
        assert (frame.steering_deg, frame.speed_mps) == (intent.steering_deg, intent.speed_mps)
        assert frame.stamp_s <= frame.t_s <= intent.stamp_s
        assert frame.observation.tobytes() == shown[frame.seq].tobytes()
    assert status["frames_log"] == {"path": str(frame_log_path(config)), "error": None, "lost": 0}


def test_by_default_the_pilot_keeps_none(runtime: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b.tar.gz")
    config = CarConfig(state_dir=str(tmp_path / "state"))
    intents, _, status = driven(runtime, config, bundle.path)
    assert intents and status["frames_log"] is None
    assert not (tmp_path / "state").exists()


def test_a_log_that_cannot_be_opened_ends_the_pilot_before_anything_moves(runtime: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b.tar.gz")
    (tmp_path / "state").write_text("a file where the folder should be")
    config = CarConfig(state_dir=str(tmp_path / "state"), drive=DriveConfig(log_frames=True))
    with pytest.raises(ConfigError, match=r"frames\.log cannot be opened"):
        Pilot(config, runtime, FileModel(bundle.path, "", False))
    assert not os.path.exists(runtime / "pilot.request")
