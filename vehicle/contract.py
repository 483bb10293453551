"""What a bundle promises of itself: the picture it was trained on, its timing, camera, action limits and files.

`Contract` is ``contract.json`` inside the bundle. The names of what can be wrong with a bundle are here too, since they
are as stable as the format: programs and web pages compare them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from vehicle import observation
from vehicle.action_space import ActionSpace, ContinuousActionSpace, DiscreteActionSpace
from vehicle.config import check, from_mapping, parse_json, ranged
from vehicle.errors import ConfigError

FORMAT = "hotlap-bundle"
VERSION = 1
PROBABILITIES = "probabilities"
STEERING_AND_SPEED = "steering_deg_speed_mps"

# The names of a bundle's members.
ONNX_NAME = "policy.onnx"
METADATA_NAME = "model_metadata.json"
CONTRACT_NAME = "contract.json"
GOLDEN_NAME = "golden.npz"
HASHED_NAMES = (ONNX_NAME, METADATA_NAME, GOLDEN_NAME)

# Every value of BundleError.fault, and what it means.
MISSING_FILE = "missing_file"
NOT_AN_ARCHIVE = "not_an_archive"
MEMBER_REFUSED = "member_refused"
TOO_LARGE = "too_large"
FOREIGN = "foreign"
MISSING_MEMBER = "missing_member"
CONTRACT_INVALID = "contract_invalid"
VERSION_UNSUPPORTED = "version_unsupported"
SHA256_MISMATCH = "sha256_mismatch"
METADATA_INVALID = "metadata_invalid"
ACTION_SPACE_MISMATCH = "action_space_mismatch"
ONNX_INVALID = "onnx_invalid"
ONNX_INPUT_MISMATCH = "onnx_input_mismatch"
ONNX_OUTPUT_MISMATCH = "onnx_output_mismatch"
GOLDEN_INVALID = "golden_invalid"
GOLDEN_MISMATCH = "golden_mismatch"
PROBABILITIES_INVALID = "probabilities_invalid"

FAULTS: dict[str, str] = {
    MISSING_FILE: "there is no readable file at the path",
    NOT_AN_ARCHIVE: "the file is not a whole .tar.gz: something else, cut short, or damaged",
    MEMBER_REFUSED: "a member has a dangerous, doubled or unexpected name, or is not a plain file",
    TOO_LARGE: "the file, or what it unpacks to, is larger than any bundle",
    FOREIGN: "an archive of another make, for instance a DeepRacer model",
    MISSING_MEMBER: "one of the four members is not there",
    CONTRACT_INVALID: "contract.json is not JSON, or a key is unknown, missing, of the wrong type or out of range",
    VERSION_UNSUPPORTED: "the contract is of a version that this hotlap does not know",
    SHA256_MISMATCH: "a member is not the one that the contract was written for",
    METADATA_INVALID: "model_metadata.json is not valid in DeepRacer's schema",
    ACTION_SPACE_MISMATCH: "metadata, contract and the graph's output do not agree on the actions",
    ONNX_INVALID: "policy.onnx cannot be loaded or run",
    ONNX_INPUT_MISMATCH: "the graph does not take uint8 [N,120,160,1]",
    ONNX_OUTPUT_MISMATCH: "the graph does not give one float32 [N,size] output",
    GOLDEN_INVALID: "golden.npz is damaged, or its arrays have the wrong type, shape or values",
    GOLDEN_MISMATCH: "the graph, run here, does not give the golden outputs",
    PROBABILITIES_INVALID: "a discrete policy's outputs are not probabilities that add up to 1",
}


@dataclass(frozen=True)
class ImageContract:
    """The observation. Version 1 knows exactly one, so every field has a single allowed value."""

    height: int = ranged(observation.HEIGHT, choices=(observation.HEIGHT,))
    width: int = ranged(observation.WIDTH, choices=(observation.WIDTH,))
    channels: int = ranged(observation.CHANNELS, choices=(observation.CHANNELS,))
    dtype: str = ranged("uint8", choices=("uint8",))
    layout: str = ranged("NHWC", choices=("NHWC",))
    color: str = ranged("gray", choices=("gray",))
    resize: str = ranged("bilinear", choices=("bilinear",))
    crop: str = ranged("none", choices=("none",))


@dataclass(frozen=True)
class CameraContract:
    """The camera that the policy was trained with; the defaults are DeepRacer's (forward is from the car's origin)."""

    horizontal_fov_deg: float = ranged(64.7, low=20.0, high=175.0)
    pitch_down_deg: float = ranged(15.0, low=-45.0, high=90.0)
    height_m: float = ranged(0.127, low=0.01, high=1.0)
    forward_m: float = ranged(0.145, low=-0.5, high=1.0)
    roll_deg: float = ranged(0.0, low=-45.0, high=45.0)
    frame_rate_hz: float = ranged(15.0, low=1.0, high=240.0)


@dataclass(frozen=True)
class ActionLimits:
    """The kind of the action space, the width of the output, and the least and greatest steering and speed."""

    kind: str = ranged("discrete", choices=(DiscreteActionSpace.kind, ContinuousActionSpace.kind))
    size: int = ranged(10, low=2, high=30)
    steering_min_deg: float = ranged(-30.0, low=-90.0, high=90.0)
    steering_max_deg: float = ranged(30.0, low=-90.0, high=90.0)
    speed_min_mps: float = ranged(0.4, low=0.0, high=20.0)
    speed_max_mps: float = ranged(0.8, low=0.0, high=20.0)

    @classmethod
    def of(cls, space: ActionSpace) -> ActionLimits:
        """The limits of an action space."""
        if isinstance(space, DiscreteActionSpace):
            steering, speed = space.steering_deg, space.speed_mps
        else:
            steering = (space.steering_low_deg, space.steering_high_deg)
            speed = (space.speed_low_mps, space.speed_high_mps)
        return cls(space.kind, space.size, min(steering), max(steering), min(speed), max(speed))


@dataclass(frozen=True)
class Contract:
    """``contract.json``. `files` maps a member's name to its sha256 in hex and is filled in by `write_bundle`.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or `trained_on` is not JSON.
    """

    action: ActionLimits
    output: str = ranged(PROBABILITIES, choices=(PROBABILITIES, STEERING_AND_SPEED))
    control_period_s: float = ranged(0.1, low=0.01, high=1.0)
    camera: CameraContract = field(default_factory=CameraContract)
    image: ImageContract = field(default_factory=ImageContract)
    trained_on: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    format: str = ranged(FORMAT, choices=(FORMAT,))
    version: int = ranged(VERSION, choices=(VERSION,))

    def __post_init__(self) -> None:
        try:
            # Through JSON and back: tuples become lists, nothing is shared with the caller, NaN is refused.
            plain = json.loads(json.dumps(self.trained_on, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"contract: trained_on is not JSON: {error}", cause="a numpy number, a path, NaN or infinity in it"
            ) from error
        object.__setattr__(self, "trained_on", plain)
        object.__setattr__(self, "files", dict(self.files))
        check(self, where="contract")
        expected = output_of(self.action.kind)
        if self.output != expected:
            raise ConfigError(f"contract: output is {self.output!r}, a {self.action.kind} policy has {expected!r}")

    def to_json(self) -> str:
        """The text of ``contract.json``; the same contract always gives the same text."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Contract:
        """Parse ``contract.json`` strictly: every key must be there, none may be unknown.

        Raises:
            ConfigError: with the key that is wrong.
        """
        found = parse_json(text, where=CONTRACT_NAME)
        if isinstance(found, dict) and isinstance(found.get("camera"), dict):
            found["camera"].setdefault("roll_deg", 0.0)  # contracts of before 0.2.0: the simulator's camera was level
        return from_mapping(found, cls, where=CONTRACT_NAME, complete=True)


def contract_for(
    space: ActionSpace,
    *,
    control_period_s: float,
    camera: CameraContract | None = None,
    trained_on: dict[str, Any] | None = None,
) -> Contract:
    """The contract of a policy with this action space, without file hashes; the camera is DeepRacer's by default."""
    return Contract(
        action=ActionLimits.of(space),
        output=output_of(space.kind),
        control_period_s=control_period_s,
        camera=camera or CameraContract(),
        trained_on=trained_on or {},
    )


def output_of(kind: str) -> str:
    """What a policy of this kind of action space puts out."""
    return PROBABILITIES if kind == DiscreteActionSpace.kind else STEERING_AND_SPEED
