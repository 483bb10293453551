"""What is done to a driving rig, as functions that the table of cases (`vehicle.fault_cases`) puts together.

Each maker gives an `Inject`, which causes a fault and says when, or a `Look`, which checks what must hold afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from vehicle.errors import VehicleError
from vehicle.fault_bench import Inject, Look, VoidCase
from vehicle.fault_players import Command, flood
from vehicle.fault_rigs import BIG_FILE_BYTES, START_S, Rig
from vehicle.messages import PILOT, Alive, Intent, encode

AWAY_S = 0.1  # for so long a device is gone
FULL_S = 0.4  # of driving on with a fault that must not matter, before the one that does
AFTER_S = 0.4  # of watching what was stopped and goes on


# --- processes


def sent(process: str, number: int) -> Inject:
    """A signal to "gate", "guard", "pilot", "world" or "browser"."""
    return lambda rig: rig.signal(process, number)


def goes_on(process: str) -> Look:
    """What was stopped goes on, and must not move the car."""

    def look(rig: Rig) -> list[str]:
        rig.signal(process, signal.SIGCONT)
        time.sleep(AFTER_S)
        return []

    return look


def ended(process: str, status: int, timeout_s: float = 5.0) -> Look:
    """The process must end with this status."""

    def look(rig: Rig) -> list[str]:
        try:
            found = rig.processes[process].wait(timeout_s)
        except subprocess.TimeoutExpired:
            return [f"the {process} has not ended"]
        said = rig.log(process)[-300:]
        return [] if found == status else [f"the {process} ended with status {found}, expected is {status}: {said}"]

    return look


# --- messages of the pilot


def says(make: Callable[[Intent], bytes], *, always: bool = False) -> Inject:
    """The played pilot sends this once (or from now on) in place of a good intent; good ones follow."""

    def inject(rig: Rig) -> float:
        assert rig.played is not None
        return rig.played.say(make, always=always)

    return inject


def intends(**changes: Any) -> Inject:
    """One intent with these changes; it also asks for another speed and steering than before, so that any pulse that it
    made would show."""
    changes = {"steering_deg": -20.0, "speed_mps": 1.0, **changes}
    return says(lambda intent: encode(dataclasses.replace(intent, **changes)))


def shifted(**seconds: float) -> Inject:
    """One intent with other stamps: ``stamp_s`` and ``frame_stamp_s`` by so many seconds, the rest as `intends`."""

    def make(intent: Intent) -> bytes:
        stamps: dict[str, Any] = {name: getattr(intent, name) + by_s for name, by_s in seconds.items()}
        return encode(dataclasses.replace(intent, steering_deg=-20.0, speed_mps=1.0, **stamps))

    return says(make)


def frozen_stamps(*names: str) -> Inject:
    """From now on every intent has the stamps of the first of them; all else about them is good."""

    def inject(rig: Rig) -> float:
        first: dict[str, Any] = {}

        def make(intent: Intent) -> bytes:
            first.update({name: getattr(intent, name) for name in names if name not in first})
            return encode(dataclasses.replace(intent, **first))

        return says(make, always=True)(rig)

    return inject


def altered(change: Callable[[dict[str, Any]], Any]) -> Inject:
    """One message whose JSON was changed."""
    return says(lambda intent: json.dumps(change(json.loads(encode(intent)))).encode())


def alive_of_nan(intent: Intent) -> bytes:
    """A sign of life whose stamp is no number."""
    return encode(Alive(PILOT, float("nan"), intent.frame_seq, intent.frame_stamp_s))


def pilot_hushes(rig: Rig) -> float:
    """No intent comes any more."""
    assert rig.played is not None
    return rig.played.hush()


# --- camera and actuator


def shows(fault: str) -> Inject:
    """The pictures have a fault (`vehicle.fault_pictures.FAULTS`)."""

    def inject(rig: Rig) -> float:
        assert rig.pictures is not None
        return rig.pictures.show(fault)

    return inject


def camera(word: str) -> Inject:
    """The camera's driver fails (`vehicle.fault_devices`)."""
    return lambda rig: rig.camera_fault.cause(word)


def actuator(word: str, for_s: float | None = None) -> Inject:
    """The actuator's driver fails (`vehicle.fault_devices`), for good or for some time."""

    def inject(rig: Rig) -> float:
        rig.case.callback(rig.actuator_fault.clear)
        begun_s = rig.actuator_fault.cause(word)
        if for_s is not None:
            time.sleep(for_s)
            rig.actuator_fault.clear()
        return begun_s

    return inject


def pwm_chip_away(rig: Rig) -> float:
    """The folder of the PWM chip goes and comes back, as when its driver is bound anew."""
    chip = rig.folder / "pwm" / "pwmchip0"
    gone = chip.with_name("gone")
    begun_s = time.monotonic()
    os.rename(chip, gone)
    time.sleep(AWAY_S)
    os.rename(gone, chip)
    return begun_s


def pwm_is_neutral(rig: Rig) -> list[str]:
    """What the chip was told last."""
    found = int((rig.folder / "pwm" / "pwmchip0" / "pwm0" / "duty_cycle").read_text())
    wanted = round(1e3 * rig.neutral_us)
    return [] if found == wanted else [f"the chip's duty cycle is {found} ns, neutral is {wanted}"]


# --- disk, files, clock


