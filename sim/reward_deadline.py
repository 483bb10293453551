"""Does a reward function come back? Tried in a child process, because only a process can be stopped whatever it does.

A signal or a trace function cannot interrupt a loop in C, is swallowed by a bare ``except`` in the user's loop, and
works in the main thread only. A child costs about 50 ms once, before training, and leaves nothing behind.
"""

from __future__ import annotations

import marshal
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sim.errors import RewardError

# Importing nothing but these keeps the child's start short. faulthandler watches from a C thread: it ends the process
# and says which line it was at, even while that line holds the interpreter. Errors are not reported from here, since
# the same code runs next in the parent, where they can be explained better; so any exception simply ends the trial.
_CHILD = """
import faulthandler, marshal, os, sys, types
source, filename, states, limit_s = marshal.loads(sys.stdin.buffer.read())
report = os.fdopen(os.dup(2), "w")
quiet = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(quiet, stream)
faulthandler.dump_traceback_later(limit_s, exit=True, file=report)
try:
    module = types.ModuleType("hotlap_reward_trial")
    module.__file__ = filename
    sys.modules[module.__name__] = module
    exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
    for state in states:
        module.reward_function(state)
except BaseException:
    pass
os._exit(0)
"""
_START_ALLOWANCE_S = 30.0
"""For starting Python on a very busy machine; the limit itself starts to count when the user's file does."""


def check_deadline(source: str, path: Path, states: Sequence[dict[str, object]], *, limit_s: float) -> None:
    """Run ``source`` and its ``reward_function`` on ``states`` in a child process.

    Raises:
        RewardError: that took longer than ``limit_s`` seconds, or ended the Python process.
    """
    if not sys.executable:  # Python embedded in another program has no command of its own to start
        return
    task = marshal.dumps((source, str(path), list(states), limit_s))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=task,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit_s + _START_ALLOWANCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_slow(path, source, "", limit_s) from error
    if done.returncode == 0:
        return
    report = done.stderr.decode("utf-8", errors="replace")
    if report.startswith("Timeout ("):
        raise _too_slow(path, source, report, limit_s)
    raise RewardError(
        f"{path} ended the Python process (exit status {done.returncode})",
        cause="os._exit(), or a compiled package that crashed",
        next_step="remove that call, or try the function alone with `python -X faulthandler`",
    )


def _too_slow(path: Path, source: str, report: str, limit_s: float) -> RewardError:
    """The error for a function that did not come back; ``report`` is faulthandler's, innermost frame first."""
    where = ""
    for name, number in re.findall(r'File "(.*)", line (\d+)', report):
        if name == str(path):
            where = f"; it was at line {number}: `{source.splitlines()[int(number) - 1].strip()}`"
            break
    return RewardError(
        f"{path} takes longer than {limit_s:g} s for a handful of test states{where}",
        cause="a loop that does not end, a sleep, a download, or a computation that belongs outside the function",
        next_step="compute tables once at the top of the file, and keep the function itself to a few operations",
    )
