"""The guided steps of the steering, without a terminal."""

from __future__ import annotations

import pytest

from calibration.values import Calibration, Steering, check_calibration
from tests.vehicle.calibrate_rig import Paper
from vehicle.calibrate_draft import swap_steering
from vehicle.calibrate_steps import number


def at_center(saved: Calibration = Calibration()) -> Paper:  # noqa: B008 - frozen
    return Paper(saved).keys("1", "enter")


def test_nothing_turns_before_the_first_live_step() -> None:
    paper = Paper().keys("1")
    assert paper.heading == "Steering: get ready" and not paper.held and not paper.pulses
    paper.keys("left", "space", "+")
    assert not paper.held and not paper.pulses
    paper.keys("enter")
    assert paper.held and paper.steering_us == [1450.0] and paper.throttle_us == []


@pytest.mark.parametrize(
    ("key", "us"), (("left", 1460.0), ("h", 1460.0), ("[", 1452.0), ("right", 1440.0), ("l", 1440.0), ("]", 1448.0))
)
def test_keys_turn_the_wheels_the_way_they_say(key: str, us: float) -> None:
    """Left is the longer pulse on a DeepRacer."""
    paper = at_center().keys(key)
    assert paper.steering_us[-1] == us == paper.now.steering.center_us
    mirrored = at_center(swap_steering(Calibration())).keys(key)
    assert mirrored.steering_us[-1] == 2900.0 - us


def test_a_whole_round() -> None:
    paper = at_center().keys("left", "]", "enter", *["right"] * 3, "enter", *["left"] * 2, "[", "enter")
    assert paper.heading == "How far do they turn?" and not paper.held
    paper.line("27,5").line("")
    assert paper.heading == "More angles (optional)" and paper.held
    paper.keys(*["left"] * 12).line("14").keys(*["right"] * 24).line("-13.5").line("")
    assert paper.heading == "" and not paper.held
    points = ((-13.5, 1338.0), (14.0, 1578.0))
    assert paper.now.steering == Steering(1670.0, 1458.0, 1222.0, 27.5, points)
    check_calibration(paper.now)
    assert paper.now.throttle == Calibration().throttle and paper.throttle_us == []
    assert "1458.0" in "\n".join(paper.said) and not paper.saved


def test_the_pulse_stays_within_what_the_gate_takes() -> None:
    paper = at_center().keys(*["left"] * 100)
    assert paper.steering_us[-1] == 2100.0
    paper.keys(*["right"] * 200)
    assert paper.steering_us[-1] == 900.0


def test_wheels_that_turn_the_other_way_are_swapped_at_the_center_only() -> None:
    paper = at_center().keys("m")
    assert paper.now.steering == Steering(1200.0, 1450.0, 1700.0)
    assert paper.keys("left").steering_us[-1] == 1440.0
    paper.keys("enter", "m")
    assert paper.now.steering.left_us == 1200.0


def test_leaving_takes_the_values_back() -> None:
    paper = at_center().keys("left", "enter", "left", "q")
    assert paper.now == Calibration() and not paper.held and paper.heading == ""


def test_going_back_keeps_them() -> None:
    paper = at_center().keys("left", "enter", "b")
    assert paper.heading == "Straight ahead" and paper.held and paper.now.steering.center_us == 1460.0
    paper.keys("b")
    assert paper.heading == "Steering: get ready" and not paper.held


@pytest.mark.parametrize("words", ("x", "4.9", "60.1", "nan", "inf", "-30", "3 0", "thirty"))
def test_what_is_no_angle_is_asked_for_again(words: str) -> None:
    paper = at_center().keys("enter", "enter", "enter").line(words)
    assert paper.heading == "How far do they turn?" and paper.now.steering.max_deg == 30.0
    assert repr(words) in paper.said[-1]


@pytest.mark.parametrize("words", ("0", "30", "-30", "nan", "up"))
def test_what_is_no_angle_between_the_ends_is_no_point(words: str) -> None:
    paper = at_center().keys("enter", "enter", "enter").line("").line(words)
    assert paper.now.steering.points == () and repr(words) in paper.said[-1]


def test_points_are_taken_away_and_lines_are_mended() -> None:
    paper = at_center().keys("enter", "enter", "enter").line("").keys("left").keys("1", "9", "backspace", "2", "enter")
    assert paper.now.steering.points == ((12.0, 1460.0),)
    assert paper.line("x").now.steering.points == ()
    assert paper.line("b").heading == "How far do they turn?"


def test_numbers() -> None:
    assert number("1,5") == 1.5 and number("-2") == -2.0
    assert number("") is number("nan") is number("1e999") is number("1 2") is None
