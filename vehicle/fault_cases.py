"""The fault matrix: every fault, how it is brought about in real processes, and DESIGN.md's limit for it.

Cases of a group share their processes, so those that end a gate come last. A fault that is added here is measured,
tested and documented: run ``hotlap bench faults --markdown docs/faults.md`` afterwards.
"""

from __future__ import annotations

import functools
import math
import signal

from vehicle.fault_acts import (
    AWAY_S,
    actuator,
    alive_of_nan,
    altered,
    asks,
    beset,
    camera,
    clock_steps_then,
    console_hushes,
    console_says,
    damaged_calibration_then,
    ended,
    flood_begins,
    frozen_stamps,
    gate_starts_uncalibrated,
    goes_on,
    intends,
    log_is_full,
    model_corrupt_and_pilot_killed,
    next_pilot_refuses,
    pilot_hushes,
    pwm_chip_away,
    pwm_is_neutral,
    reload_is_refused,
    says,
    sent,
    shifted,
    shows,
    trace_error_is_told,
    trace_is_full_then,
)
from vehicle.fault_bench import Case, Group
from vehicle.fault_devices import KIND
from vehicle.fault_rigs import Setup

# DESIGN.md, "On the car". Requests have no row there: they are obeyed at once, so the strictest one is theirs.
PILOT_MS = REFUSED_MS = 200.0
ENDING_MS = REQUEST_MS = 100.0
BROWSER_MS = 300.0
GUARD_MS = 200.0
GUARD_NOTE = "by the guard; 100 ms need the microcontroller"

HOUR_S = 3600
AWAY_NOTE = f"gone for {1e3 * AWAY_S:.0f} ms; nothing can be written meanwhile"

_intents = functools.partial(Case, component="intents", limit_ms=REFUSED_MS, steady=True)
_pilot = functools.partial(Case, component="pilot", limit_ms=PILOT_MS)
_camera = functools.partial(Case, component="camera", limit_ms=PILOT_MS)
_ending = functools.partial(Case, component="gate", limit_ms=ENDING_MS, by="neutral:exit", last=True)
_guarded = functools.partial(Case, component="gate", limit_ms=GUARD_MS, gate_runs=False, note=GUARD_NOTE)
_guard = functools.partial(Case, component="guard", limit_ms=GUARD_MS, named="guard", by="neutral:fault:guard")
_manual = functools.partial(Case, component="console", limit_ms=BROWSER_MS, drive="manual")
_calibrating = functools.partial(Case, component="console", limit_ms=BROWSER_MS, drive="calibration")
_request = functools.partial(Case, component="requests", limit_ms=REQUEST_MS)

_GARBAGE = (b"", b"\xff\xfe\x00", b"[" * 2000, b"nonsense" * 100, b'{"op":"arm"}', b'{"op":NaN}')


def _garbage(count: int) -> bytes:
    return _GARBAGE[count % len(_GARBAGE)]


def _status(count: int) -> bytes:
    return b'{"op":"status"}'


def _of(message: dict[str, object], **changes: object) -> dict[str, object]:
    return {**message, **changes}


# Played from here, straight into the gate's socket.
CONTENT = (
    _intents("steering is NaN", inject=intends(steering_deg=math.nan), named="nan"),
    _intents("speed is NaN", inject=intends(speed_mps=math.nan), named="nan"),
    _intents("speed is infinite", inject=intends(speed_mps=math.inf), named="infinite"),
    _intents("steering is minus infinity", inject=intends(steering_deg=-math.inf), named="infinite"),
    _intents("steering of 45 degrees", inject=intends(steering_deg=45.0), named="out_of_range"),
    _intents("faster than the model may be", inject=intends(speed_mps=1.5), named="out_of_range"),
    _intents("faster than the car may be", inject=intends(speed_mps=9.0, model_max_mps=10.0), named="out_of_range"),
    _intents("negative speed", inject=intends(speed_mps=-0.5), named="speed_negative"),
    _intents("from another source", inject=intends(source="console"), named="wrong_source"),
    _intents("of another model", inject=intends(model="0b" * 32), named="wrong_model"),
    _intents("sign of life is NaN", inject=says(alive_of_nan), named="nan"),
)
FORM = (
    _intents("not JSON", inject=says(lambda intent: b"\x00\x01rubbish"), named="not_json"),
    _intents("JSON of the wrong shape", inject=altered(lambda message: [list(message.values())]),
             named="not_an_object"),
    _intents("key missing", inject=altered(lambda m: {k: v for k, v in m.items() if k != "speed_mps"}),
             named="missing_key"),
    _intents("text for a number", inject=altered(lambda m: _of(m, speed_mps="1.0")), named="wrong_type"),
    _intents("array for a number", inject=altered(lambda m: _of(m, steering_deg=[-20.0, 20.0])), named="wrong_type"),
    _intents("message of 5 kB", inject=says(lambda intent: b'{"type":"intent"' + b" " * 5000 + b"}"),
             named="too_large"),
    _intents("stamp of an hour ago", inject=shifted(stamp_s=-HOUR_S, frame_stamp_s=-HOUR_S), named="sequence"),
    _intents("stamp of an hour ahead", inject=shifted(stamp_s=HOUR_S), named="from_future"),
    _intents("stamps stand still", inject=frozen_stamps("stamp_s", "frame_stamp_s"), named="stale", watch_s=1.4),
    _intents("stamps of the pictures stand still", inject=frozen_stamps("frame_stamp_s"), named="stale_frame",
             watch_s=1.4),
    _intents("sequence repeats", inject=intends(seq=1), named="sequence"),
    _intents("no more intents", inject=pilot_hushes, named="intent_lost", watch_s=1.4),
)  # fmt: skip

