"""A bundle is written whole and deterministically, and refused by the name of its fault."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from vehicle import bundle as bundle_module
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.bundle import Bundle, check_bundle, read_bundle, write_bundle
from vehicle.contract import FAULTS, contract_for
from vehicle.errors import BundleError
from vehicle.policy import OnnxPolicy, policy_from_bundle

Members = dict[str, bytes]
CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.1, 1.5)
NAMES = ["contract.json", "golden.npz", "model_metadata.json", "policy.onnx"]


def graph(
    width: int = 10,
    *,
    first: int = 0,
    last: str = "Softmax",
    input_type: int = TensorProto.UINT8,
    input_shape: tuple[str | int, ...] = ("N", 120, 160, 1),
    output_shape: tuple[str | int, ...] | None = None,
    outputs: int = 1,
    half: bool = False,
) -> bytes:
    """The means of `width` rows of a frame, 0..1, through `last`; the switches make it wrong."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["floats", "rows"], ["gathered"], axis=1),
        helper.make_node("Div", ["gathered", "full"], ["unit"]),
        helper.make_node("ReduceMean", ["unit"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node(last, ["means"], ["single"]),
        helper.make_node("Cast", ["single"], ["output"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
    ]
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [width], list(range(first, first + width))),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
    ]
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    results = [helper.make_tensor_value_info("output", kind, output_shape or ("N", width))]
    if outputs == 2:
        results.append(helper.make_tensor_value_info("means", TensorProto.FLOAT, ("N", width)))
    frames = helper.make_tensor_value_info("frames", input_type, input_shape)
    body = helper.make_graph(nodes, "policy", [frames], results, constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def golden_frames(k: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (k, 120, 160, 1), dtype=np.uint8)


def expected(frames: npt.NDArray[np.uint8], space: ActionSpace) -> npt.NDArray[np.float32]:
    """What `graph` must give, in numpy."""
    means = frames[:, : space.size, :, 0].astype(np.float64).mean(axis=2) / 255.0
    if space.kind == "continuous":
        return np.asarray(means, dtype=np.float32)
    powers = np.exp(means)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def write(path: Path, space: ActionSpace | None = None, **changes: Any) -> Bundle:
    space = space or default_action_space()
    frames = golden_frames()
    parts: dict[str, Any] = {
        "onnx_model": graph(space.size, last="Softmax" if space.kind == "discrete" else "Identity"),
        "action_space": space,
        "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW",
        "contract": contract_for(space, control_period_s=0.1, trained_on={"tracks": ["oval"], "seed": 1}),
        "golden_frames": frames,
        "golden_outputs": expected(frames, space),
    }
    return write_bundle(path, **{**parts, **changes})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "good.tar.gz"
    write(path)
    return path


def unpack(path: Path) -> Members:
    with tarfile.open(path, "r:gz") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def tar_of(*entries: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, data in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return plain.getvalue()


def pack(path: Path, members: Members, *, rehash: bool = True) -> Path:
    """A bundle of these members, with the contract's hashes made true again unless told not to."""
    if rehash and "contract.json" in members:
        contract = json.loads(members["contract.json"])
        for name in contract["files"]:
            contract["files"][name] = hashlib.sha256(members.get(name, b"")).hexdigest()
        members = {**members, "contract.json": json.dumps(contract).encode()}
    path.write_bytes(gzip.compress(tar_of(*members.items())))
    return path


def npz(**arrays: npt.NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    """Change a JSON member in place."""

    def apply(members: Members) -> Members:
        value = json.loads(members[name])
        change(value)
        return {**members, name: json.dumps(value).encode()}

    return apply


def put(name: str, data: bytes) -> Callable[[Members], Members]:
    return lambda members: {**members, name: data}


def fault_of(path: Path, **options: bool) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(path, **options)
    assert caught.value.fault in FAULTS
    assert str(caught.value).startswith(caught.value.fault + ": ")
    return caught.value.fault


# --- a good bundle


@pytest.mark.parametrize("space", [default_action_space(), CONTINUOUS])
def test_a_bundle_goes_round(tmp_path: Path, space: ActionSpace) -> None:
    path = tmp_path / "policy.tar.gz"
    written = write(path, space)
    bundle = read_bundle(path)
    assert bundle.action_space == space and bundle.contract == written.contract and bundle.path == path
    assert bundle.sha256 == written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.metadata["action_space_type"] == space.kind
    assert bundle.contract.files["policy.onnx"] == hashlib.sha256(bundle.onnx_model).hexdigest()
    np.testing.assert_array_equal(bundle.golden_frames, golden_frames())
    policy = policy_from_bundle(path)
    np.testing.assert_allclose(policy(golden_frames()), expected(golden_frames(), space), atol=1e-5)
    np.testing.assert_array_equal(OnnxPolicy(bundle).act(golden_frames()), policy.act(golden_frames()))
    assert check_bundle(path).sha256 == bundle.sha256


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "a.tar.gz")
    write(tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "b.tar.gz"]
    assert (tmp_path / "a.tar.gz").read_bytes()[4:8] == bytes(4)  # gzip's time
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in tar} == {(0, 0, "", 0o644)}


def test_ordinary_tools_can_open_it(good: Path) -> None:
    members = unpack(good)
    assert sorted(members) == NAMES
    with np.load(io.BytesIO(members["golden.npz"])) as golden:
        np.testing.assert_array_equal(golden["frames"], golden_frames())
    assert json.loads(members["model_metadata.json"])["action_space"][0] == {
        "steering_angle": -30.0,
        "speed": 0.4,
        "index": 0,
    }


def test_a_bundle_repacked_by_hand_is_still_good(good: Path, tmp_path: Path) -> None:
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    entries = [(f"./{name}", data) for name, data in unpack(good).items()]
    path = tmp_path / "repacked.tar.gz"
    path.write_bytes(gzip.compress(tar_of((folder, b""), *entries)))
    assert read_bundle(path).contract == read_bundle(good).contract


def test_parts_that_do_not_fit_are_refused_and_the_old_bundle_stays(tmp_path: Path) -> None:
    path = tmp_path / "policy.tar.gz"
    write(path)
    before = path.read_bytes()
    misfits: dict[str, dict[str, Any]] = {
        "golden_mismatch": {"golden_outputs": np.roll(expected(golden_frames(), default_action_space()), 1, axis=0)},
        "onnx_invalid": {"onnx_model": b"nothing"},
        "golden_invalid": {"golden_frames": golden_frames()[0]},
        "action_space_mismatch": {"contract": contract_for(CONTINUOUS, control_period_s=0.1)},
    }
    for fault, changes in misfits.items():
        with pytest.raises(BundleError) as caught:
            write(path, **changes)
        assert caught.value.fault == fault
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["policy.tar.gz"]


def test_a_full_disk_leaves_the_old_bundle_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.tar.gz"
    write(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, neural_network="OTHER")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["policy.tar.gz"]


# --- the faults of the file


def test_missing_file(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none.tar.gz") == "missing_file"
    assert fault_of(tmp_path) == "missing_file"
    os.mkfifo(tmp_path / "pipe")
    assert fault_of(tmp_path / "pipe") == "missing_file"


def test_not_an_archive(good: Path, tmp_path: Path) -> None:
    whole = good.read_bytes()
    plain = gzip.decompress(whole)
    path = tmp_path / "bad.tar.gz"
    for data in (
        b"",
        b"<html>404</html>",
        whole[: len(whole) // 2],
        whole[:-4],
        whole + b"more",
        gzip.compress(b"not tar" * 500),
        gzip.compress(plain[:1500]),
    ):
        path.write_bytes(data)
        assert fault_of(path) == "not_an_archive"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("a/../../evil"),
        member("/etc/evil"),
        member("..\\evil"),
        member("C:/evil"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("policy.onnx", tarfile.LNKTYPE, "contract.json"),
        member("null", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("./contract.json"),
        member("evil.sh"),
        member("../up", tarfile.DIRTYPE),
    ],
    ids=lambda m: f"{m.name}-{m.type.decode()}",
)
def test_member_refused(good: Path, tmp_path: Path, bad: tarfile.TarInfo) -> None:
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(tar_of(*unpack(good).items(), (bad, b""))))
    assert fault_of(path) == "member_refused"
    assert os.listdir(tmp_path) == ["bad.tar.gz"]


def test_a_file_with_holes_is_refused(good: Path, tmp_path: Path) -> None:
    members = unpack(good)
    del members["golden.npz"]
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(tar_of((member("golden.npz", tarfile.GNUTYPE_SPARSE), b""), *members.items())))
    assert fault_of(path) == "member_refused"


def test_too_large(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    path = tmp_path / "bomb.tar.gz"
    with open(path, "wb") as file:
        for _ in range(97):
            file.write(bomb.compress(bytes(2**20)))
        file.write(bomb.flush())
    assert path.stat().st_size < 200_000
    assert fault_of(path) == "too_large"
    big = pack(tmp_path / "member.tar.gz", {**unpack(good), "contract.json": b"{}" + b" " * 2**20}, rehash=False)
    assert fault_of(big) == "too_large"
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", good.stat().st_size - 1)
    assert fault_of(good) == "too_large"
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", good.stat().st_size)
    read_bundle(good)


def test_foreign(tmp_path: Path, good: Path) -> None:
    metadata = unpack(good)["model_metadata.json"]
    deepracer = pack(tmp_path / "dr.tar.gz", {"model_metadata.json": metadata, "agent/model.pb": b"graph"})
    with pytest.raises(BundleError, match="DeepRacer model") as caught:
        read_bundle(deepracer)
    assert caught.value.fault == "foreign" and "hotlap train" in caught.value.next_step
    assert fault_of(pack(tmp_path / "photos.tar.gz", {"a.jpg": b"x"})) == "foreign"
    assert fault_of(pack(tmp_path / "empty.tar.gz", {})) == "foreign"
    other = edit("contract.json", lambda c: c.update(format="other"))
    assert fault_of(pack(tmp_path / "format.tar.gz", other(unpack(good)))) == "foreign"


@pytest.mark.parametrize("name", ["policy.onnx", "model_metadata.json", "golden.npz"])
def test_missing_member(good: Path, tmp_path: Path, name: str) -> None:
    members = unpack(good)
    del members[name]
    assert fault_of(pack(tmp_path / "bad.tar.gz", members)) == "missing_member"


@pytest.mark.parametrize("name", ["policy.onnx", "model_metadata.json", "golden.npz"])
def test_sha256_mismatch(good: Path, tmp_path: Path, name: str) -> None:
    members = unpack(good)
    members[name] += b" "
    assert fault_of(pack(tmp_path / "bad.tar.gz", members, rehash=False)) == "sha256_mismatch"


# --- the faults of what the members say: (fault, change to a good bundle's members)

OUTPUTS = expected(golden_frames(), default_action_space())
WORSE = OUTPUTS + np.float32(0.0015) * np.array([1, -1] * 5, dtype=np.float32)
NOT_FINITE = np.where(np.arange(10) == 3, np.nan, OUTPUTS).astype(np.float32)

SAYINGS: list[tuple[str, str, Callable[[Members], Members]]] = [
    ("contract_invalid", "not JSON", put("contract.json", b"{")),
    ("contract_invalid", "a list", put("contract.json", b"[]")),
    ("contract_invalid", "unknown key", edit("contract.json", lambda c: c.update(extra=1))),
    ("contract_invalid", "key missing", edit("contract.json", lambda c: c.pop("camera"))),
    ("contract_invalid", "other image", edit("contract.json", lambda c: c["image"].update(height=84))),
    ("contract_invalid", "no version", edit("contract.json", lambda c: c.pop("version"))),
    ("contract_invalid", "file not listed", edit("contract.json", lambda c: c["files"].pop("golden.npz"))),
    ("contract_invalid", "file too many", edit("contract.json", lambda c: c["files"].update({"contract.json": ""}))),
    ("version_unsupported", "newer", edit("contract.json", lambda c: c.update(version=2, news="x"))),
    ("metadata_invalid", "not JSON", put("model_metadata.json", b"\xff")),
    ("metadata_invalid", "bare list", put("model_metadata.json", b"[]")),
    (
        "metadata_invalid",
        "steering",
        edit("model_metadata.json", lambda m: m["action_space"][0].update(steering_angle=60)),
    ),
    ("metadata_invalid", "type", edit("model_metadata.json", lambda m: m.update(action_space_type="continuous"))),
    ("metadata_invalid", "lidar", edit("model_metadata.json", lambda m: m["sensor"].append("LIDAR"))),
    ("metadata_invalid", "no network", edit("model_metadata.json", lambda m: m.pop("neural_network"))),
    ("action_space_mismatch", "size", edit("model_metadata.json", lambda m: m["action_space"].pop())),
    ("action_space_mismatch", "speed", edit("model_metadata.json", lambda m: m["action_space"][1].update(speed=0.9))),
    ("action_space_mismatch", "contract", edit("contract.json", lambda c: c["action"].update(speed_max_mps=4.0))),
    ("action_space_mismatch", "graph", put("policy.onnx", graph(9))),
    ("action_space_mismatch", "free width", put("policy.onnx", graph(9, output_shape=("N", "A")))),
    ("onnx_invalid", "noise", put("policy.onnx", b"\x00" * 100)),
    ("onnx_invalid", "empty", put("policy.onnx", b"")),
    ("onnx_invalid", "cut short", put("policy.onnx", graph()[:-40])),
    ("onnx_invalid", "does not run", put("policy.onnx", graph(first=115))),
    ("onnx_input_mismatch", "float", put("policy.onnx", graph(input_type=TensorProto.FLOAT))),
    ("onnx_input_mismatch", "size", put("policy.onnx", graph(input_shape=("N", 84, 160, 1)))),
    ("onnx_input_mismatch", "channels first", put("policy.onnx", graph(input_shape=("N", 1, 120, 160)))),
    ("onnx_input_mismatch", "fixed batch", put("policy.onnx", graph(input_shape=(1, 120, 160, 1)))),
    ("onnx_output_mismatch", "two outputs", put("policy.onnx", graph(outputs=2))),
    ("onnx_output_mismatch", "half", put("policy.onnx", graph(half=True))),
    ("golden_invalid", "not a zip", put("golden.npz", b"PK nothing")),
    ("golden_invalid", "other names", put("golden.npz", npz(inputs=golden_frames(), outputs=OUTPUTS))),
    ("golden_invalid", "one too many", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS, more=OUTPUTS))),
    ("golden_invalid", "float frames", put("golden.npz", npz(frames=golden_frames().astype("f4"), outputs=OUTPUTS))),
    ("golden_invalid", "double outputs", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS.astype("f8")))),
    ("golden_invalid", "no frames", put("golden.npz", npz(frames=golden_frames(0), outputs=OUTPUTS[:0]))),
    ("golden_invalid", "counts differ", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS[:2]))),
    ("golden_invalid", "width", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS[:, :9].copy()))),
    ("golden_invalid", "columns first", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS.copy("F")))),
    ("golden_invalid", "NaN", put("golden.npz", npz(frames=golden_frames(), outputs=NOT_FINITE))),
    ("golden_mismatch", "0.0015 off", put("golden.npz", npz(frames=golden_frames(), outputs=WORSE))),
    ("probabilities_invalid", "logits", put("golden.npz", npz(frames=golden_frames(), outputs=OUTPUTS * 3))),
    (
        "probabilities_invalid",
        "negative",
        put(
            "golden.npz",
            npz(frames=golden_frames(), outputs=1.2 * OUTPUTS - np.float32(0.2) * np.eye(10, dtype=np.float32)[:3]),
        ),
    ),
]


