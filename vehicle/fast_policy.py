"""The policy as the pilot runs it: one frame at a time, tuned for even times rather than for throughput.

Against `vehicle.policy.OnnxPolicy`, which decides the same: input and output lie in memory that is allocated once and
bound to the session, the decision is a table look-up, and 50 runs have warmed everything up. What a second thread would
win in the mean (30 us of 90) it loses in tails of milliseconds (spec ``rl-and-rendering.md`` §4), so there is one.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vehicle.action_space import ActionSpace, DiscreteActionSpace
from vehicle.contract import ONNX_INVALID
from vehicle.errors import BundleError
from vehicle.observation import SHAPE, check_observations
from vehicle.policy import (
    ORT_ERRORS,
    OUTPUT_TOLERANCE,
    PolicyOutputError,
    open_policy,
    range_excess,
)

if TYPE_CHECKING:
    from vehicle.bundle import Bundle

WARM_UP_RUNS = 50


class FastPolicy:
    """A policy ready to drive, for one thread.

    Args:
        source: a checked bundle, or the bytes of an ONNX graph together with `action_space`.

    Raises:
        BundleError: the graph cannot be loaded or run, or does not fit the action space.
    """

    def __init__(self, source: Bundle | bytes, action_space: ActionSpace | None = None) -> None:
        self._session, self.action_space = open_policy(source, action_space)
        space = self.action_space
        if isinstance(space, DiscreteActionSpace):
            self._table = [(float(steering), float(speed)) for steering, speed in space.table()]
        else:
            self._low = np.array([space.steering_low_deg, space.speed_low_mps], dtype=np.float32)
            self._high = np.array([space.steering_high_deg, space.speed_high_mps], dtype=np.float32)
        self._input: npt.NDArray[np.uint8] = np.zeros((1, *SHAPE), dtype=np.uint8)
        self._output: npt.NDArray[np.float32] = np.zeros((1, space.size), dtype=np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_input(
            self._session.get_inputs()[0].name, "cpu", 0, np.uint8, self._input.shape, self._input.ctypes.data
        )
        self._binding.bind_output(
            self._session.get_outputs()[0].name, "cpu", 0, np.float32, self._output.shape, self._output.ctypes.data
        )
        # Noise, not zeros: the time of some kernels depends on the numbers.
        noise = np.random.default_rng(0).integers(0, 256, (WARM_UP_RUNS, *SHAPE), dtype=np.uint8)
        for frame in noise:
            self._run(frame)

    def act(self, observation: npt.NDArray[np.uint8]) -> tuple[float, float]:
        """The greedy action for one observation, uint8 (120, 160, 1): steering (deg) and speed (m/s).

        As `OnnxPolicy.act` decides, and stricter in one point: what a discrete policy gives must be probabilities.

        Raises:
            ObservationError: another type or shape.
            PolicyOutputError: an output that is NaN, infinite or out of range.
            BundleError: ``onnx_invalid``: the graph cannot be run.
        """
        check_observations(observation[None])
        self._run(observation)
        output = self._output[0]
        if not np.isfinite(output).all():
            raise PolicyOutputError(
                f"the policy's output is not finite: {output.tolist()}",
                cause="weights that diverged in training, or memory that fails",
                next_step="hotlap models rollback",
            )
        return self._decide(output)

    def _run(self, observation: npt.NDArray[np.uint8]) -> None:
        np.copyto(self._input[0], observation)
        # A graph whose output has another shape than it declares would leave this memory as it is: that must not pass
        # for an answer.
        self._output.fill(np.nan)
        try:
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise BundleError(
                ONNX_INVALID, f"the graph cannot be run: {error}", next_step="export it again with hotlap export"
            ) from error

    def _decide(self, output: npt.NDArray[np.float32]) -> tuple[float, float]:
        space = self.action_space
        if isinstance(space, DiscreteActionSpace):
            total, least = float(output.sum(dtype=np.float64)), float(output.min())
            if least < -OUTPUT_TOLERANCE or abs(total - 1.0) > OUTPUT_TOLERANCE:
                raise PolicyOutputError(
                    f"the policy gives no probabilities: the least is {least:.6g}, together they are {total:.6g}",
                    cause="the graph's last step, the softmax, is missing, or memory that fails",
                    next_step="hotlap models rollback",
                )
            return self._table[int(output.argmax())]
        if (range_excess(space, output[None]) > OUTPUT_TOLERANCE).any():
            raise PolicyOutputError(
                f"the policy asks for {output.tolist()} (deg, m/s), out of {space}",
                cause="the exported graph does not limit its output",
                next_step="export it again with hotlap export",
            )
        steering_deg, speed_mps = np.clip(output, self._low, self._high).tolist()
        return float(steering_deg), float(speed_mps)


def calm_collector() -> None:
    """Take everything that lives now out of the garbage collector's sight; for after a model was loaded.

    What is collected in the loop from then on is only what the loop itself made, in microseconds.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
