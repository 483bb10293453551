"""A person with a radio control: whose hand the car is in."""

from __future__ import annotations

import pytest

from tests.firmware import wire
from tests.firmware.rigs import Lockstep, Native, Rig
from tests.firmware.wire import ARMED, DISARMED, FAILSAFE, OVERRIDE, STOPPED, UNCONFIGURED, Config

RADIO = Config(flags=1)
NEUTRAL = RADIO.throttle[0]
CENTER = RADIO.steering[0]
FAST = 3600
HOST, PERSON = 2400, 3600  # half us of the switch
OFF, LOST, STANDBY, TAKEN = range(4)
LATE = 80  # half us: what an interrupt that is already running adds to a measured pulse


def drive(bridge: Rig, frames: int, throttle: int, switch: int) -> None:
    """The host commands, the radio sends."""
    for _ in range(frames):
        bridge.command(throttle=throttle)
        bridge.radio(1, 3100, 3300, switch)


def armed(bridge: Rig) -> None:
    bridge.ready(RADIO)
    drive(bridge, 8, NEUTRAL, HOST)
    assert bridge.look().state == ARMED


def test_without_the_flag_the_radio_is_nothing(bridge: Rig) -> None:
    bridge.arm(Config(flags=0))
    drive(bridge, 5, FAST, PERSON)
    facts = bridge.look()
    assert (facts.state, facts.radio_state, facts.radio_steering, facts.radio_throttle) == (ARMED, OFF, 0, 0)
    assert facts.throttle == FAST


def test_without_a_signal_the_host_cannot_arm(bridge: Rig) -> None:
    bridge.ready(RADIO)
    bridge.frames(20)
    facts = bridge.look()
    assert (facts.state, facts.radio_state, facts.neutral_frames, facts.timeouts) == (DISARMED, LOST, 0, 0)


def test_the_host_drives_while_the_switch_says_so(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 5, FAST, HOST)
    facts = bridge.look()
    assert (facts.state, facts.throttle, facts.radio_state) == (ARMED, FAST, STANDBY)
    assert abs(facts.radio_steering - 3100) <= LATE
    assert abs(facts.radio_throttle - 3300) <= LATE


def test_the_person_takes_over_from_an_armed_host(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 5, FAST, HOST)
    drive(bridge, 3, FAST, PERSON)
    facts = bridge.look()
    assert (facts.state, facts.radio_state) == (OVERRIDE, TAKEN)
    assert abs(facts.throttle - 3300) <= LATE
    assert abs(facts.steering - 3100) <= LATE


def test_the_host_gets_it_back_disarmed(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 3, FAST, PERSON)
    drive(bridge, 3, FAST, HOST)
    facts = bridge.look()
    assert (facts.state, facts.throttle, facts.timeouts) == (DISARMED, NEUTRAL, 0)
    drive(bridge, 8, NEUTRAL, HOST)
    drive(bridge, 2, FAST, HOST)
    assert (bridge.look().state, bridge.look().throttle) == (ARMED, FAST)


def test_a_silent_host_does_not_stop_the_person(bridge: Rig) -> None:
    armed(bridge)
    bridge.radio(15, 3100, 3300, PERSON)
    facts = bridge.look()
    assert (facts.state, facts.timeouts) == (OVERRIDE, 0)
    assert abs(facts.throttle - 3300) <= LATE


def test_what_the_host_says_during_override_changes_nothing(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 4, FAST, PERSON)
    for payload in (wire.hello(), bytes([wire.DISARM]), bytes([wire.RESET]), wire.config(Config())):
        bridge.send(payload)
        bridge.radio(1, 3100, 3300, PERSON)
        assert bridge.look().state == OVERRIDE
    assert bridge.look().state_refused == 2  # RESET and CONFIG


def test_override_lost_is_failsafe(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 3, FAST, PERSON)
    for _ in range(6):
        bridge.command(throttle=FAST)
        bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.state, facts.radio_state, facts.throttle, facts.timeouts) == (FAILSAFE, LOST, NEUTRAL, 1)
    assert (facts.radio_steering, facts.radio_throttle) == (0, 0)


