"""tools/install-car.sh, in a temporary root, and against stand-ins for the commands that would change a system."""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vehicle.car_config import load_car_config
from vehicle.options import console_options

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / "tools" / "install-car.sh"
BASH = shutil.which("bash") or "/bin/bash"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="installs on Linux only")]

Run = Callable[..., subprocess.CompletedProcess[str]]


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


# A Python whose virtual environments are made in no time, and whose pip believes everything; it notes what it is told.
QUICK_PYTHON = f"""#!/bin/sh
echo "python $*" >> "$CALLS"
case "$*" in
    *calcsize*) echo "${{BITS:-64}}" ;;
    *python_version*) echo "${{VERSION:-3.11.2}}" ;;
    *version_info*3,\\ 10*) [ -z "$VERSION" ] ;;
    *base_prefix*) echo "${{PREFIX:-/usr}}" ;;
    *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    *"import picamera2"*) exit 1 ;;
    *ensurepip*|*"import cv2"*|*"import RPi"*|*"-m pip"*) ;;
    *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def quick_python(tmp_path: Path) -> Path:
    return executable(tmp_path / "bin/quick-python", QUICK_PYTHON)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script; calls of stand-ins are noted in `calls`."""

    def runner(*options: object, path: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        own = ("DESTDIR", "SUDO_USER", "PIP_FLAGS")
        inherited = {key: value for key, value in os.environ.items() if key not in own}
        calls = {"CALLS": str(tmp_path / "calls"), "TMPDIR": str(tmp_path)}
        return subprocess.run(
            [BASH, str(SCRIPT), *map(str, options)],
            capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
            env=inherited | calls | ({"PATH": path} if path is not None else {}) | environment,
        )  # fmt: skip

    return runner


def a_wheel(folder: Path) -> Path:
    """The least that pip takes for hotlap."""
    wheel = folder / "hotlap-0.0.1-py3-none-any.whl"
    info = "hotlap-0.0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hotlap.py", "def main():\n    print('hotlap runs')\n")
        archive.writestr("cv2.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hotlap\nVersion: 0.0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nhotlap = hotlap:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file outside the virtual environment with its size and time."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if "venv" not in path.parts and not path.is_dir()
    }


# --- in a temporary root


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here: apt-get install shellcheck")
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert found.stdout == ""


def test_a_whole_installation_and_a_second_one_that_changes_nothing(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "root"
    options = ("--prefix", root, "--wheel", a_wheel(tmp_path), "--python", sys.executable)
    first = run(*options, PIP_FLAGS="--no-index")
    assert first.returncode == 0, first.stdout + first.stderr
    for name in (
        "etc/hotlap/car.toml", "etc/sysusers.d/hotlap.conf", "etc/tmpfiles.d/hotlap.conf",
        "etc/udev/rules.d/70-hotlap.rules", "etc/systemd/system/hotlap-gate.service",
        "etc/systemd/system/hotlap-pilot.service", "etc/systemd/system/hotlap-console.service",
        "etc/systemd/system/hotlap.target", "opt/hotlap/venv/bin/python",
    ):  # fmt: skip
        assert (root / name).is_file(), name
    assert (root / "var/lib/hotlap/models").is_dir()
    assert os.readlink(root / "usr/local/bin/hotlap") == "/opt/hotlap/venv/bin/hotlap"
    said = subprocess.run([root / "opt/hotlap/venv/bin/hotlap"], capture_output=True, text=True, timeout=60)
    assert said.stdout == "hotlap runs\n"
    if shutil.which("systemctl"):
        assert (root / "etc/systemd/system/multi-user.target.wants/hotlap.target").is_symlink()
        for name in ("gate", "pilot", "console"):
            assert (root / f"etc/systemd/system/hotlap.target.wants/hotlap-{name}.service").is_symlink()

    car_toml = root / "etc/hotlap/car.toml"
    assert stat.S_IMODE(car_toml.stat().st_mode) == 0o640
    assert load_car_config(car_toml).actuator.kind == "none"  # nothing moves before somebody has chosen
    car_toml.write_text(car_toml.read_text() + "# mine\n")
    before = snapshot(root)
    second = run(*options, PIP_FLAGS="--no-index")
    assert second.returncode == 0, second.stdout + second.stderr
    assert snapshot(root) == before
    assert "wrote:" not in second.stdout
    assert "kept:" in second.stdout
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith("hotlap-install")]
    assert leftovers == []


