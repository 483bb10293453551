"""Work on slices of the cars in several threads, with results that do not depend on how many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Workers:
    """A pool whose threads it owns; with one thread the work runs in the caller's.

    Args:
        threads: how many, at least 1.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads - 1, "hotlap-sim") if self.threads > 1 else None

    def run(self, work: Callable[[int, int], None], count: int) -> None:
        """Call ``work(begin, end)`` on contiguous slices that cover ``range(count)``; the first error is raised."""
        if self._pool is None or count < 2:
            work(0, count)
            return
        cuts = [count * k // self.threads for k in range(self.threads + 1)]
        futures = [self._pool.submit(work, a, b) for a, b in zip(cuts[1:-1], cuts[2:], strict=True)]
        try:
            work(cuts[0], cuts[1])
        finally:
            for future in futures:
                future.result()

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
