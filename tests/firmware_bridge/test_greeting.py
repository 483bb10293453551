"""When HELLO is said, when it is quiet, whose answer counts: with a clock that the test moves."""

from __future__ import annotations

import pytest

from firmware_bridge.errors import NoAnswer, VersionMismatch
from firmware_bridge.greeting import AGAIN_S, ANSWER_S, BOOT_S, GIVE_UP_S, Greeting
from firmware_bridge.messages import ConfigEcho, Hello, HelloReply, Result, State, Status, Telemetry, ToHost

T = 1000.0
ECHO = ConfigEcho(Result.NONE, 0, None)
TELEMETRY = Telemetry(5, State.DISARMED, Status(0), 0, 0, None, 1450.0, 1446.0)


def reply(nonce: int, protocol: int = 1) -> HelloReply:
    return HelloReply(protocol, (1, 2, 3), 7, 2, State.DISARMED, nonce, 80, 20000)


def said(greeting: Greeting, until_s: float, messages: dict[float, list[ToHost]] | None = None) -> list[float]:
    """Step every 10 ms; when HELLO was said, in seconds since the start."""
    times = []
    due = dict(messages or {})
    step = 0
    while step * 0.01 <= until_s:
        at_s = step * 0.01
        step += 1
        now = [message for s in [s for s in due if s <= at_s] for message in due.pop(s)]
        hello = greeting.step(now, T + at_s)
        if hello is not None:
            assert hello == Hello(77)
            times.append(at_s)
    return times


def test_a_running_firmware_answers_at_once() -> None:
    greeting = Greeting(77, T, "/dev/x")
    assert said(greeting, 0.05, {0.02: [reply(77), ECHO]}) == [0.0]
    assert greeting.done and greeting.hello == reply(77) and greeting.echo == ECHO
    assert greeting.step([], T + 100.0) is None


def test_a_board_that_was_reset_is_left_alone_until_it_speaks() -> None:
    greeting = Greeting(77, T, "/dev/x")
    assert said(greeting, 1.9, {1.7: [reply(0), ECHO]}) == [0.0, 1.7]
    assert not greeting.done  # unasked: not the answer to our HELLO
    greeting.step([reply(77), ECHO], T + 1.91)
    assert greeting.done


def test_into_silence_it_says_little() -> None:
    greeting = Greeting(77, T, "/dev/x")
    assert said(greeting, GIVE_UP_S - 0.02) == pytest.approx([0.0, BOOT_S, BOOT_S + AGAIN_S], abs=0.011)
    with pytest.raises(NoAnswer, match="/dev/x: nobody answers") as caught:
        greeting.step([], T + GIVE_UP_S + 0.01)
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, OSError)
    assert "flash" in caught.value.next_step


def test_while_telemetry_comes_it_may_ask_often_and_says_what_is_wrong() -> None:
    greeting = Greeting(77, T, "/dev/x")
    stream: dict[float, list[ToHost]] = {round(0.02 * i, 2): [TELEMETRY] for i in range(25)}
    times = said(greeting, 0.45, stream)
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=0.011)
    with pytest.raises(NoAnswer, match="sends, but does not answer") as caught:
        greeting.step([TELEMETRY], T + GIVE_UP_S + 0.01)
    assert "TX" in caught.value.next_step


def test_telemetry_that_stops_means_a_reset_so_quiet_again() -> None:
    greeting = Greeting(77, T, "/dev/x")
    times = said(greeting, 2.0, {0.0: [TELEMETRY], 0.05: [TELEMETRY]})
    assert len([t for t in times if t > 0.2]) == 0


def test_only_our_own_nonce_counts_and_the_echo_must_follow() -> None:
    greeting = Greeting(77, T, "/dev/x")
    greeting.step([], T)
    greeting.step([reply(76), ECHO], T + 0.01)
    assert greeting.hello is None and greeting.echo is None
    greeting.step([reply(77)], T + 0.02)
    assert not greeting.done
    assert greeting.step([TELEMETRY], T + 0.02 + ANSWER_S) == Hello(77)  # the echo was lost: once more
    greeting.step([reply(77), ECHO], T + 0.2)
    assert greeting.done


@pytest.mark.parametrize("nonce", [77, 0])
def test_another_protocol_is_named_at_once(nonce: int) -> None:
    greeting = Greeting(77, T, "/dev/x")
    with pytest.raises(VersionMismatch, match=r"firmware 1\.2\.3 speaks protocol 2, this hotlap speaks 1") as caught:
        greeting.step([reply(nonce, protocol=2)], T)
    assert caught.value.next_step == "hotlap bridge flash --port /dev/x"
