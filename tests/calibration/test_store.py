"""Save, load, history and undo; damaged files; two writers at once. Power cuts are in test_store_power_cut."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import calibration.store
from calibration.durable import FileSystem
from calibration.errors import CalibrationError
from calibration.mapping import default_sim_calibration
from calibration.store import KEPT, history, load_calibration, restore, save_calibration, undo
from calibration.values import Calibration, Steering, Throttle
from tests.calibration.cars import calibrations, car, entry, saved

NEW = car(99)


def centers(path: Path) -> list[tuple[int, int | None, float | None]]:
    """(revision, previous, number of `car`) of the history, newest first."""
    return [
        (s.revision, s.previous, None if s.calibration is None else s.calibration.steering.center_us - 1400.0)
        for s in history(path)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "calibration.json"


# --- there and back


@settings(max_examples=30)
@given(calibrations())
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, calibration: Calibration) -> None:
    path = tmp_path_factory.mktemp("car") / "calibration.json"
    save_calibration(path, calibration)
    assert load_calibration(path) == calibration and load_calibration(str(path)) == calibration


def test_the_file(path: Path) -> None:
    save_calibration(path, default_sim_calibration())
    parsed = json.loads(path.read_text())
    assert list(parsed) == ["format", "version", "revision", "previous", "steering", "throttle"]
    assert (parsed["format"], parsed["version"]) == ("hotlap-calibration", 1)
    assert parsed["steering"] == {
        "left_us": 1700.0, "center_us": 1450.0, "right_us": 1200.0, "max_deg": 30.0, "points": [],
    }  # fmt: skip
    assert parsed["throttle"]["curve"][-1] == [4.0, 1311.0] and parsed["throttle"]["forward_start_us"] == 1421.0
    assert len(path.read_text().splitlines()) < 30, "a person can read it"
    save_calibration(path, Calibration())
    assert json.loads(path.read_text())["throttle"]["forward_start_us"] is None
    assert sorted(os.listdir(path.parent)) == ["calibration.json", "calibration.json.history"]


def test_a_calibration_that_does_not_hold_together_is_not_saved(path: Path) -> None:
    with pytest.raises(CalibrationError, match="neutral is not between"):
        save_calibration(path, Calibration(throttle=Throttle(neutral_us=1200.0)))
    assert not path.parent.exists()
    saved(path, 1)
    with pytest.raises(CalibrationError, match="finite"):
        save_calibration(path, Calibration(Steering(left_us=float("nan"))))
    assert load_calibration(path) == car(1) and len(history(path)) == 1


# --- history and undo


def test_history_and_undo_step_by_step(path: Path) -> None:
    saved(path, 1, 2, 3)
    assert centers(path) == [(3, 2, 3.0), (2, 1, 2.0), (1, None, 1.0)]
    assert path.read_bytes() == entry(path, 3).read_bytes()
    assert undo(path) == car(2) == load_calibration(path)
    assert undo(path) == car(1) == load_calibration(path)
    with pytest.raises(CalibrationError, match="no calibration before"):
        undo(path)
    assert load_calibration(path) == car(1)
    assert centers(path)[:2] == [(5, None, 1.0), (4, 1, 2.0)], "undo is in the history too"
    saved(path, 7)
    assert undo(path) == car(1), "what was undone is not what was before"
    assert path.read_bytes() == entry(path, 7).read_bytes()


def test_restore_and_take_it_back(path: Path) -> None:
    saved(path, 1, 2, 3)
    assert restore(path, 1) == car(1) == load_calibration(path)
    assert centers(path)[0] == (4, 3, 1.0)
    assert undo(path) == car(3)
    with pytest.raises(CalibrationError, match="calibration 99 cannot be read: No such file") as caught:
        restore(path, 99)
    assert "there are: 1, 2, 3, 4, 5" in caught.value.cause
    assert load_calibration(path) == car(3)


def test_saving_the_same_again_takes_no_place(path: Path) -> None:
    saved(path, 1, 2, 2, 2)
    assert len(history(path)) == 2
    assert undo(path) == car(1)


def test_the_last_twenty_are_kept(path: Path) -> None:
    saved(path, *range(1, KEPT + 6))
    assert KEPT == 20
    names = sorted(os.listdir(path.parent / "calibration.json.history"))
    assert names == [f"{n:06d}.json" for n in range(6, KEPT + 6)], "names sort by the counter"
    for number in range(KEPT + 4, KEPT - 5, -1):
        assert undo(path) == car(number)
    while True:  # what was before is only undone as long as it is kept
        try:
            number -= 1
            assert undo(path) == car(number)
        except CalibrationError as error:
            assert "cannot be read: No such file" in error.what and "the last 20 are kept" in error.cause
            break
    assert load_calibration(path) == car(number + 1)


def test_undo_of_nothing(path: Path) -> None:
    with pytest.raises(CalibrationError, match="no calibration before"):
        undo(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    entry(path, 1).parent.mkdir()
    with pytest.raises(CalibrationError, match="no calibration before"):
        undo(path)


def test_a_calibration_put_there_by_hand(path: Path, tmp_path: Path) -> None:
    """Copied from another car, or edited: it counts, and it is kept before another takes its place."""
    other = saved(tmp_path / "other.json", 51, 52, 53)
    saved(path, 1, 2)
    shutil.copy(other, path)
    assert load_calibration(path) == car(53)
    saved(path, 4)
    assert [c[2] for c in centers(path)] == [4.0, 53.0, 2.0, 1.0]
    assert undo(path) == car(53) and undo(path) == car(2) and undo(path) == car(1)
    shutil.copy(saved(other, 54), path)
    assert undo(path) == car(1), "undo goes back to what hotlap saved last"
    assert centers(path)[1][2] == 54.0, "and keeps what was there"
    shutil.copy(entry(path, 2), path)
    assert undo(path) == car(1), "one of the history: to the one before it"
    fresh = tmp_path / "fresh" / "calibration.json"
    fresh.parent.mkdir()
    shutil.copy(other, fresh)
    saved(fresh, 9)
    assert undo(fresh) == car(54)
    with pytest.raises(CalibrationError, match="no calibration before"):
        undo(fresh)


def test_a_calibration_laid_out_anew_by_hand_is_still_the_same_one(path: Path) -> None:
    saved(path, 1, 2)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert undo(path) == car(1)
    assert [c[2] for c in centers(path)] == [1.0, 2.0, 1.0]


# --- damage


def damaged(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    parsed = json.loads(path.read_text())
    change(parsed)
    path.write_text(json.dumps(parsed))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "zeros": (lambda p: p.write_bytes(bytes(600)), "is empty (zeros)"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "is not valid JSON"),
    "not text": (lambda p: p.write_bytes(b"\xff\xfe" * 100), "is not valid JSON"),
    "huge": (lambda p: p.write_bytes(b" " * 2_000_000), "characters long"),
    "nan": (lambda p: p.write_text(p.read_text().replace("1700.0", "NaN")), "NaN is not a JSON number"),
    "twice": (lambda p: p.write_text(p.read_text().replace('"right_us"', '"left_us"')), "stands twice"),
    "list": (lambda p: p.write_text("[]"), "the top level is []"),
    "unknown key": (lambda p: damaged(p, lambda d: d["steering"].update(left=1)), "unknown key steering.left"),
    "missing key": (lambda p: damaged(p, lambda d: d["throttle"].pop("curve")), "throttle.curve is missing"),
    "null": (lambda p: damaged(p, lambda d: d["throttle"].update(neutral_us=None)), "throttle.neutral_us is null"),
    "text": (lambda p: damaged(p, lambda d: d["steering"].update(max_deg="30")), 'steering.max_deg is "30"'),
    "point": (lambda p: damaged(p, lambda d: d["steering"].update(points=[[1]])), "steering.points[0] is [1]"),
    "infinite": (lambda p: p.write_text(p.read_text().replace("1700.0", "1e999")), "left_us is too large"),
    "order": (lambda p: damaged(p, lambda d: d["steering"].update(center_us=1800.0)), "center is not between"),
    "format": (lambda p: damaged(p, lambda d: d.update(format="hotlap-slots")), 'format is "hotlap-slots"'),
    "version": (lambda p: damaged(p, lambda d: d.update(version=2)), "version is 2, this hotlap reads 1"),
    "true": (lambda p: damaged(p, lambda d: d.update(version=True)), "version is true"),
    "revision": (lambda p: damaged(p, lambda d: d.update(revision=0, previous=None)), "revision 0"),
    "circle": (lambda p: damaged(p, lambda d: d.update(previous=d["revision"])), "does not count up"),
    "deepracer": (lambda p: p.write_text('{"Calibration": {}}'), "is the original car's calibration file"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_with_the_way_back(name: str, path: Path) -> None:
    damage, words = DAMAGES[name]
    saved(path, 1, 2, 3)
    damage(path)
    with pytest.raises(CalibrationError) as caught:
        load_calibration(path)
    assert words in caught.value.what and str(path) in caught.value.what and caught.value.cause
    assert f"undo, back to the last one saved (cp {entry(path, 3)} {path})" in caught.value.next_step
    assert undo(path) == car(3) == load_calibration(path), "the newest whole one"
    assert undo(path) == car(2)
    damage(path)
    saved(path, 8)
    assert load_calibration(path) == car(8)
    assert undo(path) == car(2), "what was in force before the damage"


def test_the_command_of_the_message_works(path: Path, tmp_path: Path) -> None:
    path = tmp_path / "with a space" / "calibration.json"
    saved(path, 1, 2)
    path.write_bytes(b"")
    with pytest.raises(CalibrationError) as caught:
        load_calibration(path)
    command = caught.value.next_step.split("(")[2].split(")")[0]
    assert command.startswith("cp ")
    subprocess.run(command, shell=True, check=True)
    assert load_calibration(path) == car(2) and undo(path) == car(1)


def test_damage_in_the_history(path: Path) -> None:
    saved(path, 1, 2, 3)
    entry(path, 2).write_bytes(b"{")
    assert centers(path) == [(3, 2, 3.0), (2, None, None), (1, None, 1.0)]
    assert "not valid JSON" in history(path)[1].fault and history(path)[0].fault == ""
    with pytest.raises(CalibrationError, match=r"000002\.json is not valid JSON"):
        undo(path)
    assert load_calibration(path) == car(3), "nothing else is taken in its place"
    assert restore(path, 1) == car(1)
    shutil.copy(entry(path, 1), entry(path, 9))
    assert "says that it is calibration 1" in history(path)[0].fault
    entry(path, 4).write_bytes(b"")
    path.unlink()
    with pytest.raises(CalibrationError, match="no calibration at") as caught:
        load_calibration(path)
    assert str(entry(path, 3)) in caught.value.next_step
    assert undo(path) == car(3), "the newest that is whole"
    for file in entry(path, 1).parent.iterdir():
        file.write_bytes(b"")
    path.write_bytes(b"")
    with pytest.raises(CalibrationError, match="is empty") as caught:
        load_calibration(path)
    assert "cp " not in caught.value.next_step and "calibrate this car" in caught.value.next_step
    with pytest.raises(CalibrationError, match="no calibration before"):
        undo(path)
    saved(path, 5)
    assert load_calibration(path) == car(5)


def test_what_is_no_file(path: Path) -> None:
    with pytest.raises(CalibrationError, match="there is no calibration at") as caught:
        load_calibration(path)
    assert caught.value.next_step == "calibrate this car (hotlap calibrate)" and caught.value.cause
    path.mkdir(parents=True)
    with pytest.raises(CalibrationError, match="cannot be read: Is a directory"):
        load_calibration(path)
    with pytest.raises(CalibrationError, match="could not be saved: Is a directory"):
        save_calibration(path, car(1))
    path.rmdir()
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"")
    with pytest.raises(CalibrationError, match="cannot be read: Not a directory"):
        load_calibration(path)
    with pytest.raises(CalibrationError, match="could not be saved: Not a directory"):
        save_calibration(path, car(1))
    assert history(path) == ()


# --- several processes


def test_another_process_is_waited_for_and_not_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(path, 1, 2)
    descriptor = os.open(entry(path, 1).parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        monkeypatch.setattr(calibration.store, "LOCK_WAIT_S", 0.05)
        for call in (lambda: save_calibration(path, NEW), lambda: undo(path)):
            with pytest.raises(CalibrationError, match=r"another process has been saving .* for 0\.05 s"):
                call()
        assert load_calibration(path) == car(2), "reading needs no lock"
        monkeypatch.setattr(calibration.store, "LOCK_WAIT_S", 20.0)
        saver = threading.Thread(target=save_calibration, args=(path, NEW), name="saver")
        saver.start()
        saver.join(0.1)
        assert saver.is_alive() and load_calibration(path) == car(2)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        saver.join(10.0)
        assert not saver.is_alive() and load_calibration(path) == NEW
    finally:
        os.close(descriptor)


def test_two_at_once_lose_nothing(path: Path) -> None:
    savers = [
        threading.Thread(target=saved, args=(path, *range(begin, begin + 8)), name=f"saver {begin}")
        for begin in (1, 21)
    ]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(30.0)
    numbers = sorted(c[2] or 0.0 for c in centers(path))
    assert numbers == [float(n) for n in (*range(1, 9), *range(21, 29))]
    assert [c[:2] for c in centers(path)] == [(n, n - 1 or None) for n in range(16, 0, -1)]


def test_an_unreadable_entry_is_an_error_and_not_a_hole(path: Path) -> None:
    saved(path, 1, 2)
    entry(path, 2).unlink()
    entry(path, 2).mkdir()
    with pytest.raises(CalibrationError, match="Is a directory"):
        undo(path)
    assert load_calibration(path) == car(2)


def test_the_real_disk_is_the_default(path: Path) -> None:
    save_calibration(path, NEW, fs=FileSystem())
    assert load_calibration(path) == NEW
