"""Acting: from a picture to an action and its probability, for the learner and for rollout workers alike."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.networks import Policy
from vehicle.config import ranged


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters. Names and meaning as in the literature; DeepRacer's name in brackets where it has another."""

    cars: int = ranged(64, low=1, high=4096, doc="driving at once")
    steps_per_update: int = ranged(32, low=2, high=4096, doc="of each car")
    epochs: int = ranged(3, low=1, high=50, doc="passes over the data of an update [num_epochs]")
    minibatch: int = ranged(256, low=8, high=65536, doc="[batch_size]")
    learning_rate: float = ranged(1e-3, low=1e-8, high=1.0, doc="[lr]")
    final_learning_rate: float = ranged(0.15, low=0.0, high=1.0, doc="share of it that is left at the end of the run")
    discount: float = ranged(0.97, low=0.0, high=0.99999, doc="[discount_factor] 0.97 at 10 Hz looks 3 s ahead")
    gae_lambda: float = ranged(0.95, low=0.0, high=1.0)
    clip: float = ranged(0.2, low=0.01, high=1.0, doc="of the importance ratio")
    entropy: float = ranged(0.01, low=0.0, high=1.0, doc="weight of the bonus, falls with the rate [beta_entropy]")
    value_weight: float = ranged(0.5, low=0.0, high=10.0)
    value_loss: str = ranged("huber", choices=("huber", "mse"), doc="[loss_type]")
    max_gradient: float = ranged(0.5, low=0.0, high=1e6, doc="norm at which gradients are clipped; 0: never")
    target_kl: float = ranged(0.03, low=0.0, high=10.0, doc="stop the epochs of an update beyond it; 0: never")
    noise_correlation: float = ranged(
        0.6, low=0.0, high=0.99, doc="of continuous exploration noise from step to step (Gauss-Markov); 0 is white"
    )
    epsilon: float = ranged(0.0, low=0.0, high=1.0, doc="share of actions drawn evenly in the end [e_greedy_value]")
    epsilon_steps: int = ranged(0, low=0, high=10**12, doc="over which that share falls from 1; 0: none. Discrete only")
    privileged_value: bool = True  # value from the simulator's state rather than from the picture
    symmetric: bool = True  # make the policy left-right symmetric where the action space is


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; where it does not, emulation is slower than float32."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


def autocast() -> AbstractContextManager[object]:
    """Mixed precision where the processor has it."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16())


def log_probability(output: Tensor, log_std: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of actions and entropy of the policy.

    Args:
        output: (N, A) logits, or (N, 2) means where ``log_std`` (2,) is given.
        action: (N,) indices or (N, 2).

    Returns:
        (N,) log-probabilities, (N,) entropies.
    """
    if log_std is None:
        logs = torch.log_softmax(output, dim=1)
        return logs.gather(1, action[:, None]).squeeze(1), -(logs.exp() * logs).sum(1)
    spread = log_std.exp()
    each = -0.5 * ((action - output) / spread) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    entropy = (0.5 + 0.5 * math.log(2 * math.pi) + log_std).sum().expand(len(output))
    return each.sum(1), entropy


class Actor:
    """A policy that explores.

    Args:
        policy: what chooses; config: how it explores; generator: what exploration is drawn from; cars: how many drive.

    Attributes:
        steps: of the training so far, which the share of even choice depends on.
    """

    def __init__(self, policy: Policy, config: PPOConfig, generator: torch.Generator, cars: int) -> None:
        self.policy, self.config, self.generator = policy, config, generator
        self.steps = 0
        self._noise = torch.zeros(cars, 2)

    def sample(self, output: Tensor) -> Tensor:
        """Draw actions from the policy's output. Continuous noise is a Gauss-Markov (Ornstein-Uhlenbeck) process with
        the policy's spread at every step, so that exploration leads somewhere before it turns back."""
        if self.policy.log_std is None:
            return torch.multinomial(torch.softmax(output, 1), 1, generator=self.generator).squeeze(1)
        rho = self.config.noise_correlation
        fresh = torch.randn(output.shape, generator=self.generator)
        self._noise = rho * self._noise + math.sqrt(1 - rho * rho) * fresh
        return output + self.policy.log_std.exp() * self._noise

    def explored(self, output: Tensor) -> Tensor:
        """The policy's output (N, A) with a falling share of even choice mixed in, where the configuration wants it.

        The mixture is what actions are drawn from and what importance ratios refer to, so that learning stays sound.
        """
        config = self.config
        if not config.epsilon_steps or self.policy.log_std is not None:
            return output
        share = max(config.epsilon, 1.0 - (1.0 - config.epsilon) * self.steps / config.epsilon_steps)
        return torch.log((1.0 - share) * torch.softmax(output, 1) + share / output.shape[1])

    def look(self, frames: Tensor, state: Tensor) -> Tensor:
        """What the policy takes of the pictures (a teacher: of the state), in full precision as in the bundle."""
        with torch.autocast("cpu", enabled=False):
            return self.policy.front(state if self.policy.sees_state else frames)

    def act(self, output: Tensor, uniform: bool = False) -> tuple[Tensor, Tensor]:
        """Actions and their log-probabilities, (N,), from `explored` output; with ``uniform``, whatever that is, evenly
        from the whole action space."""
        if uniform and self.policy.log_std is not None:
            even = torch.rand(output.shape, generator=self.generator) * 2 - 1
            return even, torch.full((len(output),), -math.log(4.0))  # of the box [-1, 1] x [-1, 1]
        if uniform:
            output = torch.zeros_like(output)
        action = self.sample(output)
        return action, log_probability(output, self.policy.log_std, action)[0]
