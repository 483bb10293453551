"""The model store against a real S3 server over HTTP: kill -9, parallel readers, restarts, refusals, trainings."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.trainer.s3_server import S3Server
from tests.trainer.test_store import make_run, wait_until
from trainer.publisher import Publisher
from trainer.store import Writer, check_free, fetch_run, files_of
from vehicle.errors import StoreError
from vehicle.store import local_bundle, open_store

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'hotlap[scale]'")
pytest.importorskip("moto", reason="moto is not installed (extra dev)")
pytestmark = pytest.mark.slow

TINY = """
randomise = "none"
evaluate_trials = 1
threads = 1
both_directions = false
max_steps = 60
checkpoint_every_s = 0.5
[ppo]
cars = 4
steps_per_update = 8
minibatch = 16
epochs = 1
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        server.make_bucket()
        yield server


def hotlap(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hotlap", *map(str, words), "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def fault_of(address: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        open_store(address, timeout_s=5.0).manifest()
    return caught.value


# --- write, then publish ----------------------------------------------------------------------------------------------


def test_killed_before_any_request_the_version_before_is_whole(server: S3Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.trainer.store_steps", "s3://laps/run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    # Four files change with every version, then its manifest under two names, then what is pruned.
    assert len(steps) > 4 + 2 + 3 and not steps[-1]["killed"]
    for step in steps:
        assert len(step["numbers"]) == 1, f"files of several versions: {step}"
        published = step["step"] > 4 + 2
        assert (step["numbers"][0] == step["newest"]) == published, step
    assert steps[-1]["numbers"] == [steps[-1]["newest"]]


def test_a_reader_never_sees_half_a_model(server: S3Server, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    writer = Writer(run, open_store("s3://laps/run"))
    writer.publish(files_of(run))
    over, seen, failures = threading.Event(), set(), []

    def read() -> None:
        store = open_store("s3://laps/run")
        while not over.is_set():
            try:
                manifest, files = store.files()
                numbers = {data.decode().split()[-1] for name, data in files.items() if name != "config.toml"}
                assert len(numbers) == 1, numbers
                seen.add(manifest.version)
            except Exception as error:  # noqa: BLE001 - a thread's outermost frame, its failure is asserted on
                failures.append(error)
                return

    readers = [threading.Thread(target=read, name=f"reader-{k}") for k in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(2, 25):
            writer.publish(files_of(make_run(run, number)))
            writer.prune()
    finally:
        over.set()
        for reader in readers:
            reader.join(60)
    assert not failures
    assert len(seen) > 3


def test_a_server_that_loses_everything_mid_run_is_filled_again(server: S3Server, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    publisher = Publisher(run, open_store("s3://laps/run"))
    publisher.saved()
    wait_until(lambda: open_store("s3://laps/run").manifest() is not None)
    server.kill()
    make_run(run, 2)
    publisher.saved()
    wait_until(lambda: publisher.error is not None)
    assert publisher.error is not None and publisher.error.fault == "unreachable"
    server.start()
    server.make_bucket()
    publisher.close()
    assert (publisher.result["behind"], publisher.result["error"]) == ([], None)
    with local_bundle("s3://laps/run") as path:
        assert path is not None and path.read_text() == "bundle.tar.gz 2"


# --- what is refused, and how -----------------------------------------------------------------------------------------


def test_each_fault_by_its_name(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store("s3://laps/none").manifest() is None
    missing = fault_of("s3://no-such-bucket/run")
    assert missing.fault == "no_bucket" and "s3://no-such-bucket" in missing.what and server.url in missing.what
    with socket.socket() as silent:  # accepts, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert fault_of("s3://laps/run").fault == "unreachable"
    gone = fault_of("s3://laps/run")
    assert gone.fault == "unreachable" and "curl" in gone.next_step


def test_wrong_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(INITIAL_NO_AUTH_ACTION_COUNT="4") as server:  # from the fifth request on moto checks signatures
        server.make_bucket()
        iam = server.client("iam")
        iam.create_user(UserName="racer")
        key = iam.create_access_key(UserName="racer")["AccessKey"]
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_user_policy(UserName="racer", PolicyName="all", PolicyDocument=json.dumps(anything))
        iam.close()
        right = (key["AccessKeyId"], key["SecretAccessKey"])
        for name, value in server.variables(*right).items():
            monkeypatch.setenv(name, value)
        check_free(open_store("s3://laps/run"))
        for variable, said in (("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAcc")):
            monkeypatch.setenv(variable, "not-the-one")
            error = fault_of("s3://laps/run")
            assert (error.fault, said in error.what) == ("denied", True), error
            assert "AWS_ACCESS_KEY_ID" in error.next_step and "not-the-one" not in str(error)


def test_no_credentials_at_all(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = fault_of("s3://laps/run")
    assert error.fault == "denied" and "no credentials in the environment" in error.what


def test_a_corrupted_object(server: S3Server, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    manifest = Writer(run, open_store("s3://laps/deep/er/run")).publish(files_of(run))
    client = server.client()
    client.put_object(Bucket="laps", Key=f"deep/er/run/{manifest.files['bundle.tar.gz'].object}", Body=b"changed")
    client.close()
    with pytest.raises(StoreError, match="is damaged"), local_bundle("s3://laps/deep/er/run"):
        pass
    with pytest.raises(StoreError, match="is damaged"):
        fetch_run(open_store("s3://laps/deep/er/run"), tmp_path / "fetched")


class _Full(http.server.BaseHTTPRequestHandler):
    """Answers as MinIO does when its disk is full."""

    def do_GET(self) -> None:
        self._answer(404, "NoSuchKey", "The specified key does not exist.")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.")

    def _answer(self, status: int, code: str, message: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_a_full_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Full) as full:
        serving = threading.Thread(target=full.serve_forever, name="full")
        serving.start()
        for name, value in S3Server().variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{full.server_address[1]}")
        publisher = Publisher(make_run(tmp_path / "run"), open_store("s3://laps/run"))
        publisher.close(4.0)
        full.shutdown()
        serving.join(10)
    assert publisher.result["published"] is None and "XMinioStorageFull" in str(publisher.result["error"])
    assert "XMinioStorageFull" in capsys.readouterr().err


def test_a_hanging_server_is_left_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name, value in S3Server().variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        publisher = Publisher(make_run(tmp_path / "run"), open_store("s3://laps/run"))
        begun_s = time.monotonic()
        publisher.close(0.5)  # the request's own limit is two minutes; the thread has to be gone: conftest.py looks
        assert time.monotonic() - begun_s < 30
    assert publisher.result["error"] == "not done within 0.5 s"


# --- whole trainings --------------------------------------------------------------------------------------------------


def train(folder: Path, *words: object) -> list[object]:
    (folder / "tiny.toml").write_text(TINY)
    return ["train", "--track", "first_oval", "--out", folder / "run", "--config", folder / "tiny.toml", *words]


@pytest.mark.learning
@pytest.mark.timeout(900)
def test_a_run_from_training_to_another_machine(server: S3Server, tmp_path: Path) -> None:
    address = "s3://laps/runs/first"
    done = hotlap(*train(tmp_path, "--store", address, "--steps", 256))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["store"]["behind"] == [] and result["store"]["error"] is None
    manifest = open_store(address).published()
    assert result["store"]["published"] == manifest.version
    here = {name: path.read_bytes() for name, path in files_of(tmp_path / "run").items()}
    assert {name: len(data) for name, data in here.items()} == {n: e.size_bytes for n, e in manifest.files.items()}
    assert {"checkpoints/last.pt", "checkpoints/best.pt", "bundle.tar.gz", "metrics.csv"} <= set(manifest.files)

    refused = hotlap(*train(tmp_path, "--store", address, "--steps", 64, "--out", tmp_path / "second"))
    assert refused.returncode == 2 and "holds a run already" in refused.stdout
    assert not (tmp_path / "second").exists()

    trials = hotlap("evaluate", address, "--track", "first_oval", "--trials", 1)
    assert trials.returncode == 0, trials.stderr
    same = hotlap("evaluate", tmp_path / "run" / "bundle.tar.gz", "--track", "first_oval", "--trials", 1)
    assert json.loads(trials.stdout) == json.loads(same.stdout)
    exported = hotlap("export", address, "--out", tmp_path / "e.tar.gz")
    assert exported.returncode == 0, exported.stderr

    there = hotlap("train", "--resume", "--store", address, "--out", tmp_path / "there", "--steps", 512)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["store"]["published"] > manifest.version
    steps = [line.partition(",")[0] for line in (tmp_path / "there" / "metrics.csv").read_text().splitlines()[1:]]
    assert [int(step) for step in steps] == list(range(32, 512 + 1, 32))  # no gap, and nothing twice

    late = hotlap("train", "--resume", "--store", address, "--out", tmp_path / "run", "--steps", 512)
    assert late.returncode == 2 and "another machine" in late.stdout


@pytest.mark.learning
@pytest.mark.timeout(900)
def test_a_server_killed_and_started_again_under_a_training(server: S3Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hotlap", *map(str, train(tmp_path, "--store", "s3://laps/r")), "--json"]
    command += ["--time-limit", "60s"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: open_store("s3://laps/r").manifest() is not None, 120)
            server.kill()
            before = (tmp_path / "run" / "checkpoints" / "last.pt").stat().st_mtime_ns
            last = tmp_path / "run" / "checkpoints" / "last.pt"
            wait_until(lambda: last.stat().st_mtime_ns > before, 60)  # the training does not wait
            time.sleep(2.0)
            server.start()
            server.make_bucket()
            wait_until(lambda: open_store("s3://laps/r").manifest() is not None, 120)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert err.count("is behind") == 1 and err.count("is up to date again") == 1, err
    assert json.loads(out)["store"]["behind"] == []


@pytest.mark.learning
@pytest.mark.timeout(900)
def test_a_store_that_is_down_from_the_beginning_stops_nothing(server: S3Server, tmp_path: Path) -> None:
    server.kill()
    done = hotlap(*train(tmp_path, "--store", "s3://laps/run", "--steps", 64))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 64 and result["store"]["published"] is None
    assert "checkpoints/last.pt" in result["store"]["behind"]
    assert "the training begins all the same" in done.stderr and "--resume" in done.stderr
    server.start()
    server.make_bucket()
    again = hotlap("train", "--resume", "--out", tmp_path / "run", "--store", "s3://laps/run")
    assert json.loads(again.stdout)["store"]["behind"] == [], again.stderr
