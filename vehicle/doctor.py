"""``hotlap doctor``: what this machine has, what the car needs, and what to do about the difference.

It works with nothing installed but Python: whatever else it looks at, it imports only where it is there, and it says so
where it is not. It changes nothing. ``python -m vehicle.doctor`` is the same, for a checkout without an installation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vehicle import doctor_car as car
from vehicle.doctor_car import ask, last_line
from vehicle.doctor_devices import FAIL, OK, SERVICE, WARN, Finding, device_findings, read, user_name
from vehicle.health import disk_free_bytes, temperature_c, undervoltage

ROOT = Path("/")
CAR_TOML = Path("etc/hotlap/car.toml")
PYTHONS = ((3, 10), (3, 13))  # what is tested, both included
# Import name, names of the distributions that bring it, and what cannot be done without it.
PACKAGES = (
    ("numpy", ("numpy",), FAIL, "the pilot"),
    ("cv2", ("opencv-python", "opencv-python-headless", "opencv-contrib-python"), FAIL, "the pilot"),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), FAIL, "the pilot"),
    ("zmq", ("pyzmq",), FAIL, "gate and pilot"),
    ("tomli", ("tomli",), FAIL, "reading car.toml"),  # only where Python has no tomllib
    ("rich", ("rich",), WARN, "tables of the command line"),
    ("flask", ("flask",), WARN, "the console"),
)
OF_ACTUATOR = {
    "sim": ("mujoco", ("mujoco",), FAIL, "the simulated car"),
    "pca9685": ("smbus2", ("smbus2",), FAIL, "the actuator pca9685"),
    "rpi_gpio": ("RPi", ("RPi.GPIO", "rpi-lgpio"), FAIL, "the actuator rpi_gpio"),
    "bridge": ("serial", ("pyserial",), FAIL, "the actuator bridge"),
}
# As in vehicle.arming.Limits, which needs more than Python on 3.10.
MAX_TEMPERATURE_C, MIN_DISK_BYTES = 85.0, 50_000_000
WARM_C, LITTLE_DISK_BYTES = 80.0, 500_000_000  # a Pi begins to slow down; an install of a model and its logs fit
IMPORT_TIMEOUT_S, TOOL_TIMEOUT_S = 60.0, 5.0
# Bits of the Pi firmware's get_throttled that stay set until a reboot.
THROTTLED_SINCE_BOOT = {16: "under-voltage", 17: "a capped frequency", 18: "throttling", 19: "the soft heat limit"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap doctor``, but for --json."""
    parser.add_argument("--config", type=Path, metavar="car.toml", help=f"the car (default: /{CAR_TOML} where it is)")
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="folder of the sockets (default: found)")
    parser.add_argument("--camera", action="store_true", help="open the camera and take pictures")
    parser.add_argument("--i2c", action="store_true", help="ask every address of the I2C bus for a byte")


def doctor(args: argparse.Namespace) -> int:
    """``hotlap doctor``: 1 where something stops the car from driving."""
    findings = examine(ROOT, args.config, args.runtime, camera=args.camera, i2c=args.i2c)
    ok = all(finding.status != FAIL for finding in findings)
    if args.json:
        print(json.dumps({"ok": ok, "findings": [vars(finding) for finding in findings]}), flush=True)
    else:
        print(as_text(findings), flush=True)
    return 0 if ok else 1


def as_text(findings: Sequence[Finding]) -> str:
    """The findings for people."""
    lines = []
    for finding in findings:
        mark = finding.status.upper() if finding.status == FAIL else finding.status
        lines.append(f"{mark:4}  {finding.name:19}  {finding.value}")
        if finding.cure:
            lines.append(f"{'':27}cure: {finding.cure}")
    failed = sum(finding.status == FAIL for finding in findings)
    lines.append(f"{failed or 'none'} of these keep{'' if failed > 1 else 's'} the car from driving")
    return "\n".join(lines)


def examine(
    root: Path, car_toml: Path | None, runtime: Path | None, *, camera: bool = False, i2c: bool = False
) -> list[Finding]:
    """Look at everything.

    Args:
        root: the folder that /dev, /etc, /proc and /sys are in.
        camera, i2c: do what those options say.
    """
    if car_toml is None and (root / CAR_TOML).exists():
        car_toml = root / CAR_TOML
    config, configured = car.read_config(car_toml)
    kind = config.actuator.kind if config is not None else None
    findings = [_python(), _bits(), _machine(root), _user(root), configured]
    findings += [_package(*package) for package in packages_for(kind)]
    findings += device_findings(root, car.needs_of(config))
    findings += [_supply(root), _temperature(root), _clock(root)]
    if config is not None:
        findings += [_disk(config.state_path()), car.calibration_finding(config), car.models_finding(config)]
    gate, armed = car.gate_finding(root, runtime)
    findings.append(gate)
    if i2c:
        findings.append(car.scan_finding(root, config, armed))
    if camera:
        findings.append(car.camera_finding(car_toml, config))
    return findings


# --- the machine


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < PYTHONS[0]:
        return Finding("python", FAIL, version, "install Python 3.10 or newer: JetPack 6, or Raspberry Pi OS Bookworm")
    if sys.version_info[:2] > PYTHONS[1]:
        return Finding("python", WARN, f"{version}: newer than what hotlap is tested with", "3.10 to 3.13 are tested")
    return Finding("python", OK, f"{version}, {sys.executable or 'unknown executable'}")


def _bits(pointer_bytes: int = struct.calcsize("P")) -> Finding:
    bits = 8 * pointer_bytes
    if bits == 64:
        return Finding("bits", OK, f"64-bit, {platform.machine()}")
    cure = "write Raspberry Pi OS (64-bit) to the card: ONNX Runtime does not exist for 32-bit systems"
    return Finding("bits", FAIL, f"{bits}-bit Python on {platform.machine()}", cure)


