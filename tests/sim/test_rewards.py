"""The shipped examples: DeepRacer's values where they are DeepRacer's, and sensible preferences where they are ours."""

from __future__ import annotations

from typing import Any

import pytest

from sim.reward import check_reward, load_reward, shipped_rewards
from sim.reward_params import SYNTHETIC_STATES, synthetic_params


def state(name: str, **changes: Any) -> dict[str, Any]:
    return {**dict(zip(SYNTHETIC_STATES, synthetic_params(), strict=True))[name], **changes}


def test_five_functions_are_shipped() -> None:
    center, *others = shipped_rewards()
    assert center == "center_line"
    assert others == ["avoid_objects", "fast_and_smooth", "prevent_zigzag", "stay_inside"]


@pytest.mark.parametrize("name", shipped_rewards())
def test_shipped_functions_pass_the_check_a_users_file_must_pass(name: str) -> None:
    rewards = check_reward(load_reward(name))
    assert all(0.0 < value <= 3.0 for value in rewards.values())
    assert rewards["off_track"] == min(rewards.values()) < 0.01


@pytest.mark.parametrize("name", shipped_rewards())
def test_shipped_functions_remember_nothing(name: str) -> None:
    reward = load_reward(name)
    assert check_reward(reward) == check_reward(reward)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(0.0, 1.0), (0.1, 1.0), (0.1001, 0.5), (0.25, 0.5), (0.2501, 0.1), (0.5, 0.1), (0.5001, 1e-3), (3.0, 1e-3)],
)
def test_center_line_has_deepracers_bands(distance: float, expected: float) -> None:
    assert load_reward("center_line")({"track_width": 1.0, "distance_from_center": distance}) == expected


@pytest.mark.parametrize(("steering", "expected"), [(0.0, 0.5), (15.0, 0.5), (-15.0, 0.5), (15.1, 0.4), (-30.0, 0.4)])
def test_prevent_zigzag_takes_a_fifth_off_for_hard_steering(steering: float, expected: float) -> None:
    params: dict[str, object] = {"track_width": 1.0, "distance_from_center": 0.2, "steering_angle": steering}
    assert load_reward("prevent_zigzag")(params) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance", "wheels_on", "expected"), [(0.0, True, 1.0), (0.44, True, 1.0), (0.46, True, 1e-3), (0.0, False, 1e-3)]
)
def test_stay_inside_asks_for_a_margin_and_all_wheels(distance: float, wheels_on: bool, expected: float) -> None:
    params: dict[str, object] = {"track_width": 1.0, "distance_from_center": distance, "all_wheels_on_track": wheels_on}
    assert load_reward("stay_inside")(params) == expected


class TestFastAndSmooth:
    """What it should prefer, each pair of states differing in one thing only."""

    reward = staticmethod(load_reward("fast_and_smooth"))

    def test_faster_is_better_and_a_lap_is_not_worth_more_when_slow(self) -> None:
        slow, fast = state("valid", speed=0.4), state("valid", speed=0.8)
        assert self.reward(fast) > self.reward(slow)
        # Twice the speed takes half the steps; the pace part doubles, so dawdling earns nothing extra per metre.
        assert self.reward({**fast, "progress": 0.0}) == pytest.approx(2 * self.reward({**slow, "progress": 0.0}))

    def test_more_ground_covered_in_as_many_steps_is_better(self) -> None:
        assert self.reward(state("valid", steps=50)) > self.reward(state("valid", steps=90))

    def test_facing_the_wrong_way_earns_less_than_half(self) -> None:
        ahead = state("valid")
        assert self.reward({**ahead, "heading": ahead["heading"] + 180.0}) < 0.5 * self.reward(ahead)

    def test_clockwise_is_worth_as_much_as_counter_clockwise(self) -> None:
        one = state("valid", distance_from_center=0.1, steps=100, progress=20.0, steering_angle=0.0)
        other = state("clockwise", distance_from_center=0.1, steps=100, progress=20.0, steering_angle=0.0)
        assert self.reward(other) == pytest.approx(self.reward(one), rel=0.15)  # another place on the same ellipse

    def test_the_middle_half_of_the_road_is_nearly_free_and_the_border_is_not(self) -> None:
        rewards = [self.reward(state("valid", distance_from_center=share * 0.381)) for share in (0.0, 0.5, 0.8, 1.0)]
        assert rewards[1] > 0.9 * rewards[0]
        assert rewards[2] < 0.7 * rewards[0]
        assert rewards[3] == pytest.approx(1e-3)

    def test_hard_steering_costs_on_a_straight_and_not_in_a_bend(self) -> None:
        straight = [(0.1 * k, 0.0) for k in range(40)]
        on_straight = {"waypoints": straight, "closest_waypoints": [3, 4], "heading": 0.0}
        for steering, factor in ((15.0, 1.0), (30.0, 0.8), (-30.0, 0.8)):
            pair = [self.reward(state("valid", **on_straight, steering_angle=a)) for a in (0.0, steering)]
            assert pair[1] == pytest.approx(factor * pair[0])
        tight = {"closest_waypoints": [79, 80]}  # the ellipse's sharp end
        assert self.reward(state("valid", **tight, steering_angle=30.0)) == self.reward(state("valid", **tight))

    def test_full_speed_into_a_hairpin_earns_less_than_a_safe_speed(self) -> None:
        hairpin = [(0.1 * k, 0.0) for k in range(10)] + [(0.9, 0.3 + 0.1 * k) for k in range(5)]
        there = {"waypoints": hairpin, "closest_waypoints": [5, 6], "heading": 30.0}
        assert self.reward(state("valid", **there, speed=1.0)) > self.reward(state("valid", **there, speed=2.5))

    def test_seam_of_the_lap_is_like_any_other_place(self) -> None:
        """The closing waypoint repeats the first; looking ahead across it must not see a bend or a stop."""
        seam, same_by_symmetry = state("valid"), state("valid")
        for params, at in ((seam, 79), (same_by_symmetry, 39)):
            a, b = (params["waypoints"][k] for k in (at, at + 1))
            params["closest_waypoints"] = [at, at + 1]
            params["heading"] = 90.0 if b[1] > a[1] else -90.0
        assert self.reward(seam) == pytest.approx(self.reward(same_by_symmetry))
