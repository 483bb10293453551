"""The command `hotlap bridge`: find, info, monitor, flash, selftest and reset of the microcontroller.

Everything is imported when it is needed: the front door builds this parser for every command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vehicle.errors import VehicleError

if TYPE_CHECKING:
    from firmware_bridge.finder import Found
    from firmware_bridge.messages import Channel, Config, ConfigEcho, HelloReply, Telemetry
    from firmware_bridge.snapshot import Snapshot

AUTO = "auto"
MONITOR_S = 0.5  # between two lines
DURATION_S = 5.0  # of a monitor that answers in JSON, if nothing else was said
TELEMETRY_S = 1.0  # it comes 50 times a second
OLD_BAUD, OPTIBOOT_BAUD = 57_600, 115_200


class BridgeCommandError(VehicleError, OSError):
    """The bridge cannot be found, reached or programmed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``hotlap bridge``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    rows = {}
    for name, text in (
        ("find", "ask every serial port on USB whether a bridge is there"),
        ("info", "versions, configuration, state, supply and counters"),
        ("monitor", "what it does, until Ctrl-C"),
        ("flash", "write the firmware into it with avrdude"),
        ("selftest", "try what it promises; sends only neutral, but lift the wheels"),
        ("reset", "end an emergency stop; it is disarmed then"),
    ):
        rows[name] = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        rows[name].add_argument("--port", default=AUTO, metavar="PORT", help="serial port (default: found)")
        # SUPPRESS: what was given before the action's name must not be undone by the action's own default.
        rows[name].add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print exactly one JSON object on stdout"
        )
    rows["monitor"].add_argument(
        "--duration", dest="duration_s", type=_seconds, metavar="S", help="stop after S seconds"
    )
    flash = rows["flash"]
    flash.add_argument("--hex", type=Path, metavar="FILE", help="(default: of make -C firmware_bridge/firmware)")
    flash.add_argument(
        "--baud", type=int, choices=(OPTIBOOT_BAUD, OLD_BAUD), default=OPTIBOOT_BAUD,
        help="of the bootloader: 115200 Optiboot (default), 57600 an older Nano's, which needs replacing",
    )  # fmt: skip
    flash.add_argument(
        "--programmer", default="arduino", metavar="NAME", help="of avrdude: arduino (default), usbasp, stk500v2, ..."
    )


def bridge(args: argparse.Namespace) -> int:
    """Run ``hotlap bridge``: 0; 1 where find finds none or the self-test fails.

    Raises:
        BridgeCommandError: what the bridge room says, in its words.
    """
    actions: dict[str, Callable[[argparse.Namespace, bool], int]] = {
        "find": _find, "info": _info, "monitor": _monitor, "flash": _flash, "selftest": _selftest, "reset": _reset,
    }  # fmt: skip
    with _explained():
        return actions[args.action](args, bool(getattr(args, "json", False)))


# --- actions


def _find(args: argparse.Namespace, as_json: bool) -> int:
    from firmware_bridge.finder import find_bridges, usb_ports

    asked = usb_ports() if args.port == AUTO else [args.port]
    found = find_bridges(asked)
    bridges = [one for one in found if one.hello is not None]
    ports = [{"port": one.port, "bridge": _hello(one.hello), "error": one.error and one.error.what} for one in found]
    text = "\n".join(map(_found_text, found)) or "no serial port on USB\nnext: plug the board in; lsusb"
    if found and not bridges:
        text += "\nno bridge\nnext: hotlap bridge flash --port PORT"
    _emit(as_json, {"ports": ports, "bridges": [one.port for one in bridges]}, text)
    return 0 if bridges else 1


def _info(args: argparse.Namespace, as_json: bool) -> int:
    with _link(args.port) as link:
        link.wait(lambda seen: seen.telemetry is not None, TELEMETRY_S)
        seen = link.snapshot()
    _emit(as_json, _seen(seen), _info_text(seen))
    return 0


