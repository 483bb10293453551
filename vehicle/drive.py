"""``hotlap drive``: gate and pilot on one machine, with the simulated car or a real one, until laps or time are up."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import load_calibration, save_calibration
from vehicle import firmware_sim
from vehicle.bundle import read_bundle
from vehicle.car_config import CarConfig, load_car_config
from vehicle.client import emit
from vehicle.config import to_toml
from vehicle.contract import Contract
from vehicle.errors import GateError, VehicleError
from vehicle.links import console_url, endpoint, request, runtime_dir
from vehicle.models_command import is_armed
from vehicle.slot_install import install_bundle
from vehicle.slots import ModelStore
from vehicle.supervisor import START_TIMEOUT_S, Supervisor, ending_signals, only_drive

ARM_TIMEOUT_S = 15.0
_LOOK_EVERY_S = 0.1
_ASK_EVERY_S = 0.5
# So long after the gate has disarmed, a drive that was asked for laps gives up: time for a person to arm it again.
_GIVE_UP_S = 10.0
_FOREVER_S = 1e9
_SHOWN = ("p50", "p99", "max")


@dataclass
class Seen:
    """What the simulated car reported last; zeros for a real car, which nobody watches from above."""

    laps: int = 0
    lap_times_s: list[float] = field(default_factory=list)
    off_track: int = 0
    speed_mps: float = 0.0


class WorldFacts:
    """The newest report of the simulated car."""

    def __init__(self, runtime: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint(runtime, "world.facts"))
        self.seen = Seen()

    def update(self) -> Seen:
        """Take in what has arrived."""
        while self._socket.poll(0):
            said = json.loads(self._socket.recv())
            self.seen = Seen(
                int(said["laps"]), [round(float(t), 3) for t in said["lap_times_s"]], int(said["off_track"]),
                float(said["speed_mps"]),
            )  # fmt: skip
        return self.seen

    def close(self) -> None:
        """Release the socket."""
        self._context.destroy(linger=0)


def drive(args: argparse.Namespace) -> int:
    """``hotlap drive``.

    Returns:
        0 where it drove as asked; 1 where it was asked for laps and they did not come, or a process did not end well.

    Raises:
        VehicleError: it cannot drive; nothing has moved.
    """
    if args.replay is not None:
        from vehicle.replay import replay  # needs ONNX Runtime, and nothing else of this file

        return replay(args)
    config = load_car_config(args.config)
    if args.laps and not config.simulated:
        raise VehicleError(
            "laps are counted for the simulated car only: nobody sees a real one from above",
            next_step="hotlap drive --duration 60s, or without an end: Ctrl-C",
        )
    if args.hardware == firmware_sim.NAME:
        firmware_sim.prepare(config)
    runtime = runtime_dir(create=True)
    _refuse_second(runtime)
    with only_drive(runtime), ending_signals() as deafen:
        return _drive(args, config, runtime, deafen)


def _drive(args: argparse.Namespace, config: CarConfig, runtime: Path, deafen: Callable[[], None]) -> int:
    store = ModelStore(config.state_path() / "models", is_armed=is_armed)
    contract = _contract(args.model, store) if config.simulated else None
    if config.simulated:
        config = _simulated(config, contract)
    if args.model is not None:
        installed = install_bundle(store, args.model, config, _calibration(config))
        store.activate(installed.sha256)
    active = store.active()
    if active is None:
        raise VehicleError(
            "no model is installed", next_step="hotlap drive --model RUN/bundle.tar.gz, or hotlap models install BUNDLE"
        )
    car_toml = runtime / "car.toml"
    parts = Supervisor(runtime, car_toml)
    facts: WorldFacts | None = None
    result: dict[str, Any] = {}
    try:
        if contract is not None:
            arguments = _world_arguments(args, config, contract, runtime)
            _say(f"starting the simulated car on {arguments[1]}")
            parts.start_world(arguments)
            facts = WorldFacts(runtime)
        if args.hardware == firmware_sim.NAME:
            _say("starting the microcontroller: the compiled firmware in simavr")
            config = firmware_sim.start(parts, config, args.trace)
        car_toml.write_text(to_toml(config))
        _say(f"starting gate and pilot; model {active.sha256[:12]}" + (", on trial" if active.trial else ""))
        parts.start("gate", "vehicle.gate", ["--trace", str(args.trace)] if args.trace is not None else [])
        parts.wait_answer("gate")
        parts.start("pilot", "vehicle.pilot", [])
        parts.wait_answer("pilot")
        if args.console:
            _start_console(parts, config, runtime)
        if args.arm:
            arm_when_ready(runtime, parts)
            _say("armed: it drives; Ctrl-C ends it, hotlap stop in another terminal stops it")
        else:
            _say("not armed; in another terminal: hotlap status, hotlap arm, hotlap stop; Ctrl-C ends it")
        result = _run(args, runtime, parts, facts)
    except GateError as error:
        if error.reason == "no_answer":
            parts.watch()  # that a part has ended, and how, says more than that it does not answer
        raise
    finally:
        deafen()
        if "gate" in parts.parts and parts.parts["gate"].alive():
            _quietly_disarm(runtime)
        statuses = parts.stop()
        if facts is not None:
            facts.close()
    result["exit_status"] = statuses
    emit(args.json, result, _text(result, args))
    return 1 if any(statuses.values()) or _laps_missing(result, args) else 0


def _start_console(parts: Supervisor, config: CarConfig, runtime: Path) -> None:
    """Start the web page and say where it is; its password only while it is the first one, which was made up here."""
    from calibration.auth import PasswordStore
    from vehicle.console import console_folder

    parts.start("console", "vehicle.console", [])
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (url := console_url(runtime)) is None:
        parts.watch()
        if time.monotonic() > deadline_s:
            raise VehicleError(
                f"the console does not start within {START_TIMEOUT_S:.0f} s:\n{parts.tail('console')}",
                next_step=f"read {runtime / 'console.log'}",
            )
        time.sleep(_LOOK_EVERY_S)
    password = PasswordStore(console_folder(config)).first()
    _say(f"console: {url}" + (f", password {password}" if password is not None else ""))


def _refuse_second(runtime: Path) -> None:
    """Two gates on one car would fight over the pulses."""
    try:
        status = request(runtime, "gate.request", {"op": "status"}, timeout_s=0.3)
    except GateError:
        return
    raise VehicleError(
        f"a gate already runs here (process {status.get('pid')}, {status.get('mode')})",
        cause="the drive service, or another hotlap drive",
        next_step="hotlap status; stop that one, or set HOTLAP_RUNTIME to another folder for a second simulated car",
    )


def _calibration(config: CarConfig) -> Calibration | None:
    path = config.calibration_path()
    return load_calibration(path) if path.exists() else None


def _contract(model: Path | None, store: ModelStore) -> Contract | None:
    """What the model that will drive says of itself; None where there is none."""
    if model is None:
        active = store.active()
        if active is None:
            return None
        model = active.bundle_path
    return read_bundle(model, replay_golden=False).contract


def _simulated(config: CarConfig, contract: Contract | None) -> CarConfig:
    """The simulated car as the model expects it: it comes calibrated, which no real car does, and with its camera."""
    if not config.calibration_path().exists():
        config.calibration_path().parent.mkdir(parents=True, exist_ok=True)
        save_calibration(config.calibration_path(), default_sim_calibration())
    if contract is None:
        return config
    wanted = contract.camera
    camera = dataclasses.replace(
        config.camera, horizontal_fov_deg=wanted.horizontal_fov_deg, pitch_down_deg=wanted.pitch_down_deg,
        height_m=wanted.height_m, forward_m=wanted.forward_m, roll_deg=wanted.roll_deg, rate_hz=wanted.frame_rate_hz,
    )  # fmt: skip
    return dataclasses.replace(config, camera=camera)


def _world_arguments(args: argparse.Namespace, config: CarConfig, contract: Contract, runtime: Path) -> list[str]:
    """What the world process is started with: the track that the model was trained on, unless another is asked for."""
    trained = contract.trained_on.get("tracks")
    name = trained[0] if isinstance(trained, list) and trained and isinstance(trained[0], str) else ""
    known = (Path(__file__).parents[1] / "sim" / "tracks" / f"{name}.npy").is_file() if name else False
    spec = runtime / "world.toml"
    c = config.camera
    spec.write_text(
        f"[camera]\nforward_m = {c.forward_m!r}\nheight_m = {c.height_m!r}\npitch_down_deg = {c.pitch_down_deg!r}\n"
        f"horizontal_fov_deg = {c.horizontal_fov_deg!r}\nroll_deg = {c.roll_deg!r}\nframe_rate_hz = {c.rate_hz!r}\n"
    )
    track = args.track or (name if known else "first_oval")
    return ["--track", track, "--seed", str(args.seed), "--look", args.look, "--car", str(spec)]


def arm_when_ready(runtime: Path, parts: Supervisor | None = None, timeout_s: float = ARM_TIMEOUT_S) -> None:
    """Ask the gate to arm for autonomous driving until it does.

    Raises:
        VehicleError: it still refuses after ``timeout_s``; says every reason and its cure.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        if parts is not None:
            parts.watch()
        answer = request(runtime, "gate.request", {"op": "arm", "mode": "autonomous"})
        if answer.get("ok"):
            return
        if time.monotonic() > deadline_s:
            blocked = answer.get("blocked") or []
            reasons = "\n".join(f"    {b['reason']}: {b['value']}; {b['cure']}" for b in blocked)
            raise VehicleError(
                f"the gate does not arm: {answer.get('what', answer.get('reason'))}\n{reasons}".rstrip(),
                next_step="hotlap status says what blocks it",
            )
        time.sleep(_LOOK_EVERY_S)


