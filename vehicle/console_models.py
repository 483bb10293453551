"""The models of the car, as the console shows and changes them: names beside hashes, and the pilot told."""

from __future__ import annotations

import contextlib
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibration.car_link import CarRefused
from calibration.durable import make_folders, write_durably
from calibration.mapping import Calibration
from vehicle.car_config import CarConfig
from vehicle.contract import CONTRACT_NAME
from vehicle.errors import SlotError
from vehicle.slot_install import install_bundle
from vehicle.slot_state import SlotState, is_sha256
from vehicle.slots import ModelStore

RELOAD_TIMEOUT_S = 30.0  # ONNX Runtime from a cold card
MAX_NAME = 64
_MAX_CONTRACT_BYTES = 1 << 20


class ConsoleModels:
    """The model store of one car for several threads.

    Args:
        folder: of the console, for the names that models were uploaded under.
        is_armed: asked before every change.
        reload: tells the pilot to load what is active now; raises CarRefused.
    """

    def __init__(
        self, config: CarConfig, folder: Path, is_armed: Callable[[], bool], reload: Callable[[], dict[str, Any]]
    ) -> None:
        self._config, self._reload = config, reload
        self._store = ModelStore(config.state_path() / "models", is_armed=is_armed)
        self._names_path = folder / "names.json"
        self._contracts: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._installing = threading.Lock()

    def listing(self) -> dict[str, Any]:
        """The models, the last one installed first, with who drives, who is barred, and the store's notice.

        Raises:
            CarRefused: storage.
        """
        try:
            models, state = self._store.list(), self._store.state()
        except SlotError as error:
            raise _refused(error) from error
        names = self._names()
        rows = [
            {
                **vars(model),
                "name": names.get(model.sha256, model.sha256[:12]),
                "contract": self._contract(model.sha256),
            }
            for model in models
        ]
        return {"models": rows, **state.roles()}

    def bundle(self, sha256: str) -> Path:
        """The archive of an installed model.

        Raises:
            CarRefused: no_model, not_installed.
        """
        if not sha256:
            raise CarRefused(
                "no_model",
                "the pilot has no model loaded",
                cause="no model is chosen, or the pilot does not run",
                next_step="choose one on the Models page",
            )
        path = self._store.bundle_path(sha256)
        if not is_sha256(sha256) or not path.is_file():
            raise CarRefused(
                "not_installed",
                f"the model that drives, {sha256[:12]}, is not in the car's store",
                cause="it was removed, or the pilot was started with a file",
                next_step="upload it on the Models page",
            )
        return path

    def install(self, bundle: Path, name: str, calibration: Calibration | None) -> dict[str, Any]:
        """Verify and take in; one at a time.

        Raises:
            CarRefused: the bundle's fault, or the store's.
        """
        if not self._installing.acquire(blocking=False):
            raise CarRefused("busy", "another model is being checked", next_step="wait for it, then try again")
        try:
            done = install_bundle(self._store, bundle, self._config, calibration)
        except SlotError as error:
            raise _refused(error, bundle) from error
        finally:
            self._installing.release()
        named = self._name(done.sha256, name)
        return {"sha256": done.sha256, "new": done.new, "name": named, "report": done.report}

    def activate(self, sha256: str) -> dict[str, Any]:
        """Choose a model and have the pilot load it.

        Raises:
            CarRefused: the store's fault. That the pilot does not run or refuses is no fault: see "loaded".
        """
        return self._changed(sha256, self._store.activate)

    def rollback(self) -> dict[str, Any]:
        """Back to the model before; as `activate`."""
        try:
            state = self._store.rollback()
        except SlotError as error:
            raise _refused(error) from error
        return {**state.roles(), **self._load()}

    def remove(self, sha256: str) -> dict[str, Any]:
        """Delete one.

        Raises:
            CarRefused: the store's fault.
        """
        return self._changed(sha256, self._store.remove, load=False)

    def allow(self, sha256: str) -> dict[str, Any]:
        """Let a barred one in again.

        Raises:
            CarRefused: the store's fault.
        """
        return self._changed(sha256, self._store.allow, load=False)

    def _changed(self, sha256: str, change: Callable[[str], SlotState], load: bool = True) -> dict[str, Any]:
        if not is_sha256(sha256):
            raise CarRefused("not_installed", "a model is named by its whole sha256", next_step="GET /api/v1/models")
        try:
            state = change(sha256)
        except SlotError as error:
            raise _refused(error) from error
        return {"sha256": sha256, **state.roles(), **(self._load() if load else {})}

    def _load(self) -> dict[str, Any]:
        try:
            self._reload()
        except CarRefused as refused:
            return {"loaded": False, "pilot": refused.what + (f"; {refused.cause}" if refused.cause else "")}
        return {"loaded": True, "pilot": "loaded"}

    # --- what the store does not know

    def _names(self) -> dict[str, str]:
        try:
            found = json.loads(self._names_path.read_text())
        except (OSError, ValueError):
            return {}  # names are for people; models are known by their hashes
        return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}

    def _name(self, sha256: str, name: str) -> str:
        shown = "".join(c for c in name.removesuffix(".gz").removesuffix(".tar") if c.isprintable())[:MAX_NAME].strip()
        with self._lock:
            names = self._names()
            if not shown:
                return names.get(sha256, sha256[:12])
            names[sha256] = shown
            with contextlib.suppress(OSError, SlotError):
                installed = {model.sha256 for model in self._store.list()}
                make_folders(self._names_path.parent)
                kept = {k: v for k, v in names.items() if k in installed}
                write_durably(self._names_path, json.dumps(kept, indent=2).encode())
        return shown

    def _contract(self, sha256: str) -> dict[str, Any] | None:
        """What the bundle says of itself, which was checked when it came in."""
        if sha256 not in self._contracts:
            try:
                with tarfile.open(self._store.bundle_path(sha256)) as archive:
                    member = archive.extractfile(CONTRACT_NAME)
                    self._contracts[sha256] = json.loads(member.read(_MAX_CONTRACT_BYTES) if member else b"{}")
            except (OSError, KeyError, ValueError, EOFError, tarfile.TarError):
                return None
        return self._contracts[sha256]


def _refused(error: SlotError, bundle: Path | None = None) -> CarRefused:
    """Without the path of the upload, which says nothing to anybody."""
    what = error.what.removeprefix(f"{error.fault}: ")
    if bundle is not None:
        what = what.replace(str(bundle), "the file")
    return CarRefused(error.fault, what, cause=error.cause, next_step=error.next_step)
