"""Errors of the simulation room."""

from __future__ import annotations

from vehicle.errors import HotlapError


class SimError(HotlapError):
    """Base of the simulation room's errors."""


class TrackError(SimError, ValueError):
    """A track is open, self-crossing, not finite, too narrow or not to be found."""


class RewardError(SimError, ValueError):
    """A reward function cannot be loaded, raised, or returned something that is not a finite number.

    Args:
        params: the reward parameters it was called with, where it was called.
    """

    def __init__(
        self, what: str, *, params: dict[str, object] | None = None, cause: str = "", next_step: str = ""
    ) -> None:
        self.params = params
        super().__init__(what, cause=cause, next_step=next_step)


class PhysicsError(SimError, ArithmeticError):
    """The physics diverged: a car's state is not finite."""
