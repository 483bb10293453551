"""DeepRacer's files as they are: the ``custom_files`` folder of a person who comes over, and what will differ here.

    FOLDER/reward_function.py      loaded and tried like any other (`sim.reward`)
    FOLDER/hyperparameters.json    `trainer.deepracer_hyperparameters`
    FOLDER/model_metadata.json     action space, sensors, network

The files may also lie where DeepRacer's own model folders have them (``custom_files/``, ``model/``, ``ip/``). What is
not there is hotlap's default.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sim.reward import RewardFunction, load_reward
from trainer.config import RunConfig
from trainer.deepracer_hyperparameters import (
    DIFFERS,
    HONOURED,
    IGNORED,
    KEYS,
    Finding,
    Value,
    apply_hyperparameters,
    read_hyperparameters,
)
from trainer.errors import DeepRacerError
from trainer.networks import DEFAULT_NETWORK, NETWORKS
from vehicle.action_space import (
    ActionSpace,
    ContinuousActionSpace,
    action_space_from_metadata,
    default_action_space,
)
from vehicle.config import parse_json
from vehicle.errors import ActionSpaceError, ConfigError

REWARD, HYPERPARAMETERS, METADATA = "reward_function.py", "hyperparameters.json", "model_metadata.json"
_PLACES = {
    REWARD: ("", "custom_files"),
    HYPERPARAMETERS: ("", "custom_files", "ip"),
    METADATA: ("", "custom_files", "model"),
}

# What a DeepRacer run has by default and ours has not (spec §3): its steps, one direction, starts around the track.
CONTROL_HZ = 15.0
BASE = RunConfig(control_hz=CONTROL_HZ, both_directions=False, start="advance")

_CAMERAS = {
    "FRONT_FACING_CAMERA": (HONOURED, "160 x 120 grays, as in DeepRacer"),
    "observation": (HONOURED, "the front camera's name in old files"),
    "LEFT_CAMERA": (DIFFERS, "one camera in the car's middle; DeepRacer's is 3 cm to the left"),
    "STEREO_CAMERAS": (DIFFERS, "one camera in the car's middle instead of two: no depth"),
}
_LIDARS = ("LIDAR", "SECTOR_LIDAR", "DISCRETIZED_SECTOR_LIDAR")
_ALGORITHMS = {
    "clipped_ppo": (HONOURED, "PPO with a clipped ratio"),
    "sac": (DIFFERS, "PPO trains, there is no SAC here"),
}
_METADATA_KEYS = (
    "action_space", "sensor", "neural_network", "training_algorithm", "action_space_type", "version", "lidar_config",
    "preprocess_type",
)  # fmt: skip
_SHALLOW = "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"


@dataclass(frozen=True)
class Imported:
    """DeepRacer's files, checked, as a run of ours."""

    config: RunConfig
    space: ActionSpace
    reward: RewardFunction
    findings: tuple[Finding, ...]
    files: dict[str, Path] = field(default_factory=dict)

    def verbatim(self) -> dict[str, bytes]:
        """The files' own bytes by name, for the run's folder."""
        return {name: path.read_bytes() for name, path in self.files.items()}


def find_files(path: Path) -> dict[str, Path]:
    """DeepRacer's files at a folder, or the one file that ``path`` is, by their own names.

    Raises:
        DeepRacerError: nothing of the kind is there.
    """
    if path.is_file():
        return {_kind(path): path}
    if not path.is_dir():
        raise DeepRacerError(
            f"{path} is not there", cause="a wrong path", next_step="give the folder that holds reward_function.py"
        )
    found = {
        name: path / place / name
        for name, places in _PLACES.items()
        for place in reversed(places)  # the nearest one wins
        if (path / place / name).is_file()
    }
    if not found:
        inside = sorted(p.name for p in path.iterdir())[:8]
        raise DeepRacerError(
            f"{path} holds none of {', '.join(_PLACES)}" + (f" (but {', '.join(inside)})" if inside else ""),
            cause="another folder was meant: DeepRacer's is called custom_files",
            next_step="hotlap import FOLDER with the folder that holds them",
        )
    return found


