"""HELLO, what a bridge says of itself, and its stored config."""

from __future__ import annotations

import pytest

from tests.firmware import wire
from tests.firmware.rigs import Lockstep, Native, Rig
from tests.firmware.wire import DISARMED, UNCONFIGURED, Config, Echo, HelloReply

OTHER = Config(1, (3001, 1500, 4500), (3003, 1000, 5000), 7, 258)


def test_announces_itself_when_it_starts(bridge: Rig) -> None:
    first, second = bridge.messages()[:2]
    assert first == HelloReply(wire.HELLO_REPLY, 1, 1, 0, 0, 7, 1, UNCONFIGURED, 0, 80, 20000)
    assert second == Echo(wire.ECHO, 3, 0, bytes(17))


def test_before_the_first_word_everything_is_off(native: Native) -> None:
    assert native.look() == wire.Telemetry(wire.TELEMETRY, 0, UNCONFIGURED, 0, 0, 0, 65535, *[0] * 10, 1, 0, 0, 0, 0)


def test_answers_with_the_nonce(bridge: Rig) -> None:
    assert bridge.hello(nonce=0xBEEF).nonce == 0xBEEF
    assert bridge.look().session
    assert bridge.hello(nonce=1).nonce == 1


def test_a_config_is_in_force_at_once_and_stored_soon(bridge: Rig) -> None:
    bridge.hello()
    assert bridge.configure(OTHER) == Echo(wire.ECHO, 0, 2, OTHER.fields)
    assert bridge.look().configured
    bridge.run_ms(120)
    stored = [message for message in bridge.messages() if isinstance(message, Echo)]
    assert stored == [Echo(wire.ECHO, 0, 1, OTHER.fields)]
    facts = bridge.look()
    assert (facts.stored, facts.writing) == (True, False)


def test_the_flags_while_it_is_written(native: Native) -> None:
    native.hello()
    assert (native.look().stored, native.look().writing) == (False, False)
    native.configure(OTHER)
    assert (native.look().stored, native.look().writing) == (False, True)
    native.hello(protocol=2)
    assert native.look().flags == 2 + 8  # configured, writing
    native.run_ms(120)
    assert native.look().flags == 2 + 4  # configured, stored


def test_after_power_up_the_stored_neutral_is_given(bridge: Rig) -> None:
    bridge.ready(Config(throttle=(2892, 2000, 4000), steering=(2900, 2000, 4000)))
    bridge.run_ms(120)
    bridge.messages()
    bridge.power_up()
    bridge.run_ms(50)
    facts = bridge.look()
    assert (facts.state, facts.steering, facts.throttle, facts.session) == (DISARMED, 2900, 2892, False)
    log = bridge.messages()
    hello = next(message for message in log if isinstance(message, HelloReply))
    echo = next(message for message in log if isinstance(message, Echo))
    assert (hello.state, hello.nonce) == (DISARMED, 0)
    assert (echo.result, echo.stored, echo.fields) == (0, 1, Config().fields)


def test_the_same_config_is_not_written_again(native: Native) -> None:
    native.ready()
    native.run_ms(120)
    native.break_eeprom(writes_until_cut=0)
    assert native.configure(Config()) == Echo(wire.ECHO, 0, 1, Config().fields)
    native.run_ms(120)
    assert native.look().stored


def test_the_same_config_does_not_begin_a_write_anew(native: Native) -> None:
    native.ready()
    native.run_ms(60)
    assert native.configure(Config()).stored == 2
    native.run_ms(32)  # 21 writes of 4 ms in all
    assert native.look().stored


def test_a_changed_config_is_written(native: Native) -> None:
    native.ready()
    native.run_ms(120)
    for changed in (OTHER, OTHER._replace(throttle_slew=259), OTHER._replace(flags=0, throttle_slew=3)):
        assert native.configure(changed).stored == 2
        native.run_ms(120)
        native.power_up()
        assert native.hello().state == DISARMED
        echo = next(message for message in native.messages() if isinstance(message, Echo))
        assert echo.fields == changed.fields


def test_a_config_that_could_not_be_stored_says_so_and_is_tried_again(native: Native) -> None:
    native.hello()
    native.break_eeprom(cell=5)
    assert native.configure(OTHER).stored == 2
    native.run_ms(120)
    echoes = [message for message in native.messages() if isinstance(message, Echo)]
    assert echoes == [Echo(wire.ECHO, 0, 0, OTHER.fields)]
    assert (native.look().stored, native.look().writing, native.look().configured) == (False, False, True)
    native.break_eeprom()
    assert native.configure(OTHER).stored == 2
    native.run_ms(120)
    assert native.look().stored


@pytest.mark.parametrize("cell", [0, 1, 19])
def test_each_broken_cell_is_noticed(native: Native, cell: int) -> None:
    native.hello()
    native.break_eeprom(cell=cell)
    native.configure(OTHER)
    native.run_ms(120)
    assert not native.look().stored


def test_power_lost_while_writing_leaves_no_config_or_a_whole_one(native: Native) -> None:
    for writes in range(25):
        native.break_eeprom()
        native.write_eeprom(b"\xff" * 32)
        native.power_up()
        native.ready(Config())
        native.run_ms(120)
        native.break_eeprom(writes_until_cut=writes)
        native.configure(OTHER)
        native.run_ms(150)
        native.power_up()
        native.hello()
        echo = next(message for message in native.messages() if isinstance(message, Echo))
        assert (echo.result, echo.fields) in ((3, bytes(17)), (0, Config().fields), (0, OTHER.fields))
        if writes == 0:
            assert echo.fields == Config().fields
        elif writes < 15:  # so many cells differ; each power cut in between has to leave nothing
            assert echo.result == 3


