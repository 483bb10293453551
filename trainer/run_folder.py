"""A run on disk: complete, and never half written.

    RUN/config.toml            the run's configuration, resolved
    RUN/inputs/                tracks as .npy, reward_function.py, model_metadata.json, car.toml; deepracer/ as given
    RUN/versions.json          of Python and the packages that matter
    RUN/metrics.csv            a row for each update
    RUN/checkpoints/last.pt    to resume from; previous.pt is the one before
    RUN/checkpoints/best.pt    best by evaluation
    RUN/bundle.tar.gz          the best policy so far, for a car

For DeepRacer's tools (`trainer.trace_log`, `trainer.evaluation_log`):

    RUN/model/model_metadata.json, RUN/ip/hyperparameters.json
    RUN/training-simtrace/, RUN/metrics/, RUN/evaluation-YYYYMMDDHHMMSS/
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sim.car_spec import CarSpec, load_car
from sim.reward import RewardFunction, load_reward
from sim.track import Track, save_track
from trainer.config import RunConfig
from trainer.deepracer_hyperparameters import to_hyperparameters
from trainer.errors import RunError, RunStorageError
from trainer.run_files import saved_tracks
from vehicle.action_space import ActionSpace, load_action_space, to_metadata
from vehicle.config import load_toml, to_toml

_HEADER = b"hotlap-checkpoint 1 "
_PACKAGES = ("hotlap", "numpy", "torch", "mujoco", "numba", "onnxruntime", "opencv-python")


class RunFolder:
    """The files of one run. All writes go to a temporary name, are synced, and replace in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle.tar.gz"
        self.metrics = path / "metrics.csv"

    # -- creating and opening ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        tracks: Sequence[Track],
        reward: RewardFunction,
        space: ActionSpace,
        car: CarSpec,
        originals: Mapping[str, bytes] | None = None,
    ) -> RunFolder:
        """Make a new run folder; ``originals`` are DeepRacer's files that it was made from, by name.

        Raises:
            RunError: there is a run already; RunStorageError: it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} exists already and is not empty",
                cause="an earlier run went there",
                next_step=f"go on with it: hotlap train --resume --out {path}; or choose another --out",
            )
        run = cls(path)
        run._guard(lambda: (path / "inputs").mkdir(parents=True, exist_ok=True))
        run._guard(lambda: (path / "checkpoints").mkdir(exist_ok=True))
        for index, track in enumerate(tracks):
            run._guard(lambda t=track, i=index: save_track(t, path / "inputs" / f"{i:02d}-{Path(t.name).name}.npy"))
        run.write("inputs/reward_function.py", reward.source.encode())
        run.write("inputs/model_metadata.json", json.dumps(to_metadata(space, config.network), indent=1).encode())
        run.write("inputs/car.toml", to_toml(car).encode())
        run._write_for_deepracer(config, space, originals or {})
        run.write("versions.json", json.dumps(versions(), indent=1).encode())
        # Last, since a folder with it counts as a run.
        run.write("config.toml", to_toml(config).encode())
        return run

    def _write_for_deepracer(self, config: RunConfig, space: ActionSpace, originals: Mapping[str, bytes]) -> None:
        for name in (*(["inputs/deepracer"] if originals else []), "model", "ip"):
            self._guard(lambda n=name: (self.path / n).mkdir(exist_ok=True))
        for name, data in originals.items():
            self.write(f"inputs/deepracer/{name}", data)
        self.write("model/model_metadata.json", json.dumps(to_metadata(space, config.network), indent=1).encode())
        own = json.dumps(to_hyperparameters(config), indent=1).encode()
        self.write("ip/hyperparameters.json", originals.get("hyperparameters.json", own))

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            RunError: there is none.
        """
        if not (path / "config.toml").is_file():
            raise RunError(
                f"{path} is not a run: it has no config.toml",
                cause="a wrong path, or a run that was stopped before it began",
                next_step=("remove it, then " if path.exists() else "") + f"hotlap train --track NAME --out {path}",
            )
        return cls(path)

    def config(self) -> RunConfig:
        """The configuration the run was made with."""
        return load_toml(self.path / "config.toml", RunConfig)

    def tracks(self) -> list[Track]:
        """The run's tracks, in order."""
        tracks = saved_tracks(self.path)
        if not tracks:
            raise RunError(f"{self.path}/inputs holds no track", next_step="start a new run with --track NAME")
        return tracks

    def reward(self) -> RewardFunction:
        """The run's reward function."""
        return load_reward(self.path / "inputs" / "reward_function.py")

    def action_space(self) -> ActionSpace:
        """The run's action space."""
        return load_action_space(self.path / "inputs" / "model_metadata.json")

    def car(self) -> CarSpec:
        """The run's car."""
        return load_car(self.path / "inputs" / "car.toml")

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Put ``data`` at RUN/name, whole or not at all.

        Raises:
            RunStorageError: the disk is full or does not let us; the file that was there is untouched.
        """
        target = self.path / name
        temporary = target.with_name(f".{target.name}.tmp")

        def work() -> None:
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

        self._guard(work)

    def _guard(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            raise RunStorageError(
                f"cannot write to the run folder {self.path}: {error.strerror or error}",
                cause="a full disk, or a folder without write permission; what was saved before is intact",
                next_step=f"make room, then hotlap train --resume --out {self.path}",
            ) from error

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, state: dict[str, Any], name: str = "last") -> None:
        """Write RUN/checkpoints/name.pt; the last one becomes previous.pt."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        last = self.path / "checkpoints" / "last.pt"
        if name == "last" and last.exists():
            previous = last.with_name("previous.pt")
            spare = last.with_name(".previous.tmp")

            def keep() -> None:
                spare.unlink(missing_ok=True)
                os.link(last, spare)  # a second name, so that last.pt exists at every moment
                os.replace(spare, previous)

            self._guard(keep)
        self.write(f"checkpoints/{name}.pt", _HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return any((self.path / "checkpoints" / name).exists() for name in ("last.pt", "previous.pt"))

    def load_checkpoint(self, name: str = "last") -> dict[str, Any]:
        """Read RUN/checkpoints/name.pt.

        Raises:
            RunError: it is not there, or damaged.
        """
        path = self.path / "checkpoints" / f"{name}.pt"
        if not path.is_file():
            raise RunError(
                f"there is no checkpoint at {path}",
                cause="the run was stopped before its first one",
                next_step="remove the folder and start again",
            )
        data = path.read_bytes()
        head, _, payload = data.partition(b"\n")
        previous = path.with_name("previous.pt")
        way_out = f"mv {previous} {path}, then hotlap train --resume --out {self.path}" if previous.exists() else ""
        if head != _HEADER + hashlib.sha256(payload).hexdigest().encode():
            raise RunError(
                f"the checkpoint {path} is damaged: its sha256 does not match ({len(data)} bytes)",
                cause="a disk error, or a file that was changed or cut",
                next_step=way_out or "remove the folder and start again",
            )
        try:
            state = torch.load(io.BytesIO(payload), weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
            raise RunError(f"the checkpoint {path} cannot be read: {error}", next_step=way_out) from error
        assert isinstance(state, dict)
        return state

    # -- metrics ----------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, float]]:
        """The metrics written so far; an empty cell is left out."""
        if not self.metrics.exists():
            return []
        with open(self.metrics, newline="") as file:
            return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(file)]

    def write_metrics(self, rows: Sequence[dict[str, float]], columns: Sequence[str]) -> None:
        """Replace the metrics by ``rows``."""
        self.write("metrics.csv", metrics_text(rows, columns).encode())


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def metrics_text(rows: Sequence[dict[str, float]], columns: Sequence[str], header: bool = True) -> str:
    """Rows as metrics.csv has them; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows({k: "" if v != v else f"{v:.10g}" for k, v in row.items()} for row in rows)
    return text.getvalue()
