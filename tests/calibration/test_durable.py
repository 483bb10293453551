"""Every moment of a power cut leaves the old content or the new; errors leave no litter; the order of the calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calibration.durable import FileSystem, leftovers, make_folders, replace_symlink, write_durably
from tests.calibration.disk import FailingDisk, PowerCut, RememberingDisk, StrPath

OLD, NEW = b"old " * 1000, b"new content " * 5000


def test_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, mode in ((OLD, 0o644), (NEW, 0o600), (b"", 0o640)):
        write_durably(path, data, mode=mode)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == mode & ~_umask()
    assert os.listdir(tmp_path) == ["file"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_order_of_the_calls(tmp_path: Path) -> None:
    disk = FailingDisk()
    write_durably(tmp_path / "file", OLD, fs=disk)
    assert disk.names == ["create", "write", "fsync", "replace", "fsync_dir"]
    disk = FailingDisk()
    replace_symlink("file", tmp_path / "link", fs=disk)
    assert disk.names == ["symlink", "replace", "fsync_dir"]
    disk = FailingDisk()
    make_folders(tmp_path / "a" / "b", fs=disk)
    assert disk.names == ["mkdir", "fsync_dir"] * 2


@pytest.mark.parametrize("before", [OLD, None])
def test_every_survivor_is_old_or_new(tmp_path: Path, before: bytes | None) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    if before is not None:
        (root / "file").write_bytes(before)
    disk = RememberingDisk(root)
    write_durably(root / "file", NEW, fs=disk)
    assert len(disk.survivors) > 10 and {"create", "write", "fsync", "replace", "fsync_dir"} == set(disk.names)
    for trees in disk.survivors:
        for tree in trees:
            assert tree.get("file") in (before, NEW)
    assert all(tree == {"file": NEW} for tree in disk.survivors[-1]), "it has reached the disk when the call returns"


def test_without_its_syncs_a_cut_would_show(tmp_path: Path) -> None:
    """The test above can fail: a disk on which fsync does nothing loses content, one without fsync_dir the new name."""

    class NoSync(RememberingDisk):
        def fsync(self, descriptor: int) -> None:
            self._remember("fsync")

    class NoDirSync(RememberingDisk):
        def fsync_dir(self, path: StrPath) -> None:
            self._remember("fsync_dir")

    ends = {}
    for kind in (NoSync, NoDirSync):
        root = tmp_path / kind.__name__
        root.mkdir()
        (root / "file").write_bytes(OLD)
        disk = kind(root)
        write_durably(root / "file", NEW, fs=disk)
        ends[kind] = [tree.get("file") for tree in disk.survivors[-1]]
    assert ends == {NoSync: [NEW, b"", b""], NoDirSync: [NEW, NEW, OLD]}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("k", range(5))
def test_an_error_leaves_old_or_new_and_no_litter(tmp_path: Path, k: int, half: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, NEW, fs=FailingDisk(k, half=half))
    renamed = k == 4 or (k == 3 and half)  # a rename that is reported to have failed may have happened
    assert path.read_bytes() == (NEW if renamed else OLD)
    assert len(os.listdir(tmp_path)) == (2 if k == 0 and half else 1)  # a file whose making failed is not ours
    write_durably(path, NEW)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("k", range(5))
def test_leftovers_of_a_cut_are_found(tmp_path: Path, k: int) -> None:
    path = tmp_path / "file"
    (tmp_path / ".other.aaaa.tmp").write_bytes(b"")
    with pytest.raises(PowerCut):
        write_durably(path, NEW, fs=FailingDisk(k, cut=True, half=True))
    found = leftovers(path)
    assert len(found) == (1 if k < 3 else 0)
    assert sorted(os.listdir(tmp_path)) == sorted([".other.aaaa.tmp", *(p.name for p in found or [path])])
    assert leftovers(tmp_path / "none" / "file") == []


def test_nothing_written_is_an_error_and_not_a_loop(tmp_path: Path) -> None:
    class Stuck(FileSystem):
        def write(self, descriptor: int, data: memoryview) -> int:
            return 0

    with pytest.raises(OSError, match="nothing was written"):
        write_durably(tmp_path / "file", NEW, fs=Stuck())
    assert os.listdir(tmp_path) == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    write_durably(tmp_path / "file", NEW)
    for k in range(1, 5):
        with pytest.raises(OSError):
            write_durably(tmp_path / "file", NEW, fs=FailingDisk(k))
    with pytest.raises(OSError):
        FileSystem().fsync_dir(tmp_path / "none")
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(OLD)
    (tmp_path / "file").symlink_to("other")
    write_durably(tmp_path / "file", NEW)
    assert (tmp_path / "other").read_bytes() == OLD and not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("before", ["-> one", None])
def test_a_link_points_to_the_old_or_to_the_new(tmp_path: Path, before: str | None) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = RememberingDisk(root)
    if before is not None:
        replace_symlink("one", root / "link", fs=disk)
    begun = len(disk.survivors)
    replace_symlink("two", root / "link", fs=disk)
    assert os.readlink(root / "link") == "two" and os.listdir(root) == ["link"]
    for trees in disk.survivors[begun:]:
        assert all(tree.get("link") in (before, "-> two") for tree in trees)
    assert all(tree == {"link": "-> two"} for tree in disk.survivors[-1])
    for k in range(2):
        with pytest.raises(OSError, match="No space left"):
            replace_symlink("three", root / "link", fs=FailingDisk(k))
        assert os.readlink(root / "link") == "two" and os.listdir(root) == ["link"]


def test_folders(tmp_path: Path) -> None:
    make_folders(tmp_path / "a" / "b" / "c")
    make_folders(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(NotADirectoryError):
            make_folders(path)

    class Raced(FileSystem):
        def mkdir(self, path: StrPath) -> None:
            os.mkdir(path)
            raise FileExistsError

    make_folders(tmp_path / "d" / "e", fs=Raced())
    assert (tmp_path / "d" / "e").is_dir()


def test_rmdir_and_unlink(tmp_path: Path) -> None:
    fs = FileSystem()
    fs.mkdir(tmp_path / "a")
    fs.rmdir(tmp_path / "a")
    os.close(fs.create(tmp_path / "b", 0o600))
    with pytest.raises(FileExistsError):
        fs.create(tmp_path / "b", 0o600)
    fs.unlink(tmp_path / "b")
    assert os.listdir(tmp_path) == []
