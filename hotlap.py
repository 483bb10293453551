"""The front door: hotlap's table of commands.

Each row names a command, declares its options, and imports its room only when the command is called, so that
``hotlap --help`` needs neither numpy nor torch nor mujoco.

Exit status: 0 success; 1 a check that the command was asked for failed (no lap, say); 2 bad input, with what, likely
cause and next command on stderr; 70 a fault of hotlap's own; 130 stopped with Ctrl-C. With ``--json``, stdout gets
exactly one JSON object: the result, or ``{"error": {"what", "cause", "next"}}``. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from vehicle.errors import HotlapError
from vehicle.options import (
    bench_drive_options,
    bench_faults_options,
    calibrate_options,
    client_options,
    console_options,
    flash_options,
    json_option,
    models_options,
    place,
    stop_options,
)

STATUS_BAD_INPUT = 2
STATUS_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
STATUS_BROKEN_PIPE = 128 + 13
STATUS_INTERRUPTED = 128 + 2

# What the train extra brings: its absence is a matter of installation, not a fault.
TRAIN_MODULES = frozenset(("torch", "mujoco", "numba", "gymnasium", "onnx", "matplotlib", "av", "psutil"))

SECONDS_PER_UNIT = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

T = TypeVar("T")


class UsageError(HotlapError, ValueError):
    """The command line names an unknown command or option, or an option's value is out of range."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors teach, and are printed in one place (:func:`main`)."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UsageError` where argparse would print its usage and exit."""
        raise UsageError(f"{self.prog}: {message}", next_step=f"{self.prog} --help")


# --- values of options ------------------------------------------------------------------------------------------------


def parse_duration(text: str) -> float:
    """A duration in seconds from ``90s``, ``5m``, ``1h``, ``1.5h``, or a plain number of seconds.

    Raises:
        UsageError: not such a text, or not more than zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)", text.strip().lower(), flags=re.ASCII)
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration",
            cause="a number and one unit are expected",
            next_step="write 90s, 5m, 1h or 90",
        )
    duration_s = float(match[1]) * SECONDS_PER_UNIT[match[2]]
    if not 0.0 < duration_s < math.inf:
        raise UsageError(f"a duration of {text!r} is {duration_s:g} s: more than zero is needed", next_step="write 90s")
    return duration_s


def parse_count(text: str) -> int:
    """A whole number of at least one.

    Raises:
        UsageError: not such a text.
    """
    count = parse_whole(text)
    if count < 1:
        raise UsageError(f"{text!r} is too small: at least 1 is needed")
    return count


def parse_whole(text: str) -> int:
    """A whole number of at least zero, for instance a seed.

    Raises:
        UsageError: not such a text.
    """
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None
    if number < 0:
        raise UsageError(f"{text!r} is negative: at least 0 is needed")
    return number


def parse_range_m(text: str) -> tuple[float, float]:
    """Two lengths in metres, ``LOW,HIGH`` or one number for both, both above zero and in order.

    Raises:
        UsageError: not such a text.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r} is not LOW,HIGH in metres", next_step="write 20,35") from None
    if len(numbers) not in (1, 2) or not 0.0 < numbers[0] <= numbers[-1] < math.inf:
        raise UsageError(f"{text!r} is not a range of lengths in metres, the lower first", next_step="write 20,35")
    return numbers[0], numbers[-1]


def parse_port(text: str) -> int:
    """A TCP port, 0 for any.

    Raises:
        UsageError: not such a text.
    """
    port = parse_whole(text)
    if port > 65535:
        raise UsageError(f"{text!r} is no port: at most 65535")
    return port


def _argument(convert: Callable[[str], T]) -> Callable[[str], T]:
    """``convert`` as an argparse type: its UsageError becomes argparse's own, which knows the option's name."""

    def typed(text: str) -> T:
        try:
            return convert(text)
        except UsageError as error:
            hints = "; ".join(part for part in (error.cause, error.next_step) if part)
            raise argparse.ArgumentTypeError(error.what + (f" ({hints})" if hints else "")) from error

    return typed


DURATION, COUNT, WHOLE, RANGE_M, PORT = (
    _argument(parse_duration), _argument(parse_count), _argument(parse_whole), _argument(parse_range_m),
    _argument(parse_port),
)  # fmt: skip


# --- options of each command ------------------------------------------------------------------------------------------


