"""What the gate writes into its drive log: intents, requests, changes of mode, and what was put out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vehicle.drive_log import DriveLog
from vehicle.errors import ConfigError
from vehicle.gate_core import Output
from vehicle.messages import Intent

IDLE_S = 1.0
_UNLOGGED = ("status", "renew")  # many a second, and they change nothing
_SECRETS = ("lease",)  # whoever has it may drive


class Journal:
    """A drive log with the gate's kinds of records. Nothing here waits or raises; `error` says what is wrong now."""

    def __init__(self, path: Path) -> None:
        self._log: DriveLog | None = None
        self._fault: str | None = None
        try:
            self._log = DriveLog(path)
        except ConfigError as error:
            self._fault = f"{error.what}; mend it and start the gate again"
        self._last: tuple[object, ...] = ()
        self._last_s = float("-inf")

    @property
    def error(self) -> str | None:
        """What is wrong with the log now, in words."""
        return self._fault if self._log is None else self._log.error

    def facts(self) -> dict[str, Any]:
        """For `hotlap status`."""
        log = self._log
        return {"path": log and str(log.path), "error": self.error, "lost": 0 if log is None else log.lost}

    def intent(self, now_s: float, intent: Intent | None, fault: str | None) -> None:
        """An intent as it came, or None where it could not be read, and why it was refused."""
        self._put(now_s, "intent", {"fault": fault, **({} if intent is None else vars(intent))})

    def request(self, now_s: float, message: object, answer: dict[str, Any]) -> None:
        """A request, without its lease, and what became of it."""
        if isinstance(message, dict) and message.get("op") not in _UNLOGGED:
            said = {key: value for key, value in message.items() if key not in _SECRETS}
            self._put(now_s, "request", {"request": said, "ok": answer["ok"], "reason": answer.get("reason")})

    def state(self, now_s: float, state: dict[str, Any]) -> None:
        """The state after a change of mode."""
        self._put(now_s, "state", state)

    def output(self, now_s: float, output: Output, armed: bool, error: str | None) -> None:
        """Every output of an armed car and every change; otherwise one a second, which shows that the disk works.

        Args:
            error: why it was not written, None where it was.
        """
        this = (output.cause, output.mode, output.steering_us, output.throttle_us, error)
        if this == self._last and not armed and now_s - self._last_s < IDLE_S:
            return
        self._last, self._last_s = this, now_s
        self._put(now_s, "output", {**vars(output), "error": error})

    def close(self) -> None:
        """Write what waits, and close."""
        if self._log is not None:
            self._log.close()

    def _put(self, now_s: float, kind: str, fields: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.put(now_s, kind, fields)
