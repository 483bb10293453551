"""The local links between the processes: where their sockets are, and one request with one answer.

Every socket is a file in one folder, the runtime folder, of which only its owner (on the car: the group hotlap) may
look inside. Whoever may connect may drive the car, so a folder that others could have prepared is refused.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from vehicle.errors import ConfigError, GateError

ENVIRONMENT = "HOTLAP_RUNTIME"
SYSTEM = Path("/run/hotlap")  # systemd's RuntimeDirectory=hotlap
MAX_PATH_BYTES = 107  # of sockaddr_un, less its closing zero
MAX_ANSWER_BYTES = 1 << 20
_RECONNECT_MS = 20  # a process that is just starting is found soon after it binds
CONSOLE_FACTS = "console.json"  # in the runtime folder: where the console is, which writes it


def endpoint(runtime: Path, name: str) -> str:
    """The ZeroMQ address of a socket, for instance ``ipc:///run/hotlap/gate.request``.

    Raises:
        ConfigError: the path is longer than the operating system allows for a socket.
    """
    path = os.fspath(runtime / name)
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise ConfigError(
            f"the path of the socket {path} has {size} bytes (allowed: {MAX_PATH_BYTES})",
            cause="the runtime folder is nested too deep: the system keeps a socket's path in 108 bytes",
            next_step=f"choose a short one: export {ENVIRONMENT}=/tmp/car",
        )
    return f"ipc://{path}"


def runtime_dir(create: bool = False) -> Path:
    """The folder of the sockets: $HOTLAP_RUNTIME, else /run/hotlap where we may use it, else a private one.

    The private one is ``hotlap`` in $XDG_RUNTIME_DIR, else ``/tmp/hotlap-UID``.

    Args:
        create: make it where it does not exist, mode 0700. Without it, the folder may not exist.

    Raises:
        ConfigError: it cannot be made, or the private one is not ours alone.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        return private_dir(Path(named).expanduser(), create, shared=True)
    if os.access(SYSTEM, os.W_OK | os.X_OK) or (not create and (SYSTEM / "gate.request").exists()):
        return SYSTEM
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.access(session, os.W_OK | os.X_OK):
        return private_dir(Path(session) / "hotlap", create)
    return private_dir(Path(f"/tmp/hotlap-{os.getuid()}"), create)


def private_dir(folder: Path, create: bool, shared: bool = False) -> Path:
    """The folder, made with mode 0700 where it is missing and `create` says so.

    Args:
        shared: somebody chose it by name, so it may belong to another user or to a group; it must only be a folder that
            not everybody may write to.

    Raises:
        ConfigError: it cannot be made, is no folder, or others could put their own sockets into it.
    """
    try:
        if create:
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat() if shared else folder.lstat()
    except FileNotFoundError:
        if not create:
            return folder
        raise ConfigError(
            f"the runtime folder {folder} cannot be made: {folder.parent} does not exist",
            next_step=f"mkdir -p {folder.parent}",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the runtime folder {folder} cannot be used: {error.strerror or error}",
            next_step=f"choose another one: export {ENVIRONMENT}=/tmp/car",
        ) from error
    fault = _dir_fault(found, shared)
    if fault:
        raise ConfigError(
            f"the runtime folder {folder} {fault}",
            cause="somebody else made it; through sockets in it they could drive the car, or hide a stop from it",
            next_step=f"ls -ld {folder}; remove it, or export {ENVIRONMENT}=FOLDER",
        )
    return folder


def _dir_fault(found: os.stat_result, shared: bool) -> str:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if shared:
        return f"may be written to by everybody (mode {mode:04o})" if mode & 0o002 else ""
    if found.st_uid != os.getuid():
        return f"belongs to user {found.st_uid}, not to user {os.getuid()}"
    return f"is open to others (mode {mode:04o}, expected 0700)" if mode & 0o077 else ""


def request(runtime: Path, socket: str, message: Mapping[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
    """Send one JSON object and wait for the one that answers it; each call has a connection of its own.

    Args:
        socket: "gate.request" or "pilot.request".
        timeout_s: how long to wait, for a process that is just starting too.

    Raises:
        GateError: nobody answered (reason "no_answer"), or what answered is no JSON object ("bad_answer").
        ConfigError: the path of the socket is too long.
    """
    address = endpoint(runtime, socket)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a process that does not run: it fails instead
        dealer.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        dealer.setsockopt(zmq.MAXMSGSIZE, MAX_ANSWER_BYTES)
        deadline_s = time.monotonic() + timeout_s
        dealer.connect(address)
        if not dealer.poll(max(0, int(1e3 * timeout_s)), zmq.POLLOUT):
            raise _no_answer(runtime, socket, timeout_s)
        dealer.send(json.dumps(message).encode())
        if not dealer.poll(max(0, int(1e3 * (deadline_s - time.monotonic())))):
            raise _no_answer(runtime, socket, timeout_s)
        answer = dealer.recv_multipart()[-1]
    finally:
        context.destroy(linger=0)
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise GateError(f"{address} answered what is no JSON: {answer[:80]!r}", reason="bad_answer") from error
    if not isinstance(found, dict):
        raise GateError(f"{address} answered JSON that is no object: {answer[:80]!r}", reason="bad_answer")
    return found


def json_object(data: bytes) -> dict[str, Any] | None:
    """A JSON object that came over a socket, or None for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def bind_socket(socket: zmq.Socket[bytes], runtime: Path, name: str) -> None:
    """Bind a socket to its place in the runtime folder.

    Raises:
        ConfigError: the path is too long, or the folder is missing or not ours to write to.
    """
    address = endpoint(runtime, name)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise ConfigError(
            f"{address} cannot be bound: {error}",
            cause="the runtime folder does not exist, or this user may not write there",
            next_step=f"ls -ld {runtime}",
        ) from error


def _no_answer(runtime: Path, socket: str, timeout_s: float) -> GateError:
    path, name = runtime / socket, socket.partition(".")[0]
    if not path.exists():
        cause = f"the {name} is not running (there is no {path})"
        next_step = f"hotlap drive, or on a car: systemctl status hotlap-{name}"
    elif not os.access(path, os.W_OK):
        cause, next_step = "this user may not use its socket", "sudo usermod -aG hotlap $USER, then log in again"
    else:
        cause = f"the {name} has ended, or hangs"
        next_step = f"hotlap drive, or on a car: systemctl restart hotlap-{name}"
    return GateError(
        f"the {name} gave no answer within {timeout_s:g} s", reason="no_answer", cause=cause, next_step=next_step
    )


def console_url(runtime: Path) -> str | None:
    """Where the console of this car is; None where none runs. For ``hotlap status --json``."""
    try:
        found = json.loads((runtime / CONSOLE_FACTS).read_text())
        os.kill(int(found["pid"]), 0)
        return str(found["url"])
    except PermissionError:  # it runs, as another user
        return str(found["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
