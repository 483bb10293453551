"""The guided calibration on a real terminal, in front of a real gate: keys and time in, what the guide wants done.

One thread, one loop. While the controls are held it renews them at 10 Hz; a loop that stands still, for whatever
reason, has lost them within a quarter of a second. However it ends, they are given back first.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from calibration.car_link import CarRefused
from calibration.errors import HotlapError
from vehicle.calibrate_controls import HeldControls
from vehicle.calibrate_events import (
    Answered,
    Effect,
    Event,
    Give,
    Key,
    Lost,
    NotSaved,
    Pulse,
    Quit,
    Save,
    Saved,
    Say,
    Show,
    Take,
    Taken,
    Tick,
)
from vehicle.calibrate_guide import Guide
from vehicle.calibrate_save import CalibrationKeeper
from vehicle.calibrate_terminal import Terminal

_LOOP_S = 0.05


class Session:
    """One guided calibration."""

    def __init__(self, guide: Guide, controls: HeldControls, keeper: CalibrationKeeper, terminal: Terminal) -> None:
        self._guide, self._controls, self._keeper, self._terminal = guide, controls, keeper, terminal
        self._done = False
        self._taken = False  # the controls, by one of the keys that were read

    def run(self) -> None:
        """Until the person quits.

        Raises:
            Ended: a signal, or the terminal is gone.
        """
        try:
            self._do(self._guide.begin(time.monotonic()))
            while not self._done:
                self._once()
        finally:
            self._controls.give()

    def _once(self) -> None:
        terminal = self._terminal
        ready, _, _ = select.select((terminal.input_fd, terminal.wake_fd), (), (), _LOOP_S)
        if terminal.wake_fd in ready:
            os.read(terminal.wake_fd, 64)
        if terminal.suspend:
            self._suspend()
        elif terminal.input_fd in ready:
            self._keys(terminal.read())
        self._renew()
        self._tell(Tick())

    def _keys(self, names: Sequence[str]) -> None:
        self._taken = False
        for name in names:
            if name == "end":
                self._done = True
            # What was typed before the controls were there was not meant for a motor.
            if self._done or self._taken:
                return
            self._tell(Key(name))

    def _suspend(self) -> None:
        self._lose("You pressed Ctrl-Z, so the controls were given back.")
        self._terminal.stop()
        self._terminal.say("Calibration goes on.")

    def _lose(self, why: str) -> None:
        if self._controls.held:
            self._controls.give()
            self._tell(Lost(why))

    def _renew(self) -> None:
        try:
            self._controls.renew(time.monotonic())
        except CarRefused as refused:
            self._tell(Lost(_lost(refused)))

    # --- effects

    def _tell(self, event: Event) -> None:
        self._do(self._guide.on(event, time.monotonic()))

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self._terminal.say(effect.text)
            elif isinstance(effect, Show):
                self._terminal.show(effect.text)
            elif isinstance(effect, Take):
                self._take()
            elif isinstance(effect, Give):
                self._controls.give()
            elif isinstance(effect, Pulse):
                self._pulse(effect)
            elif isinstance(effect, Save):
                self._save(effect)
            elif isinstance(effect, Quit):
                self._done = True

    def _take(self) -> None:
        self._terminal.say("Taking the controls...")
        try:
            self._controls.take()
        except CarRefused as refused:
            self._tell(Lost(_refusal(refused)))
            return
        self._taken = True
        self._terminal.forget_keys()
        self._tell(Taken())

    def _pulse(self, effect: Pulse) -> None:
        if not self._controls.held:
            return
        try:
            refused = self._controls.pulse(effect.steering_us, effect.throttle_us)
        except CarRefused as error:
            self._tell(Lost(_lost(error)))
            return
        if effect.throttle_us is not None:
            self._tell(Answered(effect.throttle_us, refused))

    def _save(self, effect: Save) -> None:
        try:
            self._keeper.save(effect.calibration)
        except HotlapError as error:
            self._tell(NotSaved(str(error)))
            return
        self._tell(Saved(effect.calibration))


def _lost(refused: CarRefused) -> str:
    cause = refused.cause or "this computer was too slow for a moment, or somebody else stopped the car"
    return f"The car took the controls back: {refused.what} ({cause}). The motor is at rest."


def _refusal(refused: CarRefused) -> str:
    lines = [f"The controls were not given: {refused.what}."]
    lines += [f"  {one['reason']}: {one['value']}\n      cure: {one['cure']}" for one in refused.blocked]
    return "\n".join(lines if refused.blocked or not refused.next_step else [*lines, f"  next: {refused.next_step}"])
