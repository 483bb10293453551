"""A policy runs its graph through ONNX Runtime, and what is no action never comes out of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.errors import BundleError
from vehicle.observation import ObservationError
from vehicle.policy import OnnxPolicy, PolicyOutputError

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.5, 1.0)


def graph(
    width: int, *, scale: float = 1.0, bias: float = 0.0, last: str = "Softmax", external: bool = False
) -> onnx.ModelProto:
    """mean of rows 0..width-1 of the frame (0..1) * scale + bias, then `last`: the brightest row wins."""
    rows = helper.make_tensor("rows", TensorProto.INT64, [width], list(range(width)))
    constants = [
        rows,
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("bias", TensorProto.FLOAT, [], [bias]),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
    ]
    if external:
        weights = numpy_helper.from_array(np.ones(width, dtype=np.float32), "bias")
        external_data_helper.set_external_data(weights, location="weights.bin")
        weights.ClearField("raw_data")
        constants[2] = weights
    nodes = [
        helper.make_node("Gather", ["frames", "rows"], ["gathered"], axis=1),
        helper.make_node("Cast", ["gathered"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "full"], ["unit"]),
        helper.make_node("ReduceMean", ["unit"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], ["output"]),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 120, 160, 1])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width])
    body = helper.make_graph(nodes, "policy", [frames], [output], constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def policy(space: ActionSpace, **changes: object) -> OnnxPolicy:
    return OnnxPolicy(graph(space.size, **changes).SerializeToString(), space)  # type: ignore[arg-type]


def bright_row(*rows: int) -> npt.NDArray[np.uint8]:
    frames = np.zeros((len(rows), 120, 160, 1), dtype=np.uint8)
    for i, row in enumerate(rows):
        frames[i, row] = 255
    return frames


def test_a_discrete_policy_gives_probabilities_and_the_likeliest_action() -> None:
    drive = policy(default_action_space(), scale=3.0)
    frames = bright_row(9, 0, 4)
    probabilities = drive(frames)
    assert probabilities.shape == (3, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(probabilities[0, 9], np.e**3 / (np.e**3 + 9), rtol=1e-5)
    np.testing.assert_allclose(drive.act(frames), [[30.0, 0.8], [-30.0, 0.4], [0.0, 0.4]])


def test_a_continuous_policy_gives_degrees_and_metres_per_second() -> None:
    drive = policy(CONTINUOUS, scale=0.4, bias=0.5, last="Identity")
    actions = drive.act(bright_row(0, 1))
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, [[0.9, 0.5], [0.5, 0.9]], atol=1e-6)


def test_a_continuous_output_a_rounding_error_over_is_trimmed_and_one_beyond_is_refused() -> None:
    rounding = policy(CONTINUOUS, scale=1.0, bias=1.0 - 0.4e-3, last="Identity")
    assert rounding.act(bright_row(2))[0, 1] == np.float32(1.0 - 0.4e-3)
    over = policy(CONTINUOUS, bias=1.0 + 0.4e-3, last="Identity")
    assert over.act(bright_row(2))[0, 1] == np.float32(1.0)
    beyond = policy(CONTINUOUS, bias=1.01, last="Identity")
    with pytest.raises(PolicyOutputError, match=r"asks for .* in frame 0"):
        beyond.act(bright_row(2))


@pytest.mark.parametrize("bias", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_refused(bias: float) -> None:
    for drive in (policy(default_action_space(), bias=bias), policy(CONTINUOUS, bias=bias, last="Identity")):
        with pytest.raises(PolicyOutputError, match="frame 0 of 2 is not finite"):
            drive(bright_row(0, 1))
        with pytest.raises(PolicyOutputError):
            drive.act(bright_row(0, 1))


def test_frames_come_in_any_number_and_memory_order() -> None:
    drive = policy(default_action_space())
    frames = bright_row(*range(7))
    assert drive(frames[:0]).shape == (0, 10) and drive.act(frames[:0]).shape == (0, 2)
    np.testing.assert_array_equal(drive(frames[::-1])[::-1], drive(frames))
    np.testing.assert_allclose(np.concatenate([drive(f[None]) for f in frames]), drive(frames), atol=1e-6)


@pytest.mark.parametrize("frames", [np.zeros((120, 160, 1), np.uint8), np.zeros((1, 120, 160, 1), np.float32)])
def test_other_frames_are_refused(frames: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ObservationError):
        policy(default_action_space())(frames)


def test_a_graph_that_fails_while_running_is_named() -> None:
    model = graph(10)
    model.graph.initializer[0].CopyFrom(helper.make_tensor("rows", TensorProto.INT64, [10], [*range(9), 500]))
    with pytest.raises(BundleError) as caught:
        OnnxPolicy(model.SerializeToString(), default_action_space())(bright_row(0))
    assert caught.value.fault == "onnx_invalid"


def test_a_graph_of_bytes_needs_its_action_space() -> None:
    with pytest.raises(TypeError, match="action space"):
        OnnxPolicy(graph(10).SerializeToString())


def test_a_graph_cannot_read_files_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.ones(10, dtype=np.float32).tofile(tmp_path / "weights.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError) as caught:
        policy(default_action_space(), external=True)
    assert caught.value.fault == "onnx_invalid"


def test_driving_needs_neither_torch_nor_mujoco_nor_onnx() -> None:
    code = (
        "import sys, vehicle.bundle, vehicle.policy, vehicle.observation\n"
        "print(sorted({'torch', 'mujoco', 'onnx', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
