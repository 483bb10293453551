"""What the small programs of this package get that are started as children: the package itself, and one thread."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where ``python -m vehicle.NAME`` finds this package
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of numeric libraries: they share a small processor


def child_environment() -> dict[str, str]:
    """For ``python -m vehicle.NAME`` with ``cwd=ROOT``, also where this package is not installed."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, **ONE_THREAD}
