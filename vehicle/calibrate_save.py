"""Putting a calibration in force: on the disk and in the gate, or in neither. For the console and for the terminal."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibration import store
from calibration.car_link import CarRefused
from calibration.errors import CalibrationError
from calibration.values import Calibration, check_calibration

Ask = Callable[[Mapping[str, object]], dict[str, Any]]


def refuse_unless_disarmed(ask: Ask, cause: str, cure: str) -> None:
    """Before the disk is touched. Without a gate nothing is armed.

    Args:
        cause, cure: of the refusal; a stop is to be ended first in any case.

    Raises:
        CarRefused: not_disarmed.
    """
    try:
        mode = ask({"op": "status"}).get("mode")
    except CarRefused:
        return
    if mode != "disarmed":
        cure = "end the emergency stop first" if mode == "stopped" else cure
        raise CarRefused("not_disarmed", f"the car is {mode}", cause=cause, next_step=cure)


class CalibrationKeeper:
    """The calibration of one car; every method may be called by several threads at once.

    Args:
        path: the file that the gate reads.
        ask: one request to the gate; raises CarRefused, with reason "no_answer" where none runs.
    """

    def __init__(self, path: Path, ask: Ask) -> None:
        self.path, self._ask = path, ask
        self._saving = threading.Lock()

    def save(self, calibration: Calibration) -> None:
        """Check, save, and have the gate take it. Only while disarmed.

        Raises:
            CarRefused: not disarmed, or the gate did not take it (then the one before stays in force).
            CalibrationError: it does not hold together, or cannot be saved.
        """
        check_calibration(calibration)
        with self._saving:
            self.refuse_unless_disarmed()
            store.save_calibration(self.path, calibration)
            self._take()

    def undo(self) -> Calibration:
        """The one before the one in force is in force again; raises as `save`."""
        with self._saving:
            self.refuse_unless_disarmed()
            found = store.undo(self.path)
            self._take()
        return found

    def restore(self, revision: int) -> Calibration:
        """One of the history is in force again; raises as `save`."""
        with self._saving:
            self.refuse_unless_disarmed()
            found = store.restore(self.path, revision)
            self._take()
        return found

    def refuse_unless_disarmed(self) -> None:
        """See the function of this name."""
        refuse_unless_disarmed(
            self._ask, "a calibration changes only while nothing can move", "disarm it, then save again"
        )

    def _take(self) -> None:
        """Have the gate read the file; where it will not, the one before is in force again on the disk as well."""
        try:
            self._ask({"op": "calibration"})
        except CarRefused as refused:
            if refused.reason == "no_answer":
                return  # it reads the file when it starts
            with contextlib.suppress(CalibrationError):  # the very first one has none before it
                store.undo(self.path)
            raise
