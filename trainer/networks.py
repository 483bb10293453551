"""Networks from a camera picture to an action: DeepRacer's three by name, and a fast default.

A ``Policy`` is everything between the uint8 picture of the contract and the output of the graph: scale, crop, pooling,
layers. It is split in ``front`` (no parameters, so its output is what the experience buffer keeps) and the layers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.errors import TrainerError
from vehicle.action_space import ActionSpace, ContinuousActionSpace, DiscreteActionSpace
from vehicle.observation import HEIGHT, WIDTH

Conv = tuple[int, int, int]  # filters, kernel, stride


@dataclass(frozen=True)
class Architecture:
    """Layers of a network; every one is followed by ReLU, convolutions are unpadded, as DeepRacer's."""

    conv: tuple[Conv, ...]
    dense: tuple[int, ...]
    crop_top: int = 0  # rows of the picture cut off: above the horizon there is no road
    pool: int = 1  # average over blocks of pool x pool pixels
    contrast: int = 0  # half side, in pooled pixels, of the windows of local contrast (see `front`); 0: plain grays


# DeepRacer's tables: spec `deepracer-training.md` §2.
NETWORKS = {
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW": Architecture(((32, 8, 4), (64, 4, 2), (64, 3, 1)), (512,)),
    "DEEP_CONVOLUTIONAL_NETWORK": Architecture(((32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1)), (64, 512)),
    "DEEP_CONVOLUTIONAL_NETWORK_DEEP": Architecture(
        ((32, 8, 4), (32, 4, 2), (64, 4, 2), (64, 3, 1)), (512, 512, 256, 128)
    ),
    "HOTLAP_FAST": Architecture(((16, 6, 4), (32, 3, 2)), (128,), crop_top=24, pool=2, contrast=4),
    "HOTLAP_TINY": Architecture(((16, 3, 2), (32, 3, 2)), (128,), crop_top=24, pool=4, contrast=2),
    "HOTLAP_FINE": Architecture(((8, 5, 2), (16, 3, 2), (32, 3, 2)), (128,), crop_top=24, pool=2, contrast=4),
}
DEFAULT_NETWORK = "HOTLAP_FAST"


