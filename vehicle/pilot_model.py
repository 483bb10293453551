"""Where the pilot's model comes from, and who is told how the drive went: a file, or the store's active slot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vehicle.bundle import Bundle, read_bundle
from vehicle.errors import SlotError

if TYPE_CHECKING:
    from vehicle.slots import ModelStore


class ModelSource(Protocol):
    """What gives the pilot a model. The last three are to be called at most once each time a model was loaded."""

    def load(self) -> tuple[Bundle, bool]:
        """A checked bundle, and whether it is on trial.

        Raises:
            BundleError: the bundle is not good.
            SlotError: there is no model, or the store cannot be used.
        """
        ...

    def proved_healthy(self) -> None:
        """The drive goes well: a trial is over."""
        ...

    def crashed(self) -> None:
        """The drive ended by an error that may be the model's."""
        ...

    def ended(self) -> None:
        """The drive was ended on purpose."""
        ...


class FileModel:
    """A bundle by its path; how its drive went is the affair of whoever named it.

    Args:
        sha256: what the file must hash to, or "".
    """

    def __init__(self, path: Path, sha256: str, trial: bool) -> None:
        self._path, self._sha256, self._trial = path, sha256, trial

    def load(self) -> tuple[Bundle, bool]:
        """See `ModelSource`."""
        bundle = read_bundle(self._path)
        _check_hash(bundle, self._sha256)
        return bundle, self._trial

    def proved_healthy(self) -> None:
        """Nothing to tell."""
        self._trial = False

    def crashed(self) -> None:
        """Nothing to tell."""

    def ended(self) -> None:
        """Nothing to tell."""


class StoredModel:
    """The model that the store says is to drive (`ModelStore.begin_boot`)."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._sha256 = ""
        self._told = True

    def load(self) -> tuple[Bundle, bool]:
        """See `ModelSource`. The drive with the model before it, if there was one, has ended."""
        self.ended()
        active = self._store.begin_boot()
        if active is None:
            raise SlotError(
                "no_model",
                f"there is no active model in {self._store.root}",
                next_step="hotlap models install BUNDLE, then hotlap models activate SHA",
            )
        self._sha256, self._told = active.sha256, False
        bundle = read_bundle(active.bundle_path)
        _check_hash(bundle, active.sha256)
        return bundle, active.trial

    def proved_healthy(self) -> None:
        """Commit it. May wait for the disk."""
        if not self._told:
            self._store.proved_healthy(self._sha256)
            self._told = True

    def crashed(self) -> None:
        """Count it against a model on trial."""
        if not self._told:
            self._told = True
            self._store.crashed(self._sha256)

    def ended(self) -> None:
        """Count it neither for nor against."""
        if not self._told:
            self._told = True
            self._store.ended(self._sha256)


def _check_hash(bundle: Bundle, sha256: str) -> None:
    if sha256 and bundle.sha256 != sha256:
        raise SlotError(
            "changed",
            f"{bundle.path} has sha256 {bundle.sha256}, not {sha256}",
            cause="the file was replaced after it was checked",
            next_step="hotlap models install BUNDLE again",
        )
