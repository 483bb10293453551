"""A process that was started by a supervisor ends when the supervisor does, also when that one was killed.

The supervisor keeps one end of a pipe open and never writes to it; the other end is this process's stdin. However the
supervisor dies, the kernel closes its end. A pipe, and not ``prctl(PR_SET_PDEATHSIG)``: that one is of the thread that
started the process, and misses a parent that died before it was asked for.
"""

from __future__ import annotations

import os
import signal
import threading
import time

ENVIRONMENT = "HOTLAP_SUPERVISED"  # "1": stdin is such a pipe
THREAD_NAME = "hotlap-parent"
_STDIN = 0


def end_with_parent(after_s: float = 0.0) -> bool:
    """Send this process a SIGTERM when its supervisor has gone; where it has none, nothing.

    To be called after the handlers of signals are set, and before the process gets a priority that its threads would
    inherit.

    Args:
        after_s: wait this long first: what the others still need ends last.

    Returns:
        whether there is a supervisor.
    """
    if os.environ.get(ENVIRONMENT) != "1":
        return False
    # A daemon: it sits in a read that nothing else can end.
    threading.Thread(target=_watch, args=(after_s,), name=THREAD_NAME, daemon=True).start()
    return True


def _watch(after_s: float) -> None:
    try:
        while os.read(_STDIN, 64):
            pass  # a supervisor says nothing, but a word is not its end
    except OSError:
        pass  # a stdin that cannot be read: there is no knowing, which is treated as the end
    time.sleep(after_s)
    # To the main thread, whose blocking call it ends; sent to the process, it may come to this one.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
