"""Action spaces follow DeepRacer's rules and files, and decode to degrees (+ left) and metres per second."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehicle.action_space import (
    ContinuousActionSpace,
    DiscreteActionSpace,
    action_space_from_metadata,
    default_action_space,
    grid_action_space,
    load_action_space,
    to_metadata,
)
from vehicle.errors import ActionSpaceError

# The table of the DeepRacer developer guide, written out.
GUIDE = [
    (-30.0, 0.4),
    (-30.0, 0.8),
    (-15.0, 0.4),
    (-15.0, 0.8),
    (0.0, 0.4),
    (0.0, 0.8),
    (15.0, 0.4),
    (15.0, 0.8),
    (30.0, 0.4),
    (30.0, 0.8),
]
CONTINUOUS = ContinuousActionSpace(-20.0, 30.0, 0.5, 3.0)


def test_the_default_is_the_guides_table_in_its_order() -> None:
    space = default_action_space()
    np.testing.assert_array_equal(space.table(), np.array(GUIDE, dtype=np.float32))
    assert (space.size, space.kind, space.max_speed_mps, space.max_steering_deg) == (10, "discrete", 0.8, 30.0)
    assert grid_action_space(30, 5, 0.8, 2) == space


def test_a_grid_spaces_steering_evenly_and_speed_in_fractions_of_the_maximum() -> None:
    space = grid_action_space(20.0, 3, 3.0, 3)
    assert space.steering_deg == (-20.0,) * 3 + (0.0,) * 3 + (20.0,) * 3
    assert space.speed_mps == (1.0, 2.0, 3.0) * 3
    assert grid_action_space(30.0, 1, 1.0, 2).steering_deg == (0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((30.5, 5, 0.8, 2), "30.5 degrees"),
        ((30.0, 5, 4.1, 2), r"4.1 m/s \(allowed: 0.1 to 4.0\)"),
        ((30.0, 1, 0.8, 9), r"0\.08\d* m/s"),
        ((30.0, 7, 4.0, 5), "35 actions"),
        ((30.0, 1, 4.0, 1), "1 actions"),
        ((30.0, 0, 0.8, 2), "granularity 0"),
        ((30.0, 5, 0.8, True), "granularity True"),
        ((30.0, 2.5, 0.8, 2), "granularity 2.5"),
        ((-30.0, 5, 0.8, 2), "not above 0"),
        ((math.nan, 5, 0.8, 2), "not a finite number"),
        (("30", 5, 0.8, 2), "not a number"),
    ],
)
def test_a_grid_out_of_the_limits_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(ActionSpaceError, match=words):
        grid_action_space(*arguments)


def test_decode_looks_actions_up() -> None:
    actions = default_action_space().decode(np.array([9, 0, 4]))
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, np.array([GUIDE[9], GUIDE[0], GUIDE[4]], dtype=np.float32))
    assert default_action_space().decode(np.array([], dtype=np.int64)).shape == (0, 2)


@pytest.mark.parametrize("bad", [[-1], [10], [0.0], [[1]], 3, [True]])
def test_decode_refuses_what_is_no_index(bad: Any) -> None:
    with pytest.raises(ActionSpaceError):
        default_action_space().decode(np.array(bad))


def test_the_table_is_a_copy() -> None:
    space = default_action_space()
    space.table()[:] = 0.0
    assert space.decode(np.array([0]))[0, 0] == -30.0


def test_mirror_pairs_every_action_with_its_opposite() -> None:
    space = default_action_space()
    p = space.mirror()
    assert p is not None
    np.testing.assert_array_equal(space.table()[p], space.table() * np.array([-1.0, 1.0]))
    np.testing.assert_array_equal(p[p], np.arange(10))
    np.testing.assert_array_equal(p, [8, 9, 6, 7, 4, 5, 2, 3, 0, 1])


def test_mirror_with_a_doubled_action_is_still_a_permutation() -> None:
    p = DiscreteActionSpace((-10.0, 10.0, -10.0, 10.0), (1.0, 1.0, 1.0, 1.0)).mirror()
    assert p is not None and sorted(p.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "space",
    [
        DiscreteActionSpace((-30.0, 0.0, 29.0), (1.0, 1.0, 1.0)),
        DiscreteActionSpace((-30.0, 30.0), (1.0, 2.0)),
        DiscreteActionSpace((-30.0, 30.0, 30.0), (1.0, 1.0, 1.0)),
    ],
)
def test_a_lopsided_space_has_no_mirror(space: DiscreteActionSpace) -> None:
    assert space.mirror() is None


def test_continuous_maps_the_unit_box_linearly_and_clips() -> None:
    decoded = CONTINUOUS.decode(np.array([[-1.0, 1.0], [0.0, 0.0], [7.0, -7.0]]))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, [[-20.0, 3.0], [5.0, 1.75], [30.0, 0.5]])
    np.testing.assert_allclose(CONTINUOUS.encode([[5.0, 1.75], [99.0, 0.0]]), [[0.0, 0.0], [1.0, -1.0]], atol=1e-7)
    assert (CONTINUOUS.kind, CONTINUOUS.size, CONTINUOUS.max_speed_mps) == ("continuous", 2, 3.0)
    assert not CONTINUOUS.symmetric and ContinuousActionSpace(-30, 30, 0.5, 1.0).symmetric


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=5))
def test_encode_undoes_decode(unit: list[tuple[float, float]]) -> None:
    np.testing.assert_allclose(CONTINUOUS.encode(CONTINUOUS.decode(unit)), unit, atol=1e-6)


@pytest.mark.parametrize("bad", [[[math.nan, 0.0]], [[0.0, math.inf]], [0.0, 0.0], [[0.0, 0.0, 0.0]]])
def test_continuous_refuses_what_is_no_action(bad: Any) -> None:
    with pytest.raises(ActionSpaceError):
        CONTINUOUS.decode(bad)
    with pytest.raises(ActionSpaceError):
        CONTINUOUS.encode(bad)


@pytest.mark.parametrize(
    "limits", [(30.0, -30.0, 0.5, 1.0), (0.0, 0.0, 0.5, 1.0), (-30.0, 30.0, 1.0, 1.0), (-31.0, 30.0, 0.5, 1.0)]
)
def test_continuous_limits_must_be_in_order_and_in_range(limits: tuple[float, float, float, float]) -> None:
    with pytest.raises(ActionSpaceError):
        ContinuousActionSpace(*limits)


@pytest.mark.parametrize("space", [default_action_space(), CONTINUOUS])
def test_metadata_goes_round(space: Any) -> None:
    metadata = to_metadata(space, "DEEP_CONVOLUTIONAL_NETWORK", ["FRONT_FACING_CAMERA"])
    assert action_space_from_metadata(json.loads(json.dumps(metadata))) == space
    assert metadata["version"] == "5" and metadata["action_space_type"] == space.kind
    assert metadata["sensor"] == ["FRONT_FACING_CAMERA"] and metadata["training_algorithm"] == "clipped_ppo"


def test_metadata_numbers_its_actions() -> None:
    actions = to_metadata(default_action_space())["action_space"]
    assert actions[9] == {"steering_angle": 30.0, "speed": 0.8, "index": 9}


def test_deepracers_forms_are_read(tmp_path: Path) -> None:
    # Integers, shuffled "index" keys (DeepRacer's car goes by the place in the list), a byte order mark, unknown keys.
    listed = [{"index": 5, "steering_angle": -30, "speed": 1}, {"speed": 2.5, "steering_angle": 30, "index": 0}]
    wanted = DiscreteActionSpace((-30.0, 30.0), (1.0, 2.5))
    path = tmp_path / "model_metadata.json"
    for content in (listed, {"action_space": listed}, {"action_space": listed, "version": "2", "lidar_config": {}}):
        path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
        assert load_action_space(path) == wanted
    limits = {"steering_angle": {"high": 30.0, "low": -20.0}, "speed": {"high": 3, "low": 0.5}}
    for other in (limits, {"action_space": limits, "action_space_type": "continuous"}):
        path.write_text(json.dumps(other), encoding="utf-8")
        assert load_action_space(path) == CONTINUOUS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("3", "is a int"),
        ('"abc"', "is a str"),
        ("[]", "0 actions"),
        ('[{"speed": 1}, {"speed": 1}]', 'action 0: "steering_angle" is missing'),
        ('[{"steering_angle": 0, "speed": 1}, 7]', 'action 1: "steering_angle" is missing'),
        ('[{"steering_angle": 0, "speed": 1}, {"steering_angle": "9", "speed": 1}]', "action 1: steering_angle is '9'"),
        (
            '[{"steering_angle": 0, "speed": 1}, {"steering_angle": true, "speed": 1}]',
            "action 1: steering_angle is True",
        ),
        ('[{"steering_angle": 0, "speed": 1}, {"steering_angle": 45, "speed": 1}]', "45.0 degrees"),
        ('[{"steering_angle": 0, "speed": 1}, {"steering_angle": 0, "speed": 1e999}]', "speed is inf"),
        ('[{"steering_angle": 0, "speed": 1}, {"steering_angle": 0, "speed": 1' + "0" * 400 + "}]", "speed is inf"),
        ('{"steering_angle": {"low": -1, "high": 1}}', '"speed" is missing'),
        ('{"steering_angle": {"low": -1}, "speed": {"low": 1, "high": 2}}', '"high" is missing'),
        ('{"action_space": [], "action_space_type": "continuous"}', "action_space_type is 'continuous'"),
        ('{"action_space": {}, "action_space_type": "discrete"}', "action_space_type is 'discrete'"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_place(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "actions.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ActionSpaceError) as caught:
        load_action_space(path)
    assert words in caught.value.what and str(path) in caught.value.what


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ActionSpaceError, match="cannot be read"):
        load_action_space(tmp_path / "none.json")


def test_minus_zero_is_zero() -> None:
    assert str(DiscreteActionSpace((-0.0, 0.0), (1.0, 1.0)).steering_deg) == "(0.0, 0.0)"
