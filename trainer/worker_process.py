"""A rollout worker as a process: ``hotlap worker`` for people, ``python -m trainer.worker_process`` for the fleet."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
from collections.abc import Mapping

from trainer.errors import TrainerError
from trainer.experience import address_from_environment, worker_end
from trainer.rollout import work
from vehicle.errors import HotlapError
from vehicle.parent import end_with_parent

STATUS_BAD_INPUT = 2


def worker_command(args: argparse.Namespace) -> int:
    """``hotlap worker``: drive for the learner behind a buffer until its run is over."""
    address = args.buffer or address_from_environment()
    if not address:
        raise TrainerError(
            "a worker needs a buffer to drive for", next_step="hotlap worker --buffer redis://:PASSWORD@HOST:6379/0"
        )
    number = args.number if args.number is not None else secrets.randbelow(1 << 20) + 1000
    print(f"hotlap: worker {number} waits for a run", file=sys.stderr, flush=True)
    done: Mapping[str, int] = work(worker_end(address), number, threads=args.threads)
    text = f"worker {number}: {done['steps']} steps in {done['segments']} segments; the run is over"
    print(json.dumps({"worker": number, **done}) if args.json else text)
    return 0


def main() -> int:
    """A worker of a fleet: NUMBER THREADS; an error goes to stdout as JSON."""
    number, threads = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training's, which ends us in order
    end_with_parent()
    try:
        address = address_from_environment()
        assert address is not None
        work(worker_end(address), number, threads=threads)
    except HotlapError as error:
        print(json.dumps({"what": error.what, "cause": error.cause, "next": error.next_step}), flush=True)
        return STATUS_BAD_INPUT
    except (EOFError, ConnectionError):
        return 0  # the learner has gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
