"""``hotlap flash BUNDLE --car URL``: send a model to a car over Wi-Fi, and show the car's own verdict.

Exit status: 0 the car has taken it (and loaded it, with --activate); 1 the car refused; 2 a file or an address is
wrong, or nobody answers.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from vehicle.bundle import read_bundle
from vehicle.client import emit
from vehicle.errors import VehicleError
from vehicle.flash_client import CarClient, CarSaidNo, CarUnreachable, Pins, parse_car

PIECE_BYTES = 512 * 1024
TRIES = 6  # in a row, of one piece
PAUSE_S = 0.5
VERDICT_TIMEOUT_S = 150.0  # the car gives up by itself after 60 s, and may be slow to say so
PASSWORD = "HOTLAP_PASSWORD"


def flash(args: argparse.Namespace) -> int:
    """Run ``hotlap flash``; the exit status is at the head of this file.

    Raises:
        BundleError: the file is no bundle; a DeepRacer model is told what to do.
        VehicleError: no address, nobody answers, or another certificate than before.
    """
    host, ports = parse_car(args.car)
    # Here first: a DeepRacer model or a damaged file need not travel. Its vectors the car replays itself.
    bundle = read_bundle(args.bundle, replay_golden=False)
    data = bundle.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise VehicleError(f"{args.bundle} changed while it was read", next_step="wait for the export, then try again")
    client = CarClient(host, ports, None if args.insecure else Pins(), trust_new=args.trust_new)
    try:
        _say(f"{client.name}, certificate {client.sha256[:16]}...{_how(client, args)}")
        client.log_in(_password(args.password_file))
        done = _flash(client, data, args.name or args.bundle.name, args.activate)
    except CarSaidNo as refused:
        emit(args.json, {"ok": False, "car": client.name, "error": refused.as_object()}, _refusal(refused))
        return 1
    finally:
        client.log_out()
        client.close()
    result = {"ok": True, "car": client.name, "certificate_sha256": client.sha256, **done}
    emit(args.json, result, _verdict(done))
    return 0 if done["loaded"] or not args.activate else 1


def _flash(client: CarClient, data: bytes, name: str, activate: bool) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    if client.ask("GET", "/api/v1/state").get("armed"):
        raise CarSaidNo(
            409,
            {
                "reason": "armed", "what": "the car is armed", "cause": "models change only while it cannot move",
                "next": "disarm it, then this command again",
            },
        )  # fmt: skip
    begun = client.ask("POST", "/api/v1/uploads", {"size": len(data), "sha256": sha256, "name": name})
    _send(client, data, sha256, int(begun["offset"]))
    _say("the car is checking it: contract, golden vectors, latency")
    client.wait_for(VERDICT_TIMEOUT_S)
    done = client.ask("POST", f"/api/v1/uploads/{sha256}/install", {"name": name, "activate": activate})
    if done.get("sha256") != sha256:
        raise CarSaidNo(502, {"reason": "sha256_mismatch", "what": f"the car has taken {done.get('sha256')}"})
    return {
        "sha256": sha256, "new": bool(done.get("new")), "name": done.get("name"), "size_bytes": len(data),
        "report": done.get("report") or {}, "activated": bool(done.get("activated")),
        "loaded": bool(done.get("loaded")),
        "pilot": done.get("pilot"), "trial": bool(done.get("trial")),
    }  # fmt: skip


def _send(client: CarClient, data: bytes, sha256: str, offset: int) -> None:
    """All that is missing; after a lost connection from where the car has it up to."""
    path, failures, told_s = f"/api/v1/uploads/{sha256}", 0, time.monotonic()
    if offset:
        _say(f"going on at {100 * offset // len(data)} %")
    while offset < len(data):
        piece = data[offset : offset + PIECE_BYTES]
        try:
            offset = int(client.ask("PATCH", path, piece, **{"Upload-Offset": str(offset)})["offset"])
            failures = 0
        except (CarUnreachable, CarSaidNo) as error:
            failures += 1
            passing = isinstance(error, CarUnreachable) or error.reason in ("busy", "wrong_offset")
            if failures >= TRIES or not passing:
                raise
            time.sleep(PAUSE_S * failures)
            offset = _where(client, path, offset)
        if time.monotonic() - told_s >= 1.0:
            told_s = time.monotonic()
            _say(f"{100 * offset // len(data)} % of {len(data) / 1e6:.1f} MB")


def _where(client: CarClient, path: str, offset: int) -> int:
    """How far the car has it, over a new connection; `offset` where it still does not answer."""
    try:
        client.reconnect()
        return int(client.ask("GET", path)["offset"])
    except CarUnreachable:
        return offset


def _password(path: Path | None) -> str:
    if path is not None:
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise VehicleError(f"{path} cannot be read: {error}", next_step="check --password-file") from error
    given = os.environ.get(PASSWORD)
    if given:
        return given
    if not sys.stdin.isatty():
        raise VehicleError(
            "the car asks for its password, and there is nobody to ask here",
            next_step=f"--password-file FILE, or export {PASSWORD}; on the car: hotlap console --show-password",
        )
    return getpass.getpass("password of the car: ", stream=sys.stderr)


def _how(client: CarClient, args: argparse.Namespace) -> str:
    if args.insecure:
        return " (not looked at)"
    return " (met for the first time, and remembered)" if client.met else " (as before)"


def _verdict(done: dict[str, Any]) -> str:
    report = done["report"]
    lines = [f"model {done['sha256'][:12]} " + ("is on the car" if done["new"] else "was on the car already")]
    if "p99_ms" in report:
        budget = f", {report['budget_ms']:.0f} ms allowed" if "budget_ms" in report else ""
        lines.append(f"  one inference there: {report['p50_ms']:.2f} ms, p99 {report['p99_ms']:.2f} ms{budget}")
        lines.append(f"  golden vectors: within {report['golden_difference']:.1e}")
    if not done["activated"]:
        lines.append("next: choose it on the Models page, or flash it again with --activate")
    elif done["loaded"]:
        lines.append("it drives from now on" + (", on trial: with its speed capped at first" if done["trial"] else ""))
    else:
        lines.append(f"chosen, but not loaded: {done['pilot']}")
    return "\n".join(lines)


def _refusal(refused: CarSaidNo) -> str:
    lines = [f"the car refused ({refused.reason}): {refused}"]
    lines += [f"  {one.get('reason')}: {one.get('value')}; {one.get('cure')}" for one in refused.blocked]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"flash: {text}", file=sys.stderr, flush=True)
