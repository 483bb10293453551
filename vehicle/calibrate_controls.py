"""The controls of the car for whoever calibrates in a terminal: a lease, arming, pulses. A client of the gate.

Nothing runs by itself: the lease lasts a quarter of a second, and goes on only while the caller's loop goes round. A
process that hangs, is stopped or killed has lost the controls by then, and the motor rests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import zmq

from calibration.car_link import CarRefused
from vehicle.arming import Mode
from vehicle.console_sockets import Asker, granted

TIMEOUT_S = 1.0
RENEW_S = 0.1
_LEASE_AGAIN_S = 0.35  # somebody's lease that was lost ends meanwhile
_ARM_AGAIN_S = 0.1
_ARM_TRIES = 30
# Reasons against arming that go by themselves: the ESC is shown neutral; a guard starts anew after a save.
_PASSING = frozenset({"esc_neutral", "guard"})
_KIND = Mode.CALIBRATION.value


class AskGate(Protocol):
    """One request to the gate; raises CarRefused."""

    def __call__(self, request: Mapping[str, object], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The answer."""
        ...


@contextlib.contextmanager
def gate_of(runtime: Path) -> Iterator[AskGate]:
    """Requests to the gate whose sockets are in this folder, over one connection.

    Raises:
        ConfigError: the path of the socket is too long.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        asker = Asker(context, runtime, "gate")

        def ask(request: Mapping[str, object], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
            return granted(asker.ask(request, timeout_s))

        yield ask
        asker.close()
    finally:
        context.destroy(linger=0)


class HeldControls:
    """The calibration lease of this process."""

    def __init__(self, ask: AskGate, holder: str) -> None:
        self._ask, self._holder = ask, holder
        self._lease = ""
        self._renewed_s = 0.0

    @property
    def held(self) -> bool:
        """Whether there is something to give back."""
        return self._lease != ""

    def take(self) -> None:
        """Get the lease, and arm the car with it.

        Raises:
            CarRefused: somebody else has it, or every reason why the car is not armed; then nothing is held.
        """
        self.give()
        self._lease = self._get_lease()
        try:
            self._arm()
        except BaseException:
            self.give()
            raise

    def _get_lease(self) -> str:
        request: dict[str, object] = {"op": "lease", "kind": _KIND, "holder": self._holder}
        try:
            return str(self._ask(request)["lease"])
        except CarRefused as refused:
            if refused.reason != "lease_held":
                raise
        time.sleep(_LEASE_AGAIN_S)
        return str(self._ask(request)["lease"])

    def _arm(self) -> None:
        for left in range(_ARM_TRIES, -1, -1):
            self._held_ask({"op": "renew"})
            try:
                self._held_ask({"op": "arm", "mode": _KIND})
                return
            except CarRefused as refused:
                reasons = {one["reason"] for one in refused.blocked}
                if not left or not reasons or not reasons <= _PASSING:
                    raise
            time.sleep(_ARM_AGAIN_S)

    def give(self) -> None:
        """Give the controls back: neutral at once. Where the gate does not hear it, neutral when the lease ends."""
        lease, self._lease = self._lease, ""
        if lease:
            with contextlib.suppress(CarRefused):
                self._ask({"op": "release", "lease": lease})

    def renew(self, now_s: float) -> None:
        """Hold them for another while, if it is time.

        Raises:
            CarRefused: they are gone, or somebody has stopped the car; nothing is held any more.
        """
        if self.held and now_s - self._renewed_s >= RENEW_S:
            mode = self._or_lose({"op": "renew"}).get("mode")
            if mode != _KIND:  # a disarmed car leaves the lease with whoever has it
                self.give()
                raise CarRefused("not_in_control", f"the car is {mode}", cause="somebody stopped or disarmed it")

    def pulse(self, steering_us: float | None, throttle_us: float | None) -> str:
        """Ask for pulses; renews.

        Returns:
            "": taken; else the reason of the refusal, with the controls still held and the motor at rest.

        Raises:
            CarRefused: the controls are gone.
        """
        wanted = {"steering_us": steering_us, "throttle_us": throttle_us}
        try:
            self._or_lose({"op": "pulse", **{key: us for key, us in wanted.items() if us is not None}})
        except CarRefused as refused:
            if not self.held:
                raise
            return refused.reason
        return ""

    def _or_lose(self, request: dict[str, object]) -> dict[str, Any]:
        """A request with the lease; only a step that was too large leaves it in our hands when it is refused."""
        try:
            return self._held_ask(request)
        except CarRefused as refused:
            if refused.reason != "step_too_large":
                self.give()
            raise

    def _held_ask(self, request: dict[str, object]) -> dict[str, Any]:
        answer = self._ask({**request, "lease": self._lease})
        self._renewed_s = time.monotonic()
        return answer
