"""N cars on tracks, one call a step: MuJoCo physics, road camera, reward, episode ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.camera import Atlas, RoadCamera
from sim.car_spec import CarSpec
from sim.errors import SimError
from sim.look import HELD_OUT, draw_surface, nominal_appearance, random_appearance
from sim.objects import MIRROR_STATE, STATE_COLUMNS, Objects
from sim.physics import CarPhysics
from sim.race import RaceSpec
from sim.reward import RewardFunction, call_all, check_for_empty_road, load_reward
from sim.reward_params import build_params
from sim.starts import Start, Starts
from sim.threads import Workers
from sim.track import Track
from sim.track_set import Projection, TrackSet
from sim.world import DRAWS, Randomisation, draw_world, nominal
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.observation import HEIGHT, WIDTH

if TYPE_CHECKING:
    from sim.mujoco_view import MujocoCamera

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Frames = NDArray[np.uint8]
Columns = dict[str, NDArray[Any]]

# How an episode stands or ended; DeepRacer's words.
IN_PROGRESS, LAP_COMPLETE, OFF_TRACK, IMMOBILIZED, REVERSED, TIME_UP, CRASHED = range(7)
STATUS_NAMES = ("in_progress", "lap_complete", "off_track", "immobilized", "reversed", "time_up", "crashed")
CRASH_BACK_M = 1.0  # DeepRacer: a car that is put back after a crash begins so far behind it
_STILL_M = 0.0003  # DeepRacer: moved no further than this ...
_PATIENCE = 15  # ... for so many steps in a row; also of falling progress
_LOOKAHEAD_M = np.array([0.15, 0.3, 0.5, 0.75, 1.0, 1.4, 1.8, 2.4])
_MAX_DELAY = 3


@dataclass(frozen=True)
class EnvSpec:
    """How the world runs, apart from tracks, car and reward."""

    control_hz: float = 10.0
    max_steps: int = 0  # of an episode; 0: enough for the longest track at 0.25 m/s
    start: str = "anywhere"  # or "start_line", or "advance" (5 % of the lap further each episode)
    both_directions: bool = True
    held_out: bool = False  # looks that are never trained on
    renderer: str = "fast"  # or "mujoco"
    race: RaceSpec = field(default_factory=RaceSpec)
    stretch: tuple[float, float] = (0.0, 1.0)  # shares of the lap between which a start anywhere is


@dataclass
class Step:
    """What a step gave, arrays (n,) unless said; valid until the next step."""

    frames: Frames  # (n, 120, 160, 1); of the new episode where one ended and cars reset themselves
    reward: Floats
    terminated: Bools  # lap complete, off track, immobilised, reversed, crashed
    truncated: Bools  # step limit
    status: Ints
    progress: Floats  # percent, of the episode that the step belongs to
    steps: Ints
    params: list[dict[str, object]]
    last_ids: Ints  # (k,) cars whose episode ended without the road ending: lap complete or step limit
    last_frames: Frames  # (k, 120, 160, 1) their final pictures, for bootstrapping
    last_state: Floats  # (k, STATE_SIZE) and their final states
    columns: Columns  # what params was made of: a reward function may change its params, not these


class BatchEnv:
    """N cars that drive at once and do not meet; in a race with objects each has its own around it.

    Args:
        tracks: one or more; car i starts on track i modulo their number, and changes tracks from episode to episode.
        n: cars.
        car: the car; reward: ``None`` is DeepRacer's centre line; action_space: the guide's ten where ``None``.
        randomise: what differs between episodes; ``None`` is nothing but the start.
        seed: same seed, same episodes, whatever ``threads``.
        auto_reset: a car whose episode ends begins the next one in the same step.
    """

    STATE_SIZE = 10 + len(_LOOKAHEAD_M) + 6

    def __init__(
        self,
        tracks: Sequence[Track],
        n: int,
        *,
        car: CarSpec | None = None,
        action_space: ActionSpace | None = None,
        reward: RewardFunction | None = None,
        randomise: Randomisation | None = None,
        spec: EnvSpec | None = None,
        seed: int = 0,
        threads: int = 1,
        auto_reset: bool = True,
        draw: bool = True,
    ) -> None:
        if not tracks:
            raise SimError("no track to drive on", next_step="name one: hotlap tracks lists those shipped")
        self.n, self.seed, self.auto_reset, self.draw = n, seed, auto_reset, draw
        self.car = car or CarSpec()
        self.spec = spec or EnvSpec()
        self.action_space = action_space or default_action_space()
        self.reward = reward or load_reward(None)
        race = self.spec.race
        if not race.count:
            check_for_empty_road(self.reward)
        self.randomise = randomise or nominal()
        self.control_period_s = 1.0 / self.spec.control_hz
        # Each track twice: as given, and driven the other way round.
        self._base_tracks = tuple(tracks)
        self.tracks = tuple(tracks) + (tuple(t.reversed() for t in tracks) if self.spec.both_directions else ())
        self._set = TrackSet(self.tracks)
        self._lengths = np.array([t.length_m for t in self.tracks])
        self._widths = np.array([t.width_m for t in self.tracks])
        self._waypoints = [t.waypoints for t in self.tracks]
        most = max(len(t.center) for t in self.tracks)
        self._numbers = np.stack([np.resize(t.waypoint_numbers, most) for t in self.tracks])
        # DeepRacer's is_reversed: the track's direction flag, set when it is driven against the order of its file.
        self._is_reversed = np.array([i >= len(tracks) for i in range(len(self.tracks))])
        longest = float(self._lengths.max())
        self.max_steps = self.spec.max_steps or int(np.ceil(longest / 0.25 * self.spec.control_hz))
        self._workers = Workers(threads)
        self.objects: Objects | None = None
        if race.count:
            self.objects = Objects(race, self._set, self._is_reversed, n, self.car)
            self.STATE_SIZE = BatchEnv.STATE_SIZE + STATE_COLUMNS
            self.MIRROR_STATE = np.concatenate([BatchEnv.MIRROR_STATE, MIRROR_STATE])
        sizes = [self.objects.size] * race.count if self.objects is not None else []
        self.physics = CarPhysics(self.car, n, self.control_period_s, threads, sizes)
        self._starts = Starts(
            self.spec.start, self._set, self._lengths, self._widths, n, self.randomise, self.spec.stretch
        )
        self.camera = self._make_camera() if draw else None
        self._seed_streams()
        self._everyone = np.arange(n)
        self._refreshed = 0
        self._frames = np.zeros((n, HEIGHT, WIDTH), np.uint8)
        # Poses are kept for as long as the oldest camera frame reaches back.
        latency_s = max(self.car.camera.latency_s, self.randomise.camera_latency_s[1])
        oldest_s = latency_s + 1.0 / self.car.camera.frame_rate_hz
        self._poses = np.zeros((int(np.ceil(oldest_s / self.control_period_s)) + 2, n, 7))
        self.track = np.zeros(n, np.int64)
        self.start_s = np.zeros(n)
        self.progress = np.zeros(n)
        self.steps = np.zeros(n, np.int64)
        self.episode = np.zeros(n, np.int64)
        self.status = np.zeros(n, np.int64)
        self._still = np.zeros(n, np.int64)
        self._falling = np.zeros(n, np.int64)
        self._delay = np.zeros(n, np.int64)
        self._latency = np.zeros(n)
        self._phase = np.zeros(n)
        self._queue = np.zeros((_MAX_DELAY, n, 2))
        self._wheels_on = np.ones((n, 4), bool)
        self.projection = self._project()

    # -- looks ------------------------------------------------------------------------------------------------------

    def _make_camera(self) -> RoadCamera | MujocoCamera:
        looks = self.randomise.looks
        first = HELD_OUT if self.spec.held_out else 0
        surfaces = []
        self._road_grays: list[float] = []  # of each surface; NaN where it is the plain one
        for track in self._base_tracks:
            for index in range(looks):
                plain = index == 0 and not self.spec.held_out
                look = nominal_appearance() if plain else random_appearance(track.name, first + index, self.seed)
                surfaces.append(draw_surface(track, look))
                self._road_grays.append(float("nan") if plain else look.road)
        camera = RoadCamera(Atlas(surfaces), self.n, self.car.camera, self._workers, boxes=self.spec.race.count)
        camera.box_counts[:] = self.spec.race.count
        if self.spec.renderer == "mujoco":
            from sim.mujoco_view import MujocoCamera  # OpenGL is loaded only by those who ask for it

            return MujocoCamera(camera, supersample=2)  # 4 is half a gray better and takes three times as long
        return camera

    def refresh_look(self) -> None:
        """Redraw one appearance, in turn, as one that was not there before; the nominal ones stay.

        A trainer that calls this now and then shows far more appearances than fit in memory. Which one is drawn depends
        only on the seed and the number of calls.
        """
        looks, per_track = self.randomise.looks, self.randomise.looks - 1
        if not isinstance(self.camera, RoadCamera) or per_track < 1 or self.spec.held_out:
            return
        turn, self._refreshed = self._refreshed, self._refreshed + 1
        which, slot = turn % len(self._base_tracks), 1 + turn // len(self._base_tracks) % per_track
        index = looks + turn // len(self._base_tracks) % (HELD_OUT - looks)
        track = self._base_tracks[which]
        look = random_appearance(track.name, index, self.seed)
        self.camera.atlas.replace(which * looks + slot, draw_surface(track, look))
        self._road_grays[which * looks + slot] = look.road

    # -- episodes ---------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Frames:
        """Begin an episode with every car.

        With ``seed``, starts, worlds and noise are those of a new environment with that seed; the appearances of the
        tracks stay those that this one has drawn.
        """
        if seed is not None:
            self.seed = seed
            self._seed_streams()
            self.episode[:] = 0
        self._begin(self._everyone)
        self.projection = self._project()
        if self.camera is not None:
            self._render(None)
        return self.frames

    @property
    def frames(self) -> Frames:
        """(n, 120, 160, 1) the newest picture of each car. A live view."""
        return self._frames[..., None]

    def _seed_streams(self) -> None:
        self._rngs = [np.random.default_rng([self.seed, i]) for i in range(self.n)]
        if self.objects is not None:
            self.objects.seed(self.seed)

    def _begin(self, ids: Ints) -> None:
        """Start the next episode of the cars ``ids``: world, place, counters."""
        uniform = np.stack([self._rngs[i].random(DRAWS + 4) for i in ids])
        start = self._starts.draw(ids, self.episode[ids], uniform[:, DRAWS:])
        if self.objects is not None:
            start = self._among_objects(ids, start)
        self.track[ids] = start.track
        world = draw_world(self.randomise, self.car, uniform[:, :DRAWS], start.xy_m)
        self.physics.set_dynamics(ids, world.dynamics)
        self.physics.place(ids, start.xy_m, start.heading_rad)
        self._delay[ids] = world.delay_steps
        self._latency[ids] = world.camera_latency_s
        self._phase[ids] = world.camera_phase_s
        self._poses[:, ids, :] = self._pose()[ids]
        self.steps[ids] = 0
        self.progress[ids] = 0.0
        self.status[ids] = IN_PROGRESS
        self._still[ids] = 0
        self._falling[ids] = 0
        self._queue[:, ids] = 0.0
        self._wheels_on[ids] = True
        # Progress counts from where the car's front point starts.
        front = start.xy_m + self.car.body.front_point_m * np.stack(
            [np.cos(start.heading_rad), np.sin(start.heading_rad)], axis=-1
        )
        self.start_s[ids] = self._set.project(start.track, front).s_m
        if self.camera is not None:
            base = len(self._base_tracks)
            look = np.floor(uniform[:, DRAWS + 3] * self.randomise.looks).astype(np.int64)
            self.camera.surface[ids] = (start.track % base) * self.randomise.looks + look
            self.camera.set_optics(ids, world.optics)
            if self.objects is not None:
                self.objects.paint(ids, [self._road_grays[k] for k in self.camera.surface[ids].tolist()])
        self.episode[ids] += 1

    def _among_objects(self, ids: Ints, start: Start) -> Start:
        """Put objects around the starts of the cars ``ids``; starts that fixed places are in the way of move back."""
        assert self.objects is not None
        p = self._set.project(start.track, start.xy_m)
        self.objects.place(ids, start.track, p.s_m)
        free_s = self.objects.free_start(ids, start.track, p.s_m)
        _, here = self._set.pose_at(start.track, p.s_m)
        xy, there = self._set.pose_at(start.track, free_s, p.lateral_m)
        moved = free_s != p.s_m
        self.physics.set_objects(self.objects.xy_m, self.objects.yaw_rad)
        return Start(
            start.track,
            np.where(moved[:, None], xy, start.xy_m),
            np.where(moved, start.heading_rad - here + there, start.heading_rad),
        )

    def put_back(self, ids: Ints) -> None:
        """Put cars that left the road back on its middle, at rest, where they left it; the episode goes on.

        In a race with objects: on the nearer lane where none is in the way, and after a crash a metre further back.
        """
        track = self.track[ids]
        # Where progress stopped, which is the front point's; the car's middle goes that much further back.
        s = self.start_s[ids] + self.progress[ids] / 100.0 * self._lengths[track]
        s, lateral = s - self.car.body.front_point_m, np.zeros(len(ids))
        if self.objects is not None:
            s = s - np.where(self.status[ids] == CRASHED, CRASH_BACK_M, 0.0)
            s, lateral = self.objects.free_lane(ids, track, s, self.projection.lateral_m[ids])
        xy, heading = self._set.pose_at(track, s, lateral)
        self.physics.place(ids, xy, heading)
        self._poses[:, ids, :] = self._pose()[ids]
        self._queue[:, ids] = 0.0
        self._still[ids] = 0
        self._falling[ids] = 0
        self.status[ids] = IN_PROGRESS
        self.projection = self._project()
        if self.camera is not None:
            self._render(ids)

    def _pose(self) -> Floats:
        return np.concatenate([self.physics.position, self.physics.quaternion], axis=1)

    def _front(self) -> tuple[Floats, Floats]:
        heading = self.physics.heading()
        offset = self.car.body.front_point_m * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        return self.physics.position[:, :2] + offset, heading

    def _project(self) -> Projection:
        front, _ = self._front()
        return self._set.project(self.track, front)

    # -- a step -----------------------------------------------------------------------------------------------------

    def step(self, actions: NDArray[np.generic]) -> Step:
        """Advance every car by one control period.

        Args:
            actions: (n,) indices of a discrete action space, or (n, 2) in [-1, 1] of a continuous one.

        Raises:
            RewardError: the reward function raised or did not return a finite number; PhysicsError.
        """
        command = self.action_space.decode(np.asarray(actions)).astype(np.float64)
        return self.step_command(command)

    def step_command(self, command: Floats) -> Step:
        """As ``step``, with commands (n, 2): steering in degrees, + is left, and speed in m/s."""
        self._queue[1:] = self._queue[:-1]
        self._queue[0] = command
        applied = self._queue[self._delay, self._everyone]
        before = self.physics.position[:, :2].copy()
        if self.objects is not None and self.objects.step(self.track, self.steps + 1, self.control_period_s):
            self.physics.set_objects(self.objects.xy_m, self.objects.yaw_rad)
        self.physics.step(applied[:, 0], applied[:, 1])
        self._poses[1:] = self._poses[:-1]
        self._poses[0] = self._pose()
        self.steps += 1

        projection = self.projection = self._project()
        self._wheels_on = self._set.on_track(self.track, self.physics.wheel_points())
        off = ~self._wheels_on.any(axis=1)
        lengths = self._lengths[self.track]
        progress = self._set.progress_percent(projection.s_m, self.start_s, lengths, self.progress)
        # Off the road nothing counts: the nearest centre line may be that of another stretch, even beyond the finish.
        progress = np.where(off, self.progress, progress)
        moved = np.linalg.norm(self.physics.position[:, :2] - before, axis=1)
        self._still = np.where(moved <= _STILL_M, self._still + 1, 0)
        self._falling = np.where(progress < self.progress, self._falling + 1, 0)
        self.progress = progress.copy()  # resets write to it; the step's figures stay
        status = np.full(self.n, IN_PROGRESS)
        status[self.steps >= self.max_steps] = TIME_UP
        status[self._falling >= _PATIENCE] = REVERSED
        status[self._still >= _PATIENCE] = IMMOBILIZED
        status[off] = OFF_TRACK
        columns = self.columns(command)
        if self.objects is not None:
            status[columns["is_crashed"]] = CRASHED
        status[progress >= 100.0] = LAP_COMPLETE
        self.status = status.copy()

        params = self._params(columns)
        reward = call_all(self.reward, params)
        truncated = status == TIME_UP
        terminated = (status != IN_PROGRESS) & ~truncated
        done = np.flatnonzero(status != IN_PROGRESS)
        last = np.flatnonzero(truncated | (status == LAP_COMPLETE))
        steps = self.steps.copy()
        last_frames = np.zeros((0, HEIGHT, WIDTH, 1), np.uint8)
        last_state = np.zeros((0, self.STATE_SIZE))
        if self.auto_reset and len(done):
            if len(last):
                last_state = self.state()[last]
                if self.camera is not None:
                    self._render(last)
                    last_frames = self.frames[last]
            self._begin(done)
            self.projection = self._project()
        if self.camera is not None:
            self._render(None)
        return Step(
            self.frames, reward, terminated, truncated, status, progress, steps, params, last, last_frames, last_state,
            columns,
        )  # fmt: skip

    def reward_params(self, command: Floats) -> list[dict[str, object]]:
        """The reward parameters of every car as it stands, after the commands (n, 2) in degrees and m/s."""
        return self._params(self.columns(command))

    def _params(self, columns: Columns) -> list[dict[str, object]]:
        return build_params(**columns, waypoints=[self._waypoints[k] for k in self.track.tolist()])

    def columns(self, command: Floats) -> Columns:
        """What the reward parameters are made of, by ``build_params``'s names, copies of (n,) each.

        In a race with k objects also those about objects, (n, k) or more.
        """
        front, heading = self._front()
        p = self.projection
        before = self._numbers[self.track, p.prev_waypoint]
        wheels_on: NDArray[np.int64] = np.count_nonzero(self._wheels_on, axis=1)
        about_objects: Columns = {}
        if self.objects is not None:
            about_objects = self.objects.columns(self.physics.position[:, :2], heading, p.s_m, self.track)
        return {
            "x": front[:, 0], "y": front[:, 1], "heading_deg": np.degrees(heading), "speed_mps": command[:, 1],
            "steering_deg": command[:, 0], "steps": self.steps.copy(), "progress": self.progress.copy(),
            "distance_from_center": p.distance_m, "projection_distance": p.s_m,
            "track_length": self._lengths[self.track], "track_width": p.track_width_m,
            "is_left_of_center": p.is_left_of_center, "prev_waypoint": before, "next_waypoint": before + 1,
            "all_wheels_on_track": wheels_on == 4, "is_offtrack": wheels_on == 0,
            "is_reversed": self._is_reversed[self.track], "sim_time": self.steps * self.control_period_s,
            **about_objects,
        }  # fmt: skip

    # -- what cars see and what only the simulator knows ---------------------------------------------------------------

    def _frame_age_steps(self) -> Floats:
        """How long ago, in control periods, each camera took the newest frame that has arrived by now, (n,).

        The camera runs freely at its own rate: frames are taken at phase + k / rate and arrive a latency later. Between
        the poses that physics left at the ends of control periods, positions are interpolated.
        """
        period = 1.0 / self.car.camera.frame_rate_hz
        now = self.steps * self.control_period_s
        newest = np.floor((now - self._latency - self._phase) / period + 1e-9) * period + self._phase
        return np.clip((now - newest) / self.control_period_s, 0.0, len(self._poses) - 1 - 1e-9)

    def _camera_poses(self, back: Floats) -> Floats:
        """Where each camera was ``back`` (n,) control periods ago, (n, 7)."""
        index = back.astype(np.int64)
        share = (back - index)[:, None]
        newer, older = self._poses[index, self._everyone], self._poses[index + 1, self._everyone]
        # Neighbouring orientations are at most some degrees apart, so a normalised mean is as good as a slerp.
        sign = np.where(np.sum(newer[:, 3:] * older[:, 3:], axis=1, keepdims=True) < 0, -1.0, 1.0)
        pose = newer * (1 - share)
        pose[:, :3] += older[:, :3] * share
        pose[:, 3:] += older[:, 3:] * share * sign
        pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
        return pose

    def _render(self, ids: Ints | None) -> None:
        assert self.camera is not None
        seeds = (
            np.uint64(self.seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)  # numpy warns where a scalar wraps
            + self._everyone.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
            + self.episode.astype(np.uint64) * np.uint64(0x165667B19E3779F9)
            + self.steps.astype(np.uint64)
        )
        back = self._frame_age_steps()
        if self.objects is not None:
            self.camera.boxes[:] = self.objects.boxes(back * self.control_period_s)
        self.camera.render(self._camera_poses(back), seeds, self._frames, ids)

    def state(self) -> Floats:
        """(n, STATE_SIZE) what only a simulator knows, scaled to about one, for a value network or a teacher.

        Lateral position (of the half width), heading error, speed, yaw rate, steering, the last two commands, track
        width; heading change of the road at eight distances ahead; delay and the drawn gains. Mirrored driving gives
        the mirrored state: ``MIRROR_STATE`` holds the signs. In a race with objects: also the two that come next.
        """
        p, physics = self.projection, self.physics
        error = physics.heading() - p.heading_rad
        error = (error + np.pi) % (2 * np.pi) - np.pi
        half = self._widths[self.track] / 2
        d = physics.dynamics
        ahead = self._set.curvature_ahead(self.track, p.s_m, _LOOKAHEAD_M)
        columns = [
            p.lateral_m / half, error * 2, physics.yaw_rate / 2, physics.steering_rad * 2,
            self._queue[0, :, 0] / 30, self._queue[1, :, 0] / 30, d.steering_offset_deg / 3,
            physics.forward_speed(), self._queue[0, :, 1], self._queue[1, :, 1],
            half * 2, self._delay / 2, d.steering_gain * 5 - 5, d.motor_gain * 5 - 5, d.steering_lag_s * 10,
            d.motor_lag_s * 5,
        ]  # fmt: skip
        parts = [ahead, np.stack(columns, axis=1)]
        if self.objects is not None:
            parts.append(self.objects.state(p.s_m, half, self.track))
        return np.concatenate(parts, axis=1)

    # The first columns (road ahead, lateral, heading error, yaw rate, steering, commands, offset) change sign.
    MIRROR_STATE = np.concatenate([-np.ones(len(_LOOKAHEAD_M) + 7), np.ones(9)])

    @property
    def continuous(self) -> bool:
        """Whether actions are (n, 2) in [-1, 1] rather than indices."""
        return isinstance(self.action_space, ContinuousActionSpace)

    def close(self) -> None:
        """Stop the threads."""
        self._workers.close()
        if self.camera is not None and hasattr(self.camera, "close"):
            self.camera.close()
