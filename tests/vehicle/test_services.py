"""The files for systemd, udev, sysusers and tmpfiles: systemd's own tools judge them, and they agree with the code."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vehicle import guard, links, realtime
from vehicle.car_config import CarConfig

SERVICES = Path(__file__).resolve().parents[2] / "vehicle" / "services"
UNITS = ("hotlap-gate.service", "hotlap-pilot.service", "hotlap-console.service", "hotlap.target")
WORST = 3.0  # of systemd-analyze security; 10 is open to everything
PYTHON = "/opt/hotlap/venv/bin/python"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not Path("/lib/systemd/system").is_dir(),
    reason="systemd-analyze is not here: apt-get install systemd",
)


def settings(name: str) -> dict[str, list[str]]:
    """A unit file as key -> values, in order."""
    found: dict[str, list[str]] = {}
    for line in (SERVICES / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def car_root(tmp_path: Path) -> Path:
    """A root folder with systemd's own units, ours, and the Python that ours call."""
    shutil.copytree("/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    python = tmp_path / PYTHON.lstrip("/")
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(SERVICES / unit, folder)
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, timeout=60)


# --- systemd's judgement


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_to_say_of_the_units(car_root: Path, unit: str) -> None:
    found = analyze("verify", f"--root={car_root}", unit)
    assert (found.returncode, found.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("line", "complaint"), (("NoSuchKey=1\n", "NoSuchKey"), ("ExecStartPre=/opt/none\n", "/opt/none"))
)
def test_and_it_would_say_so(car_root: Path, line: str, complaint: str) -> None:
    gate = car_root / "etc/systemd/system/hotlap-gate.service"
    gate.write_text(gate.read_text().replace("Type=notify\n", f"Type=notify\n{line}"))
    assert complaint in analyze("verify", f"--root={car_root}", gate.name).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_the_services_are_closed_in(car_root: Path, unit: str) -> None:
    threshold = f"--threshold={WORST * 10:.0f}"
    found = analyze("security", "--offline=true", f"--root={car_root}", threshold, unit)
    score = re.search(r"exposure level for \S+: ([\d.]+)", found.stdout)
    assert score is not None, found.stdout + found.stderr
    assert float(score[1]) <= WORST
    assert found.returncode == 0


@needs_systemd
def test_the_drop_in_of_a_jetson_is_understood_and_opens_devices_only(car_root: Path) -> None:
    folder = car_root / "etc/systemd/system/hotlap-pilot.service.d"
    folder.mkdir()
    shutil.copy(SERVICES / "hotlap-pilot-jetson.conf", folder / "jetson.conf")
    assert analyze("verify", f"--root={car_root}", "hotlap-pilot.service").stderr == ""
    threshold = f"--threshold={WORST * 10:.0f}"
    found = analyze("security", "--offline=true", f"--root={car_root}", threshold, "hotlap-pilot.service")
    assert found.returncode == 0, found.stdout