def test_a_radio_that_is_lost_stops_the_host(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 3, FAST, HOST)
    bridge.frames(6, throttle=FAST)
    facts = bridge.look()
    assert (facts.state, facts.radio_state, facts.throttle, facts.timeouts) == (FAILSAFE, LOST, NEUTRAL, 1)
    bridge.frames(10)
    assert bridge.look().state == FAILSAFE


@pytest.mark.parametrize("missing", range(3))
def test_each_channel_is_needed(bridge: Rig, missing: int) -> None:
    armed(bridge)
    pulses = [3100, 3300, HOST]
    pulses[missing] = 0
    for _ in range(6):
        bridge.command(throttle=FAST)
        bridge.radio(1, *pulses)
    assert (bridge.look().state, bridge.look().radio_state) == (FAILSAFE, LOST)


def test_the_radio_comes_back_in_the_persons_hand_until_the_switch_says_host(bridge: Rig) -> None:
    armed(bridge)
    bridge.frames(6)
    drive(bridge, 2, NEUTRAL, 3000)  # a switch in the middle
    assert bridge.look().state == OVERRIDE
    drive(bridge, 2, NEUTRAL, HOST)
    assert bridge.look().state == DISARMED


def test_estop_outranks_the_radio(bridge: Rig) -> None:
    armed(bridge)
    drive(bridge, 3, FAST, PERSON)
    bridge.send(bytes([wire.ESTOP]))
    drive(bridge, 3, FAST, PERSON)
    facts = bridge.look()
    assert (facts.state, facts.throttle) == (STOPPED, NEUTRAL)


def test_without_a_config_the_radio_has_no_pulses(bridge: Rig) -> None:
    bridge.radio(4, 3100, 3300, PERSON)
    assert (bridge.look().state, bridge.look().throttle) == (UNCONFIGURED, 0)


def test_the_persons_pulses_end_at_the_calibrated_limits(bridge: Rig) -> None:
    bridge.ready(
        Config(flags=1, steering=(2900, 2800, 3000), throttle=(2892, 2700, 3100), steering_slew=1, throttle_slew=1)
    )
    bridge.radio(4, 2200, 4000, PERSON)
    assert (bridge.look().steering, bridge.look().throttle) == (2800, 3100)
    bridge.radio(3, 4000, 2200, PERSON)
    assert (bridge.look().steering, bridge.look().throttle) == (3000, 2700)


def test_the_persons_pulses_within_the_limits_are_given_as_they_are(native: Native) -> None:
    limits = Config(flags=1, steering=(2900, 2800, 3000), throttle=(2892, 2700, 3100))
    native.ready(limits)
    for steering, throttle in ((2800, 2700), (2801, 2701), (2999, 3099), (3000, 3100)):
        native.radio(2, steering, throttle, PERSON)
        assert (native.look().steering, native.look().throttle) == (steering, throttle)
    native.radio(2, 2799, 3101, PERSON)
    assert (native.look().steering, native.look().throttle) == (2800, 3100)


