"""One policy under several runtimes, timed in turns on this machine; for `hotlap bench drive`.

ONNX Runtime is what drives. The others are optional (``pip install 'hotlap[bench]'``) and left out, with the reason,
where they are not installed or do not know the graph. Each must first give ONNX Runtime's outputs: another network, or
a wrong translation, would be no comparison.
"""

from __future__ import annotations

import importlib.metadata
import io
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vehicle.bench_litert import to_litert
from vehicle.bundle import Bundle
from vehicle.errors import VehicleError
from vehicle.observation import SHAPE
from vehicle.policy import OnnxPolicy, open_session

TOLERANCE = 1e-3  # of a probability, or of the range of steering and speed
WARM_UP_RUNS = 50
ROUNDS = 10  # the runtimes take turns, so that a disturbance of a second meets all of them
RUNS = 200  # in a round
PAUSE_S = 0.05  # after each turn: whoever has real-time priority is stopped by the kernel where it never pauses
_REFERENCE = "onnxruntime"

Pixels = npt.NDArray[np.uint8]
Output = npt.NDArray[np.float32]


class Runtime(Protocol):
    """A loaded network. `run` is what is timed: picture in, inference, output out."""

    version: str

    def run(self, observation: Pixels) -> Output:
        """One observation, uint8 (120, 160, 1), to the output, float32 (A,)."""
        ...


class OnnxRuntime:
    """As `vehicle.fast_policy.FastPolicy` runs it: one thread, input and output bound once."""

    def __init__(self, bundle: Bundle) -> None:
        self.version = importlib.metadata.version("onnxruntime")
        self._session = open_session(bundle.onnx_model)
        self._input: Pixels = np.zeros((1, *SHAPE), np.uint8)
        self._output: Output = np.zeros((1, bundle.action_space.size), np.float32)
        self._binding = self._session.io_binding()
        name = self._session.get_inputs()[0].name
        self._binding.bind_input(name, "cpu", 0, np.uint8, self._input.shape, self._input.ctypes.data)
        name = self._session.get_outputs()[0].name
        self._binding.bind_output(name, "cpu", 0, np.float32, self._output.shape, self._output.ctypes.data)

    def run(self, observation: Pixels) -> Output:
        """See `Runtime`."""
        np.copyto(self._input[0], observation)
        self._session.run_with_iobinding(self._binding)
        output: Output = self._output[0]
        return output


