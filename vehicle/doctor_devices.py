"""What `hotlap doctor` looks at in /dev and /sys: cameras, buses, pins, ports, and whether this user may use them.

Needs nothing but Python, and changes nothing. Every path is under a root folder, so that tests can build a machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

OK, WARN, FAIL = "ok", "warn", "fail"
SERVICE = Path("etc/systemd/system/hotlap-gate.service")
I2C_SLAVE = 0x0703  # linux/i2c-dev.h
I2C_ADDRESSES = range(0x08, 0x78)  # the others are reserved by the bus's standard
_INSTALL = "sudo make install-car (it adds the udev rules), then log in again"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: stable, for programs.
        status: "ok"; "warn", worth knowing; "fail", the car does not drive like this.
        value: what was found.
        cure: the next step, "" where there is nothing to do.
    """

    name: str
    status: str
    value: str
    cure: str = ""


@dataclass(frozen=True)
class Needs:
    """The devices that car.toml asks for; None or False is "not asked for".

    Args:
        video: a device file, or "" for any camera.
        i2c_bus: a number.
        serial: a device file, or "auto".
    """

    video: str | None = None
    i2c_bus: int | None = None
    pwm: bool = False
    gpio: bool = False
    serial: str | None = None


@dataclass(frozen=True)
class SerialPort:
    """A port on USB; `usb_id` is "VENDOR:PRODUCT" in hexadecimal, or "" where it cannot be told."""

    path: Path
    usb_id: str
    product: str


def read(path: Path) -> str:
    """A small file's text without white space and zero bytes around it, "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return ""


def numbered(folder: Path, prefix: str) -> list[Path]:
    """``prefix0``, ``prefix1``, ... of a folder, by number."""
    found = [path for path in folder.glob(f"{prefix}*") if path.name.removeprefix(prefix).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(prefix)))


def may_use(path: Path) -> bool:
    """Whether this user may read and write it."""
    return os.access(path, os.R_OK | os.W_OK)


def user_name() -> str:
    """The name of the user who asks, or the number where there is no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def cure_of(path: Path) -> str:
    """How this user comes to use a file: by joining its group, where the group may; else by our udev rules."""
    try:
        found = path.stat()
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return _INSTALL
    shared = stat.S_IMODE(found.st_mode) & 0o060 == 0o060
    return _INSTALL if group == "root" or not shared else f"sudo usermod -aG {group} {user_name()}, then log in again"


# --- findings


def device_findings(root: Path, needs: Needs) -> list[Finding]:
    """One finding for each kind of device."""
    return [_video(root, needs), _i2c(root, needs), _pwm(root, needs), _gpio(root, needs), _serial(root, needs)]


def _video(root: Path, needs: Needs) -> Finding:
    found = numbered(root / "dev", "video")
    names = [_named(path, read(root / "sys/class/video4linux" / path.name / "name")) for path in found]
    if needs.video is None:
        return _listed("video", names)
    wanted = [_inside(root, needs.video)] if needs.video else found
    return _judged(
        root, "video", names, [path for path in wanted if path.exists()], needs.video or "any camera",
        "check the cable; Pi: rpicam-hello --list-cameras; else v4l2-ctl --list-devices",
    )  # fmt: skip


def _i2c(root: Path, needs: Needs) -> Finding:
    found = numbered(root / "dev", "i2c-")
    names = [_named(path, read(root / "sys/class/i2c-dev" / path.name / "name")) for path in found]
    if needs.i2c_bus is None:
        return _listed("i2c", names)
    wanted = root / f"dev/i2c-{needs.i2c_bus}"
    return _judged(
        root, "i2c", names, [path for path in found if path == wanted], f"/dev/{wanted.name}",
        "Pi: sudo raspi-config nonint do_i2c 0; or set actuator.i2c_bus in car.toml",
    )  # fmt: skip


def _pwm(root: Path, needs: Needs) -> Finding:
    found = numbered(root / "sys/class/pwm", "pwmchip")
    names = []
    for chip in found:
        driver = (chip / "device/driver").resolve().name if (chip / "device/driver").exists() else "?"
        names.append(f"{chip.name} ({read(chip / 'npwm') or '?'} channels, {driver})")
    if not needs.pwm:
        return _listed("pwm", names)
    # The channels appear after an export, which is what must be allowed first.
    exports = [chip / "export" for chip in found if (chip / "export").exists()]
    return _judged(
        root, "pwm", names, exports, "a chip in /sys/class/pwm",
        "Pi: add dtoverlay=pwm-2chan to /boot/firmware/config.txt and reboot (docs/actuators.md)",
        allowed=lambda path: os.access(path, os.W_OK),
    )  # fmt: skip


