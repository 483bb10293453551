"""The bundle: a policy as one ``NAME.tar.gz`` that a car can check on its own before it drives with it.

Members: ``policy.onnx``, ``model_metadata.json`` (DeepRacer's schema), ``contract.json`` (`vehicle.contract`) and
``golden.npz`` (input frames and the outputs they must give). A bundle comes over the network, so it is read with
caps, in memory, and nothing is ever unpacked to disk. `vehicle.contract.FAULTS` lists what `BundleError.fault` can be.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import secrets
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vehicle import contract as c
from vehicle.action_space import (
    ActionSpace,
    DiscreteActionSpace,
    action_space_from_metadata,
    to_metadata,
)
from vehicle.config import parse_json
from vehicle.contract import FAULTS, ActionLimits, Contract
from vehicle.errors import ActionSpaceError, BundleError, ConfigError
from vehicle.observation import SHAPE
from vehicle.policy import OUTPUT_TOLERANCE, check_graph, open_session, range_excess, run_graph

__all__ = ["FAULTS", "GOLDEN_TOLERANCE", "Bundle", "BundleError", "check_bundle", "read_bundle", "write_bundle"]

MAX_FILE_BYTES = 64 * 2**20  # DeepRacer's largest network is about 23 MB
MAX_UNPACKED_BYTES = 96 * 2**20  # held in memory, on a car with 1 GB
MAX_MEMBER_BYTES = {
    c.ONNX_NAME: 64 * 2**20,
    c.METADATA_NAME: 2**20,
    c.CONTRACT_NAME: 2**20,
    c.GOLDEN_NAME: 16 * 2**20,
}
MAX_GOLDEN_FRAMES = 256
# Greatest difference from a golden output, in units of the output's range: 1 for a probability.
GOLDEN_TOLERANCE = 1e-3
_REPLAY_BATCH = 16

_DAMAGED = "damaged on the way, or the copy was cut short"
_AGAIN = "copy the bundle again, or export it again with hotlap export"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has passed every check. `sha256` is the file's, in hex; golden frames are uint8 (k,120,160,1)."""

    path: Path
    sha256: str
    onnx_model: bytes
    action_space: ActionSpace
    metadata: dict[str, Any]
    contract: Contract
    golden_frames: npt.NDArray[np.uint8]
    golden_outputs: npt.NDArray[np.float32]


