"""Errors of the training room."""

from __future__ import annotations

from vehicle.errors import HotlapError


class TrainerError(HotlapError):
    """Base of the training room's errors."""


class RunError(TrainerError, ValueError):
    """A run folder cannot be used: it exists already, is incomplete, or its checkpoint is damaged."""


class RunStorageError(TrainerError, OSError):
    """A run folder cannot be written to, for instance because the disk is full."""


class DeepRacerError(TrainerError, ValueError):
    """A file of DeepRacer's says something that it does not allow itself, or cannot be read."""


class FrameError(TrainerError, ValueError):
    """Bytes from a worker, a learner or a buffer are damaged, foreign, or do not fit the run."""


class BufferLost(TrainerError, ConnectionError):
    """The experience buffer cannot be used: it refuses us, or the other end has gone for good."""
