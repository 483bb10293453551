"""A rig: real gate, guard and pilot processes in a folder of their own, set up so that a fault can be put into them.

Nothing of the machine's own car is touched: the actuator only records, or writes to files that look like a PWM chip.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import save_calibration
from vehicle import fault_devices
from vehicle.actuators.sysfs_pwm import PERIOD_NS
from vehicle.car_config import CarConfig
from vehicle.config import to_toml
from vehicle.errors import GateError, VehicleError
from vehicle.fault_clock import WallClock, compiler
from vehicle.fault_devices import Fault
from vehicle.fault_pictures import Pictures
from vehicle.fault_players import MODEL, Console, PlayedPilot
from vehicle.links import request
from vehicle.slots import ModelStore
from vehicle.supervisor import part_environment
from vehicle.trace import TraceRow, read_trace

ROOT = Path(__file__).resolve().parents[1]
START_S = 30.0  # to wait for anything that should happen soon; a machine under load
STEADY_S = 0.25  # of driving before a fault: longer than any speed takes to be reached
PHASE_S = 0.1  # of the pilot's period: a fault comes at any moment of it, not always at the same
BIG_FILE_BYTES = 8 << 20  # sparse; a file that is this large already is the first one that may grow no more
_ASK_S = 0.03
_STEADY_WAIT_S = 5.0


@dataclass(frozen=True)
class Setup:
    """What a rig is made of.

    Args:
        actuator: "none", "sim", "sysfs_pwm", or `fault_devices.KIND`.
        pilot: "played" from here, "real" with a bundle, "stored" from the model store, or "" for none.
        world: the MuJoCo car instead of shown pictures.
        wall_clock: that of gate and pilot can be stepped.
        big: "log" or "trace": that file is large from the start.
    """

    actuator: str = "none"
    pilot: str = "played"
    world: bool = False
    wall_clock: bool = False
    big: str = ""

    def missing(self) -> str:
        """Why such a rig cannot be had on this machine; "" where it can."""
        if self.world and (importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("sim") is None):
            return "needs the simulated car: pip install 'hotlap[train]'"
        if self.wall_clock and compiler() is None:
            return "needs a C compiler to step the wall clock of single processes: apt install gcc"
        return ""


class Rig:
    """One car under test; `close` ends all that it started.

    Args:
        bundle: of `fault_model.make_bundle`, for a real pilot.

    Raises:
        VehicleError: a process did not start.
    """

    def __init__(self, setup: Setup, bundle: Path) -> None:
        self.setup = setup
        self.folder = Path(tempfile.mkdtemp(prefix="hlf-"))  # a short path: sockets
        self.runtime, self.state_dir = self.folder / "run", self.folder / "state"
        self.trace_path, self.config_path = self.folder / "pulses.csv", self.folder / "car.toml"
        self.calibration = default_sim_calibration() if setup.world else Calibration()
        self.neutral_us = self.calibration.throttle.neutral_us
        self.actuator_fault, self.camera_fault = Fault(self.runtime, "actuator"), Fault(self.runtime, "camera")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.played: PlayedPilot | None = None
        self.pictures: Pictures | None = None
        self.console: Console | None = None
        self.wall_clock: WallClock | None = None
        self.guard_pid = 0
        self.refused_before: dict[str, int] = {}  # messages, by their fault, when the case began
        self.case = contextlib.ExitStack()  # what has to be undone after a case
        self._bundle, self.env = bundle, {**part_environment(), "PYTHONPATH": str(ROOT)}
        try:
            self._prepare()
            self._start()
        except BaseException:
            self.close()
            raise

    # --- set up

    def _prepare(self) -> None:
        self.runtime.mkdir(mode=0o700)
        save_calibration(self.state_dir / "calibration.json", self.calibration)
        config = CarConfig(state_dir=str(self.state_dir))
        actuator = dataclasses.replace(config.actuator, kind=self.setup.actuator)
        camera = config.camera
        if not self.setup.world:
            camera = dataclasses.replace(camera, kind=fault_devices.KIND)
            plugin = fault_devices.write_plugin(self.folder / "plugin")
            self.env["PYTHONPATH"] = f"{plugin}{os.pathsep}{ROOT}"
        if self.setup.actuator == "sysfs_pwm":
            actuator = dataclasses.replace(actuator, pwm_root=str(_pwm_files(self.folder / "pwm")))
        if self.setup.big == "trace":  # the pulses are recorded by the actuator's own recorder then
            actuator = dataclasses.replace(actuator, record=str(self.trace_path))
            _big_file(self.big_path)
        if self.setup.big == "log":
            _big_file(self.big_path)
        if self.setup.wall_clock:
            self.wall_clock = WallClock(self.folder)
            self.env |= self.wall_clock.env
        self.config_path.write_text(to_toml(dataclasses.replace(config, actuator=actuator, camera=camera)))

    @property
    def big_path(self) -> Path:
        """The file that `Setup.big` names."""
        return self.state_dir / "logs" / "drive.log" if self.setup.big == "log" else self.folder / "full.csv"

    def _start(self) -> None:
        if self.setup.world:
            self.start("world", "sim.world_process", "--track", "first_oval")
            self.wait(lambda: (self.runtime / "world.ready").exists(), "world")
        self.start_gate()
        if self.setup.pilot == "played":
            self.played = PlayedPilot(self.runtime)
            self.played.start()
            self.ask("model", sha256=MODEL, trial=False)
        elif self.setup.pilot:
            if not self.setup.world:
                self.pictures = Pictures(self.runtime)
            if self.setup.pilot == "stored":
                archive = self._bundle.read_bytes()
                store = ModelStore(self.state_dir / "models")
                store.add(archive, {})
                store.activate(hashlib.sha256(archive).hexdigest())
            self.start_pilot()

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start ``python -m MODULE --runtime RUNTIME ARGUMENTS``; it ends when this process does."""
        if name in self.processes:
            self._end(name, signal.SIGKILL)
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, "--runtime", str(self.runtime), *arguments],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=self.env, start_new_session=True,
            )  # fmt: skip

    def start_gate(self) -> None:
        """Start the gate, and its guard with it."""
        trace = self.big_path if self.setup.big == "trace" else self.trace_path
        self.start("gate", "vehicle.gate", "--config", str(self.config_path), "--trace", str(trace))
        self.wait(self._gate_answers, "gate")

    def start_pilot(self) -> None:
        """Start the pilot; it is not waited for."""
        model = ("--bundle", str(self._bundle)) if self.setup.pilot == "real" else ()
        self.start("pilot", "vehicle.pilot", "--config", str(self.config_path), *model)

    def _gate_answers(self) -> bool:
        with contextlib.suppress(GateError):
            return bool(self.ask("status")["ok"])
        return False

    def wait(self, condition: Callable[[], object], name: str, timeout_s: float = START_S) -> None:
        """Until it holds.

        Args:
            name: of the process that it depends on.

        Raises:
            VehicleError: the process ended, or it took too long.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            ended = self.processes[name].poll() if name in self.processes else None
            if ended is not None or time.monotonic() > deadline_s:
                why = f"ended with status {ended}" if ended is not None else f"not ready within {timeout_s:g} s"
                raise VehicleError(f"{name}: {why}", cause=self.log(name)[-1000:])
            time.sleep(_ASK_S)

    # --- drive

    def ask(self, op: str, **keys: Any) -> dict[str, Any]:
        """A request to the gate."""
        return request(self.runtime, "gate.request", {"op": op, **keys}, timeout_s=2.0)

    def drive(self, mode: str) -> float:
        """Mend what an earlier case broke, arm, and drive for a moment.

        Args:
            mode: "autonomous", "manual" or "calibration"; "browser" is manual by a process of its own.

        Returns:
            since when it drives.

        Raises:
            VehicleError: it does not come to drive.
        """
        self._mend()
        if mode == "autonomous":
            if self.setup.pilot in ("real", "stored") and self.processes["pilot"].poll() is not None:
                self.start_pilot()
            self.wait(lambda: self.ask("arm", mode=mode)["ok"], "pilot")
            cause = "drive"
        elif mode == "browser":
            self.start("browser", "vehicle.fault_players")
            cause = "manual"
        else:
            self.console = Console(self.runtime, mode, self.neutral_us)
            self.console.start()
            cause = mode
        self.wait(lambda: self.ask("status")["cause"] == cause, mode)
        begun_s = time.monotonic()
        if self.played is not None:
            self.played.late_s = 0.0
        status = self.ask("status")
        self.guard_pid, self.refused_before = status["processes"]["guard"] or 0, status["counters"]["refused"]
        time.sleep(STEADY_S + random.uniform(0.0, PHASE_S))
        self.wait(self._steady, mode, _STEADY_WAIT_S)
        return begun_s

    def _steady(self) -> bool:
        """Whether the car has been driving for a while: a pilot that has just started may still have a hiccup."""
        since_s = time.monotonic() - STEADY_S
        throttle = [row for row in self.rows() if row.channel == "throttle" and row.t_s >= since_s]
        return bool(throttle) and all(row.pulse_us != self.neutral_us for row in throttle)

    def _mend(self) -> None:
        self.end_case()
        if self.played is not None:
            self.played.mend()
        if self.pictures is not None:
            self.pictures.mend()
        self.actuator_fault.clear()
        self.camera_fault.clear()
        self.ask("disarm")
        if self.ask("status")["mode"] == "stopped":
            self.ask("reset")

    def signal(self, name: str, number: int) -> float:
        """Send a signal to a process, or to the guard; returns the moment just before."""
        pid = self.guard_pid if name == "guard" else self.processes[name].pid
        sent_s = time.monotonic()
        os.kill(pid, number)
        return sent_s

    def rows(self) -> list[TraceRow]:
        """The recorded pulses, by time."""
        return sorted(read_trace(self.trace_path), key=lambda row: row.t_s) if self.trace_path.exists() else []

    def log(self, name: str) -> str:
        """What a process has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- end

    def end_case(self) -> None:
        """End what one case has started; may be called twice."""
        self.case.close()
        if self.console is not None:
            self.console.close()
            self.console = None
        if "browser" in self.processes:
            self._end("browser", signal.SIGKILL)

    def close(self) -> None:
        """End every process and thread, and remove the folder."""
        self.end_case()
        for name, number in (("gate", signal.SIGTERM), ("pilot", signal.SIGKILL), ("world", signal.SIGKILL)):
            if name in self.processes:
                self._end(name, number)
        for player in (self.played, self.pictures):
            if player is not None:
                player.close()
        _wait_gone(self.guard_pid, self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, name: str, number: int) -> None:
        process = self.processes.pop(name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(number)  # nothing where it has ended
            process.wait(2.0)
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _wait_gone(pid: int, folder: Path, timeout_s: float = 2.0) -> None:
    """Wait for a guard, which outlives its gate by a second; one that stands still is killed."""
    deadline_s = time.monotonic() + timeout_s
    while pid and os.fsencode(folder) in _command(pid):
        if time.monotonic() > deadline_s:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _big_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(BIG_FILE_BYTES)


def _pwm_files(root: Path, channels: Sequence[int] = (0, 1)) -> Path:
    """Plain files in the place of the kernel's: ``pwmchip0`` with its channels exported already."""
    for channel in channels:
        folder = root / "pwmchip0" / f"pwm{channel}"
        folder.mkdir(parents=True)
        for name, text in (("period", str(PERIOD_NS)), ("duty_cycle", "0000000"), ("enable", "0")):
            (folder / name).write_text(text)
    (root / "pwmchip0" / "npwm").write_text(str(len(channels)))
    (root / "pwmchip0" / "export").write_text("")
    return root