def _kind(path: Path) -> str:
    """Which of the three a single file is: by its ending, and a JSON file by its keys."""
    if path.suffix == ".py":
        return REWARD
    content = _json(path)
    if isinstance(content, Mapping) and {"action_space", "sensor", "neural_network"} & set(content):
        return METADATA
    if path.name == METADATA or isinstance(content, list):
        return METADATA
    if path.name == HYPERPARAMETERS or (isinstance(content, Mapping) and set(content) & set(KEYS)):
        return HYPERPARAMETERS
    raise DeepRacerError(
        f"{path} is neither of {', '.join(_PLACES)}",
        cause="a JSON file with keys of neither",
        next_step="compare it with one that DeepRacer takes",
    )


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes(), where=str(path))
    except OSError as error:
        raise DeepRacerError(f"{path} cannot be read: {error.strerror or error}") from error
    except ConfigError as error:
        raise DeepRacerError(error.what, cause="a comma too many, or text without quotes", next_step="") from error


def import_deepracer(path: Path, config: RunConfig | None = None) -> Imported:
    """Read and check DeepRacer's files, and say what will differ.

    Args:
        path: the folder, or one of its files.
        config: what the files are applied to; None is a run as DeepRacer's simulator has it (``BASE``).

    Raises:
        DeepRacerError, ActionSpaceError, RewardError: what DeepRacer would refuse as well, or cannot work here.
    """
    files = find_files(path)
    findings: list[Finding] = []
    if config is None:
        config = BASE
        findings.append(
            Finding("", "simulator", "", HONOURED, "steps of 1/15 s, one direction, starts 5 % of the lap further on")
        )
        findings.append(Finding("", "start", "", DIFFERS, f"{config.ppo.cars} cars drive at once, each alone"))
    space: ActionSpace = default_action_space()
    sac = False
    if METADATA in files:
        space, network, sac, said = read_metadata(_json(files[METADATA]), str(files[METADATA]))
        findings += said
        config = replace(config, network=network or config.network)
    if HYPERPARAMETERS in files:
        where = str(files[HYPERPARAMETERS])
        values: dict[str, Value] = read_hyperparameters(_json(files[HYPERPARAMETERS]), where, sac)
        continuous = isinstance(space, ContinuousActionSpace)
        config, said = apply_hyperparameters(config, values, HYPERPARAMETERS, continuous, sac)
        findings += said
    reward = load_reward(files.get(REWARD))
    if REWARD in files:
        findings += _about_reward(reward)
    for name in _PLACES:
        if name not in files and path.is_dir():
            findings.append(Finding(name, "(file)", None, DIFFERS, f"not there: {_DEFAULTS[name]}"))
    return Imported(config, space, reward, tuple(findings), files)


_DEFAULTS = {
    REWARD: "DeepRacer's default, the centre line",
    HYPERPARAMETERS: "hotlap's own hyperparameters",
    METADATA: "the ten actions of DeepRacer's guide",
}


def _about_reward(reward: RewardFunction) -> list[Finding]:
    found = [Finding(REWARD, "reward_function", None, HONOURED, "runs as it is; tried on synthetic states")]
    if "object" in reward.source or "is_crashed" in reward.source:
        text = "a time trial's road is empty; with --race object_avoidance or head_to_bot they hold what is on it"
        if reward.needs_objects:
            text = "it takes an object from the list: train it with --race object_avoidance or --race head_to_bot"
        found.append(Finding(REWARD, "objects_*", None, DIFFERS, text))
    return found