def _quietly_disarm(runtime: Path) -> None:
    try:
        request(runtime, "gate.request", {"op": "disarm"})
    except GateError:
        return  # it is stopped next, which is neutral as well


def _run(args: argparse.Namespace, runtime: Path, parts: Supervisor, facts: WorldFacts | None) -> dict[str, Any]:
    """Watch until laps, time or Ctrl-C end it; the figures of the drive."""
    begun_s = time.monotonic()
    deadline_s = begun_s + (args.duration_s or _FOREVER_S)
    seen = Seen()
    progress = Progress(args.arm)
    board = firmware_sim.BoardWatch(runtime, begun_s) if "board" in parts.parts else None
    try:
        while (now_s := time.monotonic()) < deadline_s:
            parts.watch()
            if facts is not None:
                seen = facts.update()
                progress.car(seen)
            if board is not None and (slow := board.look(now_s)) is not None:
                _say(slow)
            if args.laps and seen.laps >= args.laps:
                break
            if progress.disarmed_s(runtime, now_s) > _GIVE_UP_S and args.arm and args.laps:
                break
            time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        _say("ending")  # Ctrl-C is how a drive without an end ends
    gate = request(runtime, "gate.request", {"op": "status"})
    pilot = request(runtime, "pilot.request", {"op": "status"})
    return {
        "laps": seen.laps,
        "lap_times_s": seen.lap_times_s,
        "off_track": seen.off_track,
        "interval_ms": pilot.get("interval_ms"),
        "inference_ms": pilot.get("inference_ms"),
        "frame_to_pulse_ms": gate.get("frame_to_pulse_ms"),
        "camera_age_ms": pilot.get("frame_age_ms"),
        "gate_interval_ms": gate.get("interval_ms"),
        "model": pilot.get("model"),
        "trial": pilot.get("trial"),
        "mode": gate.get("mode"),
        "blocked": gate.get("blocked"),
        "duration_s": round(time.monotonic() - begun_s, 2),
        "board": request(runtime, "board.request", {"op": "status"}) if board is not None else None,
        "console_url": console_url(runtime),
        "runtime": str(runtime),
    }


