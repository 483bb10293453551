"""Teacher, student, fine-tune: the method `--method distill`.

A teacher learns with PPO on the simulator's state, without a camera, at many times the speed. The student then drives
with the camera while the teacher says what it would have done (DAgger: Ross et al. 2011, arXiv 1011.0686), so that the
student learns what to do where its own mistakes lead. At last PPO on pixels goes on from there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from sim.batch_env import BatchEnv
from trainer.actor import autocast
from trainer.networks import Policy, mlp
from trainer.ppo import PPO
from trainer.trace_log import TraceLog
from vehicle.action_space import ActionSpace, ContinuousActionSpace

if TYPE_CHECKING:
    from trainer.training import Training

_SHARPNESS = 4.0  # of the teacher's logits
_ROUND = 8  # steps of every car between two rounds of learning
TEACHER_SHARE_OF_REPORTS = 5  # updates between two rows of metrics of the fast teacher


class StatePolicy(nn.Module):
    """A policy on the privileged state, symmetric like the camera's one."""

    sees_state = True
    architecture = None
    mirror: Tensor
    signs: Tensor

    def __init__(self, action_space: ActionSpace, symmetric: bool = True) -> None:
        super().__init__()
        self.name = "STATE"
        self.continuous = isinstance(action_space, ContinuousActionSpace)
        self.layers = mlp((BatchEnv.STATE_SIZE, 128, 128, action_space.size), 0.01)
        self.register_buffer("signs", torch.as_tensor(BatchEnv.MIRROR_STATE).float())
        if isinstance(action_space, ContinuousActionSpace):
            self.symmetric = symmetric and action_space.symmetric
            self.register_buffer("mirror", torch.tensor([-1.0, 1.0]))
            self.log_std: nn.Parameter | None = nn.Parameter(torch.full((2,), -0.7))
        else:
            mirror = action_space.mirror()
            self.symmetric = symmetric and mirror is not None
            self.register_buffer("mirror", torch.as_tensor(mirror if mirror is not None else range(action_space.size)))
            self.log_std = None

    def front(self, state: Tensor) -> Tensor:
        """(N, STATE_SIZE), as it is."""
        return state

    def forward(self, state: Tensor) -> Tensor:
        """(N, A) logits, or (N, 2) means."""
        if not self.symmetric:
            output: Tensor = self.layers(state)
            return output
        straight, flipped = self.layers(torch.cat([state, state * self.signs])).chunk(2)
        both: Tensor = 0.5 * (straight + (flipped * self.mirror if self.continuous else flipped[:, self.mirror]))
        return both


class Examples:
    """A ring of what the student saw and what the teacher would have done."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: Tensor | None = None
        self._wanted: Tensor | None = None
        self._next = 0
        self.size = 0

    def add(self, seen: Tensor, wanted: Tensor) -> None:
        """Observations (n, …) with the teacher's outputs (n, A)."""
        if self._seen is None or self._wanted is None:
            self._seen = torch.empty(self._capacity, *seen.shape[1:])
            self._wanted = torch.empty(self._capacity, *wanted.shape[1:])
        where = (self._next + torch.arange(len(seen))) % self._capacity
        self._seen[where], self._wanted[where] = seen, wanted
        self._next = (self._next + len(seen)) % self._capacity
        self.size = min(self._capacity, self.size + len(seen))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch."""
        assert self._seen is not None and self._wanted is not None
        pick = torch.randint(self.size, (count,), generator=generator)
        return self._seen[pick], self._wanted[pick]


def _sharper(output: Tensor, policy: Policy) -> Tensor:
    """The teacher's output as an example: a teacher that still explores would teach its student to hesitate."""
    return output if policy.continuous else output * _SHARPNESS


def imitation_loss(output: Tensor, wanted: Tensor, continuous: bool) -> Tensor:
    """How far the student's outputs (n, A) are from the teacher's: cross-entropy, or Huber on the means."""
    if continuous:
        return nn.functional.smooth_l1_loss(output, wanted.clamp(-1, 1), beta=0.1)
    return -(torch.softmax(wanted, 1) * torch.log_softmax(output, 1)).sum(1).mean()