def _monitor(args: argparse.Namespace, as_json: bool) -> int:
    duration_s = args.duration_s or (DURATION_S if as_json else None)
    with _link(args.port) as link:
        begun_s = time.monotonic()
        frames, newest = 0, None
        next_s = begun_s
        with contextlib.suppress(KeyboardInterrupt):
            while duration_s is None or time.monotonic() - begun_s < duration_s:
                link.wait(lambda seen, last=newest: seen.telemetry is not last, MONITOR_S)
                seen = link.snapshot()
                frames += seen.telemetry is not newest and seen.telemetry is not None
                newest = seen.telemetry
                if not as_json and time.monotonic() >= next_s:
                    next_s += MONITOR_S
                    print(_monitor_line(seen), flush=True)
        seen = link.snapshot()
        lasted_s = time.monotonic() - begun_s
    if as_json:
        _emit(True, {**_seen(seen), "seconds": round(lasted_s, 3), "telemetry_hz": round(frames / lasted_s, 2)}, "")
    return 0


def _flash(args: argparse.Namespace, as_json: bool) -> int:
    from firmware_bridge.finder import contact
    from firmware_bridge.flash import SERIAL_PROGRAMMER, flash, port_to_flash, read_image

    image = read_image(args.hex)
    if args.programmer != SERIAL_PROGRAMMER:  # through the ISP pins: the board's own port is not used
        flash("" if args.port == AUTO else args.port, image, programmer=args.programmer)
        text = f"{image.size} bytes written and verified\nnext: hotlap bridge find"
        _emit(as_json, {"port": None, "hex": str(image.path), "bytes": image.size, "bridge": None}, text)
        return 0
    port = port_to_flash(args.port)
    flash(port, image, baud=args.baud)
    met = contact(port)
    met.wire.close()
    text = f"{port}: {image.size} bytes written and verified; firmware {_version(met.hello)} answers"
    if args.baud == OLD_BAUD:
        text += "\nthis bootloader does not let a watchdog reset through: replace it (docs/bridge.md)"
    result = {"port": port, "hex": str(image.path), "bytes": image.size, "bridge": _hello(met.hello)}
    _emit(as_json, result, text)
    return 0


def _selftest(args: argparse.Namespace, as_json: bool) -> int:
    from firmware_bridge.selftest import selftest

    with _link(args.port) as link:
        checks = selftest(link)
        port = link.snapshot().port
    ok = all(check.ok for check in checks)
    lines = [f"{'ok' if check.ok else 'FAIL':4}  {check.name:28}  {check.measured}" for check in checks]
    lines += [f"cure of {check.name}: {check.cure}" for check in checks if check.cure]
    lines.append(f"{port}: {'every promise is kept' if ok else 'do not drive with this board'}")
    _emit(as_json, {"port": port, "ok": ok, "checks": [vars(check) for check in checks]}, "\n".join(lines))
    return 0 if ok else 1


def _reset(args: argparse.Namespace, as_json: bool) -> int:
    from firmware_bridge.messages import Reset, State

    with _link(args.port) as link:
        link.send(Reset())
        released = (State.DISARMED, State.UNCONFIGURED)
        done = link.wait(lambda seen: seen.telemetry is not None and seen.telemetry.state in released, TELEMETRY_S)
        seen = link.snapshot()
    if not done:
        state = "silent" if seen.telemetry is None else seen.telemetry.state.name.lower()
        raise BridgeCommandError(
            f"{seen.port}: still {state}",
            cause="the radio drives, which a reset does not end" if state == "override" else "the message was lost",
            next_step="flip the transmitter's switch" if state == "override" else "hotlap bridge reset",
        )
    assert seen.telemetry is not None
    state = seen.telemetry.state.name.lower()
    _emit(as_json, {"port": seen.port, "state": state}, f"{seen.port}: {state}")
    return 0


