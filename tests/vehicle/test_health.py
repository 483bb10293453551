from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vehicle import health
from vehicle.health import Health, HealthMonitor, disk_free_bytes, load, read_health, temperature_c, undervoltage


def zone(sysfs: Path, number: int, kind: str, milli_c: str) -> None:
    folder = sysfs / f"class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    (folder / "temp").write_text(milli_c + "\n")


def monitor(sysfs: Path, name: str, alarm: str | None) -> None:
    folder = sysfs / f"class/hwmon/hwmon{len(list(sysfs.glob('class/hwmon/*')))}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    if alarm is not None:
        (folder / "in0_lcrit_alarm").write_text(alarm + "\n")


def test_nothing_is_known_of_a_machine_without_sensors(tmp_path: Path) -> None:
    assert temperature_c(tmp_path) is None
    assert undervoltage(tmp_path) is None


def test_the_sensor_of_a_pi(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "48312")
    assert temperature_c(tmp_path) == pytest.approx(48.312)


def test_the_hottest_of_the_processor_counts_and_not_the_power_supply_of_a_jetson(tmp_path: Path) -> None:
    zone(tmp_path, 0, "CPU-therm", "51500")
    zone(tmp_path, 1, "tj-thermal", "53000")
    zone(tmp_path, 2, "PMIC-Die", "100000")  # a constant on that board
    assert temperature_c(tmp_path) == 53.0


def test_any_sensor_is_better_than_none(tmp_path: Path) -> None:
    zone(tmp_path, 0, "iwlwifi_1", "40000")
    assert temperature_c(tmp_path) == 40.0


@pytest.mark.parametrize("text", ("", "nan", "inf", "-274000", "999999", "hot"))
def test_a_broken_sensor_is_no_sensor(tmp_path: Path, text: str) -> None:
    zone(tmp_path, 0, "cpu-thermal", text)
    assert temperature_c(tmp_path) is None


@pytest.mark.parametrize(("alarm", "low"), (("0", False), ("1", True), (None, None), ("?", None)))
def test_the_supply_of_a_pi(tmp_path: Path, alarm: str | None, low: bool | None) -> None:
    monitor(tmp_path, "cpu_thermal", "1")  # another one's alarm is not the supply's
    monitor(tmp_path, "rpi_volt", alarm)
    assert undervoltage(tmp_path) is low


# Bit 0 is "now", bit 16 "has happened since the start", which must not bar driving for ever.
@pytest.mark.parametrize(("flags", "low"), (("0", False), ("50005", True), ("50000", False), ("x", None)))
def test_the_supply_of_a_pi_with_an_older_kernel(tmp_path: Path, flags: str, low: bool | None) -> None:
    folder = tmp_path / "devices/platform/soc/soc:firmware"
    folder.mkdir(parents=True)
    (folder / "get_throttled").write_text(flags + "\n")
    assert undervoltage(tmp_path) is low


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    found = disk_free_bytes(tmp_path / "not" / "yet")
    expected = os.statvfs(tmp_path)
    assert found == pytest.approx(expected.f_bavail * expected.f_frsize, rel=0.2)


def test_a_disk_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> object:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "statvfs", refuse)
    assert disk_free_bytes(tmp_path) is None


def test_the_load_is_per_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert load() == 0.75


def test_all_of_it(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "48000")
    monitor(tmp_path, "rpi_volt", "0")
    found = read_health(tmp_path, tmp_path)
    assert (found.temperature_c, found.undervoltage) == (48.0, False)
    assert found.disk_free_bytes is not None and found.disk_free_bytes > 0


def until(wanted: Health, watched: HealthMonitor) -> bool:
    deadline_s = time.monotonic() + 5.0
    while watched.latest != wanted and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return watched.latest == wanted


def test_the_monitor_measures_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([Health(temperature_c=40.0), Health(temperature_c=41.0)] + [Health(temperature_c=42.0)] * 1000)
    monkeypatch.setattr(health, "read_health", lambda folder: next(figures))
    watched = HealthMonitor(tmp_path, every_s=0.02)
    try:
        assert until(Health(temperature_c=42.0), watched)
    finally:
        watched.close()


def test_a_sensor_that_hangs_leaves_no_old_figure_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(folder: Path) -> Health:
        calls.append(folder)
        if len(calls) > 1:
            time.sleep(0.5)
        return Health(temperature_c=40.0)

    monkeypatch.setattr(health, "read_health", slow)
    watched = HealthMonitor(tmp_path, every_s=0.02)
    try:
        assert until(Health(temperature_c=40.0), watched)
        assert until(Health(), watched)  # 0.2 s without a new one
    finally:
        watched.close()
