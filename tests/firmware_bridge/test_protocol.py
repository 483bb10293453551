"""The structs: every example of the protocol's page, every message there and back, everything else refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import frame
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
    reset_words,
)
from firmware_bridge.protocol import bridge_decoder, encode, host_decoder, parse, parse_to_bridge, parse_to_host

CONFIG = Config(Channel.of(1450.0, 1200.0, 1700.0), Channel.of(1446.0, 1603.5, 1311.0, 30.0))
STATUS = Status.SESSION | Status.CONFIGURED | Status.STORED | Status.ALIVE
EXAMPLES: dict[str, ToBridge | ToHost] = {
    "HELLO, nonce": Hello(0x1234),
    "CONFIG, steering": CONFIG,
    "COMMAND 256": Command(256, 1450.0, 1446.0),
    "ESTOP": Estop(),
    "RESET": Reset(),
    "DISARM": Disarm(),
    "HELLO reply": HelloReply(1, (1, 0, 0), 7, 2, State.DISARMED, 0x1234, 80, 20000),
    "CONFIG echo": ConfigEcho(Result.IN_FORCE, 1, CONFIG),
    "TELEMETRY": Telemetry(
        61000, State.ARMED, STATUS, 5, 256, 12, 1450.0, 1446.0, Counters(good=300), 2, Radio.OFF, 0.0, 0.0, 4980
    ),
}

words, bytes_ = st.integers(0, 0xFFFF), st.integers(0, 0xFF)
halves = st.integers(1000, 5000).map(lambda half: half / 2.0)
any_halves = st.integers(0, 65534).map(lambda half: half / 2.0)


@st.composite
def channels(draw: st.DrawFn) -> Channel:
    low_us, neutral_us, high_us = sorted(draw(st.lists(halves, min_size=3, max_size=3)))
    if low_us == high_us:
        low_us, high_us = (low_us, high_us + 0.5) if high_us < 2500.0 else (low_us - 0.5, high_us)
    return Channel.of(neutral_us, low_us, high_us, draw(any_halves))


configs = st.builds(Config, channels(), channels(), st.booleans())
to_bridge = st.one_of(
    st.builds(Hello, words, bytes_), configs, st.builds(Command, words, any_halves, any_halves),
    st.sampled_from([Estop(), Reset(), Disarm()]),
)  # fmt: skip
to_host = st.one_of(
    st.builds(
        HelloReply, bytes_, st.tuples(bytes_, bytes_, bytes_), words, bytes_, st.sampled_from(State), *[words] * 3
    ),
    st.builds(ConfigEcho, st.sampled_from(Result), bytes_, st.none() | configs),
    st.builds(
        Telemetry, st.integers(0, 2**32 - 1), st.sampled_from(State), st.integers(0, 31).map(Status), bytes_, words,
        st.none() | st.integers(0, 65534), any_halves, any_halves, st.builds(Counters, *[words] * 8), bytes_,
        st.sampled_from(Radio), any_halves, any_halves, words,
    ),
)  # fmt: skip


def test_every_example_of_the_protocol_page(root: Path) -> None:
    page = (root / "docs" / "bridge-protocol.md").read_text()
    rows = re.findall(r"^\| ([A-Z].*) \| `((?:[0-9a-f]{2} )+[0-9a-f]{2})` \|$", page, flags=re.MULTILINE)
    assert len(rows) == len(EXAMPLES)
    for text, digits in rows:
        (message,) = [one for name, one in EXAMPLES.items() if text.startswith(name) and
                      not (name == "CONFIG echo") ^ text.startswith("CONFIG echo")]  # fmt: skip
        assert encode(message) == bytes.fromhex(digits), text
        decoder = host_decoder() if isinstance(message, (HelloReply, ConfigEcho, Telemetry)) else bridge_decoder()
        assert decoder.feed(bytes.fromhex(digits)) == [message], text


@given(to_bridge)
def test_to_the_bridge_and_back(message: ToBridge) -> None:
    assert bridge_decoder().feed(encode(message)) == [message]


@given(to_host)
def test_to_the_host_and_back(message: ToHost) -> None:
    assert host_decoder().feed(encode(message)) == [message]


@given(st.one_of(to_bridge, to_host))
def test_a_message_of_the_other_direction_is_a_frame_error(message: ToBridge | ToHost) -> None:
    wrong = bridge_decoder() if isinstance(message, (HelloReply, ConfigEcho, Telemetry)) else host_decoder()
    assert wrong.feed(encode(message)) == []
    assert wrong.counters.good == 0 and wrong.counters.frame_errors == 1


@given(st.binary(max_size=45))
def test_any_payload_is_a_message_or_a_protocol_error(payload: bytes) -> None:
    for parser in (parse, parse_to_bridge, parse_to_host):
        try:
            message = parser(payload)
        except ProtocolError:
            continue
        if not isinstance(message, (Config, ConfigEcho)):  # whose values are the firmware's to judge
            assert encode(message) == frame(payload)


@pytest.mark.parametrize("at", [5, 33])  # state, radio_state
def test_a_state_that_this_version_does_not_know_is_refused(at: int) -> None:
    payload = bytearray(_payload(EXAMPLES["TELEMETRY"]))
    payload[at] = 99
    with pytest.raises(ProtocolError, match="0x82"):
        parse(bytes(payload))


@pytest.mark.parametrize("payload", [b"", b"\x07", b"\x01\x01\x01", bytes(8), b"\x82" * 39])
def test_unknown_types_and_lengths_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="no message"):
        parse(payload)


@pytest.mark.parametrize(("us", "half"), [(1446.0, 2892), (1446.25, 2893), (1446.24, 2892), (0.0, 0), (1603.5, 3207)])
def test_pulses_are_rounded_to_half_microseconds(us: float, half: int) -> None:
    assert half_us(us) == half


@pytest.mark.parametrize("us", [float("nan"), float("inf"), -0.5, 40000.0])
def test_what_is_no_pulse_is_refused(us: float) -> None:
    with pytest.raises(ProtocolError):
        encode(Command(1, us, 1446.0))
    with pytest.raises(ProtocolError):
        encode(Command(1, 1450.0, us))


@pytest.mark.parametrize(
    ("neutral_us", "one_us", "other_us"),
    [(1446.0, 1446.0, 1446.0), (1300.0, 1311.0, 1603.5), (1604.0, 1311.0, 1603.5), (1446.0, 499.0, 1600.0),
     (1446.0, 1311.0, 2500.5)],
)  # fmt: skip
def test_a_range_that_the_firmware_refuses_is_never_sent(neutral_us: float, one_us: float, other_us: float) -> None:
    with pytest.raises(ProtocolError, match="no range of pulses"):
        Channel.of(neutral_us, one_us, other_us)
    low_us, high_us = sorted((one_us, other_us))
    with pytest.raises(ProtocolError):
        encode(Config(Channel(neutral_us, low_us, high_us), CONFIG.throttle))


def test_a_slew_limit_that_rounds_to_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="slew"):
        Channel.of(1446.0, 1311.0, 1603.5, 0.1)
    assert Channel.of(1446.0, 1311.0, 1603.5, 0.3).slew_us == 0.5


def test_values_that_do_not_fit_are_refused() -> None:
    for message in (Command(0x10000, 1450.0, 1446.0), Command(-1, 1450.0, 1446.0), Hello(70000)):
        with pytest.raises(ProtocolError, match="does not fit"):
            encode(message)


def test_clamp_and_since() -> None:
    channel = CONFIG.throttle
    assert [channel.clamp(us) for us in (1000.0, 1311.2, 1446.26, 2000.0)] == [1311.0, 1311.0, 1446.5, 1603.5]
    earlier = Counters(good=65530, crc_errors=3)
    assert Counters(good=4, crc_errors=3, timeouts=1).since(earlier) == {"good": 10, "timeouts": 1}


@pytest.mark.parametrize(
    ("cause", "words"), [(0, "unknown"), (2, "external (DTR or button)"), (0x89, "power on, watchdog")]
)
def test_reset_causes_have_words(cause: int, words: str) -> None:
    assert reset_words(cause) == words


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Command(1, 1450.0, 1446.0).sequence = 2  # type: ignore[misc]


def _payload(message: ToBridge | ToHost) -> bytes:
    """The payload on the wire, without zeros' disguise and CRC."""
    from firmware_bridge.framing import cobs_decode

    return cobs_decode(encode(message)[1:-1])[:-2]
