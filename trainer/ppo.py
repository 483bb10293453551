"""Proximal Policy Optimization, from top to bottom.

Source of the algorithm: Schulman et al. 2017 (arXiv 1707.06347), advantage estimation 2016 (arXiv 1506.02438). The
loop: ``collect`` drives all cars for some steps with the present policy, ``update`` improves policy and value on that
data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim.batch_env import IN_PROGRESS, LAP_COMPLETE, BatchEnv, Step
from trainer.actor import Actor, PPOConfig, autocast, log_probability
from trainer.errors import TrainerError
from trainer.networks import Policy, ValueNet


@dataclass
class Batch:
    """One update's data, T steps of N cars, all flattened to (T * N, ...) but where said."""

    observation: Tensor  # front's output
    state: Tensor
    action: Tensor  # (T * N,) indices or (T * N, 2) unclipped in units of the [-1, 1] box
    log_probability: Tensor
    advantage: Tensor
    target: Tensor  # of the value
    value: Tensor
    weight: Tensor | None = None  # (T * N,) of each step's policy loss; None: all alike


def generalised_advantage(
    reward: Tensor, value: Tensor, next_value: Tensor, done: Tensor, last_value: Tensor, discount: float, lam: float
) -> Tensor:
    """Generalised advantage estimates.

    Args:
        reward, value: (T, N).
        next_value: (N,) value after the last step.
        done: (T, N) 1 where the episode ended with that step.
        last_value: (T, N) value of the episode's last state where it ended although the road goes on (step limit, lap
            complete: the car cannot see the finish line), 0 where it failed.

    Returns:
        (T, N) advantages; value + advantage is the value's target.
    """
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(next_value)
    following = next_value
    for t in range(len(reward) - 1, -1, -1):
        goes_on = 1.0 - done[t]
        after = goes_on * following + done[t] * last_value[t]
        delta = reward[t] + discount * after - value[t]
        running = delta + discount * lam * goes_on * running
        advantage[t] = running
        following = value[t]
    return advantage


