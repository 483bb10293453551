from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from vehicle import links
from vehicle.errors import ConfigError, GateError
from vehicle.links import endpoint, private_dir, request, runtime_dir


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may meet the runtime folder of a car that runs on this machine."""
    for name in ("HOTLAP_RUNTIME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(links, "SYSTEM", tmp_path / "no" / "hotlap")


@contextmanager
def answering(runtime: Path, *answers: bytes, name: str = "gate.request") -> Iterator[list[bytes]]:
    """A ROUTER that gives these answers, one a request; yields the list of what it was asked."""
    asked: list[bytes] = []
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(endpoint(runtime, name))

    def serve() -> None:
        for answer in answers:
            while not router.poll(50):
                if done.is_set():
                    return
            frames = router.recv_multipart()
            asked.append(frames[-1])
            router.send_multipart([*frames[:-1], answer])

    done = threading.Event()
    thread = threading.Thread(target=serve, name="answering")
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()
        context.destroy(linger=0)


def test_an_endpoint_is_a_file_in_the_runtime_folder() -> None:
    assert endpoint(Path("/run/hotlap"), "gate.request") == "ipc:///run/hotlap/gate.request"


def test_the_longest_path_that_the_system_takes_is_taken_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    folder = tmp_path
    while len(os.fspath(folder)) < 90:
        folder = folder / "d"
    folder.mkdir(parents=True, exist_ok=True)
    name = "n" * (links.MAX_PATH_BYTES - len(os.fspath(folder)) - 1)
    context = zmq.Context()
    try:
        pull = context.socket(zmq.PULL)
        pull.bind(endpoint(folder, name))  # the system agrees with the figure
        assert (folder / name).exists()
    finally:
        context.destroy(linger=0)
    with pytest.raises(ConfigError, match="108|107") as caught:
        endpoint(folder, name + "n")
    assert "HOTLAP_RUNTIME" in caught.value.next_step


def test_bytes_count_not_characters() -> None:
    with pytest.raises(ConfigError):
        endpoint(Path("/tmp/" + "ä" * 50), "gate.request")


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOTLAP_RUNTIME", str(tmp_path / "car"))
    assert runtime_dir() == tmp_path / "car"
    assert not (tmp_path / "car").exists()
    assert runtime_dir(create=True) == tmp_path / "car"
    assert (tmp_path / "car").stat().st_mode & 0o777 == 0o700


def test_the_system_folder_is_used_where_we_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(links, "SYSTEM", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir(create=True) == tmp_path


def test_without_it_the_folder_of_the_session_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir(create=True) == tmp_path / "hotlap"
    assert (tmp_path / "hotlap").stat().st_mode & 0o777 == 0o700


def test_without_a_session_it_is_in_tmp_by_user_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert runtime_dir() == Path("/tmp/hotlap-4000000001")


@pytest.mark.parametrize("mode", (0o701, 0o710, 0o770, 0o777))
def test_a_private_folder_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="open to others"):
        private_dir(folder, create=True)


def test_a_private_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to user"):
        private_dir(folder, create=False)


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="is no folder"):
        private_dir(tmp_path / "link", create=True)


def test_a_named_folder_may_be_a_groups_but_not_everybodys(tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    folder.chmod(0o770)
    assert private_dir(folder, create=True, shared=True) == folder
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody"):
        private_dir(folder, create=True, shared=True)


def test_a_folder_below_one_that_is_missing_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made") as caught:
        private_dir(tmp_path / "no" / "car", create=True)
    assert caught.value.next_step == f"mkdir -p {tmp_path / 'no'}"


def test_a_request_is_answered(tmp_path: Path) -> None:
    with answering(tmp_path, b'{"ok": true, "mode": "disarmed"}') as asked:
        assert request(tmp_path, "gate.request", {"op": "status"}) == {"ok": True, "mode": "disarmed"}
    assert [json.loads(one) for one in asked] == [{"op": "status"}]


@pytest.mark.parametrize("answer", (b"nonsense", b"[1]", b"\xff", b"[" * 5000))
def test_an_answer_that_is_no_json_object_is_named(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path, answer), pytest.raises(GateError) as caught:
        request(tmp_path, "gate.request", {"op": "status"})
    assert caught.value.reason == "bad_answer"


def test_without_a_process_the_error_says_so_in_time(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="gave no answer within 0.1 s") as caught:
        request(tmp_path, "gate.request", {"op": "status"}, timeout_s=0.1)
    assert caught.value.reason == "no_answer"
    assert "not running" in caught.value.cause


def test_a_process_that_hangs_is_told_apart_from_one_that_does_not_run(tmp_path: Path) -> None:
    with answering(tmp_path), pytest.raises(GateError) as caught:
        request(tmp_path, "gate.request", {"op": "arm"}, timeout_s=0.2)
    assert "hangs" in caught.value.cause


def test_a_process_that_starts_meanwhile_is_waited_for(tmp_path: Path) -> None:
    found = {}

    def ask() -> None:
        found.update(request(tmp_path, "pilot.request", {"op": "status"}, timeout_s=5.0))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.2)
    with answering(tmp_path, b'{"ok": true}', name="pilot.request"):
        thread.join()
    assert found == {"ok": True}