@pytest.mark.parametrize("heard", [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_a_channel_that_was_never_heard_is_lost(native: Native, heard: tuple[int, ...]) -> None:
    native.ready(RADIO)
    assert native.look().radio_state == LOST
    for channel in heard:
        native.edge(channel, True, 5000)
        native.edge(channel, False, 5000 + 2500)
    native.run_ms(1)
    assert native.look().radio_state == LOST


def switched(native: Native, width: int) -> int:
    native.radio(1, 3000, 3000, width)
    return native.look().radio_state


def test_the_switch_has_a_middle_in_which_nothing_changes(native: Native) -> None:
    native.ready(RADIO)
    assert switched(native, 3000) == TAKEN  # a person's, until the switch has said host
    assert switched(native, 2800) == TAKEN
    assert switched(native, 2799) == STANDBY
    assert switched(native, 2800) == STANDBY
    assert switched(native, 3200) == STANDBY
    assert switched(native, 3201) == TAKEN
    assert switched(native, 3200) == TAKEN


def test_only_the_switch_switches(native: Native) -> None:
    native.ready(RADIO)
    native.radio(2, 3000, 3000, HOST)
    native.radio(2, 4000, 4000, HOST)
    assert native.look().radio_state == STANDBY
    native.radio(2, 3000, 3000, PERSON)
    native.radio(2, 2000, 2000, PERSON)
    assert native.look().radio_state == TAKEN


def test_what_is_no_pulse_is_not_counted(native: Native) -> None:
    native.ready(RADIO)
    native.radio(2, 3000, 3000, HOST)
    for width, counts in ((1599, False), (1600, True), (4400, True), (4401, False), (100, False), (30000, False)):
        native.radio(1, 3000, 3000, HOST)
        native.radio(1, width, 3000, HOST)
        assert native.look().radio_steering == (width if counts else 3000)


def test_the_radio_is_lost_after_60_ms(native: Native) -> None:
    native.ready(RADIO)
    for channel in range(3):
        native.edge(channel, True, 5000)
        native.edge(channel, False, 5000 + 2500)
    native.run_ms(59)
    assert native.look().radio_state == STANDBY
    native.run_ms(1)
    assert native.look().radio_state == LOST
    native.run_ms(300)
    assert native.look().radio_state == LOST


def test_losses_before_arming_are_no_timeouts_and_count_from_nothing(native: Native) -> None:
    native.ready(RADIO)
    drive(native, 2, NEUTRAL, HOST)
    assert native.look().neutral_frames == 2
    for _ in range(4):  # two more are counted until the radio counts as lost
        native.command()
        native.run_ms(20)
    facts = native.look()
    assert (facts.state, facts.timeouts, facts.neutral_frames) == (DISARMED, 0, 0)


def test_a_pulse_over_the_end_of_a_frame_is_measured(native: Native) -> None:
    native.ready(RADIO)
    for channel, rise, fall in ((0, 39000, 2100), (1, 39999, 2999), (2, 37600, 0)):
        native.edge(channel, True, rise)
        native.edge(channel, False, fall)
    native.run_ms(1)
    facts = native.look()
    assert (facts.radio_steering, facts.radio_throttle, facts.radio_state) == (3100, 3000, STANDBY)


def test_a_level_seen_again_is_no_edge(native: Native) -> None:
    native.ready(RADIO)
    for channel in range(3):
        native.edge(channel, True, 1000)
        native.edge(channel, True, 2000)  # the interrupt of another channel
        native.edge(channel, False, 3400)
        native.edge(channel, False, 3900)
    native.run_ms(1)
    assert (native.look().radio_steering, native.look().radio_state) == (2400, STANDBY)


def test_a_falling_edge_without_a_rising_one_is_no_pulse(native: Native) -> None:
    native.ready(RADIO)
    for channel in range(3):
        native.edge(channel, False, 3000)  # from 0 it would be a fine pulse
    native.run_ms(1)
    assert native.look().radio_state == LOST


def test_a_new_config_forgets_the_radio(native: Native) -> None:
    native.ready(RADIO)
    native.radio(2, 3000, 3000, HOST)
    assert native.configure(RADIO._replace(throttle_slew=5)).result == 0
    native.run_ms(1)
    assert native.look().radio_state == LOST


def test_measured_pulses_are_right_to_the_length_of_an_interrupt(chip: Lockstep) -> None:
    chip.ready(RADIO)
    worst = 0
    for step in range(40):
        chip.command()
        chip.radio(3, 2200 + step * 50, 4000 - step * 40, HOST)
        facts = chip.look()
        worst = max(worst, abs(facts.radio_steering - 2200 - step * 50), abs(facts.radio_throttle - 4000 + step * 40))
    assert worst <= LATE
