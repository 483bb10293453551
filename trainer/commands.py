"""The commands of the training room: train, evaluate, export."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.batch_env import BatchEnv, EnvSpec, Step
from sim.car_spec import CarSpec, load_car
from sim.commands import emit
from sim.objects import check_room
from sim.race import HEAD_TO_BOT, OBJECT_AVOIDANCE, TIME_TRIAL, RaceSpec
from sim.reward import RewardFunction, check_for_empty_road, load_reward
from sim.track import Track, load_track
from trainer.config import RunConfig
from trainer.deepracer import Imported, import_deepracer
from trainer.deepracer_command import notes
from trainer.errors import RunError
from trainer.evaluation_log import EvaluationLog
from trainer.experience import address_from_environment, check_address
from trainer.export import export_bundle
from trainer.networks import DEFAULT_NETWORK
from trainer.plots import plot_lines, plot_training
from trainer.progress import ProgressLine
from trainer.publisher import published
from trainer.run_folder import RunFolder
from trainer.sim_log import write_sim_log
from trainer.steps_export import export_steps
from trainer.store import ask_first, check_free, fetch_run, open_run, store_of
from trainer.table import lap_table
from trainer.time_trials import Conditions, TimeTrials, summary
from trainer.training import NO_TIME_LIMIT_S, Training, load_best, trained_on
from trainer.video import Hud, TopView, VideoWriter, compose
from vehicle.action_space import ActionSpace, default_action_space, load_action_space
from vehicle.bundle import Bundle, check_bundle
from vehicle.config import check, from_mapping, load_toml
from vehicle.policy import OnnxPolicy
from vehicle.store import is_url, open_store

_EXPORT_FRAMES = 128
RACE_REWARD = "avoid_objects"  # where a race has objects and no function is named


def train(args: argparse.Namespace) -> int:
    """``hotlap train``: a new run, or ``--resume``."""
    store = store_of(args.store, args.out) if args.store else None
    buffer = args.buffer or (address_from_environment() if args.workers else None)
    if buffer is not None:
        check_address(buffer)
    if args.resume:
        folder = RunFolder.open(args.out) if store is None else open_run(args.out, store)
        config = _with_options(folder.config(), args, resume=True)
    else:
        own = load_toml(args.config, RunConfig) if args.config is not None else None
        imported: Imported | None = None
        if args.deepracer is not None:
            imported = import_deepracer(args.deepracer, own)
            own = imported.config
        config = _with_options(own or RunConfig(), args)
        tracks = _distinct([load_track(name) for name in args.track])
        if imported is not None and args.action_space is None:
            space = imported.space
        else:
            space, network = _actions(args.action_space)
            if args.network is None and args.config is None and network is not None:
                config = dataclasses.replace(config, network=network)
        # Everything that can be wrong is looked at before a folder is made.
        # Whoever keeps to the centre line runs into what stands on a lane.
        usual = RACE_REWARD if config.race.count else None
        reward = imported.reward if imported is not None and args.reward is None else load_reward(args.reward or usual)
        check_race(config, tracks, reward)
        car = load_car(args.car)
        originals = imported.verbatim() if imported is not None else {}
        if store is not None:
            ask_first(store, check_free)
        folder = RunFolder.create(args.out, config, tracks, reward, space, car, originals)
        if imported is not None:
            print(notes(imported.findings), file=sys.stderr)
    with ProgressLine() as line, _page(args):
        training = Training(folder, config, buffer=buffer)
        training.report = lambda row, progress: line.show(row, training.share(), progress.first_lap_s)
        with published(folder.path, store) as publisher:
            if publisher is not None:
                training.saved = publisher.saved
            result = training.run(resume=args.resume)
            if folder.rows():
                plot_training(folder.rows(), folder.path / "training.png")
    if publisher is not None:
        result["store"] = publisher.result
    lap = "no lap yet" if result["first_lap_s"] is None else f"first lap after {result['first_lap_s']} s"
    text = (
        f"{result['steps']} steps in {result['wall_s']} s, {lap}, "
        f"{100 * float(str(result['completion_rate'])):.0f} % of laps completed\nbundle: {result['bundle']}\n"
        f"next: hotlap evaluate {result['bundle']} --track {training.tracks[0].name}"
    )
    emit(args.json, result, text)
    return 0


def _page(args: argparse.Namespace) -> AbstractContextManager[object]:
    """The page beside a training, where it is wanted."""
    if not args.monitor:
        return nullcontext()
    from trainer.monitor.command import Beside

    return Beside(args.out, args.host, args.port)


def _with_options(config: RunConfig, args: argparse.Namespace, resume: bool = False) -> RunConfig:
    """Options of the command line win over the file; a resumed run may only be given other limits."""
    given: dict[str, object] = {}
    if args.time_limit_s is not None:
        given["time_limit_s"] = args.time_limit_s
    elif args.steps is not None and not resume and config.time_limit_s == RunConfig.time_limit_s:
        given["time_limit_s"] = NO_TIME_LIMIT_S  # --steps alone is the limit, unless the config file has one of time
    if args.steps is not None:
        given["steps"] = args.steps
    fixed = {
        "seed": args.seed,
        "method": None if args.method == "auto" else args.method,
        "randomise": None if args.randomise == "auto" else args.randomise,
        "network": args.network,
        "traces": args.traces,
        "tensorboard": args.tensorboard,
    }
    if resume:
        changed = [name for name, value in fixed.items() if value is not None]
        files = ("track", "reward", "action_space", "car", "config", "deepracer", "race", "objects")
        changed += [name for name in files if getattr(args, name)]
        if changed:
            raise RunError(
                f"--resume goes on with the run as it was; {', '.join(changed)} cannot be changed",
                cause="only --time-limit and --steps may be new",
                next_step=f"hotlap train --resume --out {args.out}, or a new run with another --out",
            )
    else:
        given |= {name: value for name, value in fixed.items() if value is not None}
        given["race"] = _race(config.race, args)
    if args.workers is not None:
        given["rollout"] = dataclasses.replace(config.rollout, workers=args.workers)
    config = dataclasses.replace(config, **given)  # type: ignore[arg-type]
    if (config.rollout.workers or args.buffer) and config.chosen_method() != "ppo":
        raise RunError(
            f"the method {config.chosen_method()} has no rollout workers",
            cause="its teacher drives where it learns",
            next_step="train with --method ppo, or without --workers and --buffer",
        )
    check(config, where="command line")
    return config


def _race(race: RaceSpec, args: argparse.Namespace) -> RaceSpec:
    """The race with the options ``--race`` and ``--objects``."""
    if args.race is not None and args.race != race.race:
        race = dataclasses.replace(race, race=args.race)
    if args.objects is None:
        return race
    if race.race == TIME_TRIAL:
        raise RunError(
            f"--objects {args.objects}, but a time trial has an empty road",
            next_step=f"--race {OBJECT_AVOIDANCE}, or --race {HEAD_TO_BOT}",
        )
    count = {"obstacles" if race.race == OBJECT_AVOIDANCE else "bot_cars": args.objects}
    race = dataclasses.replace(race, positions=(), **count)
    check(race, where="command line")
    return race


def check_race(config: RunConfig, tracks: Sequence[Track], reward: RewardFunction) -> None:
    """Look whether what is on the road suits tracks, method and reward function.

    Raises:
        SimError: the objects have no room; RunError: the method knows no objects; RewardError: the function wants some.
    """
    if not config.race.count:
        check_for_empty_road(reward)
        return
    for track in tracks:
        check_room(config.race, track.name, track.length_m)
    if config.chosen_method() == "distill":
        raise RunError(
            f"--method distill cannot train for {config.race.race}",
            cause="its teacher is one of an empty road",
            next_step="--method ppo",
        )


def _actions(path: Path | None) -> tuple[ActionSpace, str | None]:
    """The action space, and the network that the same model_metadata.json names, if it does."""
    if path is None:
        return default_action_space(), None
    space = load_action_space(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    named = content.get("neural_network") if isinstance(content, dict) else None
    from trainer.networks import NETWORKS

    # DeepRacer writes its default network into every file; only a deliberate choice of another one is followed.
    chosen = named in NETWORKS and named != "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"
    return space, str(named) if chosen else None


def _distinct(tracks: Sequence[Track]) -> list[Track]:
    names = [t.name for t in tracks]
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        raise RunError(f"the track {doubled[0]} is given twice", next_step="name every track once")
    return list(tracks)


def evaluate(args: argparse.Namespace) -> int:
    """``hotlap evaluate``: time trials of a bundle's ONNX file."""
    bundle = check_bundle(args.bundle)
    policy = OnnxPolicy(bundle)
    tracks = _distinct([load_track(name) for name in args.track])
    car = load_car(args.car) if args.car is not None else _car_of(bundle)
    conditions = Conditions(args.look, args.world, args.renderer, args.penalties, looks=min(20, args.trials))
    race = _race(_trained_race(bundle), args)
    log = EvaluationLog() if args.logs is not None else None
    recorder = _Recorder(args.video, tracks[0], round(1 / bundle.contract.control_period_s)) if args.video else None
    trials_of = TimeTrials(
        tracks,
        args.trials,
        action_space=bundle.action_space,
        car=car,
        control_hz=1 / bundle.contract.control_period_s,
        conditions=conditions,
        seed=args.seed,
        threads=1 if args.renderer == "mujoco" else 2,
        reward=_reward_of(args.logs) if args.logs is not None else None,
        observers=[watcher for watcher in (recorder, log) if watcher is not None],
        race=race,
    )
    try:
        trials = trials_of.run(policy.act)
    except BaseException:
        if recorder is not None:
            recorder.abandon()
        raise
    finally:
        trials_of.close()
    if recorder is not None:
        recorder.close()
    if args.plot is not None:
        plot_lines(tracks[0], [t for t in trials if t.track == tracks[0].name], args.plot)
    written = {} if log is None else {"logs": str(args.logs / log.write(args.logs))}
    result = summary(trials) | written | {
        "look": args.look, "world": args.world, "renderer": args.renderer, "seed": args.seed,
        "race": race.race, "objects": race.count,
        "tracks": {
            t.name: sum(x.completed for x in trials if x.track == t.name) / args.trials for t in tracks
        },
    }  # fmt: skip
    emit(args.json, result, lap_table(trials))
    if args.require_lap and not any(t.completed for t in trials):
        print("hotlap evaluate: no trial completed a lap", file=sys.stderr)
        return 1
    return 0