class Progress:
    """Says on stderr what happens, as it happens: laps, leaving the road, and why the gate disarmed."""

    def __init__(self, armed: bool) -> None:
        self._told = Seen()
        self._armed = armed
        self._asked_s = self._armed_s = time.monotonic()

    def car(self, seen: Seen) -> None:
        """The newest report of the simulated car."""
        if seen.off_track > self._told.off_track:
            _say(f"off the track, {seen.off_track} times now; it is put back")
        if seen.laps > self._told.laps and seen.lap_times_s:
            _say(f"lap {seen.laps}: {seen.lap_times_s[-1]:.2f} s")
        self._told = seen

    def disarmed_s(self, runtime: Path, now_s: float) -> float:
        """For how long the gate has not been armed; asks it twice a second.

        Raises:
            GateError: it does not answer.
        """
        if now_s - self._asked_s >= _ASK_EVERY_S:
            self._asked_s = now_s
            gate = request(runtime, "gate.request", {"op": "status"})
            if self._armed and not gate["armed"]:
                fault = gate.get("fault")
                why = f", because of {fault['name']}" if fault and fault["age_s"] < 2 * _ASK_EVERY_S else ""
                _say(f"{gate['mode']}{why}; hotlap status says what blocks it")
            self._armed = bool(gate["armed"])
        if self._armed:
            self._armed_s = now_s
        return now_s - self._armed_s


def _say(text: str) -> None:
    print(f"drive: {text}", file=sys.stderr, flush=True)


def _laps_missing(result: dict[str, Any], args: argparse.Namespace) -> bool:
    return bool(args.laps and result["laps"] < args.laps)


def _text(result: dict[str, Any], args: argparse.Namespace) -> str:
    """The result for people."""
    times = ", ".join(f"{t:.2f} s" for t in result["lap_times_s"]) or "none"
    lines = []
    if "world" in result["exit_status"]:  # a real car's laps nobody counts
        lines.append(f"laps: {result['laps']} ({times}), off track {result['off_track']} times")
    for name, words in (
        ("interval_ms", "pilot's loop"), ("inference_ms", "inference"), ("frame_to_pulse_ms", "frame to pulse"),
    ):  # fmt: skip
        figures = result[name]
        if figures:
            lines.append(
                f"{words}: " + ", ".join(f"{k} {figures[k]:.1f} ms" for k in _SHOWN if figures.get(k) is not None)
            )
    if result["board"] is not None:
        lines.append(firmware_sim.text(result["board"]))
    lines += [
        f"the {name} ended with status {status}: read {result['runtime']}/{name}.log"
        for name, status in result["exit_status"].items()
        if status
    ]
    if _laps_missing(result, args):
        lines.append(f"asked for {args.laps} laps; the gate is {result['mode']}")
        lines += [f"  {b['reason']}: {b['value']}; {b['cure']}" for b in result["blocked"] or []]
    return "\n".join(lines)
