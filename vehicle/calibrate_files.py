"""``hotlap calibrate show|history|undo|restore|export|import``: for scripts, and for people who want no guide."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration import store
from calibration.curves import speed_curve, steering_curve
from calibration.deepracer import from_deepracer, to_deepracer
from calibration.durable import write_durably
from calibration.errors import CalibrationError
from calibration.strict_json import MAX_CHARACTERS
from calibration.values import Calibration, Steering, calibration_faults
from vehicle.calibrate_draft import checks_text, difference_text, values_text
from vehicle.calibrate_save import CalibrationKeeper
from vehicle.client import emit
from vehicle.errors import ConfigError

SAMPLES = 13
_MODEL_MAX_MPS = 1.0  # without measured speeds a pulse stands for a share of the model's greatest one


def show(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """Values, checks and samples of the mapping.

    Raises:
        CalibrationError: there is none, or it is damaged.
    """
    calibration = store.load_calibration(keeper.path)
    steering = steering_curve(calibration, SAMPLES)
    speed = speed_curve(calibration, _MODEL_MAX_MPS, SAMPLES)
    measured = bool(calibration.throttle.curve)
    result = {
        "path": str(keeper.path),
        "calibration": asdict(calibration),
        "faults": [fault.what for fault in calibration_faults(calibration)],
        "curve": {"steering": steering, "speed": speed, "measured": measured},
    }
    unit = "m/s" if measured else "of the model's greatest speed (no speeds were measured)"
    text = [str(keeper.path), values_text(calibration), checks_text(calibration), "", "steering (deg, + is left: us)"]
    text += [f"  {deg:+6.1f}: {us:.1f}" for deg, us in reversed(steering)]
    text += [f"speed ({unit}: us)", *(f"  {mps:+6.2f}: {us:.1f}" for mps, us in reversed(speed))]
    emit(args.json, result, "\n".join(text))
    return 0


def history(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """The saved ones, the newest first, each with what it changed."""
    saved = store.history(keeper.path)
    try:
        in_force: Calibration | None = store.load_calibration(keeper.path)
    except CalibrationError:
        in_force = None
    rows, lines = [], []
    for index, one in enumerate(saved):
        used = index == 0 and one.calibration is not None and one.calibration == in_force
        calibration = None if one.calibration is None else asdict(one.calibration)
        row: dict[str, Any] = {**vars(one), "calibration": calibration, "in_force": used}
        rows.append(row)
        lines.append(f"number {one.revision}{', in force' if used else ''}{': ' if one.fault else ''}{one.fault}")
        before = next((other.calibration for other in saved if other.revision == one.previous), None)
        if one.calibration is not None and before is not None:
            lines.append("    " + difference_text(before, one.calibration).replace("\n", "\n    "))
    emit(args.json, {"history": rows}, "\n".join(lines) or "no calibration was saved yet\nnext: hotlap calibrate")
    return 0


def undo(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """One step back.

    Raises:
        CalibrationError, CarRefused: see `CalibrationKeeper`.
    """
    before = _in_force(keeper)
    return _changed(args, before, keeper.undo())


def restore(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """One of the history.

    Raises:
        CalibrationError, CarRefused: see `CalibrationKeeper`.
    """
    before = _in_force(keeper)
    return _changed(args, before, keeper.restore(args.revision))


def export(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """The original car's calibration.json; ``-`` is standard output.

    Raises:
        CalibrationError: there is no calibration.
        OSError: the file cannot be written.
    """
    text = to_deepracer(store.load_calibration(keeper.path))
    if str(args.file) == "-":
        print(text, end="", flush=True)
        return 0
    write_durably(args.file, text.encode())
    emit(args.json, {"file": str(args.file)}, f"wrote {args.file}")
    return 0


def import_file(args: argparse.Namespace, keeper: CalibrationKeeper) -> int:
    """The original car's calibration.json, once somebody has seen what it changes.

    Returns:
        1 where the person says no.

    Raises:
        CalibrationError: the file does not hold together.
        ConfigError: nobody is there to ask.
        CarRefused: see `CalibrationKeeper`.
    """
    with open(args.file, "rb") as file:
        data = file.read(MAX_CHARACTERS + 1)
    before = _in_force(keeper)
    max_deg = (before.steering if before is not None else Steering()).max_deg  # the file does not say it
    wanted = from_deepracer(data, max_deg=max_deg, where=str(args.file))
    if not args.yes and not _agreed(args, before, wanted):
        print("nothing was changed")
        return 1
    keeper.save(wanted)
    return _changed(args, before, wanted)


def _agreed(args: argparse.Namespace, before: Calibration | None, wanted: Calibration) -> bool:
    if args.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            f"{args.file} was not imported: nobody is there to be asked",
            cause="standard input or output is no terminal, or --json was given",
            next_step=f"hotlap calibrate import {args.file} --yes",
        )
    print(f"{difference_text(before, wanted)}\n{checks_text(wanted)}")
    print("Save these values? y: yes. Anything else: no. ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _in_force(keeper: CalibrationKeeper) -> Calibration | None:
    try:
        return store.load_calibration(keeper.path)
    except CalibrationError:
        return None


def _changed(args: argparse.Namespace, before: Calibration | None, after: Calibration) -> int:
    emit(args.json, {"calibration": asdict(after)}, f"{difference_text(before, after)}\nsaved: it is in force now")
    return 0


def refuse_foreign(path: Path) -> None:
    """A file of our own in another user's folder could not be changed by the console any more.

    Raises:
        ConfigError: the folder, or the history in it, belongs to somebody else.
    """
    for folder in (path.with_name(path.name + ".history"), path.parent):
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            owner = folder.owner() if _has_name(folder) else str(folder.stat().st_uid)
            raise ConfigError(
                f"{folder} belongs to the user {owner}, and you are another one: nothing was moved or saved",
                cause="the car's services run as a user of their own, and could not change what you save there",
                next_step=f"sudo -u {owner} hotlap calibrate",
            )


def _has_name(folder: Path) -> bool:
    try:
        folder.owner()
    except KeyError:
        return False
    return True
