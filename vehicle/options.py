"""Options of the car's commands, for the front door's table. Imports nothing heavy: every call builds the parser."""

from __future__ import annotations

import argparse
from pathlib import Path

CAR_FOUND = "the car (default: the installed one, /etc/hotlap/car.toml, else the simulated one)"


def json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    # SUPPRESS: a sub-command's default must not undo the --json that was given before its name.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print exactly one JSON object on stdout"
    )


def place(text: str) -> Path | str:
    """A path, or an address such as ``s3://bucket/run``, whose two slashes a Path would not keep."""
    return text if "://" in text else Path(text)


def client_options(parser: argparse.ArgumentParser) -> None:
    """The options of arm, disarm and status."""
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="folder of the gate's sockets (default: found)")


def stop_options(parser: argparse.ArgumentParser) -> None:
    """The options of stop."""
    client_options(parser)
    parser.add_argument("--reset", action="store_true", help="end the emergency stop; the car is disarmed then")


def models_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap models``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions (without one: list)")
    install = actions.add_parser("install", help="check a bundle on this processor and take it in")
    install.add_argument("bundle", type=place, metavar="BUNDLE", help="bundle.tar.gz, or s3://bucket/run")
    install.add_argument("--activate", action="store_true", help="and choose it for the next drive")
    rows = [install, actions.add_parser("list", help="the models, the last one installed first")]
    for name, text in (
        ("activate", "choose a model for the next drive; it is on trial until it has proved itself"),
        ("remove", "delete a model; not the current one, nor one on trial"),
        ("allow", "let a model in again that failed its trial"),
    ):
        row = actions.add_parser(name, help=text)
        row.add_argument("sha256", metavar="SHA", help="the first characters of its hash, at least 6")
        rows.append(row)
    rows.append(actions.add_parser("rollback", help="back to the model before"))
    for row in (*rows, parser):
        # SUPPRESS: what was given before the action's name must not be undone by the action's own default.
        row.add_argument("--config", type=Path, metavar="car.toml", default=argparse.SUPPRESS, help=CAR_FOUND)
        json_option(row)


def calibrate_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap calibrate``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions (without one: step by step)")
    rows = [
        parser,
        actions.add_parser("show", help="values, checks, and samples of the mapping"),
        actions.add_parser("history", help="the saved ones, the newest first"),
        actions.add_parser("undo", help="the one before the one in force is in force again"),
    ]
    restore = actions.add_parser("restore", help="one of the history is in force again")
    restore.add_argument("revision", type=int, metavar="N", help="its number, as hotlap calibrate history has it")
    export = actions.add_parser("export", help="write the original DeepRacer's calibration.json")
    export.add_argument("file", type=Path, metavar="FILE", help="- is standard output")
    taken = actions.add_parser("import", help="take the original DeepRacer's calibration.json")
    taken.add_argument("file", type=Path, metavar="FILE")
    taken.add_argument("--yes", action="store_true", help="do not ask")
    camera = actions.add_parser("camera", help="the camera's pose from pictures of a checkerboard on the floor")
    camera.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="PNG or JPEG of the car's camera")
    camera.add_argument("--columns", type=int, default=9, help="inner corners in a row (default %(default)s)")
    camera.add_argument("--rows", type=int, default=6, help="rows of inner corners (default %(default)s)")
    camera.add_argument("--square-mm", type=float, default=25.0, metavar="MM", help="(default %(default)g)")
    camera.add_argument("--out", type=Path, metavar="FILE.toml", help="write it for hotlap train --car")
    for row in (*rows, restore, export, taken, camera):
        for name, metavar, text in (("--config", "car.toml", CAR_FOUND), ("--runtime", "DIR", "folder of the sockets")):
            row.add_argument(name, type=Path, metavar=metavar, default=argparse.SUPPRESS, help=text)
        json_option(row)


def console_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap console`` and of ``python -m vehicle.console``."""
    parser.add_argument("--config", type=Path, metavar="car.toml", help=CAR_FOUND)
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="folder of the sockets (default: found)")
    parser.add_argument("--host", default="", metavar="ADDRESS", help="listen there only (default: everywhere)")
    parser.add_argument("--port", type=int, metavar="N", help="HTTPS (default: 443 where allowed, else 8443)")
    parser.add_argument("--http-port", type=int, metavar="N", help="redirects to HTTPS; 0: none (default: 80 or 8080)")
    parser.add_argument("--no-mdns", action="store_true", help="do not announce NAME.local on the network")
    parser.add_argument("--show-password", action="store_true", help="print the first password, while it is in force")
    parser.add_argument("--reset-password", action="store_true", help="make and print a new password")


def flash_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap flash``, but for --json."""
    parser.add_argument("bundle", type=place, metavar="BUNDLE", help="bundle.tar.gz, or s3://bucket/run")
    parser.add_argument("--car", required=True, metavar="URL", help="hotlap.local, 192.168.1.7:8443, https://...")
    parser.add_argument("--activate", action="store_true", help="and have the car drive with it from now on")
    parser.add_argument("--name", default="", metavar="TEXT", help="what the car shall call it (default: the file's)")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="default: $HOTLAP_PASSWORD, or it is asked for"
    )
    parser.add_argument("--trust-new", action="store_true", help="take the car's changed certificate for its new one")
    parser.add_argument("--insecure", action="store_true", help="do not look at the certificate at all")


def bench_drive_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap bench drive``."""
    parser.add_argument("--config", type=Path, metavar="car.toml", help="use this car's camera and control rate")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="(default: the active model of this car)")
    parser.add_argument(
        "--duration", dest="duration_s", type=_seconds, default=15.0, metavar="15s", help="(default %(default)gs)"
    )


def bench_faults_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap bench faults``."""
    parser.add_argument("--only", metavar="WORDS", default="", help="only cases whose name contains this")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the table below the mark in this file")


def _seconds(text: str) -> float:
    """Two seconds to an hour, as ``15``, ``15s``, ``2m`` or ``1h``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration (write 15s or 2m)") from None
    if not 2.0 <= seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 2 seconds and an hour")
    return seconds
