"""Run a policy's ONNX graph with ONNX Runtime on the CPU: frames in, probabilities or steering and speed out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from vehicle.action_space import ActionSpace, ContinuousActionSpace, DiscreteActionSpace
from vehicle.contract import (
    ACTION_SPACE_MISMATCH,
    ONNX_INPUT_MISMATCH,
    ONNX_INVALID,
    ONNX_OUTPUT_MISMATCH,
)
from vehicle.errors import BundleError, VehicleError
from vehicle.observation import SHAPE, check_observations

if TYPE_CHECKING:
    from vehicle.bundle import Bundle

# How far an output may leave its range by rounding, in units of the range (1 for probabilities).
OUTPUT_TOLERANCE = 1e-3

# ONNX Runtime's exceptions have no common base below Exception, so they are collected here by name.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
)


class PolicyOutputError(VehicleError, ArithmeticError):
    """A policy's output is not finite, has the wrong shape, or is out of its action space's range."""


def open_session(onnx_model: bytes) -> ort.InferenceSession:
    """An ONNX Runtime session on one CPU thread, with all graph optimisations and without telemetry.

    One thread, since a car's other processes need the other cores, and a network this small gains nothing from more.

    Raises:
        BundleError: ``onnx_invalid``.
    """
    # Official builds for some systems send usage events; the call is absent where there is nothing to switch off.
    disable_telemetry = getattr(ort, "disable_telemetry_events", None)
    if disable_telemetry is not None:
        disable_telemetry()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # what goes wrong is raised, not printed beside a progress bar
    # A graph may name files of this machine to read weights from. A bundle is complete in itself, so the folder they
    # are looked up in is one that cannot exist.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.path.join(os.devnull, "none")
    )
    try:
        return ort.InferenceSession(onnx_model, options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise BundleError(
            ONNX_INVALID,
            f"ONNX Runtime {ort.__version__} cannot load the graph: {error}",
            cause="damaged, weights in files outside it, or an operator set newer than this ONNX Runtime",
            next_step="export it again with hotlap export",
        ) from error


def check_graph(session: ort.InferenceSession, action_space: ActionSpace) -> None:
    """Refuse a graph that does not take uint8 [N,120,160,1] and give one float32 [N, action_space.size].

    Raises:
        BundleError: ``onnx_input_mismatch``, ``onnx_output_mismatch`` or ``action_space_mismatch`` (the width).
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    fixed_batch = bool(inputs) and bool(inputs[0].shape) and isinstance(inputs[0].shape[0], int)
    if len(inputs) != 1 or inputs[0].type != "tensor(uint8)" or tuple(inputs[0].shape[1:]) != SHAPE or fixed_batch:
        raise BundleError(
            ONNX_INPUT_MISMATCH,
            f"the graph takes {_described(inputs)}, it must take one tensor(uint8) [N, 120, 160, 1] with N free",
            cause="scaling left outside the graph, channels first, or a batch size fixed at export",
            next_step="export it again with hotlap export",
        )
    if len(outputs) != 1 or outputs[0].type != "tensor(float)" or len(outputs[0].shape) != 2:
        raise BundleError(
            ONNX_OUTPUT_MISMATCH,
            f"the graph gives {_described(outputs)}, it must give one tensor(float) [N, {action_space.size}]",
            cause="the value head exported too, or half precision at the output",
            next_step="export it again with hotlap export",
        )
    width = outputs[0].shape[1]
    if isinstance(width, int) and width != action_space.size:
        raise BundleError(
            ACTION_SPACE_MISMATCH,
            f"the graph gives {width} values, the {action_space.kind} action space needs {action_space.size}",
            cause="the graph was trained with another action space",
            next_step="export graph and action space from the same run",
        )