@pytest.mark.parametrize(("fault", "change"), [pytest.param(f, c, id=f"{f}-{i}") for f, i, c in SAYINGS])
def test_a_fault_is_named(good: Path, tmp_path: Path, fault: str, change: Callable[[Members], Members]) -> None:
    members = change(unpack(good))
    valid_json = members["contract.json"].startswith(b"{") and len(members["contract.json"]) > 1
    assert fault_of(pack(tmp_path / "bad.tar.gz", members, rehash=valid_json)) == fault


def test_every_fault_has_a_test() -> None:
    named = {fault for fault, _, _ in SAYINGS}
    tested = {name[len("test_") :] for name in globals() if name.startswith("test_")}
    assert set(FAULTS) <= named | tested


def test_a_small_difference_of_another_processor_passes(good: Path, tmp_path: Path) -> None:
    near = OUTPUTS + np.float32(0.0009) * np.array([1, -1] * 5, dtype=np.float32)
    read_bundle(
        pack(tmp_path / "near.tar.gz", put("golden.npz", npz(frames=golden_frames(), outputs=near))(unpack(good)))
    )


def test_a_graph_that_gives_nan_here_does_not_match(good: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "nan.tar.gz", put("policy.onnx", graph(last="Log"))(unpack(good)))
    assert fault_of(path) == "golden_mismatch"
    read_bundle(path, replay_golden=False)


