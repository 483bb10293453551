"""A board on a pseudo-terminal for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.firmware_bridge.model_bridge import ModelBoard


@pytest.fixture
def board(tmp_path: Path) -> Iterator[ModelBoard]:
    """The model of the firmware, plugged in, configured as a DeepRacer."""
    board = ModelBoard(tmp_path / "ttyBoard")
    yield board
    board.close()