def test_a_changed_unit_is_brought_up_to_date(tmp_path: Path, run: Run, quick_python: Path) -> None:
    root = tmp_path / "root"
    options = ("--prefix", root, "--wheel", a_wheel(tmp_path), "--python", quick_python)
    assert run(*options).returncode == 0
    gate = root / "etc/systemd/system/hotlap-gate.service"
    gate.write_text("old\n")
    done = run(*options)
    assert f"wrote: {gate}" in done.stdout
    assert gate.read_text() == (CHECKOUT / "vehicle/services/hotlap-gate.service").read_text()


def test_each_step_is_explained_before_it_is_done(tmp_path: Path, run: Run, quick_python: Path) -> None:
    said = run("--prefix", tmp_path / "root", "--wheel", a_wheel(tmp_path), "--python", quick_python).stdout
    blocks = said.split("\n==> ")[1:]
    titles = [block.splitlines()[0].split(":")[0].split(" (")[0] for block in blocks]
    wanted = ["Checking this machine", "User and groups", "Folders", "Settings", "Program", "Services", "Devices"]
    assert titles[:7] == wanted
    for block in blocks[1:7]:
        reason, *_ = block.splitlines()[1:]
        assert reason.startswith("    ") and not reason.strip().startswith(("wrote", "running", "unchanged", "kept"))


def test_it_ends_with_where_the_page_is_and_how_its_password_is_shown(
    tmp_path: Path, run: Run, quick_python: Path
) -> None:
    said = run("--dry-run", "--prefix", tmp_path / "root", "--python", quick_python).stdout
    last = said[said.index("==> Next") :]
    assert "https://hotlap.local" in last and "sudo -u hotlap hotlap calibrate" in last
    words = next(line.split("hotlap console", 1)[1] for line in last.splitlines() if "password" in line)
    parser = argparse.ArgumentParser()
    console_options(parser)
    assert parser.parse_args(words.split()).show_password  # the program takes what the installer says


def test_a_dry_run_changes_nothing(tmp_path: Path, run: Run, quick_python: Path) -> None:
    root = tmp_path / "root"
    done = run("--dry-run", "--prefix", root, "--python", quick_python)
    assert done.returncode == 0, done.stderr
    assert not root.exists()
    assert f"would write: {root}/etc/systemd/system/hotlap-gate.service" in done.stdout
    assert "would run:" in done.stdout and "running:" not in done.stdout and "wrote:" not in done.stdout
    calls = (tmp_path / "calls").read_text()
    assert "-m pip install" not in calls and "-m venv" not in calls


def test_destdir_is_another_name_for_prefix(tmp_path: Path, run: Run, quick_python: Path) -> None:
    done = run("--dry-run", "--python", quick_python, DESTDIR=str(tmp_path / "image"))
    assert f"would write: {tmp_path}/image/etc/hotlap/car.toml" in done.stdout


def test_another_program_called_hotlap_is_kept(tmp_path: Path, run: Run, quick_python: Path) -> None:
    root = tmp_path / "root"
    mine = executable(root / "usr/local/bin/hotlap", "#!/bin/sh\n")
    done = run("--prefix", root, "--wheel", a_wheel(tmp_path), "--python", quick_python)
    assert done.returncode == 0
    assert "is another program" in done.stderr
    assert mine.read_text() == "#!/bin/sh\n"


# --- boards


