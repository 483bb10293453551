"""Files that survive a power cut: after one, a name leads to the old content or to the new one, whole.

The order is what makes it so: the bytes go to another file in the same folder and are synced, that file takes the name
(one rename, which is atomic), then the folder is synced, so that the rename is on the disk when the call returns.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

_LOCK_POLL_S = 0.02
TEMPORARY_SUFFIX = ".tmp"
StrPath = str | os.PathLike[str]


class FileSystem:
    """Every call that changes the disk, one system call each, so that a test can let each one fail or end the process.

    All of them raise OSError. Arguments are passed by position.
    """

    def create(self, path: StrPath, mode: int) -> int:
        """A new file, opened for writing; its descriptor. The caller closes it."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: memoryview) -> int:
        """How many bytes were written, perhaps not all."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Returns when the file's content is on the disk."""
        os.fsync(descriptor)

    def fsync_dir(self, path: StrPath) -> None:
        """Returns when the folder's list of names is on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: StrPath, target: StrPath) -> None:
        """Rename, atomically; a target that exists is replaced."""
        os.replace(source, target)

    def symlink(self, target: StrPath, link: StrPath) -> None:
        """A new symbolic link."""
        os.symlink(target, link)

    def unlink(self, path: StrPath) -> None:
        """Delete a file or a link."""
        os.unlink(path)

    def mkdir(self, path: StrPath) -> None:
        """A new folder."""
        os.mkdir(path)

    def rmdir(self, path: StrPath) -> None:
        """Delete an empty folder."""
        os.rmdir(path)


def write_durably(path: StrPath, data: bytes, *, mode: int = 0o644, fs: FileSystem | None = None) -> None:
    """Give a file new content so that a power cut at any moment leaves the old content (or no file) or the new one.

    When it returns, the new content is on the disk. A cut may leave ``.NAME.*.tmp`` behind (`leftovers`); an error
    does not. A symbolic link at ``path`` is replaced, not followed. Readers never see half a file and need no lock;
    of two writers the last one wins.

    Args:
        path: the file; its folder must exist.
        mode: permissions of the new file, less the umask.
        fs: what changes the disk.

    Raises:
        OSError: the disk is full, read-only or failing. The file then has the old content, or, where only the last
            step failed (syncing the folder), perhaps the new one; whole in either case.
    """
    fs, target = fs or FileSystem(), Path(path)
    temporary = _temporary(target)
    moved = False
    descriptor = fs.create(temporary, mode)
    try:
        try:
            rest = memoryview(data)
            while rest:
                written = fs.write(descriptor, rest)
                if written <= 0:
                    raise OSError(errno.EIO, "nothing was written", str(temporary))
                rest = rest[written:]
            # Without it the rename can reach the disk before the content, and a cut leaves an empty file.
            fs.fsync(descriptor)
        finally:
            os.close(descriptor)
        fs.replace(temporary, target)
        moved = True
    finally:
        if not moved:
            with contextlib.suppress(OSError):
                fs.unlink(temporary)
    fs.fsync_dir(target.parent)


def replace_symlink(target: StrPath, link: StrPath, *, fs: FileSystem | None = None) -> None:
    """Point a symbolic link somewhere else (or make it), so that a power cut leaves the old one or the new one.

    Args:
        target: what the link says; it is not looked at. Sync it before.
        link: the link; its folder must exist.
        fs: what changes the disk.

    Raises:
        OSError: as `write_durably`; or ``link`` is a folder.
    """
    fs, path = fs or FileSystem(), Path(link)
    temporary = _temporary(path)
    fs.symlink(target, temporary)
    moved = False
    try:
        fs.replace(temporary, path)
        moved = True
    finally:
        if not moved:
            with contextlib.suppress(OSError):
                fs.unlink(temporary)
    fs.fsync_dir(path.parent)


def make_folders(path: StrPath, *, fs: FileSystem | None = None) -> None:
    """Make a folder and those above it, each on the disk before the next; those that exist are let be.

    Raises:
        OSError: no space, no permission, or a file is in the way.
    """
    fs, folder = fs or FileSystem(), Path(path)
    if folder.is_dir():
        return
    make_folders(folder.parent, fs=fs)
    with contextlib.suppress(FileExistsError):  # another process was first; what is in the way is met below
        fs.mkdir(folder)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    fs.fsync_dir(folder.parent)


def lock_folder(folder: StrPath, wait_s: float) -> int | None:
    """Take the advisory lock on a folder itself; the kernel frees it when its holder dies.

    Args:
        wait_s: how long another holder is waited for.

    Returns:
        the descriptor that holds it, for the caller to close; None where another process kept it for ``wait_s``.

    Raises:
        OSError: there is no such folder, or it cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline_s = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    os.close(descriptor)
                    return None
            time.sleep(_LOCK_POLL_S)
    except BaseException:
        os.close(descriptor)
        raise


def leftovers(path: StrPath) -> list[Path]:
    """What power cuts during `write_durably` or `replace_symlink` of this path left beside it, for its only writer to
    delete. An unreadable folder has none."""
    target = Path(path)
    try:
        names = os.listdir(target.parent)
    except OSError:
        return []
    prefix = f".{target.name}."
    return [target.parent / n for n in sorted(names) if n.startswith(prefix) and n.endswith(TEMPORARY_SUFFIX)]


def _temporary(path: Path) -> Path:
    """In the same folder, since a rename is atomic only within one file system; random, since after a reboot process
    numbers begin anew and meet the leftovers of the last one."""
    return path.parent / f".{path.name}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}"
