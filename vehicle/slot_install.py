"""Install a bundle: verify it on this processor, hold it against this car, and only then let it into the store.

Nothing is written before every check has passed, so a refused bundle leaves no trace.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.mapping import Calibration
from vehicle import slot_state as s
from vehicle.car_config import CarConfig
from vehicle.contract import MISSING_FILE, TOO_LARGE
from vehicle.errors import SlotError
from vehicle.fit import control_period_s, misfits
from vehicle.measured_camera import with_measured_camera
from vehicle.slot_verify import RUNS, TIMEOUT_S, check_in_child
from vehicle.slots import ModelStore

# Of the control period: the rest is for the camera, the resize, the gate and a busy core.
INFERENCE_SHARE = 0.5
MAX_BYTES = 64 * 2**20  # vehicle.bundle's own cap, which is not imported here for ONNX Runtime's sake


@dataclass(frozen=True)
class Installed:
    """What an install did: `new` is False where the very same bundle was in the store already."""

    sha256: str
    new: bool
    report: dict[str, Any]


def install_bundle(
    store: ModelStore,
    path: str | os.PathLike[str],
    car: CarConfig,
    calibration: Calibration | None,
    *,
    budget_s: float | None = None,
    runs: int = RUNS,
    timeout_s: float = TIMEOUT_S,
) -> Installed:
    """Verify a bundle and take it into the store; it does not drive before it is activated.

    Args:
        path: the ``.tar.gz``.
        car, calibration: what the contract is held against; without a calibration its limits are not.
        budget_s: the p99 that one inference may take; by default half of the car's control period.
        runs: timed inferences, at least 50.
        timeout_s: for all checks that run the graph.

    Raises:
        SlotError: `fault` is a bundle's own (`vehicle.contract.FAULTS`) or one of `vehicle.slot_state.SLOT_FAULTS`.
        ValueError: ``runs`` is too small for a p99.
    """
    if runs < 50:
        raise ValueError(f"a p99 of {runs} runs says nothing: at least 50 are needed")
    store.refuse_while_armed()
    archive = _read(Path(path))
    sha256 = hashlib.sha256(archive).hexdigest()
    s.refuse_barred(store.state(), sha256)
    known = {model.sha256: model.report for model in store.list()}
    if sha256 in known and store.is_whole(sha256):
        return Installed(sha256, False, known[sha256])
    budget_s = INFERENCE_SHARE * control_period_s(car) if budget_s is None else budget_s
    verdict = check_in_child(path, budget_s=budget_s, runs=runs, timeout_s=timeout_s)
    if verdict.sha256 != sha256:
        raise SlotError(
            s.CHANGED,
            f"{path} changed while it was being checked",
            cause="it is still being copied or exported",
            next_step="wait for that, then install it again",
        )
    found = misfits(verdict.contract, with_measured_camera(car), calibration)
    if found:
        raise SlotError(
            s.MISFIT,
            "the model does not fit this car: " + "; ".join(f"{misfit.name}: {misfit.value}" for misfit in found),
            cause="it was trained for another car, or car.toml does not describe this one",
            next_step="; ".join(dict.fromkeys(misfit.cure for misfit in found)),
        )
    report = {**verdict.report(), "budget_ms": budget_s * 1e3}
    sha256, new = store.add(archive, report)
    return Installed(sha256, new, report)


def _read(path: Path) -> bytes:
    """The whole file, at most `MAX_BYTES`, so that what was checked is what is stored."""
    try:
        if not path.is_file():  # a pipe would block, a folder cannot be read
            raise FileNotFoundError(2, "a folder or device" if path.exists() else "no such file")
        with open(path, "rb") as file:
            archive = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SlotError(
            MISSING_FILE, f"{path}: {reason}", next_step="check the path; hotlap train writes RUN/bundle.tar.gz"
        ) from error
    if len(archive) > MAX_BYTES:
        raise SlotError(
            TOO_LARGE,
            f"{path} is larger than {MAX_BYTES} bytes",
            cause="not a hotlap bundle, or one made to fill the memory",
            next_step="copy the bundle again, or export it again with hotlap export",
        )
    return archive
