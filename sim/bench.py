"""``hotlap bench sim``: how many camera steps a core makes, against the bound and against two peers, in one run.

A shared machine is never twice equally fast, so the parts are measured in turns, over and over, and every ratio is made
within a turn; what is reported is the median. Peers are given the better of each doubt: CarRacing's resets are not
counted and ours are, and MuJoCo's renderer leaves out the lens that ours draws.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
from gymnasium.error import Error as GymnasiumError
from numpy.typing import NDArray

from sim.batch_env import BatchEnv
from sim.camera import RoadCamera
from sim.commands import emit
from sim.errors import SimError
from sim.physics import CarPhysics
from sim.track import load_track
from sim.track_set import TrackSet
from sim.world import Randomisation
from vehicle.observation import HEIGHT, WIDTH

if TYPE_CHECKING:
    from rich.table import Table

Floats = NDArray[np.float64]
CARS = 64
ROUNDS = 5
TRACK = "first_oval"
_WARM_UP_S = 0.05  # after the first call of each part, which compiles or loads
_PURSUIT_M, _NOISE_DEG = 0.6, 9.0
_BUSY = 0.9  # of a core; with less, say that the rates are those of a machine in use
_KEPT = 64  # steps that physics and camera alone repeat

Part = Callable[[float], float]  # seconds to measure for -> rate in 1/s
Rates = dict[str, list[float]]


class _Driving:
    """The environment under cars that mostly stay on the road; only its own time is counted."""

    def __init__(self, threads: int) -> None:
        self.env = BatchEnv([load_track(TRACK)], CARS, randomise=Randomisation(), threads=threads)
        self.env.reset()
        self._tracks = TrackSet(self.env.tracks)
        self._rng = np.random.default_rng(0)
        self._table = self.env.action_space.decode(np.arange(self.env.action_space.size))
        self.cpu_s = self.wall_s = 0.0
        self.commands: list[Floats] = []
        self.poses: list[Floats] = []

    def _actions(self) -> NDArray[np.int64]:
        """Of the ten actions the one nearest to steering at the road ahead, with noise; either speed."""
        env = self.env
        middle = env.physics.position[:, :2]
        s = self._tracks.project(env.track, middle).s_m
        target, _ = self._tracks.pose_at(env.track, s + _PURSUIT_M)
        to = target - middle
        angle = np.arctan2(to[:, 1], to[:, 0]) - env.physics.heading()
        wanted = np.degrees(np.arctan(2 * env.car.body.wheelbase_m * np.sin(angle) / _PURSUIT_M))
        wanted = wanted + self._rng.normal(0, _NOISE_DEG, CARS)
        cost = np.abs(self._table[None, :, 0] - wanted[:, None]) + self._rng.random((CARS, len(self._table)))
        return np.asarray(cost.argmin(axis=1), dtype=np.int64)

    def steps_per_s(self, seconds: float) -> float:
        """Car-steps per second of ``BatchEnv.step``: physics, resets, pictures, parameters and reward."""
        spent, count = 0.0, 0
        while spent < seconds or count == 0:
            actions = self._actions()
            begin, cpu_s = time.perf_counter(), time.process_time()
            self.env.step(actions)
            self.cpu_s += time.process_time() - cpu_s
            spent += time.perf_counter() - begin
            count += CARS
            physics = self.env.physics
            self.commands.append(np.asarray(self._table[actions], dtype=np.float64))
            self.poses.append(np.concatenate([physics.position, physics.quaternion], axis=1))
        del self.commands[:-_KEPT], self.poses[:-_KEPT]
        self.wall_s += spent
        return count / spent


def _repeated(work: Callable[[int], None], count_each: int) -> Part:
    """The rate at which ``work(k)``, k = 0, 1, 2 ..., gets through ``count_each`` things a call."""

    def rate(seconds: float) -> float:
        begin, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - begin < seconds:
            work(calls)
            calls += 1
        return calls * count_each / (time.perf_counter() - begin)

    return rate


def _physics(driving: _Driving, threads: int) -> Part:
    """Car-steps per second of the physics alone, with the worlds and the commands of the environment's cars."""
    env = driving.env
    physics = CarPhysics(env.car, CARS, env.control_period_s, threads)

    def work(k: int) -> None:
        command = driving.commands[k % len(driving.commands)]
        physics.step(command[:, 0], command[:, 1])

    measure = _repeated(work, CARS)

    def rate(seconds: float) -> float:
        everyone = np.arange(CARS)
        physics.set_dynamics(everyone, env.physics.dynamics)
        physics.place(everyone, np.zeros((CARS, 2)), np.zeros(CARS))
        return measure(seconds)

    return rate


def _render(driving: _Driving) -> Part:
    """Pictures per second of the road camera alone: the environment's cars, looks and lenses."""
    camera = driving.env.camera
    assert camera is not None
    out = np.zeros((CARS, HEIGHT, WIDTH), np.uint8)

    def work(k: int) -> None:
        camera.render(driving.poses[k % len(driving.poses)], np.arange(CARS, dtype=np.uint64) + np.uint64(k), out)

    return _repeated(work, CARS)


def _mujoco_renderer(driving: _Driving, owned: ExitStack) -> Part:
    """Pictures per second of MuJoCo's classic renderer: the same scene and size, one sample a pixel, without the lens.

    Raises:
        SimError: no OpenGL works here.
    """
    # Mesa's software renderer would take every core of the machine; what is compared here is one.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    from sim.mujoco_view import MujocoCamera

    road = driving.env.camera
    assert isinstance(road, RoadCamera)
    camera = MujocoCamera(road, supersample=1)
    owned.callback(camera.close)
    out, seeds = np.zeros((CARS, HEIGHT, WIDTH), np.uint8), np.zeros(CARS, np.uint64)
    return _repeated(lambda k: camera.render(driving.poses[k % len(driving.poses)], seeds, out, lens=False), CARS)