class PPO(Actor):
    """Policy, value network and optimiser, and the two halves of the loop.

    Args:
        env: the cars; resets themselves.
        policy: what is trained.
        config: hyperparameters.
        seed: of initial weights, exploration and shuffling.
    """

    def __init__(self, env: BatchEnv, policy: Policy, config: PPOConfig, seed: int = 0) -> None:
        super().__init__(policy, config, torch.Generator().manual_seed(seed + 1), env.n)
        self.env = env
        self.watch: Callable[[BatchEnv, NDArray[Any], Step], None] | None = None  # called after each step
        torch.manual_seed(seed)
        self.value = ValueNet(config.privileged_value, env.STATE_SIZE, self.policy.architecture)
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        # Fused: one kernel for all parameters; the plain one spends a tenth of an update on starting kernels.
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate, eps=1e-5, fused=True)
        self.continue_from(env.reset())
        self._episode_reward = np.zeros(env.n)
        self._finished: list[tuple[float, float, int, int]] = []  # reward, progress, status, steps

    # -- acting -----------------------------------------------------------------------------------------------------

    def note(self, action: Tensor, step: Step) -> None:
        """Keep account of episodes, from a step of the environment."""
        if self.watch is not None:
            self.watch(self.env, action.numpy(), step)
        self._episode_reward += step.reward
        for car in np.flatnonzero(step.status != IN_PROGRESS).tolist():
            self.note_episode(
                self._episode_reward[car], float(step.progress[car]), int(step.status[car]), int(step.steps[car])
            )
            self._episode_reward[car] = 0.0

    def note_episode(self, reward: float, progress: float, status: int, steps: int) -> None:
        """An episode has ended, wherever it was driven."""
        self._finished.append((reward, progress, status, steps))

    def continue_from(self, frames: NDArray[np.uint8]) -> None:
        """Take over an environment that somebody else has driven; ``frames`` are its newest pictures."""
        self._frames = torch.from_numpy(frames.copy())
        self._state = torch.from_numpy(self.env.state()).float()

    @torch.no_grad()
    def collect(self, uniform_steps: int = 0) -> Batch:
        """Drive every car for ``steps_per_update`` steps; or at least ``uniform_steps`` in all, with even actions."""
        config, env = self.config, self.env
        cars, uniform = env.n, uniform_steps > 0
        steps = max(config.steps_per_update, -(-uniform_steps // cars))
        observations, states, actions, logs = [], [], [], []
        reward, value = torch.zeros(steps, cars), torch.zeros(steps, cars)
        done, last_value = torch.zeros(steps, cars), torch.zeros(steps, cars)
        for t in range(steps):
            observation = self.look(self._frames, self._state)
            with autocast():
                output = self.explored(self.policy(observation).float())
                value[t] = self.value(self._state, observation).float()
            action, log = self.act(output, uniform)
            observations.append(observation)
            states.append(self._state)
            actions.append(action)
            logs.append(log)
            step = env.step(action.numpy())
            reward[t] = torch.from_numpy(step.reward)
            ended = step.status != IN_PROGRESS
            done[t] = torch.from_numpy(ended).float()
            if len(step.last_ids):
                last_state = torch.from_numpy(step.last_state).float()
                with autocast():
                    final = self.value(last_state, self.look(torch.from_numpy(step.last_frames), last_state))
                last_value[t, torch.from_numpy(step.last_ids)] = final.float()
            self.note(action, step)
            self._frames = torch.from_numpy(step.frames.copy())
            self._state = torch.from_numpy(env.state()).float()
        with autocast():
            next_value = self.value(self._state, self.look(self._frames, self._state)).float()
        advantage = generalised_advantage(
            reward, value, next_value, done, last_value, config.discount, config.gae_lambda
        )
        self.steps += steps * cars
        return Batch(
            torch.cat(observations), torch.cat(states), torch.cat(actions), torch.cat(logs), advantage.flatten(),
            (advantage + value).flatten(), value.flatten(),
        )  # fmt: skip

    # -- learning ---------------------------------------------------------------------------------------------------

    def update(self, batch: Batch, rate_scale: float = 1.0) -> dict[str, float]:
        """Improve policy and value on ``batch`` for some epochs.

        Args:
            rate_scale: of the learning rate and of the entropy bonus, 1 at the start of a run.

        Returns:
            means over the minibatches: loss, policy_loss, value_loss, entropy, kl, clipped (share).

        Raises:
            TrainerError: the loss is not finite; the weights are as they were before that minibatch.
        """
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * rate_scale
        size = len(batch.target)
        sums = dict.fromkeys(("loss", "policy_loss", "value_loss", "entropy", "kl", "clipped"), 0.0)
        count = 0
        value_error = nn.functional.smooth_l1_loss if config.value_loss == "huber" else nn.functional.mse_loss
        for _ in range(config.epochs):
            order = torch.randperm(size, generator=self.generator)
            kl_of_epoch, batches = 0.0, 0
            for pick in order.split(config.minibatch):
                if len(pick) < config.minibatch // 2 and batches:
                    continue  # a small remainder would be a noisy step of full size
                observation, state = batch.observation[pick], batch.state[pick]
                with autocast():
                    output, value = self.policy(observation), self.value(state, observation)
                log, entropy = log_probability(output.float(), self.policy.log_std, batch.action[pick])
                log_ratio = log - batch.log_probability[pick]
                ratio = log_ratio.exp()
                advantage = batch.advantage[pick]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
                gain = torch.min(ratio * advantage, clipped * advantage)
                policy_loss = -(gain if batch.weight is None else gain * batch.weight[pick]).mean()
                value_loss = value_error(value.float(), batch.target[pick])
                mean_entropy = entropy.mean()
                loss = policy_loss + config.value_weight * value_loss - config.entropy * rate_scale * mean_entropy
                if not torch.isfinite(loss):
                    raise TrainerError(
                        f"the loss is {loss.item()} at step {self.steps}",
                        cause="rewards of very different size, or a learning rate that is too high",
                        next_step="keep rewards within about -10..10, or lower ppo.learning_rate; then --resume",
                    )
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if config.max_gradient > 0:
                    nn.utils.clip_grad_norm_(self.parameters, config.max_gradient)
                self.optimiser.step()
                with torch.no_grad():
                    kl = float(((ratio - 1) - log_ratio).mean())
                    figures = (loss, policy_loss, value_loss, mean_entropy)
                    for name, figure in zip(("loss", "policy_loss", "value_loss", "entropy"), figures, strict=True):
                        sums[name] += float(figure)
                    sums["kl"] += kl
                    sums["clipped"] += float(((ratio - 1).abs() > config.clip).float().mean())
                count, batches, kl_of_epoch = count + 1, batches + 1, kl_of_epoch + kl
            if config.target_kl and kl_of_epoch / batches > config.target_kl:
                break
        return {name: total / count for name, total in sums.items()}

    # -- what a run asks and keeps ----------------------------------------------------------------------------------

    def episodes(self) -> dict[str, float]:
        """Figures of the episodes that ended since the last call; NaN where none did."""
        done, self._finished = self._finished, []
        if not done:
            return {"episodes": 0} | dict.fromkeys(("reward", "progress", "completion"), math.nan)
        rewards, progress, status, steps = (np.array(column) for column in zip(*done, strict=True))
        laps = status == LAP_COMPLETE
        return {
            "episodes": len(done),
            "reward": float(rewards.mean()),
            "reward_low": float(rewards.min()),
            "reward_high": float(rewards.max()),
            "progress": float(progress.mean()),
            "completion": float(laps.mean()),
            "lap_s": float(steps[laps].mean()) * self.env.control_period_s if laps.any() else math.nan,
        }

    def recent_frames(self, count: int) -> NDArray[np.uint8]:
        """(count, 120, 160, 1) pictures that cars see now, repeated where there are fewer cars."""
        frames = self._frames.numpy()
        return frames[np.arange(count) % len(frames)]

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning goes on from, but for the environment."""
        return {
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of ``state_dict``."""
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.steps = int(state["steps"])