# --- agreement with the code


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_what_the_units_run_takes_these_options(unit: str) -> None:
    for key in ("ExecStart", "ExecStopPost"):
        for line in settings(unit).get(key, []):
            python, flag, module, *options = shlex.split(line)
            assert (python, flag) == (PYTHON, "-m")
            assert importlib.util.find_spec(module) is not None
            said = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=120)
            assert said.returncode == 0, said.stderr
            assert {word for word in options if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", said.stdout))
            assert options == ["--config", "/etc/hotlap/car.toml", "--runtime", str(links.SYSTEM)]


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_folders_are_where_the_code_looks(unit: str) -> None:
    found = settings(unit)
    assert Path("/run", found["RuntimeDirectory"][0]) == links.SYSTEM
    assert found["StateDirectory"] == ["hotlap"]  # /var/lib/hotlap, CarConfig.state_path
    assert '"/var/lib/hotlap"' in Path(sys.modules[CarConfig.__module__].__file__ or "").read_text()
    assert found["RuntimeDirectoryMode"] == ["0770"]
    assert found["UMask"] == ["0007"]  # the sockets are for the group
    # Both services have their sockets there: the one that stops first must not take those of the other away.
    assert found["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_gate_gets_what_it_asks_for() -> None:
    gate = settings("hotlap-gate.service")
    assert int(gate["LimitRTPRIO"][0]) >= realtime.PRIORITY
    assert gate["LimitMEMLOCK"] == ["infinity"]
    assert "RestrictRealtime" not in gate
    assert gate["NotifyAccess"] == ["main"]
    assert float(gate["WatchdogSec"][0]) > 5 * guard.SILENCE_S
    # A guard that outlives a killed gate writes neutral for a second; mixed would kill it after one frame.
    assert gate["KillMode"] == ["control-group"]
    assert float(gate["TimeoutStopSec"][0]) > guard.AFTERWARDS_S
    assert gate["RestartPreventExitStatus"] == ["2"]
    assert "StartLimitBurst" in gate


def test_the_pilot_gets_what_it_asks_for_and_stays_below_the_gate() -> None:
    pilot, gate = settings("hotlap-pilot.service"), settings("hotlap-gate.service")
    assert realtime.PRIORITY // 2 <= int(pilot["LimitRTPRIO"][0]) < int(gate["LimitRTPRIO"][0])
    assert "RestrictRealtime" not in pilot and "Nice" not in pilot


def test_each_service_has_its_own_devices_by_name() -> None:
    gate, pilot = settings("hotlap-gate.service"), settings("hotlap-pilot.service")
    for unit in (gate, pilot):
        assert unit["DevicePolicy"] == ["closed"]
        assert "PrivateDevices" not in unit  # would hide them all
    devices = {name: {line.split()[0] for line in unit["DeviceAllow"]} for name, unit in (("g", gate), ("p", pilot))}
    assert devices["g"] == {"char-i2c", "char-gpiochip", "char-*gpiomem", "char-ttyUSB", "char-ttyACM"}
    assert devices["p"] == {"char-video4linux", "char-media", "char-dma_heap"}
    # ProtectKernelTunables makes /sys read-only, where PWM is written.
    assert gate["ReadWritePaths"][0].split()[0] == "/sys/devices"
    assert "ReadWritePaths" not in pilot


def test_the_pilot_is_behind_the_gate_and_comes_back_with_it() -> None:
    gate, pilot = settings("hotlap-gate.service"), settings("hotlap-pilot.service")
    assert pilot["BindsTo"] == pilot["After"] == ["hotlap-gate.service"]
    assert gate["Wants"] == ["hotlap-pilot.service"]
    for key in ("CPUWeight", "IOWeight"):
        assert int(pilot[key][0]) < int(gate[key][0])
    assert int(pilot["OOMScoreAdjust"][0]) > 0 > int(gate["OOMScoreAdjust"][0])
    assert "MemoryMax" in pilot
    assert "ORT_DISABLE_TELEMETRY=1" in pilot["Environment"]


def test_the_console_is_behind_both_and_has_no_device() -> None:
    gate, pilot, console = (settings(f"hotlap-{name}.service") for name in ("gate", "pilot", "console"))
    # The page must be there when the gate is not: it says why.
    assert not {"BindsTo", "Requires", "Requisite"} & set(console)
    assert console["After"][0].split()[0] == "hotlap-gate.service"
    for key in ("CPUWeight", "IOWeight"):
        assert int(console[key][0]) < int(pilot[key][0]) < int(gate[key][0])
    assert int(console["OOMScoreAdjust"][0]) > int(pilot["OOMScoreAdjust"][0])
    assert console["PrivateDevices"] == ["yes"] and "DeviceAllow" not in console
    assert console["AmbientCapabilities"] == console["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert "multicast" in console["IPAddressAllow"][0].split()
    assert console["ReadWritePaths"] == ["-/etc/hotlap"]  # the folder of what --config names


# --- udev

MATCHES = {"ACTION", "ATTR", "ATTRS", "DEVPATH", "DRIVER", "DRIVERS", "ENV", "KERNEL", "KERNELS", "SUBSYSTEM",
           "SUBSYSTEMS", "TAG", "TEST"}  # fmt: skip
SETS = {"ENV", "GOTO", "GROUP", "LABEL", "MODE", "NAME", "OWNER", "RUN", "SYMLINK", "TAG"}
TOKEN = re.compile(r'([A-Z]+)(?:\{([^}]+)\})?(==|!=|\+=|:=|=)"([^"]*)"(?:,\s*|$)')


def rule_faults(text: str) -> list[str]:
    """What is wrong with udev rules: man 7 udev, as far as ours go."""
    faults, gotos, labels = [], [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        at = 0
        while at < len(line):
            token = TOKEN.match(line, at)
            if token is None:
                faults.append(f"{number}: no token at {line[at:]!r}")
                break
            key, _, operator, value = token.groups()
            allowed = MATCHES if operator in ("==", "!=") else SETS
            if key not in allowed or (operator == "+=" and key not in ("RUN", "SYMLINK", "TAG", "ENV")):
                faults.append(f"{number}: {key}{operator}")
            gotos += [value] if key == "GOTO" else []
            labels += [value] if key == "LABEL" else []
            at = token.end()
    return faults + [f"no label {name}" for name in gotos if name not in labels]


def test_the_udev_rules_are_well_formed() -> None:
    assert rule_faults((SERVICES / "70-hotlap.rules").read_text()) == []


@pytest.mark.parametrize(
    "bad",
    ('KERNEL="ttyUSB*"', 'GROUP=="gpio"', "KERNEL==ttyUSB", 'FOO=="x"', 'KERNEL=="x", GOTO="nowhere"', 'MODE+="0660"'),
)
def test_and_bad_ones_are_found(bad: str) -> None:
    assert len(rule_faults(bad)) == 1


def test_udevadm_agrees(tmp_path: Path) -> None:
    if shutil.which("udevadm") is None:
        pytest.skip("udevadm is not here: apt-get install udev")
    if "verify" not in subprocess.run(["udevadm", "--help"], capture_output=True, text=True, timeout=30).stdout:
        pytest.skip("this udevadm has no verify (systemd 254 brought it)")
    found = subprocess.run(
        ["udevadm", "verify", "--resolve-names=never", str(SERVICES / "70-hotlap.rules")],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_kind_of_device_has_a_group() -> None:
    rules = (SERVICES / "70-hotlap.rules").read_text()
    for group in ("gpio", "i2c", "dialout", "video"):
        assert f'GROUP="{group}"' in rules
    # The files of a channel come with its export, of which the kernel says "change".
    assert re.search(r'SUBSYSTEM=="pwm".*ACTION=="add\|change".*chgrp -R gpio /sys%p', rules)
    assert set(re.findall(r"chgrp (?:-R )?(\w+)", rules)) == {"gpio"}


# --- users and folders


def test_user_groups_and_folders_are_made(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None:
        pytest.skip("needs root, systemd-sysusers and systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for line, name in (("root:x:0:0::/root:/bin/sh\n", "passwd"), ("root:x:0:\nvideo:x:44:\n", "group")):
        (tmp_path / "etc" / name).write_text(line)
    for _ in range(2):  # a second time changes nothing
        for tool, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
            command = [tool, f"--root={tmp_path}", *(["--create"] if name == "tmpfiles" else [])]
            done = subprocess.run(
                [*command, str(SERVICES / f"hotlap-{name}.conf")], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
    rows = [line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()]
    members = {row[0]: row[3] for row in rows}
    assert {name for name, users in members.items() if users == "hotlap"} >= {"gpio", "i2c", "dialout", "video"}
    [user] = [line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("hotlap:")]
    assert user.endswith(":/var/lib/hotlap:/usr/sbin/nologin")
    uid, gid = (int(number) for number in user.split(":")[2:4])
    for folder in ("run/hotlap", "var/lib/hotlap", "var/lib/hotlap/models", "var/lib/hotlap/logs"):
        found = (tmp_path / folder).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (uid, gid, 0o770)
