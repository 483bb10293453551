"""The state machine, on both: the pure C code and the compiled firmware."""

from __future__ import annotations

import pytest

from tests.firmware import wire
from tests.firmware.rigs import Lockstep, Native, Rig
from tests.firmware.wire import ARMED, DISARMED, FAILSAFE, STOPPED, UNCONFIGURED, Config

NEUTRAL = Config().throttle[0]
CENTER = Config().steering[0]
FAST = 3600


def test_without_a_config_no_pulse_is_given(bridge: Rig) -> None:
    bridge.hello()
    for _ in range(10):
        bridge.command()
        bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.state, facts.configured, facts.steering, facts.throttle) == (UNCONFIGURED, False, 0, 0)
    assert (facts.state_refused, facts.age_ms) == (10, 65535)
    assert set(bridge.pulses()) <= {(0, 0)}


def test_a_config_gives_neutral_pulses(bridge: Rig) -> None:
    bridge.ready()
    bridge.run_ms(30)
    bridge.pulses()
    bridge.run_ms(200)
    assert set(bridge.pulses()) == {(CENTER, NEUTRAL)}


def test_five_neutral_frames_arm(bridge: Rig) -> None:
    bridge.ready()
    for count in range(1, 5):
        bridge.frames(1)
        facts = bridge.look() if isinstance(bridge, Native) else None
        if facts:
            assert (facts.state, facts.neutral_frames) == (DISARMED, count)
    if isinstance(bridge, Lockstep):
        assert bridge.look().neutral_frames == 4
        assert bridge.look().state == DISARMED
    bridge.frames(1)
    facts = bridge.look()
    assert (facts.state, facts.neutral_frames) == (ARMED, 5)
    bridge.frames(3, throttle=FAST, steering=3500)
    assert bridge.look().throttle == FAST
    assert bridge.pulses()[-1] == (3500, FAST)


def test_commands_that_are_not_neutral_do_not_arm(bridge: Rig) -> None:
    bridge.ready()
    for wrong in (NEUTRAL + 1, NEUTRAL - 1, FAST):
        bridge.frames(20, throttle=wrong)
        facts = bridge.look()
        assert (facts.state, facts.neutral_frames, facts.throttle) == (DISARMED, 0, NEUTRAL)
    assert {throttle for _, throttle in bridge.pulses()} <= {0, NEUTRAL}


def test_one_other_throttle_counts_from_nothing_again(bridge: Rig) -> None:
    bridge.ready()
    bridge.frames(4)
    bridge.command(throttle=FAST)
    bridge.command()  # in the same servo frame, so the newest is neutral
    bridge.run_ms(20)
    bridge.frames(3)
    assert bridge.look().state == DISARMED
    bridge.frames(1)
    assert bridge.look().state == ARMED


def test_many_commands_within_a_frame_count_once(bridge: Rig) -> None:
    bridge.ready()
    for _ in range(8):
        bridge.command()
    bridge.run_ms(20)
    facts = bridge.look()
    assert facts.state == DISARMED
    assert facts.neutral_frames in (1, 2)  # they may lie on both sides of the frame's end
    assert facts.good == 10


def test_a_frame_without_a_command_counts_nothing_and_spoils_nothing(native: Native) -> None:
    native.ready()
    native.run_ms(20 - 12)  # to the next frame's end
    native.frames(2)
    native.run_ms(40)
    assert native.look().neutral_frames == 2
    native.frames(2)
    assert native.look().state == DISARMED
    native.frames(1)
    assert native.look().state == ARMED


def test_silence_counts_from_nothing_again(native: Native) -> None:
    native.ready()
    native.command()
    native.run_ms(79)
    assert (native.look().neutral_frames, native.look().alive) == (1, True)
    native.run_ms(1)
    assert (native.look().neutral_frames, native.look().alive) == (0, False)
    assert native.look().age_ms == 80
    assert native.look().state == DISARMED
    assert native.look().timeouts == 0


def test_80_ms_of_silence_are_failsafe(native: Native) -> None:
    native.arm()
    native.command(3500, FAST)
    native.run_ms(79)
    assert native.look().state == ARMED
    native.run_ms(1)
    facts = native.look()
    assert (facts.state, facts.timeouts, facts.neutral_frames) == (FAILSAFE, 1, 0)
    native.run_ms(40)
    facts = native.look()
    assert (facts.throttle, facts.steering) == (NEUTRAL, 3500)
    assert facts.age_ms == 120