def _tracks_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions (without one: list the tracks)")
    show = actions.add_parser("show", help="draw a track's map and describe it")
    show.add_argument("name", metavar="NAME", help="a shipped track, or a DeepRacer .npy file")
    show.add_argument("--out", type=Path, metavar="FILE.png", help="where to draw the map")
    json_option(show)
    generate = actions.add_parser("generate", help="make a new track from a seed")
    generate.add_argument("--seed", type=WHOLE, required=True, help="the same seed makes the same track")
    generate.add_argument("--out", type=Path, required=True, metavar="FILE.npy", help="where to save it")
    generate.add_argument("--length", dest="length_m", type=RANGE_M, metavar="LOW,HIGH", help="lap length, m")
    generate.add_argument("--width", dest="width_m", type=RANGE_M, metavar="LOW,HIGH", help="road width, m")
    generate.add_argument("--direction", choices=("any", "cw", "ccw"), default="any", help="of travel")
    generate.add_argument("--map", dest="map_out", type=Path, metavar="FILE.png", help="draw the map too")
    json_option(generate)


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--track", action="append", metavar="T", help="shipped name or .npy file; repeat for several")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument(
        "--time-limit", dest="time_limit_s", type=DURATION, metavar="90s", help="stop after 90s, 5m, 1h or seconds"
    )
    parser.add_argument("--steps", type=COUNT, metavar="N", help="stop after N environment steps")
    parser.add_argument("--seed", type=WHOLE, default=None, metavar="S", help="(default 0)")
    parser.add_argument("--reward", type=Path, metavar="FILE", help="a reward_function(params), or a shipped name")
    parser.add_argument("--action-space", type=Path, metavar="FILE", help="a DeepRacer model_metadata.json")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the run's TOML; options here win over it")
    parser.add_argument("--deepracer", type=Path, metavar="FOLDER", help="DeepRacer's custom_files, as they are")
    parser.add_argument("--traces", choices=("all", "few", "none"), help="steps in DeepRacer's logs (default all)")
    parser.add_argument(
        "--tensorboard", action=argparse.BooleanOptionalAction, help="scalars in RUN/tensorboard (default on)"
    )
    parser.add_argument("--car", type=Path, metavar="FILE", help="the car's TOML")
    parser.add_argument("--method", choices=("auto", "ppo", "distill"), default="auto", help="(default %(default)s)")
    parser.add_argument(
        "--randomise",
        choices=("auto", "none", "mild", "full"),
        default="auto",
        help="look and world (default %(default)s)",
    )
    parser.add_argument("--network", metavar="NAME", help="the policy network, by name")
    _race_options(parser)
    parser.add_argument("--workers", type=WHOLE, metavar="N", help="drive in N further processes of this machine")
    parser.add_argument("--buffer", metavar="URL", help="experience buffer: redis://… (default: memory)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its last checkpoint")
    parser.add_argument(
        "--store", metavar="URL", help="publish it there too: s3://bucket/run or a folder; --resume can fetch it"
    )
    parser.add_argument("--monitor", action="store_true", help="a web page that shows the training while it runs")
    _page_options(parser, "of that page ")
    json_option(parser)


def _page_options(parser: argparse.ArgumentParser, whose: str) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help=f"{whose}(default %(default)s)")
    parser.add_argument("--port", type=PORT, metavar="P", help=f"{whose}(default 8012, or any if it is taken)")


def _monitor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder, running or finished")
    parser.add_argument("--terminal", action="store_true", help="a table in this terminal instead of a web page")
    _page_options(parser, "")
    json_option(parser)


def _race_options(parser: argparse.ArgumentParser, default: str = "time_trial") -> None:
    parser.add_argument(
        "--race", choices=("time_trial", "object_avoidance", "head_to_bot"), help=f"what is on the road ({default})"
    )
    parser.add_argument("--objects", type=COUNT, metavar="N", help="how many boxes or bot cars (default 4, 3)")


