"""A training run: the loop around PPO, with evaluations, checkpoints, and a bundle at every end."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim.batch_env import BatchEnv, Step
from sim.reward import RewardFunction
from sim.track import Track
from trainer.config import RunConfig
from trainer.errors import TrainerError
from trainer.evaluation_log import EvaluationLog
from trainer.events import Events
from trainer.export import Graph, export_bundle
from trainer.gather import Gatherer
from trainer.monitor.feed import LiveFeed, Running
from trainer.monitor.system import SystemFigures
from trainer.monitor.watch_env import show_env
from trainer.networks import Policy
from trainer.ppo import PPO, Batch
from trainer.run_folder import RunFolder, metrics_text, versions
from trainer.tensorboard_log import TensorboardLog
from trainer.time_trials import Conditions, TimeTrials, Trial, summary
from trainer.trace_log import TraceLog
from trainer.worker_logs import WorkerLogs
from trainer.world import make_env
from vehicle.action_space import DiscreteActionSpace
from vehicle.errors import HotlapError

COLUMNS = (
    "steps", "wall_s", "reward", "progress", "completion", "episodes", "loss", "policy_loss", "value_loss", "entropy",
    "kl", "clipped", "steps_per_s", "eval_completion", "eval_lap_s", "reward_low", "reward_high", "lap_s",
    "cpu_percent", "memory_mb", "workers", "policy_age", "stale_steps",
)  # fmt: skip
# Of the time, at most these shares go to looking for the first lap, and to evaluations.
_FIRST_LAP_SHARE = 0.2
_EVALUATION_SHARE = 0.08
_FRAMES_FOR_EXPORT = 128
NO_TIME_LIMIT_S = 1e7  # the longest that a configuration may say


@dataclass
class Progress:
    """How a run stands; everything a resumed run must know beside the learner."""

    wall_s: float = 0.0  # of training, over all sessions
    first_lap_s: float | None = None
    first_lap_steps: int | None = None
    best: tuple[float, float] | None = None  # completion rate, minus the mean lap time
    completion_rate: float = 0.0


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the run to stop after the present update; a second Ctrl-C interrupts at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Training:
    """One run, new or resumed.

    Args:
        folder: where it lives; its inputs are read from there, so that a resumed run is the same run.
        config: may differ from the folder's in its limits.
        report: called with a row of metrics after each update, for a progress bar.
        buffer: address of a Redis server that rollout workers drive into; without, those of this machine use memory.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        report: Callable[[dict[str, float], Progress], None] | None = None,
        buffer: str | None = None,
    ) -> None:
        self.folder, self.config, self.report = folder, config, report
        self.tracks, self.space, self.car = folder.tracks(), folder.action_space(), folder.car()
        self.reward = folder.reward()
        self.threads = config.threads or os.cpu_count() or 1
        self.progress = Progress()
        self.rows: list[dict[str, float]] = []
        self._begun = time.perf_counter()
        self.extra: dict[str, Any] = {}  # what a method keeps in checkpoints beside the learner
        self.saved: Callable[[], None] = lambda: None  # called when the run folder holds something new
        torch.set_num_threads(self.threads)
        scored = Conditions(look="random" if config.preset(len(self.tracks)) == "full" else "nominal", looks=4)
        each = max(1, -(-config.evaluate_trials // len(self.tracks)))
        common: dict[str, Any] = {
            "action_space": self.space, "car": self.car, "control_hz": config.control_hz, "threads": self.threads,
            "race": config.race,
        }  # fmt: skip
        self._first_lap = TimeTrials(self.tracks, 1, conditions=Conditions(), seed=config.seed, **common)
        # A reward function of its own for trials: one that remembers steps shall not see two kinds of them.
        own = folder.reward()
        self._scores = TimeTrials(self.tracks, each, conditions=scored, seed=config.seed + 1, reward=own, **common)
        self._buffer = buffer
        self._gatherer: Gatherer | None = None
        self.events = Events(folder.path / "events.jsonl", self.elapsed_s)
        self.log: TraceLog | WorkerLogs | None = None
        if config.traces != "none" and self._has_workers():
            self.log = WorkerLogs(folder.path, config, self.tracks, self.space)
        elif config.traces != "none":
            self.log = TraceLog(folder.path, config.traces, config.episodes_per_iteration)
        self._trials_log: EvaluationLog | None = None
        self._feed, self._running, self._system = LiveFeed(folder.path), Running(folder.path), SystemFigures()
        self._scalars: TensorboardLog | None = None
        self._last_evaluation = self._last_checkpoint = self._last_look = 0.0
        self._look_cost = self._evaluation_cost = 0.0

    def make_env(self, cars: int, seed: int, draw: bool = True) -> BatchEnv:
        """The run's world with ``cars`` cars."""
        return make_env(
            self.config, self.tracks, self.space, self.car, self.reward, cars=cars, seed=seed, threads=self.threads,
            draw=draw,
        )  # fmt: skip

    def _has_workers(self) -> bool:
        return bool(self._buffer or self.config.rollout.workers)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self, resume: bool = False) -> dict[str, object]:
        """Train until a limit or a signal, and leave a bundle.

        Returns:
            what ``hotlap train --json`` prints.

        Raises:
            HotlapError: a reward function, the physics, the loss or the disk failed; what was trained is saved as far
                as it can be.
        """
        config = self.config
        state: dict[str, Any] | None = None
        # A run that was killed before its first checkpoint goes on from the start.
        if resume and self.folder.has_checkpoint():
            state = self.folder.load_checkpoint()
            self._restore(state)
        # Another seed after a resume: the same worlds again would not be new experience.
        env = self.make_env(config.ppo.cars, config.seed + (int(state["learner"]["steps"]) if state else 0))
        try:
            torch.manual_seed(config.seed)
            self.learner = PPO(env, Policy(config.network, self.space, config.ppo.symmetric), config.ppo, config.seed)
            if state is not None:
                self.learner.load_state_dict(state["learner"])
            if self.log is not None:
                self.log.restore(state.get("traces") if state is not None else None)
                if isinstance(self.log, TraceLog):
                    self.log.begin(env)
            self.learner.watch = self._watch
            if self._has_workers():
                log = self.log if isinstance(self.log, WorkerLogs) else None
                self._gatherer = Gatherer(self.folder, config, self.learner, self._buffer, self.events.add, log)
            started = self.learner.steps
            self._running.begin(metrics_text(self.rows, COLUMNS))
            if config.tensorboard:
                self._scalars = TensorboardLog(self.folder.path, from_step=started)
            with stop_signals() as stop:
                try:
                    if config.chosen_method() == "distill":
                        from trainer.distill import distill

                        distill(self, stop)
                    else:
                        self.train_ppo(stop)
                except HotlapError:
                    self._finish()
                    raise
                last = self._evaluate()
                if self.rows:
                    self.rows[-1] |= last
                if self._scalars is not None:
                    self._scalars.add({"steps": float(self.learner.steps)} | last)
                self._finish()
        finally:
            if self._gatherer is not None:
                self._gatherer.close()
            env.close()
            self._first_lap.close()
            self._scores.close()
            self._running.end()
            if self._scalars is not None:
                self._scalars.close()
        return self._result(started)

    def _watch(self, env: BatchEnv, actions: NDArray[Any], step: Step) -> None:
        """After each step of the learner's cars."""
        if isinstance(self.log, TraceLog):
            self.log.step(env, actions, step)
        show_env(self._feed, env, step)

    def elapsed_s(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self.progress.wall_s + time.perf_counter() - self._begun

    def share(self) -> float:
        """How much of the run is over, 0 to 1, by whichever limit is nearer."""
        shares = []
        # The clock must not reach the learning rate of a run that only steps limit: same seed, same policy.
        if self.config.time_limit_s < NO_TIME_LIMIT_S or not self.config.steps:
            shares.append(self.elapsed_s() / self.config.time_limit_s)
        if self.config.steps:
            shares.append(self.learner.steps / self.config.steps)
        return min(1.0, max(shares))

    def train_ppo(self, stop: Callable[[], bool], rate: float = 1.0, until: float = 1.0) -> None:
        """PPO until the run's share ``until``, with the learning rate falling from ``rate`` linearly."""
        begin, final = self.share(), self.config.ppo.final_learning_rate
        while not stop() and self.share() < until:
            clock = time.perf_counter()
            done = (self.share() - begin) / max(1e-9, until - begin)
            batch, facts = self._collect(lambda: stop() or self.share() >= until)
            if batch is None:
                break
            figures = self.learner.update(batch, rate * (1 - done * (1 - final)))
            figures |= self.learner.episodes()
            figures |= facts | {"steps_per_s": len(batch.target) / (time.perf_counter() - clock)}
            self.after_update(figures)

    def _collect(self, stop: Callable[[], bool]) -> tuple[Batch | None, dict[str, float]]:
        """The next update's data, and figures of where it is from; None where the run stops before it is complete."""
        learner, prefill = self.learner, self.config.rollout.prefill_steps
        if self._gatherer is not None:
            return self._gatherer.collect(stop)
        learner.env.refresh_look()
        return learner.collect(uniform_steps=0 if learner.steps else prefill), {}

    def after_update(self, figures: dict[str, float], looks: bool = True) -> None:
        """Look for the first lap (unless not ``looks``), evaluate, checkpoint and report, each when it is due."""
        now = self.elapsed_s()
        if looks and self.progress.first_lap_s is None and now - self._last_look > self._look_cost / _FIRST_LAP_SHARE:
            figures = figures | self._look_for_first_lap()
        row = {"steps": float(self.learner.steps), "wall_s": self.elapsed_s()} | figures | self._system.read()
        waited = now - self._last_evaluation
        pause = max(self.config.evaluate_every_s, self._evaluation_cost / _EVALUATION_SHARE)
        if looks and self.progress.first_lap_s is not None and waited > pause:
            row |= self._evaluate()
        self.rows.append(row)
        self._running.add(metrics_text([row], COLUMNS, header=False))
        if self._scalars is not None:
            self._scalars.add(row)
        if self.log is not None:
            self.log.flush()
        if now - self._last_checkpoint > self.config.checkpoint_every_s:
            self._checkpoint()
        if self.report is not None:
            self.report(row, self.progress)

    def drive(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The greedy policy: pictures (n, 120, 160, 1) to commands (n, 2)."""
        with torch.no_grad():
            output = Graph(self.learner.policy, self.space)(torch.from_numpy(frames)).numpy()
        if isinstance(self.space, DiscreteActionSpace):
            return self.space.decode(output.argmax(axis=1))
        return np.asarray(output, dtype=np.float32)

    # -- judging ----------------------------------------------------------------------------------------------------

    def _look_for_first_lap(self) -> dict[str, float]:
        """Figures of an evaluation, once there is a lap."""
        begun = self.elapsed_s()
        trials = self._first_lap.run(self.drive)
        self._last_look = self.elapsed_s()
        self._look_cost = self._last_look - begun
        if any(t.completed for t in trials):
            self.progress.first_lap_s = self._last_look
            self.progress.first_lap_steps = self.learner.steps
            return self._evaluate()
        return {}

    def _evaluate(self) -> dict[str, float]:
        """Time trials with the present policy; the best so far becomes the bundle."""
        begun = self.elapsed_s()
        if self.log is not None:
            self._trials_log = EvaluationLog()
            self._scores.observers = (self._trials_log,)
        trials: list[Trial] = self._scores.run(self.drive)
        if self.log is not None and self._trials_log is not None:
            for number, trial in enumerate(self._trials_log.trials):
                self.log.metrics.evaluation(
                    number, trial.reward, self.log.clock_s, trial.elapsed_s, trial.progress, trial.status
                )
        self._last_evaluation = self.elapsed_s()
        self._evaluation_cost = self._last_evaluation - begun
        figures = summary(trials)
        rate, lap = float(figures["completion_rate"]), figures["mean_lap_time_s"]  # type: ignore[arg-type]
        progress = float(np.mean([t.progress for t in trials]))
        score = (rate, -float(lap) if lap is not None else progress - 1e6)  # type: ignore[arg-type]
        if self._is_better(score, 1.0 / len(trials)):
            highest = max(rate, self.progress.best[0]) if self.progress.best else rate  # so that it cannot drift down
            self.progress.best, self.progress.completion_rate = (highest, score[1]), rate
            state = {"policy": self.learner.policy.state_dict(), "steps": self.learner.steps}
            self.folder.save_checkpoint(state, "best")
            self._export()
            self.saved()
        return {"eval_completion": rate, "eval_lap_s": float(lap) if lap is not None else float("nan")}  # type: ignore[arg-type]

    def _is_better(self, score: tuple[float, float], one_trial: float) -> bool:
        """Whether a policy with this score replaces the best so far.

        On one plain track the trials are what the policy is for: more laps, then faster ones. With everything drawn
        widely they are a small sample, and of two policies one trial apart the one that has learnt longer drives better
        where neither was tried.
        """
        best = self.progress.best
        if best is None or self.config.preset(len(self.tracks)) != "full":
            return best is None or score >= best
        return score[0] >= best[0] - one_trial - 1e-9

    def _export(self) -> None:
        """The bundle of the present policy."""
        frames = self.learner.recent_frames(_FRAMES_FOR_EXPORT)
        export_bundle(
            self.folder.bundle,
            self.learner.policy,
            self.space,
            frames=frames,
            car=self.car,
            control_period_s=1.0 / self.config.control_hz,
            trained_on=self.trained_on(),
        )

    def trained_on(self) -> dict[str, Any]:
        """Facts about the training for the bundle's contract."""
        return trained_on(self.config, self.tracks, self.reward, self.learner.steps)

    # -- keeping ----------------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        progress = vars(self.progress) | {"wall_s": self.elapsed_s()}
        state = {"learner": self.learner.state_dict(), "progress": progress, "extra": self.extra}
        if self.log is not None:
            state["traces"] = self.log.save()
        self.folder.save_checkpoint(state)
        self.folder.write_metrics(self.rows, COLUMNS)
        self._last_checkpoint = self.elapsed_s()
        self.saved()

    def _restore(self, state: dict[str, Any]) -> None:
        saved = state["progress"]
        best = saved["best"]
        self.progress = Progress(
            saved["wall_s"], saved["first_lap_s"], saved["first_lap_steps"], tuple(best) if best else None,
            saved["completion_rate"],
        )  # fmt: skip
        self.extra = state["extra"]
        # Rows after the checkpoint belong to steps that are driven again.
        self.rows = [row for row in self.folder.rows() if row["steps"] <= state["learner"]["steps"]]

    def _finish(self) -> None:
        """Checkpoint, a log of the last evaluation, and a bundle if no evaluation has left one yet."""
        self._checkpoint()
        if self.log is not None:
            self.log.close()
        if self._trials_log is not None:
            try:
                self._trials_log.write(self.folder.path)
            except OSError as error:
                print(f"hotlap: the log of the last evaluation is not written: {error}", file=sys.stderr)
        if not self.folder.bundle.exists():
            self._export()

    def _result(self, started: int) -> dict[str, object]:
        wall = self.elapsed_s()
        session = time.perf_counter() - self._begun
        p = self.progress
        return {
            "run": str(self.folder.path),
            "bundle": str(self.folder.bundle),
            "wall_s": round(wall, 2),
            "steps": self.learner.steps,
            "steps_per_s": round((self.learner.steps - started) / session, 1),
            "first_lap_s": None if p.first_lap_s is None else round(p.first_lap_s, 2),
            "first_lap_steps": p.first_lap_steps,
            "completion_rate": p.completion_rate,
        }


def trained_on(config: RunConfig, tracks: Sequence[Track], reward: RewardFunction, steps: int) -> dict[str, Any]:
    """What a bundle's contract says of the training that it is from."""
    return {
        "tracks": [t.name for t in tracks],
        "steps": steps,
        "seed": config.seed,
        "method": config.chosen_method(),
        "randomisation": config.preset(len(tracks)),
        "reward": reward.name,
        "network": config.network,
        "race": dataclasses.asdict(config.race),
        "versions": versions(),
    }


def load_best(folder: RunFolder) -> tuple[Policy, int]:
    """The best policy of a run and the step it is from; the last checkpoint's where nothing was evaluated yet."""
    config, space = folder.config(), folder.action_space()
    policy = Policy(config.network, space, config.ppo.symmetric)
    if (folder.path / "checkpoints" / "best.pt").exists():
        state = folder.load_checkpoint("best")
    else:
        learner = folder.load_checkpoint()["learner"]
        state = {"policy": learner["policy"], "steps": learner["steps"]}
    try:
        policy.load_state_dict(state["policy"])
    except (RuntimeError, KeyError) as error:
        raise TrainerError(
            f"the checkpoint in {folder.path} does not fit its configuration: {error}",
            cause="config.toml or model_metadata.json was edited after the run",
            next_step="undo the edit",
        ) from error
    return policy, int(state["steps"])
