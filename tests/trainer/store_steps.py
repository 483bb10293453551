"""For test_store_s3.py: a publication killed with SIGKILL before each of its requests, and what a reader then sees.

Run as ``python -m tests.trainer.store_steps ADDRESS FOLDER``: prints a line of JSON for each step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.trainer.test_store import make_run
from trainer.store import Writer, files_of
from vehicle.store import Store, open_store
from vehicle.store_backends import Backend


class Mortal:
    """A backend whose process dies before its n-th request that changes something."""

    def __init__(self, backend: Backend, dies_before: int) -> None:
        self.backend, self.left = backend, dies_before
        self.get, self.list, self.abandon = backend.get, backend.list, backend.abandon

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def put(self, name: str, data: bytes) -> None:
        self._count()
        self.backend.put(name, data)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._count()
            self.backend.delete([name])


def in_child(work: Callable[[], None]) -> int:
    """Run it in a process of its own; its exit status, negative for a signal. Ours never opens a connection."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a forked child must not go on as its parent
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(address: str, folder: Path) -> None:
    seen = folder / "seen"

    def look() -> None:
        manifest, files = open_store(address).files()
        numbers = {data.decode().split()[-1] for name, data in files.items() if name != "config.toml"}
        seen.write_text(json.dumps({"version": manifest.version, "numbers": sorted(numbers)}))

    def publish(dies_before: int) -> None:
        store = open_store(address)
        writer = Writer(folder / "run", Store(address, Mortal(store.backend, dies_before)))
        writer.publish(files_of(folder / "run"))
        writer.prune()

    for number in range(1, 5):  # so that there is something to prune
        make_run(folder / "run", number)
        assert in_child(partial(publish, 0)) == 0
    step, number, killed = 0, 4, True
    while killed:
        step, number = step + 1, number + 1
        make_run(folder / "run", number)
        killed = in_child(partial(publish, step)) == -signal.SIGKILL
        assert in_child(look) == 0
        print(json.dumps({"step": step, "killed": killed, "newest": str(number), **json.loads(seen.read_text())}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
