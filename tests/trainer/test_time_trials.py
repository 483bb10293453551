"""Time trials: the same each time, DeepRacer's penalties, and what they print."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.batch_env import BatchEnv, Step
from sim.track import load_track
from trainer.time_trials import OFF_TRACK_PENALTY_S, Conditions, TimeTrials, Trial, summary
from vehicle.action_space import default_action_space

Frames = NDArray[np.uint8]
Commands = NDArray[np.float32]


class Pilot:
    """Steers by the simulator's own figures: along the centre line, but for a swerve off the road when told to.

    Args:
        swerve_at: the step at which the swerve begins; swerving: the cars that do it.
    """

    def __init__(self, swerve_at: int = -1, swerving: tuple[int, ...] = ()) -> None:
        self.env: BatchEnv | None = None
        self.pictures: list[Frames] = []
        self.lateral_m: list[NDArray[np.float64]] = []
        self._at, self._swerving, self._count = swerve_at, swerving, 0
        self._recovering: set[int] = set()

    def begin(self, env: BatchEnv) -> None:
        """A wave begins: nothing to note."""

    def step(self, env: BatchEnv, step: Step, command: Commands, done: NDArray[np.bool_]) -> None:
        self.env = env
        off = np.flatnonzero(~env._wheels_on.any(axis=1)).tolist()
        self._recovering |= set(off)

    def __call__(self, frames: Frames) -> Commands:
        self.pictures.append(frames.copy())
        command = np.tile(np.array([0.0, 0.7], np.float32), (len(frames), 1))
        if self.env is not None:
            p = self.env.projection
            error = (self.env.physics.heading() - p.heading_rad + np.pi) % (2 * np.pi) - np.pi
            command[:, 0] = np.clip(-90 * error - 80 * p.lateral_m, -30, 30)
            self.lateral_m.append(p.lateral_m.copy())
        for car in self._swerving:
            if self._count >= self._at and car not in self._recovering:
                command[car] = (30.0, 0.9)
        self._count += 1
        return command


Maker = Callable[..., TimeTrials]


@pytest.fixture
def make() -> Iterator[Maker]:
    made = []

    def trials(names: tuple[str, ...] = ("first_oval",), count: int = 2, **options: object) -> TimeTrials:
        made.append(TimeTrials([load_track(n) for n in names], count, action_space=default_action_space(), **options))  # type: ignore[arg-type]
        return made[-1]

    yield trials
    for item in made:
        item.close()


def drive(trials: TimeTrials, pilot: Pilot) -> list[Trial]:
    trials.observers = (pilot,)
    return trials.run(pilot)


def test_a_lap_is_timed_in_control_periods_and_repeats_exactly(make: Maker) -> None:
    trials = make(seed=3)
    first, again = drive(trials, Pilot()), drive(trials, Pilot())
    assert [t.completed for t in first] == [True, True]
    for trial in first:
        assert trial.lap_time_s == pytest.approx(len(trial.path) / 10)
        assert (trial.progress, trial.off_track) == (100.0, 0)
        length_m = float(np.linalg.norm(np.diff(trial.xy, axis=0), axis=1).sum())
        assert length_m == pytest.approx(load_track("first_oval").length_m, rel=0.06)
        assert np.median(trial.speed_mps) == pytest.approx(0.7, rel=0.05)
    assert first == again
    assert first == drive(make(seed=3), Pilot())
    assert first[0].path != first[1].path  # starts differ a little
    assert first != drive(make(seed=4), Pilot())


def blind(steering_deg: float, speed_mps: float = 0.9) -> Callable[[Frames], Commands]:
    return lambda frames: np.tile(np.array([steering_deg, speed_mps], np.float32), (len(frames), 1))


def test_results_are_in_the_order_of_the_tracks(make: Maker) -> None:
    names = ("little_bean", "first_oval", "wide_bowl")
    result = make(names, 12).run(blind(0.0))  # 36 trials: more than one wave
    assert [t.track for t in result] == [n for n in names for _ in range(12)]
    assert not any(t.completed for t in result)
    assert all(t.off_track == 1 and t.lap_time_s is None and 0 <= t.progress < 100 for t in result)


def test_without_penalties_leaving_the_road_ends_the_trial(make: Maker) -> None:
    swerved, clean = drive(make(), Pilot(swerve_at=20, swerving=(0,)))
    assert (swerved.completed, swerved.off_track, swerved.lap_time_s) == (False, 1, None)
    assert swerved.progress < 50
    assert clean.completed


def test_with_penalties_the_car_is_put_back_and_pays_two_seconds(make: Maker) -> None:
    pilot = Pilot(swerve_at=20, swerving=(0,))
    swerved, clean = drive(make(conditions=Conditions(penalties=True)), pilot)
    assert OFF_TRACK_PENALTY_S == 2.0
    assert (swerved.completed, swerved.off_track) == (True, 1)
    assert swerved.lap_time_s == pytest.approx(len(swerved.path) / 10 + 2.0)
    assert (clean.completed, clean.off_track) == (True, 0)
    assert clean.lap_time_s == pytest.approx(len(clean.path) / 10)
    lateral = np.array([each[0] for each in pilot.lateral_m])
    worst = int(np.abs(lateral).argmax())
    assert abs(lateral[worst]) > 0.2  # on its way out ...
    assert np.abs(lateral[worst + 1 : worst + 3]).max() < 0.05  # ... and the next moment on the middle
    assert float(np.linalg.norm(np.diff(swerved.xy, axis=0), axis=1).max()) < 1.5  # back where it left


def test_every_off_track_costs(make: Maker) -> None:
    (trial,) = make(count=1, conditions=Conditions(penalties=True)).run(blind(0.0))
    assert trial.completed  # it goes straight on from wherever it is put back
    assert trial.off_track >= 5
    assert trial.lap_time_s == pytest.approx(len(trial.path) / 10 + 2.0 * trial.off_track)


def test_with_penalties_a_trial_still_ends_at_the_step_limit(make: Maker) -> None:
    (trial,) = make(count=1, conditions=Conditions(penalties=True)).run(blind(0.0, 0.0))
    length_m = load_track("first_oval").length_m
    assert (trial.completed, trial.off_track, trial.lap_time_s) == (False, 0, None)
    assert len(trial.path) == math.ceil(length_m / 0.25 * 10)


def test_a_car_that_stands_still_ends_its_trial(make: Maker) -> None:
    (trial,) = make(count=1).run(blind(0.0, 0.0))
    assert not trial.completed
    assert (trial.off_track, trial.lap_time_s) == (0, None)
    assert len(trial.path) < 60


def test_a_random_look_is_another_picture_of_the_same_drive(make: Maker) -> None:
    plain, random = Pilot(), Pilot()
    a = drive(make(count=1), plain)
    b = drive(make(count=1, conditions=Conditions(look="random", looks=2)), random)
    assert a[0].path == b[0].path  # the pilot does not look at the pictures, and the world is the same
    difference = np.abs(plain.pictures[5].astype(int) - random.pictures[5].astype(int)).mean()
    assert difference > 8


def test_a_random_world_is_another_drive(make: Maker) -> None:
    a = drive(make(count=1), Pilot())
    b = drive(make(count=1, conditions=Conditions(world="random")), Pilot())
    assert a[0].path != b[0].path


def test_summary() -> None:
    trials = [
        Trial("a", True, 100.0, 12.3456, 1),
        Trial("a", False, 40.126, None, 1),
        Trial("b", True, 100.0, 10.0, 0),
    ]
    result = json.loads(json.dumps(summary(trials)))
    assert result["completion_rate"] == pytest.approx(2 / 3)
    assert result["mean_lap_time_s"] == pytest.approx(11.173)
    assert result["best_lap_time_s"] == 10.0
    assert result["trials"][1] == {
        "track": "a", "completed": False, "progress": 40.13, "lap_time_s": None, "off_track": 1, "crashed": 0,
    }  # fmt: skip
    none = summary([Trial("a")])
    assert (none["completion_rate"], none["mean_lap_time_s"], none["best_lap_time_s"]) == (0.0, None, None)
