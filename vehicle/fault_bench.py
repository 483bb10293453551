"""Puts one fault after another into a driving car and measures, in the recorded pulses, how soon it is neutral.

A case holds when the throttle was moving just before the fault, is exactly neutral within the limit of DESIGN.md, and
stays so to the end of the case. The cases are in `vehicle.fault_cases`, the processes in `vehicle.fault_rigs`.
"""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vehicle.actuators.base import PERIOD_S
from vehicle.errors import HotlapError, VehicleError
from vehicle.fault_rigs import Rig, Setup
from vehicle.trace import TraceRow

RIGS_AT_ONCE = 3
MOVING_S = 0.15  # before the fault every pulse must move the car
HELD_FRAMES = 10
# A case that misses is tried once more where the machine itself was late: a gate that takes this long from one pulse to
# the next (20 ms), or a pilot played from here that sends its intent so late, was not let run.
MACHINE_LATE_MS = 60.0
VOID = "void: "
MOST_VOIDS = 2  # a pilot on a busy machine has a hiccup now and then; one that stops for a reason does so every time
_EXIT_S = 5.0
_ROUNDING_S = 0.001

Inject = Callable[[Rig], float]
Look = Callable[[Rig], Sequence[str]]


@dataclass(frozen=True)
class Case:
    """One fault of one component, both in a few words.

    Args:
        limit_ms: DESIGN.md's.
        inject: does it; returns when, of time.monotonic.
        drive: how the car is driven before: "autonomous", "manual", "calibration" or "browser".
        watch_s: how long the pulses are looked at afterwards.
        named: the fault that the gate must name, or that the refused message was counted as.
        exit_status: what the gate must end with; None where it must live.
        by: how the cause of the first neutral pulse must begin.
        frames: servo frames for which such pulses must go on.
        steady: between fault and neutral not one pulse may differ from those before: no refused intent ever shows.
        look: further checks after the watching; each string is a fault of ours. May go on acting, such as SIGCONT.
        gate_runs: whether the gate's own ticks say, after the fault, how late the machine was.
        last: the rig is of no use afterwards.
        note: for the table.
    """

    fault: str
    component: str
    limit_ms: float
    inject: Inject
    drive: str = "autonomous"
    watch_s: float = 0.5
    named: str = ""
    exit_status: int | None = None
    by: str = "neutral:"
    frames: int = HELD_FRAMES
    steady: bool = False
    look: Look = field(default=lambda rig: ())
    gate_runs: bool = True
    last: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """Of component and fault: no two cases have the same."""
        return f"{self.component}: {self.fault}"


@dataclass(frozen=True)
class Result:
    """What became of a case.

    Args:
        late_ms: how late the machine was.
        retried: it missed, the machine was late, and this is of the second try.
        voids: tries before this one in which the car was not driving when the fault came, so that nothing was measured.
        skipped: why it could not be tried.
    """

    case: Case
    neutral_ms: float | None = None
    problems: tuple[str, ...] = ()
    late_ms: float = 0.0
    retried: bool = False
    voids: int = 0
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.problems and not self.skipped

    @property
    def void(self) -> bool:
        """Whether it says nothing, since the car was not driving steadily when the fault came."""
        return any(problem.startswith(VOID) for problem in self.problems)


class VoidCase(VehicleError):
    """The car has stopped before the fault, or by what must not stop it."""


# --- judging, pure


def judge(rows: Sequence[TraceRow], case: Case, neutral_us: float, fault_s: float) -> tuple[float | None, list[str]]:
    """Milliseconds from the fault to the first neutral throttle pulse, and everything that is wrong.

    Args:
        rows: the recorded pulses of both channels, by time.
    """
    throttle = [row for row in rows if row.channel == "throttle"]
    before = [row for row in throttle if fault_s - MOVING_S <= row.t_s < fault_s]
    after = [row for row in throttle if row.t_s >= fault_s]
    problems = []
    if len(before) < 3 or any(row.pulse_us == neutral_us for row in before):
        problems.append(f"{VOID}in the {1e3 * MOVING_S:.0f} ms before the fault it was not driving")
    first = next((i for i, row in enumerate(after) if row.pulse_us == neutral_us), None)
    if first is None:
        return None, [*problems, "no neutral pulse after the fault"]
    neutral = after[first:]
    neutral_ms = round(1e3 * (neutral[0].t_s - fault_s), 1)
    if neutral_ms > case.limit_ms:
        problems.append(f"neutral after {neutral_ms:g} ms, allowed are {case.limit_ms:g}")
    moving = [row for row in neutral if row.pulse_us != neutral_us]
    if moving:
        problems.append(f"moving again {1e3 * (moving[0].t_s - fault_s):.0f} ms after the fault: {moving[0]}")
    if not neutral[0].cause.startswith(case.by):
        problems.append(f"the cause of neutral is {neutral[0].cause}, not {case.by}")
    held = [row for row in neutral if row.cause.startswith(case.by)]
    if len(held) < case.frames or held[-1].t_s - held[0].t_s < (case.frames - 1) * PERIOD_S - _ROUNDING_S:
        problems.append(f"neutral for {len(held)} pulses, at least {case.frames} frames are needed")
    if case.steady:
        problems += _unsteady(rows, fault_s, neutral[0].t_s)
    return neutral_ms, problems