def _worker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--buffer", metavar="URL", help="the learner's: redis://… (default: what HOTLAP_BUFFER says)")
    parser.add_argument("--number", type=WHOLE, metavar="N", help="which worker this is (default: one of its own)")
    parser.add_argument("--threads", type=COUNT, default=1, metavar="N", help="(default %(default)s)")


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=place, metavar="BUNDLE", help="bundle.tar.gz, a run, or s3://bucket/run")
    parser.add_argument("--track", action="append", required=True, metavar="T", help="shipped name or .npy file")
    parser.add_argument("--trials", type=COUNT, default=20, metavar="N", help="on each track (default %(default)s)")
    parser.add_argument("--seed", type=WHOLE, default=0, metavar="S", help="(default %(default)s)")
    parser.add_argument("--look", choices=("nominal", "random"), default="nominal", help="(default %(default)s)")
    parser.add_argument("--world", choices=("nominal", "random"), default="nominal", help="(default %(default)s)")
    parser.add_argument("--renderer", choices=("fast", "mujoco"), default="fast", help="(default %(default)s)")
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="first person and top view")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="the driven lines, coloured by speed")
    parser.add_argument("--penalties", action="store_true", help="DeepRacer's rules: off track costs time")
    parser.add_argument("--car", type=Path, metavar="FILE", help="the car's TOML")
    parser.add_argument("--logs", type=Path, metavar="RUN", help="write DeepRacer's logs of the trials there")
    _race_options(parser, "as trained")
    parser.add_argument("--require-lap", action="store_true", help="exit status 1 if no trial completes")
    json_option(parser)


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=place, metavar="RUN", help="the run, or s3://bucket/run; its best is exported")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default RUN/bundle.tar.gz)")
    parser.add_argument("--steps", type=Path, metavar="FILE.csv|.parquet", help="its steps as one table instead")
    parser.add_argument("--sim-log", type=Path, metavar="FILE", help="its steps as DeepRacer's log instead")
    json_option(parser)


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", type=Path, nargs="?", metavar="PLAN.toml", help="a run's TOML with lists and ranges")
    parser.add_argument("--out", type=Path, required=True, metavar="SWEEP", help="the sweep's folder")
    parser.add_argument("--track", action="append", metavar="T", help="of every trial; repeat for several")
    parser.add_argument("--reward", action="append", type=Path, metavar="FILE", help="repeat to compare reward files")
    parser.add_argument("--samples", type=COUNT, metavar="N", help="draw N combinations (default: all)")
    parser.add_argument("--time-limit", dest="time_limit_s", type=DURATION, metavar="90s", help="of each trial")
    parser.add_argument("--steps", type=COUNT, metavar="N", help="of each trial")
    parser.add_argument("--trials", type=COUNT, metavar="N", help="time trials that judge each run (default 10)")
    parser.add_argument("--action-space", type=Path, metavar="FILE", help="a DeepRacer model_metadata.json")
    parser.add_argument("--car", type=Path, metavar="FILE", help="the car's TOML")
    parser.add_argument("--store", metavar="URL", help="publish trial NNN at URL/NNN")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="(default: one after the other)")
    parser.add_argument("--cpus", type=COUNT, default=1, metavar="N", help="of a trial with --engine ray (default 1)")
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in --out")
    json_option(parser)


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FOLDER|FILE", help="DeepRacer's custom_files, or one of its files")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(dest="bench", metavar="WHAT", required=True)
    sim = benches.add_parser("sim", help="camera steps per second and core, against the bound and CarRacing")
    sim.add_argument("--threads", type=COUNT, default=1, metavar="N", help="(default %(default)s)")
    sim.add_argument(
        "--seconds",
        dest="seconds_s",
        type=DURATION,
        default=5.0,
        metavar="S",
        help="for each part (default %(default)g)",
    )
    drive = benches.add_parser("drive", help="the pilot's loop with one core busy, and other runtimes")
    bench_drive_options(drive)
    faults = benches.add_parser("faults", help="how soon every fault ends in neutral, from the recorded pulses")
    bench_faults_options(faults)
    for row in (sim, drive, faults):
        json_option(row)


def _drive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="car.toml", help="the car (default: the simulated one)")
    parser.add_argument("--model", type=place, metavar="BUNDLE", help="install and activate this bundle first")
    parser.add_argument("--arm", action="store_true", help="arm and drive without a console")
    parser.add_argument("--console", action="store_true", help="with the car's web page")
    parser.add_argument("--laps", type=COUNT, metavar="N", help="stop after N laps; 1 as status if they do not come")
    parser.add_argument("--duration", dest="duration_s", type=DURATION, metavar="30s", help="stop after this long")
    parser.add_argument("--trace", type=Path, metavar="FILE.csv", help="write every pulse with its time and cause")
    parser.add_argument("--track", metavar="T", help="of the simulated car: shipped name or .npy file")
    parser.add_argument("--look", choices=("nominal", "random"), default="nominal", help="of the simulated track")
    parser.add_argument("--seed", type=WHOLE, default=0, metavar="S", help="of the simulated car (default 0)")
    parser.add_argument(
        "--hardware", choices=("firmware-sim",), help="the simulated car behind the microcontroller's real firmware"
    )
    parser.add_argument("--replay", type=Path, metavar="LOG", help="run the model over recorded frames, compare")


