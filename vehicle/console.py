"""The console process: pages and APIs over HTTPS, and a redirection from HTTP. ``python -m vehicle.console``.

It may be killed at any time: the gate takes its leases back by itself, and an autonomous car drives on, or stops where
car.toml says so (``drive.without_console``). Exit status: 0 after SIGTERM, SIGINT or SIGHUP; 1 where a server died; 2
for what is wrong with configuration, ports or certificate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from calibration.app import ConsoleSettings, create_app
from calibration.auth import PasswordStore
from calibration.car_link import CarRefused
from calibration.console import EXTENSION, MAX_EVENT_STREAMS, MAX_VIEWERS, Console
from calibration.durable import write_durably
from calibration.errors import HotlapError
from calibration.server import ConsoleServer, ServerError, redirecting
from calibration.tls import ensure_certificate, fingerprint, server_context
from vehicle.car_config import CarConfig, load_car_config, this_car
from vehicle.console_facts import addresses
from vehicle.console_link import ConsoleLink
from vehicle.links import CONSOLE_FACTS, private_dir, runtime_dir
from vehicle.mdns import Announcement, host_name
from vehicle.notify import notify, watchdog_interval_s
from vehicle.options import console_options
from vehicle.parent import ENVIRONMENT, end_with_parent
from vehicle.realtime import go_last

WORKERS = 12  # for requests that are answered at once, beside the endless ones
PORTS = ((443, 80), (8443, 8080))
NICE = 5  # what drives the car comes first, but a stop button must not wait for everything else; a car's unit has 10
_BEAT_S = 0.5
_LOOK_AT_ADDRESSES_S = 10.0
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def console_folder(config: CarConfig) -> Path:
    """Password, certificate, uploads and settings of the console."""
    return config.state_path() / "console"


class ConsoleProcess:
    """Both servers of one console, the car behind them, and its name on the network.

    Args:
        port, http_port: None: 443 and 80 where this process may, else 8443 and 8080. 0 for HTTPS: any port; 0 for
            HTTP: no redirection.

    Raises:
        HotlapError: a port is taken, certificate or configuration are wrong.
        OSError: the folder of the console cannot be written.
    """

    def __init__(
        self,
        config: CarConfig,
        runtime: Path,
        *,
        host: str = "",
        port: int | None = None,
        http_port: int | None = None,
        announce: bool = True,
        car_toml: Path | None = None,
    ) -> None:
        self._runtime = runtime
        folder = console_folder(config)
        self.first_password = PasswordStore(folder).ensure()
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self.link = ConsoleLink(config, runtime, folder, _version(), car_toml=car_toml)
            opened.callback(self.link.close)
            name = str(self.link.facts()["name"])
            local = f"{host_name(name)}.local"
            names = [local, socket.gethostname(), "localhost", "127.0.0.1", *addresses()]
            certificate, key = ensure_certificate(folder / "tls", names)
            tls = server_context(certificate, key)
            app = create_app(self.link, ConsoleSettings(folder, version=_version()))
            self.console: Console = app.extensions[EXTENSION]
            threads = WORKERS + MAX_VIEWERS + MAX_EVENT_STREAMS
            host = host or _every_address()

            for last, https_port, beside in _ports(port):
                redirection = beside if http_port is None else http_port
                try:
                    self.https = ConsoleServer(app, host, https_port, tls=tls, threads=threads)
                    break
                except ServerError:
                    if last:
                        raise
            opened.callback(self.https.close)
            self.http: ConsoleServer | None = None
            if redirection:
                try:
                    application = redirecting(self.https.port)
                    self.http = ConsoleServer(application, host, redirection, tls=None, threads=2)
                    opened.callback(self.http.close)
                except ServerError:
                    if http_port is not None:  # else a convenience: whoever is told the address needs none
                        raise
            # First of all to be let go of: whoever streams ends by it, and a worker is not waited for.
            opened.callback(self.console.stopping.set)
            self.fingerprint = fingerprint(certificate)
            suffix = "" if self.https.port == 443 else f":{self.https.port}"
            bound = host not in ("::", "0.0.0.0")
            self.urls = [f"https://{at}{suffix}" for at in ([host] if bound else [*addresses(), "localhost"])]
            self.announcement: Announcement | None = None
            self._name, self._announce = name, announce
            self.local_url = f"https://{local}{suffix}"
            self._closing = opened.pop_all()
        self._servers = [server for server in (self.https, self.http) if server is not None]

    def run(self, ending: threading.Event) -> int:
        """Serve until `ending` is set.

        Returns:
            the exit status: 1 where a server has died.
        """
        self.https.run("console-https")
        if self.http is not None:
            self.http.run("console-http")
        self._write_facts()
        notify(f"READY=1\nSTATUS={self.urls[0]}")
        watchdog_s, fed_s, looked_s = watchdog_interval_s(), 0.0, float("-inf")
        known: list[str] = []
        while not ending.wait(_BEAT_S):
            now_s = time.monotonic()
            if not all(server.alive() for server in self._servers):
                print("console: a server has died", file=sys.stderr, flush=True)
                return 1
            for server in self._servers:
                server.drop_slow()
            with contextlib.suppress(CarRefused):
                self.link.ask({"op": "console"})  # a sign of life; it renews no lease and moves nothing
            if watchdog_s is not None and now_s - fed_s >= watchdog_s:
                fed_s = now_s
                notify("WATCHDOG=1")
            if self._announce and now_s - looked_s >= _LOOK_AT_ADDRESSES_S:
                looked_s, known = now_s, self._announced(known)
        return 0

    def _announced(self, known: list[str]) -> list[str]:
        """Announce the name, again where address or name have changed: Wi-Fi may come after the console."""
        now = [str(self.link.facts()["name"]), *addresses()]
        if now != known:
            if self.announcement is not None:
                self.announcement.close()
            self.announcement = Announcement(now[0], self.https.port, now[1:])
            if self.announcement.error:
                print(f"console: no name on the network: {self.announcement.error}", file=sys.stderr, flush=True)
        return now

    def _write_facts(self) -> None:
        url = self.urls[0]
        facts = {"pid": os.getpid(), "url": url, "urls": self.urls, "name": self.local_url, "sha256": self.fingerprint}
        with contextlib.suppress(OSError):
            write_durably(self._runtime / CONSOLE_FACTS, json.dumps(facts).encode(), mode=0o640)

    def close(self) -> None:
        """End everything; the gate takes back what browsers held."""
        if self.announcement is not None:
            self.announcement.close()
        self._closing.close()
        with contextlib.suppress(OSError):
            (self._runtime / CONSOLE_FACTS).unlink(missing_ok=True)


def _ports(port: int | None) -> list[tuple[bool, int, int]]:
    """(whether it is the last, HTTPS port, HTTP port beside it or 0) to try in order; low ones only where allowed.

    For `hotlap drive`, which says the address, any port is better than none: another simulated car may have these.
    """
    if port is not None:
        return [(True, port, 0)]
    pairs: tuple[tuple[int, int], ...] = PORTS if _may_open_low_ports() else PORTS[1:]
    pairs += ((0, 0),) if os.environ.get(ENVIRONMENT) == "1" else ()
    return [(pair == pairs[-1], *pair) for pair in pairs]


def _may_open_low_ports() -> bool:
    """Root, or a service that systemd has given CAP_NET_BIND_SERVICE, number 10."""
    if os.geteuid() == 0:
        return True
    with contextlib.suppress(OSError, ValueError, IndexError):
        (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("CapEff:")]
        return bool(int(line.split()[1], 16) >> 10 & 1)
    return False


def _every_address() -> str:
    """IPv6 and IPv4 in one socket, where the kernel has IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::", 0))
        return "::"
    return "0.0.0.0"


