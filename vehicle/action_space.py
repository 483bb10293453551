"""What a policy may ask of the car: steering in degrees (+ is left) and speed in metres per second.

Two kinds, as DeepRacer has them: a list of actions to choose from, or a rectangle of steering and speed. Both read and
write DeepRacer's ``model_metadata.json``, so that its tools and people's files keep working.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from vehicle.config import parse_json
from vehicle.errors import ActionSpaceError, ConfigError

MIN_SPEED_MPS = 0.1
MAX_SPEED_MPS = 4.0
MAX_STEERING_DEG = 30.0
MIN_ACTIONS = 2
MAX_ACTIONS = 30

DEFAULT_NEURAL_NETWORK = "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"
DEFAULT_SENSOR = ("FRONT_FACING_CAMERA",)
METADATA_VERSION = "5"

_EXAMPLE = 'an action looks like {"steering_angle": 15.0, "speed": 0.8}'


@dataclass(frozen=True)
class DiscreteActionSpace:
    """A list of actions; action i is ``(steering_deg[i], speed_mps[i])``.

    Raises:
        ActionSpaceError: fewer than 2 or more than 30 actions, or one out of DeepRacer's limits.
    """

    steering_deg: tuple[float, ...]
    speed_mps: tuple[float, ...]
    kind: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        steering, speed = tuple(self.steering_deg), tuple(self.speed_mps)
        if len(steering) != len(speed):
            raise ActionSpaceError(
                f"{len(steering)} steering angles but {len(speed)} speeds", next_step="give every action one of each"
            )
        if not MIN_ACTIONS <= len(steering) <= MAX_ACTIONS:
            raise ActionSpaceError(
                f"{len(steering)} actions (allowed: {MIN_ACTIONS} to {MAX_ACTIONS})",
                cause="a policy needs something to choose from, and learns slowly with many choices",
                next_step="change the number of actions or the granularity",
            )
        object.__setattr__(
            self, "steering_deg", tuple(_steering(v, f"action {i}: steering_angle") for i, v in enumerate(steering))
        )
        object.__setattr__(self, "speed_mps", tuple(_speed(v, f"action {i}: speed") for i, v in enumerate(speed)))

    @property
    def size(self) -> int:
        """The number of actions A, which is the width of the policy's output."""
        return len(self.steering_deg)

    @property
    def max_speed_mps(self) -> float:
        return max(self.speed_mps)

    @property
    def max_steering_deg(self) -> float:
        return max(abs(s) for s in self.steering_deg)

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        table: npt.NDArray[np.float32] = np.array([self.steering_deg, self.speed_mps], dtype=np.float32).T.copy()
        table.setflags(write=False)
        return table

    def table(self) -> npt.NDArray[np.float32]:
        """All actions, float32 (A, 2): steering in degrees, speed in m/s."""
        copy: npt.NDArray[np.float32] = self._table.copy()
        return copy

    def decode(self, indices: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Action indices (n,) of an integer type to float32 (n, 2): steering in degrees, speed in m/s.

        Raises:
            ActionSpaceError: not integers, not one-dimensional, or an index below 0 or not below A.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise ActionSpaceError(f"action indices are {chosen.dtype} {chosen.shape}, they must be integers (n,)")
        # A negative index would silently count from the end.
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.size):
            bad = int(chosen[(chosen < 0) | (chosen >= self.size)][0])
            raise ActionSpaceError(f"action index {bad} does not exist (there are {self.size} actions)")
        actions: npt.NDArray[np.float32] = self._table[chosen]
        return actions

    def mirror(self) -> npt.NDArray[np.int64] | None:
        """The permutation p (A,) where action p[i] is action i steered to the other side; None where one is missing.

        Mirroring a frame left-right and permuting its actions with p gives another true example.
        """
        places: dict[tuple[float, float], list[int]] = defaultdict(list)
        for i, action in enumerate(zip(self.steering_deg, self.speed_mps, strict=True)):
            places[action].append(i)
        permutation = np.empty(self.size, dtype=np.int64)
        for (steering, speed), indices in places.items():
            opposite = places.get((0.0 - steering, speed), [])
            if len(opposite) != len(indices):
                return None
            permutation[indices] = opposite  # an action listed twice pairs its k-th place with the k-th opposite
        return permutation


