"""Messages to bytes and back: the fixed structs of ``docs/bridge-protocol.md``. Pure."""

from __future__ import annotations

import struct
from typing import Any

from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Decoder, frame
from firmware_bridge.messages import (
    Channel,
    Command,
    Config,
    ConfigEcho,
    Counters,
    Disarm,
    Estop,
    Hello,
    HelloReply,
    Radio,
    Reset,
    Result,
    State,
    Status,
    Telemetry,
    ToBridge,
    ToHost,
    half_us,
)

BAUD = 250_000
LONGEST_TO_BRIDGE, LONGEST_TO_HOST = 20, 42  # bytes of a decoded frame, CRC included
NO_AGE = 0xFFFF
RADIO_CONNECTED = 1  # flag of a CONFIG

_HELLO, _CONFIG, _COMMAND = struct.Struct("<BBH"), struct.Struct("<BB8H"), struct.Struct("<BHHH")
_REPLY, _TELEMETRY = struct.Struct("<BBBBBHBBHHH"), struct.Struct("<BIBBBHHHHHHHHHHHHBBHHH")
_ECHO = struct.Struct("<BBBB8H")
_BARE: dict[int, ToBridge] = {0x04: Estop(), 0x05: Reset(), 0x06: Disarm()}
_SIZES = {
    0x01: _HELLO, 0x02: _CONFIG, 0x03: _COMMAND, 0x81: _REPLY, 0x82: _TELEMETRY, 0x83: _ECHO,
    **dict.fromkeys(_BARE, struct.Struct("<B")),
}  # fmt: skip


def encode(message: ToBridge | ToHost) -> bytes:
    """The bytes on the wire, delimiters included.

    Raises:
        ProtocolError: a value does not fit, or the firmware would refuse the configuration.
    """
    try:
        return frame(_payload(message))
    except struct.error as error:
        raise ProtocolError(f"{message} does not fit into the protocol: {error}") from error


def parse(payload: bytes) -> ToBridge | ToHost:
    """The message of a payload.

    Raises:
        ProtocolError: unknown type, not the type's length, or a state that this version does not know.
    """
    form = _SIZES.get(payload[0]) if payload else None
    if form is None or len(payload) != form.size:
        raise ProtocolError(f"no message: {payload[:1].hex() or 'empty'}, {len(payload)} bytes")
    kind, *values = form.unpack(payload)
    try:
        return _BARE[kind] if kind in _BARE else _PARSERS[kind](values)
    except ValueError as error:  # of an enum
        raise ProtocolError(f"message {kind:#04x}: {error}") from error


def parse_to_host(payload: bytes) -> ToHost:
    """`parse`, for what the bridge sends.

    Raises:
        ProtocolError: as `parse`, and for a message of the other direction.
    """
    message = parse(payload)
    if isinstance(message, (HelloReply, Telemetry, ConfigEcho)):
        return message
    raise ProtocolError(f"{message} does not come from a bridge: the line echoes")


def parse_to_bridge(payload: bytes) -> ToBridge:
    """`parse`, for what the host sends.

    Raises:
        ProtocolError: as `parse`, and for a message of the other direction.
    """
    message = parse(payload)
    if isinstance(message, (HelloReply, Telemetry, ConfigEcho)):
        raise ProtocolError(f"{message} does not come from a host")
    return message


def host_decoder() -> Decoder[ToHost]:
    """The decoder of what comes from the bridge."""
    return Decoder(parse_to_host, LONGEST_TO_HOST)


def bridge_decoder() -> Decoder[ToBridge]:
    """The decoder of what comes from the host, as the firmware has it."""
    return Decoder(parse_to_bridge, LONGEST_TO_BRIDGE)


# --- forms


def _payload(message: ToBridge | ToHost) -> bytes:
    match message:
        case Hello():
            return _HELLO.pack(0x01, message.protocol, message.nonce)
        case Config():
            message.steering.check()
            message.throttle.check()
            return _CONFIG.pack(0x02, *_config_values(message))
        case Command():
            return _COMMAND.pack(0x03, message.sequence, half_us(message.steering_us), half_us(message.throttle_us))
        case Estop():
            return b"\x04"
        case Reset():
            return b"\x05"
        case Disarm():
            return b"\x06"
        case HelloReply():
            return _REPLY.pack(
                0x81, message.protocol, *message.firmware, message.features, message.reset_cause, message.state,
                message.nonce, message.timeout_ms, message.frame_us,
            )  # fmt: skip
        case ConfigEcho():
            values = [0] * 9 if message.config is None else _config_values(message.config)
            return _ECHO.pack(0x83, message.result, message.stored, *values)
        case Telemetry():
            return _TELEMETRY.pack(
                0x82, message.uptime_ms, message.state, message.status, message.neutral_frames, message.last_sequence,
                NO_AGE if message.age_ms is None else message.age_ms,
                half_us(message.steering_us), half_us(message.throttle_us), *vars(message.counters).values(),
                message.reset_cause, message.radio, half_us(message.radio_steering_us),
                half_us(message.radio_throttle_us), message.supply_mv,
            )  # fmt: skip


def _config_values(config: Config) -> list[int]:
    steering, throttle = config.steering, config.throttle
    pulses = (
        steering.neutral_us, steering.min_us, steering.max_us, throttle.neutral_us, throttle.min_us, throttle.max_us,
        steering.slew_us, throttle.slew_us,
    )  # fmt: skip
    return [RADIO_CONNECTED if config.radio else 0, *(half_us(us) for us in pulses)]


def _config(flags: int, halves: list[int]) -> Config:
    neutral, low, high, throttle, throttle_low, throttle_high, slew, throttle_slew = (half / 2.0 for half in halves)
    return Config(
        Channel(neutral, low, high, slew),
        Channel(throttle, throttle_low, throttle_high, throttle_slew),
        bool(flags & RADIO_CONNECTED),
    )


def _parse_reply(values: list[Any]) -> HelloReply:
    protocol, major, minor, patch, features, reset_cause, state, *rest = values
    return HelloReply(protocol, (major, minor, patch), features, reset_cause, State(state), *rest)


def _parse_echo(values: list[Any]) -> ConfigEcho:
    result, stored, flags, *halves = values
    return ConfigEcho(Result(result), stored, _config(flags, halves) if any(halves) else None)


def _parse_telemetry(values: list[Any]) -> Telemetry:
    uptime_ms, state, status, neutral_frames, last_sequence, age_ms, steering, throttle, *rest = values
    counters, (reset_cause, radio, radio_steering, radio_throttle, supply_mv) = rest[:8], rest[8:]
    return Telemetry(
        uptime_ms, State(state), Status(status), neutral_frames, last_sequence, None if age_ms == NO_AGE else age_ms,
        steering / 2.0, throttle / 2.0, Counters(*counters), reset_cause, Radio(radio), radio_steering / 2.0,
        radio_throttle / 2.0, supply_mv,
    )  # fmt: skip


_PARSERS: dict[int, Any] = {
    0x01: lambda values: Hello(protocol=values[0], nonce=values[1]),
    0x02: lambda values: _config(values[0], values[1:]),
    0x03: lambda values: Command(values[0], values[1] / 2.0, values[2] / 2.0),
    0x81: _parse_reply,
    0x82: _parse_telemetry,
    0x83: _parse_echo,
}
