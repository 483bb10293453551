"""Devices of machines that are built in a folder: what is there, who may use it, and who answers on the bus."""

from __future__ import annotations

import argparse
import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from vehicle import doctor_devices
from vehicle.doctor_devices import (
    FAIL,
    OK,
    SERVICE,
    WARN,
    Finding,
    Needs,
    device_findings,
    i2c_finding,
    scan_i2c,
    serial_ports,
)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def devices(root: Path, **needs: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in device_findings(root, Needs(**needs))}


@pytest.fixture
def car(tmp_path: Path) -> Path:
    """A machine with one of everything."""
    for name in ("video0", "i2c-1", "gpiochip0", "ttyACM0", "ttyUSB0"):
        write(tmp_path / "dev" / name)
    write(tmp_path / "sys/class/video4linux/video0/name", "USB 2.0 Camera\n")
    write(tmp_path / "sys/class/i2c-dev/i2c-1/name", "bcm2835 (i2c@7e804000)\n")
    write(tmp_path / "sys/class/pwm/pwmchip0/npwm", "2\n")
    write(tmp_path / "sys/class/pwm/pwmchip0/export")
    # A plain CDC port hangs on its interface, a converter's on a port of the interface.
    for tty, where, ids in (
        ("ttyACM0", "usb1/1-1/1-1:1.0", ("2341", "0043", "Arduino Uno")),
        ("ttyUSB0", "usb1/1-2/1-2:1.0/ttyUSB0", ("1a86", "7523", "")),
    ):
        interface = tmp_path / "sys/devices" / where
        interface.mkdir(parents=True)
        usb = tmp_path / "sys/devices" / Path(*Path(where).parts[:2])
        for name, text in zip(("idVendor", "idProduct", "product"), ids, strict=True):
            write(usb / name, text + "\n")
        write(tmp_path / "sys/class/tty" / tty / "dev")
        (tmp_path / "sys/class/tty" / tty / "device").symlink_to(interface)
    write(tmp_path / "sys/class/tty/ttyS0/dev")
    return tmp_path


ALL = {"video": "/dev/video0", "i2c_bus": 1, "pwm": True, "gpio": True, "serial": "auto"}


def test_serial_ports_have_the_id_of_their_usb_device(car: Path) -> None:
    found = {port.path.name: (port.usb_id, port.product) for port in serial_ports(car)}
    assert found == {"ttyUSB0": ("1a86:7523", ""), "ttyACM0": ("2341:0043", "Arduino Uno")}


def test_what_is_there_is_named(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices, "may_use", lambda path: True)
    found = devices(car, **ALL)
    assert {finding.status for finding in found.values()} == {OK}
    assert found["video"].value == "video0 (USB 2.0 Camera)"
    assert found["i2c"].value == "i2c-1 (bcm2835 (i2c@7e804000))"
    assert found["pwm"].value == "pwmchip0 (2 channels, ?)"
    assert found["serial"].value == "ttyUSB0 (1a86:7523), ttyACM0 (2341:0043 Arduino Uno)"


def test_what_is_missing_fails_only_where_it_is_needed(tmp_path: Path) -> None:
    assert {finding.status for finding in devices(tmp_path).values()} == {OK}
    found = devices(tmp_path, **ALL)
    assert {finding.status for finding in found.values()} == {FAIL}
    assert all(finding.cure for finding in found.values())
    assert "do_i2c" in found["i2c"].cure and "pwm-2chan" in found["pwm"].cure


def test_another_bus_or_camera_than_the_one_named_does_not_help(car: Path) -> None:
    found = devices(car, video="/dev/video7", i2c_bus=7)
    assert "/dev/video7 is not there; found: video0" in found["video"].value
    assert found["i2c"].status == FAIL
    assert devices(car, video="7")["video"].status == FAIL


def test_a_number_is_a_camera_too(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices, "may_use", lambda path: path.name == "video0")
    assert devices(car, video="0")["video"].status == OK


def test_permissions_and_their_cure(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices, "may_use", lambda path: False)
    monkeypatch.setattr(doctor_devices, "user_name", lambda: "pi")
    monkeypatch.setattr(doctor_devices.grp, "getgrgid", lambda gid: argparse.Namespace(gr_name="i2c"))
    bus = car / "dev/i2c-1"
    bus.chmod(0o660)
    found = devices(car, i2c_bus=1)["i2c"]
    assert (found.status, found.value) == (FAIL, "pi may not use /dev/i2c-1")
    assert found.cure == "sudo usermod -aG i2c pi, then log in again"
    bus.chmod(0o600)  # the group would not help
    assert "install-car" in devices(car, i2c_bus=1)["i2c"].cure
    monkeypatch.setattr(doctor_devices.grp, "getgrgid", lambda gid: argparse.Namespace(gr_name="root"))
    bus.chmod(0o660)  # nobody should join the group root
    assert "install-car" in devices(car, i2c_bus=1)["i2c"].cure


def test_the_permissions_of_a_person_do_not_stop_a_service(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices, "may_use", lambda path: False)
    monkeypatch.setattr(doctor_devices, "user_name", lambda: "pi")
    write(car / SERVICE)
    found = devices(car, gpio=True)["gpio"]
    assert (found.status, found.cure) == (WARN, "sudo -u hotlap hotlap doctor")
    monkeypatch.setattr(doctor_devices, "user_name", lambda: "hotlap")
    assert devices(car, gpio=True)["gpio"].status == FAIL


# --- the bus scan


class Bus:
    """Stand-ins for ioctl and read on an I2C bus."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, present: tuple[int, ...], kernel: tuple[int, ...] = ()) -> None:
        self.address = 0
        self.asked: list[int] = []

        def ioctl(fd: int, request: int, address: int) -> int:
            assert request == 0x0703
            if address in kernel:
                raise OSError(errno.EBUSY, "busy")
            self.address = address
            return 0

        def read(fd: int, size: int) -> bytes:
            assert size == 1
            self.asked.append(self.address)
            if self.address not in present:
                raise OSError(errno.EREMOTEIO, "nobody")
            return b"\x00"

        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        monkeypatch.setattr(doctor_devices.os, "read", read)


def test_a_scan_asks_every_address_and_writes_nothing(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(monkeypatch, present=(0x40, 0x70), kernel=(0x41,))
    monkeypatch.setattr(doctor_devices.os, "write", lambda *_: pytest.fail("a scan writes nothing"))
    assert scan_i2c(car / "dev/i2c-1") == ["0x40", "0x41 (kernel)", "0x70"]
    assert bus.asked == [address for address in range(0x08, 0x78) if address != 0x41]


@pytest.mark.parametrize(
    ("present", "kernel", "status", "words"),
    (
        ((0x40,), (), OK, "0x40"),
        ((), (), FAIL, "no chip at 0x40"),
        ((0x41,), (), FAIL, "no chip at 0x40"),
        ((), (0x40,), FAIL, "the kernel's own driver"),
    ),
)
def test_the_chip_that_car_toml_names(
    car: Path,
    monkeypatch: pytest.MonkeyPatch,
    present: tuple[int, ...],
    kernel: tuple[int, ...],
    status: str,
    words: str,
) -> None:
    Bus(monkeypatch, present, kernel)
    found = i2c_finding(car, 1, 0x40)
    assert (found.status, words in found.value) == (status, True)
    assert bool(found.cure) == (status != OK)
