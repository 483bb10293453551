"""Compile the simulator's inner loops once, at set-up, so that the first training does not wait for it.

numba keeps the machine code beside the sources (`__pycache__`); where that folder cannot be written, every process
compiles anew, which costs some ten seconds.
"""

from __future__ import annotations

import numpy as np

from sim.batch_env import BatchEnv
from sim.camera import RoadCamera
from sim.camera_kernel import BOX_COLUMNS
from sim.track import load_track
from sim.world import Randomisation


def main() -> None:
    """Drive two cars for a step, with everything that is drawn switched on."""
    env = BatchEnv([load_track("first_oval")], 2, randomise=Randomisation(looks=1), threads=1)
    try:
        env.reset()
        assert isinstance(env.camera, RoadCamera)
        env.camera.boxes = np.ones((2, 1, BOX_COLUMNS))
        env.camera.box_counts[:] = 1
        env.step(np.zeros(2, dtype=np.int64))
        env.state()
    finally:
        env.close()


if __name__ == "__main__":
    main()
