"""Check a bundle in a process of its own: what it says, its golden vectors, and its speed on this processor.

A graph can loop for ever, take all memory or crash ONNX Runtime. Whoever installs a model must survive that, so the
graph is run in a child (`check_in_child`) with a time limit, an address space limit and the first place in the queue
of the out-of-memory killer. ``python -m vehicle.slot_verify BUNDLE`` is that child; it prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vehicle.child import ROOT, child_environment
from vehicle.contract import GOLDEN_MISMATCH, Contract
from vehicle.errors import BundleError, SlotError
from vehicle.slot_state import CHECK_CRASHED, TOO_SLOW

RUNS = 100  # at 100 the p99 is the second worst, so that one hiccup of a busy system does not refuse a good model
WARM_UP_RUNS = 5
TIMEOUT_S = 60.0
# Bundle, unpacked members and session of DeepRacer's largest network take under 1 GB of address space.
MAX_ADDRESS_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Verdict:
    """What the checks of a good bundle found.

    Args:
        sha256: of the file that was checked.
        golden_difference: the greatest, one frame at a time, in units of the output's range.
        p50_ms, p99_ms: of one inference of one frame on this processor, over `runs` runs.
    """

    sha256: str
    contract: Contract
    golden_difference: float
    p50_ms: float
    p99_ms: float
    runs: int
    onnxruntime: str
    processor: str

    def report(self) -> dict[str, object]:
        """The figures without the contract, for ``report.json``."""
        return {k: v for k, v in vars(self).items() if k not in ("sha256", "contract")}


def check_here(path: str | os.PathLike[str], *, budget_s: float, runs: int = RUNS) -> Verdict:
    """Every check in this process; `check_in_child` is for bundles that nobody vouches for.

    Raises:
        BundleError: any fault of `vehicle.bundle.read_bundle`; ``golden_mismatch`` also where a frame alone, as in
            driving, does not give what it gives among others.
        SlotError: ``too_slow``: the p99 of one inference is over ``budget_s``.
    """
    # Here, since the parent must do without ONNX Runtime's time and memory.
    import numpy as np
    import onnxruntime

    from vehicle.action_space import DiscreteActionSpace
    from vehicle.bundle import GOLDEN_TOLERANCE, read_bundle
    from vehicle.policy import OnnxPolicy, PolicyOutputError

    bundle = read_bundle(path)
    policy, frames = OnnxPolicy(bundle), bundle.golden_frames
    space, span = bundle.action_space, np.ones(bundle.action_space.size)
    if not isinstance(space, DiscreteActionSpace):
        span = np.array([space.steering_high_deg - space.steering_low_deg, space.speed_high_mps - space.speed_low_mps])
    times_s: list[float] = []
    allowed_over = runs - math.ceil(0.99 * runs)
    over, difference = 0, 0.0
    for run in range(-WARM_UP_RUNS, runs):
        i = run % len(frames)
        start_s = time.monotonic()
        try:
            output = policy(frames[i : i + 1])
        except PolicyOutputError as error:
            raise BundleError(GOLDEN_MISMATCH, f"frame {i}, alone: {error.what}", cause=error.cause) from error
        elapsed_s = time.monotonic() - start_s
        difference = max(difference, float((np.abs(output[0] - bundle.golden_outputs[i]) / span).max()))
        if difference > GOLDEN_TOLERANCE:
            raise BundleError(
                GOLDEN_MISMATCH,
                f"golden frame {i}, alone: the graph gives {output[0].tolist()} here, "
                f"{bundle.golden_outputs[i].tolist()} at export",
                cause="the graph does not treat a frame alone as it does one among others",
                next_step="export it again with hotlap export",
            )
        if run < 0:
            continue
        times_s.append(elapsed_s)
        over += elapsed_s > budget_s
        if over > allowed_over:  # the p99 is settled; a graph of seconds need not run a hundred times
            raise SlotError(
                TOO_SLOW,
                f"{over} of {run + 1} inferences took more than {budget_s * 1e3:.1f} ms, the slowest "
                f"{max(times_s) * 1e3:.1f} ms",
                cause="the network is too large for this processor, or the processor is throttled or busy",
                next_step="train with a smaller network, or try again with nothing else running",
            )
    times_s.sort()
    return Verdict(
        bundle.sha256,
        bundle.contract,
        difference,
        round(times_s[math.ceil(0.5 * runs) - 1] * 1e3, 4),
        round(times_s[math.ceil(0.99 * runs) - 1] * 1e3, 4),
        runs,
        onnxruntime.__version__,
        platform.processor() or platform.machine(),
    )


def check_in_child(
    path: str | os.PathLike[str], *, budget_s: float, runs: int = RUNS, timeout_s: float = TIMEOUT_S
) -> Verdict:
    """`check_here` in a child process, which may hang, die or be killed without harm to this one.

    Raises:
        SlotError: a bundle's own fault by its name (`vehicle.contract.FAULTS`), ``too_slow`` (also when the checks
            take longer than ``timeout_s``), or ``check_crashed``.
    """
    command = [
        sys.executable, "-m", "vehicle.slot_verify", os.path.abspath(path),
        "--budget-s", repr(budget_s), "--runs", str(runs), "--timeout-s", repr(timeout_s),
    ]  # fmt: skip
    try:
        child = subprocess.run(
            command,
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlotError(
            TOO_SLOW,
            f"the checks of {path} were not done after {timeout_s:g} s",
            cause="the graph loops for very long, or the golden frames are many and the network large",
            next_step="train with a smaller network",
        ) from error
    try:
        answer = dict(json.loads(child.stdout))
        refused = answer.get("refused")
        if refused is None:
            return Verdict(**{**answer, "contract": Contract.from_json(json.dumps(answer["contract"]))})
    except (ValueError, TypeError, KeyError) as error:  # it did not come to print one
        raise _crashed(path, child) from error
    raise SlotError(**refused)


def _crashed(path: str | os.PathLike[str], child: subprocess.CompletedProcess[bytes]) -> SlotError:
    status = f"status {child.returncode}"
    if child.returncode < 0:
        status = f"signal {signal.Signals(-child.returncode).name}"
    last = (child.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return SlotError(
        CHECK_CRASHED,
        f"the process that checked {path} ended with {status}: {last[:300]}",
        cause="the graph takes more memory than there is, or ONNX Runtime fails on it",
        next_step="export it again with hotlap export, or train with a smaller network",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The child: checks one bundle under limits and prints the verdict, or the refusal, as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m vehicle.slot_verify")
    parser.add_argument("bundle")
    parser.add_argument("--budget-s", type=float, required=True)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S)
    args = parser.parse_args(argv)
    _limit(args.timeout_s)
    try:
        verdict = check_here(args.bundle, budget_s=args.budget_s, runs=args.runs)
        answer: dict[str, object] = dataclasses.asdict(verdict)
    except (BundleError, SlotError) as error:
        what = error.what.removeprefix(f"{error.fault}: ")
        answer = {"refused": {"fault": error.fault, "what": what, "cause": error.cause, "next_step": error.next_step}}
    print(json.dumps(answer, allow_nan=False))
    return 0


def _limit(timeout_s: float) -> None:
    """Less memory and time than the car needs to live, should the parent be gone and nobody kill this process."""
    cpu_s = math.ceil(timeout_s) + 5
    for kind, limit in (
        (resource.RLIMIT_AS, MAX_ADDRESS_BYTES), (resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_CORE, 0)
    ):  # fmt: skip
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, hard))
    with contextlib.suppress(OSError):  # a hardened system may not have it; the limits above stay
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