def distill(training: Training, stop: Callable[[], bool]) -> None:
    """Run the three stages within the training's limits; a resumed run goes on in the stage it was in."""
    config, learner = training.config, training.learner
    teacher = StatePolicy(training.space, config.ppo.symmetric)
    saved = training.extra.get("teacher")
    end_of_teacher = config.distill.teacher_share
    end_of_dagger = min(1.0, end_of_teacher + config.distill.dagger_share)  # a run's share never goes beyond 1
    if saved is not None:
        teacher.load_state_dict(saved)
    if saved is None or training.share() < end_of_teacher:
        _teach(training, teacher, stop, end_of_teacher)
    if training.share() < end_of_dagger:
        _dagger(training, teacher, stop, end_of_dagger)
    # Adam's averages are of another loss: the fine-tune begins with fresh ones.
    learner.optimiser = torch.optim.Adam(learner.parameters, lr=config.ppo.learning_rate, eps=1e-5)
    training.train_ppo(stop, rate=config.distill.fine_tune_rate)


def _teach(training: Training, teacher: StatePolicy, stop: Callable[[], bool], until: float) -> None:
    config, learner = training.config, training.learner
    env = training.make_env(config.ppo.cars, config.seed + 7, draw=False)
    try:
        quacks = cast(Policy, teacher)  # it has all that PPO asks of a policy
        ppo = PPO(env, quacks, dataclasses.replace(config.ppo, privileged_value=True), config.seed)
        before, count = learner.steps, 0
        while not stop() and training.share() < until:
            clock = time.perf_counter()
            batch = ppo.collect()
            figures = ppo.update(batch, max(0.1, 1 - training.share() / until))
            learner.steps = before + ppo.steps  # the teacher's steps are steps of the run
            count += 1
            if count % TEACHER_SHARE_OF_REPORTS == 0:
                figures |= ppo.episodes()
                figures["steps_per_s"] = len(batch.target) / (time.perf_counter() - clock)
                training.extra["teacher"] = teacher.state_dict()
                training.after_update(figures, looks=False)
        training.extra["teacher"] = teacher.state_dict()
        if config.ppo.privileged_value:
            learner.value.load_state_dict(ppo.value.state_dict())
    finally:
        env.close()


def _dagger(training: Training, teacher: StatePolicy, stop: Callable[[], bool], until: float) -> None:
    config, learner = training.config.distill, training.learner
    policy, env = learner.policy, learner.env
    examples = Examples(config.buffer_frames)
    optimiser = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    frames, state = env.reset(), torch.from_numpy(env.state()).float()
    if training.log is not None:
        assert isinstance(training.log, TraceLog)  # no workers here
        training.log.begin(env)
    begin, round_, clock = training.share(), 0, time.perf_counter()
    losses: list[float] = []
    while not stop() and training.share() < until:
        with torch.no_grad():
            for _ in range(_ROUND):
                seen = policy.front(torch.from_numpy(frames))
                with autocast():
                    wanted, output = _sharper(teacher(state).float(), policy), policy(seen).float()
                examples.add(seen, wanted)
                # The teacher drives a falling part of the cars, so that the first examples are of decent driving.
                share = max(0.0, 1 - round_ / config.teacher_drives) if config.teacher_drives else 0.0
                led = torch.rand(env.n, generator=learner.generator) < share
                driven = torch.where(led[:, None], wanted, output)
                action = learner.sample(driven)
                step = env.step(action.numpy())
                learner.note(action, step)
                frames, state = step.frames, torch.from_numpy(env.state()).float()
        learner.steps += _ROUND * env.n
        left = 1 - (training.share() - begin) / max(1e-9, until - begin)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * left)
        for _ in range(config.gradient_steps):
            seen, wanted = examples.draw(config.batch, learner.generator)
            with autocast():
                output = policy(seen)
            loss = imitation_loss(output.float(), wanted, policy.continuous)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        round_ += 1
        if round_ % 4 == 0:
            env.refresh_look()
        if round_ % 4 == 0:
            now = time.perf_counter()
            figures = {"loss": float(np.mean(losses)), "steps_per_s": 4 * _ROUND * env.n / (now - clock)}
            losses.clear()
            clock = now
            training.after_update(figures | learner.episodes())
    learner.continue_from(frames)