def _reward_of(logs: Path) -> RewardFunction | None:
    """The reward function of the run whose folder the logs go to, if it is one."""
    own = logs / "inputs" / "reward_function.py"
    return load_reward(own) if own.is_file() else None


def _trained_race(bundle: Bundle) -> RaceSpec:
    """The race that a bundle was trained for; a time trial where it does not say."""
    known = bundle.contract.trained_on.get("race")
    return from_mapping(known, RaceSpec, where="the bundle's contract") if isinstance(known, dict) else RaceSpec()


def _car_of(bundle: Bundle) -> CarSpec:
    """The default car with the camera that the bundle was made for."""
    camera = bundle.contract.camera
    car = CarSpec()
    return dataclasses.replace(
        car,
        camera=dataclasses.replace(
            car.camera,
            horizontal_fov_deg=camera.horizontal_fov_deg,
            pitch_down_deg=camera.pitch_down_deg,
            height_m=camera.height_m,
            forward_m=camera.forward_m,
            roll_deg=camera.roll_deg,
            frame_rate_hz=camera.frame_rate_hz,
        ),
    )


class _Recorder:
    """Films the first car of the first wave: its view, and the track from above."""

    def __init__(self, path: Path, track: Track, fps: float) -> None:
        self._writer = VideoWriter(path, fps=fps)
        self._view = TopView(track)
        self._trail: list[tuple[float, float]] = []
        self._over = False

    def begin(self, env: BatchEnv) -> None:
        """Waves after the first are not filmed."""

    def step(self, env: BatchEnv, step: Step, command: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """One picture, while the first car drives."""
        if self._over:
            return
        x, y = env.physics.position[0, :2].tolist()
        self._trail.append((x, y))
        hud = Hud(
            speed_mps=float(env.physics.forward_speed()[0]),
            steering_deg=float(command[0, 0]),
            progress=float(env.progress[0]),
            lap_time_s=float(env.steps[0]) * env.control_period_s,
            steering_limit_deg=env.car.steering.max_deg,
        )
        pose = (x, y, float(env.physics.heading()[0]))
        self._writer.add(compose(env.frames[0], self._view, pose, hud, self._trail))
        self._over = bool(done[0])

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        """Close without leaving half a film."""
        self._writer.__exit__(RuntimeError, RuntimeError(), None)


def export(args: argparse.Namespace) -> int:
    """``hotlap export``: the best checkpoint of a run as a bundle, or its steps as DeepRacer's log."""
    if is_url(args.run):
        return _export_published(args)
    folder = RunFolder.open(args.run)
    if args.steps is not None:
        rows = export_steps(folder.path, args.steps)
        emit(args.json, {"run": str(args.run), "steps": str(args.steps), "rows": rows}, f"{rows} steps: {args.steps}")
        return 0
    if args.sim_log is not None:
        lines = write_sim_log(folder.path, args.sim_log)
        emit(args.json, {"run": str(args.run), "log": str(args.sim_log), "lines": lines}, f"log: {args.sim_log}")
        return 0
    config, space, car, tracks = folder.config(), folder.action_space(), folder.car(), folder.tracks()
    policy, steps = load_best(folder)
    reward = folder.reward()
    env = BatchEnv(
        tracks, _EXPORT_FRAMES, car=car, action_space=space, reward=reward, seed=config.seed,
        spec=EnvSpec(config.control_hz, race=config.race),
    )  # fmt: skip
    try:
        frames = env.reset().copy()
    finally:
        env.close()
    target = args.out or folder.bundle
    bundle = export_bundle(
        target,
        policy,
        space,
        frames=frames,
        car=car,
        control_period_s=1 / config.control_hz,
        trained_on=trained_on(config, tracks, reward, steps),
    )
    result = {
        "run": str(args.run), "bundle": str(target), "steps": steps, "sha256": bundle.sha256, "network": policy.name,
    }  # fmt: skip
    emit(args.json, result, f"bundle: {target} (from step {steps})")
    return 0


def _export_published(args: argparse.Namespace) -> int:
    """Export a run of a store; its step logs are not there."""
    if args.out is None or args.sim_log is not None or args.steps is not None:
        raise RunError(
            f"{args.run} is a published run: it needs --out, and has no step logs",
            next_step=f"hotlap export {args.run} --out bundle.tar.gz",
        )
    with tempfile.TemporaryDirectory(prefix="hotlap-run-") as folder:
        fetched = fetch_run(open_store(args.run), Path(folder)).path
        return export(argparse.Namespace(**vars(args) | {"run": fetched}))


__all__ = ["DEFAULT_NETWORK", "evaluate", "export", "train"]
