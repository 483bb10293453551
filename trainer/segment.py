"""Experience on its way: some steps of some cars by one worker, and everything that learning and logs need of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.batch_env import IN_PROGRESS, STATUS_NAMES, Columns
from trainer.errors import FrameError
from trainer.networks import Architecture
from trainer.wire import seal, unseal

# Of `BatchEnv.columns`, what `trainer.trace_log` writes, and how it is kept there.
COLUMNS: dict[str, type] = {
    "x": float, "y": float, "heading_deg": float, "speed_mps": float, "steering_deg": float, "steps": int,
    "progress": float, "projection_distance": float, "track_length": float, "prev_waypoint": int,
    "next_waypoint": int, "all_wheels_on_track": bool,
}  # fmt: skip
_C = len(COLUMNS)
# Of every array its type and shape: T steps, N cars, E episodes that ended, L of them bootstrapped, H x W seen, and S
# columns of the simulator's state.
_SHAPES: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "observation": ("f2|u1", ("T", "N", "H", "W")),
    "state": ("f4", ("T", "N", "S")),
    "action": ("i4|f4", ("T", "N")),
    "log_probability": ("f4", ("T", "N")),
    "reward": ("f8", ("T", "N")),
    "status": ("u1", ("T", "N")),
    "last_at": ("i4", ("L", 2)),
    "last_observation": ("f2|u1", ("L", "H", "W")),
    "last_state": ("f4", ("L", "S")),
    "next_observation": ("f2|u1", ("N", "H", "W")),
    "next_state": ("f4", ("N", "S")),
    "columns": ("f8", (_C, "T", "N")),
    "begin_columns": ("f8", (_C, "N")),
    "begin_track": ("i4", ("N",)),
    "track": ("i4", ("T", "N")),
    "starts": ("f8", (_C, "E")),
}
_NUMBERS = ("version", "worker", "sequence", "incarnation")


@dataclass
class Segment:
    """T steps of N cars, arrays (T, N, ...) unless said."""

    observation: NDArray[Any]  # (T, N, H, W) `pack`ed
    state: NDArray[np.float32]
    action: NDArray[Any]  # indices, or (T, N, 2)
    log_probability: NDArray[np.float32]  # of the behaviour policy
    reward: NDArray[np.float64]
    status: NDArray[np.uint8]
    last_at: NDArray[np.int32]  # (L, 2) step and car where an episode ended though the road goes on
    last_observation: NDArray[Any]  # (L, H, W)
    last_state: NDArray[np.float32]  # (L, S)
    next_observation: NDArray[Any]  # (N, H, W) after the last step
    next_state: NDArray[np.float32]  # (N, S)
    columns: NDArray[np.float64]  # (C, T, N) of COLUMNS
    begin_columns: NDArray[np.float64]  # (C, N) before the first step
    begin_track: NDArray[np.int32]  # (N,)
    track: NDArray[np.int32]  # after each step, of the run's tracks, those driven the other way round behind them
    starts: NDArray[np.float64]  # (C, E) of the episodes that began after a step, in order of step and car
    version: int  # of the policy that drove
    worker: int
    sequence: int  # counts the worker's segments
    incarnation: int  # a number of its own for each start of a worker
    session: str  # of the learner that it was driven for
    wall_s: float  # when it was done
    sim_s: float  # that the worker has simulated so far

    @property
    def steps(self) -> int:
        """Of all cars together."""
        return int(self.reward.size)

    def encode(self) -> bytes:
        """As a frame (`trainer.wire`)."""
        meta = {name: getattr(self, name) for name in (*_NUMBERS, "session", "wall_s", "sim_s")}
        return seal("segment", meta, {name: getattr(self, name) for name in _SHAPES})


def decode(data: bytes) -> Segment:
    """The reverse of ``Segment.encode``.

    Raises:
        FrameError: damaged, or a shape, a type or a number that no worker sends.
    """
    meta, arrays = unseal("segment", data)
    names = {f.name for f in fields(Segment)}
    if set(meta) | set(arrays) != names or set(arrays) != set(_SHAPES):
        raise FrameError(f"a segment with {sorted((set(meta) | set(arrays)) ^ names)} too many or too few")
    sizes: dict[str, int] = {}
    for name, (kinds, shape) in _SHAPES.items():
        array = arrays[name]
        wanted = list(shape)
        if name == "action" and array.dtype == np.float32:
            wanted.append(2)
        if array.dtype.str[1:] not in kinds.split("|") or array.ndim != len(wanted):
            raise FrameError(f"a segment whose {name} is {array.dtype} {array.shape}")
        for size, letter in zip(array.shape, wanted, strict=True):
            if (sizes.setdefault(letter, size) if isinstance(letter, str) else letter) != size:
                raise FrameError(f"a segment whose {name} has the shape {array.shape}: {letter} is not {size}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FrameError(f"a segment whose {name} is not finite")
    for name in _NUMBERS:
        if type(meta[name]) is not int or meta[name] < 0:
            raise FrameError(f"a segment whose {name} is {meta[name]!r}")
    if not isinstance(meta["session"], str) or not all(isinstance(meta[k], float) for k in ("wall_s", "sim_s")):
        raise FrameError("a segment whose session or time is of a wrong type")
    segment = Segment(**arrays, **meta)  # type: ignore[arg-type]  # checked above, one by one
    t, n = segment.reward.shape
    at = segment.last_at
    outside = len(at) > 0 and (at.min() < 0 or bool((at >= (t, n)).any()))
    if t < 1 or n < 1 or segment.status.max() >= len(STATUS_NAMES) or outside:
        raise FrameError("a segment without steps, or with a status or an episode's end that is none")
    if (segment.status != IN_PROGRESS).sum() != sizes["E"] or min(segment.track.min(), segment.begin_track.min()) < 0:
        raise FrameError("a segment whose episodes do not add up")
    return segment


def pack(observation: Tensor, architecture: Architecture) -> NDArray[Any]:
    """``front``'s output (N, 1, H, W) as it travels: plain grays as bytes, others in half precision."""
    if architecture.pool == 1 and not architecture.contrast:
        return (observation[:, 0] * 255.0).round().to(torch.uint8).numpy()
    return observation[:, 0].half().numpy()


def unpack(packed: NDArray[Any]) -> Tensor:
    """(..., H, W) as it travels -> (N, 1, H, W) float32."""
    flat = torch.from_numpy(packed.reshape(-1, 1, *packed.shape[-2:]))
    return flat.float() * (1.0 / 255.0) if flat.dtype == torch.uint8 else flat.float()


def stack_columns(columns: Columns) -> NDArray[np.float64]:
    """The COLUMNS of ``BatchEnv.columns``, (C, n)."""
    return np.stack([columns[name].astype(np.float64) for name in COLUMNS])


def name_columns(stacked: NDArray[np.float64]) -> Columns:
    """The reverse of ``stack_columns``."""
    return {name: row.astype(kind) for (name, kind), row in zip(COLUMNS.items(), stacked, strict=True)}
