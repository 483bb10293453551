"""A run's steps as the lines that DeepRacer's simulator prints, for tools that read its output rather than its CSVs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import RunError
from trainer.run_files import TRACES, iterations


def write_sim_log(run: Path, target: Path) -> int:
    """Write the run's training traces to ``target`` as ``SIM_TRACE_LOG`` lines, below the facts that tools look for.

    Returns:
        the number of steps written. Raises OSError.

    Raises:
        RunError: the run has no traces.
    """
    files = [path for _, path in iterations(run / TRACES)]
    if not files:
        raise RunError(
            f"{run} has no traces",
            cause="it was trained with --traces none, or stopped before its first episode ended",
            next_step="train with --traces all",
        )
    count = 0
    with open(target, "w") as log:
        log.writelines(line + "\n" for line in _facts(run))
        for file in files:
            with open(file) as rows:
                next(rows)
                for row in rows:
                    log.write("SIM_TRACE_LOG:" + row)
                    count += 1
    return count


def _facts(run: Path) -> Iterator[str]:
    yield "Using the following hyper-parameters"
    yield json.dumps(json.loads((run / "ip" / "hyperparameters.json").read_text()), indent=2)
    metadata = json.loads((run / "model" / "model_metadata.json").read_text())
    yield f"Action space from file: {json.dumps(metadata['action_space'])}"
    sensors = ", ".join(f"'{name}'" for name in metadata["sensor"])
    yield f"Sensor list [{sensors}], network {metadata['neural_network']}, simapp_version {metadata['version']}.0"
