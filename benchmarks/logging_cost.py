"""What the logs cost: processor time of the same training with all of them and with none, as a ratio.

Processor time, not the clock, since it does not depend on what else the machine does. Runs alternate (none, all, all,
none, ...), each in a process of its own. Usage: python benchmarks/logging_cost.py [STEPS] [PAIRS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median


def cpu_s(steps: int, traces: str, folder: Path) -> float:
    """Processor seconds of a training."""
    words = ["train", "--track", "first_oval", "--steps", str(steps), "--seed", "1", "--traces", traces]
    command = [sys.executable, "-m", "hotlap", *words, "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(pairs):
            for traces in ("none", "all") if pair % 2 == 0 else ("all", "none"):
                # A long and a short run: their difference is free of starting, compiling and the last evaluation.
                for length in (steps, 2048):
                    spent = cpu_s(length, traces, Path(scratch) / f"{pair}-{traces}-{length}")
                    found.setdefault((traces, length), []).append(spent)
                    print(f"{traces:5} {length:7} steps: {spent:7.2f} s of processor time", flush=True)
    cost = {traces: median(found[traces, steps]) - median(found[traces, 2048]) for traces in ("none", "all")}
    print(f"throughput with all logs is {cost['none'] / cost['all']:.3f} of that with none (wanted: at least 0.9)")


if __name__ == "__main__":
    main()
