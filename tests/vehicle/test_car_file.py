"""car.toml from a page: shown without passwords, changed only in what moves nothing, never half, never while armed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from calibration.car_link import CarRefused
from vehicle.car_config import CarConfig, load_car_config
from vehicle.car_file import LOCKED, MAX_BYTES, CarFile, _flat, with_passwords, without_passwords
from vehicle.config import to_toml

TEXT = """# ours
name = "seven"
[camera]
kind = "http"
source = "http://ann:pass@10.0.0.5/stream"  # at the ceiling
rotate_180 = false
[actuator]
kind = "none"
[drive]
speed_cap_percent = 50.0
"""


class Gate:
    """Answers status."""

    mode: str | None = "disarmed"

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert request == {"op": "status"}
        if self.mode is None:
            raise CarRefused("no_answer", "the gate does not run")
        return {"ok": True, "mode": self.mode}


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "car.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


@pytest.fixture
def file(path: Path, gate: Gate, tmp_path: Path) -> CarFile:
    return CarFile(path, load_car_config(path), tmp_path / "run", gate.ask)


def shown(file: CarFile) -> str:
    text = file.facts()["text"]
    assert isinstance(text, str)
    return text


def change(file: CarFile, old: str, new: str) -> None:
    facts = file.facts()
    assert old in facts["text"]
    file.change(facts["text"].replace(old, new), facts["sha256"])


def refused(file: CarFile, old: str, new: str) -> CarRefused:
    with pytest.raises(CarRefused) as caught:
        change(file, old, new)
    return caught.value


def test_it_is_shown_without_passwords_and_with_every_key(file: CarFile, path: Path) -> None:
    facts = file.facts()
    assert "pass" not in facts["text"] and "://...@10.0.0.5/stream" in facts["text"] and "# ours" in facts["text"]
    assert "ann:pass" not in facts["keys"] and "height_m" in facts["keys"]
    assert facts["editable"] and not facts["pending"] and not facts["undo"] and facts["path"] == str(path)


def test_a_change_keeps_comments_and_passwords_and_waits_for_a_restart(file: CarFile, path: Path) -> None:
    change(file, "rotate_180 = false", "rotate_180 = true")
    assert path.read_text() == TEXT.replace("rotate_180 = false", "rotate_180 = true")
    assert path.stat().st_mode & 0o777 == 0o640
    assert load_car_config(path).camera.rotate_180
    facts = file.facts()
    assert facts["pending"] and facts["undo"]


def test_undo_and_redo(file: CarFile, path: Path) -> None:
    with pytest.raises(CarRefused) as caught:
        file.undo()
    assert caught.value.reason == "nothing_before"
    change(file, "50.0", "40.0")
    file.undo()
    assert path.read_text() == TEXT and not file.facts()["pending"]
    file.undo()
    assert "40.0" in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "seven"', 'name = "eight"', "name"),
        ('name = "seven"', 'name = "seven"\nstate_dir = "/elsewhere"', "state_dir"),
        ('name = "seven"', 'name = "seven"\ncalibration = "/elsewhere"', "calibration"),
        ('kind = "http"', 'kind = "csi"', "camera.kind"),
        ("10.0.0.5", "10.0.0.6", "camera.source"),
        ("://...@", "://bob:other@", "camera.source"),
        ('kind = "none"', 'kind = "pca9685"', "actuator.kind"),
        ('kind = "none"', 'kind = "none"\nrecord = "/tmp/x"', "actuator.record"),
        ('kind = "none"', 'kind = "none"\nsteering_channel = 0', "actuator.steering_channel"),
    ],
)
def test_what_moves_wires_or_starts_programs_is_locked(
    file: CarFile, path: Path, old: str, new: str, key: str
) -> None:
    error = refused(file, old, new)
    assert error.reason == "locked_key" and error.what.startswith(f"{key} ")
    assert path.read_text() == TEXT and not file.facts()["undo"]


def test_every_key_outside_of_camera_and_drive_is_locked(file: CarFile) -> None:
    """So is a key that somebody adds to the configuration one day."""
    running = CarConfig()
    for key, _ in _flat(running):
        table, _, name = key.rpartition(".")
        inner = dataclasses.replace(getattr(running, table), **{name: "other"}) if table else None
        other = dataclasses.replace(running, **({table: inner} if table else {name: "other"}))
        free = table in ("camera", "drive") and key not in LOCKED
        try:
            file._refuse_locked(other, running)
            assert free, key
        except CarRefused:
            assert not free, key


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rotate_180", "rotate_181", "unknown key camera.rotate_181"),
        ("false", "maybe", "not valid TOML"),
        ("50.0", "500.0", "out of range"),
        ("50.0", "nan", "not a finite number"),
        ("50.0", '"fast"', "must be a number"),
    ],
)
def test_a_bad_text_is_refused_and_nothing_is_written(
    file: CarFile, path: Path, old: str, new: str, said: str
) -> None:
    error = refused(file, old, new)
    assert error.reason == "bad_car_file" and said in error.what
    assert path.read_text() == TEXT


@pytest.mark.parametrize("mode", ["autonomous", "manual", "calibration", "stopped"])
def test_refused_while_anything_could_move(file: CarFile, path: Path, gate: Gate, mode: str) -> None:
    gate.mode = mode
    assert refused(file, "50.0", "40.0").reason == "not_disarmed"
    with pytest.raises(CarRefused):
        file.undo()
    assert path.read_text() == TEXT
    gate.mode = None  # no gate: nothing is armed
    change(file, "50.0", "40.0")


def test_the_second_of_two_people_is_told(file: CarFile, path: Path) -> None:
    first = file.facts()
    change(file, "50.0", "40.0")
    with pytest.raises(CarRefused) as caught:
        file.change(first["text"], first["sha256"])
    assert caught.value.reason == "changed" and "40.0" in path.read_text()


def test_undo_does_not_bring_back_other_wires(file: CarFile, path: Path) -> None:
    change(file, "50.0", "40.0")
    path.write_text(TEXT.replace('kind = "none"', 'kind = "pca9685"'))  # by somebody at the car
    with pytest.raises(CarRefused) as caught:
        file.undo()
    assert caught.value.reason == "locked_key"
    assert load_car_config(path).actuator.kind == "pca9685"


def test_a_file_that_was_broken_by_hand_can_be_mended(file: CarFile, path: Path) -> None:
    path.write_text(TEXT.replace("50.0", "50.0.0"))
    assert file.facts()["pending"]
    change(file, "50.0.0", "50.0")
    assert path.read_text() == TEXT


def test_a_file_of_a_drive_or_none_or_one_that_may_not_be_written(path: Path, gate: Gate, tmp_path: Path) -> None:
    of_a_drive = CarFile(path, load_car_config(path), path.parent, gate.ask)
    none = CarFile(None, CarConfig(), path.parent, gate.ask)
    gone = CarFile(tmp_path / "gone" / "car.toml", CarConfig(), tmp_path / "run", gate.ask)
    for file in (of_a_drive, none, gone):
        facts = file.facts()
        assert not facts["editable"] and facts["why_not"] and facts["how"]
        with pytest.raises(CarRefused) as caught:
            file.change(TEXT, hashlib.sha256(TEXT.encode()).hexdigest())
        assert caught.value.reason == "not_editable"
    assert path.read_text() == TEXT


def test_a_folder_that_may_not_be_looked_into_is_said_so(file: CarFile, path: Path) -> None:
    path.unlink()
    path.symlink_to(path)  # as unreadable for root as for anybody
    facts = file.facts()
    assert facts["text"] is None and not facts["editable"] and facts["why_not"] and not facts["pending"]


def test_a_huge_text_is_refused(file: CarFile, path: Path) -> None:
    assert refused(file, "# ours", "#" + "x" * MAX_BYTES).reason == "too_large"
    path.write_text("#" * (MAX_BYTES + 1))
    assert not file.facts()["editable"]


def test_passwords_go_out_and_come_back() -> None:
    text = 'a = "rtsp://u:p@h/1"\nb = "http://h2/x@y"\nc = "http://only@h3"\n'
    hidden = without_passwords(text)
    assert hidden == 'a = "rtsp://...@h/1"\nb = "http://h2/x@y"\nc = "http://...@h3"\n'
    assert with_passwords(hidden, text) == text
    assert with_passwords(hidden.replace("://...@h3", "://new:one@h3"), text).endswith('c = "http://new:one@h3"\n')
    assert with_passwords('d = "http://...@h"\n', "") == 'd = "http://...@h"\n'


def test_a_whole_configuration_may_be_saved_as_it_is(path: Path, gate: Gate, tmp_path: Path) -> None:
    path.write_text(to_toml(load_car_config(path)))
    file = CarFile(path, load_car_config(path), tmp_path / "run", gate.ask)
    change(file, "rotate_180 = false", "rotate_180 = true")
    assert load_car_config(path).camera == dataclasses.replace(file._running.camera, rotate_180=True)