def _version() -> str:
    try:
        return version("hotlap")
    except PackageNotFoundError:
        return "unknown"


# --- the command line


def console_command(args: argparse.Namespace) -> int:
    """``hotlap console``: serve, or print a password.

    Raises:
        HotlapError: see `ConsoleProcess`.
    """
    config = load_car_config(this_car(args.config))
    store = PasswordStore(console_folder(config))
    as_json = bool(getattr(args, "json", False))
    try:
        if args.show_password or args.reset_password:
            return _tell_password(store, args.reset_password, as_json)
        runtime = runtime_dir(create=True) if args.runtime is None else private_dir(args.runtime, True, shared=True)
        return _serve(config, runtime, args, as_json)
    except OSError as error:
        if isinstance(error, HotlapError):
            raise
        raise HotlapError(
            f"the console's files cannot be used: {error}",
            cause="they belong to another user, or the disk is full",
            next_step=f"ls -l {console_folder(config)}; on a car: sudo -u hotlap hotlap console ...",
        ) from error


def _tell_password(store: PasswordStore, reset: bool, as_json: bool) -> int:
    password = store.reset() if reset else (store.ensure() or store.first())
    if password is None:
        raise HotlapError(
            "the password was changed, and only its hash is kept",
            cause="somebody chose another one on the Settings page",
            next_step="hotlap console --reset-password makes a new one",
        )
    print(json.dumps({"password": password}) if as_json else password, flush=True)
    return 0


def _serve(config: CarConfig, runtime: Path, args: argparse.Namespace, as_json: bool) -> int:
    ending = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ending.set()

    before = {number: signal.signal(number, end) for number in ENDING}
    end_with_parent()
    try:
        process = ConsoleProcess(
            config, runtime, host=args.host, port=args.port, http_port=args.http_port, announce=not args.no_mdns,
            car_toml=this_car(args.config),
        )  # fmt: skip
        try:
            _greet(process, as_json)
            go_last(NICE)  # not before: `hotlap drive` waits only so long for a console to start
            return process.run(ending)
        finally:
            notify("STOPPING=1")
            process.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(process: ConsoleProcess, as_json: bool) -> None:
    # Not into systemd's journal, which others read: `hotlap console --show-password` says it.
    password = None if "JOURNAL_STREAM" in os.environ else process.first_password
    if as_json:
        told = {"url": process.urls[0], "urls": process.urls, "sha256": process.fingerprint, "password": password}
        print(json.dumps(told), flush=True)
        return
    print(f"console: {', '.join(process.urls)} (or {process.local_url})")
    print(f"console: its certificate's SHA-256 is {process.fingerprint}")
    if password is not None:
        print(f"console: the password is {password}  (again: hotlap console --show-password)")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console; the exit status is at the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m vehicle.console", description="The car's web page and its APIs.")
    console_options(parser)
    try:
        return console_command(parser.parse_args(argv))
    except HotlapError as error:
        print(f"console: {error}", file=sys.stderr, flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
