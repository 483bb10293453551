"""One measured value and what it does to the others; what people are told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.mapping import default_sim_calibration
from calibration.values import Calibration, Steering, Throttle, check_calibration
from vehicle import calibrate_draft as draft

MEASURED = replace(
    default_sim_calibration(), steering=Steering(1690.0, 1450.0, 1210.0, 28.0, ((-20.0, 1290.0), (10.0, 1530.0)))
)


def test_swapping_the_steering_twice_is_nothing_and_once_holds_together() -> None:
    swapped = draft.swap_steering(MEASURED)
    check_calibration(swapped)
    assert (swapped.steering.left_us, swapped.steering.right_us) == (1210.0, 1690.0)
    assert swapped.steering.points == ((-10.0, 1530.0), (20.0, 1290.0))
    assert draft.swap_steering(swapped) == MEASURED and swapped.throttle == MEASURED.throttle


def test_swapping_the_throttle_voids_the_speeds() -> None:
    before = MEASURED.throttle
    swapped = draft.swap_throttle(MEASURED)
    check_calibration(swapped)
    assert (swapped.throttle.forward_us, swapped.throttle.reverse_us) == (before.reverse_us, before.forward_us)
    assert swapped.throttle.forward_start_us == before.reverse_start_us
    assert swapped.throttle.curve == () and swapped.steering == MEASURED.steering
    assert draft.swap_throttle(swapped).throttle == replace(before, curve=())


@pytest.mark.parametrize("longer_is_forward", (True, False))
def test_neutral_is_between_the_starts_and_ends_keep_their_distance(longer_is_forward: bool) -> None:
    before = Throttle(1446.0, 1311.0, 1603.5)
    calibration = Calibration(throttle=before)
    after = draft.with_starts(
        calibration, 1530.0, 1470.0, longer_is_forward=longer_is_forward, measured=frozenset()
    ).throttle
    check_calibration(Calibration(throttle=after))
    assert after.neutral_us == 1500.0
    assert {after.forward_start_us, after.reverse_start_us} == {1530.0, 1470.0}
    assert (after.forward_start_us == 1530.0) == longer_is_forward
    sign = 1.0 if longer_is_forward else -1.0
    assert after.forward_us == 1500.0 + sign * 135.0 and after.reverse_us == 1500.0 - sign * 157.5


def test_an_end_that_was_measured_stays_where_it_was_measured() -> None:
    after = draft.with_starts(
        Calibration(), 1470.0, 1420.0, longer_is_forward=False, measured=frozenset({"forward"})
    ).throttle
    assert after.forward_us == Throttle().forward_us and after.reverse_us == 1445.0 + 157.5


@pytest.mark.parametrize("longer_is_forward", (True, False))
def test_speeds_are_void_where_the_direction_has_turned(longer_is_forward: bool) -> None:
    after = draft.with_starts(MEASURED, 1476.0, 1421.0, longer_is_forward=longer_is_forward, measured=frozenset())
    assert (after.throttle.curve == ()) == longer_is_forward


def test_pairs_are_in_order_and_one_place_is_measured_once() -> None:
    assert draft.with_pair(((-5.0, 1400.0), (5.0, 1500.0)), 1.0, 1460.0) == (
        (-5.0, 1400.0),
        (1.0, 1460.0),
        (5.0, 1500.0),
    )
    assert draft.with_pair(((5.0, 1500.0),), 5.0, 1510.0) == ((5.0, 1510.0),)


def test_differences_name_what_has_changed_and_nothing_else() -> None:
    other = draft.with_steering(Calibration(), center_us=1455.0, points=((10.0, 1530.0),))
    assert list(draft.differences(Calibration(), other)) == [
        ("straight ahead (us)", "1450.0", "1455.0"),
        ("measured angles (deg: us)", "-", "10: 1530.0"),
    ]
    assert draft.difference_text(other, other) == "nothing changes"
    assert "1455.0" in draft.difference_text(Calibration(), other)
    assert len(list(draft.differences(None, MEASURED))) == len(draft.VALUES)


def test_every_value_is_shown() -> None:
    text = draft.values_text(MEASURED)
    assert len(text.splitlines()) == len(draft.VALUES)
    for value in ("1690.0", "28.0", "-20: 1290.0", "1421.0", "0.5: 1409.7"):
        assert value in text


def test_checks_tell_order_distance_and_deadband() -> None:
    assert draft.checks_text(MEASURED) == (
        "checks: order, distances and ranges are good\ndeadband: 25.0 us forwards, 30.0 us backwards"
    )
    assert "deadband: not measured" in draft.checks_text(Calibration())
    wrong = draft.with_throttle(draft.with_steering(Calibration(), center_us=1750.0), forward_start_us=1460.0)
    text = draft.checks_text(wrong)
    assert "the center is not between the ends" in text and "next: measure center, left and right again" in text
    assert "forward_start_us" in text