def test_silence_is_failsafe_on_both_and_steering_holds(bridge: Rig) -> None:
    bridge.arm()
    bridge.frames(2, 3500, FAST)
    bridge.run_ms(200)
    facts = bridge.look()
    assert (facts.state, facts.throttle, facts.steering, facts.timeouts) == (FAILSAFE, NEUTRAL, 3500, 1)
    assert facts.good == 9
    assert not facts.alive


def test_failsafe_wants_five_neutral_frames_again(bridge: Rig) -> None:
    bridge.arm()
    bridge.run_ms(150)
    bridge.frames(10, 3100, FAST)
    assert bridge.look().state == FAILSAFE
    assert bridge.look().throttle == NEUTRAL
    bridge.frames(4)
    assert bridge.look().state == FAILSAFE
    bridge.frames(1)
    assert bridge.look().state == ARMED
    bridge.frames(2, 3100, FAST)
    assert (bridge.look().steering, bridge.look().throttle) == (3100, FAST)


@pytest.mark.parametrize("values", [(1999, 2892), (4001, 2892), (2900, 1999), (2900, 4001), (0, 0), (65535, 2892)])
def test_out_of_range_is_refused_not_clamped(bridge: Rig, values: tuple[int, int]) -> None:
    bridge.arm()
    bridge.frames(1, 3000, 3000)
    bridge.sequence += 1
    bridge.send(wire.command(bridge.sequence, *values))
    bridge.run_ms(20)
    facts = bridge.look()
    assert facts.range_refused == 1
    assert facts.last_sequence == bridge.sequence - 1
    assert (facts.steering, facts.throttle) == (3000, 3000)


def test_out_of_range_is_no_sign_of_life(bridge: Rig) -> None:
    bridge.arm()
    for _ in range(10):
        bridge.sequence += 1
        bridge.send(wire.command(bridge.sequence, CENTER, 4001))
        bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.state, facts.range_refused) == (FAILSAFE, 10)


def test_the_ends_of_the_range_are_in_it(bridge: Rig) -> None:
    bridge.arm()
    for end in (2000, 4000):
        bridge.frames(2, end, end)
        facts = bridge.look()
        assert (facts.steering, facts.throttle, facts.range_refused) == (end, end, 0)


def test_a_repeated_frame_is_no_sign_of_life(bridge: Rig) -> None:
    bridge.arm()
    same = wire.command(bridge.sequence + 1, CENTER, FAST)
    for _ in range(10):
        bridge.send(same)
        bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.state, facts.sequence_refused, facts.throttle) == (FAILSAFE, 9, NEUTRAL)


def test_a_ring_of_old_frames_is_no_sign_of_life(bridge: Rig) -> None:
    bridge.arm()
    ring = [wire.command(bridge.sequence + 1 + index, CENTER, FAST) for index in range(4)]
    for index in range(16):
        bridge.send(ring[index % 4])
        bridge.run_ms(20)
    facts = bridge.look()
    assert (facts.state, facts.sequence_refused) == (FAILSAFE, 12)


def accepts(native: Native, sequence: int) -> bool:
    before = native.look().sequence_refused
    native.send(wire.command(sequence, CENTER, NEUTRAL))
    return native.look().sequence_refused == before


def test_sequence_numbers_go_forward_and_wrap(native: Native) -> None:
    native.ready()
    assert accepts(native, 65535)  # the first may be any
    assert not accepts(native, 65535)
    assert accepts(native, 65536)
    assert not accepts(native, 65535)
    assert accepts(native, 0x7FFF)  # 32767 ahead
    assert not accepts(native, 0xFFFF)  # 32768 ahead is behind
    assert accepts(native, 0xFFFE)
    assert native.look().last_sequence == 0xFFFE
    native.hello()
    assert native.look().last_sequence == 0
    assert accepts(native, 0)  # the first of a session, even if it is 0
    assert not accepts(native, 0)


