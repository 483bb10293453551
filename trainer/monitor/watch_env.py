"""A batched environment as the live view sees it."""

from __future__ import annotations

from collections.abc import Sequence

from sim.batch_env import BatchEnv, Step
from trainer.monitor.feed import LiveCars, LiveFeed


def show_env(feed: LiveFeed, env: BatchEnv, step: Step) -> None:
    """Offer what ``env`` shows after ``step``."""

    def look(wanted: Sequence[int]) -> LiveCars:
        tracks = len(env.tracks) // (2 if env.spec.both_directions else 1)  # each stands there in both directions
        return LiveCars(
            env.physics.position[:, :2],
            env.physics.heading(),
            step.progress,
            env.physics.forward_speed(),
            env.track % tracks,
            {k: env.frames[k, :, :, 0] for k in wanted} if env.draw else {},
        )

    feed.offer(env.n, look)
