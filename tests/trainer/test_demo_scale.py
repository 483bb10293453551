"""`make demo-scale`: what it accepts as an explanation, the whole of it, and Ctrl-C in the middle."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.trainer.redis_server import is_installed
from tools.metrics_gaps import Gap, Incident, gaps, incidents

STEADY = [{"wall_s": 10.0 + k, "workers": 3.0} for k in range(20)]


def event(wall_s: float, name: str, text: str) -> dict[str, Any]:
    return {"wall_s": wall_s, "event": name, "text": text}


def test_a_worker_counts_until_all_drive_again_and_a_server_until_the_update_after_its_return() -> None:
    rows = [row | {"workers": 2.0} if 12 < row["wall_s"] < 16 else row for row in STEADY]
    found = incidents(
        rows,
        [
            event(12.5, "worker_died", "worker 1 died"),
            event(20.5, "buffer", "redis://host is away: refused"),
            event(22.5, "buffer", "redis://host is back after 2.0 s"),
            event(28.5, "buffer", "redis://host is away: refused"),
        ],
        workers=3,
    )
    assert [(i.begin_s, i.end_s) for i in found] == [(12.5, 16.0), (20.5, 23.0), (28.5, math.inf)]


def test_a_gap_is_explained_by_what_happened_in_it_and_by_nothing_else() -> None:
    rows = [row for row in STEADY if not 15 < row["wall_s"] < 20]
    start = Gap(0.0, 10.0, "the workers start")
    assert gaps(rows, [], 29.5, first_lap_s=11.0) == [start, Gap(15.0, 20.0, "")]
    assert gaps(rows, [Incident(11.0, 14.0, "before")], 29.5, 11.0) == [start, Gap(15.0, 20.0, "")]
    assert gaps(rows, [Incident(17.0, 18.0, "away")], 29.5, 11.0)[1].why == "away"
    judged = [row | {"eval_completion": 0.5} if row["wall_s"] == 20 else row for row in rows]
    assert "evaluation" in gaps(judged, [], 29.5, 11.0)[1].why
    assert "first lap" in gaps(rows, [], 29.5, first_lap_s=25.0)[1].why


def test_a_training_that_stops_learning_before_its_end_has_a_gap() -> None:
    assert gaps(STEADY, [], 29.5, 11.0)[1:] == []
    assert gaps(STEADY, [], 120.0, 11.0)[1:] == [Gap(29.0, 120.0, "")]
    assert gaps(STEADY, [], 120.0, first_lap_s=None)[1:] == [Gap(29.0, 120.0, "")]


def demo(*words: str) -> subprocess.Popen[str]:
    if not is_installed():
        pytest.skip("no redis-server (apt-get install redis-server)")
    for package in ("redis", "obstore", "moto"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra dev)")
    command = ["env", "--default-signal=INT", sys.executable, "-m", "tools.demo_scale", "--json", *words]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(900)
def test_three_workers_redis_and_s3_reach_a_lap_though_a_worker_and_redis_are_killed(tmp_path: Path) -> None:
    with demo("--out", str(tmp_path / "run")) as process:
        try:
            out, err = process.communicate(timeout=800)
        finally:
            process.terminate()
    assert process.returncode == 0, (out, err)
    result = json.loads(out)
    assert result["ok"] and all(check["ok"] for check in result["checks"])
    assert result["train"]["first_lap_s"] > 0 and result["evaluation"]["completion_rate"] > 0
    words = [entry["text"] for entry in result["events"]]
    assert len([text for text in words if "worker 1 died (signal 9)" in text]) == 1
    assert any("is away" in text for text in words) and any("is back" in text for text in words)
    assert all(gap["why"] for gap in result["gaps"])
    assert (tmp_path / "run" / "bundle.tar.gz").is_file()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo("--out", str(tmp_path / "run")) as process:
        try:
            until_s = time.monotonic() + 200
            children: list[psutil.Process] = []
            while len(children) < 6:  # two servers, the training, three workers
                assert process.poll() is None and time.monotonic() < until_s
                time.sleep(0.2)
                children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert psutil.wait_procs(children, timeout=30)[1] == []