@dataclass(frozen=True)
class ContinuousActionSpace:
    """A rectangle of steering and speed.

    Raises:
        ActionSpaceError: a limit is outside DeepRacer's, or a low is not below its high.
    """

    steering_low_deg: float
    steering_high_deg: float
    speed_low_mps: float
    speed_high_mps: float
    kind: ClassVar[str] = "continuous"
    size: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name in ("steering_low_deg", "steering_high_deg"):
            object.__setattr__(self, name, _steering(getattr(self, name), name))
        for name in ("speed_low_mps", "speed_high_mps"):
            object.__setattr__(self, name, _speed(getattr(self, name), name))
        for what, low, high in (
            ("steering", self.steering_low_deg, self.steering_high_deg),
            ("speed", self.speed_low_mps, self.speed_high_mps),
        ):
            if not low < high:
                raise ActionSpaceError(f"{what}: low {low} is not below high {high}", next_step="swap or widen them")

    @property
    def max_speed_mps(self) -> float:
        return self.speed_high_mps

    @property
    def max_steering_deg(self) -> float:
        return max(abs(self.steering_low_deg), abs(self.steering_high_deg))

    @property
    def symmetric(self) -> bool:
        """Whether the car may steer as far left as right."""
        return self.steering_low_deg == -self.steering_high_deg

    def _low_and_span(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        low = np.array([self.steering_low_deg, self.speed_low_mps])
        return low, np.array([self.steering_high_deg, self.speed_high_mps]) - low

    def decode(self, unit: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Unit-box actions (n, 2) to float32 (n, 2): clipped to [-1, 1], then linear to steering (deg), speed (m/s).

        Raises:
            ActionSpaceError: not (n, 2) or not finite.
        """
        low, span = self._low_and_span()
        return (low + (np.clip(_pairs(unit), -1.0, 1.0) + 1.0) * 0.5 * span).astype(np.float32)

    def encode(self, actions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The inverse of `decode`: steering (deg) and speed (m/s), (n, 2), to float32 (n, 2) in [-1, 1], clipped.

        Raises:
            ActionSpaceError: not (n, 2) or not finite.
        """
        low, span = self._low_and_span()
        return np.clip((_pairs(actions) - low) / span * 2.0 - 1.0, -1.0, 1.0).astype(np.float32)


ActionSpace: TypeAlias = DiscreteActionSpace | ContinuousActionSpace


def default_action_space() -> DiscreteActionSpace:
    """The ten actions of the DeepRacer developer guide, in its order: -30 deg at 0.4 m/s first, 30 deg at 0.8 last."""
    return grid_action_space(30.0, 5, 0.8, 2)


def grid_action_space(
    max_steering_deg: float, steering_granularity: int, max_speed_mps: float, speed_granularity: int
) -> DiscreteActionSpace:
    """DeepRacer's rule: steering evenly from -max to +max, speeds max*k/granularity, steering in the outer loop.

    A steering granularity of 1 is straight ahead.

    Raises:
        ActionSpaceError: a granularity below 1, or the actions break `DiscreteActionSpace`'s limits.
    """
    for name, n in (("steering", steering_granularity), ("speed", speed_granularity)):
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_ACTIONS:
            raise ActionSpaceError(f"{name} granularity {n!r} is not a whole number of 1 to {MAX_ACTIONS}")
    top_deg, top_mps = _steering(max_steering_deg, "maximum steering"), _speed(max_speed_mps, "maximum speed")
    if top_deg <= 0.0 and steering_granularity > 1:
        raise ActionSpaceError(f"maximum steering {top_deg} degrees is not above 0 with granularity > 1")
    last = steering_granularity - 1
    # Written so that the two sides are each other's exact negative, which mirror() relies on.
    angles = [top_deg * (2 * i - last) / last for i in range(steering_granularity)] if last else [0.0]
    speeds = [top_mps * k / speed_granularity for k in range(1, speed_granularity + 1)]
    return DiscreteActionSpace(
        tuple(a for a in angles for _ in speeds),
        tuple(v for _ in angles for v in speeds),
    )


def load_action_space(path: str | os.PathLike[str]) -> ActionSpace:
    """Read the action space of a DeepRacer ``model_metadata.json``, or of a JSON file that holds only it.

    Raises:
        ActionSpaceError: the file cannot be read, is not JSON, or holds no valid action space.
    """
    where = os.fspath(path)
    try:
        return action_space_from_metadata(parse_json(Path(path).read_bytes(), where=where))
    except OSError as error:
        raise ActionSpaceError(
            f"{where} cannot be read: {error.strerror or error}", next_step="check the path after --action-space"
        ) from error
    except ConfigError as error:
        raise ActionSpaceError(error.what, next_step=f"compare {where} with a model_metadata.json") from error
    except ActionSpaceError as error:
        raise ActionSpaceError(f"{where}: {error.what}", cause=error.cause, next_step=error.next_step) from error


def action_space_from_metadata(metadata: Mapping[str, Any] | Sequence[Any]) -> ActionSpace:
    """The action space in a parsed ``model_metadata.json``, a bare list of actions, or bare continuous limits.

    As on DeepRacer's car, an action is known by its place in the list and an "index" key is ignored.

    Raises:
        ActionSpaceError: with the action or key that is wrong.
    """
    space: object = metadata
    said: object = None
    if isinstance(metadata, Mapping) and "action_space" in metadata:
        space, said = metadata["action_space"], metadata.get("action_space_type")
    if isinstance(space, Mapping):
        kind = ContinuousActionSpace.kind
    elif isinstance(space, Sequence) and not isinstance(space, (str, bytes)):
        kind = DiscreteActionSpace.kind
    else:
        raise ActionSpaceError(
            f"the action space is a {type(space).__name__}", cause=_EXAMPLE, next_step="give a list of such actions"
        )
    if said is not None and said != kind:
        raise ActionSpaceError(
            f"action_space_type is {said!r} but the action space is {kind}",
            cause="a discrete space is a list of actions, a continuous one an object with low and high",
            next_step=f'set "action_space_type" to "{kind}" or change the action space',
        )
    if isinstance(space, Mapping):
        limits = [_member(_member(space, key, "action space"), end, key) for key in _KEYS for end in ("low", "high")]
        return ContinuousActionSpace(*limits)
    assert isinstance(space, Sequence)
    rows = [[_member(action, key, f"action {i}") for key in _KEYS] for i, action in enumerate(space)]
    return DiscreteActionSpace(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def to_metadata(
    space: ActionSpace,
    neural_network: str = DEFAULT_NEURAL_NETWORK,
    sensor: Sequence[str] = DEFAULT_SENSOR,
) -> dict[str, Any]:
    """DeepRacer's ``model_metadata.json`` (schema version 5) of an action space, as a dictionary ready for JSON."""
    actions: object
    if isinstance(space, DiscreteActionSpace):
        pairs = zip(space.steering_deg, space.speed_mps, strict=True)
        actions = [{"steering_angle": s, "speed": v, "index": i} for i, (s, v) in enumerate(pairs)]
    else:
        actions = {
            "steering_angle": {"low": space.steering_low_deg, "high": space.steering_high_deg},
            "speed": {"low": space.speed_low_mps, "high": space.speed_high_mps},
        }
    return {
        "action_space": actions,
        "sensor": list(sensor),
        "neural_network": neural_network,
        "training_algorithm": "clipped_ppo",
        "action_space_type": space.kind,
        "version": METADATA_VERSION,
    }


_KEYS = ("steering_angle", "speed")


def _member(value: object, key: str, where: str) -> Any:
    if not isinstance(value, Mapping) or key not in value:
        raise ActionSpaceError(f'{where}: "{key}" is missing', cause=_EXAMPLE, next_step=f'add "{key}"')
    return value[key]


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ActionSpaceError(f"{name} is {value!r}, not a number", cause=_EXAMPLE, next_step="give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ActionSpaceError(f"{name} is {number}, not a finite number", cause=_EXAMPLE, next_step="give a number")
    return number + 0.0  # -0.0 becomes 0.0


def _steering(value: object, name: str) -> float:
    number = _number(value, name)
    if abs(number) > MAX_STEERING_DEG:
        raise ActionSpaceError(
            f"{name} is {number} degrees (allowed: -{MAX_STEERING_DEG:g} to {MAX_STEERING_DEG:g})",
            cause="the car's front wheels turn about 30 degrees at most; beyond it the servo stalls",
            next_step="lower the angle",
        )
    return number


def _speed(value: object, name: str) -> float:
    number = _number(value, name)
    if not MIN_SPEED_MPS <= number <= MAX_SPEED_MPS:
        raise ActionSpaceError(
            f"{name} is {number} m/s (allowed: {MIN_SPEED_MPS} to {MAX_SPEED_MPS})",
            cause="below it the motor does not turn, above it the car is faster than DeepRacer's limit",
            next_step="change the speed, or the maximum speed or granularity it comes from",
        )
    return number


def _pairs(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ActionSpaceError(f"actions have shape {pairs.shape}, they must be (n, 2)")
    if not np.isfinite(pairs).all():
        raise ActionSpaceError(f"{int((~np.isfinite(pairs)).any(axis=1).sum())} of {len(pairs)} actions are not finite")
    return pairs
