"""A real kernel's devices without their hardware: i2c-stub, the kernel's driver for a PCA9685, vivid.

Widths are not asked of what has written them: they are computed from the registers, by the data sheet's formulas.
"""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

from smbus2 import SMBus

from tests.machine.guest.car import shell
from tests.vehicle.gate_process import until

OURS, KERNELS, NOBODY = 0x40, 0x41, 0x42  # the back-end's chip, the kernel driver's chip, no chip
CLOCK_HZ = 25e6
STEP_US = 20_000 / 4096
_S_CTRL, _QUERYCTRL, _NEXT = 0xC008561C, 0xC0445624, 0x80000000  # of linux/videodev2.h


def i2c_bus() -> int:
    """The number of the stub's bus, with chips of 256 bytes at the first two addresses; loaded where it is not."""
    shell("modprobe", "i2c-dev")
    shell("modprobe", "i2c-stub", f"chip_addr={OURS:#x},{KERNELS:#x}")

    def found() -> list[Path]:
        return [path for path in Path("/sys/class/i2c-dev").glob("i2c-*") if "stub" in (path / "name").read_text()]

    assert until(found, 60.0)
    bus = int(found()[0].name.removeprefix("i2c-"))
    assert until(Path(f"/dev/i2c-{bus}").exists, 60.0)
    return bus


def registers(bus: int, address: int, first: int, count: int) -> list[int]:
    """Registers in a row, by a connection of our own; by force, since the kernel's driver may hold the chip."""
    with SMBus(bus, force=True) as reader:
        return list(reader.read_i2c_block_data(address, first, count))


def i2cget(bus: int, address: int, first: int, count: int) -> list[int]:
    """The same by i2c-tools, which have nothing in common with us."""
    return [int(word, 16) for word in shell("i2cget", "-f", "-y", bus, f"{address:#x}", first, "i", count).split()]


def poke(bus: int, address: int, register: int, value: int) -> None:
    """Write a register behind everybody's back."""
    with SMBus(bus, force=True) as writer:
        writer.write_byte_data(address, register, value)


def power_on(bus: int, address: int) -> None:
    """The registers as the data sheet has them after power-on: asleep, all outputs off. The stub begins with zeros."""
    for register, value in ((0x00, 0x11), (0x01, 0x04), (0xFE, 0x1E), *((0x09 + 4 * led, 0x10) for led in range(16))):
        poke(bus, address, register, value)


def width_us(bus: int, address: int, channel: int) -> float | None:
    """The width of a channel's pulses; None without pulses. NXP PCA9685, 7.3.3 and 7.3.5."""
    [mode1], [prescale] = registers(bus, address, 0x00, 1), registers(bus, address, 0xFE, 1)
    on_low, on_high, off_low, off_high = registers(bus, address, 0x06 + 4 * channel, 4)
    if mode1 & 0x10 or off_high & 0x10:  # asleep, or switched off
        return None
    counts = ((off_low | (off_high & 0x0F) << 8) - (on_low | (on_high & 0x0F) << 8)) % 4096
    return counts * (prescale + 1) / CLOCK_HZ * 1e6


def frame_us(bus: int, address: int) -> float:
    """The time from pulse to pulse."""
    return 4096 * (registers(bus, address, 0xFE, 1)[0] + 1) / CLOCK_HZ * 1e6


def bind_kernel_driver(bus: int) -> Path:
    """Give the second chip to pwm-pca9685; its pwmchip."""
    shell("modprobe", "pwm-pca9685")
    device = Path(f"/sys/bus/i2c/devices/{bus}-{KERNELS:04x}")
    if not device.exists():
        power_on(bus, KERNELS)
        Path(f"/sys/bus/i2c/devices/i2c-{bus}/new_device").write_text(f"pca9685 {KERNELS:#x}\n")
    assert until(lambda: list(device.glob("pwm/pwmchip*")), 60.0)
    [chip] = device.glob("pwm/pwmchip*")
    return Path("/sys/class/pwm") / chip.name


def unbind_kernel_driver(bus: int, again: bool = False) -> None:
    """Take the chip from its driver, as when a bus is lost; or give it back."""
    Path(f"/sys/bus/i2c/drivers/pca9685-pwm/{'bind' if again else 'unbind'}").write_text(f"{bus}-{KERNELS:04x}\n")


def load_camera() -> Path:
    """One capture device of vivid."""
    shell("modprobe", "vivid", "n_devs=1", "node_types=0x1")

    def found() -> list[Path]:
        return [
            path for path in Path("/sys/class/video4linux").glob("video*") if "vivid" in (path / "name").read_text()
        ]

    assert until(found, 60.0)
    device = Path("/dev") / found()[0].name
    assert until(device.exists, 60.0)
    shell("udevadm", "settle")
    return device


def unload_camera() -> None:
    """As when its cable is pulled, and its driver is gone; whoever has it open must close it first."""
    assert until(lambda: shell("modprobe", "-r", "vivid", status=None) == "" and not _loaded("vivid"), 60.0)


def _loaded(module: str) -> bool:
    return Path(f"/sys/module/{module}").exists()


def set_control(device: Path, name: str, value: int) -> None:
    """Set one of vivid's controls, which make it misbehave, by its name."""
    with open(device, "rb+", buffering=0) as file:
        query = bytearray(68)
        at = _NEXT
        while True:
            struct.pack_into("I", query, 0, at)
            fcntl.ioctl(file, _QUERYCTRL, query)  # OSError: there is no such control
            number = struct.unpack_from("I", query, 0)[0]
            if query[8:40].split(b"\0")[0].decode() == name:
                break
            at = number | _NEXT
        fcntl.ioctl(file, _S_CTRL, struct.pack("Ii", number, value))
