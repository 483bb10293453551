"""The trials of a sweep through Ray Tune: the same runs, judged the same way, as many at once as there is room for.

The sweep's folder must be one that every machine of the cluster sees, or ``--store`` publishes each trial; on one
machine both are as with the embedded engine.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vehicle.errors import HotlapError

if TYPE_CHECKING:
    from trainer.sweep import Sweep


def run_on_ray(found: Sweep, args: argparse.Namespace) -> None:
    """Run what is left of the sweep, ``args.cpus`` processors for each trial.

    Raises:
        HotlapError: Ray is not installed, or has no machine that is large enough.
    """
    try:
        import ray
        from ray import tune
    except ImportError as error:
        raise HotlapError(
            "--engine ray needs Ray Tune, which is not installed",
            cause="it is an extra; without it trials run one after the other",
            next_step="pip install 'hotlap[scale]'",
        ) from error
    trials = {trial["name"]: trial for trial in found.open_trials()}
    if not trials:
        return
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=True, include_dashboard=False)
    try:
        most = max((float(node["Resources"].get("CPU", 0.0)) for node in ray.nodes() if node["Alive"]), default=0.0)
        if args.cpus > most:
            raise HotlapError(
                f"no machine of the cluster has {args.cpus} processors for a trial: the largest has {most:g}",
                next_step="a smaller --cpus",
            )
        specs = [
            {"path": str((found.path / name).resolve()), "judged_by": found.judged_by, "store": found.store_of(trial)}
            for name, trial in trials.items()
        ]

        class Keep(tune.Callback):  # type: ignore[misc]
            """Each result as soon as it is there: a sweep that is killed has kept what was finished."""

            def on_trial_result(self, result: dict[str, Any], **info: Any) -> None:
                outcome = result.get("outcome")
                if outcome is not None and (outcome.get("finished") or "error" in outcome):
                    found.finish(trials[Path(result["config"]["spec"]["path"]).name], outcome)

        tuner = tune.Tuner(
            tune.with_resources(_train, {"cpu": args.cpus}),
            param_space={"spec": tune.grid_search(specs)},
            tune_config=tune.TuneConfig(metric="completion_rate", mode="max"),
            run_config=tune.RunConfig(
                name="ray", storage_path=str(found.path.resolve()), callbacks=[Keep()], verbose=0,
                failure_config=tune.FailureConfig(max_failures=2),  # a trial goes on from its last checkpoint
            ),
        )  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the leaderboard's
            outcome = tuner.fit()
        for failed in outcome.errors:
            print(f"hotlap: a trial has failed on Ray: {str(failed).splitlines()[-1]}", file=sys.stderr)
    finally:
        if started:
            ray.shutdown()


def _train(config: dict[str, Any]) -> None:
    """One trial, in a process of Ray's."""
    from ray import tune

    from trainer.sweep_trial import run_trial

    spec = config["spec"]
    try:
        outcome = run_trial(Path(spec["path"]), spec["judged_by"], spec["store"] or None)
    except HotlapError as error:  # a fault of the trial's own: again would be the same
        outcome = {"finished": False, "error": error.what}
    tune.report({"completion_rate": outcome.get("completion_rate") or 0.0, "outcome": outcome})
