"""What the console tells of the computer: network, health, versions."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Any

from vehicle.health import read_health

_SIOCGIWESSID = 0x8B1B
_MAX_ESSID = 32
SYSFS_NET = Path("/sys/class/net")
WIRELESS = Path("/proc/net/wireless")


def addresses() -> list[str]:
    """The IPv4 addresses that a phone could reach this computer at, that of the default route first."""
    found: list[str] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # no packet is sent: the kernel only chooses the route
        found.append(str(probe.getsockname()[0]))
    try:
        import ifaddr
    except ImportError:  # it comes with zeroconf
        pass
    else:
        for adapter in ifaddr.get_adapters():
            found += [address.ip for address in adapter.ips if isinstance(address.ip, str)]
    return [address for address in dict.fromkeys(found) if not address.startswith(("127.", "0."))]


def ssid() -> str | None:
    """The name of the Wi-Fi; None where there is none, or the kernel has no wireless extensions any more."""
    try:
        names = sorted(path.parent.name for path in SYSFS_NET.glob("*/wireless"))
    except OSError:
        return None
    for name in names:
        buffer = array.array("B", bytes(_MAX_ESSID + 1))
        asked = struct.pack("16sPHH", name.encode(), buffer.buffer_info()[0], _MAX_ESSID, 0)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket.fileno(), _SIOCGIWESSID, asked)
            found = buffer.tobytes().split(b"\0")[0].decode(errors="replace")
            if found:
                return found
    return None


def signal_dbm() -> int | None:
    """How strong the Wi-Fi is: -50 is good, -80 is hardly enough; None where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in WIRELESS.read_text().splitlines()[2:]:  # below two lines of headings
            level = float(line.partition(":")[2].split()[2])
            if level < 0.0:  # some drivers count upwards from 0 in units of their own
                return round(level)
    return None


def health_figures(folder: Path) -> dict[str, Any]:
    """Temperature, supply, disk, load, and how long the computer runs."""
    found: dict[str, Any] = dict(vars(read_health(folder)))
    with contextlib.suppress(OSError, ValueError, IndexError):
        found["uptime_s"] = float(Path("/proc/uptime").read_text().split()[0])
    found["processors"] = os.cpu_count()
    return found


def checks(state: dict[str, Any]) -> list[dict[str, str]]:
    """The parts of the car one by one: {"name", "status": ok|warn|fail, "value", "cure"}."""
    rows = []

    def row(name: str, good: object, value: str, cure: str, bad: str = "fail") -> None:
        status = "ok" if good else bad
        rows.append({"name": name, "status": status, "value": value, "cure": "" if good else cure})

    pilot, guard, log = (state.get(key) or {} for key in ("pilot", "guard", "log"))
    reasons = {one["reason"]: one for one in state.get("blocked") or []}
    row("gate", state.get("pid"), _running(state.get("pid")), "hotlap drive, or systemctl restart hotlap-gate")
    row("guard", guard.get("alive"), str(guard.get("error") or _running(guard.get("alive"))), "restart the gate")
    row("pilot", pilot.get("pid"), _running(pilot.get("pid")), "hotlap drive, or systemctl restart hotlap-pilot")
    row("calibration", state.get("calibrated"), "there" if state.get("calibrated") else "none", "calibrate the car")
    model = state.get("model") or {}
    row("model", model, str(model.get("sha256", "none loaded"))[:12], "upload one on the Models page")
    age_s = state.get("frame_age_s")
    seen = isinstance(age_s, (int, float)) and age_s < 1.0
    row(
        "camera",
        seen,
        f"{1e3 * age_s:.0f} ms old" if isinstance(age_s, (int, float)) else "no picture",
        "hotlap doctor",
    )
    row("log", not log.get("error"), str(log.get("error") or "written"), "free some disk", "warn")
    for name in ("actuator", "undervoltage", "battery", "temperature", "disk"):
        if name in reasons:
            row(name, False, reasons[name]["value"], reasons[name]["cure"])
    return rows


def _running(value: object) -> str:
    return "running" if value else "not running"