def _gpio(root: Path, needs: Needs) -> Finding:
    found = numbered(root / "dev", "gpiochip")
    memory = sorted((root / "dev").glob("gpiomem*"))
    names = [path.name for path in (*found, *memory)]
    if not needs.gpio:
        return _listed("gpio", names)
    cure = "this machine has no GPIO pins: use a PCA9685"
    return _judged(root, "gpio", names, found or memory, "/dev/gpiochip0", cure)


def _serial(root: Path, needs: Needs) -> Finding:
    ports = serial_ports(root)
    names = [_named(port.path, " ".join(part for part in (port.usb_id, port.product) if part)) for port in ports]
    if needs.serial is None:
        return _listed("serial", names)
    wanted = [port.path for port in ports] if needs.serial == "auto" else [_inside(root, needs.serial)]
    return _judged(
        root, "serial", names, [path for path in wanted if path.exists()],
        "a port on USB" if needs.serial == "auto" else needs.serial,
        "plug the microcontroller in; on Ubuntu the package brltty takes CH340 converters: sudo apt-get remove brltty",
    )  # fmt: skip


def serial_ports(root: Path) -> list[SerialPort]:
    """The serial ports on USB, with the id of the device that each belongs to."""
    ports = []
    for prefix in ("ttyUSB", "ttyACM"):
        for tty in numbered(root / "sys/class/tty", prefix):
            # Between the tty and the USB device are its interface, and for a converter its port.
            device = (tty / "device").resolve()
            usb = next((at for at in (device, *list(device.parents)[:3]) if (at / "idVendor").exists()), None)
            usb_id = f"{read(usb / 'idVendor')}:{read(usb / 'idProduct')}" if usb else ""
            ports.append(SerialPort(root / "dev" / tty.name, usb_id, read(usb / "product") if usb else ""))
    return ports


def _listed(name: str, names: list[str]) -> Finding:
    return Finding(name, OK, f"{', '.join(names) or 'none'}; car.toml needs none")


def _judged(
    root: Path,
    name: str,
    names: list[str],
    wanted: Iterable[Path],
    what: str,
    missing_cure: str,
    allowed: Callable[[Path], bool] | None = None,
) -> Finding:
    """For a device that car.toml needs: there, and this user may use one of those that would do."""
    candidates = list(wanted)
    found = ", ".join(names) or "none"
    if not candidates:
        return Finding(name, FAIL, f"{what} is not there; found: {found}", missing_cure)
    refused = [path for path in candidates if not (allowed or may_use)(path)]
    if len(refused) < len(candidates):
        return Finding(name, OK, found)
    value = f"{user_name()} may not use {', '.join('/' + str(path.relative_to(root)) for path in refused)}"
    if (root / SERVICE).exists() and user_name() != "hotlap":
        return Finding(name, WARN, f"{value}; the service runs as hotlap", "sudo -u hotlap hotlap doctor")
    return Finding(name, FAIL, value, cure_of(refused[0]))


def _named(path: Path, name: str) -> str:
    return f"{path.name} ({name})" if name else path.name


def _inside(root: Path, device: str) -> Path:
    """A device file that car.toml names, under the root folder; a bare number is a video device."""
    return root / (f"dev/video{device}" if device.isdecimal() else device.lstrip("/"))


# --- the bus scan


def scan_i2c(device: Path) -> list[str]:
    """Ask every address of a bus for one byte; nothing is written.

    Returns:
        the addresses that answer, as "0x40"; "0x40 (kernel)" for one that a driver of the kernel holds.

    Raises:
        OSError: the bus cannot be opened.
    """
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    found = []
    try:
        for address in I2C_ADDRESSES:
            try:
                fcntl.ioctl(fd, I2C_SLAVE, address)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    found.append(f"{address:#04x} (kernel)")
                continue
            with contextlib.suppress(OSError):  # nobody there
                if os.read(fd, 1):
                    found.append(f"{address:#04x}")
    finally:
        os.close(fd)
    return found


def i2c_finding(root: Path, bus: int, wanted: int | None) -> Finding:
    """Scan one bus.

    Args:
        wanted: the address that car.toml names, or None.
    """
    device = root / f"dev/i2c-{bus}"
    try:
        found = scan_i2c(device)
    except OSError as error:
        return Finding("i2c_scan", WARN, f"/dev/{device.name}: {error.strerror or error}", cure_of(device))
    value = f"/dev/{device.name}: {', '.join(found) or 'nobody answers'}"
    if wanted is None or f"{wanted:#04x}" in found:
        return Finding("i2c_scan", OK, value)
    if f"{wanted:#04x} (kernel)" in found:
        cure = 'actuator.kind = "sysfs_pwm" in car.toml, or remove dtoverlay=i2c-pwm-pca9685a and reboot'
        return Finding("i2c_scan", FAIL, f"{value}; the kernel's own driver holds the chip", cure)
    cure = "check the wires and the 3.3 V of the PWM board; set actuator.i2c_bus and i2c_address in car.toml"
    return Finding("i2c_scan", FAIL, f"{value}; no chip at {wanted:#04x}", cure)
