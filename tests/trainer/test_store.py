"""The model store in a folder: what is published, kept, pruned, refused. S3 itself: test_store_s3.py."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import hotlap
import trainer.publisher
from trainer.errors import RunError
from trainer.publisher import Publisher
from trainer.store import KEEP_VERSIONS, Writer, check_free, fetch_run, files_of, open_run, store_of
from vehicle.errors import StoreError
from vehicle.store import Manifest, Store, is_url, local_bundle, open_store, parse_manifest
from vehicle.store_backends import FolderBackend


def make_run(folder: Path, number: int = 1) -> Path:
    """What looks like a run folder, each file of which says ``number``."""
    for name in ("config.toml", "checkpoints/last.pt", "bundle.tar.gz", "metrics.csv", "inputs/deepracer/h.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".new"
        temporary.write_text(f"{name} {number}" if name != "config.toml" else "config")
        temporary.replace(path)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_what_is_published_comes_back(run: Path, store: Store, tmp_path: Path) -> None:
    (run / "training-simtrace").mkdir()
    (run / "training-simtrace" / "0-iteration.csv").write_text("a gigabyte an hour")
    (run / "checkpoints" / ".last.pt.tmp").write_text("half")
    manifest = Writer(run, store).publish(files_of(run))
    assert manifest.version == 1
    fetched = fetch_run(store, tmp_path / "fetched").path
    names = {"config.toml", "checkpoints/last.pt", "bundle.tar.gz", "metrics.csv", "inputs/deepracer/h.json"}
    assert set(files_of(fetched)) == names == set(manifest.files)
    assert all((fetched / name).read_bytes() == (run / name).read_bytes() for name in names)


def test_the_same_again_is_no_new_version(run: Path, store: Store) -> None:
    writer = Writer(run, store)
    assert [writer.publish(files_of(run)).version for _ in range(2)] == [1, 1]
    make_run(run, 2)
    assert writer.publish(files_of(run)).version == 2
    assert Writer(run, store).publish(files_of(run)).version == 2  # after a resume


def test_old_versions_are_pruned_but_never_what_the_newest_name(run: Path, store: Store) -> None:
    writer = Writer(run, store)
    for number in range(1, 9):
        writer.publish(files_of(make_run(run, number)))
        writer.prune()
    versions = sorted(store.backend.list("versions"))
    assert versions == [f"versions/{n:08d}.json" for n in (6, 7, 8)] and len(versions) == KEEP_VERSIONS
    named = {e.object for v in versions for e in parse_manifest(store.backend.get(v), v).files.values()}
    assert set(store.backend.list("objects")) == named
    # A writer that begins anew knows nothing of the versions before it but what the store says.
    second = Writer(run, store)
    second.publish(files_of(make_run(run, 9)))
    second.prune()
    for version in sorted(store.backend.list("versions")):
        for entry in parse_manifest(store.backend.get(version), version).files.values():
            store.read(entry)
    assert store.published().version == 9


def test_a_version_that_was_never_published_is_written_over(run: Path, store: Store) -> None:
    writer = Writer(run, store)
    writer.publish(files_of(run))
    orphan = Manifest(2, "someone", {}).to_json()
    store.backend.put("versions/00000002.json", orphan)  # killed before manifest.json
    store.backend.put("objects/" + "0" * 64, b"orphan")
    assert store.published().version == 1
    writer.publish(files_of(make_run(run, 2)))
    writer.prune()
    assert store.backend.get("versions/00000002.json") != orphan
    assert "objects/" + "0" * 64 not in store.backend.list("objects")


def test_a_damaged_object_is_refused(run: Path, store: Store, tmp_path: Path) -> None:
    manifest = Writer(run, store).publish(files_of(run))
    store.backend.put(manifest.files["bundle.tar.gz"].object, b"changed")
    with pytest.raises(StoreError, match="is damaged") as caught:
        fetch_run(store, tmp_path / "fetched")
    assert caught.value.fault == "damaged"
    assert not (tmp_path / "fetched").exists()
    with pytest.raises(StoreError, match="is damaged"), local_bundle(store.address):
        pass


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\\b"])
def test_a_manifest_may_not_write_elsewhere(name: str) -> None:
    files = {name: {"sha256": "0" * 64, "size_bytes": 1}}
    data = {"format": "hotlap-run 1", "version": 1, "writer": "w", "files": files}
    with pytest.raises(StoreError, match="no manifest"):
        parse_manifest(json.dumps(data).encode(), "here")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "hotlap-run 1"}', b"\xff", b'{"format": 1e999}'])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(StoreError) as caught:
        parse_manifest(data, "here")
    assert caught.value.fault == "damaged"


@pytest.mark.parametrize("address", ["s3://", "s3:///x", "http://x/y", "s3://a/../b", "s3://a//b", "gs://a/b", "file://x"])
def test_what_is_no_address(address: str) -> None:
    assert is_url(address)
    with pytest.raises(StoreError) as caught:
        open_store(address)
    assert caught.value.fault == "bad_address"


def test_a_log_that_grows_meanwhile_is_published_as_it_was(run: Path, store: Store) -> None:
    (run / "events.jsonl").write_text("one\n")
    writer, files = Writer(run, store), files_of(run)
    entry, data = writer._entry(files["events.jsonl"])
    assert (entry.size_bytes, data) == (4, b"one\n")
    stat = (run / "events.jsonl").stat()
    with open(run / "events.jsonl", "a") as file:
        file.write("two\n")
    writer._hashes[stat.st_ino, 8, (run / "events.jsonl").stat().st_mtime_ns] = "0" * 64  # as if it had been known
    assert store.read(Writer(run, store).publish(files).files["events.jsonl"]) == b"one\ntwo\n"


# --- whose run it is --------------------------------------------------------------------------------------------------


def test_a_new_run_does_not_go_over_another(run: Path, store: Store, tmp_path: Path) -> None:
    check_free(store)
    Writer(run, store).publish(files_of(run))
    with pytest.raises(StoreError, match="holds a run already"):
        check_free(store)
    with pytest.raises(StoreError, match="another run") as caught:
        Writer(make_run(tmp_path / "other"), store).publish(files_of(tmp_path / "other"))
    assert caught.value.fault == "occupied"


def test_two_machines_do_not_overwrite_each_other(run: Path, store: Store, tmp_path: Path) -> None:
    here = Writer(run, store)
    here.publish(files_of(run))
    there = fetch_run(store, tmp_path / "there").path
    late = fetch_run(store, tmp_path / "late").path
    assert Writer(there, store).publish(files_of(make_run(there, 2))).version == 2
    for writer, folder in ((here, run), (Writer(late, store), late), (Writer(run, store), run)):
        with pytest.raises(StoreError, match="elsewhere"):
            writer.publish(files_of(make_run(folder, 3)))
    assert Writer(there, store).publish(files_of(make_run(there, 4))).version == 3


def test_a_store_that_has_lost_everything_is_filled_again(run: Path, store: Store, tmp_path: Path) -> None:
    writer = Writer(run, store)
    writer.publish(files_of(run))
    for name in [*store.backend.list("objects"), *store.backend.list("versions"), "manifest.json"]:
        store.backend.delete([name])
    writer.publish(files_of(make_run(run, 2)))
    fetch_run(store, tmp_path / "fetched")


def test_going_on_with_a_run(run: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at"):
        open_run(tmp_path / "new", store)
    assert open_run(run, store).path == run  # its own files win
    Writer(run, store).publish(files_of(run))
    assert open_run(tmp_path / "new", store).path == tmp_path / "new"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(RunError, match="not empty"):
        open_run(tmp_path / "full", store)
    with pytest.raises(RunError, match="run folder itself"):
        store_of(str(run), run)


# --- a bundle by its address ------------------------------------------------------------------------------------------


def test_a_bundle_by_path_run_and_store(run: Path, store: Store) -> None:
    manifest = Writer(run, store).publish(files_of(run))
    entry = manifest.files["bundle.tar.gz"]
    url = f"file://{Path(store.address).absolute()}"
    addresses: Sequence[str | Path] = (
        run / "bundle.tar.gz", run, store.address, url, f"{url}/bundle.tar.gz", f"{url}/{entry.object}",
    )  # fmt: skip
    for address in addresses:
        with local_bundle(address) as path:
            assert path is not None and path.read_text() == "bundle.tar.gz 1", address
    assert not path.exists() and (run / "bundle.tar.gz").exists()
    with local_bundle(run / "none.tar.gz") as path:
        assert path == run / "none.tar.gz"  # who reads it says so
    with local_bundle(None) as path:
        assert path is None


# --- the thread -------------------------------------------------------------------------------------------------------


class Moody(FolderBackend):
    """A store that is full, or slow, for a while."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.full, self.gate, self.puts = False, threading.Event(), 0
        self.gate.set()

    def put(self, name: str, data: bytes) -> None:
        self.puts += 1
        if not self.gate.wait(20):
            raise AssertionError
        if self.full:
            raise StoreError("refused", "no room")
        super().put(name, data)

    def abandon(self) -> None:
        self.gate.set()


