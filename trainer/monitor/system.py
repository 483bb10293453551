"""Processor and memory of the training: its process and those that it has started."""

from __future__ import annotations

import time

import psutil

_MEGABYTE = 1 << 20
_LOOK_EVERY_S = 10.0  # it takes 5 ms


class SystemFigures:
    """Reads them since the last call."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._look_s = 0.0  # when to look for new processes
        self.read()

    def read(self) -> dict[str, float]:
        """``cpu_percent``, of one core, since the last call, and ``memory_mb``, resident."""
        if time.monotonic() >= self._look_s:
            self._look_s = time.monotonic() + _LOOK_EVERY_S
            own = psutil.Process()
            found = {process.pid: process for process in (own, *own.children(recursive=True))}
            # The same object as before knows what it had used then.
            self._processes = {pid: self._processes.get(pid, process) for pid, process in found.items()}
        cpu = memory = 0.0
        for process in self._processes.values():
            try:
                cpu += process.cpu_percent()
                memory += process.memory_info().rss / _MEGABYTE
            except psutil.Error:
                continue  # it has just ended
        return {"cpu_percent": round(cpu, 1), "memory_mb": round(memory, 1)}