def _carracing(owned: ExitStack) -> Part:
    """Steps per second of Gymnasium's CarRacing-v3 (a 96x96 colour picture each), resets not counted.

    Raises:
        ImportError, gymnasium.error.Error: Box2D or pygame is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Box2D's and pygame's own, about Python packaging
        env = gymnasium.make("CarRacing-v3").unwrapped
        owned.callback(env.close)
        env.reset(seed=0)
    rng = np.random.default_rng(0)

    def rate(seconds: float) -> float:
        spent, count = 0.0, 0
        while spent < seconds or count == 0:
            action = np.array([rng.uniform(-0.4, 0.4), rng.uniform(0, 0.4), 0.0], np.float32)
            begin = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            spent += time.perf_counter() - begin
            count += 1
            if terminated or truncated:
                env.reset()
        return count / spent

    return rate


def measure(threads: int = 1, seconds_s: float = 5.0, rounds: int = ROUNDS) -> dict[str, object]:
    """Measure every part for about ``seconds_s`` in ``rounds`` turns.

    Returns:
        Rates per second and thread (ours) or per second (the peers'; None where one is not installed, with the reason
        in ``notes``); ``fraction_of_bound``, the bound being physics plus picture and nothing else; ``ratios`` to the
        peers; ``cpu_share``, how much of its core the environment got: well below 1, others were using the machine.
    """
    notes: dict[str, str] = {}
    with ExitStack() as owned:
        driving = _Driving(threads)
        owned.callback(driving.env.close)
        parts: dict[str, Part] = {"camera": driving.steps_per_s}
        driving.steps_per_s(0.0)
        parts["physics"] = _physics(driving, threads)
        parts["render"] = _render(driving)
        try:
            parts["mujoco"] = _mujoco_renderer(driving, owned)
        except SimError as error:
            notes["mujoco_renderer_fps"] = error.what
        try:
            parts["carracing"] = _carracing(owned)
        except (ImportError, GymnasiumError) as error:
            notes["carracing_steps_per_s"] = f"{type(error).__name__}: {error}"
        for part in parts.values():
            part(0.0)
            part(min(_WARM_UP_S, seconds_s))
        driving.cpu_s = driving.wall_s = 0.0
        rates: Rates = {name: [] for name in parts}
        for _ in range(rounds):
            for name, part in parts.items():
                shared = 1 if name in ("mujoco", "carracing") else threads
                rates[name].append(part(seconds_s / rounds) / shared)
    share = driving.cpu_s / driving.wall_s / threads
    return {**summary(rates), "cpu_share": round(share, 2), "threads": threads, "notes": notes}


def summary(rates: Rates) -> dict[str, object]:
    """Medians of the turns' rates, and medians of the ratios within each turn.

    Args:
        rates: ``camera``, ``physics``, ``render`` and, where measured, ``mujoco`` and ``carracing``; one a turn.
    """

    def median(name: str) -> float | None:
        return round(statistics.median(rates[name]), 1) if name in rates else None

    def ratio(over: str, under: str) -> float | None:
        if under not in rates:
            return None
        return round(statistics.median(a / b for a, b in zip(rates[over], rates[under], strict=True)), 2)

    both = zip(rates["camera"], rates["physics"], rates["render"], strict=True)
    return {
        "camera_steps_per_s": median("camera"),
        "physics_steps_per_s": median("physics"),
        "render_fps": median("render"),
        "mujoco_renderer_fps": median("mujoco"),
        "carracing_steps_per_s": median("carracing"),
        "fraction_of_bound": round(statistics.median(c * (1 / p + 1 / r) for c, p, r in both), 3),
        "ratios": {"vs_carracing": ratio("camera", "carracing"), "vs_mujoco_renderer": ratio("render", "mujoco")},
        "rounds": len(rates["camera"]),
        "cars": CARS,
        "track": TRACK,
    }


def main(args: Namespace) -> int:
    """Run ``hotlap bench sim`` with ``args.threads``, ``args.seconds_s`` and ``args.json``; returns the exit status."""
    result = measure(args.threads, args.seconds_s)
    emit(args.json, result, _table(result))
    return 0


def _table(result: dict[str, object]) -> Table:
    from rich.table import Table  # programs that ask for JSON need not wait for it

    ratios, notes = result["ratios"], result["notes"]
    assert isinstance(ratios, dict) and isinstance(notes, dict)
    table = Table(
        title=f"Simulator, per core: {CARS} cars on {TRACK}, every look and world random", title_justify="left"
    )
    table.add_column("part")
    table.add_column("per second", justify="right")
    table.add_column("and that is")

    def row(name: str, key: str, meaning: str) -> None:
        value = result[key]
        missing = str(notes.get(key, "")).splitlines()
        shown, said = (f"{value:,.0f}", meaning) if isinstance(value, float) else ("-", " ".join(missing[:1]))
        table.add_row(name, shown, said)

    share = result["cpu_share"]
    assert isinstance(share, float)
    if share < _BUSY:
        table.caption = f"others use this machine: the camera steps had {share:.0%} of their core; the ratios stand"
    row("camera steps", "camera_steps_per_s", f"{result['fraction_of_bound']:.2f} of the bound, physics plus picture")
    row("physics alone", "physics_steps_per_s", "")
    row("road camera alone", "render_fps", "")
    row("MuJoCo's renderer", "mujoco_renderer_fps", f"the road camera is {ratios['vs_mujoco_renderer']} x as fast")
    row("CarRacing-v3", "carracing_steps_per_s", f"camera steps are {ratios['vs_carracing']} x as fast")
    return table
