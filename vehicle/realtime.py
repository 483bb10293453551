"""Keeps the gate's loop on time where the system lets it: priority, no swapping, no garbage collector."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path

PRIORITY = 20  # of SCHED_FIFO, 1..99: above every ordinary program, below the kernel's interrupt threads (50)
SWITCH_S = 0.0005  # the loop gets the interpreter's lock back from another thread within this (Python's default: 5 ms)
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def raise_priority() -> bool:
    """SCHED_FIFO for the calling thread, and for the threads and processes that it starts from now on.

    Returns:
        whether the system allowed it (systemd: ``LimitRTPRIO=``; the kernel leaves 5 % of the time to others anyway).
    """
    sys.setswitchinterval(SWITCH_S)
    return _scheduler(os.SCHED_FIFO, PRIORITY)


def go_first() -> bool:
    """SCHED_RR for the pilot, behind the gate, which must come to its turn whatever the pilot does.

    Otherwise a picture waits for the time slices of ordinary programs. Not with a nice value: that only counts among
    the processes of one session (the kernel's autogroups), or of one service. Threads started later inherit it.

    Returns:
        whether the system allowed it.
    """
    return _scheduler(os.SCHED_RR, PRIORITY // 2)


def go_last(nice: int) -> None:
    """Behind everything that drives the car, where that has no real-time priority: on a laptop nobody gives it.

    A nice value counts only within a session, so one that is this process's own (`hotlap drive` makes one for each) is
    put back as a whole.
    """
    with contextlib.suppress(OSError):
        os.nice(max(0, nice - os.nice(0)))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def _scheduler(policy: int, priority: int) -> bool:
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True


def lock_memory() -> bool:
    """Keep every page that is used in memory, so that a pilot that fills it does not swap the gate out.

    Returns:
        whether it is so. Only tried without a limit on locked memory (systemd: ``LimitMEMLOCK=infinity``): with one,
        the first allocation beyond it would fail.
    """
    import ctypes
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        return False
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)
    return False


def stop_collector() -> None:
    """No garbage collection behind our back, and what exists by now is never looked at again; see `collect`."""
    gc.collect()
    gc.freeze()
    gc.disable()


def collect() -> None:
    """Collect now; to be called while the car is disarmed, when a late tick does not matter."""
    gc.collect()
