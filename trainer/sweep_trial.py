"""One trial of a sweep: the run in a folder that was made for it, trained to its end and driven in time trials.

``python -m trainer.sweep_trial RUN TRIALS [STORE]`` prints the result as one JSON object; SIGINT and SIGTERM stop the
training as they stop ``hotlap train``, with everything saved.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.progress import ProgressLine
from trainer.publisher import published
from trainer.run_folder import RunFolder
from trainer.store import store_of
from trainer.time_trials import TimeTrials, summary
from trainer.training import Training
from vehicle.bundle import check_bundle
from vehicle.errors import HotlapError
from vehicle.parent import end_with_parent
from vehicle.policy import OnnxPolicy


def run_trial(path: Path, trials: int, address: str | None = None) -> dict[str, Any]:
    """Train the run in ``path``, from where it is, and judge its bundle.

    Args:
        trials: on each of its tracks, from the start line of the plain track.
        address: a store to publish the run to.

    Returns:
        ``finished``, and if so ``completion_rate``, ``mean_lap_time_s``, ``best_lap_time_s``, and the training's
        ``steps``, ``wall_s``, ``first_lap_s``. One that was stopped by a signal is not finished.

    Raises:
        HotlapError: the run cannot be trained.
    """
    folder = RunFolder.open(path)
    with _alone(path):
        return _run(folder, trials, address)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for a trial of a sweep that was killed a moment ago: it is still saving."""
    with open(path / ".trial.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(folder: RunFolder, trials: int, address: str | None) -> dict[str, Any]:
    path = folder.path
    with ProgressLine() as line, published(path, store_of(address, path) if address else None) as publisher:
        training = Training(folder, folder.config())
        training.report = lambda row, progress: line.show(row, training.share(), progress.first_lap_s)
        if publisher is not None:
            training.saved = publisher.saved
        done = training.run(resume=True)
    if training.share() < 1.0:
        return {"finished": False}
    bundle = check_bundle(folder.bundle)
    judges = TimeTrials(
        training.tracks, trials, action_space=bundle.action_space, car=training.car,
        control_hz=training.config.control_hz, threads=training.threads,
        race=training.config.race,
    )  # fmt: skip
    try:
        figures = summary(judges.run(OnnxPolicy(bundle).act))
    finally:
        judges.close()
    kept = ("completion_rate", "mean_lap_time_s", "best_lap_time_s")
    from_training = ("steps", "wall_s", "first_lap_s")
    result: dict[str, Any] = {"finished": True, **{name: figures[name] for name in kept}}
    result |= {name: done[name] for name in from_training}
    if publisher is not None:
        result["store"] = publisher.result
    return result


def main(path: str, trials: str, address: str = "") -> int:
    """Run as a child of the sweep."""
    end_with_parent()
    # What libraries print is not the result: it goes to stderr with the progress.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        result = run_trial(Path(path), int(trials), address or None)
    except HotlapError as error:
        result = {"finished": False, "error": error.what}
        print(f"hotlap: {error}", file=sys.stderr)
    print(json.dumps(result), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