def run_graph(session: ort.InferenceSession, frames: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The graph's raw output for frames, uint8 (n, 120, 160, 1), unchecked.

    Raises:
        BundleError: ``onnx_invalid`` when it cannot be run.
    """
    try:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(frames)})[0])
    except ORT_ERRORS as error:
        raise BundleError(
            ONNX_INVALID, f"the graph cannot be run on {len(frames)} frames: {error}", next_step="export it again"
        ) from error


def _described(nodes: list[Any]) -> str:
    return ", ".join(f"{n.type} {list(n.shape)}" for n in nodes) or "nothing"


def open_policy(
    source: Bundle | bytes, action_space: ActionSpace | None
) -> tuple[ort.InferenceSession, ActionSpace]:
    """The checked session and the action space of a bundle, or of a graph's bytes and the action space beside them.

    Raises:
        BundleError: the graph cannot be loaded or does not fit the action space.
    """
    if isinstance(source, bytes):
        if action_space is None:
            raise TypeError("a policy needs an action space beside the bytes of a graph")
        model = source
    else:
        model, action_space = source.onnx_model, source.action_space
    session = open_session(model)
    check_graph(session, action_space)
    return session, action_space


class OnnxPolicy:
    """A policy ready to drive.

    Args:
        source: a checked bundle, or the bytes of an ONNX graph together with `action_space`.

    Raises:
        BundleError: the graph cannot be loaded or does not fit the action space.
    """

    def __init__(self, source: Bundle | bytes, action_space: ActionSpace | None = None) -> None:
        self._session, self.action_space = open_policy(source, action_space)

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Frames, uint8 (n, 120, 160, 1), to the graph's output, float32.

        Returns:
            (n, A) probabilities of a discrete policy; (n, 2) steering (deg) and speed (m/s) of a continuous one.

        Raises:
            ObservationError: frames of another type or shape.
            PolicyOutputError: an output that is NaN, infinite or of another shape.
        """
        check_observations(frames)
        if len(frames) == 0:
            return np.empty((0, self.action_space.size), dtype=np.float32)
        output = run_graph(self._session, frames)
        wanted = (len(frames), self.action_space.size)
        if output.shape != wanted or output.dtype != np.float32:
            raise PolicyOutputError(
                f"the policy's output is {output.dtype} {output.shape}, it must be float32 {wanted}"
            )
        finite = np.isfinite(output)
        if not finite.all():
            bad = int(np.flatnonzero(~finite.all(axis=1))[0])
            raise PolicyOutputError(
                f"the policy's output for frame {bad} of {len(frames)} is not finite: {output[bad].tolist()}",
                cause="weights that diverged in training",
                next_step="use an earlier checkpoint",
            )
        return output

    def act(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The greedy actions for frames, uint8 (n, 120, 160, 1): float32 (n, 2), steering (deg) and speed (m/s).

        Discrete: the action of highest probability, the first of equals. Continuous: the output itself, trimmed of
        rounding; beyond that an output out of range is refused, never clamped into motion.

        Raises:
            ObservationError: frames of another type or shape.
            PolicyOutputError: as for a call, or a continuous output out of the action space.
        """
        output = self(frames)
        if isinstance(self.action_space, DiscreteActionSpace):
            return self.action_space.decode(output.argmax(axis=1))
        excess = range_excess(self.action_space, output)
        if (excess > OUTPUT_TOLERANCE).any():
            bad = int(np.flatnonzero((excess > OUTPUT_TOLERANCE).any(axis=1))[0])
            raise PolicyOutputError(
                f"the policy asks for {output[bad].tolist()} (deg, m/s) in frame {bad}, out of {self.action_space}",
                cause="the exported graph does not limit its output",
                next_step="export it again with hotlap export",
            )
        low, high = _limits(self.action_space)
        return np.clip(output, low, high)


def range_excess(space: ContinuousActionSpace, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far actions (n, 2) lie outside the space, in units of its range, float64 (n, 2); 0 inside."""
    low, high = _limits(space)
    outside = np.maximum(np.maximum(low - actions, actions - high), 0.0)
    return np.asarray(outside / (high - low), dtype=np.float64)


def _limits(space: ContinuousActionSpace) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    low = np.array([space.steering_low_deg, space.speed_low_mps], dtype=np.float32)
    return low, np.array([space.steering_high_deg, space.speed_high_mps], dtype=np.float32)


def policy_from_bundle(path: str | os.PathLike[str], *, replay_golden: bool = True) -> OnnxPolicy:
    """Read, check and load a bundle.

    Raises:
        BundleError: any fault of `vehicle.bundle.read_bundle`.
    """
    from vehicle.bundle import read_bundle  # here, since reading a bundle runs its graph with this module

    return OnnxPolicy(read_bundle(path, replay_golden=replay_golden))
