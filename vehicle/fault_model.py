"""A policy for fault injection: it always drives the same way, and gives NaN when it is shown a bright picture.

It is written here byte by byte, since the base install, which `hotlap bench faults` belongs to, has no ``onnx``. Field
numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), the encoding is protobuf's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vehicle.action_space import DEFAULT_NEURAL_NETWORK, DiscreteActionSpace
from vehicle.bundle import Bundle, write_bundle
from vehicle.contract import contract_for
from vehicle.policy import OnnxPolicy

BRIGHT = 200.0  # mean gray from which on the output is NaN
SPEED_MPS = 0.8  # straight ahead
SPACE = DiscreteActionSpace(steering_deg=(0.0, 15.0, -15.0), speed_mps=(SPEED_MPS, 0.5, 0.5))
_LOGITS = (5.0, 0.0, 0.0)  # the first action
_FLOAT, _UINT8 = 1, 2  # TensorProto.DataType
_IR_VERSION, _OPSET = 8, 17


def make_bundle(path: Path) -> Bundle:
    """Write the bundle of the policy that drives straight on at 0.8 m/s."""
    graph = constant_policy(_LOGITS)
    frames = np.random.default_rng(5).integers(0, 256, (3, 120, 160, 1), dtype=np.uint8)
    return write_bundle(
        path,
        onnx_model=graph,
        action_space=SPACE,
        neural_network=DEFAULT_NEURAL_NETWORK,
        contract=contract_for(SPACE, control_period_s=0.1, trained_on={"tracks": []}),
        golden_frames=frames,
        golden_outputs=OnnxPolicy(graph, SPACE)(frames),
    )


def constant_policy(logits: Sequence[float]) -> bytes:
    """An ONNX graph, uint8 [N,120,160,1] to softmax(logits + 0 * log(BRIGHT - mean)), [N, len(logits)].

    The logarithm of a negative number is NaN, and no factor makes that go away.
    """
    nodes = [
        _node("Cast", ["frames"], "floats", _attribute("to", 2, _varint(3, _FLOAT))),
        _node("ReduceMean", ["floats"], "mean", _attribute("axes", 7, *(_varint(8, axis) for axis in (1, 2)))
              + _attribute("keepdims", 2, _varint(3, 0))),
        _node("Sub", ["bright", "mean"], "room"),
        _node("Log", ["room"], "logged"),
        _node("Mul", ["logged", "zeros"], "nothing"),
        _node("Add", ["nothing", "logits"], "sum"),
        _node("Softmax", ["sum"], "output"),
    ]  # fmt: skip
    constants = [
        _floats("bright", [BRIGHT]), _floats("zeros", [0.0] * len(logits)), _floats("logits", logits)
    ]  # fmt: skip
    graph = b"".join(
        [
            *(_part(1, node) for node in nodes),
            _part(2, b"policy"),
            *(_part(5, constant) for constant in constants),
            _part(11, _value("frames", _UINT8, (120, 160, 1))),
            _part(12, _value("output", _FLOAT, (len(logits),))),
        ]
    )
    return _varint(1, _IR_VERSION) + _part(7, graph) + _part(8, _varint(2, _OPSET))


# --- protobuf: a field is its number and kind, then a varint, or a length and bytes


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _part(field: int, data: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(data)) + data


# --- onnx.proto: NodeProto, AttributeProto, TensorProto, ValueInfoProto


def _node(operator: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    names = b"".join(_part(1, name.encode()) for name in inputs)
    return names + _part(2, output.encode()) + _part(4, operator.encode()) + attributes


def _attribute(name: str, kind: int, *values: bytes) -> bytes:
    return _part(5, _part(1, name.encode()) + b"".join(values) + _varint(20, kind))


def _floats(name: str, values: Sequence[float]) -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    return _varint(1, 1) + _varint(1, len(values)) + _varint(2, _FLOAT) + _part(8, name.encode()) + _part(9, raw)


def _value(name: str, kind: int, shape: Sequence[int]) -> bytes:
    dimensions = [_part(2, b"N"), *(_varint(1, size) for size in shape)]
    tensor = _varint(1, kind) + _part(2, b"".join(_part(1, dimension) for dimension in dimensions))
    return _part(1, name.encode()) + _part(2, _part(1, tensor))
