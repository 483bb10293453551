"""What the tests of this folder need of a machine: ``python -m tests.machine.needs KIND`` installs it, or says why not.

As root it installs missing packages with apt-get. Exit status 1: the tests of this kind cannot run here.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# kind -> command that must be there -> Debian package that brings it
COMMANDS = {
    "systemd": {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "unshare": "util-linux"},
    "kernel": {
        "mmdebstrap": "mmdebstrap",
        "systemd-nspawn": "systemd-container",
        "unshare": "util-linux",
        "qemu-system-x86_64": "qemu-system-x86",
        "busybox": "busybox-static",
        "depmod": "kmod",
        "cpio": "cpio",
    },
    "arm": {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "qemu-aarch64-static": "qemu-user-static"},
}


def missing_packages(kind: str) -> list[str]:
    """Packages whose commands are not here."""
    # /usr/sbin is not in everybody's PATH.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({package for command, package in COMMANDS[kind].items() if shutil.which(command, path=path) is None})


def _file_system(name: str) -> bool:
    """Whether the kernel has it, if need be after loading its module."""
    known = Path("/proc/filesystems")
    if name not in known.read_text().split() and shutil.which("modprobe"):
        subprocess.run(["modprobe", name], capture_output=True)
    return name in known.read_text().split()


def why_not(kind: str) -> str:
    """Why the tests of this kind cannot run here, with what to do about it; empty where they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"this is {platform.system()} on {platform.machine()}: they are made for Linux on x86_64"
    if os.geteuid() != 0:
        return f"only root may mount and boot Debian roots; next: sudo make test-{kind}"
    missing = missing_packages(kind)
    if missing:
        return f"not installed: {', '.join(missing)}; next: apt-get install --no-install-recommends {' '.join(missing)}"
    for name in ("overlay", "binfmt_misc") if kind == "arm" else ("overlay",):
        if not _file_system(name):
            return f"this kernel has no {name} file system; next: modprobe {name}"
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], capture_output=True, text=True)
    if done.returncode:
        return f"this machine lets nobody make a mount namespace (a container?): {done.stderr.strip()}"
    return ""


def install(kind: str) -> None:
    """Install what is missing; nothing where nobody could."""
    missing = missing_packages(kind)
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        if subprocess.run(["apt-get", *words], **quiet).returncode:  # type: ignore[call-overload]
            return


def main() -> int:
    """The exit status is at the head of this file."""
    kind = sys.argv[1]
    install(kind)
    reason = why_not(kind)
    if reason:
        print(f"make test-{kind} cannot run here: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
