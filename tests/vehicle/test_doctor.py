"""hotlap doctor as a whole: on a healthy car, on a Python without anything, and what it says of the machine."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.mapping import Calibration
from calibration.store import save_calibration
from vehicle import doctor as module
from vehicle import doctor_devices
from vehicle.arming import Limits
from vehicle.car_config import ACTUATORS
from vehicle.doctor import add_options, as_text, examine, packages_for, throttled_since_boot
from vehicle.doctor_devices import FAIL, OK, WARN, Finding
from vehicle.slot_state import SlotState

pytestmark = pytest.mark.slow  # looks at the machine

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = {
    "python", "bits", "machine", "user", "config", "package numpy", "package cv2", "package onnxruntime", "package zmq",
    "package rich", "package flask", "video", "i2c", "pwm", "gpio", "serial", "supply", "temperature", "clock", "disk",
    "calibration", "models", "gate",
}  # fmt: skip


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- without anything


@pytest.mark.parametrize("options", ([], ["--camera", "--i2c"]))
def test_it_runs_on_a_python_that_has_nothing_installed(options: list[str], tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from vehicle.doctor import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, "--json", *options],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": os.defpath},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["ok"] is False
    found = {finding["name"]: finding for finding in said["findings"]}
    assert found.keys() >= NAMES | {"package mujoco"}
    for package in ("numpy", "cv2", "onnxruntime", "zmq"):
        assert found[f"package {package}"]["status"] == FAIL
        assert found[f"package {package}"]["cure"]
    assert found["gate"]["status"] == WARN and "zmq" in found["gate"]["value"]
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_every_command_line_of_it_is_understood_by_the_front_door_too() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args(["--config", "car.toml", "--runtime", "/run/hotlap", "--camera", "--i2c"])
    assert (args.config, args.camera, args.i2c) == (Path("car.toml"), True, True)


# --- the result


def test_a_healthy_car(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    save_calibration(state / "calibration.json", Calibration())
    sha256 = hashlib.sha256(b"bundle").hexdigest()
    write(state / "models" / sha256 / "bundle.tar.gz", "bundle")
    write(state / "models/slots.json", SlotState(current=sha256).to_json())
    write(tmp_path / "dev/video0")
    write(tmp_path / "dev/i2c-1")
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "48312\n")
    car_toml = write(
        tmp_path / "etc/hotlap/car.toml",
        f'state_dir = "{state}"\n[camera]\nkind = "v4l2"\n[actuator]\nkind = "pca9685"\n',
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(doctor_devices, "may_use", lambda path: True)
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args(["--runtime", str(tmp_path)])
    args.json = True
    assert module.doctor(args) == 0
    said = json.loads(capsys.readouterr().out)
    found = {finding["name"]: finding for finding in said["findings"]}
    assert said["ok"] is True
    assert str(car_toml) in found["config"]["value"]
    assert found.keys() == NAMES | {"package smbus2"}
    assert [name for name, finding in found.items() if finding["status"] == FAIL] == []
    assert found["models"]["value"] == f"model {sha256[:12]}"
    assert found["temperature"] == {"name": "temperature", "status": OK, "value": "48 C (at most 85 C)", "cure": ""}

    os.remove(tmp_path / "dev/video0")
    args.json = False
    assert module.doctor(args) == 1
    text = capsys.readouterr().out
    assert "FAIL  video" in text and "/dev/video0 is not there" in text and "cure: " in text
    assert text.endswith("1 of these keeps the car from driving\n")


def test_the_text_says_the_cure_below_the_finding() -> None:
    text = as_text([Finding("a", OK, "fine"), Finding("b", WARN, "so so", "mend it")])
    assert text.splitlines()[1:] == ["warn  b                    so so", " " * 27 + "cure: mend it",
                                     "none of these keeps the car from driving"]  # fmt: skip


def test_limits_are_the_gates_own() -> None:
    assert (module.MAX_TEMPERATURE_C, module.MIN_DISK_BYTES) == (Limits().temperature_c, Limits().disk_free_bytes)
    assert set(module.OF_ACTUATOR) <= set(ACTUATORS)


# --- the machine


def test_what_a_pi_and_a_jetson_are(tmp_path: Path) -> None:
    write(tmp_path / "pi/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path / "pi/etc/os-release", 'NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    found = module._machine(tmp_path / "pi")
    assert found.status == OK
    assert found.value.startswith("Raspberry Pi 5 Model B Rev 1.0, Debian GNU/Linux 12 (bookworm), kernel ")
    for release, status in (("R36", OK), ("R35", WARN)):
        root = tmp_path / release
        write(root / "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
        write(root / "etc/nv_tegra_release", f"# {release} (release), REVISION: 3.0, GCID: 1, BOARD: generic\n")
        found = module._machine(root)
        assert (found.status, f"L4T {release}" in found.value) == (status, True)


def test_32_bit_is_a_failure_with_the_reason() -> None:
    assert module._bits(8).status == OK
    found = module._bits(4)
    assert (found.status, "ONNX Runtime" in found.cure) == (FAIL, True)


@pytest.mark.parametrize(
    ("version", "status"), (((3, 9, 2), FAIL), ((3, 10, 0), OK), ((3, 13, 9), OK), ((3, 14, 0), WARN))
)
def test_pythons(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], status: str) -> None:
    monkeypatch.setattr(module.sys, "version_info", version)
    assert module._python().status == status


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("throttled=0x0\n", []),
        ("throttled=0x50000", ["under-voltage", "throttling"]),
        ("throttled=0xe0008", ["a capped frequency", "throttling", "the soft heat limit"]),
        ("error", []),
        ("", []),
    ),
)
def test_what_a_pi_remembers_of_its_supply(text: str, words: list[str]) -> None:
    assert throttled_since_boot(text) == words


def test_a_supply_that_is_too_low_now_stops_the_car(tmp_path: Path) -> None:
    write(tmp_path / "sys/class/hwmon/hwmon0/name", "rpi_volt\n")
    alarm = write(tmp_path / "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n")
    assert module._supply(tmp_path).status == FAIL
    alarm.write_text("0\n")
    assert module._supply(tmp_path).status == OK


def test_a_supply_that_was_too_low_is_worth_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = write(tmp_path / "bin/vcgencmd", "#!/bin/sh\necho throttled=0x10000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    found = module._supply(tmp_path)
    assert (found.status, "under-voltage" in found.value) == (WARN, True)


@pytest.mark.parametrize(("milli_c", "status"), (("48000", OK), ("82000", WARN), ("86000", FAIL)))
def test_heat(tmp_path: Path, milli_c: str, status: str) -> None:
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", f"{milli_c}\n")
    found = module._temperature(tmp_path)
    assert (found.status, bool(found.cure)) == (status, status != OK)


@pytest.mark.parametrize(("free", "status"), ((10**10, OK), (2 * 10**8, WARN), (10**6, FAIL), (None, WARN)))
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int | None, status: str) -> None:
    monkeypatch.setattr(module, "disk_free_bytes", lambda folder: free)
    assert module._disk(tmp_path).status == status


@pytest.mark.parametrize(("said", "status"), (("yes", OK), ("no", WARN), ("", OK)))
def test_the_clock_never_stops_the_car(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: str
) -> None:
    tool = write(tmp_path / "bin/timedatectl", f"#!/bin/sh\necho {said}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert module._clock(tmp_path).status == status
    write(tmp_path / "run/systemd/timesync/synchronized")
    assert module._clock(tmp_path).status == OK


# --- packages


def test_packages_of_each_actuator() -> None:
    assert {row[0] for row in packages_for("pca9685")} - {row[0] for row in packages_for(None)} == {"smbus2"}
    assert "mujoco" in {row[0] for row in packages_for("sim")}
    assert ("tomli" in {row[0] for row in packages_for(None)}) == (sys.version_info < (3, 11))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    (
        ("__version__ = '1.2'", OK, "1.2"),
        ("raise ImportError('libGL.so.1: cannot open shared object file')", FAIL, "libGL.so.1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", FAIL, "-4"),
    ),
)
def test_a_package_is_tried_and_not_only_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: str, words: str
) -> None:
    write(tmp_path / "doctored.py", body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = module._package("doctored", ("hotlap-doctored",), FAIL, "the pilot")
    assert (found.status, words in found.value) == (status, True)
    assert ("libgl1" in found.cure) == ("libGL" in words)


def test_a_bad_car_toml_does_not_keep_the_rest_from_being_looked_at(tmp_path: Path) -> None:
    findings = examine(tmp_path, write(tmp_path / "car.toml", "nonsense = 1\n"), tmp_path)
    found = {finding.name: finding for finding in findings}
    assert found["config"].status == FAIL
    assert {"package numpy", "video", "gate"} <= found.keys()
