"""A guest in QEMU: Debian's own kernel, its systemd as the first process, its root and ours shared by 9p.

Time in it counts instructions, one a nanosecond (``-icount``): a machine of 1 GHz, however slow or busy this one is, so
that a gate's 20 ms are 20 ms there. While it has nothing to do, its time is ours. It has one processor.
"""

from __future__ import annotations

import subprocess

from tests.machine.guests import OVERLAY, Guest
from tests.machine.linux import Linux
from tests.machine.roots import private

BOOT = f"""{OVERLAY}
vmlinuz=$1 initrd=$2 modules=$3
exec qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 1 -m 2048 -icount shift=0 \\
    -kernel "$vmlinuz" -initrd "$initrd" \\
    -append "console=ttyS0 quiet panic=-1 systemd.show_status=1 systemd.mask=serial-getty@ttyS0.service" \\
    -display none -nodefaults -serial stdio -no-reboot \\
    -virtfs "local,path=$work/root,mount_tag=root,security_model=passthrough,readonly=on,multidevs=remap" \\
    -virtfs "local,path=$modules,mount_tag=modules,security_model=passthrough,readonly=on,multidevs=remap" \\
    -virtfs "local,path=$work/mnt,mount_tag=mnt,security_model=passthrough,multidevs=remap"
"""


def boot(guest: Guest, kernel: Linux, limit_s: float) -> str:
    """Boot it until it switches itself off; what its console said."""
    words = private(BOOT, guest.folder, guest.lower, kernel.vmlinuz, kernel.initrd, kernel.modules)
    return guest.boot(words, limit_s)


def version() -> str:
    """QEMU's."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout
    return said.splitlines()[0].removeprefix("QEMU emulator version ")
