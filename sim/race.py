"""Kinds of race, as DeepRacer has them: an empty road, boxes on it, or cars that follow their lane.

Source of kinds, places and defaults: DeepRacer's simulator (`obstacles_ctrl`, `bot_cars_ctrl`; spec
`deepracer-training.md` §1 and §3).
"""

from __future__ import annotations

from dataclasses import dataclass

from vehicle.config import ranged
from vehicle.errors import ConfigError

TIME_TRIAL, OBJECT_AVOIDANCE, HEAD_TO_BOT = "time_trial", "object_avoidance", "head_to_bot"
RACES = (TIME_TRIAL, OBJECT_AVOIDANCE, HEAD_TO_BOT)
AFTER_LAST_M = 1.0  # no object on the last metre of the lap, DeepRacer's `obstacle_end_dist`


@dataclass(frozen=True)
class RaceSpec:
    """What is on the road beside the car. DeepRacer's name of a key in brackets."""

    race: str = ranged(TIME_TRIAL, choices=RACES, doc="[RACE_TYPE]")
    obstacles: int = ranged(4, low=1, high=32, doc="boxes of object_avoidance [NUMBER_OF_OBSTACLES]")
    bot_cars: int = ranged(3, low=1, high=32, doc="cars of head_to_bot [NUMBER_OF_BOT_CARS]")
    bot_speed_mps: float = ranged(0.2, low=0.0, high=4.0, doc="[BOT_CAR_SPEED]")
    lane_changes: bool = False  # of bot cars, now and then [IS_LANE_CHANGE]
    lane_change_every_s: tuple[float, float] = ranged((3.0, 5.0), low=0.5, high=1e4)
    positions: tuple[str, ...] = ranged(
        (), doc='fixed places, each "share of the lap,lane", lane 1 inner, -1 outer [OBJECT_POSITIONS]'
    )
    randomise: bool = True  # other places and lanes in every episode [RANDOMIZE_OBSTACLE_LOCATIONS]
    min_distance_m: float = ranged(
        2.0, low=0.6, high=1000.0, doc="between neighbours, along the centre line [MIN_DISTANCE_BETWEEN_OBSTACLES]"
    )
    box_height_m: float = ranged(0.25, low=0.02, high=2.0)

    def __post_init__(self) -> None:
        low, high = self.lane_change_every_s
        if low > high:
            raise ConfigError(f"lane_change_every_s = [{low:g}, {high:g}] is upside down", next_step="the lower first")
        self.places()

    @property
    def count(self) -> int:
        """How many objects are on the road."""
        if self.race == TIME_TRIAL:
            return 0
        if self.positions:
            return len(self.positions)
        return self.obstacles if self.race == OBJECT_AVOIDANCE else self.bot_cars

    def places(self) -> list[tuple[float, int]]:
        """The fixed places: share of the lap from 0 to 1, and lane, 1 inner and -1 outer.

        Raises:
            ConfigError: a place that is written in another way.
        """
        found = []
        for text in self.positions:
            share, comma, lane = text.partition(",")
            try:
                place = float(share), int(lane)
            except ValueError:
                place = -1.0, 0
            if not comma or not 0.0 <= place[0] <= 1.0 or place[1] not in (1, -1):
                raise ConfigError(
                    f"positions: {text!r} is not a place",
                    cause="it needs the share of the lap, 0 to 1, a comma, and the lane: 1 inner, -1 outer",
                    next_step='positions = ["0.25,1", "0.75,-1"]',
                )
            found.append(place)
        return found
