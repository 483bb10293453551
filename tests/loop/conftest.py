"""A policy that laps, trained once for all tests here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.vehicle.drive_rig import HOTLAP, ROOT


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that laps first_oval, after half a minute of training."""
    run = tmp_path_factory.mktemp("drive") / "run"
    words = ("train", "--track", "first_oval", "--out", str(run), "--steps", "16384", "--seed", "1", "--json")
    done = subprocess.run([*HOTLAP, *words], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["bundle"])