def wait_until(true: object, timeout_s: float = 20.0) -> None:
    assert callable(true)
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_publisher_publishes_and_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    publisher = Publisher(run, store)
    publisher.saved()
    make_run(run, 2)
    publisher.close()
    assert publisher.result == {
        "address": str(tmp_path / "store"), "published": store.published().version, "behind": [], "error": None,
    }  # fmt: skip
    assert not (run / ".store").exists()
    with local_bundle(store.address) as path:
        assert path is not None and path.read_text() == "bundle.tar.gz 2"


def test_a_moment_is_kept_as_it_was(run: Path, tmp_path: Path) -> None:
    backend = Moody(tmp_path / "store")
    backend.gate.clear()
    publisher = Publisher(run, Store("slow", backend))
    for number in range(1, 40):  # newest wins: 39 moments are not 39 versions
        make_run(run, number)
        publisher.saved()
        assert len(list((run / ".store").iterdir())) <= 3
    wait_until(lambda: backend.puts > 0)
    backend.gate.set()
    publisher.close()
    assert publisher.result["behind"] == [] and publisher.result["published"] in (1, 2)


def test_a_full_store_is_told_once_and_tried_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.publisher, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(trainer.publisher, "LONGEST_PAUSE_S", 0.05)
    backend = Moody(tmp_path / "store")
    backend.full = True
    publisher = Publisher(run, Store("small", backend))
    publisher.saved()
    wait_until(lambda: backend.puts >= 4)
    backend.full = False
    wait_until(lambda: publisher.error is None)
    publisher.close()
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].split(";")[0] for line in said] == [
        " the store small is behind: no room", " the store small is up to date again (version 1)",
    ]  # fmt: skip


def test_a_slow_store_is_waited_for_with_a_bound(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Moody(tmp_path / "store")
    backend.gate.clear()
    publisher = Publisher(run, Store("slow", backend))
    publisher.saved()
    wait_until(lambda: backend.puts > 0)
    backend.full = True
    publisher.close(0.1)
    assert publisher.result["published"] is None
    assert publisher.result["behind"] == sorted(files_of(run))
    assert "checkpoints/last.pt" in capsys.readouterr().err


def test_anothers_store_is_left_alone(run: Path, store: Store, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", 7)
    Writer(other, store).publish(files_of(other))
    publisher = Publisher(run, store)
    publisher.saved()
    publisher.close()
    assert "another run" in str(publisher.result["error"])
    with local_bundle(store.address) as path:
        assert path is not None and path.read_text() == "bundle.tar.gz 7"


def test_a_car_without_the_extra_is_told_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert hotlap.main(["flash", "s3://laps/run", "--car", "hotlap.local", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["next"] == "pip install 'hotlap[scale]'"
