"""A rollout worker: drives its cars with the newest policy, and hands over one segment after the other.

``RolloutWorker`` is what any engine can host: it knows neither where policies come from nor where segments go.
``work`` is the loop around it of a process of its own, at the worker's end of an experience buffer.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sim.batch_env import IN_PROGRESS
from sim.track import Track
from trainer.actor import Actor, autocast
from trainer.config import RunConfig
from trainer.errors import FrameError
from trainer.networks import Policy
from trainer.run_folder import RunFolder
from trainer.segment import Segment, pack, stack_columns, unpack
from trainer.wire import seal, unseal
from trainer.world import make_env

_INPUT = re.compile(r"config\.toml|inputs/[^/\\\0.][^/\\\0]*")
_WAIT_S = 0.05


# -- what a learner publishes ------------------------------------------------------------------------------------------


def describe_run(folder: RunFolder, session: str) -> bytes:
    """Everything that a worker must know of a run: its configuration, tracks, reward function, action space, car."""
    paths = [folder.path / "config.toml", *sorted(p for p in (folder.path / "inputs").iterdir() if p.is_file())]
    files = {str(p.relative_to(folder.path)): np.frombuffer(p.read_bytes(), np.uint8) for p in paths}
    return seal("run", {"session": session}, files)


def open_description(data: bytes, target: Path) -> tuple[RunFolder, str]:
    """Put a published run into the empty folder ``target``; gives it and the learner's session.

    Raises:
        FrameError: damaged, or a file that does not belong there.
    """
    meta, files = unseal("run", data)
    (target / "inputs").mkdir(parents=True)
    for name, content in files.items():
        if not _INPUT.fullmatch(name) or content.dtype != np.uint8 or content.ndim != 1:
            raise FrameError(f"a run with a file {name!r}", cause="something else than a learner of ours wrote it")
        (target / name).write_bytes(content.tobytes())
    return RunFolder.open(target), str(meta.get("session", ""))


def seal_policy(policy: Policy, version: int, steps: int, uniform: bool) -> bytes:
    """Weights as a frame; ``uniform`` says that actions are to be drawn evenly, whatever they are."""
    weights = {name: value.detach().cpu().numpy() for name, value in policy.state_dict().items()}
    return seal("policy", {"version": version, "steps": steps, "uniform": uniform}, weights)


# -- the worker --------------------------------------------------------------------------------------------------------


class RolloutWorker:
    """Drives a share of a run's world.

    Args:
        folder: the run, as published; session: the learner's.
        number: which worker this is; what it drives depends on it (`worker_split`).
        incarnation: differs from start to start, so that no world is driven twice; None draws one.
        threads: of simulation and networks.
    """

    def __init__(
        self, folder: RunFolder, number: int, session: str = "", incarnation: int | None = None, threads: int = 1
    ) -> None:
        torch.set_num_threads(threads)
        self.config = folder.config()
        self.number, self.session = number, session
        self.incarnation = secrets.randbits(31) if incarnation is None else incarnation
        self.version, self._uniform = -1, False
        tracks, space = folder.tracks(), folder.action_space()
        mine, stretch = share_of(self.config, len(tracks), number)
        seed = int(np.random.SeedSequence([self.config.seed, number, self.incarnation]).generate_state(1)[0])
        cars = self.config.rollout.cars_of(self.config.ppo.cars)
        own: list[Track] = [tracks[k] for k in mine]
        self.env = make_env(
            self.config, own, space, folder.car(), folder.reward(), cars=cars, seed=seed, threads=threads,
            stretch=stretch, of=len(tracks),
        )  # fmt: skip
        # From the numbers of our tracks to those of the run's.
        self._numbers = np.array(mine + [k + len(tracks) for k in mine], np.int32)
        policy = Policy(self.config.network, space, self.config.ppo.symmetric)
        self.actor = Actor(policy, self.config.ppo, torch.Generator().manual_seed(seed), cars)
        self._frames = torch.from_numpy(self.env.reset().copy())
        self._state = torch.from_numpy(self.env.state()).float()
        self.sequence, self.sim_s = 0, 0.0

    def set_policy(self, data: bytes) -> None:
        """Drive with a published policy from now on.

        Raises:
            FrameError: damaged, or of another network.
        """
        meta, weights = unseal("policy", data)
        try:
            self.actor.policy.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
            self.actor.steps, version, self._uniform = int(meta["steps"]), int(meta["version"]), bool(meta["uniform"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise FrameError(f"a policy that does not fit the run: {error}") from error
        self.version = version

    @torch.no_grad()
    def drive(self) -> Segment:
        """The next ``segment_steps`` steps of every car. A policy must have been set.

        Raises:
            RewardError, PhysicsError: as `BatchEnv.step`.
        """
        env, actor, architecture = self.env, self.actor, self.actor.policy.architecture
        env.refresh_look()
        kept: dict[str, list[NDArray[Any]]] = {name: [] for name in _STACKED}
        last_at: list[tuple[int, int]] = []
        last: dict[str, list[NDArray[Any]]] = {"observation": [], "state": []}
        starts: list[NDArray[np.float64]] = []
        begin, begin_track = stack_columns(env.columns(np.zeros((env.n, 2)))), self._numbers[env.track]
        steps = self.config.rollout.steps_of(self.config.ppo.steps_per_update)
        for t in range(steps):
            # What the policy sees is what travels, so that its probabilities are those of what is learnt from.
            seen = pack(actor.look(self._frames, self._state), architecture)
            with autocast():
                output = actor.explored(actor.policy(unpack(seen)).float())
            action, log = actor.act(output, self._uniform)
            step = env.step(action.numpy())
            ended = step.status != IN_PROGRESS
            for car in step.last_ids.tolist():
                last_at.append((t, car))
            if len(step.last_ids):
                final = actor.look(torch.from_numpy(step.last_frames), self._state)
                last["observation"].append(pack(final, architecture))
                last["state"].append(step.last_state.astype(np.float32))
            if ended.any():
                starts.append(stack_columns(env.columns(np.zeros((env.n, 2))))[:, ended])
            moved = action.numpy()
            now: tuple[NDArray[Any], ...] = (
                seen, self._state.numpy(), moved if env.continuous else moved.astype(np.int32), log.numpy(),
                step.reward, step.status.astype(np.uint8), stack_columns(step.columns), self._numbers[env.track],
            )  # fmt: skip
            for name, array in zip(_STACKED, now, strict=True):
                kept[name].append(array)
            self._frames = torch.from_numpy(step.frames.copy())
            self._state = torch.from_numpy(env.state()).float()
        following = pack(actor.look(self._frames, self._state), architecture)
        arrays = {name: np.stack(each, axis=1 if name == "columns" else 0) for name, each in kept.items()}
        self.sim_s += steps * env.control_period_s
        segment = Segment(
            **arrays,
            last_at=np.array(last_at, np.int32).reshape(-1, 2),
            last_observation=np.concatenate([following[:0], *last["observation"]]),
            last_state=np.concatenate([np.zeros((0, env.STATE_SIZE), np.float32), *last["state"]]),
            next_observation=following,
            next_state=self._state.numpy().copy(),
            begin_columns=begin,
            begin_track=begin_track,
            starts=np.concatenate([begin[:, :0], *starts], axis=1),
            version=self.version,
            worker=self.number,
            sequence=self.sequence,
            incarnation=self.incarnation,
            session=self.session,
            wall_s=time.time(),
            sim_s=self.sim_s,
        )
        self.sequence += 1
        return segment

    def close(self) -> None:
        """Stop the world's threads."""
        self.env.close()


