"""Debian's own kernel for QEMU: its image, its modules, the one driver that Debian does not build, an initial RAM disk.

The driver is pwm-pca9685 (Debian for PCs leaves CONFIG_PWM_PCA9685 out): its one file comes from Debian's linux-source
of the same version, and is built against its linux-headers, unchanged.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.machine import roots
from tests.machine.guests import OVERLAY
from tests.machine.roots import private, run

BUILD = f"""{OVERLAY}
root=$work/root
mount -t proc proc "$root/proc"
ln -sf gawk "$root/usr/bin/awk"
mkdir "$root/build"
cat > "$root/build/run" <<'RUN'
set -e
cd /build
source=$(basename /usr/src/linux-source-*.tar.xz .tar.xz)
tar -xJf /usr/src/$source.tar.xz --strip-components=3 --occurrence=1 $source/drivers/pwm/pwm-pca9685.c
echo 'obj-m := pwm-pca9685.o' > Makefile
make -s -C /usr/src/linux-headers-*-amd64 M=/build modules
RUN
chroot "$root" /bin/bash /build/run
cp "$root/build/pwm-pca9685.ko" "$work/"
"""
# What it takes to find the root: everything else is loaded from there.
EARLY = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /bin /proc /sys /dev /lower /rw /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /early); do insmod /modules/$module || echo "no module $module"; done
share() { mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,$3 "$1" "$2"; }
share root /lower ro,cache=loose
mount -t tmpfs -o size=75% rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new
mkdir -p /new/usr/lib/modules /new/mnt
share modules /new/usr/lib/modules ro,cache=loose
share mnt /new/mnt rw,cache=none
exec switch_root /new /lib/systemd/systemd
"""


class Linux:
    """A kernel in a folder: `vmlinuz`, `initrd`, and `modules`, which has a folder of its version."""

    def __init__(self, folder: Path) -> None:
        self.vmlinuz, self.initrd, self.modules = folder / "vmlinuz", folder / "initrd", folder / "modules"
        [self.version] = os.listdir(self.modules)


def linux() -> Linux:
    """The newest kernel of this Debian release, ready to boot."""
    root = roots.debian(roots.KERNEL)

    def make(folder: Path) -> None:
        [version] = os.listdir(root / "lib/modules")
        shutil.copy(root / f"boot/vmlinuz-{version}", folder / "vmlinuz")
        shutil.copytree(root / "lib/modules", folder / "modules", symlinks=True)
        for name in ("build", "source"):
            (folder / "modules" / version / name).unlink(missing_ok=True)
        run(private(BUILD, folder / "build", root))
        extra = folder / "modules" / version / "extra"
        extra.mkdir()
        shutil.move(folder / "build/pwm-pca9685.ko", extra)
        shutil.rmtree(folder / "build")
        # depmod looks in lib/modules.
        (folder / "lib").mkdir()
        (folder / "lib/modules").symlink_to("../modules")
        run(["depmod", "--basedir", folder, version])
        make_initrd(folder, version)

    return Linux(roots.cached("linux", (root.name, BUILD, INIT, EARLY), make))


def make_initrd(folder: Path, version: str) -> None:
    """Busybox, the first modules in the order in which they are loaded, and `INIT`."""
    made = folder / "ird"
    (made / "modules").mkdir(parents=True)
    (made / "bin").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, made / "bin/busybox")
    order: list[str] = []
    for module in EARLY:
        said = run(["modprobe", "--show-depends", "--dirname", folder, "--set-version", version, module])
        for line in said.splitlines():
            path = Path(line.split()[1]) if line.startswith("insmod") else None
            if path is not None and path.name not in order:
                shutil.copy(path, made / "modules")
                order.append(path.name)
    (made / "early").write_text("\n".join(order) + "\n")
    (made / "init").write_text(INIT)
    (made / "init").chmod(0o755)
    run(["sh", "-c", f"find . | cpio --quiet -o -H newc | gzip -1 > {folder / 'initrd'}"], cwd=made)
    shutil.rmtree(made)
