"""Export: PyTorch and ONNX Runtime say the same, and the bundle is what a car accepts."""

from __future__ import annotations

import io
import resource
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sim.batch_env import BatchEnv
from sim.car_spec import CarSpec
from sim.track import load_track
from trainer import export
from trainer.errors import RunStorageError, TrainerError
from trainer.export import Graph, export_bundle, onnx_bytes
from trainer.networks import NETWORKS, Policy
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.bundle import check_bundle
from vehicle.errors import HotlapError
from vehicle.policy import OnnxPolicy

CONTINUOUS = ContinuousActionSpace(-25.0, 30.0, 0.4, 1.2)
SPACES: list[ActionSpace] = [default_action_space(), CONTINUOUS]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """100 pictures of the simulator."""
    env = BatchEnv([load_track("first_oval")], 100)
    try:
        return env.reset().copy()
    finally:
        env.close()


def head(policy: Policy) -> nn.Linear:
    assert isinstance(policy.head, nn.Linear)
    return policy.head


def loud_policy(name: str, space: ActionSpace, seed: int = 0) -> Policy:
    """With a head large enough that outputs differ from picture to picture and some are clipped."""
    torch.manual_seed(seed)
    policy = Policy(name, space)
    with torch.no_grad():
        head(policy).weight.normal_(0.0, 0.2)
    return policy


def write(path: Path, policy: Policy, space: ActionSpace, frames: NDArray[np.uint8]) -> Path:
    export_bundle(
        path, policy, space, frames=frames, car=CarSpec(), control_period_s=0.1, trained_on={"seed": 4, "steps": 9}
    )
    return path


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_and_onnx_agree(name: str, space: ActionSpace, frames: NDArray[np.uint8]) -> None:
    policy = loud_policy(name, space)
    with torch.no_grad():
        ours = Graph(policy, space).eval()(torch.from_numpy(frames)).numpy()
    theirs = OnnxPolicy(onnx_bytes(policy, space), space)(frames)
    assert ours.shape == theirs.shape == (100, space.size)
    assert ours.std(axis=0).max() > 1e-3
    bound = np.full(space.size, 1e-4)
    if isinstance(space, ContinuousActionSpace):
        bound = 1e-4 * np.array([30.0, 1.2])  # of the range
        assert (theirs >= [-25.0 - 1e-5, 0.4 - 1e-6]).all() and (theirs <= [30.0 + 1e-5, 1.2 + 1e-6]).all()
    else:
        np.testing.assert_allclose(theirs.sum(axis=1), 1.0, atol=1e-5)
    assert (np.abs(ours - theirs).max(axis=0) <= bound).all()


def test_the_graph_takes_any_number_of_frames(frames: NDArray[np.uint8]) -> None:
    policy = OnnxPolicy(onnx_bytes(loud_policy("HOTLAP_FAST", SPACES[0]), SPACES[0]), SPACES[0])
    whole = policy(frames)
    np.testing.assert_allclose(policy(frames[:1]), whole[:1], atol=1e-6)
    np.testing.assert_allclose(policy(frames[10:17]), whole[10:17], atol=1e-6)


@pytest.mark.parametrize("unit", [-3.0, -1.0, 0.0, 0.5, 1.0, 3.0])
def test_continuous_output_is_what_the_action_space_decodes(unit: float) -> None:
    policy = Policy("HOTLAP_FAST", CONTINUOUS)
    with torch.no_grad():
        head(policy).weight.zero_()
        head(policy).bias.fill_(unit)
        got = Graph(policy, CONTINUOUS)(torch.zeros(1, 120, 160, 1, dtype=torch.uint8)).numpy()
    np.testing.assert_allclose(got, CONTINUOUS.decode([[unit, unit]]), rtol=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
def test_a_bundle_is_accepted_and_holds_golden_vectors(
    space: ActionSpace, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    policy = loud_policy("HOTLAP_FAST", space)
    bundle = check_bundle(write(tmp_path / "b.tar.gz", policy, space, frames))
    assert bundle.action_space == space
    assert bundle.contract.control_period_s == 0.1
    assert bundle.contract.trained_on == {"seed": 4, "steps": 9}
    assert bundle.contract.camera.pitch_down_deg == CarSpec().camera.pitch_down_deg
    np.testing.assert_array_equal(bundle.golden_frames, frames[: len(bundle.golden_frames)])
    assert len(bundle.golden_frames) >= 8
    np.testing.assert_allclose(OnnxPolicy(bundle)(bundle.golden_frames), bundle.golden_outputs, atol=3e-3)


def test_the_same_policy_gives_the_same_bytes(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    a, b, c = (
        write(tmp_path / f"{i}.tar.gz", loud_policy("HOTLAP_FAST", SPACES[0], seed), SPACES[0], frames).read_bytes()
        for i, seed in enumerate((1, 1, 2))
    )
    assert a == b != c


def test_disagreement_is_refused_and_the_older_bundle_stays(
    frames: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, other = loud_policy("HOTLAP_FAST", SPACES[0], 1), loud_policy("HOTLAP_FAST", SPACES[0], 2)
    path = write(tmp_path / "b.tar.gz", policy, SPACES[0], frames)
    before = path.read_bytes()
    wrong = onnx_bytes(other, SPACES[0])
    monkeypatch.setattr(export, "onnx_bytes", lambda policy, space: wrong)
    with pytest.raises(TrainerError, match="PyTorch and ONNX Runtime differ by") as caught:
        write(path, policy, SPACES[0], frames)
    assert "1e-04" in caught.value.what
    assert path.read_bytes() == before


def test_a_small_disagreement_in_speed_counts_as_much_as_in_steering(
    frames: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = loud_policy("HOTLAP_FAST", CONTINUOUS)
    with torch.no_grad():
        head(policy).weight.zero_()
    for column, unit in ((0, 1e-3), (1, 1e-3)):  # a thousandth of half the range, ten times what is allowed
        with torch.no_grad():
            head(policy).bias.zero_()
            head(policy).bias[column] = unit
        wrong = onnx_bytes(policy, CONTINUOUS)
        with torch.no_grad():
            head(policy).bias.zero_()
        monkeypatch.setattr(export, "onnx_bytes", lambda policy, space, wrong=wrong: wrong)
        with pytest.raises(TrainerError, match="differ by"):
            write(tmp_path / "b.tar.gz", policy, CONTINUOUS, frames)


def test_weights_that_are_not_finite_are_refused(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    policy = loud_policy("HOTLAP_FAST", CONTINUOUS)
    with torch.no_grad():
        head(policy).weight[0, 0] = float("nan")
    with pytest.raises(HotlapError, match="not finite|differ by"):
        write(tmp_path / "b.tar.gz", policy, CONTINUOUS, frames)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_bundle(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    policy = loud_policy("HOTLAP_FAST", SPACES[0])
    path = write(tmp_path / "b.tar.gz", policy, SPACES[0], frames)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(RunStorageError, match="cannot write"):
            write(path, loud_policy("HOTLAP_FAST", SPACES[0], 3), SPACES[0], frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]


def test_a_bundle_is_a_plain_archive_with_four_members(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar.gz", loud_policy("HOTLAP_FAST", SPACES[0]), SPACES[0], frames)
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        assert sorted(tar.getnames()) == ["contract.json", "golden.npz", "model_metadata.json", "policy.onnx"]
