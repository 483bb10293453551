"""Saliency maps in a process of their own, behind everything else: ``python -m vehicle.saliency_child``.

The console starts it when somebody wants to see maps, and ends it by closing its stdin. A graph may be slow, take much
memory or crash ONNX Runtime: that must cost neither the pilot nor the console anything. For each line of JSON,
{"bundle": PATH}, and the 19,200 bytes of an observation after it, one line of JSON comes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from vehicle.errors import HotlapError

NICE = 19
# Among sessions: a tenth of the processor beside something that wants all of it. With 19 no map would ever be done.
SESSION_NICE = 10
MAX_ADDRESS_BYTES = 2 * 2**30
BUDGET_S, DEADLINE_S = 0.7, 2.5  # at one map a second, a processor has a third of its time left for others
MAX_LINE_BYTES = 8192


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there are no more requests, or nobody reads the answers."""
    # Here, after the limits are set.
    import numpy as np

    from vehicle.bundle import read_bundle
    from vehicle.observation import SHAPE
    from vehicle.policy import OnnxPolicy
    from vehicle.saliency import look

    size = int(np.prod(SHAPE))
    known, policy = "", None
    while line := requests.readline(MAX_LINE_BYTES):
        pixels = requests.read(size)
        if len(pixels) != size:
            return
        answer: dict[str, Any]
        try:
            path = str(json.loads(line)["bundle"])
            if policy is None or path != known:
                # The golden vectors were replayed when it was installed.
                known, policy = path, OnnxPolicy(read_bundle(path, replay_golden=False))
            seen = look(
                policy, np.frombuffer(pixels, np.uint8).reshape(SHAPE), budget_s=BUDGET_S, deadline_s=DEADLINE_S
            )
            rows, columns = seen.change.shape
            answer = {
                "rows": rows,
                "columns": columns,
                "change": [round(float(one), 4) for one in seen.change.ravel()],
                "action": seen.action,
                "chosen": seen.chosen,
                "actions": seen.actions(),
            }
        except HotlapError as error:
            fault = str(getattr(error, "fault", "too_slow" if isinstance(error, TimeoutError) else "saliency"))
            what = error.what.removeprefix(f"{fault}: ")
            answer = {"refused": {"reason": fault, "what": what, "cause": error.cause, "next_step": error.next_step}}
        try:
            answers.write(json.dumps(answer, allow_nan=False).encode() + b"\n")
            answers.flush()
        except BrokenPipeError:
            return


def step_back() -> None:
    """Behind in every queue: processor, memory, and first on the out-of-memory killer's list."""
    with contextlib.suppress(OSError):
        os.nice(NICE - os.nice(0))
    # A nice value counts within a session only (the kernel's autogroups), and this process has one of its own.
    for path, value in (("/proc/self/autogroup", str(SESSION_NICE)), ("/proc/self/oom_score_adj", "1000")):
        with contextlib.suppress(OSError):
            Path(path).write_text(value)
    for kind, limit in ((resource.RLIMIT_AS, MAX_ADDRESS_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, hard))


def main() -> int:
    """Serve stdin and stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the console's terminal is the console's affair
    step_back()
    serve(sys.stdin.buffer, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