_STACKED = ("observation", "state", "action", "log_probability", "reward", "status", "columns", "track")


def share_of(config: RunConfig, tracks: int, number: int) -> tuple[list[int], tuple[float, float]]:
    """Which of a run's tracks, and what stretch of the lap, the worker ``number`` begins its episodes on."""
    rollout = config.rollout
    workers = max(1, rollout.workers)
    k = number % workers
    everything = list(range(tracks))
    if rollout.worker_split == "tracks":
        return (everything[k::workers] or [k % tracks]), (0.0, 1.0)
    if rollout.worker_split == "stretches":
        return everything, (k / workers, (k + 1) / workers)
    return everything, (0.0, 1.0)


class WorkerEnd(Protocol):
    """The worker's end of an experience buffer."""

    def run(self) -> bytes:
        """The published run; waits until there is one."""

    def policy(self, newer_than: int) -> bytes | None:
        """The newest policy, if it is newer."""

    def put(self, segment: bytes) -> bool:
        """Hand over a segment, when there is room. False: the run is over, or another one has begun."""


def work(end: WorkerEnd, number: int, incarnation: int | None = None, threads: int = 1) -> Mapping[str, int]:
    """Drive for one run until it is over.

    Returns:
        how many segments and steps were driven. Raises as `RolloutWorker.drive`.
    """
    with tempfile.TemporaryDirectory(prefix="hotlap-worker-") as place:
        folder, session = open_description(end.run(), Path(place) / "run")
        worker = RolloutWorker(folder, number, session, incarnation, threads)
        try:
            while True:
                fresh = end.policy(worker.version)
                if fresh is not None:
                    worker.set_policy(fresh)
                if worker.version < 0:
                    time.sleep(_WAIT_S)
                    continue
                segment = worker.drive()
                if not end.put(segment.encode()):
                    return {"segments": worker.sequence, "steps": worker.sequence * segment.steps}
        finally:
            worker.close()