def _machine(root: Path) -> Finding:
    model = read(root / "proc/device-tree/model") or read(root / "sys/class/dmi/id/product_name") or "unknown model"
    system = [line for line in read(root / "etc/os-release").splitlines() if line.startswith("PRETTY_NAME=")]
    parts = [model, system[0].partition("=")[2].strip('"') if system else "", f"kernel {platform.release()}"]
    tegra = read(root / "etc/nv_tegra_release").split(" (")[0].removeprefix("# ")  # "# R36 (release), REVISION: 3.0"
    if tegra and tegra < "R36":
        return Finding("machine", WARN, f"{model}, L4T {tegra}", "JetPack 6 (R36): older ones bring Python 3.8")
    return Finding("machine", OK, ", ".join(part for part in (*parts, tegra and f"L4T {tegra}") if part))


def _user(root: Path) -> Finding:
    if os.geteuid() == 0:
        cure = "sudo -u hotlap hotlap doctor" if (root / SERVICE).exists() else "hotlap doctor, without sudo"
        return Finding("user", WARN, "root may use every device, which says nothing of other users", cure)
    return Finding("user", OK, user_name())


def packages_for(kind: str | None) -> list[tuple[str, tuple[str, ...], str, str]]:
    """The rows of `PACKAGES` that this Python and this actuator need."""
    wanted = [row for row in PACKAGES if row[0] != "tomli" or sys.version_info < (3, 11)]
    return wanted + ([OF_ACTUATOR[kind]] if kind in OF_ACTUATOR else [])


def _package(module: str, distributions: Sequence[str], status: str, what_for: str) -> Finding:
    """Whether a module can be imported. In another process, since a library for another processor crashes."""
    name = f"package {module}"
    if importlib.util.find_spec(module) is None:
        cure = "pip install 'hotlap[train]'" if module == "mujoco" else "make setup; on a car: sudo make install-car"
        return Finding(name, status, f"not installed: {what_for} cannot run", cure)
    script = f"import {module}; print(getattr({module}, '__version__', ''))"
    answer = ask([sys.executable, "-c", script], IMPORT_TIMEOUT_S)
    if answer is None or answer.returncode != 0:
        last = last_line(answer) if answer is not None else "it hangs"
        cure = f"pip install --force-reinstall {distributions[0]}"
        if any(library in last for library in ("libGL", "libglib", "libgthread")):
            cure = "sudo apt-get install libgl1 libglib2.0-0"
        return Finding(name, status, f"does not import: {last}", cure)
    return Finding(name, OK, _version(distributions) or answer.stdout.strip() or "of an unknown version")


def _version(distributions: Sequence[str]) -> str:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _supply(root: Path) -> Finding:
    low = undervoltage(root / "sys")
    cure = "charge the battery, use a shorter and thicker cable, or a supply of 5 V and 3 A"
    if low:
        return Finding("supply", FAIL, "the voltage is too low now", cure)
    vcgencmd = shutil.which("vcgencmd")
    answer = ask([vcgencmd, "get_throttled"], TOOL_TIMEOUT_S) if vcgencmd else None
    past = throttled_since_boot(answer.stdout) if answer is not None else []
    if past:
        return Finding("supply", WARN, f"since the start there was {', '.join(past)}", f"{cure}; more cooling for heat")
    return Finding("supply", OK, "not measured here" if low is None else "enough")


def throttled_since_boot(text: str) -> list[str]:
    """What ``vcgencmd get_throttled`` ("throttled=0x50000") says has happened since the start."""
    try:
        flags = int(text.partition("=")[2].strip(), 16)
    except ValueError:
        return []
    return [words for bit, words in THROTTLED_SINCE_BOOT.items() if flags >> bit & 1]


def _temperature(root: Path) -> Finding:
    found = temperature_c(root / "sys")
    if found is None:
        return Finding("temperature", OK, "not measured here")
    status = FAIL if found > MAX_TEMPERATURE_C else WARN if found > WARM_C else OK
    cure = "let it cool down; a fan or a heat sink" if status != OK else ""
    return Finding("temperature", status, f"{found:.0f} C (at most {MAX_TEMPERATURE_C:.0f} C)", cure)


def _disk(folder: Path) -> Finding:
    free = disk_free_bytes(folder)
    if free is None:
        return Finding("disk", WARN, f"{folder}: cannot be asked", f"df {folder}")
    status = FAIL if free < MIN_DISK_BYTES else WARN if free < LITTLE_DISK_BYTES else OK
    cure = "hotlap models remove SHA, or remove old logs" if status != OK else ""
    return Finding("disk", status, f"{folder}: {free / 1e6:.0f} MB free", cure)


def _clock(root: Path) -> Finding:
    """Driving uses CLOCK_MONOTONIC; the time of day is for dates of files, and for TLS."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return Finding("clock", OK, "synchronised")
    tool = shutil.which("timedatectl")
    answer = ask([tool, "show", "--property=NTPSynchronized", "--value"], TOOL_TIMEOUT_S) if tool else None
    said = answer.stdout.strip() if answer is not None else ""
    if said == "no":
        return Finding("clock", WARN, "not synchronised (driving does not need it)", "sudo timedatectl set-ntp true")
    return Finding("clock", OK, "synchronised" if said == "yes" else "cannot be told here")


def main(argv: Sequence[str] | None = None, run: Callable[[argparse.Namespace], int] = doctor) -> int:
    """``python -m vehicle.doctor``."""
    parser = argparse.ArgumentParser(prog="python -m vehicle.doctor", description="What keeps this car from driving?")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
