"""Programs the microcontroller with avrdude, after looking whether that can go well."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.board import FIRMWARE
from firmware_bridge.errors import BridgeError, LinkError
from firmware_bridge.finder import AUTO, find_bridges, usb_ports
from firmware_bridge.wire import Wire

HEX = FIRMWARE / "build" / "bridge.hex"
PART = "atmega328p"
FLASH_BYTES = 32768
OPTIBOOT_BYTES = 512  # at the end of the flash
OPTIBOOT_BAUD = 115_200
OLD_BAUD = 57_600  # ATmegaBOOT of older Nanos
SERIAL_PROGRAMMER = "arduino"  # a bootloader on the serial port; others (usbasp, stk500v2) write through the ISP pins
TIMEOUT_S = 120.0
_MAKE = f"make -C {FIRMWARE.parent.name}/{FIRMWARE.name}"


class FlashError(BridgeError, RuntimeError):
    """The firmware is not there or damaged, avrdude is not installed, or it failed."""


@dataclass(frozen=True)
class Image:
    """A checked hex file: where it is and how many bytes it programs."""

    path: Path
    size: int


def read_image(path: Path | None = None) -> Image:
    """Check an Intel HEX file: every record's checksum, its end, and that it leaves the bootloader alone.

    Args:
        path: None for the one that ``make -C firmware_bridge/firmware`` builds.

    Raises:
        FlashError: not there, damaged, cut short, empty or too large.
    """
    path = HEX if path is None else path
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise FlashError(
            f"{path}: {'is not there' if missing else f'cannot be read: {error}'}",
            cause="the firmware has not been built" if missing else "it is no Intel HEX file",
            next_step=f"sudo apt-get install gcc-avr avr-libc make && {_MAKE}",
        ) from error
    used: set[int] = set()
    base = 0
    ended = False
    for number, line in enumerate(lines, 1):
        record = _record(path, number, line)
        address, kind, data = base + int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        if ended or kind not in (0, 1, 2, 3, 4):
            raise _damaged(path, number, "a record after the end" if ended else f"a record of type {kind}")
        if kind == 0:
            used.update(range(address, address + len(data)))
        elif kind in (2, 4):  # extended segment and linear addresses
            base = int.from_bytes(data, "big") << (4 if kind == 2 else 16)
        ended = kind == 1
    if not ended:
        raise _damaged(path, len(lines), "the end record is missing")
    room = FLASH_BYTES - OPTIBOOT_BYTES
    if not used or min(used) != 0 or max(used) >= room:
        raise FlashError(
            f"{path}: {len(used)} bytes from {min(used, default=0):#06x} on are no program for an ATmega328P",
            cause=f"it must begin at 0 and end below {room:#06x}, where the bootloader begins",
            next_step=f"{_MAKE} clean all",
        )
    return Image(path, len(used))


def flash(port: str, image: Image, *, baud: int = OPTIBOOT_BAUD, programmer: str = SERIAL_PROGRAMMER) -> None:
    """Write the image to the chip and let avrdude verify it.

    Args:
        port: of the bootloader; ISP programmers on USB need none.
        baud: of the bootloader.

    Raises:
        FlashError: avrdude is not installed, or fails; says why, as far as its words tell.
        LinkError: the port cannot be opened, or another program has it.
    """
    avrdude = shutil.which("avrdude")
    if avrdude is None:
        raise FlashError(
            "avrdude is not installed",
            cause="it is the program that writes to AVR microcontrollers; hotlap brings none",
            next_step="sudo apt-get install avrdude",
        )
    serial_port = programmer == SERIAL_PROGRAMMER
    if serial_port:
        Wire(port).close()  # avrdude would fight with a gate over the port: it does not look at locks
    command = avrdude_command(avrdude, port, image, baud=baud, programmer=programmer)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise FlashError(
            f"avrdude did not end within {TIMEOUT_S:.0f} s", cause="the port hangs", next_step="plug the board in again"
        ) from error
    if done.returncode != 0:
        raise _failed(done, port, baud, serial_port)


def avrdude_command(avrdude: str, port: str, image: Image, *, baud: int, programmer: str) -> list[str]:
    """The command line. Through a bootloader without erasing the chip (-D): the pages are, one by one."""
    command = [avrdude, "-p", PART, "-c", programmer]
    if port:
        command += ["-P", port]
    if programmer == SERIAL_PROGRAMMER:
        command += ["-b", str(baud), "-D"]
    return [*command, "-U", f"flash:w:{image.path}:i"]


def port_to_flash(port: str = AUTO) -> str:
    """The port that is meant: the one that is named, one with a bridge on it, or the only one on USB.

    Raises:
        LinkError: none, or several of which none is known to be the board.
    """
    if port != AUTO:
        return port
    ports = usb_ports()
    if len(ports) > 1:
        bridges = [found.port for found in find_bridges(ports) if found.hello is not None]
        ports = bridges or ports
    if len(ports) == 1:
        return ports[0]
    raise LinkError(
        f"{len(ports)} serial ports on USB: {', '.join(ports) or 'the board is not plugged in'}",
        cause="which of them is the board cannot be told" if ports else "no board, or a cable that only charges",
        next_step="hotlap bridge flash --port PORT" if ports else "lsusb",
    )


def _record(path: Path, number: int, line: str) -> bytes:
    try:
        record = bytes.fromhex(line[1:]) if line.startswith(":") else b""
    except ValueError:
        record = b""
    if len(record) < 5 or len(record) != record[0] + 5 or sum(record) & 0xFF:
        raise _damaged(path, number, "no record, or a wrong checksum")
    return record


def _damaged(path: Path, number: int, what: str) -> FlashError:
    return FlashError(
        f"{path}, line {number}: {what}", cause="the file is damaged or cut short", next_step=f"{_MAKE} clean all"
    )


def _failed(done: subprocess.CompletedProcess[str], port: str, baud: int, serial_port: bool) -> FlashError:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fail" in line.lower()] or lines[-1:]
    said = telling[0] if telling else "it said nothing"
    what = f"avrdude failed with status {done.returncode}: {said}"
    text = done.stderr.lower()
    if "not in sync" in text or "programmer is not responding" in text:
        other, whose = (OLD_BAUD, "an older Nano's") if baud == OPTIBOOT_BAUD else (OPTIBOOT_BAUD, "Optiboot")
        return FlashError(
            what,
            cause=f"no bootloader answers at {baud} baud: {whose} has {other}, and an empty chip has none",
            next_step=f"hotlap bridge flash --port {port} --baud {other}; or replace the bootloader (docs/bridge.md)",
        )
    if "signature" in text:
        return FlashError(what, cause="another chip than an ATmega328P", next_step="use a Nano or Uno with that chip")
    if "verification" in text or "mismatch" in text:
        return FlashError(
            what,
            cause="the flash does not hold what was written: a weak supply, or a worn chip",
            next_step="try again; then another board",
        )
    if "cannot find usb device" in text or "could not find usb device" in text:
        return FlashError(what, cause="the programmer is not plugged in", next_step="lsusb")
    if "permission" in text or "can't open device" in text or "cannot open" in text:
        cause = f"{port} is gone, in use, or this user is not in the group dialout" if serial_port else "no programmer"
        return FlashError(what, cause=cause, next_step="sudo usermod -aG dialout $USER, then log in again")
    return FlashError(what, cause="its own words are above", next_step="hotlap bridge find")
