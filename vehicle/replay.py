"""``hotlap drive --replay LOG``: a model over the frames of a drive, compared with what was done about them then.

With the model that drove it is a check: the same bytes must give the same steering and speed. With another one it is a
comparison: how often, and how far, would it have steered differently?
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vehicle.bundle import Bundle, read_bundle
from vehicle.car_config import load_car_config
from vehicle.client import emit
from vehicle.drive_log import Damage
from vehicle.errors import VehicleError
from vehicle.fast_policy import FastPolicy
from vehicle.frame_log import SeenFrame, find_frames
from vehicle.policy import PolicyOutputError
from vehicle.slots import ModelStore

TOLERANCE = 1e-3  # degrees and m/s: far above what another processor's rounding makes of a continuous policy
SHOWN = 20
_SHA_CHARACTERS = 12


def replay(args: argparse.Namespace) -> int:
    """``hotlap drive --replay``.

    Returns:
        1 where a frame that this very model drove by gets another answer now; 0 otherwise.

    Raises:
        ConfigError: there is no such log, or no frame in it.
        VehicleError: there is no model to run.
        BundleError: the model is not good.
    """
    log, frames, damage = find_frames(args.replay)
    bundle = _model(args.model, args.config)
    result = {"log": str(log), **compare(bundle, frames), "damage": [dataclasses.asdict(one) for one in damage]}
    emit(args.json, result, _text(result, damage))
    return 0 if result["check"] != "failed" else 1


def _model(path: Path | None, config: Path | None) -> Bundle:
    """The bundle that was named, else the one that drives this car."""
    if path is not None:
        return read_bundle(path)
    active = ModelStore(load_car_config(config).state_path() / "models").active()
    if active is None:
        raise VehicleError(
            "no model is installed to replay with", next_step="hotlap drive --replay LOG --model RUN/bundle.tar.gz"
        )
    return read_bundle(active.bundle_path)


def compare(bundle: Bundle, frames: Sequence[SeenFrame]) -> dict[str, Any]:
    """Run the model over every frame, as the pilot does, and compare.

    Returns:
        "frames", "same" (within `TOLERANCE`), the greatest differences in degrees and m/s over all that could be
        answered, "differences" (the first 20; "error" where the model gave no answer), "model", "recorded_models" (how
        many frames each drove by), and "check": "passed" or "failed" for frames of this very model, else "comparison".
    """
    policy = FastPolicy(bundle)
    same = own_differences = 0
    steering_most_deg = speed_most_mps = 0.0
    differences: list[dict[str, Any]] = []
    for frame in frames:
        recorded = {
            "seq": frame.seq,
            "t_s": round(frame.t_s, 6),
            "recorded": {"steering_deg": frame.steering_deg, "speed_mps": frame.speed_mps},
        }
        try:
            steering_deg, speed_mps = policy.act(frame.observation)
        except PolicyOutputError as error:
            now: dict[str, Any] = {"error": error.what}
        else:
            steering, speed = abs(steering_deg - frame.steering_deg), abs(speed_mps - frame.speed_mps)
            steering_most_deg, speed_most_mps = max(steering_most_deg, steering), max(speed_most_mps, speed)
            if steering <= TOLERANCE and speed <= TOLERANCE:
                same += 1
                continue
            now = {"now": {"steering_deg": steering_deg, "speed_mps": speed_mps}}
        own_differences += frame.model == bundle.sha256
        if len(differences) < SHOWN:
            differences.append({**recorded, **now})
    models = Counter(frame.model for frame in frames)
    check = "comparison" if not models[bundle.sha256] else "failed" if own_differences else "passed"
    return {
        "frames": len(frames),
        "same": same,
        "max_steering_difference_deg": round(steering_most_deg, 6),
        "max_speed_difference_mps": round(speed_most_mps, 6),
        "differences": differences,
        "model": bundle.sha256,
        "recorded_models": dict(models),
        "check": check,
    }


def _text(result: dict[str, Any], damage: Sequence[Damage]) -> str:
    """The result for people."""
    own = result["recorded_models"].get(result["model"], 0)
    words = {
        "passed": f"check passed: this model drove by {own} of them and answers as it did",
        "failed": f"check FAILED: this model drove by {own} of them, and answers differently now",
        "comparison": "a comparison: another model drove by them",
    }
    lines = [
        f"{result['log']}: {result['frames']} frames, model {result['model'][:_SHA_CHARACTERS]}",
        f"{words[result['check']]}; {result['same']} of {result['frames']} are the same",
        f"greatest difference: {result['max_steering_difference_deg']:.2f} degrees, "
        f"{result['max_speed_difference_mps']:.2f} m/s",
    ]
    for one in result["differences"]:
        then, now = one["recorded"], one.get("now")
        answer = f"{now['steering_deg']:+.1f} deg {now['speed_mps']:.2f} m/s" if now else one["error"]
        lines.append(f"  frame {one['seq']}: {then['steering_deg']:+.1f} deg {then['speed_mps']:.2f} m/s, now {answer}")
    hidden = result["frames"] - result["same"] - len(result["differences"])
    if hidden > 0:
        lines.append(f"  and {hidden} more")
    if damage:
        torn = sum(one.length for one in damage)
        lines.append(f"damage: {torn} bytes in {len(damage)} places are no record ({damage[0].fault}, ...)")
    return "\n".join(lines)
