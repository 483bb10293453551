"""How the computer is: temperature, supply voltage, disk, load. Read from /sys and the file system, no other program.

Each figure is None where this machine has no way to measure it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
# Zone types of processors: Pi (cpu-thermal), Jetson (cpu-thermal, CPU-therm, tj-thermal), PC (x86_pkg_temp, acpitz).
_PROCESSOR_ZONES = ("cpu", "soc", "tj", "x86_pkg", "acpitz")
_PLAUSIBLE_C = (-40.0, 150.0)
_OLD = 10  # measurements that failed to come make the last one worthless
_UNDERVOLTAGE_NOW = 0x1  # bit 0 of the Pi firmware's get_throttled


@dataclass(frozen=True)
class Health:
    """`load` is the run queue of the last minute per processor: above 1.0 something waits."""

    temperature_c: float | None = None
    undervoltage: bool | None = None
    disk_free_bytes: int | None = None
    load: float | None = None


def read_health(folder: Path, sysfs: Path = SYSFS) -> Health:
    """Measure once. May wait for a slow disk: not for the gate's loop.

    Args:
        folder: whose file system is asked for its free bytes; the nearest folder above it that exists.
    """
    return Health(temperature_c(sysfs), undervoltage(sysfs), disk_free_bytes(folder), load())


def temperature_c(sysfs: Path = SYSFS) -> float | None:
    """The hottest of the processor's sensors; of all sensors where none is named after it."""
    processor: list[float] = []
    others: list[float] = []
    for zone in sorted((sysfs / "class/thermal").glob("thermal_zone*")):
        milli_c = _number(_text(zone / "temp"))
        if milli_c is None or not _PLAUSIBLE_C[0] <= milli_c / 1e3 <= _PLAUSIBLE_C[1]:
            continue
        of_processor = (_text(zone / "type") or "").lower().startswith(_PROCESSOR_ZONES)
        (processor if of_processor else others).append(milli_c / 1e3)
    return max(processor or others, default=None)


def undervoltage(sysfs: Path = SYSFS) -> bool | None:
    """Whether a Raspberry Pi's supply is too low now (below about 4.63 V); None on other machines."""
    for monitor in sorted((sysfs / "class/hwmon").glob("hwmon*")):
        if _text(monitor / "name") == "rpi_volt":
            alarm = _number(_text(monitor / "in0_lcrit_alarm"))
            return None if alarm is None else alarm != 0.0
    # Older kernels of Pi OS: a number in hexadecimal, without 0x.
    flags = _text(sysfs / "devices/platform/soc/soc:firmware/get_throttled")
    try:
        return None if flags is None else bool(int(flags, 16) & _UNDERVOLTAGE_NOW)
    except ValueError:
        return None


def disk_free_bytes(folder: Path) -> int | None:
    """What an ordinary user may still write to the file system of this folder, or of the one above it that exists."""
    for existing in (folder, *folder.parents):
        try:
            found = os.statvfs(existing)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None


def load() -> float | None:
    """The load of the last minute divided by the number of processors."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class HealthMonitor:
    """Measures once a second in a thread of its own: a sensor or a disk that hangs must not delay a pulse."""

    def __init__(self, folder: Path, every_s: float = 1.0) -> None:
        self._folder, self._every_s = folder, every_s
        self._latest, self._stamp_s = Health(), -math.inf
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Health:
        """The last complete measurement; all None before the first, and when the thread hangs or has died."""
        return self._latest if time.monotonic() - self._stamp_s <= _OLD * self._every_s else Health()

    def close(self, timeout_s: float = 1.0) -> None:
        """End the thread; one that hangs in the kernel is left behind, and ends with the process."""
        self._end.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._latest = read_health(self._folder)
            self._stamp_s = time.monotonic()
            if self._end.wait(self._every_s):
                return
