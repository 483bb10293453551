"""The drive log in words, while it is being written, damaged, rotated."""

from __future__ import annotations

import time
from pathlib import Path

from vehicle.console_log import TAIL_BYTES, LogTail
from vehicle.drive_log import Record, encode_record


def state(mode: str) -> bytes:
    return encode_record(Record(time.monotonic(), "state", {"mode": mode, "blocked": [], "fault": None}))


def words(tail: LogTail, wanted: int = 10) -> list[str]:
    return [line.split("  ", 1)[-1].split("ago  ")[-1].strip() for line in tail.lines(wanted)]


def test_a_damaged_or_missing_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    assert LogTail(tmp_path / "none").lines(10) == []
    now_s = time.monotonic()
    good = encode_record(Record(now_s, "state", {"mode": "disarmed", "blocked": [{"reason": "disk"}], "fault": None}))
    later = encode_record(Record(now_s + 1e6, "intent", {"fault": "nan"}))
    silent = encode_record(Record(now_s, "request", {"request": {"op": "manual"}, "ok": True}))
    (tmp_path / "log").write_bytes(good[5:] + good + silent + b"\xff" * 100 + later + good[:20])
    lines = LogTail(tmp_path / "log").lines(10)
    assert len(lines) == 2
    assert lines[0].endswith("s ago  state    disarmed (blocked: disk)")
    assert lines[1].endswith("intent   refused: nan")
    assert lines[1].startswith("before the start")


def test_what_is_written_later_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path, second = tmp_path / "log", state("armed")
    path.write_bytes(state("disarmed") + second[:30])
    tail = LogTail(path)
    assert words(tail) == ["state    disarmed"]
    with open(path, "ab") as file:
        file.write(second[30:] + state("armed"))
    assert words(tail) == ["state    disarmed", "state    armed"], "the same words twice are one line"
    assert words(tail, 1) == ["state    armed"]


def test_a_rotated_or_emptied_log_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(state("disarmed") + state("armed"))
    tail = LogTail(path)
    assert len(words(tail)) == 2
    path.rename(tmp_path / "log.1")
    path.write_bytes(state("stopped") + state("disarmed") + state("stopped"))
    assert words(tail) == ["state    stopped", "state    disarmed", "state    stopped"]
    path.write_bytes(state("armed"))
    assert words(tail) == ["state    armed"]


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    path, padding = tmp_path / "log", encode_record(Record(0.0, "request", {"request": {"op": "manual"}, "ok": True}))
    path.write_bytes(state("armed") + padding * (TAIL_BYTES // len(padding)) + state("stopped"))
    assert words(LogTail(path)) == ["state    stopped"]