def _file_may_not_grow(rig: Rig) -> float:
    pid = rig.processes["gate"].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    begun_s = time.monotonic()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (BIG_FILE_BYTES, hard))
    return begun_s


def log_is_full(rig: Rig) -> float:
    """No byte more fits into the drive log. The kernel's limit on a file's size does it, without a file system of our
    own: the write fails as on a full disk, with EFBIG in place of ENOSPC."""
    return _file_may_not_grow(rig)


def trace_is_full_then(then: Inject) -> Inject:
    """The pulse trace cannot grow: that alone must not matter. Then something that must."""

    def inject(rig: Rig) -> float:
        begun_s = _file_may_not_grow(rig)
        time.sleep(FULL_S)
        _must_have_driven(rig, begun_s)
        return then(rig)

    return inject


def trace_error_is_told(rig: Rig) -> list[str]:
    """The status must say that rows are missing."""
    try:
        rig.wait(lambda: rig.ask("status")["actuator"]["record_error"], "gate", 3.0)
    except VehicleError:
        return ["the status does not say that the trace cannot be written"]
    return []


def clock_steps_then(ahead_s: int, then: Inject) -> Inject:
    """The wall clock jumps, which must not matter. Then something that must."""

    def inject(rig: Rig) -> float:
        assert rig.wall_clock is not None
        begun_s = time.monotonic()
        rig.wall_clock.step(ahead_s)
        time.sleep(FULL_S)
        _must_have_driven(rig, begun_s)
        return then(rig)

    return inject


def _must_have_driven(rig: Rig, since_s: float) -> None:
    rows = [row for row in rig.rows() if row.channel == "throttle" and row.t_s >= since_s]
    still = [row for row in rows if row.pulse_us == rig.neutral_us]
    if not rows or still:
        raise VoidCase(f"what must not matter has stopped the car: {still[:1] or 'no pulses at all'}")


def damaged_calibration_then(then: Inject) -> Inject:
    """The calibration file is cut short, and asked to be loaded while the car drives. Then something else."""

    def inject(rig: Rig) -> float:
        path = rig.state_dir / "calibration.json"
        whole = path.with_name("whole")
        shutil.copy(path, whole)
        rig.case.callback(os.replace, whole, path)
        path.write_bytes(whole.read_bytes()[:100])
        reason = rig.ask("calibration").get("reason")
        if reason != "not_disarmed":
            raise VehicleError(f"a calibration may only be loaded while disarmed; the gate says {reason!r}")
        return then(rig)

    return inject


def reload_is_refused(rig: Rig) -> list[str]:
    """The damaged file must not take the place of the calibration in force."""
    reason = rig.ask("calibration").get("reason")
    time.sleep(AFTER_S)
    return [] if reason == "bad_calibration" else [f"the damaged calibration: the gate says {reason!r}"]


def gate_starts_uncalibrated(rig: Rig) -> list[str]:
    """The next gate must not write a pulse with a damaged calibration."""
    started_s = time.monotonic()
    rig.start_gate()
    time.sleep(AFTER_S)
    later = [row for row in rig.rows() if row.t_s > started_s and not row.cause.startswith("neutral:guard")]
    problems = [f"a pulse without calibration: {row}" for row in later]
    if rig.ask("status")["calibrated"]:
        problems.append("the gate calls itself calibrated")
    return problems[:3]


def model_corrupt_and_pilot_killed(rig: Rig) -> float:
    """One byte of the active model changes on the disk, and its pilot dies."""
    path = next((rig.state_dir / "models").glob("*/bundle.tar.gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return rig.signal("pilot", signal.SIGKILL)


def next_pilot_refuses(rig: Rig) -> list[str]:
    """The pilot that is started next must end, and say which model it refuses."""
    rig.processes["pilot"].wait(5.0)
    rig.start_pilot()
    problems = ended("pilot", 1, START_S)(rig)
    answer = rig.ask("arm", mode="autonomous")
    return [*problems, *(["it could be armed again"] if answer["ok"] else [])]


# --- requests, and the person at the console


def asks(op: str) -> Inject:
    """A request from another program."""

    def inject(rig: Rig) -> float:
        sent_s = time.monotonic()
        rig.ask(op)
        return sent_s

    return inject


def beset(socket: str, make: Callable[[int], bytes], then: Inject) -> Inject:
    """Three senders keep the gate's socket busy with about 1800 messages a second. Then something, while they go on."""

    def inject(rig: Rig) -> float:
        rig.case.enter_context(flood(rig.runtime, socket, make, at_once=3))
        time.sleep(FULL_S)
        return then(rig)

    return inject


def flood_begins(socket: str, make: Callable[[int], bytes]) -> Inject:
    """Three senders begin to fill a socket of the gate."""

    def inject(rig: Rig) -> float:
        begun_s = time.monotonic()
        rig.case.enter_context(flood(rig.runtime, socket, make))
        return begun_s

    return inject


def console_hushes(rig: Rig) -> float:
    """Nothing comes from the browser any more."""
    assert rig.console is not None
    return rig.console.hush()


def console_says(**message: Any) -> Inject:
    """From now on the browser sends this, with its lease; steering and throttle that it leaves out are those before."""

    def inject(rig: Rig) -> float:
        assert rig.console is not None
        command: Command = lambda lease, count: {"lease": lease, **message}  # noqa: E731 - its type is checked
        return rig.console.say(command)

    return inject
