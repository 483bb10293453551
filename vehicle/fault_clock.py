"""A wall clock that can be stepped for single processes: a small library that the dynamic linker loads before libc.

Stepping the machine's own clock takes root and disturbs everybody on it; libfaketime 0.9.10 breaks ``clock_nanosleep``,
and with it Python's ``time.sleep``, where CLOCK_MONOTONIC is to stay true. So this one changes what a process reads as
the time of day, and the absolute deadlines that are of it, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from vehicle.errors import VehicleError

_FILE = "HOTLAP_WALL_CLOCK"
_HOUR_S, _SLACK_S = 3600, 60.0
_READ = "import time; print(time.time(), time.monotonic())"
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_s; /* shared with whoever steps the clock */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HOTLAP_WALL_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (page != MAP_FAILED) ahead_s = page;
}

static int64_t ahead(void) { return ahead_s ? *ahead_s : 0; }

int clock_gettime(clockid_t id, struct timespec *ts) {
    int result = syscall(SYS_clock_gettime, id, ts);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) ts->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec ts;
    int result = clock_gettime(CLOCK_REALTIME, &ts);
    if (tv) { tv->tv_sec = ts.tv_sec; tv->tv_usec = ts.tv_nsec / 1000; }
    return result;
}

time_t time(time_t *out) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec true_until = *until;
    true_until.tv_sec -= ahead();
    return real(semaphore, &true_until);
}
"""


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


class WallClock:
    """The wall clock of all processes that are started with `env`.

    Args:
        folder: for the library and the file that steps it.

    Raises:
        VehicleError: the library cannot be compiled, or does not do what it should with this Python.
    """

    def __init__(self, folder: Path) -> None:
        self._path, library = folder / "wall_clock", folder / "wall_clock.so"
        self.step(0)
        found = compiler()
        command = [found or "cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"]
        try:
            subprocess.run(command, input=_SOURCE, text=True, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            raise VehicleError(f"the clock's library cannot be compiled: {said}", cause="no C compiler") from error
        self.env = {"LD_PRELOAD": str(library), _FILE: str(self._path)}
        self._prove()

    def step(self, ahead_s: int) -> None:
        """Set the wall clock to so many whole seconds ahead of the true one, for all of them at once."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, struct.pack("=q", ahead_s), 0)
        finally:
            os.close(fd)

    def _prove(self) -> None:
        """An hour's step must be seen on the wall clock, and on no other."""
        self.step(_HOUR_S)
        environments = ({**os.environ}, {**os.environ, **self.env})
        true, moved = (
            [float(word) for word in subprocess.check_output([sys.executable, "-c", _READ], env=env).split()]
            for env in environments
        )
        self.step(0)
        if abs(moved[0] - true[0] - _HOUR_S) > _SLACK_S or abs(moved[1] - true[1]) > _SLACK_S:
            raise VehicleError(
                f"after a step of one hour wall and monotonic clock read {moved}, the true ones {true}",
                cause="a Python that is linked statically takes no other clock",
            )
