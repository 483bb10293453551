"""Trainings with rollout workers: in memory and on a real Redis server, with either end killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.trainer import test_training
from tests.trainer.redis_server import PASSWORD, RedisServer, is_installed
from tests.trainer.test_deepracer_utils import read
from tests.trainer.test_training import result_of, training
from trainer.run_folder import RunFolder

pytestmark = pytest.mark.slow
PATIENCE_S = 200.0  # three workers start beside the training, on a machine that may be busy


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "it does not get going"
        time.sleep(0.1)


def rows_of(folder: Path) -> int:
    return len(RunFolder(folder / "run").rows())


def events_of(folder: Path) -> list[str]:
    path = folder / "run" / "events.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has just ended
            if "trainer.worker_process" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    if not is_installed():
        pytest.skip("no redis-server (apt-get install redis-server)")
    with RedisServer(tmp_path) as server:
        yield server


def test_three_workers_train_and_one_that_is_killed_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library's plot of evaluations fails for a single trial.
    monkeypatch.setattr(test_training, "TINY", test_training.TINY.replace("evaluate_trials = 1", "evaluate_trials = 3"))
    with training(tmp_path, "--steps", "1000000", "--workers", "3") as process:
        wait_for(lambda: rows_of(tmp_path) >= 3, process)
        victim = workers_of(process)[1]
        os.kill(victim.pid, signal.SIGKILL)
        before = rows_of(tmp_path)
        wait_for(lambda: "worker_died" in events_of(tmp_path) and rows_of(tmp_path) >= before + 3, process)
        wait_for(lambda: len(workers_of(process)) == 3, process)
        children = workers_of(process)
        process.send_signal(signal.SIGINT)
        result = result_of(process)
    assert not any(child.is_running() for child in children), "workers end with their training"
    assert result["steps"] > 0 and Path(result["bundle"]).exists()
    rows = RunFolder(tmp_path / "run").rows()
    assert max(row["workers"] for row in rows) >= 2
    found = read(tmp_path / "run", tmp_path / "pictures")
    assert found["type"] == "DRFC_MODEL_MULTIPLE_WORKERS"
    assert found["unique_episodes"] == found["prepare"] and found["first_step"] == [1] and found["steps_in_row"]


def test_workers_end_when_their_training_is_killed(tmp_path: Path) -> None:
    with training(tmp_path, "--steps", "1000000", "--workers", "2") as process:
        wait_for(lambda: len(workers_of(process)) == 2, process)
        children = workers_of(process)
        process.kill()
        process.wait()
        gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_redis_is_killed_and_comes_back_empty(
    tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTLAP_BUFFER", server.url)
    with training(tmp_path, "--steps", "1000000", "--workers", "2") as process:
        wait_for(lambda: rows_of(tmp_path) >= 2, process)
        server.kill()
        wait_for(lambda: "buffer" in events_of(tmp_path), process)
        server.start()
        before = rows_of(tmp_path)
        wait_for(lambda: rows_of(tmp_path) >= before + 3, process)
        process.send_signal(signal.SIGTERM)
        result_of(process)
    texts = (tmp_path / "run" / "events.jsonl").read_text()
    assert "is away" in texts and "is back" in texts and PASSWORD.split()[1] not in texts


def test_a_wrong_password_is_said_at_once(tmp_path: Path, server: RedisServer) -> None:
    with training(tmp_path, "--workers", "1", "--buffer", f"redis://:wrong@127.0.0.1:{server.port}/0") as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "password" in json.loads(out)["error"]["cause"]
    assert "wrong@" not in err