def test_estop_latches_until_reset(bridge: Rig) -> None:
    bridge.arm()
    bridge.frames(2, 3500, FAST)
    bridge.send(bytes([wire.ESTOP]))
    bridge.run_ms(20)
    bridge.frames(20)
    bridge.frames(3, 2500, FAST)
    facts = bridge.look()
    assert (facts.state, facts.throttle, facts.steering, facts.alive) == (STOPPED, NEUTRAL, 3500, True)
    bridge.send(bytes([wire.DISARM]))
    bridge.hello()
    assert bridge.look().state == STOPPED
    assert bridge.configure(Config()).result == 1
    bridge.send(bytes([wire.RESET]))
    bridge.run_ms(1)
    assert bridge.look().state == DISARMED
    bridge.frames(5)
    assert bridge.look().state == ARMED


def test_estop_needs_no_session_but_reset_does(bridge: Rig) -> None:
    bridge.send(bytes([wire.ESTOP]))
    bridge.run_ms(1)
    assert bridge.look().state == STOPPED
    bridge.send(bytes([wire.RESET]))
    bridge.run_ms(1)
    facts = bridge.look()
    assert (facts.state, facts.state_refused, facts.steering) == (STOPPED, 1, 0)
    bridge.hello()
    assert bridge.configure(Config()).result == 1
    bridge.send(bytes([wire.RESET]))
    bridge.run_ms(1)
    assert bridge.look().state == UNCONFIGURED


def test_estop_in_the_same_frame_as_a_command_wins(bridge: Rig) -> None:
    bridge.arm()
    bridge.command(throttle=FAST)
    bridge.send(bytes([wire.ESTOP]))
    bridge.command(throttle=FAST)
    bridge.run_ms(25)
    assert (bridge.look().state, bridge.look().throttle) == (STOPPED, NEUTRAL)


def test_disarm_needs_no_session_and_ends_armed_and_failsafe(bridge: Rig) -> None:
    bridge.arm()
    bridge.frames(1, throttle=FAST)
    bridge.send(bytes([wire.DISARM]))
    bridge.run_ms(25)
    facts = bridge.look()
    assert (facts.state, facts.throttle, facts.neutral_frames, facts.timeouts) == (DISARMED, NEUTRAL, 0, 0)
    bridge.frames(5)
    bridge.run_ms(150)
    assert bridge.look().state == FAILSAFE
    bridge.send(bytes([wire.DISARM]))
    bridge.run_ms(1)
    assert bridge.look().state == DISARMED


def test_disarm_counts_the_neutral_frames_from_nothing(native: Native) -> None:
    native.ready()
    native.frames(4)
    native.send(bytes([wire.DISARM]))
    assert native.look().neutral_frames == 0


def test_reset_disarms(bridge: Rig) -> None:
    bridge.arm()
    bridge.send(bytes([wire.RESET]))
    bridge.run_ms(1)
    facts = bridge.look()
    assert (facts.state, facts.state_refused, facts.neutral_frames) == (DISARMED, 0, 0)


def test_a_new_host_shows_neutral_first(bridge: Rig) -> None:
    bridge.arm()
    bridge.frames(1, throttle=FAST)
    assert bridge.hello().state == DISARMED
    assert bridge.look().age_ms == 65535
    bridge.frames(5, throttle=FAST)
    assert bridge.look().state == DISARMED
    bridge.frames(5)
    assert bridge.look().state == ARMED


def test_a_hello_in_each_frame_never_arms(bridge: Rig) -> None:
    bridge.ready()
    for _ in range(12):
        bridge.send(wire.hello())
        bridge.send(wire.command(1, CENTER, NEUTRAL))
        bridge.run_ms(20)
    assert bridge.look().state == DISARMED


def test_a_hello_between_command_and_frame_takes_the_command_back(native: Native) -> None:
    native.ready()
    native.command()
    native.send(wire.hello())
    native.run_ms(20)
    assert native.look().neutral_frames == 0


def test_another_protocol_is_answered_and_not_obeyed(bridge: Rig) -> None:
    bridge.arm()
    reply = bridge.hello(nonce=7, protocol=2)
    assert (reply.protocol, reply.nonce, reply.state) == (1, 7, DISARMED)
    bridge.frames(6)
    facts = bridge.look()
    assert (facts.session, facts.state, facts.state_refused) == (False, DISARMED, 6)
    assert bridge.configure(Config()).result == 1


