"""Menu, controls and saving of the guided calibration, without a terminal."""

from __future__ import annotations

import random

import pytest

from calibration.values import Calibration
from tests.vehicle.calibrate_rig import Paper
from vehicle.calibrate_draft import swap_steering, swap_throttle, with_steering
from vehicle.calibrate_events import Lost, Taken
from vehicle.calibrate_guide import UNATTENDED_S


def test_nothing_is_saved_until_somebody_says_so_after_seeing_the_difference() -> None:
    paper = Paper().keys("1", "enter", "left", "enter", "enter", "enter").line("").line("")
    assert "There are new values" in paper.said[-1]
    paper.keys("w")
    assert "1460.0" in paper.said[-2] and "checks: order" in paper.said[-2] and not paper.saved
    paper.keys("n")
    assert not paper.saved
    paper.keys("w", "y")
    assert [one.steering.center_us for one in paper.saved] == [1460.0]
    assert "values in force are saved" in paper.said[-1]
    paper.keys("q")
    assert paper.quit


def test_without_changes_there_is_nothing_to_save_and_quitting_asks_nothing() -> None:
    paper = Paper().keys("w", "y")
    assert not paper.saved and "nothing changes" in "".join(paper.said)
    assert paper.keys("q").quit


def test_new_values_are_not_lost_without_a_question() -> None:
    paper = Paper().keys("3", "q")
    assert not paper.quit and "not saved" in paper.said[-1]
    assert not paper.keys("n").quit
    assert paper.keys("q", "y").quit and not paper.saved


def test_swaps_and_throwing_away() -> None:
    paper = Paper().keys("3")
    assert paper.now == swap_steering(Calibration())
    paper.keys("4")
    assert paper.now == swap_throttle(swap_steering(Calibration()))
    assert paper.keys("d").now == Calibration()
    paper.keys("v")
    assert "1450.0" in paper.said[-2]


def test_what_does_not_hold_together_is_not_saved() -> None:
    paper = Paper()
    paper.guide.draft.now = with_steering(Calibration(), center_us=1750.0)
    paper.keys("w", "y")
    assert not paper.saved and "cannot be saved" in paper.said[-2]
    assert "the center is not between the ends" in "".join(paper.said)


def test_a_refused_save_is_told_and_the_values_are_kept() -> None:
    paper = Paper().keys("3")
    paper.refuse_save = "the car is armed"
    paper.keys("w", "y")
    assert "Not saved: the car is armed" in paper.said and paper.now == swap_steering(Calibration())
    paper.refuse_save = ""
    paper.keys("w", "y")
    assert paper.saved == [swap_steering(Calibration())]


def test_a_car_without_a_calibration_begins_with_typical_values() -> None:
    paper = Paper(None).keys("1", "2", "3", "w", "v", "d")
    assert not paper.saved and paper.heading == ""
    paper.keys("s")
    assert paper.saved == [Calibration()]
    assert paper.keys("1").heading == "Steering: get ready"
    assert Paper(None).keys("q").quit
    damaged = Paper(None, "it is damaged")
    assert "it is damaged" in damaged.said


def test_refused_controls_are_told_and_asked_for_again_by_hand_only() -> None:
    paper = Paper()
    paper.refuse_take = "somebody has the controls"
    paper.keys("1", "enter")
    assert not paper.held and "somebody has the controls" in paper.said[-1] and not paper.pulses
    paper.refuse_take = ""
    paper.wait(10.0).keys("left", "x")
    assert not paper.held and not paper.pulses
    assert paper.keys("c").held and paper.steering_us == [1450.0]


def test_lost_controls_leave_the_step_as_it_is() -> None:
    paper = Paper().keys("1", "enter", "left")
    paper.held = False
    paper.tell(Lost("the car is stopped"))
    paper.keys("left")
    assert paper.now.steering.center_us == 1460.0 and len(paper.steering_us) == 2
    paper.keys("enter")
    assert paper.heading == "Full left" and paper.held  # the next step asks for them: somebody is there
    paper.keys("q")
    assert paper.heading == "" and not paper.held


def test_nobody_at_the_keyboard_gives_the_controls_back() -> None:
    paper = Paper().keys("1", "enter").wait(UNATTENDED_S - 1.0)
    assert paper.held
    paper.keys("x").wait(UNATTENDED_S - 1.0)
    assert paper.held
    paper.wait(2.0)
    assert not paper.held and paper.given == 1 and "Nobody has pressed a key" in paper.said[-1]
    paper.wait(200.0)
    assert paper.given == 1 and not paper.held


def test_controls_that_come_too_late_are_given_back() -> None:
    paper = Paper()
    paper.held = True
    paper.tell(Taken())
    assert not paper.held and not paper.pulses


def test_no_step_but_live_ones_holds_the_controls() -> None:
    paper = Paper().keys("1")
    seen = {}
    for _ in range(6):
        seen[paper.heading] = paper.held
        paper.keys("enter")
    assert [name for name, held in seen.items() if not held] == ["Steering: get ready", "How far do they turn?"]
    assert paper.heading == "" and not paper.held


@pytest.mark.parametrize("seed", range(8))
def test_no_sequence_of_keys_and_losses_moves_a_motor_that_should_stand(seed: int) -> None:
    """`Paper` fails a pulse without the controls."""
    rng = random.Random(seed)
    names = [*"123bcfmqrwvyxd0.-+[]hl", "enter", "enter", "enter", "left", "right", "backspace", "space", "space"]
    ran = 0
    for _ in range(40):
        paper = Paper(rng.choice((Calibration(), swap_throttle(swap_steering(Calibration())))))
        if rng.random() < 0.7:
            paper.keys("2").line("yes").line("")
        for _ in range(60):
            neutral_us, count = (paper.guide.draft.saved or Calibration()).throttle.neutral_us, len(paper.throttle_us)
            act = rng.random()
            if act < 0.05 and paper.held:
                paper.held = False
                paper.tell(Lost("gone"))
            elif act < 0.25:
                paper.wait(rng.choice((0.125, 0.5)))
            elif act < 0.5:
                paper.hold(rng.choice((0.125, 1.0)))
            else:
                paper.keys(rng.choice(names))
            for us in paper.throttle_us[count:]:
                away_us = abs(us - neutral_us)
                assert away_us == 0.0 or (act >= 0.25 and away_us <= 500.0)
                ran += away_us > 0.0
            step = paper.guide.step
            assert not paper.held or (step is not None and step.live)
    assert ran > 50
