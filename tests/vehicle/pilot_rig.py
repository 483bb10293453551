"""What the pilot's tests share: a small bundle, a world that shows pictures, and a gate that only listens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq
from onnx import TensorProto, helper

from vehicle.action_space import ActionSpace, default_action_space
from vehicle.bundle import Bundle, write_bundle
from vehicle.contract import contract_for
from vehicle.messages import Alive, Intent, decode
from vehicle.policy import OnnxPolicy


def graph(width: int = 10, *, first: int = 0, last: str = "Softmax", scale: float = 4.0, bias: float = 0.0) -> bytes:
    """The means of `width` rows of a frame, from row `first` on, over that of row 119, * scale + bias, through `last`.

    So the brightest row decides, and a frame whose row 119 is black gives NaN.
    """
    nodes = [
        helper.make_node("Gather", ["frames", "rows"], ["gathered"], axis=1),
        helper.make_node("Cast", ["gathered"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Gather", ["frames", "row_119"], ["last_row"], axis=1),
        helper.make_node("Cast", ["last_row"], ["last_floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["last_floats"], ["last_mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Div", ["means", "last_mean"], ["unit"]),
        helper.make_node("Mul", ["unit", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], ["output"]),
    ]
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [width], list(range(first, first + width))),
        helper.make_tensor("row_119", TensorProto.INT64, [1], [119]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("bias", TensorProto.FLOAT, [], [bias]),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 120, 160, 1])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width])
    body = helper.make_graph(nodes, "policy", [frames], [output], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def noise(seed: int, count: int = 1) -> npt.NDArray[np.uint8]:
    """Observations, (count, 120, 160, 1)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 120, 160, 1), dtype=np.uint8)


def bright(row: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A gray picture of noise, (120, 160), whose one row is bright: the policy of `graph` takes that action."""
    pixels = noise(seed)[0, :, :, 0] // 8 + 60
    pixels[row] = 255
    return np.asarray(pixels, dtype=np.uint8)


def make_bundle(path: Path, *, first: int = 0, space: ActionSpace | None = None) -> Bundle:
    """A good bundle of the default action space; `first` makes it another model."""
    space = space or default_action_space()
    model, frames = graph(space.size, first=first), noise(5, 3)
    return write_bundle(
        path,
        onnx_model=model,
        action_space=space,
        neural_network="DEEP_CONVOLUTIONAL_NETWORK_SHALLOW",
        contract=contract_for(space, control_period_s=0.1, trained_on={"tracks": ["oval"]}),
        golden_frames=frames,
        golden_outputs=OnnxPolicy(model, space)(frames),
    )


@dataclass
class FakeGate:
    """Binds the gate's sockets and writes down what comes; `pump` must be called for anything to happen."""

    runtime: Path
    state: dict[str, Any] = field(default_factory=lambda: {"mode": "disarmed", "armed": False, "model": None})
    intents: list[Intent] = field(default_factory=list)
    alives: list[Alive] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    silent: bool = False

    def __post_init__(self) -> None:
        self._context = zmq.Context()
        self._intents = self._bind(zmq.PULL, "gate.intent")
        self._states = self._bind(zmq.PUB, "gate.state")
        self._requests = self._bind(zmq.ROUTER, "gate.request")
        self._told_s = 0.0

    def _bind(self, kind: int, name: str) -> zmq.Socket[bytes]:
        bound = self._context.socket(kind)
        bound.setsockopt(zmq.LINGER, 0)
        bound.bind(f"ipc://{self.runtime}/{name}")
        return bound

    def pump(self, for_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Be a gate for some time, or until something holds; True where it did."""
        deadline_s = time.monotonic() + for_s
        while time.monotonic() < deadline_s:
            while self._intents.poll(5):
                message = decode(self._intents.recv())
                if isinstance(message, Intent):
                    self.intents.append(message)
                else:
                    self.alives.append(message)
            while self._requests.poll(0):
                *envelope, text = self._requests.recv_multipart()
                self.requests.append(json.loads(text))
                if self.requests[-1]["op"] == "model":
                    self.state["model"] = {key: self.requests[-1][key] for key in ("sha256", "trial")}
                self._requests.send_multipart([*envelope, b'{"ok":true}'])
            if time.monotonic() - self._told_s > 0.1 and not self.silent:
                self._told_s = time.monotonic()
                self._states.send(json.dumps(self.state).encode())
            if until is not None and until():
                return True
        return until is None

    def clear(self) -> None:
        """Forget what came so far."""
        self.intents.clear()
        self.alives.clear()

    def close(self) -> None:
        self._context.destroy(linger=0)


class FakeWorld:
    """Publishes pictures for the `sim` camera when told to."""

    def __init__(self, runtime: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{runtime}/world.frames")
        self.seq = 0

    def show(self, pixels: npt.NDArray[np.uint8], age_s: float = 0.0) -> None:
        height, width = pixels.shape
        header = {"seq": self.seq, "stamp_s": time.monotonic() - age_s, "height": height, "width": width}
        self._socket.send_multipart([json.dumps(header).encode(), pixels.tobytes()])
        self.seq += 1

    def close(self) -> None:
        self._context.destroy(linger=0)