def write_bundle(
    path: str | os.PathLike[str],
    *,
    onnx_model: bytes,
    action_space: ActionSpace,
    neural_network: str,
    contract: Contract,
    golden_frames: npt.NDArray[np.uint8],
    golden_outputs: npt.NDArray[np.float32],
) -> Bundle:
    """Write a bundle atomically, after checking it as a car would; the same input gives the same bytes.

    Args:
        path: where to; an existing file is replaced in one step, or left alone when anything goes wrong.
        neural_network: the name for ``model_metadata.json``.
        contract: its `files` are filled in here.
        golden_frames: uint8 (k, 120, 160, 1).
        golden_outputs: float32 (k, A) or (k, 2), what the graph gives for them.

    Raises:
        BundleError: the parts do not fit each other; any fault of `read_bundle` but those of the file itself.
        OSError: the folder cannot be written to, or the disk is full.
    """
    target = Path(path)
    members = {
        c.ONNX_NAME: onnx_model,
        c.METADATA_NAME: _json(to_metadata(action_space, neural_network)),
        c.GOLDEN_NAME: _pack_golden(golden_frames, golden_outputs),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    members[c.CONTRACT_NAME] = replace(contract, files=hashes).to_json().encode()
    archive = _pack(members)
    bundle = _checked(target, archive, replay_golden=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(target.parent)
    return bundle


def read_bundle(path: str | os.PathLike[str], *, replay_golden: bool = True) -> Bundle:
    """Read a bundle and refuse it unless every check passes.

    Args:
        path: the ``.tar.gz``.
        replay_golden: run the golden frames through the graph here and compare. Without it the graph is still
            loaded and its input and output are checked.

    Raises:
        BundleError: `fault` is one of `FAULTS`.
    """
    source = Path(path)
    try:
        if not source.is_file():  # a pipe would block, a folder cannot be read
            raise FileNotFoundError(2, "a folder or device" if source.exists() else "no such file")
        with open(source, "rb") as file:
            archive = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(
            c.MISSING_FILE, f"{source}: {reason}", next_step="check the path; hotlap train writes RUN/bundle.tar.gz"
        ) from error
    if len(archive) > MAX_FILE_BYTES:
        raise _too_large(f"{source} is larger than {MAX_FILE_BYTES} bytes")
    return _checked(source, archive, replay_golden=replay_golden)


def check_bundle(path: str | os.PathLike[str], *, replay_golden: bool = True) -> Bundle:
    """`read_bundle` under the name of what it is for: raises `BundleError` unless the car may use this bundle."""
    return read_bundle(path, replay_golden=replay_golden)


def _checked(path: Path, archive: bytes, *, replay_golden: bool) -> Bundle:
    members = _unpack(archive)
    contract = _contract(members[c.CONTRACT_NAME])
    for name in c.HASHED_NAMES:
        actual = hashlib.sha256(members[name]).hexdigest()
        if contract.files[name] != actual:
            raise BundleError(
                c.SHA256_MISMATCH,
                f"{name} has sha256 {actual}, {c.CONTRACT_NAME} says {contract.files[name]}",
                cause="a member was replaced after the export",
                next_step=_AGAIN,
            )
    metadata, space = _metadata(members[c.METADATA_NAME])
    if ActionLimits.of(space) != contract.action:
        raise BundleError(
            c.ACTION_SPACE_MISMATCH,
            f"{c.METADATA_NAME} has {ActionLimits.of(space)}, {c.CONTRACT_NAME} has {contract.action}",
            cause="the contract was made for another action space",
            next_step="export graph and action space from the same run",
        )
    session = open_session(members[c.ONNX_NAME])
    check_graph(session, space)
    frames, outputs = _unpack_golden(members[c.GOLDEN_NAME])
    _check_golden_values(space, outputs)
    if replay_golden:
        for start in range(0, len(frames), _REPLAY_BATCH):
            part = slice(start, start + _REPLAY_BATCH)
            _compare(space, run_graph(session, frames[part]), outputs[part], start)
    digest = hashlib.sha256(archive).hexdigest()
    return Bundle(path, digest, members[c.ONNX_NAME], space, metadata, contract, frames, outputs)


# --- the archive


def _pack(members: dict[str, bytes]) -> bytes:
    """A .tar.gz without times, owners or file name in it, members in alphabetical order."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(members[name]), 0o644
            tar.addfile(info, io.BytesIO(members[name]))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as file:
        file.write(plain.getvalue())
    return packed.getvalue()


def _too_large(what: str) -> BundleError:
    return BundleError(c.TOO_LARGE, what, cause="not a hotlap bundle, or one made to fill the memory", next_step=_AGAIN)


def _unpack(archive: bytes) -> dict[str, bytes]:
    """The four members of a .tar.gz, after every check that does not look inside them."""
    inflate = zlib.decompressobj(wbits=31)  # 31: gzip header and checksum, nothing else
    try:
        plain = inflate.decompress(archive, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        raise BundleError(c.NOT_AN_ARCHIVE, f"not gzip: {error}", cause=_DAMAGED, next_step=_AGAIN) from error
    if len(plain) > MAX_UNPACKED_BYTES:
        raise _too_large(f"{len(archive)} bytes unpack to more than {MAX_UNPACKED_BYTES}")
    if not inflate.eof or inflate.unused_data:
        what = "the gzip data end early" if not inflate.eof else "there are other data after the gzip data"
        raise BundleError(c.NOT_AN_ARCHIVE, what, cause=_DAMAGED, next_step=_AGAIN)
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            return _members(tar)
    except BundleError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, IndexError, KeyError) as error:
        raise BundleError(c.NOT_AN_ARCHIVE, f"not tar: {error}", cause=_DAMAGED, next_step=_AGAIN) from error


def _members(tar: tarfile.TarFile) -> dict[str, bytes]:
    found: dict[str, tarfile.TarInfo] = {}
    for info in tar:
        name = _safe_name(info)
        if info.isdir():
            continue
        if name in found:
            raise _refused(info, "stands in the archive twice")
        found[name] = info
    if c.CONTRACT_NAME not in found:
        raise _foreign(list(found))
    for name in MAX_MEMBER_BYTES:
        if name not in found:
            raise BundleError(c.MISSING_MEMBER, f"{name} is not in the bundle", next_step=_AGAIN)
    data: dict[str, bytes] = {}
    for name, info in found.items():
        if name not in MAX_MEMBER_BYTES:
            raise _refused(info, "is no part of a bundle")
        if info.size > MAX_MEMBER_BYTES[name]:
            raise _too_large(f"{name} has {info.size} bytes (allowed: {MAX_MEMBER_BYTES[name]})")
        reader = tar.extractfile(info)
        data[name] = reader.read() if reader is not None else b""
        if len(data[name]) != info.size:
            raise BundleError(c.NOT_AN_ARCHIVE, f"{name} ends early", cause=_DAMAGED, next_step=_AGAIN)
    return data


def _safe_name(info: tarfile.TarInfo) -> str:
    """The member's name without a leading "./", or a refusal: plain files and folders inside the archive only."""
    parts = info.name.split("/")
    if info.name.startswith("/") or "\\" in info.name or ":" in parts[0] or "\0" in info.name:
        raise _refused(info, "is an absolute or foreign path")
    if ".." in parts:
        raise _refused(info, "leaves the archive")
    if not (info.isreg() or info.isdir()) or info.issparse():
        kind = "link" if info.islnk() or info.issym() else "device or other special file"
        raise _refused(info, f"is a {kind}")
    return "/".join(p for p in parts if p not in ("", "."))


def _refused(info: tarfile.TarInfo, why: str) -> BundleError:
    return BundleError(
        c.MEMBER_REFUSED,
        f"member {info.name[:100]!r} {why}",
        cause="packed by hand, or made to do harm",
        next_step="use a bundle that hotlap export wrote",
    )


def _foreign(names: list[str]) -> BundleError:
    deepracer = any(n.rsplit("/", 1)[-1].endswith((".pb", ".tflite")) or "agent" in n.split("/") for n in names)
    listed = ", ".join(repr(n[:60]) for n in names[:4]) or "nothing"
    if deepracer:
        return BundleError(
            c.FOREIGN,
            f"this is a DeepRacer model (it holds {listed})",
            cause="DeepRacer keeps a frozen TensorFlow graph; hotlap drives with ONNX and a contract",
            next_step="train anew with its actions and reward: hotlap train --action-space model_metadata.json "
            "--reward reward_function.py --track TRACK --out RUN",
        )
    return BundleError(
        c.FOREIGN,
        f"there is no {c.CONTRACT_NAME} in it (it holds {listed})",
        cause="an archive of something else",
        next_step="hotlap train writes RUN/bundle.tar.gz; give that file",
    )


# --- what the members say


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _contract(text: bytes) -> Contract:
    try:
        raw = parse_json(text, where=c.CONTRACT_NAME)
        if isinstance(raw, dict) and raw.get("format", c.FORMAT) != c.FORMAT:
            raise BundleError(
                c.FOREIGN,
                f"the contract's format is {raw['format']!r}, not {c.FORMAT!r}",
                cause="made by another program",
            )
        version = raw.get("version") if isinstance(raw, dict) else None
        if isinstance(version, int) and not isinstance(version, bool) and version != c.VERSION:
            raise BundleError(
                c.VERSION_UNSUPPORTED,
                f"the contract has version {version}, this hotlap knows {c.VERSION}",
                cause="exported by a newer hotlap",
                next_step="upgrade hotlap here, or export the bundle again with this one",
            )
        contract = Contract.from_json(text)
    except ConfigError as error:
        raise BundleError(c.CONTRACT_INVALID, error.what, cause=error.cause, next_step=error.next_step) from error
    if set(contract.files) != set(c.HASHED_NAMES):
        raise BundleError(
            c.CONTRACT_INVALID,
            f"files lists {sorted(contract.files)}, it must list {sorted(c.HASHED_NAMES)}",
            next_step=_AGAIN,
        )
    return contract


def _metadata(text: bytes) -> tuple[dict[str, Any], ActionSpace]:
    try:
        metadata = parse_json(text, where=c.METADATA_NAME)
        if not isinstance(metadata, dict) or "action_space" not in metadata:
            raise ActionSpaceError('it has no "action_space"')
        for key in ("neural_network", "training_algorithm", "version"):
            if not isinstance(metadata.get(key), str) or not metadata[key]:
                raise ActionSpaceError(f'"{key}" is {metadata.get(key)!r}, not text')
        sensor = metadata.get("sensor")
        if not isinstance(sensor, list) or len(sensor) != 1 or sensor[0] not in ("FRONT_FACING_CAMERA", "observation"):
            raise ActionSpaceError(f'"sensor" is {sensor!r}, a bundle drives with ["FRONT_FACING_CAMERA"]')
        return metadata, action_space_from_metadata(metadata)
    except (ConfigError, ActionSpaceError) as error:
        raise BundleError(
            c.METADATA_INVALID, f"{c.METADATA_NAME}: {error.what}", cause=error.cause, next_step=error.next_step
        ) from error


# --- golden vectors

_GOLDEN_DTYPES = {"frames": np.dtype(np.uint8), "outputs": np.dtype("<f4")}


def _pack_golden(frames: npt.NDArray[np.uint8], outputs: npt.NDArray[np.float32]) -> bytes:
    """An .npz that numpy.load reads; unlike numpy.savez it does not depend on the platform or the time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in (("frames", frames), ("outputs", outputs)):
            raw = io.BytesIO()
            little_endian = np.ascontiguousarray(array, dtype=np.asarray(array).dtype.newbyteorder("<"))
            np.lib.format.write_array(raw, little_endian, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, raw.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    return packed.getvalue()


def _unpack_golden(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {e.filename: e for e in archive.infolist()}
            if len(archive.infolist()) != 2 or set(entries) != {"frames.npy", "outputs.npy"}:
                raise ValueError(f"it holds {sorted(entries)[:4]}, not frames.npy and outputs.npy")
            frames = _read_npy(archive, entries["frames.npy"], "frames")
            outputs = _read_npy(archive, entries["outputs.npy"], "outputs")
        if not 1 <= len(frames) <= MAX_GOLDEN_FRAMES or frames.shape[1:] != SHAPE:
            raise ValueError(f"frames have shape {frames.shape}, not (1 to {MAX_GOLDEN_FRAMES}, 120, 160, 1)")
        if outputs.ndim != 2 or len(outputs) != len(frames) or not np.isfinite(outputs).all():
            raise ValueError(f"outputs {outputs.shape} are not finite or do not fit {len(frames)} frames")
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise BundleError(
            c.GOLDEN_INVALID, f"{c.GOLDEN_NAME}: {error}", cause="not written by hotlap export", next_step=_AGAIN
        ) from error
    return frames, outputs


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> npt.NDArray[Any]:
    """One array, its declared size checked before a byte is unpacked and its declared shape before one is allocated."""
    limit = MAX_GOLDEN_FRAMES * int(np.prod(SHAPE)) + 4096
    if entry.file_size > limit or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} unpacks to {entry.file_size} bytes (allowed: {limit})")
    raw = io.BytesIO(archive.read(entry))
    if np.lib.format.read_magic(raw) != (1, 0):
        raise ValueError(f"{entry.filename} is not version 1.0 of numpy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(raw)
    body = raw.read()
    if dtype != _GOLDEN_DTYPES[name] or fortran:
        raise ValueError(f"{name} are {dtype}, they must be {_GOLDEN_DTYPES[name]} in C order")
    if any(n < 0 for n in shape) or len(body) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} declare shape {shape} but hold {len(body)} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape)


def _check_golden_values(space: ActionSpace, outputs: npt.NDArray[np.float32]) -> None:
    if outputs.shape[1] != space.size:
        raise BundleError(
            c.GOLDEN_INVALID,
            f"golden outputs have {outputs.shape[1]} columns, the {space.kind} action space needs {space.size}",
            cause="golden vectors of another policy",
            next_step=_AGAIN,
        )
    if isinstance(space, DiscreteActionSpace):
        _check_probabilities(outputs)
    elif (range_excess(space, outputs) > OUTPUT_TOLERANCE).any():
        raise BundleError(
            c.GOLDEN_INVALID,
            f"golden outputs reach {np.abs(outputs).max(axis=0).tolist()} (deg, m/s), out of {space}",
            cause="the graph does not limit its output to the action space",
            next_step="clip inside the graph and export again",
        )


def _check_probabilities(outputs: npt.NDArray[Any]) -> None:
    sums = outputs.sum(axis=1, dtype=np.float64)
    if (outputs < -1e-6).any() or (np.abs(sums - 1.0) > OUTPUT_TOLERANCE).any():
        raise BundleError(
            c.PROBABILITIES_INVALID,
            f"outputs lie in {outputs.min():.6g} to {outputs.max():.6g} and rows add up to "
            f"{sums.min():.6g} to {sums.max():.6g}",
            cause="the graph gives logits: its last step, the softmax, is missing",
            next_step="export it again with hotlap export",
        )


def _compare(space: ActionSpace, here: npt.NDArray[Any], golden: npt.NDArray[np.float32], first: int) -> None:
    if here.ndim == 2 and here.shape[1] != space.size:
        raise BundleError(
            c.ACTION_SPACE_MISMATCH,
            f"the graph, run here, gives {here.shape[1]} values, the action space needs {space.size}",
            next_step="export graph and action space from the same run",
        )
    if here.shape != golden.shape:
        raise BundleError(c.ONNX_OUTPUT_MISMATCH, f"run here, the graph gives {here.shape} for {golden.shape}")
    span = np.ones(space.size)
    if not isinstance(space, DiscreteActionSpace):
        span = np.array([space.steering_high_deg - space.steering_low_deg, space.speed_high_mps - space.speed_low_mps])
    difference = np.abs(here.astype(np.float64) - golden) / span
    if not (difference <= GOLDEN_TOLERANCE).all():  # so written that NaN fails
        worst = int(np.flatnonzero(~(difference <= GOLDEN_TOLERANCE).all(axis=1))[0])
        raise BundleError(
            c.GOLDEN_MISMATCH,
            f"golden frame {first + worst}: the graph gives {here[worst].tolist()} here, {golden[worst].tolist()} at "
            f"export (allowed difference: {GOLDEN_TOLERANCE} of the range)",
            cause="the golden vectors belong to other weights, or ONNX Runtime computes differently on this processor",
            next_step="export again; if it stays, compare the versions in trained_on with hotlap doctor",
        )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; a system that cannot open folders has no such step."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
