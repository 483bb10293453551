"""The translation for LiteRT gives what ONNX Runtime gives. Skipped where the bench extra is not installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.vehicle.pilot_rig import graph, noise
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.bench_litert import UntranslatableError, to_litert
from vehicle.bench_runtimes import import_openvino

try:
    openvino = import_openvino()
except ImportError:
    pytest.skip("pip install -e '.[bench]'", allow_module_level=True)
interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install -e '.[bench]'")


def folded(model: bytes) -> Any:
    from openvino.passes import ConstantFolding, Manager

    read = openvino.Core().read_model(io.BytesIO(model))
    read.reshape([1, 120, 160, 1])
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(read)
    return read


def both(model: bytes, frames: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """What LiteRT and ONNX Runtime give, frame by frame."""
    lite = interpreter.Interpreter(model_content=to_litert(folded(model)), num_threads=1)
    lite.allocate_tensors()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    ours, theirs = [], []
    for frame in frames:
        lite.set_tensor(lite.get_input_details()[0]["index"], frame[None])
        lite.invoke()
        ours.append(lite.get_tensor(lite.get_output_details()[0]["index"]).copy())
        theirs.append(session.run(None, {session.get_inputs()[0].name: frame[None]})[0])
    return np.concatenate(ours), np.concatenate(theirs)


def test_the_graph_of_the_pilots_tests() -> None:
    ours, theirs = both(graph(), noise(1, 4))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "space",
    [default_action_space(), ContinuousActionSpace(-30.0, 30.0, 0.4, 1.5)],
    ids=["discrete", "continuous"],
)
def test_every_network_of_the_trainer(space: ActionSpace) -> None:
    torch = pytest.importorskip("torch")
    from trainer.export import onnx_bytes
    from trainer.networks import NETWORKS, Policy

    assert NETWORKS
    for name in NETWORKS:
        torch.manual_seed(0)
        policy = Policy(name, space)
        policy.head.weight.data *= 100.0  # a new head gives nearly the same for every picture
        ours, theirs = both(onnx_bytes(policy, space), noise(2, 3))
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.ptp(theirs), err_msg=name)


def built(nodes: list[Any], constants: dict[str, npt.NDArray[Any]], width: int) -> bytes:
    """A model of these nodes, from ``frames`` to ``output``."""
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 120, 160, 1])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "policy", [frames], [output], tensors)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_operations_that_the_networks_may_yet_have() -> None:
    node = helper.make_node
    rng = np.random.default_rng(3)
    nodes = [
        node("Cast", ["frames"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "unit"], ["scaled"]),
        node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        node("MaxPool", ["nchw"], ["max"], kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", ["max"], ["mean"], kernel_shape=[3, 3], strides=[3, 3]),
        node("Conv", ["mean", "kernel", "bias"], ["conv"], strides=[2, 3]),
        node("Tanh", ["conv"], ["tanh"]),
        node("Sigmoid", ["conv"], ["sigmoid"]),
        node("Mul", ["tanh", "sigmoid"], ["gated"]),  # two tensors in the new order of axes
        node("Clip", ["gated", "low", "high"], ["clipped"]),
        node("Exp", ["clipped"], ["exp"]),
        node("ReduceMean", ["exp"], ["reduced"], axes=[2, 3], keepdims=0),
        node("Gather", ["reduced", "picked"], ["last"], axis=1),
        node("Slice", ["last", "from", "to", "axis", "back"], ["reversed"]),
        node("MatMul", ["reversed", "weights"], ["mixed"]),
        node("Softmax", ["mixed"], ["output"], axis=1),
    ]
    constants = {
        "unit": np.float32(1 / 255),
        "kernel": rng.normal(size=(6, 1, 3, 4)).astype(np.float32),
        "bias": rng.normal(size=6).astype(np.float32),
        "low": np.float32(-0.5),
        "high": np.float32(0.9),
        "picked": np.array([5, 0, -2, 1], np.int64),
        "from": np.array([-1], np.int64),
        "to": np.array([-100], np.int64),
        "axis": np.array([1], np.int64),
        "back": np.array([-1], np.int64),
        "weights": rng.normal(size=(4, 5)).astype(np.float32),
    }
    ours, theirs = both(built(nodes, constants, 5), noise(4, 3))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert float(np.ptp(theirs, axis=1).min()) > 0.01, "the outputs must differ, or nothing is tested"


def test_an_unknown_operation_is_named() -> None:
    nodes = [
        helper.make_node("Cast", ["frames"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["f"], ["output"], axes=[1, 3], keepdims=0),
    ]
    with pytest.raises(UntranslatableError, match="ReduceMax"):
        to_litert(folded(built(nodes, {}, 160)))


def test_a_padded_convolution_is_refused_not_run_wrongly() -> None:
    nodes = [
        helper.make_node("Cast", ["frames"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["conv"], ["output"], axes=[1, 2], keepdims=0),
    ]
    with pytest.raises(UntranslatableError, match="padded"):
        to_litert(folded(built(nodes, {"kernel": np.ones((2, 1, 3, 3), np.float32)}, 160)))
