"""A published run, as a reader sees it: a manifest that names every object by its sha256.

    PREFIX/manifest.json             the newest version; the only object that is ever replaced
    PREFIX/versions/NNNNNNNN.json    the newest versions' manifests, which keep their objects from being pruned
    PREFIX/objects/SHA256            files of the run, under the name of their content

The objects are written first, the manifest last: whoever reads a manifest finds a whole model, and each object's hash
is checked. Reading is here and not in the trainer's room, since ``hotlap flash`` and a car read as well; writing is in
``trainer.store``.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vehicle.config import parse_json
from vehicle.errors import ConfigError, StoreError
from vehicle.store_backends import REQUEST_TIMEOUT_S, Backend, FolderBackend, S3Backend

MANIFEST = "manifest.json"
FORMAT = "hotlap-run 1"
BUNDLE = "bundle.tar.gz"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READS = 3  # of a manifest whose objects are pruned while they are read


@dataclass(frozen=True)
class Entry:
    """A file of a run: what it holds, by hash, and its size."""

    sha256: str
    size_bytes: int

    @property
    def object(self) -> str:
        return f"objects/{self.sha256}"


@dataclass(frozen=True)
class Manifest:
    """One version of a run.

    Args:
        version: counts up from 1.
        writer: who published it, a random name of the run folder's copy.
        files: by their path in the run folder.
    """

    version: int
    writer: str
    files: Mapping[str, Entry] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As it is stored."""
        files = {name: {"sha256": e.sha256, "size_bytes": e.size_bytes} for name, e in sorted(self.files.items())}
        content = {"format": FORMAT, "version": self.version, "writer": self.writer, "files": files}
        return json.dumps(content, indent=1).encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from a store. Raises StoreError ``damaged``: it may come from anywhere, and is taken for nothing."""
    try:
        content = parse_json(data, where=where)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        files = {_safe(name): _entry(value) for name, value in dict(content["files"]).items()}
        return Manifest(int(content["version"]), str(content["writer"]), files)
    except (ConfigError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "damaged",
            f"{where} is no manifest of a run: {error}",
            cause="another program's file, or another version of hotlap",
            next_step="check the address; a run is published with hotlap train --store",
        ) from error


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        raise ValueError(f"the file name {name!r}")
    return name


def _entry(value: Any) -> Entry:
    sha256, size = value["sha256"], value["size_bytes"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or not isinstance(size, int) or size < 0:
        raise ValueError(f"the entry {value!r}")
    return Entry(sha256, size)


class Store:
    """A run's place in a store.

    Args:
        address: ``s3://bucket/prefix`` or a folder; for messages.
        backend: where its objects are.
    """

    def __init__(self, address: str, backend: Backend) -> None:
        self.address, self.backend = address, backend

    def manifest(self) -> Manifest | None:
        """The newest version; None where nothing was published yet. Raises StoreError."""
        try:
            data = self.backend.get(MANIFEST)
        except StoreError as error:
            if error.fault == "missing":
                return None
            raise
        return parse_manifest(data, f"{self.address}/{MANIFEST}")

    def published(self) -> Manifest:
        """The newest version. Raises StoreError ``missing`` where nothing was published."""
        manifest = self.manifest()
        if manifest is None:
            raise StoreError(
                "missing",
                f"there is no run at {self.address}",
                cause="a wrong address, or a training that has not published anything yet",
                next_step=f"hotlap train --track NAME --out RUN --store {self.address}",
            )
        return manifest

    def read(self, entry: Entry) -> bytes:
        """A file's content, its hash checked. Raises StoreError."""
        return _checked(self.backend.get(entry.object), entry.sha256, f"{self.address}/{entry.object}")

    def files(self, names: Mapping[str, bool] | None = None) -> tuple[Manifest, dict[str, bytes]]:
        """Files of one version, all of the same.

        Args:
            names: which, and whether each must be there; None is every file.

        Raises:
            StoreError: ``missing`` or ``damaged`` or any fault of the store.
        """
        for attempt in range(1, _READS + 1):
            manifest = self.published()
            wanted = dict.fromkeys(manifest.files, True) if names is None else names
            for name, needed in wanted.items():
                if needed and name not in manifest.files:
                    raise StoreError(
                        "missing",
                        f"the run at {self.address} has no {name} yet (version {manifest.version})",
                        cause="it was published before its first evaluation",
                        next_step="wait for the training's next version",
                    )
            try:
                read = {name: self.read(manifest.files[name]) for name in wanted if name in manifest.files}
                return manifest, read
            except StoreError as error:
                # Pruned while it was read, if there is a newer version by now.
                if error.fault != "missing" or attempt == _READS or self.manifest() == manifest:
                    raise
        raise AssertionError("unreachable")


def is_url(address: object) -> bool:
    """Whether this is an address of a store's server, not a path."""
    return "://" in str(address)


def open_store(address: str | Path, timeout_s: float = REQUEST_TIMEOUT_S) -> Store:
    """The store at ``s3://bucket/prefix``, ``file:///folder`` or a folder's path. Nothing is asked of it yet.

    Args:
        timeout_s: of one request.

    Raises:
        StoreError: ``bad_address`` or ``not_installed``.
    """
    text = str(address)
    if not is_url(text):
        return Store(text, FolderBackend(Path(text)))
    scheme, _, rest = text.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return Store(text, FolderBackend(Path(rest)))
    bucket, _, prefix = rest.rstrip("/").partition("/")
    parts = prefix.split("/") if prefix else []
    if scheme != "s3" or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket) or any(p in ("", ".", "..") for p in parts):
        raise StoreError(
            "bad_address", f"{text!r} is not an address of a store", next_step="write s3://bucket/prefix, or a folder"
        )
    return Store(text.rstrip("/"), S3Backend(bucket, prefix, timeout_s))


@contextmanager
def local_bundle(address: str | Path | None) -> Iterator[Path | None]:
    """A bundle as a file: of a path, of a run folder, of a published run, or of a bundle in a store.

    What comes from a store lies in a temporary folder until the block is left. A file's path comes back as it is, also
    where nothing is there: whoever reads it says so.

    Raises:
        StoreError: what the address names cannot be read.
    """
    if address is None or not is_url(address):
        path = None if address is None else Path(address)
        if path is None or not path.is_dir():
            yield path
            return
        if not (path / MANIFEST).is_file():
            yield path / BUNDLE
            return
    with tempfile.TemporaryDirectory(prefix="hotlap-bundle-") as folder:
        name, data = _bundle(str(address).rstrip("/"))
        target = Path(folder) / name
        target.write_bytes(data)
        yield target


def _bundle(address: str) -> tuple[str, bytes]:
    """A name for people and the bundle's bytes."""
    parent, _, last = address.rpartition("/")
    if is_url(address) and is_url(parent):
        if last.endswith(".gz"):
            store = open_store(parent)
            manifest = store.manifest()
            if manifest is not None and last in manifest.files:
                return last, store.files({last: True})[1][last]
            return last, store.backend.get(last)
        if _SHA256.fullmatch(last):
            return f"{last[:12]}.tar.gz", _checked(open_store(parent).backend.get(last), last, address)
    return f"{last}.tar.gz", open_store(address).files({BUNDLE: True})[1][BUNDLE]


def _checked(data: bytes, sha256: str, where: str) -> bytes:
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise StoreError(
            "damaged",
            f"{where} is damaged: its sha256 is {actual[:16]}... ({len(data)} bytes)",
            cause="it was changed or cut in the store",
            next_step="publish the run again into an empty prefix: hotlap train --resume --out RUN --store NEW",
        )
    return data
