"""From a trained policy to a bundle that a car accepts."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim.car_spec import CarSpec
from trainer.errors import RunStorageError, TrainerError
from trainer.networks import Policy
from vehicle.action_space import ActionSpace, ContinuousActionSpace
from vehicle.bundle import Bundle, write_bundle
from vehicle.contract import CameraContract, contract_for
from vehicle.policy import OnnxPolicy

AGREEMENT = 1e-4  # between PyTorch and ONNX Runtime, issue 2
_GOLDEN = 16  # frames kept inside the bundle
_OPSET = 17


class Graph(nn.Module):
    """The whole way from the contract's picture to its output; what the ONNX file holds."""

    low: Tensor
    high: Tensor

    def __init__(self, policy: Policy, action_space: ActionSpace) -> None:
        super().__init__()
        self.policy = policy
        self.continuous = isinstance(action_space, ContinuousActionSpace)
        if isinstance(action_space, ContinuousActionSpace):
            low = torch.tensor([action_space.steering_low_deg, action_space.speed_low_mps])
            high = torch.tensor([action_space.steering_high_deg, action_space.speed_high_mps])
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, 120, 160, 1) -> (N, A) probabilities, or (N, 2) steering in degrees and speed in m/s."""
        output = self.policy(self.policy.front(frames))
        if not self.continuous:
            return torch.softmax(output, 1)
        share = (output.clamp(-1, 1) + 1) / 2
        return torch.minimum(torch.maximum(self.low + share * (self.high - self.low), self.low), self.high)


def onnx_bytes(policy: Policy, action_space: ActionSpace) -> bytes:
    """The policy as an ONNX model.

    PyTorch's older exporter is used knowingly: it takes 0.4 s where the newer takes 7 s, so that a run can leave a
    bundle whenever it has got better, and torch is pinned.
    """
    graph = Graph(policy, action_space).eval()
    buffer = io.BytesIO()
    output = "steering_deg_speed_mps" if graph.continuous else "probabilities"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecation above, and tracing's remarks on constants
        torch.onnx.export(
            graph,
            (torch.zeros(2, 120, 160, 1, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # the older exporter takes a buffer, its annotation is the newer's
            dynamo=False,
            opset_version=_OPSET,
            input_names=["frames"],
            output_names=[output],
            dynamic_axes={"frames": {0: "N"}, output: {0: "N"}},
        )
    return buffer.getvalue()


def export_bundle(
    path: Path,
    policy: Policy,
    action_space: ActionSpace,
    *,
    frames: NDArray[np.uint8],
    car: CarSpec,
    control_period_s: float,
    trained_on: dict[str, Any],
) -> Bundle:
    """Write the bundle, after holding PyTorch and ONNX Runtime against each other.

    Args:
        path: where to; replaced in one step.
        frames: (k, 120, 160, 1) uint8 pictures from the simulator, at least 100 for the comparison; the first ones
            become the golden vectors.
        trained_on: tracks, steps, seed and so on, for people.

    Raises:
        TrainerError: the two disagree by more than 1e-4; RunStorageError: the file cannot be written.
    """
    model = onnx_bytes(policy, action_space)
    with torch.no_grad():
        ours = Graph(policy, action_space).eval()(torch.from_numpy(frames)).numpy().astype(np.float32)
    theirs = OnnxPolicy(model, action_space)(frames)
    # Degrees and m/s are compared as shares of their largest, so that one bound serves all kinds of output.
    scale = np.ones(action_space.size)
    if isinstance(action_space, ContinuousActionSpace):
        scale = np.array([action_space.max_steering_deg, action_space.max_speed_mps])
    difference = float((np.abs(ours - theirs) / scale).max())
    if not difference <= AGREEMENT:
        raise TrainerError(
            f"PyTorch and ONNX Runtime differ by {difference:.2e} (allowed: {AGREEMENT:.0e})",
            cause="weights that are not finite, or an ONNX Runtime that does not fit this processor",
            next_step="hotlap export the last good checkpoint, or reinstall onnxruntime",
        )
    camera = CameraContract(
        horizontal_fov_deg=car.camera.horizontal_fov_deg,
        pitch_down_deg=car.camera.pitch_down_deg,
        height_m=car.camera.height_m,
        forward_m=car.camera.forward_m,
        roll_deg=car.camera.roll_deg,
        frame_rate_hz=car.camera.frame_rate_hz,
    )
    contract = contract_for(action_space, control_period_s=control_period_s, camera=camera, trained_on=trained_on)
    try:
        return write_bundle(
            path,
            onnx_model=model,
            action_space=action_space,
            neural_network=policy.name,
            contract=contract,
            golden_frames=frames[:_GOLDEN],
            golden_outputs=ours[:_GOLDEN],
        )
    except OSError as error:
        raise RunStorageError(
            f"cannot write {path}: {error.strerror or error}",
            cause="a full disk, or a folder without write permission",
            next_step=f"make room, then hotlap export {path.parent}",
        ) from error
