"""The command `hotlap calibrate`: the guided calibration in a terminal, and its plain subcommands."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from calibration.car_link import CarRefused
from calibration.errors import CalibrationError
from calibration.store import load_calibration
from vehicle import calibrate_files
from vehicle.calibrate_camera import measure
from vehicle.calibrate_controls import AskGate, HeldControls, gate_of
from vehicle.calibrate_guide import Guide
from vehicle.calibrate_save import CalibrationKeeper
from vehicle.calibrate_session import Session
from vehicle.calibrate_terminal import Ended, Terminal
from vehicle.car_config import load_car_config, this_car
from vehicle.errors import ConfigError
from vehicle.links import runtime_dir

_ACTIONS: dict[str, Callable[[argparse.Namespace, CalibrationKeeper], int]] = {
    "show": calibrate_files.show,
    "history": calibrate_files.history,
    "undo": calibrate_files.undo,
    "restore": calibrate_files.restore,
    "export": calibrate_files.export,
    "import": calibrate_files.import_file,
}
_LOOKING = ("show", "history", "export")


def calibrate(args: argparse.Namespace) -> int:
    """Run ``hotlap calibrate``; returns the exit status: 128 and the signal's number where a signal ended it.

    Raises:
        CalibrationError: the calibration is missing or damaged, or does not hold together.
        CarRefused: the gate refuses, or (guided) does not answer.
        ConfigError: the configuration is wrong, or (guided) there is no terminal.
    """
    if args.action == "camera":  # of no car: files in, a file out
        return measure(args)
    config, runtime = getattr(args, "config", None), getattr(args, "runtime", None)
    if args.action is None:
        _refuse_without_terminal(args.json)
    with gate_of(runtime if runtime is not None else runtime_dir()) as ask:
        keeper = CalibrationKeeper(calibration_path(ask, config), ask)
        if args.action not in _LOOKING:
            calibrate_files.refuse_foreign(keeper.path)
        if args.action is not None:
            return _ACTIONS[args.action](args, keeper)
        return _guided(ask, keeper)


def calibration_path(ask: AskGate, config: Path | None) -> Path:
    """The calibration of the car that runs here, by its gate's own word; without a gate, what car.toml says.

    Raises:
        ConfigError: a car.toml was named that is not the running car's.
    """
    said: Path | None = None
    with contextlib.suppress(CarRefused):
        said = Path(str(ask({"op": "status"})["calibration_path"]))
    if said is not None and config is None:
        return said
    wanted = load_car_config(this_car(config)).calibration_path().absolute()
    if said is not None and said != wanted:
        raise ConfigError(
            f"{config} has its calibration in {wanted}, the gate that runs here reads {said}",
            cause="it is another car's file, or the gate was started with another one",
            next_step="leave out --config: the gate knows its file",
        )
    return wanted


def _refuse_without_terminal(as_json: bool) -> None:
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "hotlap calibrate is a conversation, and needs a terminal: nothing was moved",
            cause="--json was given" if as_json else "standard input or output is a file, a pipe or closed",
            next_step="ssh -t CAR hotlap calibrate; for scripts: hotlap calibrate --help lists show, import and others",
        )


def _guided(ask: AskGate, keeper: CalibrationKeeper) -> int:
    ask({"op": "status"})  # without a gate there is nothing to guide, and the error says what to do
    saved, damage = None, ""
    try:
        saved = load_calibration(keeper.path)
    except CalibrationError as error:
        damage = str(error) if keeper.path.exists() else ""
    controls = HeldControls(ask, f"terminal of process {os.getpid()}")
    with Terminal() as terminal:
        try:
            Session(Guide(saved, damage), controls, keeper, terminal).run()
        except Ended as ended:
            if ended.number == signal.SIGINT:
                with contextlib.suppress(Ended):
                    terminal.say("Stopped with Ctrl-C. What was not saved is lost.")
            return 128 + ended.number
    return 0
