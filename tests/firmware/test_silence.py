"""How long a car can go on after the host, the wire or the chip itself has failed. All on the compiled firmware."""

from __future__ import annotations

import pytest

from tests.firmware import wire
from tests.firmware.rigs import THROTTLE, Lockstep, Pulse
from tests.firmware.wire import Config

FAST = 3600
CONTRACT_US = 103_000  # from the last valid byte until the first neutral pulse has ended
TIMEOUT_US = 80_000
PHASES = 130


def throttle(chip: Lockstep) -> list[Pulse]:
    return [pulse for pulse in chip.all_pulses() if pulse.channel == THROTTLE]


def is_width(pulse: Pulse, half_us: int) -> bool:
    return abs(pulse.width_us - half_us / 2) <= 0.25


def drive_until(chip: Lockstep, phase_us: float, config: Config) -> float:
    """Arm, drive, and send one last command at a phase of the servo frame; when its last byte was over."""
    for _ in range(7):
        chip.command()
        chip.run_ms(20)
    chip.frames(2, throttle=FAST)
    chip.sequence += 1
    sent = wire.frame(wire.command(chip.sequence, config.steering[0], FAST))
    end_us = chip.send_at_us(chip.now_us + phase_us, sent)
    chip.run_until_us(end_us)
    return end_us


def check(pulses: list[Pulse], end_us: float, neutral: int) -> float:
    """The throttle after the last command: driving, then neutral for good. Returns when the first neutral ended."""
    kinds = [is_width(pulse, neutral) for pulse in pulses]
    first = kinds.index(True)
    assert all(is_width(pulse, FAST) for pulse in pulses[:first])
    assert all(kinds[first:])
    assert len(kinds) - first >= 2
    assert pulses[first].rise_us >= end_us + TIMEOUT_US - 1000, "it gave up too early"
    return pulses[first].fall_us - end_us


@pytest.mark.parametrize("neutral", [2892, 4000])
def test_the_first_neutral_pulse_has_ended_103_ms_after_the_last_byte(chip: Lockstep, neutral: int) -> None:
    config = Config(throttle=(neutral, 2000, 4000))
    chip.ready(config)
    times = []
    for phase in range(PHASES):
        end_us = drive_until(chip, phase * 20_000 / PHASES, config)
        chip.all_pulses()
        chip.run_ms(150)
        times.append(check(throttle(chip), end_us, neutral))
    assert max(times) <= CONTRACT_US
    assert (
        max(times) <= 80_000 + 19_000 + 150 + neutral / 2 + 150
    )  # what docs/bridge-protocol.md promises, and the handling
    assert max(times) - min(times) > 18_000  # the phases were all
    assert chip.look().timeouts == PHASES


@pytest.mark.parametrize("what", ["repeated", "broken", "out of range", "noise", "no command"])
def test_bytes_that_are_no_new_command_do_not_keep_it_alive(chip: Lockstep, what: str) -> None:
    config = Config()
    chip.ready(config)
    for phase in range(5):
        end_us = drive_until(chip, phase * 4000, config)
        chip.all_pulses()
        for _ in range(75):
            payload = wire.command(chip.sequence + (what != "repeated"), 2900, 4001 if what == "out of range" else FAST)
            sent = {
                "broken": wire.frame(payload)[:-3] + b"\x01\x02\0",
                "noise": bytes(range(1, 30)),
                "no command": wire.frame(wire.config(config)),
            }.get(what, wire.frame(payload))
            chip.send_raw(sent)
            chip.run_ms(2)
        chip.send_raw(b"\0")
        assert check(throttle(chip), end_us, config.throttle[0]) <= CONTRACT_US


LOOP, INTERRUPT = 0, 1
HANG_CONTRACT_US = 140_000
BLOCKED_US = 100  # the receiver holds three bytes of 40 us, and both pulses are decided 150 us before their frame
WATCHDOG_US = 64_000  # nominal; it was fed at most a servo frame before


@pytest.mark.parametrize("where", [LOOP, INTERRUPT])
@pytest.mark.parametrize("phase", range(10))
def test_a_hung_cpu_drives_no_longer_than_140_ms(chip: Lockstep, where: int, phase: int) -> None:
    config = Config()
    chip.arm(config)
    chip.run_ms(100)  # the config is stored
    chip.frames(7)
    chip.frames(3, throttle=FAST)
    chip.run_ms(2 * phase)
    chip.all_pulses()
    hung_us = chip.now_us
    chip.hang(where)
    for _ in range(15):  # the host knows nothing of it
        chip.command(throttle=FAST)
        chip.run_ms(20)
    pulses = throttle(chip)
    driving = [pulse for pulse in pulses if not is_width(pulse, config.throttle[0])]
    assert driving, "it drove before"
    assert all(is_width(pulse, FAST) or pulse.cut for pulse in driving)
    last_us = max(pulse.fall_us for pulse in driving) - hung_us
    assert last_us <= HANG_CONTRACT_US
    assert last_us <= WATCHDOG_US + 2000  # a loop is hung at its next pass, a millisecond on
    assert chip.watchdog_resets == 1
    after = [pulse for pulse in pulses if pulse.rise_us > hung_us + WATCHDOG_US + 25_000]
    assert len(after) >= 8
    assert all(is_width(pulse, config.throttle[0]) for pulse in after)
    chip.forget_bytes()
    facts = chip.look()
    assert (facts.reset_cause, facts.state, facts.session) == (8, wire.DISARMED, False)
    assert facts.state_refused >= 8


def test_a_hung_cpu_without_a_stored_config_gives_no_pulses_any_more(chip: Lockstep) -> None:
    chip.arm()
    chip.run_ms(100)
    chip.frames(7)
    chip.frames(3, throttle=FAST)
    chip.write_eeprom(b"\xff" * 32)
    chip.hang(LOOP)
    chip.run_ms(100)
    chip.all_pulses()
    chip.run_ms(200)
    chip.forget_bytes()
    assert chip.all_pulses() == []
    assert chip.look().state == wire.UNCONFIGURED


def test_pulling_the_reset_pin_ends_the_pulses_at_once(chip: Lockstep) -> None:
    chip.arm()
    chip.run_ms(100)
    chip.frames(7)
    chip.frames(3, throttle=FAST)
    chip.all_pulses()
    reset_us = chip.now_us
    chip.pull_reset()
    chip.run_ms(100)
    pulses = throttle(chip)
    assert all(pulse.rise_us < reset_us or is_width(pulse, Config().throttle[0]) for pulse in pulses)
    assert len(pulses) >= 4
    chip.forget_bytes()
    facts = chip.look()
    assert (facts.reset_cause, facts.state, facts.session) == (2, wire.DISARMED, False)


def test_the_watchdog_does_not_bite_a_busy_chip(chip: Lockstep) -> None:
    chip.ready(Config(flags=1))
    chip.blocked_us()  # at the start they are off for long
    for index in range(100):  # hellos, configs that are written each time, and a radio
        chip.send(wire.hello())
        chip.send(wire.config(Config(flags=1, throttle_slew=index)))
        chip.send_raw(bytes(range(1, 256)))
        chip.radio(1, 3000, 3000, 2400)
    assert chip.watchdog_resets == 0
    assert chip.blocked_us() <= BLOCKED_US
    facts = chip.look()
    assert (facts.reset_cause, facts.overruns) == (1, 0)


def test_lost_bytes_are_counted(chip: Lockstep) -> None:
    chip.ready()
    for byte in (0x55, 0x00):
        chip.send_framing_error(byte)
    chip.run_ms(2)
    assert chip.look().overruns == 2
