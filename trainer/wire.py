"""Frames that cross a process or a network: arrays and a little JSON as an npz with a checksum, never pickle."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import FrameError

Arrays = dict[str, NDArray[Any]]
MAX_FRAME_BYTES = 256 << 20
_META = "_meta"
_MAX_META_BYTES = 1 << 16


def seal(kind: str, meta: Mapping[str, object], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One frame: a line with kind, version and sha256, then an npz that is not compressed."""
    buffer = io.BytesIO()
    words = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(buffer, **{_META: words}, **arrays)  # type: ignore[arg-type]
    payload = buffer.getvalue()
    return _head(kind, payload) + payload


def _head(kind: str, payload: bytes) -> bytes:
    return f"hotlap-{kind} 1 {hashlib.sha256(payload).hexdigest()}\n".encode()


def unseal(kind: str, data: bytes, limit: int = MAX_FRAME_BYTES) -> tuple[dict[str, Any], Arrays]:
    """The reverse of ``seal``.

    Raises:
        FrameError: another kind or version, damaged, larger than ``limit`` bytes, or anything but plain arrays.
    """
    if len(data) > limit:
        raise FrameError(f"a {kind} of {len(data)} bytes: at most {limit} are taken")
    payload = data[data.find(b"\n", 0, 200) + 1 :]
    if data[: len(data) - len(payload)] != _head(kind, payload):
        raise FrameError(
            f"{len(data)} bytes that are no whole {kind} of version 1: {bytes(data[:24])!r}",
            cause="another version of hotlap at the other end, a cut transfer, or something else writes there",
        )
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            members = archive.infolist()
        # Stored, so that what it unpacks to is no larger than what came.
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > limit:
            raise FrameError(f"a {kind} whose arrays are compressed, or larger than {limit} bytes")
        with np.load(io.BytesIO(payload), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        words = arrays.pop(_META)
        if words.dtype != np.uint8 or words.ndim != 1 or len(words) > _MAX_META_BYTES:
            raise FrameError(f"a {kind} whose description is no text")
        meta = json.loads(words.tobytes())
    except (ValueError, KeyError, OSError, EOFError, RecursionError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(f"a {kind} that cannot be read: {error}") from error
    if not isinstance(meta, dict):
        raise FrameError(f"a {kind} whose description is {type(meta).__name__}, not an object")
    return meta, arrays
