"""Finds a back-end by its name: hotlap's own from a table, those of other packages by an entry-point group.

setup.cfg lists hotlap's own as entry points too. The table comes first, so that a plain checkout, whose installed
metadata may be older than its code, finds them, and so that no other package can take the place of one of them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from vehicle.errors import ActuatorError, CameraError


class Backends:
    """The back-ends of one kind of thing.

    Args:
        noun: what they are, "camera" or "actuator": car.toml's table has this name.
        group: the entry-point group.
        built_in: name -> "module:function".
        error: raised for what cannot be found or loaded.
    """

    def __init__(
        self, noun: str, group: str, built_in: Mapping[str, str], error: type[ActuatorError] | type[CameraError]
    ) -> None:
        self._noun, self._group, self._built_in, self._error = noun, group, built_in, error

    def known(self) -> list[str]:
        """The names: hotlap's own, then those that other installed packages bring."""
        others = {entry.name for entry in importlib.metadata.entry_points(group=self._group)}
        return [*self._built_in, *sorted(others - self._built_in.keys())]

    def find(self, kind: str) -> Any:
        """The function that opens back-end ``kind``.

        Raises:
            ActuatorError, CameraError: an unknown name, or its package cannot be loaded.
        """
        target = self._built_in.get(kind)
        if target is not None:
            module, _, function = target.partition(":")
            return getattr(importlib.import_module(module), function)
        for entry in importlib.metadata.entry_points(group=self._group, name=kind):
            try:
                return entry.load()
            except (ImportError, AttributeError) as error:
                raise self._error(
                    f"{self._noun} {kind!r} ({entry.value}) cannot be loaded: {error}",
                    cause="its package is installed in part, or needs another one",
                    next_step="pip check",
                ) from error
        known = self.known()
        near = difflib.get_close_matches(kind, known, n=1, cutoff=0.0)
        raise self._error(
            f"unknown {self._noun}.kind {kind!r}; known: {', '.join(known)}",
            cause=f"a misspelled name, or a package of {self._noun}s that is not installed",
            next_step=f"the nearest known one is {near[0]!r}" if near else "",
        )

    def check(self, opened: object, kind: str, protocol: type[Any], members: str) -> None:
        """Refuse what a back-end gave where it is not what `protocol` says; `members` names that for people.

        Raises:
            ActuatorError, CameraError: it is not.
        """
        if not isinstance(opened, protocol):
            raise self._error(
                f"{self._noun} {kind!r} gave a {type(opened).__name__}, which lacks {members}",
                cause="a package that was made for another version of hotlap",
                next_step=f"pip list, and look for who brings the entry point {self._group}: {kind}",
            )
