"""Disks that fail for tests: one that refuses a call or ends the process, one that knows what was synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibration.durable import FileSystem

StrPath = str | os.PathLike[str]
CALLS = tuple(name for name in vars(FileSystem) if not name.startswith("_"))


class PowerCut(BaseException):
    """The process is gone: nothing catches this."""


class FailingDisk(FileSystem):
    """Counts the calls that change the disk and lets the k-th one, from 0, fail; -1 lets none.

    Args:
        cut: the power fails at it, so that no later call reaches the disk; else it alone is refused: "disk full".
        half: the failing call is carried out first; of a write, the first half.
    """

    def __init__(self, k: int = -1, *, cut: bool = False, half: bool = False) -> None:
        self.k, self.cut, self.half = k, cut, half
        self.names: list[str] = []

    def attempt(self, call: Callable[..., Any], name: str, arguments: tuple[Any, ...]) -> Any:
        number = len(self.names)
        self.names.append(name)
        if self.k < 0 or number < self.k or (number > self.k and not self.cut):
            return call(*arguments)
        if number == self.k and self.half:
            result = call(*(a[: len(a) // 2] if isinstance(a, memoryview) else a for a in arguments))
            if name == "create":
                os.close(result)
        if self.cut:
            raise PowerCut
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _counted(name: str) -> Callable[..., Any]:
    def method(self: FailingDisk, *arguments: Any) -> Any:
        return self.attempt(getattr(super(FailingDisk, self), name), name, arguments)

    return method


for _name in CALLS:
    setattr(FailingDisk, _name, _counted(_name))


class RememberingDisk(FileSystem):
    """A disk with a cache: after every call it writes down what a power cut then could leave behind.

    ``survivors`` holds, for each call, three trees (path under root -> bytes, a link as "-> TARGET", a folder as None):
    all that was done; all names with only the contents that were synced; only the names that were synced, with only
    the contents that were. What was there at the start is synced.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._now: dict[str, int] = {}  # name -> inode
        self._synced_names: dict[str, int] = {}
        self._synced: dict[int, bytes | str | None] = {}
        self._open: dict[int, int] = {}  # descriptor -> inode
        self.names: list[str] = []
        self.survivors: list[tuple[dict[str, bytes | str | None], ...]] = []
        for path in sorted(root.rglob("*")):
            self._add(path, path.read_bytes() if path.is_file() else None)
        self._synced_names = dict(self._now)

    def _key(self, path: StrPath) -> str:
        return str(Path(path).relative_to(self._root))

    def _add(self, path: StrPath, content: bytes | str | None) -> int:
        inode = len(self._synced)
        self._synced[inode] = content
        self._now[self._key(path)] = inode
        return inode

    def _remember(self, name: str) -> None:
        self.names.append(name)
        done: dict[str, bytes | str | None] = {}
        for path in sorted(self._root.rglob("*")):
            content = f"-> {os.readlink(path)}" if path.is_symlink() else path.read_bytes() if path.is_file() else None
            done[self._key(path)] = content
        trees = ({n: self._synced[i] for n, i in names.items()} for names in (self._now, self._synced_names))
        self.survivors.append((done, *trees))

    def create(self, path: StrPath, mode: int) -> int:
        descriptor = super().create(path, mode)
        self._open[descriptor] = self._add(path, b"")
        self._remember("create")
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        written = super().write(descriptor, data[: max(1, len(data) // 2)])  # a short write is allowed
        self._remember("write")
        return written

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        (name,) = (name for name, inode in self._now.items() if inode == self._open[descriptor])
        self._synced[self._open[descriptor]] = (self._root / name).read_bytes()
        self._remember("fsync")

    def fsync_dir(self, path: StrPath) -> None:
        super().fsync_dir(path)
        folder = os.path.normpath(self._key(path))
        inside = {n: i for n, i in self._now.items() if (os.path.dirname(n) or ".") == folder}
        outside = {n: i for n, i in self._synced_names.items() if (os.path.dirname(n) or ".") != folder}
        self._synced_names = {**outside, **inside}
        self._remember("fsync_dir")

    def replace(self, source: StrPath, target: StrPath) -> None:
        super().replace(source, target)
        self._now[self._key(target)] = self._now.pop(self._key(source))
        self._remember("replace")

    def symlink(self, target: StrPath, link: StrPath) -> None:
        super().symlink(target, link)
        self._add(link, f"-> {os.fspath(target)}")
        self._remember("symlink")

    def unlink(self, path: StrPath) -> None:
        super().unlink(path)
        del self._now[self._key(path)]
        self._remember("unlink")

    def mkdir(self, path: StrPath) -> None:
        super().mkdir(path)
        self._add(path, None)
        self._remember("mkdir")


def lay_out(tree: dict[str, bytes | str | None], root: Path) -> None:
    """Make a surviving tree on the real disk; names whose folder did not survive are lost with it."""
    root.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        path = root / name
        if not path.parent.is_dir():
            continue
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_bytes(content)
