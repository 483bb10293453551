"""What happened to a run beside its updates: a worker that died, a server that went away (RUN/events.jsonl)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path


class Events:
    """The run's event log.

    Args:
        path: of the file; elapsed_s: gives the seconds of training so far, as in the metrics' column ``wall_s``.
    """

    def __init__(self, path: Path, elapsed_s: Callable[[], float]) -> None:
        self._path, self._elapsed_s = path, elapsed_s

    def add(self, event: str, text: str) -> None:
        """Note an event by its name and in words, on stderr too. A full disk does not stop a training."""
        entry = {"wall_s": round(self._elapsed_s(), 3), "event": event, "text": text}
        print(f"hotlap: {text}", file=sys.stderr, flush=True)
        try:
            with open(self._path, "a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            print(f"hotlap: the event is not in {self._path}: {error.strerror or error}", file=sys.stderr)