def test_the_record_is_erased_before_it_is_changed(native: Native) -> None:
    # Two configs whose records differ in their last bytes only: without erasing the magic first, a cut would be told by
    # the CRC alone.
    native.ready(Config(throttle_slew=1))
    native.run_ms(120)
    native.break_eeprom(writes_until_cut=1)
    native.configure(Config(throttle_slew=2))
    native.run_ms(150)
    native.power_up()
    assert native.look().state == UNCONFIGURED
    assert native.eeprom()[0] == 0xFF


@pytest.mark.parametrize("at", range(20))
def test_a_damaged_record_is_no_config(native: Native, at: int) -> None:
    native.ready()
    native.run_ms(120)
    record = bytearray(native.eeprom())
    record[at] ^= 0x10
    native.write_eeprom(bytes(record))
    native.power_up()
    facts = native.look()
    assert (facts.state, facts.configured, facts.stored) == (UNCONFIGURED, False, False)


def test_a_whole_record_of_another_layout_is_no_config(native: Native) -> None:
    body = b"\xb2" + Config().fields
    native.write_eeprom(body + wire.crc(body).to_bytes(2, "little"))
    native.power_up()
    assert native.look().state == UNCONFIGURED


def test_a_whole_record_with_impossible_values_is_no_config(native: Native) -> None:
    for fields, state in ((Config().fields, DISARMED), (Config(steering=(10, 0, 20)).fields, UNCONFIGURED)):
        body = b"\xb1" + fields
        native.write_eeprom(body + wire.crc(body).to_bytes(2, "little"))
        native.power_up()
        assert native.look().state == state


def valid(neutral: int, least: int, most: int) -> bool:
    return 1000 <= least <= neutral <= most <= 5000 and least < most


@pytest.mark.parametrize("channel", ["steering", "throttle"])
@pytest.mark.parametrize(
    "limits",
    [
        (3000, 1000, 5000), (3000, 999, 5000), (3000, 1000, 5001), (1000, 1000, 5000), (999, 1000, 5000),
        (5000, 1000, 5000), (5001, 1000, 5001), (2000, 2000, 2000), (2000, 2000, 2001), (2001, 2000, 2001),
        (1999, 2000, 2001), (2002, 2000, 2001), (3000, 4000, 2000), (0, 0, 0), (3000, 0, 65535),
    ],
)  # fmt: skip
def test_the_limits_of_a_config(native: Native, channel: str, limits: tuple[int, int, int]) -> None:
    native.hello()
    echo = native.configure(Config(**{channel: limits}))
    assert (echo.result == 0) == valid(*limits)
    if not valid(*limits):
        assert (echo.result, echo.fields) == (2, bytes(17))
        assert (native.look().range_refused, native.look().state) == (1, UNCONFIGURED)


@pytest.mark.parametrize("flags", range(0, 256, 3))
def test_only_known_flags_are_taken(native: Native, flags: int) -> None:
    native.hello()
    assert native.configure(Config(flags=flags)).result == (0 if flags in (0, 1) else 2)


def test_a_config_needs_a_session(bridge: Rig) -> None:
    echo = bridge.configure(Config())
    assert (echo.result, echo.stored, echo.fields) == (1, 0, bytes(17))
    assert bridge.look().state_refused == 1


def test_a_config_is_refused_while_armed_and_in_failsafe(bridge: Rig) -> None:
    bridge.arm()
    bridge.command()
    echo = bridge.configure(OTHER)
    assert (echo.result, echo.fields) == (1, Config().fields)
    bridge.run_ms(200)
    assert bridge.configure(OTHER).result == 1
    assert bridge.look().state_refused == 2
    bridge.send(bytes([wire.DISARM]))
    assert bridge.configure(OTHER).result == 0


def test_a_new_config_starts_from_its_own_neutral(bridge: Rig) -> None:
    bridge.ready()
    bridge.frames(4, 3900)
    assert (
        bridge.configure(Config(steering=(2600, 2000, 4000), throttle=(3200, 2000, 4000), steering_slew=10)).result == 0
    )
    facts = bridge.look()
    assert facts.neutral_frames == 0
    bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.steering, facts.throttle) == (2600, 3200)


@pytest.mark.parametrize(
    ("mcusr", "r2", "told"),
    [
        (1, 0, 1), (2, 0, 2), (4, 0, 4), (8, 0, 8), (9, 0, 9),
        (2, 8, 2),  # MCUSR has the word
        (0, 2, 0x82), (0, 8, 0x88), (0, 15, 0x8F),  # as Optiboot hands it over
        (0, 0, 0), (0, 16, 0), (0, 0x5A, 0),  # r2 is anything without a bootloader
        (0xF8, 0, 8),
    ],
)  # fmt: skip
def test_the_reset_cause(bridge: Rig, mcusr: int, r2: int, told: int) -> None:
    bridge.power_up(mcusr, r2)
    assert bridge.look().reset_cause == told
    assert bridge.hello().reset_cause == told


def test_facts_of_the_chip_are_told(native: Native) -> None:
    native.facts(supply_mv=4983, overruns=513)
    assert (native.look().supply_mv, native.look().overruns) == (4983, 513)


def test_the_supply_voltage_is_measured(chip: Lockstep) -> None:
    for millivolts in (5000, 4500, 3300):
        chip.supply(millivolts)
        chip.run_ms(100)
        assert abs(chip.look().supply_mv - millivolts) < 25
