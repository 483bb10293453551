"""Only the lease that armed the car moves it, only while it is held, and only with fresh commands."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vehicle.arming import Limits, Mode
from vehicle.controls import Controls, Manual, RawPulses
from vehicle.gate_requests import RequestRefused

T = 64.0
NEUTRAL_US = 1500.0
LIMITS = Limits(lease_s=1.0, manual_age_s=0.25, hold_s=0.5)


def armed(kind: str) -> tuple[Controls, str]:
    controls = Controls(LIMITS)
    lease = controls.grant(kind, "a phone", T)
    controls.take(lease.id)
    return controls, lease.id


def refusal(function: Any, *values: Any) -> str:
    with pytest.raises(RequestRefused) as caught:
        function(*values)
    assert caught.value.next_step
    return caught.value.reason


def test_a_lease_is_held_by_its_kind_and_id() -> None:
    controls, lease = armed("manual")
    assert controls.held(Mode.MANUAL, lease, T) and controls.held(Mode.MANUAL, lease, T + 1.0)
    assert not controls.held(Mode.CALIBRATION, lease, T) and not controls.held(Mode.MANUAL, "x", T)
    found = controls.lease(T)
    assert found is not None and found.holder == "a phone"
    assert refusal(controls.grant, "manual", "another", T) == "lease_held"
    assert not controls.held(Mode.MANUAL, lease, T + 1.01) and controls.lease(T) is None


def test_at_first_nobody_wants_anything() -> None:
    controls = Controls(LIMITS)
    assert controls.steering_us is None and controls.pulse_command(T) is None and controls.manual_command(T) is None
    assert not controls.lost(T) and controls.lease(T) is None


def test_losing_the_lease() -> None:
    controls, lease = armed("manual")
    assert not controls.lost(T + 1.0)
    controls.renew(lease, T + 1.0)
    assert not controls.lost(T + 2.0) and controls.lost(T + 2.01)
    assert refusal(controls.renew, lease, T + 2.01) == "lease_lost"
    other = controls.grant("manual", "another", T + 2.02)
    assert controls.lost(T + 2.02)  # the new holder has not armed anything
    controls.take(other.id)
    assert not controls.lost(T + 2.02)
    controls.take("")
    assert not controls.lost(T + 9.0)


def test_releasing_says_whether_it_was_in_control() -> None:
    controls, lease = armed("manual")
    assert refusal(controls.release, "x", T) == "lease_lost"
    assert controls.release(lease, T) is True
    assert controls.lease(T) is None and controls.lost(T)
    assert refusal(controls.release, lease, T) == "lease_lost"
    idle = controls.grant("manual", "another", T)
    assert controls.release(idle.id, T) is False


def test_forgetting_ends_the_lease() -> None:
    controls, _ = armed("calibration")
    controls.forget()
    assert controls.lease(T) is None and controls.lost(T)


def test_a_manual_command_holds_for_a_moment() -> None:
    controls, lease = armed("manual")
    assert controls.manual_command(T) is None
    controls.manual(Mode.MANUAL, lease, -0.5, 0.25, T)
    assert controls.manual_command(T) == controls.manual_command(T + 0.25) == Manual(-0.5, 0.25, T)
    assert controls.manual_command(math.nextafter(T + 0.25, 99)) is None
    controls.manual(Mode.MANUAL, lease, 0.0, 0.0, T + 0.5)
    assert controls.manual_command(T + 0.5) == Manual(0.0, 0.0, T + 0.5)


def test_a_manual_command_renews_the_lease() -> None:
    controls, lease = armed("manual")
    controls.manual(Mode.MANUAL, lease, 0.0, 0.0, T + 0.9)
    assert not controls.lost(T + 1.9)


def test_commands_of_others_are_refused() -> None:
    controls, lease = armed("manual")
    assert refusal(controls.manual, Mode.MANUAL, "x", 0.0, 0.5, T) == "lease_lost"
    for mode in (Mode.DISARMED, Mode.STOPPED, Mode.AUTONOMOUS, Mode.CALIBRATION):
        assert refusal(controls.manual, mode, lease, 0.0, 0.5, T) == "not_in_control"
    assert refusal(controls.pulse, Mode.MANUAL, lease, None, NEUTRAL_US, NEUTRAL_US, NEUTRAL_US, T) == "not_in_control"
    controls.take("another lease")
    assert refusal(controls.manual, Mode.MANUAL, lease, 0.0, 0.5, T) == "not_in_control"
    assert refusal(controls.manual, Mode.MANUAL, lease, 0.0, 0.5, T + 1.1) == "lease_lost"
    assert controls.manual_command(T) is None and controls.pulse_command(T) is None


def pulse(controls: Controls, lease: str, steering: float | None, throttle: float | None, held: Any, at: float) -> None:
    controls.pulse(Mode.CALIBRATION, lease, steering, throttle, held, NEUTRAL_US, at)


def test_throttle_is_hold_to_run_and_steering_stays() -> None:
    controls, lease = armed("calibration")
    assert controls.pulse_command(T) is None and controls.steering_us is None
    pulse(controls, lease, 1400.0, None, NEUTRAL_US, T)
    assert controls.pulse_command(T) is None and controls.steering_us == 1400.0
    pulse(controls, lease, None, 1510.0, NEUTRAL_US, T)
    assert controls.pulse_command(T) == controls.pulse_command(T + 0.5) == RawPulses(1400.0, 1510.0, T)
    pulse(controls, lease, 1410.0, None, NEUTRAL_US, T + 0.25)
    assert controls.pulse_command(T + 0.5) == RawPulses(1410.0, 1510.0, T)
    assert controls.pulse_command(math.nextafter(T + 0.5, 99)) is None and controls.steering_us == 1410.0


def test_throttle_moves_in_small_steps_from_what_the_esc_gets() -> None:
    controls, lease = armed("calibration")
    for throttle_us in (1525.0, 1475.0, 1500.0):
        pulse(controls, lease, None, throttle_us, NEUTRAL_US, T)
        command = controls.pulse_command(T)
        assert command is not None and command.throttle_us == throttle_us
    for throttle_us in (1525.1, 1474.9, 900.0):
        args = (Mode.CALIBRATION, lease, 1300.0, throttle_us, NEUTRAL_US, NEUTRAL_US, T)
        assert refusal(controls.pulse, *args) == "step_too_large"
    for held_us, neutral_us in ((None, NEUTRAL_US), (NEUTRAL_US, None)):
        args = (Mode.CALIBRATION, lease, None, NEUTRAL_US, held_us, neutral_us, T)
        assert refusal(controls.pulse, *args) == "step_too_large"
    assert controls.steering_us is None
    pulse(controls, lease, 900.0, None, NEUTRAL_US, T)
    pulse(controls, lease, 2100.0, None, NEUTRAL_US, T)
    assert controls.steering_us == 2100.0


@pytest.mark.parametrize("side", (1.0, -1.0))
def test_throttle_goes_to_rest_from_anywhere_but_not_across_it(side: float) -> None:
    controls, lease = armed("calibration")
    held_us = NEUTRAL_US + side * 400.0
    for away_us in (400.0, 425.0, 375.0, 374.9, 200.0, 0.1, 0.0):
        pulse(controls, lease, None, NEUTRAL_US + side * away_us, held_us, T)
        command = controls.pulse_command(T)
        assert command is not None and command.throttle_us == NEUTRAL_US + side * away_us
    for away_us in (425.1, -0.1, -25.0, -400.0):
        args = (Mode.CALIBRATION, lease, None, NEUTRAL_US + side * away_us, held_us, NEUTRAL_US, T)
        assert refusal(controls.pulse, *args) == "step_too_large"
    # near neutral a small step may cross it
    pulse(controls, lease, None, NEUTRAL_US - side * 15.0, NEUTRAL_US + side * 10.0, T)
    args = (Mode.CALIBRATION, lease, None, NEUTRAL_US - side * 15.1, NEUTRAL_US + side * 10.0, NEUTRAL_US, T)
    assert refusal(controls.pulse, *args) == "step_too_large"


def test_taking_control_voids_older_commands() -> None:
    controls, lease = armed("manual")
    controls.manual(Mode.MANUAL, lease, 0.0, 1.0, T)
    controls.take(lease)
    assert controls.manual_command(T) is None
    controls, lease = armed("calibration")
    pulse(controls, lease, 1400.0, 1500.0, NEUTRAL_US, T)
    controls.take(lease)
    assert controls.pulse_command(T) is None and controls.steering_us is None


def test_a_refused_request_of_the_driver_rests_the_throttle() -> None:
    controls, lease = armed("manual")
    controls.manual(Mode.MANUAL, lease, 0.0, 1.0, T)
    for other in ("x", None, 4, [lease]):
        controls.rest(other)
        assert controls.manual_command(T) is not None
    controls.rest(lease)
    assert controls.manual_command(T) is None
    controls, lease = armed("calibration")
    pulse(controls, lease, 1400.0, 1500.0, NEUTRAL_US, T)
    controls.rest("x")
    assert controls.pulse_command(T) is not None
    controls.rest(lease)
    assert controls.pulse_command(T) is None and controls.steering_us == 1400.0
