from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vehicle import drive_log
from vehicle.drive_log import MARK, DriveLog, Record, encode_record, older, read_drive_log
from vehicle.errors import ConfigError


def some(count: int, first: int = 0) -> list[Record]:
    return [Record(100.0 + n, "output", {"n": n, "cause": "drive"}) for n in range(first, first + count)]


def written(path: Path, records: list[Record], **options: int) -> None:
    log = DriveLog(path, **options)
    for record in records:
        log.put(record.t_s, record.kind, record.fields, record.raw)
    log.close()
    assert log.error is None


def until(condition: object, timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    assert callable(condition)
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return bool(condition())


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    records = [
        Record(1.5, "intent", {"steering_deg": -3.25, "fault": None, "blocked": [{"reason": "ü"}]}),
        Record(1.6, "frame", {"seq": 7}, bytes(range(256)) * 75),
        Record(1.7, "output", {}),
    ]
    written(tmp_path / "logs" / "drive.log", records)
    found = read_drive_log(tmp_path / "logs" / "drive.log")
    assert found.records == records
    assert found.damage == []


def test_a_second_start_appends(tmp_path: Path) -> None:
    written(tmp_path / "drive.log", some(3))
    written(tmp_path / "drive.log", some(3, first=3))
    assert read_drive_log(tmp_path / "drive.log").records == some(6)


def test_cut_at_every_byte_at_most_the_last_record_is_lost_and_it_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    whole = b"".join(map(encode_record, some(3)))
    two = len(whole) - len(encode_record(some(3)[2]))
    for size in range(two + 1, len(whole)):
        path.write_bytes(whole[:size])
        found = read_drive_log(path)
        assert found.records == some(2)
        assert [(one.offset, one.length, one.fault) for one in found.damage] == [(two, size - two, "torn")]
        # A writer that is started after that goes on behind the torn record.
        path.write_bytes(whole[:size] + encode_record(some(4)[3]))
        found = read_drive_log(path)
        assert [record.fields["n"] for record in found.records] == [0, 1, 3]
        assert sum(one.length for one in found.damage) == size - two


def test_every_flipped_bit_costs_one_record_and_never_raises(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    parts = [encode_record(record) for record in some(3)]
    whole = b"".join(parts)
    begin, end = len(parts[0]), len(parts[0]) + len(parts[1])
    for at in range(begin, end):
        for bit in range(8):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            found = read_drive_log(path)
            assert [record.fields["n"] for record in found.records] == [0, 2]
            assert [(one.offset, one.length) for one in found.damage] == [(begin, end - begin)]


def test_rubbish_is_reported_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    for rubbish in (b"{}\n" * 1000, MARK * 50, MARK + b"\xff" * 100, b"\x00" * 4096):
        path.write_bytes(rubbish)
        found = read_drive_log(path)
        assert found.records == []
        assert sum(one.length for one in found.damage) == len(rubbish)


def test_a_good_checksum_over_a_header_that_is_none(tmp_path: Path) -> None:
    body = drive_log._BODY.pack(1.0, 3) + b"[1]"
    data = MARK + drive_log._HEAD.pack(len(body), drive_log.zlib.crc32(body)) + body
    (tmp_path / "drive.log").write_bytes(data)
    assert [one.fault for one in read_drive_log(tmp_path / "drive.log").damage] == ["bad_header"]


def test_an_empty_log_and_none(tmp_path: Path) -> None:
    (tmp_path / "drive.log").touch()
    assert read_drive_log(tmp_path / "drive.log").records == []
    with pytest.raises(ConfigError, match="there is no drive log"):
        read_drive_log(tmp_path / "other.log")


def test_a_full_file_becomes_the_older_one_and_the_one_before_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    size = len(encode_record(some(11)[10]))
    written(path, some(60, first=10), max_bytes=2 * 20 * size)
    found = read_drive_log(path)
    assert found.damage == []
    assert [record.fields["n"] for record in found.records] == list(range(30, 70))
    assert path.stat().st_size <= 20 * size
    assert older(path).stat().st_size <= 20 * size
    assert sorted(os.listdir(tmp_path)) == ["drive.log", "drive.log.1"]


def test_put_never_waits_for_a_disk_that_hangs_and_says_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        time.sleep(0.4)
        return real(fd, data)

    monkeypatch.setattr(drive_log.os, "write", slow)
    log = DriveLog(tmp_path / "drive.log", queue_bytes=100 * 256)
    worst_s = 0.0
    for record in some(400):
        begun_s = time.monotonic()
        log.put(record.t_s, record.kind, record.fields)
        worst_s = max(worst_s, time.monotonic() - begun_s)
    assert log.lost == 300
    assert log.error is not None and "300 records were lost" in log.error
    log.close()
    assert worst_s < 0.1
    assert read_drive_log(tmp_path / "drive.log").records == some(100)


def test_a_full_disk_is_an_error_until_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [10]

    def cramped(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        taken = min(len(data), room[0])
        room[0] -= taken
        return real(fd, data[:taken])

    monkeypatch.setattr(drive_log.os, "write", cramped)
    log = DriveLog(tmp_path / "drive.log")
    try:
        log.put(1.0, "output", {"n": 1})
        assert until(lambda: log.error)
        assert "No space left" in str(log.error)
        log.put(2.0, "output", {"n": 2})
        assert until(lambda: log.lost == 2)
        assert log.error is not None
        room[0] = 10**6
        log.put(3.0, "output", {"n": 3})
        assert until(lambda: log.error is None)
    finally:
        log.close()
    found = read_drive_log(tmp_path / "drive.log")
    assert [record.fields["n"] for record in found.records] == [3]
    assert [one.length for one in found.damage] == [10]


def test_a_rotation_that_fails_half_way_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drive.log"
    log = DriveLog(path, max_bytes=2 * len(encode_record(some(1)[0])))
    real = os.open

    def refuse(*args: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    try:
        log.put(100.0, "output", some(1)[0].fields)
        assert until(lambda: path.stat().st_size > 0)
        monkeypatch.setattr(drive_log.os, "open", refuse)
        log.put(101.0, "output", some(1)[0].fields)
        assert until(lambda: log.error)
        monkeypatch.setattr(drive_log.os, "open", real)
        log.put(102.0, "output", some(1)[0].fields)
        assert until(lambda: log.error is None)
    finally:
        log.close()
    assert [record.t_s for record in read_drive_log(path).records] == [100.0, 102.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DriveLog(tmp_path / "drive.log")

    def broken(records: object) -> None:
        raise MemoryError

    monkeypatch.setattr(log, "_append", broken)
    log.put(1.0, "output", {})
    assert until(lambda: log.error is not None and "died" in log.error)
    log.close()


def test_one_record_that_cannot_be_written_does_not_cost_the_others(tmp_path: Path) -> None:
    log = DriveLog(tmp_path / "drive.log", queue_bytes=64 << 20)
    log.put(1.0, "frame", {"seq": 1}, bytes(drive_log.MAX_RECORD_BYTES))
    log.put(2.0, "output", {"n": 2})
    log.close()
    assert [record.kind for record in read_drive_log(tmp_path / "drive.log").records] == ["unwritable", "output"]


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be opened"):
        DriveLog(tmp_path / "file" / "drive.log")


def test_killed_while_it_writes_the_log_is_whole_but_for_the_end(tmp_path: Path) -> None:
    script = (
        "import itertools, sys, time; from pathlib import Path; from vehicle.drive_log import DriveLog\n"
        "log = DriveLog(Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    log.put(float(n), 'output', {'n': n}, bytes(2000)); time.sleep(0.0005)\n"
    )
    path = tmp_path / "drive.log"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)])
    try:
        assert until(lambda: path.exists() and path.stat().st_size > 500_000, 20.0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = read_drive_log(path)
    assert [record.fields["n"] for record in found.records] == list(range(len(found.records)))
    assert len(found.records) > 200
    assert len(found.damage) <= 1
    assert all(one.fault == "torn" for one in found.damage)
