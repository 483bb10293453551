"""Debian roots, wheels and hotlap itself for the machines that are booted here; kept in a cache between runs.

The cache is ``$HOTLAP_MACHINE_CACHE``, else ``~/.cache/hotlap/machine``; remove it to begin anew (a newer Debian, say).
What is in it is named by a hash of how it was made, and appears only when it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

SUITE = "bookworm"  # Raspberry Pi OS's, and what hotlap asks for: Python 3.11
CACHE = Path(os.environ.get("HOTLAP_MACHINE_CACHE") or Path.home() / ".cache/hotlap/machine")
# A base install is made of these, and installed by install-car.sh.
SOURCES = (
    "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "hotlap.py",
    "trainer", "sim", "vehicle", "calibration", "firmware_bridge", "tools",
)  # fmt: skip
SLOW_S = 1800.0  # for downloads and unpacking, on a machine that others use
DAY_S = 86400.0


@dataclass(frozen=True)
class Recipe:
    """A Debian root. `variant` is mmdebstrap's: `extract` unpacks packages and sets nothing up."""

    name: str
    architecture: str
    variant: str
    packages: tuple[str, ...]


CAR = Recipe(
    "car", "amd64", "minbase",
    ("systemd-sysv", "dbus", "udev", "python3", "python3-venv", "kmod", "i2c-tools", "psmisc",
     "libgl1", "libglib2.0-0"),
)  # fmt: skip
# Unpacked only: setting packages up by emulated programs takes many minutes.
ARM = Recipe(
    "arm", "arm64", "extract",
    ("python3", "dash", "coreutils", "util-linux", "libgl1", "libglib2.0-0"),
)  # fmt: skip
KERNEL = Recipe(
    "kernel", "amd64", "extract",
    ("linux-image-amd64", "linux-headers-amd64", "linux-source", "gcc", "libc6-dev", "make", "xz-utils", "tar", "bash",
     "dash", "coreutils", "sed", "grep", "gawk", "findutils", "perl-base"),
)  # fmt: skip


def run(words: Sequence[object], *, timeout_s: float = SLOW_S, cwd: Path | None = None) -> str:
    """Run a command; its output.

    Raises:
        AssertionError: it failed, with the end of what it said.
    """
    done = subprocess.run(
        [*map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=timeout_s, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def private(script: str, *words: object) -> list[object]:
    """A shell script with arguments, in mounts of its own: whatever it mounts is gone with it."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *words]


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Two runs must not make the same thing at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, made_from: object, make: Callable[[Path], None]) -> Path:
    """The folder of that name and recipe; `make` fills it where it is not there."""
    folder = CACHE / f"{name}-{hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]}"
    with only_one(name):
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(folder)
        os.utime(folder)
        for other in CACHE.glob(f"{name}-" + "[0-9a-f]" * 12):  # of yesterday: another run of today may use one
            if other.stat().st_mtime < time.time() - DAY_S:
                shutil.rmtree(other)
    return folder


def debian(recipe: Recipe) -> Path:
    """A Debian root, unpacked."""

    def make(folder: Path) -> None:
        # check/qemu: would ask for arch-test; whether programs of another processor run, a test says better.
        words = ["mmdebstrap", "--quiet", "--mode=root", "--skip=check/qemu", f"--architectures={recipe.architecture}",
                 f"--variant={recipe.variant}", "--include=" + ",".join(recipe.packages), SUITE, folder]  # fmt: skip
        run(private('exec "$@"', *words))

    return cached(recipe.name, recipe, make)


def wheels(architecture: str) -> Path:
    """Wheels of everything that the base install needs, for a Debian of this architecture, and pytest and smbus2."""
    import configparser

    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = [line for line in settings["options"]["install_requires"].splitlines() if line.strip()]
    wanted = [line for line in wanted if "python_version" not in line] + ["smbus2>=0.4.3,<1", "pytest>=8.3,<10"]

    def make(folder: Path) -> None:
        run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *_for(architecture), *wanted])

    return cached(f"wheels-{architecture}", wanted, make)


def unpack(architecture: str, wheels: Path, target: Path, *wanted: object) -> None:
    """Install into a folder what a Debian of this architecture will find there."""
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels, "--target", target,
         *_for(architecture), *wanted])  # fmt: skip


def _for(architecture: str) -> list[str]:
    """pip's options for another machine's wheels: of this suite's Python and glibc (2.36)."""
    tags = [f"manylinux_2_{minor}_{architecture}" for minor in (34, 28, 27, 26, 17)]
    platforms = [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{architecture}")]
    return [*platforms, "--python-version=3.11", "--implementation=cp", "--only-binary=:all:"]


def checkout() -> Path:
    """A copy of what a base install is made of, and hotlap's wheel in its folder `wheel`."""
    files = [path for name in SOURCES for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    files = sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode}\0".encode() + path.read_bytes())

    def make(folder: Path) -> None:
        for path in files:
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheel", "."], cwd=folder)

    return cached("checkout", digest.hexdigest(), make)