def read_metadata(content: object, where: str) -> tuple[ActionSpace, str | None, bool, list[Finding]]:
    """A parsed ``model_metadata.json``: action space, network (None: ours), whether it wants SAC, and findings.

    Raises:
        ActionSpaceError: the action space; DeepRacerError: another key that DeepRacer would refuse.
    """
    try:
        if not isinstance(content, (Mapping, list)):
            raise ActionSpaceError(f"it holds {type(content).__name__}, not an object")
        space = action_space_from_metadata(content)
    except ActionSpaceError as error:
        raise ActionSpaceError(f"{where}: {error.what}", cause=error.cause, next_step=error.next_step) from error
    found = [Finding(METADATA, "action_space", None, HONOURED, f"{space.kind}, {_words(space)}")]
    if not isinstance(content, Mapping):
        return space, None, False, found
    for key in content:
        if key in _METADATA_KEYS:
            continue
        near = difflib.get_close_matches(str(key), _METADATA_KEYS, n=1, cutoff=0.75)
        if near:
            raise DeepRacerError(
                f"{where}: unknown key {key!r}",
                cause="a misspelled key: DeepRacer would have taken its default without a word",
                next_step=f"did you mean {near[0]!r}?",
            )
        found.append(Finding(METADATA, str(key), content[key], IGNORED, "DeepRacer does not know this key either"))
    found += _sensors(content.get("sensor", ["observation"]), where)
    network = None
    if "neural_network" in content:
        name = _choice(content["neural_network"], tuple(NETWORKS), "neural_network", where)
        network = name if name != _SHALLOW else None
        if network is None:
            text = (
                f"every file names it; {DEFAULT_NETWORK} learns many times faster here (--network {_SHALLOW} keeps it)"
            )
            found.append(Finding(METADATA, "neural_network", name, DIFFERS, text))
        else:
            found.append(Finding(METADATA, "neural_network", name, HONOURED, "the same layers"))
    algorithm = _choice(
        content.get("training_algorithm", "clipped_ppo"), tuple(_ALGORITHMS), "training_algorithm", where
    )
    if "training_algorithm" in content:
        found.append(Finding(METADATA, "training_algorithm", algorithm, *_ALGORITHMS[algorithm]))
    for key, text in (
        ("version", "one simulator here: wheels of 0.036 m, as DeepRacer's versions 3 and later"),
        ("lidar_config", "no lidar is simulated"),
        ("preprocess_type", "pictures are grays in any case"),
    ):
        if key in content:
            found.append(Finding(METADATA, key, content[key], IGNORED, text))
    return space, network, algorithm == "sac", found


def _sensors(value: object, where: str) -> list[Finding]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list):
        raise DeepRacerError(f"{where}: sensor is {value!r}, not a list", next_step='"sensor": ["FRONT_FACING_CAMERA"]')
    known = (*_CAMERAS, *_LIDARS)
    chosen = [_choice(name, known, "sensor", where) for name in names]
    cameras = [name for name in chosen if name in _CAMERAS]
    if len(cameras) != 1 or len(chosen) - len(cameras) > 1:
        raise DeepRacerError(
            f"{where}: sensor is {names!r}: {len(cameras)} cameras, {len(chosen) - len(cameras)} lidars",
            cause="DeepRacer takes exactly one camera and at most one lidar",
            next_step='"sensor": ["FRONT_FACING_CAMERA"]',
        )
    text = "no lidar is simulated: the policy drives by the camera alone"
    return [Finding(METADATA, "sensor", n, *_CAMERAS.get(n, (IGNORED, text))) for n in chosen]


def _choice(value: object, known: tuple[str, ...], key: str, where: str) -> str:
    if value in known:
        return str(value)
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)[0]
    raise DeepRacerError(
        f"{where}: {key} {value!r} is not one that DeepRacer knows",
        cause="known are " + ", ".join(known),
        next_step=f"did you mean {near!r}?",
    )


def _words(space: ActionSpace) -> str:
    if isinstance(space, ContinuousActionSpace):
        return (
            f"{space.steering_low_deg:g} to {space.steering_high_deg:g} deg, "
            f"{space.speed_low_mps:g} to {space.speed_high_mps:g} m/s"
        )
    return f"{space.size} actions up to {space.max_steering_deg:g} deg and {space.max_speed_mps:g} m/s"