def _unsteady(rows: Sequence[TraceRow], fault_s: float, neutral_s: float) -> list[str]:
    """Pulses that the refused message may have made: between it and neutral only those of before are allowed."""
    problems = []
    for channel in ("steering", "throttle"):
        known = {row.pulse_us for row in rows if row.channel == channel and fault_s - MOVING_S <= row.t_s < fault_s}
        new = [row for row in rows if row.channel == channel and fault_s <= row.t_s < neutral_s]
        problems += [f"a {channel} pulse after the refused message: {row}" for row in new if row.pulse_us not in known]
    return problems


def latest_ms(rows: Sequence[TraceRow], begin_s: float, end_s: float) -> float:
    """The longest that the gate took from one pulse to the next, in milliseconds."""
    times = [
        row.t_s
        for row in rows
        if row.channel == "throttle" and begin_s <= row.t_s <= end_s and not row.cause.startswith("neutral:guard")
    ]
    return round(1e3 * max((b - a for a, b in zip(times, times[1:], strict=False)), default=0.0), 1)


# --- running


def run_case(rig: Rig, case: Case) -> Result:
    """Drive, have the fault, watch, judge."""
    try:
        begin_s = rig.drive(case.drive)
        fault_s = case.inject(rig)
        time.sleep(max(0.0, fault_s + case.watch_s - time.monotonic()))
        problems = [*_ending(rig, case), *case.look(rig)]
        if case.named and case.exit_status is None:
            problems += _name(rig, case.named)
        end_s = time.monotonic()
        rows = rig.rows()
    except VoidCase as error:
        return Result(case, problems=(f"{VOID}{error.what}",))
    except (HotlapError, OSError) as error:
        return Result(case, problems=(f"{type(error).__name__}: {error}",))
    finally:
        rig.end_case()
    neutral_ms, faults = judge(rows, case, rig.neutral_us, fault_s)
    late_ms = latest_ms(rows, begin_s, end_s if case.gate_runs else fault_s)
    if rig.played is not None:
        late_ms = max(late_ms, round(1e3 * rig.played.late_s, 1))
    return Result(case, neutral_ms, (*faults, *problems), late_ms)


def _ending(rig: Rig, case: Case) -> list[str]:
    gate = rig.processes["gate"]
    try:
        status = gate.wait(_EXIT_S) if case.exit_status is not None else gate.poll()
    except subprocess.TimeoutExpired:
        return [f"the gate has not ended, expected is the status {case.exit_status}"]
    if status == case.exit_status:
        return []
    return [f"the gate ended with the status {status}, expected is {case.exit_status}: {rig.log('gate')[-500:]}"]


def _name(rig: Rig, named: str) -> list[str]:
    status = rig.ask("status")
    fault, refused = status["fault"], status["counters"]["refused"]
    if (fault and fault["name"] == named) or refused.get(named, 0) > rig.refused_before.get(named, 0):
        return []
    return [f"the gate names the fault {fault and fault['name']!r} and refused {refused}, expected is {named!r}"]


@dataclass(frozen=True)
class Group:
    """Cases that share a rig, one after another, as long as it lives."""

    setup: Setup
    cases: tuple[Case, ...]


def run_group(group: Group, bundle: Path, tell: Callable[[Result], None], over: Callable[[], bool]) -> None:
    """Run the cases of a group, until `over`; a rig that a case has used up, or that failed, is replaced."""
    missing = group.setup.missing()
    rig: Rig | None = None
    try:
        for case in group.cases:
            if over():
                return
            if missing:
                tell(Result(case, skipped=missing))
                continue
            retried, voids = False, 0
            while True:
                try:
                    rig = rig or Rig(group.setup, bundle)
                    result = replace(run_case(rig, case), retried=retried, voids=voids)
                except HotlapError as error:
                    result = Result(case, problems=(f"the rig did not start: {error}",))
                if rig is not None and (case.last or not result.ok):
                    rig.close()
                    rig = None
                if result.void and voids < MOST_VOIDS:
                    voids += 1
                elif not result.ok and not result.void and not retried and result.late_ms > MACHINE_LATE_MS:
                    retried = True
                else:
                    break
            tell(result)
    finally:
        if rig is not None:
            rig.close()


def run(groups: Sequence[Group], told: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Run all groups, three at a time.

    Args:
        told: called with each result as it comes, from any thread, one at a time.

    Returns:
        the results in the order of the cases.
    """
    from vehicle.fault_model import make_bundle

    waiting: queue.SimpleQueue[Group] = queue.SimpleQueue()
    for group in groups:
        waiting.put(group)
    results: dict[str, Result] = {}
    lock = threading.Lock()
    broken: list[BaseException] = []

    def tell(result: Result) -> None:
        with lock:
            results[result.case.name] = result
            told(result)

    def work(bundle: Path) -> None:
        try:
            while not broken:
                run_group(waiting.get_nowait(), bundle, tell, lambda: bool(broken))
        except queue.Empty:
            return
        except BaseException as error:  # noqa: BLE001 - the thread's outermost frame: raised again in the caller's
            broken.append(error)

    with tempfile.TemporaryDirectory(prefix="hlf-") as folder:
        bundle = make_bundle(Path(folder) / "bundle.tar.gz").path
        workers = [threading.Thread(target=work, args=(bundle,), name=f"fault-rig-{i}") for i in range(RIGS_AT_ONCE)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        except KeyboardInterrupt as error:  # each worker ends its case and its processes first
            broken.append(error)
            for worker in workers:
                worker.join()
    if broken:
        raise broken[0]
    return [results[case.name] for group in groups for case in group.cases]
