"""The house: import layers, packages, versions, and what no committed file may hold."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT, alive_children, alive_threads, leaks_since

ROOMS = ("trainer", "sim", "vehicle", "calibration", "firmware_bridge")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a shell, its output captured."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def tool(name: str) -> Path:
    """A console script of the environment that the tests run in."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{name} is not installed beside this Python (extra dev)")
    return path


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def our_files() -> list[Path]:
    """The files that are committed, or would be by `git add -A`."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


# --- layers -----------------------------------------------------------------------------------------------------------


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(tool("lint-imports"), "--no-cache", cwd=cwd, PYTHONPATH=str(cwd))


def test_imports_point_one_way() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("vehicle", "import sim"),
        ("sim", "import trainer"),
        ("calibration", "import vehicle"),
        ("calibration", "import firmware_bridge"),
        ("vehicle", "import hotlap"),
        ("vehicle", "import torch"),
        ("vehicle", "import mujoco.batch"),
    ],
)
def test_an_import_the_wrong_way_is_refused(room: str, statement: str, tmp_path: Path) -> None:
    for name in ROOMS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"{statement}\n" if name == room else "")
    (tmp_path / "hotlap.py").write_text("")
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout
    assert "2 kept, 1 broken" in result.stdout


# --- packages and versions --------------------------------------------------------------------------------------------


def packages_on_disk() -> set[str]:
    """Dotted names of the folders with an __init__.py in the rooms."""
    found = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    return {".".join(path.parts) for path in found}


def test_setup_cfg_names_every_package(settings: configparser.ConfigParser) -> None:
    assert set(settings["options"]["packages"].split()) == packages_on_disk()


def test_every_room_says_what_it_is_for() -> None:
    for name in sorted(packages_on_disk()):
        first = (ROOT / name.replace(".", "/") / "__init__.py").read_text().lstrip()
        assert first.startswith('"""'), f"{name} has no docstring"


def test_version_is_the_newest_of_the_changelog(settings: configparser.ConfigParser) -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == settings["metadata"]["version"]


def installed() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("hotlap")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hotlap is not installed in this environment (make setup)")


def test_installed_version_is_this_one(settings: configparser.ConfigParser) -> None:
    assert installed().version == settings["metadata"]["version"], "run `make setup` again"


def test_base_install_is_the_cars(settings: configparser.ConfigParser) -> None:
    base = settings["options"]["install_requires"].lower()
    assert "onnxruntime" in base
    for name in ("torch", "mujoco", "numba", "gymnasium", "matplotlib"):
        assert name not in base
    train = settings["options.extras_require"]["train"].split()
    assert "torch==2.13.0" in train
    assert "mujoco>=3.17,!=4.0.0" in train


def test_entry_points_can_be_loaded() -> None:
    # By name, since the installed distribution's own table may stem from an older setup.cfg.
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for group in parser["options.entry_points"]:
        for line in parser["options.entry_points"][group].strip().splitlines():
            name, value = (part.strip() for part in line.split("=", 1))
            assert callable(importlib.metadata.EntryPoint(name, value, group).load()), line


# --- the car's clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "folder", "refused"),
    [
        ("import time\n\nSTAMP = time.time()\n", "vehicle", True),
        ("from time import time\n\nSTAMP = time()\n", "vehicle", True),
        ("import datetime\n\nSTAMP = datetime.datetime.now()\n", "vehicle", True),
        ("import time\n\nSTAMP_S = time.monotonic()\n", "vehicle", False),
        ("import time\n\nSTAMP = time.time()\n", "trainer", False),
    ],
)
def test_wall_clock_is_forbidden_in_vehicle_only(code: str, folder: str, refused: bool) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "--select=TID251"]
    result = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/clock.py", "-"],
        cwd=ROOT, input=code, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert {found["code"] for found in json.loads(result.stdout)} == ({"TID251"} if refused else set())


# --- what no file may hold --------------------------------------------------------------------------------------------

# In pieces, so that this file does not hold what it looks for.
MACHINE_FOLDERS = ("wo" "rk", "ro" "ot", "ho" "me/[a-z]+", "op" "t/venv")
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:" + "|".join(MACHINE_FOLDERS) + r")/")
LEFTOVER = re.compile(r"\b(?:" + "|".join(("TO" "DO", "FIX" "ME", "XX" "X")) + r")\b")


@pytest.mark.parametrize(("pattern", "what"), [(MACHINE_PATH, "a machine's path"), (LEFTOVER, "a leftover")])
def test_no_file_holds(our_files: list[Path], pattern: re.Pattern[str], what: str) -> None:
    found = []
    for path in our_files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a track, a picture
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if pattern.search(line)
        ]
    assert not found, f"{what} in:\n" + "\n".join(found)


@pytest.mark.parametrize("line", ["see /wo" "rk/main/x", 'open("/ro' 'ot/a")', "#!/op" "t/venv/bin/python"])
def test_machine_paths_are_seen(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["tests/wo" "rk/a", "https://example.org/wo" "rk", "$HOME/wo" "rk/x", "a/ro" "ot/b"])
def test_other_paths_are_let_be(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_nothing_large_is_committed(our_files: list[Path]) -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in our_files if path.stat().st_size > 2_000_000}
    assert not large


# --- the leak detector ------------------------------------------------------------------------------------------------


def test_leak_detector_sees_a_thread() -> None:
    threads, children = alive_threads(), alive_children()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="lingerer")
    thread.start()
    try:
        assert leaks_since(threads, children, grace_s=0.0) == ["thread 'lingerer'"]
    finally:
        stop.set()
        thread.join(timeout=10)
    assert leaks_since(threads, children) == []


def test_leak_detector_sees_a_process() -> None:
    threads, children = alive_threads(), alive_children()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        leaks = leaks_since(threads, children, grace_s=0.0)
        assert len(leaks) == 1 and leaks[0].startswith(f"process {child.pid}:")
        child.kill()
    assert leaks_since(threads, children) == []


# --- make -------------------------------------------------------------------------------------------------------------


def test_make_without_a_target_says_what_there_is() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    result = run("make", MAKEFLAGS="", MAKELEVEL="")
    assert result.returncode == 0, result.stderr
    for target in ("setup", "check", "test", "demo", "demo-scale", "bench", "clean"):
        assert re.search(rf"^  {target} ", result.stdout, flags=re.MULTILINE), target


def test_shell_scripts_parse() -> None:
    for script in (ROOT / "tools" / "setup.sh", ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK), f"{script.name} is not executable"
        result = run("bash", "-n", script)
        assert result.returncode == 0, result.stderr