@pytest.mark.parametrize(
    ("model", "extra", "camera", "bus", "site_packages"),
    (
        ("Raspberry Pi 4 Model B Rev 1.4\0", "rpi", "picamera2", 1, True),
        ("Raspberry Pi 5 Model B Rev 1.0\0", "rpi5", "picamera2", 1, True),
        ("Raspberry Pi Compute Module 5 Rev 1.0\0", "rpi5", "picamera2", 1, True),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0", "jetson", "v4l2", 7, True),
        ("", "none", "v4l2", 1, False),
    ),
)
def test_each_board_gets_its_extra_and_its_template(
    tmp_path: Path, run: Run, quick_python: Path, model: str, extra: str, camera: str, bus: int, site_packages: bool
) -> None:
    root = tmp_path / "root"
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_text(model)
    wheel = a_wheel(tmp_path)
    done = run("--prefix", root, "--wheel", wheel, "--python", quick_python)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    wanted = str(wheel) + (f"[{extra}]" if extra != "none" else "")
    assert f" {wanted}\n" in calls
    assert ("-m venv --system-site-packages" in calls) == site_packages
    config = load_car_config(root / "etc/hotlap/car.toml")
    assert (config.camera.kind, config.actuator.i2c_bus) == (camera, bus)
    assert (root / "etc/systemd/system/hotlap-pilot.service.d/jetson.conf").exists() == (extra == "jetson")
    explained = {"rpi": "dtoverlay=pwm-2chan", "rpi5": "dtoverlay=pwm-2chan", "jetson": "jetson-io"}
    assert extra == "none" or explained[extra] in done.stdout


# --- refusals


@pytest.mark.parametrize(
    ("environment", "words"),
    (
        ({"BITS": "32"}, ("32-bit", "ONNX Runtime", "Raspberry Pi OS (64-bit)")),
        ({"VERSION": "3.8.10"}, ("Python 3.8.10", "3.10 or newer", "JetPack 6")),
    ),
)
def test_what_cannot_work_is_refused_with_the_reason(
    tmp_path: Path, run: Run, quick_python: Path, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    done = run("--prefix", root, "--python", quick_python, **environment)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr
    assert "next:" in done.stderr
    assert not root.exists()


def test_a_32_bit_system_is_refused_whatever_its_kernel_says(tmp_path: Path, run: Run, quick_python: Path) -> None:
    executable(tmp_path / "bin/getconf", "#!/bin/sh\necho 32\n")
    executable(tmp_path / "bin/uname", "#!/bin/sh\n[ \"$1\" = -m ] && echo aarch64 || echo Linux\n")
    done = run("--dry-run", "--python", quick_python, path=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "32-bit (uname -m says aarch64)" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (("--nonsense",), "unknown option --nonsense"),
        (("--prefix",), "--prefix needs a value"),
        (("--extra", "pi"), "not one of rpi, rpi5, jetson, none"),
        (("--wheel", "/nowhere.whl"), "no wheel /nowhere.whl"),
        (("--dry-run", "--python", "/nowhere/python"), "no /nowhere/python"),
    ),
)
def test_a_bad_command_line_is_refused(run: Run, options: Sequence[str], words: str) -> None:
    done = run(*options)
    assert done.returncode == 1
    assert words in done.stderr


def test_help_says_every_option(run: Run) -> None:
    said = run("--help").stdout
    for option in ("--dry-run", "--prefix", "--start", "--wheel", "--extra", "--python", "PIP_FLAGS"):
        assert option in said
    assert "set -euo" not in said


# --- a whole system of stand-ins: every command that changes something only notes that it was called

NOTING = "#!/bin/sh\necho \"${0##*/} $*\" >> \"$CALLS\"\n"
REAL = ("bash", "dirname", "sed", "tr", "uname", "getconf", "readlink", "tail", "cat", "cp", "mkdir")
NOTED = (
    "install", "ln", "rm", "chgrp", "chmod", "usermod", "systemd-sysusers", "systemd-tmpfiles", "udevadm", "apt-get",
)  # fmt: skip