def _bridge_options(parser: argparse.ArgumentParser) -> None:
    from vehicle.bridge_command import add_options

    add_options(parser)


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    from vehicle.doctor import add_options

    add_options(parser)


# --- the table --------------------------------------------------------------------------------------------------------


def _tracks(args: argparse.Namespace) -> int:
    from sim.commands import tracks

    return tracks(args)


def _train(args: argparse.Namespace) -> int:
    if not args.track and not args.resume:
        raise UsageError(
            "hotlap train: nothing to train on: neither --track nor --resume was given",
            next_step=f"hotlap tracks, then hotlap train --track NAME --out {args.out}",
        )
    from trainer.commands import train

    return train(args)


def _worker(args: argparse.Namespace) -> int:
    from trainer.worker_process import worker_command

    return worker_command(args)


def _evaluate(args: argparse.Namespace) -> int:
    from trainer.commands import evaluate
    from vehicle.store import local_bundle

    with local_bundle(args.bundle) as args.bundle:
        return evaluate(args)


def _export(args: argparse.Namespace) -> int:
    from trainer.commands import export

    return export(args)


def _sweep(args: argparse.Namespace) -> int:
    if not (args.plan or args.reward or args.resume):
        raise UsageError(
            "hotlap sweep: nothing to try: neither PLAN.toml, --reward files nor --resume were given",
            next_step="write ppo.learning_rate = [3e-4, 1e-3] into plan.toml, then hotlap sweep plan.toml --out SWEEP",
        )
    from trainer.sweep import sweep

    return sweep(args)


def _import(args: argparse.Namespace) -> int:
    from trainer.deepracer_command import import_command

    return import_command(args)


def _monitor(args: argparse.Namespace) -> int:
    from trainer.monitor.command import monitor

    return monitor(args)


def _bench(args: argparse.Namespace) -> int:
    if args.bench == "drive":
        from vehicle.bench_drive import bench_drive

        return bench_drive(args)
    if args.bench == "faults":
        from vehicle.fault_report import faults

        return faults(args)
    from sim.bench import main as bench_sim

    return bench_sim(args)


def _drive(args: argparse.Namespace) -> int:
    from vehicle.drive import drive
    from vehicle.store import local_bundle

    with local_bundle(args.model) as args.model:
        return drive(args)


def _models(args: argparse.Namespace) -> int:
    from vehicle.models_command import models
    from vehicle.store import local_bundle

    with local_bundle(getattr(args, "bundle", None)) as args.bundle:
        return models(args)