def _initialise(layer: nn.Module, gain: float) -> nn.Module:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: tuple[int, ...], last_gain: float) -> nn.Sequential:
    """Dense layers with tanh between them, orthogonal initialisation."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        final = i == len(sizes) - 2
        layers.append(_initialise(nn.Linear(a, b), last_gain if final else 2**0.5))
        if not final:
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Convolutions and dense layers of an architecture."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for filters, kernel, stride in architecture.conv:
            layers += [_initialise(nn.Conv2d(channels, filters, kernel, stride), 2**0.5), nn.ReLU()]
            channels = filters
        layers.append(nn.Flatten())
        size = ((HEIGHT - architecture.crop_top) // architecture.pool, WIDTH // architecture.pool)
        with torch.no_grad():
            width = nn.Sequential(*layers)(torch.zeros(1, 1, *size)).shape[1]
        for units in architecture.dense:
            layers += [_initialise(nn.Linear(width, units), 2**0.5), nn.ReLU()]
            width = units
        self.layers = nn.Sequential(*layers)
        self.width = width

    def forward(self, observation: Tensor) -> Tensor:
        """(N, 1, h, w) -> (N, width)"""
        output: Tensor = self.layers(observation)
        return output


@functools.cache
def _window_means(size: int, half: int) -> Tensor:
    """(size, size): times a column of pixels gives at each the mean of up to 2 half + 1 pixels around it."""
    place = torch.arange(size)
    near = ((place[:, None] - place[None, :]).abs() <= half).float()
    return near / near.sum(1, keepdim=True)


def front(frames: Tensor, architecture: Architecture) -> Tensor:
    """Crop, pool, scale, and where the architecture wants it, local contrast.

    Local contrast is how far a pixel is from the mean of the window around it, in standard deviations of that window,
    and without its sign. A line is then a bright ridge, whether it is lighter or darker than the road, in sun or in
    shadow: a policy that has learnt some appearances drives in others.

    Args:
        frames: uint8 (N, 120, 160, 1).

    Returns:
        float32 (N, 1, h, w).
    """
    picture = frames[:, architecture.crop_top :, :, 0].float()
    pool = architecture.pool
    # Sums of slices: half the time of avg_pool2d on a CPU.
    picture = functools.reduce(torch.add, [picture[:, k::pool] for k in range(pool)])
    picture = functools.reduce(torch.add, [picture[:, :, k::pool] for k in range(pool)])
    picture = picture * (1.0 / (255.0 * pool**2))
    if architecture.contrast:
        rows = _window_means(picture.shape[1], architecture.contrast)
        columns = _window_means(picture.shape[2], architecture.contrast)
        centred = picture - rows @ (picture @ columns.T)
        variance = rows @ ((centred * centred) @ columns.T)
        # 0.02 is five grays: below that a difference is noise. 0.7 is about the mean.
        picture = (centred / (variance.sqrt() + 0.02)).abs() - 0.7
    return picture.unsqueeze(1)


class Policy(nn.Module):
    """The policy network.

    With a left-right symmetric action space the policy is made exactly symmetric: it sees the picture and its mirror
    image, and the mirrored output of the latter is averaged in. What it learns in a left turn it then knows in a right
    one, and it cannot have a bias to a side.

    Args:
        name: one of ``NETWORKS``.
        action_space: what it chooses from.
        symmetric: make it symmetric where the action space is.
    """

    sees_state = False
    mirror: Tensor

    def __init__(self, name: str, action_space: ActionSpace, symmetric: bool = True) -> None:
        super().__init__()
        if name not in NETWORKS:
            raise TrainerError(f"unknown network {name!r}", next_step=f"choose one of {', '.join(NETWORKS)}")
        self.name = name
        self.architecture = NETWORKS[name]
        self.continuous = isinstance(action_space, ContinuousActionSpace)
        self.encoder = Encoder(self.architecture)
        self.head = _initialise(nn.Linear(self.encoder.width, action_space.size), 0.01)
        if isinstance(action_space, DiscreteActionSpace):
            mirror = action_space.mirror()
            self.symmetric = symmetric and mirror is not None
            self.register_buffer("mirror", torch.as_tensor(mirror if mirror is not None else range(action_space.size)))
            self.log_std = None
        else:
            self.symmetric = symmetric and action_space.symmetric
            self.register_buffer("mirror", torch.tensor([-1.0, 1.0]))
            self.log_std = nn.Parameter(torch.full((2,), -0.7))
        # torch's annotations do not know this argument of `to` without the others
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time on a CPU

    def front(self, frames: Tensor) -> Tensor:
        """uint8 (N, 120, 160, 1) -> what the layers take."""
        return front(frames, self.architecture)

    def forward(self, observation: Tensor) -> Tensor:
        """From ``front``'s output to logits (N, A), or means in [-1, 1] (N, 2) not yet clipped."""
        if not self.symmetric:
            output: Tensor = self.head(self.encoder(observation))
            return output
        both: Tensor = self.head(self.encoder(torch.cat([observation, observation.flip(3)])))
        straight, flipped = both.chunk(2)
        if self.continuous:
            return 0.5 * (straight + flipped * self.mirror)
        return 0.5 * (straight + flipped[:, self.mirror])


class ValueNet(nn.Module):
    """Expected return, from the simulator's privileged state or from the picture."""

    def __init__(self, privileged: bool, state_size: int, architecture: Architecture | None) -> None:
        super().__init__()
        self.privileged = privileged
        if privileged:
            self.layers: nn.Module = mlp((state_size, 128, 128, 1), 1.0)
        else:
            assert architecture is not None  # only a policy on the state has none, and its value is privileged
            encoder = Encoder(architecture)
            self.layers = nn.Sequential(encoder, _initialise(nn.Linear(encoder.width, 1), 1.0))

    def forward(self, state: Tensor, observation: Tensor) -> Tensor:
        """(N,) values."""
        values: Tensor = self.layers(state if self.privileged else observation)
        return values.squeeze(-1)