@pytest.fixture
def stand_ins(tmp_path: Path, quick_python: Path) -> str:
    """A PATH with nothing on it that could change this machine, but in tmp_path."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    for name in REAL:
        (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    for name in NOTED:
        executable(folder / name, NOTING)
    (folder / "mkdir").unlink()
    # Only for the virtual environment of the stand-in Python; /opt and /etc are left alone.
    executable(folder / "mkdir", f"{NOTING}case \"$*\" in *{tmp_path}*) exec /bin/mkdir \"$@\" ;; esac\n")
    (folder / "cp").unlink()
    executable(folder / "cp", NOTING)
    executable(folder / "id", "#!/bin/sh\necho \"${ROOT_ID:-0}\"\n")
    executable(folder / "cmp", "#!/bin/sh\nexit 1\n")
    executable(folder / "mktemp", f"#!/bin/sh\n/bin/mkdir -p {tmp_path}/work\necho {tmp_path}/work\n")
    executable(folder / "systemctl", f"{NOTING}case \"$*\" in is-active*) exit \"${{ACTIVE:-3}}\" ;; esac\n")
    executable(folder / "python3", QUICK_PYTHON.replace("mkdir -p", "mkdir").replace('cp "$0"', ": "))
    return str(folder)


def system_calls(tmp_path: Path) -> list[str]:
    calls = (tmp_path / "calls").read_text().splitlines()
    return [call for call in calls if not call.startswith(("python ", "mkdir ", "rm ", "cp "))]


@pytest.mark.parametrize("start", (False, True))
def test_the_order_of_things_on_a_real_system(tmp_path: Path, run: Run, stand_ins: str, start: bool) -> None:
    if Path("/etc/hotlap").exists() or Path("/opt/hotlap").exists():
        pytest.skip("hotlap is installed on this machine")
    options = ["--wheel", a_wheel(tmp_path), *(["--start"] if start else [])]
    # /opt/hotlap/venv/bin/python does not exist here: pip itself cannot be called, so the run ends there ...
    done = run(*options, path=stand_ins, SUDO_USER="somebody")
    assert done.returncode != 0
    assert "failed: /opt/hotlap/venv/bin/python -m pip install" in done.stderr
    calls = system_calls(tmp_path)
    names = [call.split()[0] for call in calls]
    assert calls[0] == "systemctl is-active --quiet hotlap-gate.service"
    order = [names.index(name) for name in ("systemd-sysusers", "usermod", "chgrp", "systemd-tmpfiles")]
    assert order == sorted(order)
    assert "usermod -aG hotlap somebody" in calls
    # ... and nothing is enabled or started of a program that is not there.
    assert not any(call.startswith(("systemctl enable", "systemctl start", "systemctl --root")) for call in calls)


@pytest.mark.parametrize("start", (False, True))
def test_it_is_enabled_and_only_started_when_asked(tmp_path: Path, run: Run, stand_ins: str, start: bool) -> None:
    options = ["--dry-run", *(["--start"] if start else [])]
    said = run(*options, path=stand_ins).stdout
    units = "hotlap-gate.service hotlap-pilot.service hotlap-console.service hotlap.target"
    enable = said.index(f"would run: systemctl --root=/ enable {units}")
    assert said.index("would run: systemctl daemon-reload") < enable
    assert ("would run: systemctl start hotlap.target" in said) == start
    assert not (tmp_path / "calls").exists() or system_calls(tmp_path) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    (
        ({"ACTIVE": "0"}, "the gate is running"),
        ({"ROOT_ID": "1000"}, "only root may install services"),
        ({"PREFIX": "/home" + "/somebody/.pyenv"}, "home folder, which services cannot see"),
    ),
)
def test_a_system_is_not_touched_where_it_must_not_be(
    tmp_path: Path, run: Run, stand_ins: str, environment: dict[str, str], words: str
) -> None:
    done = run("--wheel", a_wheel(tmp_path), path=stand_ins, **environment)
    assert done.returncode == 1
    assert words in done.stderr
    assert [call for call in system_calls(tmp_path) if "is-active" not in call] == []
