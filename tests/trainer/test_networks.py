"""The networks: DeepRacer's tables, symmetry, and what is done to a picture before the first layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.networks import NETWORKS, Architecture, Encoder, Policy, ValueNet, front
from vehicle.action_space import ContinuousActionSpace, DiscreteActionSpace, default_action_space

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.4, 1.0)
LOPSIDED = DiscreteActionSpace((-30.0, 0.0, 15.0), (0.5, 0.8, 0.5))
LOPSIDED_CONTINUOUS = ContinuousActionSpace(-20.0, 30.0, 0.4, 1.0)
SHALLOW = "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 120, 160, 1), dtype=np.uint8)


def loud(policy: Policy) -> Policy:
    """Fresh heads are nearly zero, which would hide differences."""
    assert isinstance(policy.head, nn.Linear)
    with torch.no_grad():
        policy.head.weight.normal_(0.0, 1.0)
        policy.head.bias.normal_(0.0, 1.0)
    return policy


def test_shallow_is_deepracers_table() -> None:
    seen = []
    encoder = Encoder(NETWORKS[SHALLOW])
    for layer in encoder.layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    encoder(torch.zeros(1, 1, 120, 160))
    assert seen == [(32, 29, 39), (64, 13, 18), (64, 11, 16), (512,)]
    dense = next(layer for layer in encoder.layers if isinstance(layer, nn.Linear))
    assert dense.in_features == 11_264
    weights = sum(p.numel() for p in Policy(SHALLOW, default_action_space()).parameters())
    assert weights == pytest.approx(5.85e6, rel=0.005)


@pytest.mark.parametrize(
    ("name", "conv", "dense"),
    [
        ("DEEP_CONVOLUTIONAL_NETWORK", [(32, 58, 78), (32, 56, 76), (64, 27, 37), (64, 25, 35)], [64, 512]),
        (
            "DEEP_CONVOLUTIONAL_NETWORK_DEEP",
            [(32, 29, 39), (32, 13, 18), (64, 5, 8), (64, 3, 6)],
            [512, 512, 256, 128],
        ),
    ],
)
def test_the_other_tables(name: str, conv: list[tuple[int, ...]], dense: list[int]) -> None:
    picture, found = torch.zeros(1, 1, 120, 160), []
    encoder = Encoder(NETWORKS[name])
    for layer in encoder.layers:
        picture = layer(picture)
        if isinstance(layer, nn.Conv2d):
            found.append(tuple(picture.shape[1:]))
    assert found == conv
    assert [layer.out_features for layer in encoder.layers if isinstance(layer, nn.Linear)] == dense
    assert encoder.width == dense[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_but_the_head_is_followed_by_relu(name: str) -> None:
    layers = list(Encoder(NETWORKS[name]).layers)
    for layer, following in zip(layers, layers[1:] + [None], strict=True):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert isinstance(following, nn.ReLU)


@pytest.mark.parametrize("name", ["HOTLAP_FAST", "HOTLAP_FINE", "DEEP_CONVOLUTIONAL_NETWORK_DEEP"])
@torch.no_grad()
def test_symmetric_discrete_policy_mirrors_its_choice(name: str) -> None:
    torch.manual_seed(1)
    space = default_action_space()
    policy = loud(Policy(name, space))
    assert policy.symmetric
    frames = torch.from_numpy(pictures(5))
    straight = policy(policy.front(frames))
    mirrored = policy(policy.front(frames.flip(2)))
    swap = [
        next(
            j
            for j in range(space.size)
            if space.steering_deg[j] == -space.steering_deg[i] and space.speed_mps[j] == space.speed_mps[i]
        )
        for i in range(space.size)
    ]
    assert straight.std() > 0.1
    torch.testing.assert_close(mirrored, straight[:, swap], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(straight, straight[:, swap], atol=1e-2)


@torch.no_grad()
def test_symmetric_continuous_policy_turns_the_sign_of_steering_only() -> None:
    torch.manual_seed(2)
    policy = loud(Policy("HOTLAP_FAST", CONTINUOUS))
    frames = torch.from_numpy(pictures(5))
    straight, mirrored = policy(policy.front(frames)), policy(policy.front(frames.flip(2)))
    torch.testing.assert_close(mirrored, straight * torch.tensor([-1.0, 1.0]), atol=1e-5, rtol=1e-5)
    assert straight[:, 0].abs().max() > 0.1
    even = torch.from_numpy(np.concatenate([half := pictures(1)[:, :, :80], half[:, :, ::-1]], axis=2))
    assert policy(policy.front(even))[0, 0].abs() < 1e-5  # no way to prefer a side where there is none


@pytest.mark.parametrize("space", [LOPSIDED, LOPSIDED_CONTINUOUS])
@torch.no_grad()
def test_a_lopsided_action_space_gets_a_plain_policy(space: DiscreteActionSpace | ContinuousActionSpace) -> None:
    policy = loud(Policy("HOTLAP_FAST", space))
    assert not policy.symmetric
    seen = policy.front(torch.from_numpy(pictures(3)))
    torch.testing.assert_close(policy(seen), policy.head(policy.encoder(seen)), atol=0.0, rtol=0.0)


@torch.no_grad()
def test_symmetry_can_be_switched_off() -> None:
    policy = loud(Policy("HOTLAP_FAST", default_action_space(), symmetric=False))
    seen = policy.front(torch.from_numpy(pictures(3)))
    torch.testing.assert_close(policy(seen), policy.head(policy.encoder(seen)), atol=0.0, rtol=0.0)


def expected_front(frames: NDArray[np.uint8], a: Architecture) -> NDArray[np.float64]:
    """Crop, pool and local contrast, written a second time with numpy alone, window by window."""
    picture = frames[:, a.crop_top :, :, 0].astype(np.float64) / 255
    n, h, w = picture.shape
    h, w = h // a.pool, w // a.pool
    blocks = picture[:, : h * a.pool, : w * a.pool].reshape(n, h, a.pool, w, a.pool)
    picture = blocks.mean(axis=(2, 4))
    if a.contrast:

        def window_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            result = np.empty_like(values)
            for v in range(h):
                for u in range(w):
                    rows = slice(max(0, v - a.contrast), v + a.contrast + 1)
                    columns = slice(max(0, u - a.contrast), u + a.contrast + 1)
                    result[:, v, u] = values[:, rows, columns].mean((1, 2))
            return result

        centred = picture - window_mean(picture)
        picture = np.abs(centred / (np.sqrt(window_mean(centred**2)) + 0.02)) - 0.7
    return np.asarray(picture[:, None])


@pytest.mark.parametrize("name", NETWORKS)
def test_front_crops_pools_and_takes_local_contrast(name: str) -> None:
    frames = pictures(3)
    frames[1] //= 5
    got = front(torch.from_numpy(frames), NETWORKS[name]).numpy()
    np.testing.assert_allclose(got, expected_front(frames, NETWORKS[name]), atol=2e-5)


@pytest.mark.parametrize("change", ["brighter", "negative"])
def test_local_contrast_ignores_light_and_polarity(change: str) -> None:
    frames = pictures(2) // 2
    changed = {"brighter": frames + 60, "negative": 255 - frames}[change]
    a = NETWORKS["HOTLAP_FAST"]
    seen = front(torch.from_numpy(frames), a)
    torch.testing.assert_close(front(torch.from_numpy(changed), a), seen, atol=1e-4, rtol=1e-4)
    # A shadow over half of the picture is seen at its edge only: away from it nothing changes much.
    shaded = frames.copy()
    shaded[:, :, :80] //= 2
    away = (front(torch.from_numpy(shaded), a) - seen).abs()[:, :, :, :30]
    assert away.mean() < 0.25 * (seen + 0.7).mean()
    assert torch.isfinite(front(torch.full((1, 120, 160, 1), 77, dtype=torch.uint8), a)).all()


def test_rows_above_the_crop_do_not_matter() -> None:
    frames = pictures(1)
    other = frames.copy()
    crop = NETWORKS["HOTLAP_FAST"].crop_top
    assert crop > 0
    other[:, :crop] = 255
    same = [front(torch.from_numpy(f), NETWORKS["HOTLAP_FAST"]) for f in (frames, other)]
    assert torch.equal(*same)
    other[:, crop] = 255
    assert not torch.equal(same[0], front(torch.from_numpy(other), NETWORKS["HOTLAP_FAST"]))


def test_value_net_looks_at_the_state_or_at_the_picture() -> None:
    fast = NETWORKS["HOTLAP_FAST"]
    state, picture = torch.randn(4, 24), front(torch.from_numpy(pictures(4)), fast)

    def moves(net: ValueNet, at: Tensor, other: Tensor) -> tuple[bool, bool]:
        base = net(state, picture)
        assert base.shape == (4,)
        return not torch.equal(base, net(at, picture)), not torch.equal(base, net(state, other))

    assert moves(ValueNet(True, 24, None), state + 1, picture + 1) == (True, False)
    assert moves(ValueNet(False, 24, fast), state + 1, picture + 1) == (False, True)


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrainerError, match="'RESNET'") as caught:
        Policy("RESNET", default_action_space())
    assert "HOTLAP_FAST" in caught.value.next_step