CAMERA = (
    _camera("no more pictures", inject=shows("silent"), watch_s=1.4, named="intent_lost"),
    _camera("its process is gone", inject=shows("gone")),
    _camera("the same picture again and again", inject=shows("frozen")),
    _camera("covered: one even gray", inject=shows("blank")),
    _camera("pictures are cut short", inject=shows("cut_short")),
    _camera("pictures of another size", inject=shows("other_size")),
    _camera("pictures without a header", inject=shows("no_header")),
    _camera("stamps of an hour ago", inject=shows("old")),
    _camera("stamps of an hour ahead", inject=shows("future")),
    _camera("pictures come 300 ms late", inject=shows("late")),
    _camera("driver hangs", inject=camera("hang")),
    _camera("driver raises what it may not", inject=camera("raise")),
    _camera("unplugged", inject=camera("unplugged")),
)
PILOT = (
    _pilot("policy gives NaN", inject=shows("bright"), note="an ONNX graph that does so on a bright picture"),
    _pilot("stopped (SIGSTOP), goes on later", inject=sent("pilot", signal.SIGSTOP), look=goes_on("pilot"),
           watch_s=1.4, named="intent_lost"),
    _pilot("hangs with Python's lock, goes on later", inject=camera("hang_all"), watch_s=2.2, named="intent_lost"),
    _pilot("killed (SIGKILL)", inject=sent("pilot", signal.SIGKILL)),
    _pilot("told to end (SIGTERM)", inject=sent("pilot", signal.SIGTERM), look=ended("pilot", 0)),
    _pilot("crashes (SIGSEGV in the camera's driver)", inject=camera("crash"), look=ended("pilot", -signal.SIGSEGV)),
)  # fmt: skip
STORED = (
    _pilot("killed, and its model is corrupt at the next start", inject=model_corrupt_and_pilot_killed,
           look=next_pilot_refuses, last=True),
)  # fmt: skip

REQUESTS = (
    _request("emergency stop", inject=asks("stop"), by="neutral:stopped"),
    _request("disarm", inject=asks("disarm"), by="neutral:disarmed"),
    _request("reload of a damaged calibration", inject=damaged_calibration_then(asks("disarm")),
             look=reload_is_refused, note="refused while driving; counted from the disarm before it is tried again"),
    _request("stop amid 1800 rubbish requests a second", inject=beset("gate.request", _garbage, asks("stop")),
             by="neutral:stopped"),
    Case("no more intents amid 1800 requests a second", "requests", PILOT_MS,
         beset("gate.request", _status, pilot_hushes)),
    Case("flood of rubbish intents", "intents", REFUSED_MS, flood_begins("gate.intent", _garbage)),
    _guard("killed (SIGKILL)", inject=sent("guard", signal.SIGKILL)),
    _guard("stopped (SIGSTOP)", inject=sent("guard", signal.SIGSTOP), look=goes_on("guard")),
    _guarded("stopped (SIGSTOP), goes on later", inject=sent("gate", signal.SIGSTOP), look=goes_on("gate"),
             by="neutral:guard_gate_silent", named="tick_gap"),
    _guarded("killed (SIGKILL), damaged calibration at the next start",
             inject=damaged_calibration_then(sent("gate", signal.SIGKILL)), by="neutral:guard_gate_dead",
             exit_status=-signal.SIGKILL, look=gate_starts_uncalibrated, last=True),
)  # fmt: skip