def _client(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from vehicle import client

        command: Callable[[argparse.Namespace], int] = getattr(client, f"{name}_command")
        return command(args)

    return run


def _calibrate(args: argparse.Namespace) -> int:
    from vehicle.calibrate import calibrate

    return calibrate(args)


def _console(args: argparse.Namespace) -> int:
    from vehicle.console import console_command

    return console_command(args)


def _flash(args: argparse.Namespace) -> int:
    from vehicle.flash import flash
    from vehicle.store import local_bundle

    with local_bundle(args.bundle) as args.bundle:
        return flash(args)


def _bridge(args: argparse.Namespace) -> int:
    from vehicle.bridge_command import bridge

    return bridge(args)


def _doctor(args: argparse.Namespace) -> int:
    from vehicle.doctor import doctor

    return doctor(args)


@dataclass(frozen=True)
class Command:
    """One row of the table: a name, a line of help, the options, and what runs (its result is the exit status)."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = (
    Command("tracks", "list, draw and generate tracks", _tracks_options, _tracks),
    Command("import", "check DeepRacer's files, and say what will differ", _import_options, _import),
    Command("train", "train a policy from camera pixels", _train_options, _train),
    Command("monitor", "show a training, running or finished, on a web page", _monitor_options, _monitor),
    Command("sweep", "try hyperparameters and reward files, with a leaderboard", _sweep_options, _sweep),
    Command("worker", "drive for a training on another machine", _worker_options, _worker),
    Command("evaluate", "time trials of an exported bundle, from its ONNX file", _evaluate_options, _evaluate),
    Command("export", "write a run's best checkpoint as a bundle", _export_options, _export),
    Command("drive", "drive the simulated car, or a real one, with an installed model", _drive_options, _drive),
    Command("models", "install, list, activate, roll back and remove the models of this car", models_options, _models),
    Command("arm", "let the pilot drive", client_options, _client("arm")),
    Command("disarm", "neutral, until it is armed again", client_options, _client("disarm")),
    Command("stop", "emergency stop: neutral, until hotlap stop --reset", stop_options, _client("stop")),
    Command("status", "what the car does, and every reason why it would not drive", client_options, _client("status")),
    Command("calibrate", "measure steering and motor in a terminal; show, undo, import", calibrate_options, _calibrate),
    Command("console", "the car's web page: drive, models, calibration, health", console_options, _console),
    Command("flash", "send a bundle to a car over the network", flash_options, _flash),
    Command("bridge", "find, look at, program and test the microcontroller", _bridge_options, _bridge),
    Command("doctor", "look at this machine: versions, devices, permissions, camera, buses", _doctor_options, _doctor),
    Command("bench", "measure this machine", _bench_options, _bench),
)


class _Version(argparse.Action):
    """Prints the installed version; an action, so that start-up does not search the installed packages."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"hotlap {version('hotlap')}")
        except PackageNotFoundError:
            print("hotlap (not installed: run `make setup`)")
        parser.exit()


def build_parser(commands: Iterable[Command] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the whole command line; parsing raises :class:`UsageError`, and SystemExit(0) for --help."""
    parser = Parser(prog="hotlap", description="Train, race and flash a DeepRacer-class car, without the cloud.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    rows = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in commands:
        row = rows.add_parser(command.name, help=command.help, description=command.help.capitalize() + ".")
        command.add_options(row)
        row.set_defaults(run_command=command.run)
        if not any(action.dest == "json" for action in row._actions):
            json_option(row)
    return parser


# --- running ----------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None, commands: Iterable[Command] = COMMANDS) -> int:
    """Run one command line and return its exit status; the table at the head of this file says which.

    Raises:
        SystemExit: for --help and --version, with status 0.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        args = build_parser(commands).parse_args(words)
        args.json = as_json
        status = args.run_command(args)
        sys.stdout.flush()
        return int(status)
    except HotlapError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        return _report(HotlapError("stopped with Ctrl-C"), as_json, STATUS_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our stdout has gone (`hotlap tracks | head -1`); Python's own flush at exit must not fail on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_BROKEN_PIPE
    except OSError as error:
        return _report(_refused(error), as_json)
    except Exception as error:  # noqa: BLE001 - the process's outermost frame: whoever reads the JSON gets some
        missing = _missing_extra(error)
        if missing is not None:
            return _report(missing, as_json)
        traceback.print_exc()
        cause = "a fault of hotlap's own; the traceback is on stderr"
        return _report(HotlapError(f"{type(error).__name__}: {error}", cause=cause), as_json, STATUS_INTERNAL)


def _missing_extra(error: Exception) -> HotlapError | None:
    """What to say where a command needs a module of the train extra that is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    if package not in TRAIN_MODULES:
        return None
    return HotlapError(
        f"this command needs {package}, which is not installed",
        cause="the base install is the car's; simulation and training are an extra",
        next_step="pip install 'hotlap[train]'",
    )


def _refused(error: OSError) -> HotlapError:
    """What to say of a file that could not be read or written, where the room itself had no more to say of it."""
    name = str(error.filename) if error.filename is not None else ""
    folder = Path(name).parent
    if isinstance(error, FileNotFoundError) and name and not folder.exists():
        return HotlapError(f"{name}: its folder does not exist", next_step=f"mkdir -p {shlex.quote(str(folder))}")
    what = f"{name}: {error.strerror}" if name else f"the operating system refused: {error}"
    return HotlapError(what, cause=f"the system's word was {type(error).__name__}, number {error.errno}")


def _report(error: HotlapError, as_json: bool, status: int = STATUS_BAD_INPUT) -> int:
    """Print the error for people on stderr, and for programs on stdout, and return the exit status."""
    print(f"hotlap: {error}" if not error.what.startswith("hotlap") else str(error), file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"what": error.what, "cause": error.cause, "next": error.next_step}}), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
