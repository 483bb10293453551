"""The guided steps of the motor, without a terminal: only a held key runs it, and only in bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.mapping import default_sim_calibration
from calibration.values import Calibration, Throttle, check_calibration
from tests.vehicle.calibrate_rig import BEAT_S, Paper
from vehicle import calibrate_throttle
from vehicle.arming import Limits
from vehicle.calibrate_events import Lost
from vehicle.calibrate_throttle import Ramp

NEUTRAL_US = Throttle().neutral_us
CURVE = Calibration(throttle=replace(default_sim_calibration().throttle))


def at_first(saved: Calibration = Calibration()) -> Paper:  # noqa: B008 - frozen
    return Paper(saved).keys("2").line("yes").line("")


def at_forward() -> Paper:
    paper = at_first().hold(1.5).wait(0.5).keys("r", "enter").hold(1.2).wait(0.5).keys("enter")
    assert paper.heading == "Full speed forwards"
    return paper


def test_the_wheels_must_be_off_the_ground_every_time() -> None:
    paper = Paper().keys("2")
    for words in ("", "no", "yess", "space"):
        paper.line(words)
        assert paper.heading == "Motor: get ready" and not paper.held
    paper.line("yes").line("")
    assert paper.heading == "First start of movement" and paper.held and paper.throttle_us == []
    paper.keys("q", "2").line("")
    assert paper.heading == "Motor: get ready"
    paper.line("yes").line("no").line("")
    assert paper.heading == "Motor: get ready"


def test_a_held_key_goes_slowly_up_and_rest_comes_when_it_is_let_go() -> None:
    paper = at_first().hold(1.0)
    assert paper.throttle_us[0] == NEUTRAL_US + 2.0
    assert max(paper.throttle_us) == paper.throttle_us[-1] == NEUTRAL_US + 16.0
    steps = [after - before for before, after in zip(paper.throttle_us, paper.throttle_us[1:], strict=False)]
    assert set(steps) == {0.0, 2.0}
    count = len(paper.throttle_us)
    paper.wait(3 * BEAT_S)
    assert len(paper.throttle_us) == count  # silence: the gate lets go by itself
    paper.wait(2 * BEAT_S)
    assert paper.throttle_us[count:] == [NEUTRAL_US]
    assert "1462.0" in paper.shown


def test_time_alone_never_asks_for_anything_but_rest() -> None:
    paper = at_first().wait(5.0)
    assert paper.throttle_us == []
    paper.hold(0.5).wait(5.0)
    assert paper.throttle_us.count(NEUTRAL_US) == 1 and paper.throttle_us[-1] == NEUTRAL_US


def test_a_tap_moves_a_little_and_measures_nothing() -> None:
    paper = at_first().keys("space").wait(0.6)
    assert paper.throttle_us == [NEUTRAL_US + 2.0, NEUTRAL_US]
    assert "not measured" in paper.shown
    paper.keys("r", "enter")
    assert paper.heading == "First start of movement" and "Not measured yet" in paper.said[-1]


def test_a_fast_keyboard_does_not_go_faster() -> None:
    paper = at_first()
    for _ in range(200):
        paper.keys("space")
    assert max(paper.throttle_us) == NEUTRAL_US + 2.0


@pytest.mark.parametrize("key", ("enter", "q", "b", "x", "+", "r", "left"))
def test_any_other_key_rests_the_motor_at_once(key: str) -> None:
    paper = at_first().hold(0.5).keys(key)
    assert paper.throttle_us[-1] == NEUTRAL_US
    assert paper.heading == "First start of movement"  # one key to stop, the next to go on


def test_a_refused_step_begins_again_at_neutral() -> None:
    paper = at_first().hold(1.0)
    paper.refuse_pulse = "step_too_large"
    paper.keys("space")
    paper.refuse_pulse = ""
    assert paper.hold(BEAT_S).throttle_us[-1] == NEUTRAL_US + 2.0


def test_a_whole_round() -> None:
    paper = at_first().hold(1.875).wait(0.5)
    assert paper.now == Calibration()  # which way is not known yet
    paper.keys("enter")
    assert "Which way" in paper.said[-1]
    paper.keys("r", "enter").hold(1.5).wait(0.5)
    assert (paper.now.throttle.reverse_start_us, paper.now.throttle.forward_start_us) == (1476.0, 1422.0)
    assert paper.now.throttle.neutral_us == 1449.0
    paper.keys("+", "+", "-", "enter")
    assert paper.now.throttle.forward_start_us == 1421.0 and paper.now.throttle.neutral_us == 1448.5
    count = len(paper.throttle_us)
    paper.hold(3.0).wait(0.5).keys("enter")
    forward = paper.throttle_us[count:-1]
    assert forward[0] == NEUTRAL_US - 25.0 and paper.throttle_us[-1] == NEUTRAL_US  # quickly to where it starts
    assert min(forward) == paper.now.throttle.forward_us == NEUTRAL_US - 25.0 - 3.0 * 23
    paper.hold(2.0).wait(0.5).keys("+", "enter")
    assert paper.now.throttle.reverse_us == NEUTRAL_US + 30.0 + 3.0 * 14 + 1.0
    paper.line("0.5 1405").line("1 1390").line("-0.5 1500").line("")
    assert paper.heading == "" and not paper.held
    assert paper.now.throttle.curve == ((-0.5, 1500.0), (0.5, 1405.0), (1.0, 1390.0))
    check_calibration(paper.now)
    assert paper.now.steering == Calibration().steering and not paper.saved


def test_no_step_of_the_ramp_is_larger_than_the_gate_takes() -> None:
    paper = at_forward().hold(12.0).wait(0.5)
    held = [NEUTRAL_US, *paper.throttle_us]
    for before, after in zip(held, held[1:], strict=False):
        assert abs(after - before) <= 25.0 or after == NEUTRAL_US


@pytest.mark.parametrize(("reach", "seconds", "start"), ((200.0, 13.0, at_first), (500.0, 25.0, at_forward)))
def test_it_never_goes_further_than_its_reach(reach: float, seconds: float, start: object) -> None:
    assert callable(start)
    paper = start()
    count = len(paper.throttle_us)
    farthest = max(abs(us - NEUTRAL_US) for us in paper.hold(seconds).throttle_us[count:])
    assert farthest == reach


def test_what_was_measured_before_is_kept_until_it_is_measured_anew() -> None:
    paper = at_first(CURVE)
    assert "1476.0" in paper.shown
    paper.keys("enter").keys("enter").keys("enter").keys("enter")
    assert paper.heading == "Speeds (optional)" and paper.now == CURVE
    paper.line("")
    assert paper.heading == "" and paper.now == CURVE


def test_turning_the_direction_voids_the_speeds() -> None:
    paper = at_first(CURVE).keys("f")
    throttle = paper.now.throttle
    assert throttle.forward_us > throttle.neutral_us > throttle.reverse_us and throttle.curve == ()
    assert (throttle.forward_start_us, throttle.reverse_start_us) == (1476.0, 1421.0)
    check_calibration(paper.now)


@pytest.mark.parametrize("words", ("0.5", "0 1400", "0.5 x", "21 1400", "0.5 1400 3", "nan 1400"))
def test_what_is_no_speed_is_asked_for_again(words: str) -> None:
    paper = at_first(CURVE).keys("enter", "enter", "enter", "enter").line(words)
    assert paper.now == CURVE and repr(words) in paper.said[-1]


def test_speeds_are_taken_away() -> None:
    paper = at_first(CURVE).keys("enter", "enter", "enter", "enter").line("x")
    assert paper.now.throttle.curve == ()


def test_lost_controls_end_the_hold_and_it_does_not_go_on_by_itself() -> None:
    paper = at_first().hold(0.5)
    paper.held = False
    paper.tell(Lost("gone"))
    count = len(paper.pulses)
    paper.keys("space").wait(1.0).keys("space", "+", "r")
    assert len(paper.pulses) == count and "gone" in "".join(paper.said)
    paper.keys("c")
    assert paper.held and len(paper.pulses) == count
    paper.hold(0.2)
    assert paper.throttle_us[count:][0] == NEUTRAL_US + 2.0


def test_the_motor_rests_when_the_step_is_left_by_whatever_way() -> None:
    paper = at_first().hold(0.5).wait(0.5).keys("q")
    assert not paper.held and paper.throttle_us[-1] == NEUTRAL_US


def test_the_range_of_the_gate_bounds_the_ramp() -> None:
    ramp = Ramp(2095.0)
    ramp.start(1.0, 0.0, 200.0, 3.0)
    ramp.confirm(ramp.press(1.0))
    ramp.confirm(ramp.press(2.0))
    assert ramp.press(3.0) == 2100.0


def test_it_lets_go_no_later_than_the_gate() -> None:
    assert calibrate_throttle.LET_GO_S <= Limits().hold_s