class OpenVino:
    """OpenVINO's CPU plug-in on one thread, for a batch of one.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        model = read_openvino(bundle)
        self.version = importlib.metadata.version("openvino")
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        # In float32 like the others: the plug-in would choose bfloat16 on processors that have it.
        options["INFERENCE_PRECISION_HINT"] = "f32"
        openvino = import_openvino()
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._input: Pixels = np.zeros((1, *SHAPE), np.uint8)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def run(self, observation: Pixels) -> Output:
        """See `Runtime`."""
        np.copyto(self._input[0], observation)
        self._request.infer()
        output: Output = np.asarray(self._request.get_output_tensor().data, dtype=np.float32)[0]
        return output


class LiteRt:
    """LiteRT (TensorFlow Lite) with XNNPACK, on one thread; the graph is translated (`vehicle.bench_litert`).

    Raises:
        ImportError: ai-edge-litert is not installed, or openvino, which reads the graph for it.
        UntranslatableError: the graph has an operation that is not known there.
    """

    def __init__(self, bundle: Bundle) -> None:
        interpreter = import_module("ai_edge_litert.interpreter").Interpreter
        self.version = importlib.metadata.version("ai-edge-litert")
        try:
            model = read_openvino(bundle)
        except ImportError as error:
            raise ImportError(f"{error}; it reads the ONNX graph for LiteRT, which cannot", name=error.name) from error
        passes = import_module("openvino.passes")
        manager = passes.Manager()
        manager.register_pass(passes.ConstantFolding())
        manager.run_passes(model)
        self._interpreter = interpreter(model_content=to_litert(model), num_threads=1)
        self._interpreter.allocate_tensors()
        self._in = self._interpreter.get_input_details()[0]["index"]
        self._out = self._interpreter.get_output_details()[0]["index"]

    def run(self, observation: Pixels) -> Output:
        """See `Runtime`."""
        self._interpreter.set_tensor(self._in, observation[None])
        self._interpreter.invoke()
        output: Output = np.asarray(self._interpreter.get_tensor(self._out), dtype=np.float32)[0]
        return output


# Named as the packages are. LiteRT stands for the "ai-edge-litert or ncnn": ncnn has no batches, and the
# graphs of the trainer average a picture and its mirror image as a batch of two.
RUNTIMES: dict[str, Callable[[Bundle], Runtime]] = {
    _REFERENCE: OnnxRuntime, "openvino": OpenVino, "ai-edge-litert": LiteRt,
}  # fmt: skip


def import_openvino() -> Any:
    """The module, without its telemetry: as it comes, importing it reports that to its maker, from a thread.

    Raises:
        ImportError: it is not installed.
    """
    if "openvino" not in sys.modules:
        # None: Python then takes it for a package that is not installed, and openvino does without.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def read_openvino(bundle: Bundle) -> Any:
    """The bundle's graph as OpenVINO reads it, its batch fixed to one.

    Raises:
        ImportError: openvino is not installed.
    """
    model = import_openvino().Core().read_model(io.BytesIO(bundle.onnx_model))
    model.reshape([1, *SHAPE])
    return model


def time_runtimes(bundle: Bundle, rounds: int = ROUNDS, runs: int = RUNS) -> dict[str, dict[str, Any]]:
    """Time every runtime that is here, on the bundle's golden frames, one frame at a time.

    Args:
        rounds, runs: each runtime runs `runs` times in each of `rounds` turns.

    Returns:
        for each: "version", "p50_us", "p99_us", "max_us", "to_onnxruntime" (ratio of the medians; less is faster) and
        "difference" (greatest, from ONNX Runtime, in shares of the output's range); or "skipped" with the reason.
    """
    found: dict[str, dict[str, Any]] = {}
    loaded: dict[str, Runtime] = {}
    for name, make in RUNTIMES.items():
        try:
            runtime = make(bundle)
            difference = _difference(bundle, runtime)
        except (ImportError, VehicleError, RuntimeError, ValueError) as error:
            found[name] = {"skipped": _reason(name, error)}
            continue
        if not difference <= TOLERANCE:  # so written that NaN is not accepted
            found[name] = {"skipped": f"its outputs differ by {difference:.2e} (allowed: {TOLERANCE})"}
            continue
        loaded[name] = runtime
        found[name] = {"version": runtime.version, "difference": float(f"{difference:.2e}")}
    times_us: dict[str, list[float]] = {name: [] for name in loaded}
    for _ in range(rounds):
        for name, runtime in loaded.items():
            times_us[name] += _time_us(runtime, bundle.golden_frames, runs)
            time.sleep(PAUSE_S)
    for name, values in times_us.items():
        p50, p99 = np.percentile(values, [50, 99])
        found[name] |= {"p50_us": _us(p50), "p99_us": _us(p99), "max_us": _us(max(values))}
    reference_us = found[_REFERENCE].get("p50_us")
    for name in loaded if reference_us else ():
        found[name]["to_onnxruntime"] = round(found[name]["p50_us"] / reference_us, 2)
    return found


def _difference(bundle: Bundle, runtime: Runtime) -> float:
    wanted = OnnxPolicy(bundle)(bundle.golden_frames)
    span = np.ones(bundle.action_space.size, np.float32)
    if bundle.contract.output != "probabilities":
        limits = bundle.contract.action
        span = np.array(
            [limits.steering_max_deg - limits.steering_min_deg, limits.speed_max_mps - limits.speed_min_mps], np.float32
        )
    got = np.stack([runtime.run(frame).copy() for frame in bundle.golden_frames])
    return float((np.abs(got - wanted) / np.maximum(span, 1e-6)).max())


def _time_us(runtime: Runtime, frames: Pixels, runs: int) -> list[float]:
    for i in range(WARM_UP_RUNS):
        runtime.run(frames[i % len(frames)])
    times_us = []
    for i in range(runs):
        frame = frames[i % len(frames)]
        begun_ns = time.monotonic_ns()
        runtime.run(frame)
        times_us.append((time.monotonic_ns() - begun_ns) / 1e3)
    return times_us


def _us(value: float) -> float:
    return round(float(value), 1)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"not installed ({error}): pip install 'hotlap[bench]'"
    text = error.what if isinstance(error, VehicleError) else str(error).strip().splitlines()[0]
    return f"{name} cannot run this graph: {text}"