CONSOLE = (
    _manual("lease not renewed, manual", inject=console_hushes, named="lease_lost"),
    _manual("lease renewed, no command, manual",
            inject=console_says(op="renew")),
    _manual("throttle is NaN, manual", limit_ms=REFUSED_MS, steady=True,
            inject=console_says(op="manual", steering=-1.0, throttle=math.nan)),
    _manual("throttle of 200 %, manual", limit_ms=REFUSED_MS, steady=True,
            inject=console_says(op="manual", steering=-1.0, throttle=2.0)),
    _manual("emergency stop, manual", limit_ms=REQUEST_MS, inject=asks("stop"), by="neutral:stopped"),
    _manual("lease given back, manual", limit_ms=REQUEST_MS, inject=console_says(op="release")),
    _calibrating("lease not renewed, calibration", inject=console_hushes, named="lease_lost"),
    _calibrating("pulse out of range, calibration", limit_ms=REFUSED_MS, steady=True,
                 inject=console_says(op="pulse", throttle_us=2200.0)),
    _calibrating("pulse too far away, calibration", limit_ms=REFUSED_MS, steady=True,
                 inject=console_says(op="pulse", throttle_us=1000.0)),
    _calibrating("emergency stop, calibration", limit_ms=REQUEST_MS, inject=asks("stop"), by="neutral:stopped"),
    Case("browser killed (SIGKILL)", "console", BROWSER_MS, sent("browser", signal.SIGKILL), drive="browser",
         named="lease_lost"),
    Case("browser stopped (SIGSTOP), goes on later", "console", BROWSER_MS, sent("browser", signal.SIGSTOP),
         drive="browser", named="lease_lost", look=goes_on("browser")),
)  # fmt: skip

ENDING = tuple(
    _ending(f"told to end ({number.name})", inject=sent("gate", number), exit_status=0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)
KILLED = (
    _guarded("killed (SIGKILL)", inject=sent("gate", signal.SIGKILL), exit_status=-signal.SIGKILL,
             by="neutral:guard_gate_dead", last=True),
)  # fmt: skip
PLUGIN = (
    Case("bus error for 100 ms", "actuator", PILOT_MS, actuator("bus", AWAY_S), named="actuator", gate_runs=False,
         note=AWAY_NOTE),
    _ending("unhandled exception", inject=actuator("runtime"), exit_status=1),
    _ending("out of memory", inject=actuator("memory"), exit_status=1),
    _ending("SystemExit(0) from a driver", inject=actuator("exit"), exit_status=1),
    _guarded("crashes (SIGSEGV in the actuator's driver)", inject=actuator("crash"), exit_status=-signal.SIGSEGV,
             by="neutral:guard_gate_dead", last=True),
    _guarded("hangs in the actuator's driver", inject=actuator("hang"), by="neutral:guard_gate_silent", last=True),
)  # fmt: skip
PWM = (
    Case("PWM chip gone for 100 ms", "actuator", PILOT_MS, pwm_chip_away, named="actuator", look=pwm_is_neutral,
         gate_runs=False, note=AWAY_NOTE),
)  # fmt: skip
FULL_LOG = (Case("drive log: disk full", "disk", PILOT_MS, log_is_full, named="log", last=True),)
FULL_TRACE = (
    Case("pulse trace: disk full, then a stop", "disk", REQUEST_MS, trace_is_full_then(asks("stop")),
         look=trace_error_is_told, by="neutral:stopped", last=True,
         note="the car drives on without its trace; counted from the stop"),
)  # fmt: skip
WALL_CLOCK = (
    Case("-1 h, then no more pictures", "wall clock", PILOT_MS, clock_steps_then(-HOUR_S, shows("silent")),
         note="the step alone changes nothing; counted from the last picture"),
    Case("+1 h, then the pilot killed", "wall clock", PILOT_MS,
         clock_steps_then(HOUR_S, sent("pilot", signal.SIGKILL)), note="the step alone changes nothing; from the kill"),
)  # fmt: skip
WORLD = (
    Case("stopped (SIGSTOP), goes on later", "simulated car", PILOT_MS, sent("world", signal.SIGSTOP),
         look=goes_on("world"), watch_s=1.4, gate_runs=False),
    Case("killed (SIGKILL)", "simulated car", PILOT_MS, sent("world", signal.SIGKILL), frames=1, gate_runs=False,
         last=True, note="the actuator goes with it: it takes pulses for 200 ms more"),
)  # fmt: skip

_PLAYED, _REAL = Setup(), Setup(pilot="real")

# Those that take longest first, so that none is left over in the end while two workers idle.
GROUPS = (
    Group(_REAL, CAMERA),
    Group(_PLAYED, FORM),
    Group(Setup(actuator="sim", pilot="real", world=True), WORLD),
    Group(_REAL, PILOT),
    Group(_PLAYED, CONTENT),
    Group(Setup(pilot=""), CONSOLE),
    Group(_PLAYED, REQUESTS),
    Group(Setup(actuator=KIND), PLUGIN[:3]),
    Group(Setup(actuator=KIND), PLUGIN[3:]),
    Group(Setup(pilot="real", wall_clock=True), WALL_CLOCK),
    Group(Setup(pilot="stored"), STORED),
    Group(_PLAYED, ENDING[:2]),
    Group(_PLAYED, (*ENDING[2:], *KILLED)),
    Group(Setup(actuator="sysfs_pwm"), PWM),
    Group(Setup(big="log"), FULL_LOG),
    Group(Setup(big="trace"), FULL_TRACE),
)
CASES = tuple(case for group in GROUPS for case in group.cases)