def test_continuous_golden_outputs_must_be_inside_the_action_space(tmp_path: Path) -> None:
    for outside in ([40.0, 1.0], [0.0, 1.6]):
        outputs = np.tile(np.array(outside, dtype=np.float32), (3, 1))
        with pytest.raises(BundleError) as caught:
            write(tmp_path / "x.tar.gz", CONTINUOUS, golden_outputs=outputs)
        assert caught.value.fault == "golden_invalid"


def test_a_golden_archive_cannot_fill_the_memory(good: Path, tmp_path: Path) -> None:
    def zipped(frames: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", compression) as archive:
            archive.writestr("frames.npy", frames)
            archive.writestr("outputs.npy", b"")
        return packed.getvalue()

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 120, 160, 1)}
    )
    for golden in (zipped(bytes(8 * 2**20)), zipped(header.getvalue()), zipped(b"x", zipfile.ZIP_BZIP2)):
        path = pack(tmp_path / "bad.tar.gz", put("golden.npz", golden)(unpack(good)))
        assert fault_of(path) == "golden_invalid"


# --- fuzz: whatever happens to the bytes, a BundleError or the very same content


def same(a: Bundle, b: Bundle) -> bool:
    return (
        (a.onnx_model, a.metadata, a.contract, a.action_space) == (b.onnx_model, b.metadata, b.contract, b.action_space)
        and np.array_equal(a.golden_frames, b.golden_frames)
        and np.array_equal(a.golden_outputs, b.golden_outputs)
    )


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for position in rng.integers(0, len(data), int(rng.integers(1, 4))):
        damaged[position] ^= int(rng.integers(1, 256))
    return bytes(damaged)


