"""Whether MuJoCo can draw here; not a test itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sim.errors import SimError
from sim.mujoco_view import open_gl


@contextmanager
def skipped_without_opengl() -> Iterator[None]:
    """What needs OpenGL: where there is none the test is skipped, but never in CI."""
    try:
        yield
    except SimError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no OpenGL here: {error.what}")


def needs_opengl() -> None:
    """Skip here and now."""
    with skipped_without_opengl():
        open_gl(64, 64).free()
