"""The gate from outside: arm, disarm, stop, reset and status, as functions and as commands of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vehicle.errors import GateError
from vehicle.links import console_url, request, runtime_dir

TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 2.0  # nobody gives up early on an emergency stop
_PILOT_TIMEOUT_S = 0.5


def emit(as_json: bool, result: Mapping[str, Any], text: str) -> None:
    """Print the one result of a command: JSON for programs, text for people."""
    print(json.dumps(result) if as_json else text, flush=True)


# --- functions


def ask(runtime: Path, message: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """One request to the gate.

    Raises:
        GateError: the gate does not answer, or refuses; `reason` says which.
    """
    answer = request(runtime, "gate.request", message, timeout_s)
    if answer.get("ok") is True:
        return answer
    raise GateError(
        f"{message.get('op')} refused: {answer.get('what') or answer.get('reason')}",
        reason=str(answer.get("reason", "")),
        cause=_reasons(answer.get("blocked") or []) or str(answer.get("cause", "")),
        next_step=str(answer.get("next", "")),
    )


def arm(runtime: Path) -> dict[str, Any]:
    """Arm for autonomous driving.

    Raises:
        GateError: the gate does not answer, or refuses: its `cause` has every reason with its cure.
    """
    return ask(runtime, {"op": "arm", "mode": "autonomous"})


def disarm(runtime: Path) -> dict[str, Any]:
    """Neutral, in any state; an emergency stop stays one.

    Raises:
        GateError: the gate does not answer.
    """
    return ask(runtime, {"op": "disarm"}, STOP_TIMEOUT_S)


def stop(runtime: Path) -> dict[str, Any]:
    """Emergency stop: neutral, in any state, until `reset`. When it returns, neutral has been written.

    Raises:
        GateError: the gate does not answer.
    """
    return ask(runtime, {"op": "stop"}, STOP_TIMEOUT_S)


def reset(runtime: Path) -> dict[str, Any]:
    """End an emergency stop: the car is disarmed then.

    Raises:
        GateError: the gate does not answer, or is not stopped (reason "not_stopped").
    """
    return ask(runtime, {"op": "reset"})


def status(runtime: Path) -> dict[str, Any]:
    """What gate and pilot say, as one object; a process that does not answer is one of the reasons in "blocked".

    Returns:
        "mode" (None without a gate), "armed", "blocked", "processes" and the figures; times in the unit that the name
        says, None where nobody measures it.
    """
    gate, gate_silent = _status_of(runtime, "gate", TIMEOUT_S)
    pilot, pilot_silent = _status_of(runtime, "pilot", _PILOT_TIMEOUT_S)
    blocked = [*(gate.get("blocked") or [])]
    for name, silent in (("pilot", pilot_silent), ("gate", gate_silent)):
        if silent is not None:
            reason = {"reason": f"{name}_not_running", "value": silent.cause or silent.what, "cure": silent.next_step}
            blocked.insert(0, reason)
    processes = gate.get("processes") or {}
    return {
        "mode": gate.get("mode"),
        "armed": gate.get("armed", False),
        "blocked": blocked,
        "processes": {"gate": gate.get("pid"), "guard": processes.get("guard"), "pilot": pilot.get("pid")},
        "loop": {"gate": _loop(gate), "pilot": _loop(pilot)},
        "inference_ms": pilot.get("inference_ms", gate.get("inference_ms")),
        "frame_age_ms": None if gate.get("frame_age_s") is None else round(1e3 * gate["frame_age_s"], 1),
        "frame_to_pulse_ms": gate.get("frame_to_pulse_ms"),
        **{name: gate.get(name) for name in _FROM_GATE},
        "console_url": console_url(runtime),
        "runtime": str(runtime),
    }


_FROM_GATE = (
    "cause", "fault", "lease", "pulses", "cap_percent", "cap_percent_in_force", "calibrated", "model",
    "temperature_c", "undervoltage", "battery_fraction", "disk_free_bytes", "load",
    "actuator", "guard", "log", "realtime", "uptime_s", "counters",
)  # fmt: skip


def _status_of(runtime: Path, name: str, timeout_s: float) -> tuple[dict[str, Any], GateError | None]:
    try:
        return request(runtime, f"{name}.request", {"op": "status"}, timeout_s), None
    except GateError as error:
        return {}, error


def _loop(said: Mapping[str, Any]) -> dict[str, Any] | None:
    if not said:
        return None
    figures = dict(said.get("interval_ms") or {})
    counts = {name: figures.pop(name, said.get(name)) for name in ("late", "missed")}
    return {"interval_ms": figures or None, **counts}


def _reasons(blocked: list[Mapping[str, Any]]) -> str:
    return "\n".join(f"  {one['reason']}: {one['value']}\n      cure: {one['cure']}" for one in blocked)


# --- commands


def _runtime(args: argparse.Namespace) -> Path:
    return args.runtime if args.runtime is not None else runtime_dir()


def arm_command(args: argparse.Namespace) -> int:
    """``hotlap arm``: 0 armed, 1 refused, with every reason.

    Raises:
        GateError: the gate does not answer.
    """
    runtime = _runtime(args)
    answer = request(runtime, "gate.request", {"op": "arm", "mode": "autonomous"})
    armed = answer.get("ok") is True
    blocked = answer.get("blocked") or []
    result = {"armed": armed, "mode": answer.get("mode"), "reason": answer.get("reason"), "blocked": blocked}
    refused = f"not armed: {answer.get('what') or answer.get('reason')}\n{_reasons(blocked)}".rstrip()
    emit(args.json, result, "armed: the car drives when the pilot says so; hotlap stop stops it" if armed else refused)
    return 0 if armed else 1


def disarm_command(args: argparse.Namespace) -> int:
    """``hotlap disarm``.

    Raises:
        GateError: the gate does not answer.
    """
    return _told(args, disarm(_runtime(args)))


def stop_command(args: argparse.Namespace) -> int:
    """``hotlap stop [--reset]``.

    Raises:
        GateError: the gate does not answer, or there is no stop to reset.
    """
    return reset_command(args) if args.reset else _told(args, stop(_runtime(args)))


def reset_command(args: argparse.Namespace) -> int:
    """``hotlap reset``.

    Raises:
        GateError: the gate does not answer, or is not stopped.
    """
    return _told(args, reset(_runtime(args)))


def _told(args: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    mode = answer.get("mode")
    words = {"stopped": "stopped: neutral, until hotlap stop --reset", "disarmed": "disarmed: neutral"}
    emit(args.json, {"mode": mode}, words.get(str(mode), str(mode)))
    return 0


def status_command(args: argparse.Namespace) -> int:
    """``hotlap status``: 1 where no gate runs."""
    found = status(_runtime(args))
    emit(args.json, found, status_text(found))
    return 0 if found["mode"] is not None else 1


def status_text(found: Mapping[str, Any]) -> str:
    """A status for people."""
    lines = [f"mode: {found['mode'] or 'no gate'}" + (", armed" if found["armed"] else "")]
    if found.get("fault"):
        lines.append(f"last fault: {found['fault']['name']}, {found['fault']['age_s']:.1f} s ago")
    if found["blocked"]:
        lines += ["it does not drive, because:", _reasons(found["blocked"])]
    processes = ", ".join(f"{name} {pid or 'not running'}" for name, pid in found["processes"].items())
    lines.append(f"processes: {processes}")
    for name, loop in found["loop"].items():
        if loop is not None and loop["interval_ms"]:
            lines.append(f"{name} interval: {_figures(loop['interval_ms'])}; late {loop['late']}")
    for key, words in (("inference_ms", "inference"), ("frame_to_pulse_ms", "frame to pulse")):
        if found[key] is not None:
            lines.append(f"{words}: {_figures(found[key])}")
    for key, words, unit, scale in (
        ("frame_age_ms", "frame age", "ms", 1.0), ("temperature_c", "temperature", "C", 1.0),
        ("battery_fraction", "battery", "%", 100.0), ("disk_free_bytes", "disk free", "MB", 1e-6),
        ("cap_percent_in_force", "speed cap", "%", 1.0),
    ):  # fmt: skip
        if found[key] is not None:
            lines.append(f"{words}: {found[key] * scale:.0f} {unit}")
    pulses = found["pulses"]
    if pulses and pulses["steering_us"] is not None:
        lines.append(f"pulses: steering {pulses['steering_us']:.0f} us, throttle {pulses['throttle_us']:.0f} us")
    if found["undervoltage"]:
        lines.append("the computer's supply voltage is too low")
    return "\n".join(lines)


def _figures(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {figure:.1f} ms" for name, figure in value.items() if figure is not None)
    return f"{value:.1f} ms" if isinstance(value, float) else str(value)