def survives(path: Path, whole: Bundle) -> bool:
    """Whether the file still reads, and then as the same content; any other exception fails the test."""
    try:
        bundle = read_bundle(path)
    except BundleError as error:
        assert error.fault in FAULTS
        return False
    assert same(bundle, whole)
    return True


def test_flipped_bytes_of_the_file(good: Path, tmp_path: Path) -> None:
    whole, data, rng = read_bundle(good), good.read_bytes(), np.random.default_rng(11)
    path = tmp_path / "flipped.tar.gz"
    refused = 0
    for round_ in range(200):
        # Half of the rounds hit the first 64 bytes, where the gzip header is.
        head = 64 if round_ % 2 else len(data)
        path.write_bytes(flipped(data[:head], rng) + data[head:])
        refused += not survives(path, whole)
    assert refused >= 150


def test_flipped_bytes_under_the_checksum_of_gzip(good: Path, tmp_path: Path) -> None:
    whole, plain, rng = read_bundle(good), gzip.decompress(good.read_bytes()), np.random.default_rng(12)
    headers = [i for i in range(0, len(plain), 512) if plain[i + 257 : i + 262] == b"ustar"]
    assert len(headers) == 4
    path = tmp_path / "flipped.tar.gz"
    for round_ in range(200):
        start = headers[round_ % 4]
        damaged = bytearray(plain)
        damaged[start : start + 512] = flipped(plain[start : start + 512], rng)
        # A checksum made right again lets every field of the header through to tarfile.
        damaged[start + 148 : start + 156] = b" " * 8
        damaged[start + 148 : start + 156] = b"%06o\0 " % sum(damaged[start : start + 512])
        path.write_bytes(gzip.compress(bytes(damaged), 1))
        survives(path, whole)


@pytest.mark.parametrize("name", ["contract.json", "model_metadata.json", "golden.npz"])
def test_flipped_bytes_under_a_true_hash(good: Path, tmp_path: Path, name: str) -> None:
    members, rng = unpack(good), np.random.default_rng(13)
    for _ in range(60):
        damaged = {**members, name: flipped(members[name], rng)}
        path = pack(tmp_path / "flipped.tar.gz", damaged, rehash=name != "contract.json")
        try:
            read_bundle(path, replay_golden=False)
        except BundleError as error:
            assert error.fault in FAULTS
