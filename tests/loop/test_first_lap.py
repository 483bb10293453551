"""From nothing to a lap: train on a track, drive time trials from the ONNX file alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hotlap

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A training sets torch's threads for itself."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert hotlap.main([*map(str, words), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def train_and_drive(track: object, steps: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The limit is of steps, which do not depend on how busy the machine is.
    trained = run(capsys, "train", "--track", track, "--out", folder / "run", "--steps", steps, "--seed", 1)
    assert trained["first_lap_steps"] is not None and trained["first_lap_steps"] <= steps
    assert 0 < trained["first_lap_s"] <= trained["wall_s"]
    driven = run(capsys, "evaluate", trained["bundle"], "--track", track, "--trials", 3, "--seed", 7)
    assert driven["completion_rate"] >= 2 / 3, driven
    assert all(trial["off_track"] == 0 for trial in driven["trials"] if trial["completed"])


def test_first_lap_on_a_shipped_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_and_drive("first_oval", 16_384, tmp_path, capsys)


def test_first_lap_on_a_real_track(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track = shared_data / "tracks" / "reinvent_base.npy"
    if not track.is_file():
        pytest.skip("reinvent_base.npy is not in the shared data")
    train_and_drive(track, 16_384, tmp_path, capsys)
