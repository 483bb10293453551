"""How much each part of the picture matters for the action that a policy takes on it, found by taking it away.

Each place in turn is blurred under a soft round mask, and the map is how far the action moves: the chosen one's
probability, or steering and speed in parts of their range (Greydanus et al. 2018, "Visualizing and Understanding Atari
Agents"). The blur keeps the mean brightness, since these networks look at contrast. It needs the graph and no gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vehicle.action_space import ActionSpace, ContinuousActionSpace, DiscreteActionSpace
from vehicle.errors import VehicleError
from vehicle.observation import HEIGHT, WIDTH, check_observations

CELLS_PX = (8, 10, 20)  # 300, 192 or 48 places; the finest that the time allows
BATCH = 16  # frames at a time: bounds the memory, and how late the deadline is noticed
_TIMED = 4  # frames, to see how fast this computer is now
_BLUR = 1.5  # standard deviation, in cells


class TooSlow(VehicleError, TimeoutError):
    """This computer cannot make a map of this network in the time that there is."""


class Policy(Protocol):
    """`vehicle.policy.OnnxPolicy`."""

    @property
    def action_space(self) -> ActionSpace:
        """What its outputs mean."""
        ...

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Frames, uint8 (n, 120, 160, 1), to outputs, float32 (n, A) or (n, 2)."""
        ...


@dataclass(frozen=True, eq=False)
class Look:
    """What a policy looks at in one picture.

    Args:
        change: float32 (rows, columns), 0..1: how far the action moves without this place.
        output: of the whole picture, (A,) probabilities, or steering (deg) and speed (m/s).
    """

    change: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    space: ActionSpace

    @property
    def chosen(self) -> int | None:
        """Which action is taken; None where the policy gives steering and speed themselves."""
        return int(self.output.argmax()) if isinstance(self.space, DiscreteActionSpace) else None

    @property
    def action(self) -> tuple[float, float]:
        """Steering (deg) and speed (m/s)."""
        chosen = self.chosen
        if chosen is not None and isinstance(self.space, DiscreteActionSpace):
            return self.space.steering_deg[chosen], self.space.speed_mps[chosen]
        return float(self.output[0]), float(self.output[1])

    def actions(self) -> list[tuple[float, float, float]]:
        """(steering_deg, speed_mps, probability) of each action of a discrete policy."""
        if not isinstance(self.space, DiscreteActionSpace):
            return []
        rows = zip(self.space.steering_deg, self.space.speed_mps, self.output.tolist(), strict=True)
        return [(steering, speed, probability) for steering, speed, probability in rows]


def look(
    policy: Policy,
    observation: npt.NDArray[np.uint8],
    *,
    budget_s: float,
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """The map of one observation, uint8 (120, 160, 1).

    Args:
        budget_s: what it should take at most; the finest grid that promises to keep to it is taken.
        deadline_s: what it must never take, since others want the processor too.

    Raises:
        TooSlow: the deadline.
        ObservationError, PolicyOutputError, BundleError: as `OnnxPolicy`.
    """
    check_observations(observation[None])
    begun_s = clock()
    output = policy(observation[None])[0]  # of a cold session as well, so the second run is what counts
    warm_s = clock()
    policy(np.repeat(observation[None], _TIMED, axis=0))
    each_s = (clock() - warm_s) / _TIMED
    cell_px = next((cell for cell in CELLS_PX if each_s * places(cell) <= budget_s), CELLS_PX[-1])
    changes: list[npt.NDArray[np.float32]] = []
    for frames in perturbed(observation[..., 0], cell_px):
        if clock() - begun_s > deadline_s:
            raise TooSlow(
                f"the map was not done after {deadline_s:g} s: one picture takes this network {1e3 * each_s:.0f} ms",
                cause="the network is large for this computer, or the computer is busy",
                next_step="look again when the car stands, or train with a smaller network",
            )
        changes.append(_change(policy.action_space, output, policy(frames)))
    grid = np.concatenate(changes).reshape(HEIGHT // cell_px, WIDTH // cell_px)
    return Look(grid, output, policy.action_space)


def places(cell_px: int) -> int:
    """How many places a grid of this cell has."""
    return (HEIGHT // cell_px) * (WIDTH // cell_px)


def perturbed(gray: npt.NDArray[np.uint8], cell_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The picture, uint8 (120, 160), once without each place, row by row, in batches (n, 120, 160, 1)."""
    picture = gray.astype(np.float32)
    missing = cv2.GaussianBlur(picture, (0, 0), _BLUR * cell_px) - picture
    mask = bump(cell_px)
    batch: list[npt.NDArray[np.uint8]] = []
    for row in range(HEIGHT // cell_px):
        for column in range(WIDTH // cell_px):
            ys, mask_ys = _window(row, cell_px, HEIGHT)
            xs, mask_xs = _window(column, cell_px, WIDTH)
            changed = gray.copy()
            changed[ys, xs] = np.rint(picture[ys, xs] + mask[mask_ys, mask_xs] * missing[ys, xs])
            batch.append(changed[..., None])
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)


def _window(place: int, cell_px: int, size_px: int) -> tuple[slice, slice]:
    """Where the mask of a place lies in the picture, along one side, and what of the mask that is."""
    begin = place * cell_px + cell_px // 2 - 2 * cell_px
    low, high = max(begin, 0), min(begin + 4 * cell_px, size_px)
    return slice(low, high), slice(low - begin, high - begin)


def bump(cell_px: int) -> npt.NDArray[np.float32]:
    """A soft round mask, (4 cells, 4 cells): 1 in the middle, half at one cell from it, 0 from two cells on."""
    offset = np.arange(4 * cell_px, dtype=np.float32) - 2 * cell_px + 0.5
    distance = np.hypot(offset[:, None], offset[None, :]) / (2 * cell_px)
    return np.asarray(np.where(distance < 1.0, np.cos(0.5 * np.pi * distance) ** 2, 0.0), np.float32)


def _change(
    space: ActionSpace, output: npt.NDArray[np.float32], without: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """How far the action moves from `output`, (A,), to each of `without`, (n, A)."""
    moved: npt.NDArray[Any] = np.abs(without - output)
    if isinstance(space, ContinuousActionSpace):
        span = [space.steering_high_deg - space.steering_low_deg, space.speed_high_mps - space.speed_low_mps]
        return np.asarray(np.minimum((moved / np.array(span)).max(axis=1), 1.0), np.float32)
    return np.asarray(moved[:, int(output.argmax())], np.float32)
