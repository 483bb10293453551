"""From the workers' segments to an update's data: the learner's side of rollouts in other processes or machines."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sim.batch_env import IN_PROGRESS
from trainer.actor import autocast
from trainer.config import RunConfig
from trainer.errors import FrameError
from trainer.experience import ExperienceBuffer, MemoryBuffer
from trainer.fleet import Fleet
from trainer.ppo import PPO, Batch, generalised_advantage
from trainer.rollout import describe_run, seal_policy
from trainer.run_folder import RunFolder
from trainer.segment import COLUMNS, Segment, decode, pack, unpack
from trainer.worker_logs import WorkerLogs
from vehicle.action_space import ContinuousActionSpace

_WAIT_S = 0.5
_PROGRESS = list(COLUMNS).index("progress")
_STEPS = list(COLUMNS).index("steps")
Note = Callable[[str, str], None]


@dataclass
class _Worker:
    """What is known of a worker: where its segments stand, and the reward so far of every car's episode."""

    incarnation: int
    sequence: int
    reward: np.ndarray = field(repr=False)  # (N,), NaN where the beginning of the episode was not seen


class Gatherer:
    """Publishes policies, takes segments, and makes them an update's data.

    Args:
        folder, config, learner: of the run.
        address: of a Redis server; None keeps segments in memory.
        note: told of events, by name and in words.
        log: gets every segment that was driven, stale ones too.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, learner: PPO, address: str | None, note: Note,
        log: WorkerLogs | None,
    ) -> None:  # fmt: skip
        self._config, self._learner, self._note, self._log = config, learner, note, log
        self._session = secrets.token_hex(8)
        self._version, self._published = 0, -1
        self._workers: dict[int, _Worker] = {}
        self._uniform = config.rollout.prefill_steps > 0 and learner.steps == 0
        ppo, rollout = config.ppo, config.rollout
        self._needed = ppo.cars * ppo.steps_per_update
        segment = rollout.cars_of(ppo.cars) * rollout.steps_of(ppo.steps_per_update)
        capacity = rollout.queue or max(1, -(-self._needed // segment))
        run = describe_run(folder, self._session)
        self.buffer: ExperienceBuffer
        if address is None:
            self.buffer = MemoryBuffer(run, capacity)
        else:
            from trainer.redis_buffer import RedisBuffer

            self.buffer = RedisBuffer(address, run, self._session, capacity, lambda text: note("buffer", text))
        # Against pictures of another network or size: they would only be found out in the middle of an update.
        seen = pack(learner.look(learner._frames[:1], learner._state[:1]), learner.policy.architecture)
        self._seen = (seen.dtype, seen.shape[1:])
        self._fleet: Fleet | None = None
        try:
            if rollout.workers:
                threads = max(1, torch.get_num_threads() // rollout.workers)
                self._fleet = Fleet(self.buffer, rollout.workers, threads, note)
        except BaseException:
            self.buffer.close()
            raise

    def collect(self, stop: Callable[[], bool]) -> tuple[Batch | None, dict[str, float]]:
        """Wait for an update's worth of segments.

        Returns:
            the data (None where ``stop`` said so first), and figures for the metrics: workers, policy_age (mean, in
            updates), stale_steps (that were left out).

        Raises:
            TrainerError: a worker failed in a way that would come again; BufferLost: the server refuses us.
        """
        learner = self._learner
        if self._published < self._version:
            policy = seal_policy(learner.policy, self._version, learner.steps, self._uniform)
            self.buffer.publish_policy(self._version, policy)
            self._published = self._version
        wanted = self._needed
        if self._uniform:
            wanted = max(wanted, self._config.rollout.prefill_steps)
        taken: list[Segment] = []
        got = stale = 0
        while got < wanted:
            if stop():
                return None, {}
            if self._fleet is not None:
                self._fleet.check()
            for data in self.buffer.take(_WAIT_S):
                segment = self._accept(data)
                if segment is None:
                    continue
                if self._age(segment) > self._config.rollout.max_age and self._config.rollout.stale == "drop":
                    stale += segment.steps
                    continue
                taken.append(segment)
                got += segment.steps
        ages = np.array([self._age(segment) for segment in taken])
        self._version += 1
        self._uniform = False
        learner.steps += got
        sizes = np.array([s.steps for s in taken])
        figures = {
            "workers": float(len({s.worker for s in taken})),
            "policy_age": float((ages * sizes).sum() / sizes.sum()),
            "stale_steps": float(stale),
        }
        return self._batch(taken, ages), figures

    def _age(self, segment: Segment) -> int:
        return self._version - segment.version

    # -- one segment ------------------------------------------------------------------------------------------------

    def _accept(self, data: bytes) -> Segment | None:
        """A segment of this run's, noted in logs and episodes; None for any other, with a word in the event log."""
        try:
            segment = decode(data)
            self._check(segment)
        except FrameError as error:
            self._note("segment_refused", f"a segment is left out: {error}")
            return None
        if segment.session != self._session:
            return None  # of an earlier session of this run: what was in flight when it ended
        known = self._workers.get(segment.worker)
        follows = known is not None and known.incarnation == segment.incarnation
        if known is not None and follows and segment.sequence != known.sequence + 1:
            missing = segment.sequence - known.sequence - 1
            if missing < 0:
                return None  # it came twice
            self._note("segments_lost", f"{missing} segments of worker {segment.worker} were lost on the way")
            follows = False
        if known is None or not follows:
            fresh = segment.begin_columns[_STEPS] == 0
            known = _Worker(segment.incarnation, segment.sequence, np.where(fresh, 0.0, np.nan))
            self._workers[segment.worker] = known
        known.sequence = segment.sequence
        for t, reward in enumerate(segment.reward):
            known.reward += reward
            for car in np.flatnonzero(segment.status[t] != IN_PROGRESS).tolist():
                if not np.isnan(known.reward[car]):
                    progress = float(segment.columns[_PROGRESS, t, car])
                    steps = int(segment.columns[_STEPS, t, car])
                    self._learner.note_episode(known.reward[car], progress, int(segment.status[t, car]), steps)
                known.reward[car] = 0.0
        if self._log is not None:
            self._log.add(segment, follows)
        return segment

    def _check(self, segment: Segment) -> None:
        """Raises FrameError where a segment would not fit the learner."""
        space = self._learner.env.action_space
        tracks = len(self._learner.env.tracks)
        if (segment.observation.dtype, segment.observation.shape[2:]) != self._seen:
            raise FrameError(f"its pictures are {segment.observation.dtype} {segment.observation.shape[2:]}")
        if segment.state.shape[2] != self._learner._state.shape[1]:
            raise FrameError(f"its state has {segment.state.shape[2]} columns")
        if isinstance(space, ContinuousActionSpace) != (segment.action.dtype == np.float32):
            raise FrameError(f"its actions are {segment.action.dtype}")
        if not isinstance(space, ContinuousActionSpace) and not (
            0 <= segment.action.min() and segment.action.max() < space.size
        ):
            raise FrameError(f"an action is none of the {space.size}")
        if max(segment.track.max(), segment.begin_track.max()) >= tracks:
            raise FrameError("a track is none of the run's")

    # -- an update's data -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _batch(self, segments: list[Segment], ages: NDArray[np.int64]) -> Batch:
        """Values and advantages with the present value network, weights by policy age in updates, (segments,)."""
        parts = [self._estimate(segment) for segment in segments]
        rollout = self._config.rollout
        weight = None
        if rollout.stale == "weight":
            beyond = np.maximum(0, ages - rollout.max_age).tolist()
            weight = torch.cat([torch.full((s.steps,), 0.5**b) for s, b in zip(segments, beyond, strict=True)])
        batch = Batch(*(torch.cat(column) for column in zip(*parts, strict=True)))
        batch.weight = weight
        return batch

    def _estimate(self, s: Segment) -> tuple[torch.Tensor, ...]:
        learner, config = self._learner, self._config.ppo
        t, n = s.reward.shape
        observation, state = unpack(s.observation), torch.from_numpy(s.state).flatten(0, 1)
        last_value = torch.zeros(t, n)
        with autocast():
            value = learner.value(state, observation).float().view(t, n)
            following = learner.value(torch.from_numpy(s.next_state), unpack(s.next_observation)).float()
            if len(s.last_at):
                at = torch.from_numpy(s.last_at.astype(np.int64))
                final = learner.value(torch.from_numpy(s.last_state), unpack(s.last_observation)).float()
                last_value[at[:, 0], at[:, 1]] = final
        done = torch.from_numpy((s.status != IN_PROGRESS).astype(np.float32))
        reward = torch.from_numpy(s.reward).float()
        advantage = generalised_advantage(
            reward, value, following, done, last_value, config.discount, config.gae_lambda
        )
        action = torch.from_numpy(s.action).flatten(0, 1)
        return (
            observation, state, action if action.is_floating_point() else action.long(),
            torch.from_numpy(s.log_probability).flatten(), advantage.flatten(), (advantage + value).flatten(),
            value.flatten(),
        )  # fmt: skip

    def close(self) -> None:
        """End the workers of this machine, and tell those of others that the run is over."""
        if self._fleet is not None:
            self._fleet.close()
        self.buffer.close()
