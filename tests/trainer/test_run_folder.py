"""The run folder: never half written, never overwritten, and damage is named with a way out."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sim.car_spec import load_car
from sim.reward import load_reward
from sim.track import load_track
from trainer.config import RunConfig
from trainer.errors import RunError, RunStorageError
from trainer.run_folder import RunFolder
from vehicle.action_space import ContinuousActionSpace

SPACE = ContinuousActionSpace(-20.0, 30.0, 0.5, 1.5)
NAMES = ("first_oval", "little_bean")


def create(path: Path, config: RunConfig | None = None) -> RunFolder:
    tracks = [load_track(name) for name in NAMES]
    return RunFolder.create(path, config or RunConfig(), tracks, load_reward(None), SPACE, load_car(None))


def state(value: float = 1.0, size: int = 100) -> dict[str, Any]:
    return {"learner": {"weights": torch.full((size,), value)}, "steps": 7, "extra": {}}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond ``size``, much as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_run_gives_back_what_it_was_made_with(tmp_path: Path) -> None:
    config = RunConfig(seed=9, time_limit_s=12.5, network="HOTLAP_FINE", control_hz=15.0)
    create(tmp_path / "a" / "run", config)
    run = RunFolder.open(tmp_path / "a" / "run")
    assert run.config() == config
    assert run.action_space() == SPACE
    assert run.car() == load_car(None)
    assert run.reward().source == load_reward(None).source
    for track, name in zip(run.tracks(), NAMES, strict=True):
        original = load_track(name)
        assert track.name == name
        np.testing.assert_allclose(track.center, original.center)
        np.testing.assert_allclose(track.left, original.left)
    assert "torch" in (run.path / "versions.json").read_text()
    assert run.rows() == []
    assert not run.has_checkpoint()


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    create(tmp_path)
    assert RunFolder.open(tmp_path).config() == RunConfig()


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "run")
    before = files(tmp_path)
    with pytest.raises(RunError, match="exists already and is not empty") as caught:
        create(tmp_path / "run")
    assert "--resume" in caught.value.next_step
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        create(tmp_path / "file")
    assert files(tmp_path) == before | {"file": b"mine"}


@pytest.mark.parametrize("exists", [True, False])
def test_what_is_not_a_run_is_refused(exists: bool, tmp_path: Path) -> None:
    if exists:
        (tmp_path / "run" / "inputs").mkdir(parents=True)
    with pytest.raises(RunError, match="is not a run") as caught:
        RunFolder.open(tmp_path / "run")
    # A run that was killed while it was made would be refused by `hotlap train` as not empty.
    assert ("remove" in caught.value.next_step) == exists


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStorageError, match="cannot write to the run folder"):
        create(tmp_path / "file" / "run")


def test_a_full_disk_leaves_every_file_as_it_was(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.save_checkpoint(state(1.0))
    run.save_checkpoint(state(2.0))
    run.write_metrics([{"steps": 5.0}], ["steps"])
    before = files(tmp_path)
    with largest_file(20_000):
        with pytest.raises(RunStorageError, match="cannot write") as caught:
            run.save_checkpoint(state(3.0, 100_000), "best")
        with pytest.raises(RunStorageError):
            run.write_metrics([{"steps": float(i)} for i in range(10_000)], ["steps"])
        assert files(tmp_path) == before
        with pytest.raises(RunStorageError):
            run.save_checkpoint(state(3.0, 100_000))
    assert "--resume" in caught.value.next_step
    after = files(tmp_path)
    # The last one has a second name now; nothing is lost, nothing is left lying about.
    assert after == before | {"checkpoints/previous.pt": before["checkpoints/last.pt"]}
    assert run.load_checkpoint()["learner"]["weights"][0] == 2.0
    run.save_checkpoint(state(4.0))
    assert run.load_checkpoint()["learner"]["weights"][0] == 4.0


def test_a_full_disk_while_a_run_is_made_leaves_nothing_that_counts_as_a_run(tmp_path: Path) -> None:
    with largest_file(1_000), pytest.raises(RunStorageError):
        create(tmp_path / "run")
    with pytest.raises(RunError, match="is not a run"):
        RunFolder.open(tmp_path / "run")


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    run = create(tmp_path)
    for value in (1.0, 2.0, 3.0):
        run.save_checkpoint(state(value))
    run.save_checkpoint(state(9.0), "best")
    kept = {name: float(run.load_checkpoint(name)["learner"]["weights"][0]) for name in ("last", "previous", "best")}
    assert kept == {"last": 3.0, "previous": 2.0, "best": 9.0}
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "last.pt", "previous.pt"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "foreign"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(damage: str, tmp_path: Path) -> None:
    run = create(tmp_path)
    run.save_checkpoint(state(1.0))
    run.save_checkpoint(state(2.0))
    last = tmp_path / "checkpoints" / "last.pt"
    data = bytearray(last.read_bytes())
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    broken = {
        "flip": bytes(flipped), "cut": bytes(data[: len(data) // 2]), "empty": b"", "header": b"x" + bytes(data[1:]),
        "foreign": b"PK\x03\x04 something else\n with lines\n",
    }[damage]  # fmt: skip
    last.write_bytes(broken)
    before = files(tmp_path)
    with pytest.raises(RunError, match=f"damaged.*{len(broken)} bytes") as caught:
        run.load_checkpoint()
    assert files(tmp_path) == before
    command, _, then = caught.value.next_step.partition(", then ")
    assert "--resume" in then
    _, source, target = command.split()
    Path(source).replace(target)
    assert run.load_checkpoint()["learner"]["weights"][0] == 1.0


def test_a_damaged_only_checkpoint_says_that_there_is_no_other(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.save_checkpoint(state())
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"")
    with pytest.raises(RunError) as caught:
        run.load_checkpoint()
    assert "start again" in caught.value.next_step


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    """A file with a right sum that would run something when read is refused, not run."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    run = create(tmp_path / "run")
    run.save_checkpoint({"learner": Evil()})
    with pytest.raises(RunError, match="cannot be read"):
        run.load_checkpoint()
    assert not (tmp_path / "ran").exists()


def test_metrics_come_back(tmp_path: Path) -> None:
    run = create(tmp_path)
    rows = [
        {"steps": 1_234_567.0, "loss": 0.123456789, "reward": math.nan},
        {"steps": 12_345_678.0, "loss": -1e-7, "unlisted": 3.0},
    ]
    run.write_metrics(rows, ["steps", "loss", "reward"])
    back = run.rows()
    assert [row["steps"] for row in back] == [1_234_567.0, 12_345_678.0]  # exactly: a resumed run cuts there
    assert back[0]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-6)
    assert "reward" not in back[0] and "unlisted" not in back[1]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "steps,loss,reward"
