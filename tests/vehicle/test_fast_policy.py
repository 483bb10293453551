"""The pilot's policy decides as the ordinary one does, and what is no action never comes out of it."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.vehicle.pilot_rig import graph, make_bundle, noise
from vehicle.action_space import ContinuousActionSpace, default_action_space
from vehicle.errors import BundleError
from vehicle.fast_policy import FastPolicy, calm_collector
from vehicle.observation import ObservationError
from vehicle.policy import OnnxPolicy, PolicyOutputError

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.5, 4.0)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_it_decides_exactly_as_the_ordinary_policy(kind: str) -> None:
    space = default_action_space() if kind == "discrete" else CONTINUOUS
    model = graph(space.size, last="Softmax" if kind == "discrete" else "Identity", scale=2.0)
    fast, ordinary = FastPolicy(model, space), OnnxPolicy(model, space)
    actions = set()
    for frame in noise(1, 200):
        expected = ordinary.act(frame[None])[0]
        action = fast.act(frame)
        assert action == (float(expected[0]), float(expected[1]))
        assert type(action[0]) is float and type(action[1]) is float
        actions.add(action)
    assert len(actions) > 5, "the frames must not all lead to one action"


def test_a_bundle_is_taken_as_it_is(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b.tar.gz")
    assert FastPolicy(bundle).act(noise(3)[0]) == tuple(OnnxPolicy(bundle).act(noise(3))[0].tolist())


def test_the_first_of_equals_wins_and_nothing_is_left_of_the_frame_before() -> None:
    fast = FastPolicy(graph(), default_action_space())
    even = np.full((120, 160, 1), 90, np.uint8)
    first = fast.act(even)
    assert first == (-30.0, pytest.approx(0.4))
    bright = even.copy()
    bright[7] = 255
    assert fast.act(bright) != first
    assert fast.act(even) == first


def test_frames_need_not_be_contiguous_and_are_not_kept() -> None:
    fast = FastPolicy(graph(), default_action_space())
    wide = noise(4)[0].repeat(2, axis=1)
    frame = wide[:, ::2]
    assert not frame.flags.c_contiguous
    assert fast.act(frame) == fast.act(np.ascontiguousarray(frame))


@pytest.mark.parametrize(
    "observation",
    [np.zeros((120, 160), np.uint8), np.zeros((1, 120, 160, 1), np.uint8), np.zeros((120, 160, 1), np.float32)],
)
def test_other_observations_are_refused(observation: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ObservationError):
        FastPolicy(graph(), default_action_space()).act(observation)


def black_last_row() -> np.ndarray:  # type: ignore[type-arg]
    frame = noise(6)[0]
    frame[119] = 0
    return frame


def test_an_output_that_is_not_finite_is_refused_and_the_next_one_is_not() -> None:
    for space, last in ((default_action_space(), "Softmax"), (CONTINUOUS, "Identity")):
        fast = FastPolicy(graph(space.size, last=last, scale=2.0), space)
        with pytest.raises(PolicyOutputError, match="not finite"):
            fast.act(black_last_row())
        fast.act(noise(6)[0])


def test_logits_are_no_probabilities() -> None:
    fast = FastPolicy(graph(last="Identity"), default_action_space())
    with pytest.raises(PolicyOutputError, match="no probabilities"):
        fast.act(noise(1)[0])


def test_a_continuous_output_is_trimmed_of_rounding_and_refused_beyond() -> None:
    space = ContinuousActionSpace(-30.0, 30.0, 0.5, 1.0)
    frame = noise(1)[0]
    assert FastPolicy(graph(2, last="Identity", scale=0.0, bias=1.0004), space).act(frame)[1] == 1.0
    with pytest.raises(PolicyOutputError, match="out of"):
        FastPolicy(graph(2, last="Identity", scale=0.0, bias=1.01), space).act(frame)


def test_a_graph_that_gives_nothing_is_not_taken_for_the_answer_before() -> None:
    fast = FastPolicy(graph(), default_action_space())
    fast.act(noise(1)[0])
    fast._session = type("Silent", (), {"run_with_iobinding": lambda self, binding: None})()
    with pytest.raises(PolicyOutputError, match="not finite"):
        fast.act(noise(1)[0])


def test_a_graph_that_fails_while_running_is_refused_before_the_first_frame() -> None:
    model = onnx.load_from_string(graph())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("rows", TensorProto.INT64, [10], [*range(9), 500]))
    with pytest.raises(BundleError) as caught:
        FastPolicy(model.SerializeToString(), default_action_space())
    assert caught.value.fault == "onnx_invalid"


def test_a_graph_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BundleError):
        FastPolicy(graph(9), default_action_space())
    with pytest.raises(TypeError, match="action space"):
        FastPolicy(graph())


def test_the_collector_is_calmed_and_can_be_again() -> None:
    before = gc.get_freeze_count()
    try:
        calm_collector()
        assert gc.get_freeze_count() > 1000
        calm_collector()
        assert gc.isenabled()
    finally:
        gc.unfreeze()
    assert gc.get_freeze_count() <= before or before == 0


def test_it_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, vehicle.fast_policy\n"
        "print(sorted({'torch', 'mujoco', 'onnx', 'sim', 'trainer'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