# --- helpers


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the bridge room into one that the front door prints."""
    from firmware_bridge.errors import BridgeError

    try:
        yield
    except BridgeError as error:
        raise BridgeCommandError(error.what, cause=error.cause, next_step=error.next_step) from error


@contextlib.contextmanager
def _link(port: str) -> Iterator[Any]:
    from firmware_bridge.link import open_link

    link = open_link(port)
    try:
        yield link
    finally:
        link.close()


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _emit(as_json: bool, result: Mapping[str, Any], text: str) -> None:
    print(json.dumps(result) if as_json else text, flush=True)


def _version(hello: HelloReply) -> str:
    return ".".join(map(str, hello.firmware))


def _hello(hello: HelloReply | None) -> dict[str, Any] | None:
    from firmware_bridge.messages import reset_words

    if hello is None:
        return None
    return {
        "protocol": hello.protocol,
        "firmware": _version(hello),
        "features": hello.features,
        "reset_cause": reset_words(hello.reset_cause),
        "timeout_ms": hello.timeout_ms,
        "frame_us": hello.frame_us,
    }


def _config(echo: ConfigEcho | None) -> dict[str, Any] | None:
    if echo is None or echo.config is None:
        return None
    config: Config = echo.config
    channels = {"steering": vars(config.steering), "throttle": vars(config.throttle)}
    return {**{name: dict(channel) for name, channel in channels.items()}, "radio": config.radio}


def _telemetry(telemetry: Telemetry | None) -> dict[str, Any] | None:
    if telemetry is None:
        return None
    return {
        "uptime_s": telemetry.uptime_ms / 1000.0,
        "state": telemetry.state.name.lower(),
        "neutral_frames": telemetry.neutral_frames,
        "last_sequence": telemetry.last_sequence,
        "command_age_ms": telemetry.age_ms,
        "steering_us": telemetry.steering_us,
        "throttle_us": telemetry.throttle_us,
        "counters": dict(vars(telemetry.counters)),
        "radio": telemetry.radio.name.lower(),
        "supply_v": telemetry.supply_mv / 1000.0 if telemetry.supply_mv else None,
    }


def _seen(seen: Snapshot) -> dict[str, Any]:
    return {
        "port": seen.port,
        "link": seen.state.value,
        "bridge": _hello(seen.hello),
        "config": _config(seen.echo),
        "telemetry": _telemetry(seen.telemetry),
        "sessions": seen.sessions,
        "resets": seen.resets,
        "error": seen.error.what if seen.error is not None else None,
    }


# --- for people


def _found_text(found: Found) -> str:
    if found.hello is not None:
        return f"{found.port}: bridge, firmware {_version(found.hello)}, protocol {found.hello.protocol}"
    return str(found.error.what) if found.error is not None else f"{found.port}: not asked"


def _info_text(seen: Snapshot) -> str:
    from firmware_bridge.messages import reset_words

    hello, told = seen.hello, seen.telemetry
    if hello is None or told is None:
        return f"{seen.port}: the link is {seen.state.value}, there is no telemetry"
    config = seen.echo.config if seen.echo is not None else None
    rows = [
        ("port", seen.port),
        ("firmware", f"{_version(hello)}, protocol {hello.protocol}, neutral after {hello.timeout_ms} ms of silence"),
        ("started by", f"{reset_words(hello.reset_cause)}, {told.uptime_ms / 1000:.1f} s ago"),
        ("state", told.state.name.lower()),
        ("supply", f"{told.supply_mv / 1000:.2f} V" if told.supply_mv else "not measured"),
        ("steering", "not configured" if config is None else _channel(config.steering)),
        ("throttle", "not configured" if config is None else _channel(config.throttle)),
        ("radio", told.radio.name.lower()),
        ("counters", ", ".join(f"{name} {count}" for name, count in vars(told.counters).items())),
    ]
    return "\n".join(f"{name:10}  {value}" for name, value in rows)


def _channel(channel: Channel) -> str:
    slew = f", at most {channel.slew_us:g} us a frame" if channel.slew_us else ""
    return f"{channel.min_us:g} / {channel.neutral_us:g} / {channel.max_us:g} us (min, neutral, max){slew}"


def _monitor_line(seen: Snapshot) -> str:
    told = seen.telemetry
    if told is None:
        return f"link {seen.state.value}: {seen.error.what if seen.error is not None else 'no telemetry yet'}"
    age = "-" if told.age_ms is None else f"{told.age_ms} ms"
    risen = told.counters.since(seen.baseline or told.counters)
    risen.pop("good", None)
    said = ", ".join(f"{name} +{count}" for name, count in risen.items())
    return (
        f"{told.uptime_ms / 1000:9.2f} s  {told.state.name.lower():12}  steering {told.steering_us:7.1f} us  "
        f"throttle {told.throttle_us:7.1f} us  command {age:>8} old  {told.supply_mv / 1000:.2f} V  {said}".rstrip()
    )
