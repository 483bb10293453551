"""contract.json is written whole and read strictly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

import vehicle.contract as module
from vehicle.action_space import ContinuousActionSpace, default_action_space
from vehicle.contract import FAULTS, ActionLimits, CameraContract, Contract, contract_for
from vehicle.errors import ConfigError

DISCRETE = contract_for(default_action_space(), control_period_s=0.1, trained_on={"tracks": ("oval",), "steps": 5})


def changed(path: str, value: Any) -> str:
    """The contract's JSON with one dotted key set, or removed where the value is ... ."""
    whole = json.loads(DISCRETE.to_json())
    *parents, last = path.split(".")
    place = whole
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole)


def test_a_contract_goes_round_and_always_gives_the_same_text() -> None:
    again = Contract.from_json(DISCRETE.to_json())
    assert again == DISCRETE and again.to_json() == DISCRETE.to_json()
    assert again.trained_on == {"tracks": ["oval"], "steps": 5}


def test_a_contract_says_what_the_policy_sees_and_gives() -> None:
    whole = json.loads(DISCRETE.to_json())
    assert whole["format"] == "hotlap-bundle" and whole["version"] == 1 and whole["output"] == "probabilities"
    assert whole["image"] == {
        "height": 120,
        "width": 160,
        "channels": 1,
        "dtype": "uint8",
        "layout": "NHWC",
        "color": "gray",
        "resize": "bilinear",
        "crop": "none",
    }
    assert DISCRETE.action == ActionLimits("discrete", 10, -30.0, 30.0, 0.4, 0.8)
    continuous = contract_for(ContinuousActionSpace(-20, 30, 0.5, 3), control_period_s=1 / 15)
    assert continuous.output == "steering_deg_speed_mps"
    assert continuous.action == ActionLimits("continuous", 2, -20.0, 30.0, 0.5, 3.0)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("image.height", 84, "image.height = 84 is not allowed"),
        ("image.dtype", "float32", "image.dtype"),
        ("image.depth", 1, "unknown key image.depth"),
        ("image.crop", ..., "image.crop is missing"),
        ("camera.height_m", "high", "camera.height_m"),
        ("camera.frame_rate_hz", None, "camera.frame_rate_hz = None is null"),
        ("camera.horizontal_fov_deg", 200, "out of range"),
        ("control_period_s", 0, "control_period_s = 0"),
        ("control_period_s", ..., "control_period_s is missing"),
        ("trained_on", ..., "trained_on is missing"),
        ("trained_on", [], "trained_on = [] is an array"),
        ("files", {"policy.onnx": 3}, "files.policy.onnx = 3"),
        ("version", 2, "version = 2 is not allowed"),
        ("version", True, "version = True is true or false"),
        ("format", "zip", "format = 'zip'"),
        ("output", "logits", "output = 'logits'"),
        ("output", "steering_deg_speed_mps", "a discrete policy has 'probabilities'"),
        ("action.kind", "both", "action.kind"),
        ("action.size", 31, "action.size = 31"),
        ("extra", 1, "unknown key extra"),
    ],
)
def test_a_wrong_key_is_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Contract.from_json(changed(path, value))
    assert words in caught.value.what and caught.value.what.startswith("contract")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format": NaN}', b"\xff\xfe"])
def test_what_is_no_contract_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"contract\.json"):
        Contract.from_json(text)


@pytest.mark.parametrize("bad", [{"a": math.nan}, {"a": object()}, {"a": {1, 2}}])
def test_trained_on_must_be_json(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="trained_on is not JSON"):
        contract_for(default_action_space(), control_period_s=0.1, trained_on=bad)


def test_a_contract_made_in_code_is_checked_and_shares_nothing() -> None:
    with pytest.raises(ConfigError, match=r"camera\.height_m"):
        contract_for(default_action_space(), control_period_s=0.1, camera=CameraContract(height_m=math.inf))
    mine = {"tracks": ["oval"]}
    contract = contract_for(default_action_space(), control_period_s=0.1, trained_on=mine)
    mine["tracks"].append("other")
    assert contract.trained_on == {"tracks": ["oval"]}


def test_a_contract_of_before_roll_was_measured_is_of_a_level_camera() -> None:
    contract = contract_for(default_action_space(), control_period_s=0.1, camera=CameraContract(roll_deg=2.5))
    assert Contract.from_json(contract.to_json()) == contract
    old = json.loads(contract.to_json())
    del old["camera"]["roll_deg"]
    assert Contract.from_json(json.dumps(old)).camera == CameraContract()


def test_every_fault_is_documented() -> None:
    names = {v for k, v in vars(module).items() if k.isupper() and isinstance(v, str) and k.lower() == v}
    assert names - {module.PROBABILITIES} == set(FAULTS) and len(FAULTS) == 17 and all(FAULTS.values())
