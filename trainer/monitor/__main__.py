"""The page beside a training: see `trainer.monitor.command.Beside`."""

import sys

from trainer.monitor.command import beside

if __name__ == "__main__":
    sys.exit(beside(sys.argv[1:]))
