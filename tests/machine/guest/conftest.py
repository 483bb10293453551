"""Fixtures for the checks inside a guest."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("hotlap", "numpy", "onnxruntime", "opencv-python", "pyzmq", "smbus2")


@pytest.fixture(scope="session", autouse=True)
def facts() -> Iterator[dict[str, Any]]:
    """Versions, times and figures, which the host prints in the end; a check may add its own."""
    begun_s = time.monotonic()
    kernel = f"{platform.release()} {platform.machine()}"
    found: dict[str, Any] = {"kernel": kernel, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if shutil.which("systemctl"):
        said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout
        found["systemd"] = said.splitlines()[0].partition("(")[2].rstrip(")")
    debian = Path("/etc/debian_version")
    found["debian"] = debian.read_text().strip() if debian.exists() else "bookworm"
    yield found
    found["checks took"] = f"{time.monotonic() - begun_s:.0f} s"
    Path("/mnt/facts.json").write_text(json.dumps(found))
