"""Segments: they travel whole or not at all, and learning from them is learning from what was driven."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sim.batch_env import IN_PROGRESS
from sim.car_spec import load_car
from sim.reward import load_reward
from sim.track import load_track
from trainer.actor import PPOConfig, log_probability
from trainer.config import RolloutConfig, RunConfig
from trainer.errors import FrameError
from trainer.networks import NETWORKS, Policy, front
from trainer.rollout import RolloutWorker, describe_run, open_description, seal_policy, share_of
from trainer.run_folder import RunFolder
from trainer.segment import Segment, decode, pack, unpack
from trainer.wire import seal, unseal
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space

SPACES = (default_action_space(), ContinuousActionSpace(-30.0, 30.0, 0.4, 1.0))
CONFIG = RunConfig(
    randomise="none", max_steps=6, ppo=PPOConfig(cars=6, steps_per_update=8), rollout=RolloutConfig(workers=2)
)

Driven = tuple[Segment, Policy]


def make_worker(folder: Path, space: ActionSpace, config: RunConfig = CONFIG) -> RolloutWorker:
    run = RunFolder.create(
        folder / "run", config, [load_track("first_oval")], load_reward(None), space, load_car(None)
    )
    published, session = open_description(describe_run(run, "abc"), folder / "there")
    return RolloutWorker(published, 1, session, incarnation=3)


@pytest.fixture(scope="module", params=SPACES, ids=lambda space: space.kind)
def driven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    torch.manual_seed(1)
    policy = Policy(CONFIG.network, request.param)
    with torch.no_grad():
        policy.head.weight.mul_(100.0)  # an opinion, so that probabilities differ
    worker = make_worker(tmp_path_factory.mktemp("worker"), request.param)
    worker.set_policy(seal_policy(policy, 5, 1000, uniform=False))
    yield worker.drive(), policy
    worker.close()


def test_a_segment_arrives_as_it_was_sent(driven: Driven) -> None:
    sent, _ = driven
    got = decode(sent.encode())
    for field in dataclasses.fields(Segment):
        a, b = getattr(sent, field.name), getattr(got, field.name)
        assert np.array_equal(a, b) and type(a) is type(b), field.name
    assert (got.version, got.worker, got.sequence, got.incarnation, got.session) == (5, 1, 0, 3, "abc")
    assert got.steps == 8 * 3, "half of six cars each"
    assert (got.status != IN_PROGRESS).any() and len(got.last_at), "episodes of six steps end in it"


def test_its_probabilities_are_those_of_what_was_seen(driven: Driven) -> None:
    segment, policy = driven
    action = torch.from_numpy(segment.action).flatten(0, 1)
    with torch.no_grad():
        output = policy(unpack(segment.observation))
    action = action if action.is_floating_point() else action.long()
    log, _ = log_probability(output, policy.log_std, action)
    # Up to the rounding of mixed precision.
    torch.testing.assert_close(log, torch.from_numpy(segment.log_probability).flatten(), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("at", [3, 40, 90, 5000, -1])
def test_a_changed_byte_is_noticed(at: int, driven: Driven) -> None:
    data = bytearray(driven[0].encode())
    data[at] ^= 1
    with pytest.raises(FrameError):
        decode(bytes(data))
    with pytest.raises(FrameError):
        decode(bytes(data[: len(data) // 2]))


def test_what_no_worker_sends_is_refused(driven: Driven) -> None:
    good, _ = driven
    nan = good.reward.copy()
    nan[0, 0] = np.nan
    for wrong in (
        {"reward": nan}, {"reward": good.reward[:-1]}, {"state": good.state.astype(np.float64)}, {"version": -1},
        {"worker": 1.5}, {"session": 7}, {"status": np.full_like(good.status, 99)}, {"starts": good.starts[:, :0]},
        {"last_at": good.last_at + 1000}, {"state": good.state[..., :-1]}, {"wall_s": "now"},
    ):  # fmt: skip
        with pytest.raises(FrameError):
            decode(dataclasses.replace(good, **wrong).encode())
    with pytest.raises(FrameError):
        decode(seal("policy", {}, {}))
    for junk in (b"", b"\n", pickle.dumps(good), b"hotlap-segment 1 " + b"0" * 64 + b"\n"):
        with pytest.raises(FrameError):
            decode(junk)


def test_neither_pickles_nor_compressed_arrays_are_read() -> None:
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(FrameError):
        unseal("segment", seal("segment", {}, {"x": objects}))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(1_000_000))
    from trainer.wire import _head

    with pytest.raises(FrameError, match="compressed"):
        unseal("segment", _head("segment", buffer.getvalue()) + buffer.getvalue())
    with pytest.raises(FrameError, match="at most"):
        unseal("segment", seal("segment", {}, {"x": np.zeros(100)}), limit=300)


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_travel_nearly_exactly(name: str) -> None:
    frames = torch.randint(0, 256, (3, 120, 160, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = front(frames, NETWORKS[name])
    again = unpack(pack(seen, NETWORKS[name]))
    assert again.shape == seen.shape
    torch.testing.assert_close(again, seen, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.kind)
def test_before_the_first_update_actions_may_be_even(space: ActionSpace, tmp_path: Path) -> None:
    worker = make_worker(tmp_path, space)
    policy = Policy(CONFIG.network, space)
    worker.set_policy(seal_policy(policy, 0, 0, uniform=True))
    segment = worker.drive()
    worker.close()
    expected = -np.log(4.0 if isinstance(space, ContinuousActionSpace) else space.size)
    assert segment.log_probability == pytest.approx(expected)
    assert len(np.unique(segment.action)) > 5


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    worker = make_worker(tmp_path, SPACES[0])
    with pytest.raises(FrameError, match="does not fit"):
        worker.set_policy(seal_policy(Policy("HOTLAP_TINY", SPACES[0]), 1, 0, uniform=False))
    assert worker.version == -1
    worker.close()


def test_a_run_with_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    for name in ("../evil.py", "inputs/../evil", "/etc/x", "inputs/a/b", "other.txt"):
        with pytest.raises(FrameError, match="a file"):
            data = seal("run", {"session": "x"}, {name: np.zeros(1, np.uint8)})
            open_description(data, tmp_path / name.replace("/", "_"))


def test_what_each_worker_drives() -> None:
    def config(split: str, workers: int = 3) -> RunConfig:
        return RunConfig(rollout=RolloutConfig(workers=workers, worker_split=split))

    assert share_of(config("all"), 4, 2) == ([0, 1, 2, 3], (0.0, 1.0))
    assert [share_of(config("tracks"), 4, k)[0] for k in range(4)] == [[0, 3], [1], [2], [0, 3]]
    assert [share_of(config("tracks"), 1, k)[0] for k in range(3)] == [[0], [0], [0]]
    assert [share_of(config("stretches", 2), 1, k) for k in range(2)] == [([0], (0.0, 0.5)), ([0], (0.5, 1.0))]
