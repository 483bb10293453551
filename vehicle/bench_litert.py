"""A policy's graph for LiteRT, so that `hotlap bench drive` can time the same network there. For the benchmark only.

LiteRT reads no ONNX, and the converters that there are need TensorFlow or PyTorch, which no car has. OpenVINO does
read it, and works out everything that depends on the shape alone; what is left are some twenty kinds of operations,
which are written here as LiteRT's own. Whoever runs the result must compare it with what ONNX Runtime gives
(`vehicle.bench_runtimes` does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from vehicle.errors import VehicleError

Array = npt.NDArray[Any]
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_PLAIN = {
    "Add": "ADD", "Subtract": "SUB", "Multiply": "MUL", "Divide": "DIV", "Minimum": "MINIMUM", "Maximum": "MAXIMUM",
    "Abs": "ABS", "Sqrt": "SQRT", "Relu": "RELU", "Tanh": "TANH", "Sigmoid": "LOGISTIC", "Exp": "EXP",
}  # fmt: skip
# Newer versions of an operation add types or ranks; these are what the graphs here need.
_VERSIONS = {"FULLY_CONNECTED": 5, "STRIDED_SLICE": 4, "GATHER": 3}


class UntranslatableError(VehicleError, NotImplementedError):
    """The graph has an operation, or a form of one, that is not written down here."""


def to_litert(model: Any) -> bytes:
    """A graph that OpenVINO has read and folded, every shape fixed, as the bytes of a .tflite file.

    Raises:
        UntranslatableError: names the operation.
        ImportError: ai-edge-litert is not installed.
    """
    return _Writer().write(model)


class _Tensor:
    """A tensor of the new graph. `nhwc`: rank 4, and in another order of axes than in the old graph."""

    def __init__(self, index: int, nhwc: bool = False) -> None:
        self.index, self.nhwc = index, nhwc


class _Writer:
    def __init__(self) -> None:
        self._s = import_module("ai_edge_litert.schema_py_generated")
        self._model = self._s.ModelT()
        self._model.version = 3
        self._model.operatorCodes, self._model.buffers = [], [self._s.BufferT()]  # buffer 0 is "no data"
        self._graph = self._s.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.inputs, self._graph.outputs = [], [], [], []
        self._codes: dict[str, int] = {}
        self._known: dict[tuple[str, int], _Tensor] = {}

    def write(self, model: Any) -> bytes:
        for node in model.get_ordered_ops():
            kind = str(node.get_type_name())
            if kind == "Constant":
                continue  # written by whoever uses it
            if kind == "Result":
                self._graph.outputs.append(self._plain(node, 0).index)
                continue
            if kind == "Parameter":
                made = self._tensor(_shape(node), _dtype(node))
                self._graph.inputs.append(made.index)
            elif kind in _PLAIN:
                made = self._elementwise(node, _PLAIN[kind])
            else:
                method: Callable[[Any], _Tensor] | None = getattr(self, f"_op_{kind.lower()}", None)
                if method is None:
                    raise _untranslatable(node, "is not known here")
                made = method(node)
            self._known[str(node.get_friendly_name()), 0] = made
        self._model.subgraphs = [self._graph]
        builder = import_module("flatbuffers").Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # --- operations; in OpenVINO's names

    def _elementwise(self, node: Any, name: str) -> _Tensor:
        inputs = [_source(node, i) for i in range(node.get_input_size())]
        made = [None if _value(source) is not None else self._of(source) for source in inputs]
        nhwc = any(tensor is not None and tensor.nhwc for tensor in made)
        # In NHWC only with constants of rank 4, or of one element: anything else goes back to the old order.
        nhwc = nhwc and all(_shape(source) == [] or len(_shape(source)) == 4 for source in inputs)
        nhwc = nhwc and all(tensor is None or tensor.nhwc for tensor in made)
        indices = []
        for i, source in enumerate(inputs):
            value = _value(source)
            if value is not None:
                indices.append(self._constant(value.transpose(_TO_NHWC) if nhwc and value.ndim == 4 else value).index)
            else:
                indices.append((self._of(source) if nhwc else self._plain(node, i)).index)
        return self._emit(name, indices, self._like(node, nhwc))

    def _op_convert(self, node: Any) -> _Tensor:
        made = self._tensor(_shape(node), _dtype(node))
        return self._emit("CAST", [self._plain(node, 0).index], made)

    def _op_slice(self, node: Any) -> _Tensor:
        shape = _shape(_source(node, 0))
        begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
        end_mask = 0
        starts, stops, steps = (_constant_list(node, i) for i in (1, 2, 3))
        axes = _constant_list(node, 4) if node.get_input_size() > 4 else list(range(len(starts)))
        for axis, start, stop, by in zip(axes, starts, stops, steps, strict=True):
            axis %= len(shape)
            begin[axis], end[axis], step[axis] = slice(start, stop, by).indices(shape[axis])
            if end[axis] < 0:  # backwards to the first one: -1 would mean the last one here
                end_mask |= 1 << axis
        rows = [self._constant(np.array(row, np.int32)).index for row in (begin, end, step)]
        options = self._s.StridedSliceOptionsT(endMask=end_mask)
        return self._emit(
            "STRIDED_SLICE", [self._plain(node, 0).index, *rows], self._like(node), "StridedSliceOptions", options
        )

    def _op_gather(self, node: Any) -> _Tensor:
        axis = _constant_list(node, 2)[0]
        indices = _required(node, 1).astype(np.int32)
        data = _shape(_source(node, 0))
        indices = np.where(indices < 0, indices + data[axis], indices).astype(np.int32)
        options = self._s.GatherOptionsT(axis=axis)
        inputs = [self._plain(node, 0).index, self._constant(indices).index]
        return self._emit("GATHER", inputs, self._like(node), "GatherOptions", options)

    def _reshape(self, node: Any) -> _Tensor:
        shape = _shape(node)
        inputs = [self._plain(node, 0).index, self._constant(np.array(shape, np.int32)).index]
        options = self._s.ReshapeOptionsT(newShape=shape)
        return self._emit("RESHAPE", inputs, self._like(node), "ReshapeOptions", options)

    _op_unsqueeze = _op_squeeze = _op_reshape = _reshape

    def _op_concat(self, node: Any) -> _Tensor:
        options = self._s.ConcatenationOptionsT(axis=int(node.get_attributes()["axis"]))
        inputs = [self._plain(node, i).index for i in range(node.get_input_size())]
        return self._emit("CONCATENATION", inputs, self._like(node), "ConcatenationOptions", options)

    def _op_transpose(self, node: Any) -> _Tensor:
        inputs = [self._plain(node, 0).index, self._constant(_required(node, 1).astype(np.int32)).index]
        return self._emit("TRANSPOSE", inputs, self._like(node))

    def _op_matmul(self, node: Any) -> _Tensor:
        attributes = node.get_attributes()
        weights = _value(_source(node, 1))
        if weights is not None and weights.ndim == 2 and not attributes["transpose_a"]:
            rows = weights if attributes["transpose_b"] else weights.T
            inputs = [self._plain(node, 0).index, self._constant(rows).index, -1]  # -1: no bias
            options = self._s.FullyConnectedOptionsT(keepNumDims=len(_shape(node)) > 2)
            return self._emit("FULLY_CONNECTED", inputs, self._like(node), "FullyConnectedOptions", options)
        inputs = [self._plain(node, i).index for i in (0, 1)]
        options = self._s.BatchMatMulOptionsT(adjX=attributes["transpose_a"], adjY=attributes["transpose_b"])
        return self._emit("BATCH_MATMUL", inputs, self._like(node), "BatchMatMulOptions", options)

    def _op_convolution(self, node: Any) -> _Tensor:
        attributes = node.get_attributes()
        _no_padding(node)
        kernel = _required(node, 1)  # (out, in, height, width)
        inputs = [
            self._nhwc(node).index,
            self._constant(kernel.transpose(_TO_NHWC)).index,
            self._constant(np.zeros(len(kernel), np.float32)).index,
        ]
        options = self._s.Conv2DOptionsT(padding=self._s.Padding.VALID)
        options.strideH, options.strideW = (int(n) for n in attributes["strides"])
        options.dilationHFactor, options.dilationWFactor = (int(n) for n in attributes["dilations"])
        return self._emit("CONV_2D", inputs, self._like(node, nhwc=True), "Conv2DOptions", options)

    def _pool(self, node: Any, name: str) -> _Tensor:
        attributes = node.get_attributes()
        _no_padding(node)
        options = self._s.Pool2DOptionsT(padding=self._s.Padding.VALID)
        options.strideH, options.strideW = (int(n) for n in attributes["strides"])
        options.filterHeight, options.filterWidth = (int(n) for n in attributes["kernel"])
        return self._emit(name, [self._nhwc(node).index], self._like(node, nhwc=True), "Pool2DOptions", options)

    def _op_avgpool(self, node: Any) -> _Tensor:
        return self._pool(node, "AVERAGE_POOL_2D")

    def _op_maxpool(self, node: Any) -> _Tensor:
        return self._pool(node, "MAX_POOL_2D")

    def _op_reducemean(self, node: Any) -> _Tensor:
        inputs = [self._plain(node, 0).index, self._constant(_required(node, 1).astype(np.int32)).index]
        options = self._s.ReducerOptionsT(keepDims=bool(node.get_attributes()["keep_dims"]))
        return self._emit("MEAN", inputs, self._like(node), "ReducerOptions", options)

    def _op_softmax(self, node: Any) -> _Tensor:
        if int(node.get_attributes()["axis"]) not in (-1, len(_shape(node)) - 1):
            raise _untranslatable(node, "is not over the last axis")
        options = self._s.SoftmaxOptionsT(beta=1.0)
        return self._emit("SOFTMAX", [self._plain(node, 0).index], self._like(node), "SoftmaxOptions", options)

    def _op_clamp(self, node: Any) -> _Tensor:
        attributes = node.get_attributes()
        index = self._plain(node, 0).index
        for name, key in (("MAXIMUM", "min"), ("MINIMUM", "max")):
            bound = self._constant(np.float32(attributes[key]))
            index = self._emit(name, [index, bound.index], self._like(node)).index
        return _Tensor(index)

    # --- tensors

    def _of(self, source: Any) -> _Tensor:
        return self._known[str(source.get_node().get_friendly_name()), int(source.get_index())]

    def _plain(self, node: Any, i: int) -> _Tensor:
        """Input `i` in the old graph's order of axes."""
        source = _source(node, i)
        value = _value(source)
        if value is not None:
            return self._constant(value)
        found = self._of(source)
        return self._turned(found, _TO_NCHW, source) if found.nhwc else found

    def _nhwc(self, node: Any) -> _Tensor:
        source = _source(node, 0)
        found = self._of(source)
        return found if found.nhwc else self._turned(found, _TO_NHWC, source)

    def _turned(self, tensor: _Tensor, order: tuple[int, ...], source: Any) -> _Tensor:
        shape = _shape(source)
        made = self._tensor([shape[i] for i in order] if order == _TO_NHWC else shape, np.dtype(np.float32))
        made.nhwc = order == _TO_NHWC
        return self._emit("TRANSPOSE", [tensor.index, self._constant(np.array(order, np.int32)).index], made)

    def _like(self, node: Any, nhwc: bool = False) -> _Tensor:
        """A tensor for the output of a node."""
        shape = _shape(node)
        made = self._tensor([shape[i] for i in _TO_NHWC] if nhwc else shape, _dtype(node))
        made.nhwc = nhwc
        return made

    def _tensor(self, shape: Sequence[int], dtype: np.dtype[Any], data: bytes | None = None) -> _Tensor:
        tensor = self._s.TensorT()
        types = self._s.TensorType
        kinds = {np.dtype(np.float32): types.FLOAT32, np.dtype(np.uint8): types.UINT8, np.dtype(np.int32): types.INT32}
        if dtype not in kinds:
            raise UntranslatableError(f"LiteRT's graph would need a tensor of {dtype}, which is not written down here")
        tensor.shape, tensor.type = list(shape), kinds[dtype]
        tensor.buffer = 0
        if data is not None:
            buffer = self._s.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return _Tensor(len(self._graph.tensors) - 1)

    def _constant(self, value: Any) -> _Tensor:
        array = np.ascontiguousarray(value)  # makes a scalar of rank 1, which broadcasts all the same
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        return self._tensor(np.shape(value), array.dtype, array.tobytes())

    def _emit(self, name: str, inputs: Sequence[int], output: _Tensor, kind: str = "", options: Any = None) -> _Tensor:
        operator = self._s.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs, operator.outputs = list(inputs), [output.index]
        if kind:
            operator.builtinOptionsType = getattr(self._s.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._graph.operators.append(operator)
        return output

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = self._s.OperatorCodeT()
            code.builtinCode = getattr(self._s.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
            self._codes[name] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[name]


def _source(node: Any, i: int) -> Any:
    return node.input_value(i)


def _shape(port: Any) -> list[int]:
    """Of an output, or of a node's only one."""
    return [int(n) for n in (port.get_shape() if hasattr(port, "get_shape") else port.output(0).get_shape())]


def _dtype(node: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(node.output(0).get_element_type().to_dtype())
    return found


def _value(source: Any) -> Array | None:
    """A constant's value, or None of anything else."""
    node = source.get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None


def _required(node: Any, i: int) -> Array:
    value = _value(_source(node, i))
    if value is None:
        raise _untranslatable(node, f"has an input {i} that is no constant")
    return value


def _constant_list(node: Any, i: int) -> list[int]:
    return [int(n) for n in np.atleast_1d(_required(node, i))]


def _no_padding(node: Any) -> None:
    attributes = node.get_attributes()
    if any(attributes["pads_begin"]) or any(attributes["pads_end"]) or str(attributes["auto_pad"]) != "explicit":
        raise _untranslatable(node, "is padded")


def _untranslatable(node: Any, what: str) -> UntranslatableError:
    return UntranslatableError(f"{node.get_type_name()} ({node.get_friendly_name()}) {what}")
