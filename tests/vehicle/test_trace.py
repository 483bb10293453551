"""The recorded pulse train survives SIGKILL, a full disk and two writers, and says what it lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vehicle.errors import ConfigError
from vehicle.trace import HEADER, TraceRow, TraceWriter, read_trace


def test_rows_are_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "pulses.csv"
    writer = TraceWriter(path)
    writer.row(12.345678, 1450.0, 1446.25, "drive")
    writer.row(12.365678, 1450.0, 1446.0, "neutral:stale, very\nstale")
    writer.close()
    writer.close()
    assert path.read_text().splitlines()[0] == HEADER == "t_monotonic_s,channel,pulse_us,cause"
    assert read_trace(path) == [
        TraceRow(12.345678, "steering", 1450.0, "drive"),
        TraceRow(12.345678, "throttle", 1446.25, "drive"),
        TraceRow(12.365678, "steering", 1450.0, "neutral:stale; very stale"),
        TraceRow(12.365678, "throttle", 1446.0, "neutral:stale; very stale"),
    ]
    assert writer.error is None and writer.lost == 0


def test_one_header_for_all_writers_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pulses.csv"
    gate, guard = TraceWriter(path), TraceWriter(path)
    gate.row(1.0, 1450.0, 1446.0, "drive")
    guard.row(2.0, 1450.0, 1446.0, "neutral:gate_silent")
    gate.row(3.0, 1450.0, 1446.0, "drive")
    gate.close()
    guard.close()
    assert path.read_text().count(HEADER) == 1
    assert [row.t_s for row in read_trace(path)] == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_nothing_is_lost_by_sigkill(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "pulses.csv"
    program = (
        "import os, signal, sys\n"
        "from vehicle.trace import TraceWriter\n"
        "writer = TraceWriter(sys.argv[1])\n"
        "for i in range(500):\n"
        "    writer.row(i * 0.02, 1450.0, 1311.0, 'drive')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], cwd=root, timeout=60)
    assert done.returncode == -signal.SIGKILL
    rows = read_trace(path)
    assert len(rows) == 1000 and rows[-1] == TraceRow(9.98, "throttle", 1311.0, "drive")


@pytest.mark.parametrize("cut", [1, 4, 20, 30])
def test_a_torn_last_row_is_left_out_and_later_rows_are_not_mixed_with_it(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "pulses.csv"
    writer = TraceWriter(path)
    writer.row(1.0, 1450.0, 1446.0, "neutral:disarmed")
    writer.close()
    os.truncate(path, path.stat().st_size - cut)
    assert read_trace(path) == [TraceRow(1.0, "steering", 1450.0, "neutral:disarmed")]
    writer = TraceWriter(path)
    writer.row(2.0, 1500.0, 1500.0, "drive")
    writer.close()
    assert [(row.t_s, row.channel) for row in read_trace(path)] == [
        (1.0, "steering"), (2.0, "steering"), (2.0, "throttle"),
    ]  # fmt: skip


def test_a_full_disk_is_counted_and_never_raised() -> None:
    writer = TraceWriter("/dev/full")  # a device that refuses every write with "no space left"
    writer.row(1.0, 1450.0, 1446.0, "drive")
    writer.row(2.0, 1450.0, 1446.0, "drive")
    assert writer.lost == 2
    assert writer.error is not None and "No space left" in writer.error
    writer.close()
    writer.row(3.0, 1450.0, 1446.0, "drive")
    assert writer.lost == 3


def test_a_disk_that_fills_up_within_a_row_and_gets_room_again(tmp_path: Path) -> None:
    path = tmp_path / "pulses.csv"
    writer = TraceWriter(path)
    writer.row(1.0, 1450.0, 1446.0, "drive")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, hard))
    try:
        writer.row(2.0, 1450.0, 1446.0, "drive")  # 30 bytes of it fit
        writer.row(3.0, 1450.0, 1446.0, "drive")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert writer.lost == 2 and writer.error is not None and "bytes fit" in writer.error
    writer.row(4.0, 1450.0, 1446.0, "neutral:stopped")
    writer.close()
    rows = read_trace(path)
    assert rows[:2] == [TraceRow(1.0, "steering", 1450.0, "drive"), TraceRow(1.0, "throttle", 1446.0, "drive")]
    assert rows[-2:] == [
        TraceRow(4.0, "steering", 1450.0, "neutral:stopped"), TraceRow(4.0, "throttle", 1446.0, "neutral:stopped"),
    ]  # fmt: skip
    assert all(row.cause in ("drive", "neutral:stopped") for row in rows)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        TraceWriter(tmp_path / "missing" / "pulses.csv")
    assert "mkdir -p" in caught.value.next_step
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "missing.csv")


@pytest.mark.parametrize("line", ["hello", "1.0,brake,1446.0,drive", "1.0,throttle,nan,drive", "1,throttle,1446,a,b"])
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pulses.csv"
    path.write_text(f"{HEADER}\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 is no pulse"):
        read_trace(path)