def test_commands_need_a_session(bridge: Rig) -> None:
    bridge.ready()
    bridge.run_ms(120)  # the EEPROM is written
    bridge.power_up()
    bridge.frames(6)
    facts = bridge.look()
    assert (facts.session, facts.state, facts.state_refused, facts.configured) == (False, DISARMED, 6, True)


def test_steering_follows_while_disarmed(bridge: Rig) -> None:
    bridge.ready()
    bridge.frames(3, 3300, FAST)
    facts = bridge.look()
    assert (facts.state, facts.steering, facts.throttle) == (DISARMED, 3300, NEUTRAL)


def test_steering_slew_limits_each_frame(bridge: Rig) -> None:
    bridge.arm(Config(steering_slew=100))
    bridge.pulses()
    bridge.frames(6, CENTER + 450)
    bridge.frames(6, CENTER - 50)
    bridge.run_ms(21)
    steering = [pulse for pulse, _ in bridge.pulses()]
    way = [3000, 3100, 3200, 3300, 3350, 3250, 3150, 3050, 2950, 2850]
    assert [value for index, value in enumerate(steering) if index == 0 or value != steering[index - 1]] == way


def test_throttle_slew_limits_only_the_way_from_neutral(bridge: Rig) -> None:
    bridge.arm(Config(throttle_slew=200))
    bridge.pulses()
    for target in (NEUTRAL + 500, NEUTRAL + 450, NEUTRAL + 520, NEUTRAL - 250, NEUTRAL - 100, NEUTRAL + 100, NEUTRAL,
                   NEUTRAL - 300, NEUTRAL, NEUTRAL + 300, NEUTRAL):  # fmt: skip
        bridge.frames(5, throttle=target)
    bridge.run_ms(21)
    throttle = [pulse - NEUTRAL for _, pulse in bridge.pulses()]
    way = [200, 400, 500, 450, 520, -200, -250, -100, 100, 0, -200, -300, 0, 200, 300, 0]
    assert [value for index, value in enumerate(throttle) if index == 0 or value != throttle[index - 1]] == way


def test_a_slew_of_one_step_arrives_exactly(native: Native) -> None:
    native.arm(Config(steering_slew=1, throttle_slew=1))
    native.pulses()
    native.frames(4, CENTER + 2, NEUTRAL + 2)
    native.frames(4, CENTER + 1, NEUTRAL - 2)
    steps = [(steering - CENTER, throttle - NEUTRAL) for steering, throttle in native.pulses()]
    assert steps == [(1, 1), (2, 2), (2, 2), (2, 2), (1, -1), (1, -2), (1, -2), (1, -2)]


def test_failsafe_and_estop_are_not_slewed(bridge: Rig) -> None:
    bridge.arm(Config(throttle_slew=50))
    bridge.frames(10, throttle=FAST)
    assert bridge.look().throttle > NEUTRAL + 400
    bridge.pulses()
    bridge.send(bytes([wire.ESTOP]))
    bridge.run_ms(45)
    throttle = [pulse for _, pulse in bridge.pulses()]
    assert throttle[-1] == NEUTRAL
    assert all(pulse == NEUTRAL or pulse > NEUTRAL + 400 for pulse in throttle)


def test_ages_stop_at_their_greatest(native: Native) -> None:
    native.ready()
    native.command()
    native.run_ms(65534)
    assert native.look().age_ms == 65534
    native.run_ms(1)
    assert native.look().age_ms == 65535
    native.run_ms(5)
    assert native.look().age_ms == 65535


def test_uptime_counts_past_16_bits(native: Native) -> None:
    native.run_ms(70000)
    assert native.look().uptime_ms == 70000
    native.power_up()
    assert native.look().uptime_ms == 0


def test_telemetry_tells_of_each_frame(bridge: Rig) -> None:
    bridge.arm()
    bridge.messages()
    bridge.frames(10, 3000, 3000)
    bridge.run_ms(5)
    told = [message for message in bridge.messages() if isinstance(message, wire.Telemetry)]
    assert 9 <= len(told) <= 11
    gaps = [after.uptime_ms - before.uptime_ms for before, after in zip(told, told[1:], strict=False)]
    assert set(gaps) == {20}
    assert told[-1].age_ms < 25
    assert (told[-1].good, told[-1].session, told[-1].alive) == (17, True, True)
