"""A Debian of another processor on this one: aarch64, its programs run by qemu-user, one by one.

The kernel is told to run them (binfmt_misc) for as long as the tests need it. There is no boot: programs share this
machine's kernel, and its time. So what a processor computes is shown, and how fast it is, is not.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.machine import roots
from tests.machine.guests import OVERLAY, Guest
from tests.machine.roots import private, run

BINFMT = Path("/proc/sys/fs/binfmt_misc")
NAME = "hotlap-aarch64"
# ELF of 64 bits for aarch64, programs and shared objects.
MAGIC = rb"\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00"
MASK = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe\xff\xff\xff"

# Processes of their own number space, so that none outlives it.
CHROOT = f"""{OVERLAY}
root=$work/root
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/mnt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$work/mnt" "$root/mnt"
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin HOME=/tmp LANG=C.UTF-8 \\
    /bin/sh -c "$1"
"""
SITE = "opt/hotlap/site"


@contextmanager
def programs_of_aarch64() -> Iterator[None]:
    """Let the kernel run them, where it does not yet; afterwards it is as it was."""
    mounted = (BINFMT / "register").exists()
    if not mounted:
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
    there = [path for path in BINFMT.iterdir() if path.name not in ("register", "status")]
    known = any("qemu-aarch64" in path.read_text() and "enabled" in path.read_text() for path in there)
    try:
        if not known:
            qemu = shutil.which("qemu-aarch64-static")
            assert qemu is not None
            # F: opened now, so that a chroot needs none.
            line = b":%s:M::%s:%s:%s:POF" % (NAME.encode(), MAGIC, MASK, qemu.encode())
            (BINFMT / "register").write_bytes(line)
        yield
    finally:
        if not known:
            (BINFMT / NAME).write_text("-1")
        if not mounted:
            run(["umount", BINFMT])


def chroot(guest: Guest, command: str, timeout_s: float) -> str:
    """Run a shell command in the guest; what it said."""
    words = private(CHROOT, guest.folder, guest.lower, command)
    return guest.boot(["unshare", "--pid", "--fork", "--kill-child", *words], timeout_s)


def arm_layers() -> list[Path]:
    """The layers of a root with hotlap's base install for aarch64, the uppermost first.

    This machine's pip unpacks the wheels: in an emulated one it takes a quarter of an hour. Where this Python is
    another version than the root's, the first start of each program there takes longer, for it compiles its modules.
    """
    base, wheels, checkout = roots.debian(roots.ARM), roots.wheels("aarch64"), roots.checkout()

    def make(folder: Path) -> None:
        [wheel] = checkout.glob("wheel/hotlap-*.whl")
        roots.unpack("aarch64", wheels, folder / "upper" / SITE, wheel)
        roots.unpack("aarch64", wheels, folder / "upper/opt/checks", "pytest")
        packages = folder / "upper/usr/lib/python3/dist-packages"
        packages.mkdir(parents=True)
        (packages / "hotlap.pth").write_text(f"/{SITE}\n")

    upper = roots.cached("installed-arm", (base.name, wheels.name, checkout.name), make) / "upper"
    return [upper, base]


def version() -> str:
    """QEMU's."""
    said = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True).stdout
    return said.splitlines()[0].removeprefix("qemu-aarch64 version ")
