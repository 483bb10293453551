"""A bundle that is hostile, damaged or foreign is refused by its own name, and nothing on the disk has changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from calibration.mapping import default_sim_calibration
from tests.vehicle.test_bundle import (
    OUTPUTS,
    Members,
    edit,
    golden_frames,
    graph,
    member,
    npz,
    pack,
    put,
    tar_of,
    unpack,
    write,
)
from vehicle.bundle import read_bundle
from vehicle.car_config import CarConfig
from vehicle.contract import FAULTS
from vehicle.errors import SlotError
from vehicle.slot_install import install_bundle
from vehicle.slot_state import SLOT_FAULTS
from vehicle.slots import ModelStore

pytestmark = pytest.mark.slow  # every bundle is checked in a process of its own


def looping(times: int, width: int = 10) -> bytes:
    """`graph`, after ``times`` products of two 256 x 256 matrices whose result is added as zero: right, but slow."""
    names = ["i", "go", "a"]
    kinds = [(TensorProto.INT64, []), (TensorProto.BOOL, []), (TensorProto.FLOAT, [256, 256])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("MatMul", ["a", "square"], ["b"])],
        "body",
        [helper.make_tensor_value_info(n, k, s) for n, (k, s) in zip(names, kinds, strict=True)],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [256, 256]),
        ],
    )
    side = np.zeros((256, 256), dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["floats", "rows"], ["gathered"], axis=1),
        helper.make_node("Div", ["gathered", "full"], ["unit"]),
        helper.make_node("ReduceMean", ["unit"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["frames_max"], ["top"], keepdims=0),
        helper.make_node("Mul", ["square", "top"], ["start"]),  # of the input, so that no optimiser folds the loop away
        helper.make_node("Loop", ["times", "", "start"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["means", "nothing"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["output"]),
    ]
    nodes.insert(1, helper.make_node("Identity", ["floats"], ["frames_max"]))
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [width], list(range(width))),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("times", TensorProto.INT64, [], [times]),
        helper.make_tensor("square", TensorProto.FLOAT, [256, 256], side.tobytes(), raw=True),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ("N", 120, 160, 1))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ("N", width))
    model = helper.make_model(
        helper.make_graph(nodes, "policy", [frames], [output], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


def greedy(gigabytes: int, width: int = 10) -> bytes:
    """`graph` with an array of many gigabytes in its way."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["top"], keepdims=0),
        helper.make_node("Expand", ["top", "shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"], keepdims=0),
        helper.make_node("Gather", ["floats", "rows"], ["gathered"], axis=1),
        helper.make_node("ReduceMean", ["gathered"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["means", "mean"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["output"]),
    ]
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [width], list(range(width))),
        helper.make_tensor("shape", TensorProto.INT64, [2], [gigabytes, 2**28]),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ("N", 120, 160, 1))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ("N", width))
    model = helper.make_model(
        helper.make_graph(nodes, "policy", [frames], [output], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def with_member(info: tarfile.TarInfo) -> Callable[[Path, Members, Path], None]:
    def build(path: Path, members: Members, outside: Path) -> None:
        path.write_bytes(gzip.compress(tar_of(*members.items(), (info, b""))))

    return build


def changed(change: Callable[[Members], Members], *, rehash: bool = True) -> Callable[[Path, Members, Path], None]:
    return lambda path, members, outside: (pack(path, change(members), rehash=rehash), None)[1]


def versioned(version: int) -> Callable[[Path, Members, Path], None]:
    return changed(edit("contract.json", lambda c: c.update(version=version)))


def bomb(path: Path, members: Members, outside: Path) -> None:
    squeeze = zlib.compressobj(9, wbits=31)
    with open(path, "wb") as file:
        for _ in range(128):  # MB
            file.write(squeeze.compress(bytes(2**20)))
        file.write(squeeze.flush())


def truncated(path: Path, members: Members, outside: Path) -> None:
    pack(path, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def pickle_inside(path: Path, members: Members, outside: Path) -> None:
    array = np.empty((1, 120, 160, 1), dtype=object)
    array.fill(Trap(str(outside / "executed")))
    pack(path, put("golden.npz", npz(frames=array, outputs=OUTPUTS[:1]))(members))


def deepracer(path: Path, members: Members, outside: Path) -> None:
    metadata = members["model_metadata.json"]
    pack(path, {"model_metadata.json": metadata, "agent/model.pb": b"\x08graph", "done": b""})


def oversized(path: Path, members: Members, outside: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(65 * 2**20)


CASES: list[tuple[str, str, str, Callable[[Path, Members, Path], None]]] = [
    ("path traversal", "member_refused", "'../evil' leaves the archive", with_member(member("../evil"))),
    ("absolute path", "member_refused", "'/tmp/evil' is an absolute", with_member(member("/tmp/evil"))),
    ("symlink", "member_refused", "'sym' is a link", with_member(member("sym", tarfile.SYMTYPE, "/etc/passwd"))),
    ("hard link", "member_refused", "'hard' is a link", with_member(member("hard", tarfile.LNKTYPE, "contract.json"))),
    ("device", "member_refused", "'null' is a device", with_member(member("null", tarfile.CHRTYPE))),
    ("pipe", "member_refused", "'pipe' is a device or other", with_member(member("pipe", tarfile.FIFOTYPE))),
    ("script", "member_refused", "'run.sh' is no part", with_member(member("run.sh"))),
    ("gzip bomb", "too_large", "unpack to more than", bomb),
    ("oversized", "too_large", "is larger than", oversized),
    ("truncated", "not_an_archive", "end early", truncated),
    ("no archive", "not_an_archive", "not gzip", lambda path, m, o: (path.write_bytes(b"<html>404</html>"), None)[1]),
    (
        "wrong hash", "sha256_mismatch", "contract.json says",
        changed(lambda m: {**m, "policy.onnx": m["policy.onnx"] + b" "}, rehash=False),
    ),
    ("wrong shape in", "onnx_input_mismatch", "84", changed(put("policy.onnx", graph(input_shape=("N", 84, 160, 1))))),
    ("wrong shape out", "action_space_mismatch", "9 values", changed(put("policy.onnx", graph(9)))),
    ("other weights", "golden_mismatch", "golden frame", changed(put("policy.onnx", graph(first=40)))),
    ("slow model", "too_slow", "inferences took more than", changed(put("policy.onnx", looping(600)))),
    ("endless model", "too_slow", "not done after", changed(put("policy.onnx", looping(2**40)))),
    ("greedy model", "onnx_invalid", "cannot be run", changed(put("policy.onnx", greedy(64)))),
    ("old contract", "version_unsupported", "version 0", versioned(0)),
    ("newer contract", "version_unsupported", "version 2", versioned(2)),
    ("pickle inside", "golden_invalid", "frames are object", pickle_inside),
    ("DeepRacer model", "foreign", "DeepRacer model", deepracer),
    (
        "other camera", "misfit", "camera_pitch",
        changed(edit("contract.json", lambda c: c["camera"].update(pitch_down_deg=60.0))),
    ),
]  # fmt: skip


def listing(folder: Path) -> dict[str, str]:
    """Every path under a folder with its kind, mode and, of a file, the sha256."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = f"{info.st_mode:o} {info.st_mtime_ns} {data}"
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "good.tar.gz").path


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Path:
    """STATE of a car that drives with a proved model."""
    state = tmp_path_factory.mktemp("state")
    (state / "calibration.json").write_text("{}")
    store = ModelStore(state / "models")
    installed = install_bundle(store, good, CarConfig(), default_sim_calibration())
    store.activate(installed.sha256)
    store.begin_boot()
    store.proved_healthy(installed.sha256)
    return state


@pytest.mark.parametrize(("fault", "words", "build"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_a_hostile_bundle_is_refused_and_nothing_changes(
    good: Path, state: Path, tmp_path: Path, fault: str, words: str, build: Callable[[Path, Members, Path], None]
) -> None:
    path = tmp_path / "hostile.tar.gz"
    build(path, unpack(good), tmp_path)
    before, around = listing(state), sorted(os.listdir(tmp_path))
    store = ModelStore(state / "models")
    endless = words == "not done after"
    with pytest.raises(SlotError) as caught:
        install_bundle(store, path, CarConfig(), default_sim_calibration(), timeout_s=5.0 if endless else 60.0)
    assert caught.value.fault == fault and fault in {**FAULTS, **SLOT_FAULTS}
    assert words in caught.value.what and caught.value.next_step
    assert listing(state) == before
    assert os.listdir(state / "models" / "incoming") == []
    assert sorted(os.listdir(tmp_path)) == around  # neither the trap of the pickle nor an unpacked member
    active = ModelStore(state / "models").begin_boot()
    assert active is not None and not active.trial and read_bundle(active.bundle_path).sha256 == active.sha256
    assert listing(state) == before


def test_every_case_has_a_reason_of_its_own() -> None:
    reasons = [(fault, words) for _, fault, words, _ in CASES]
    assert len(set(reasons)) == len(CASES)


def test_the_first_bundle_being_hostile_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(b"not a bundle")
    with pytest.raises(SlotError, match="not_an_archive"):
        install_bundle(ModelStore(tmp_path / "state" / "models"), path, CarConfig(), None)
    assert os.listdir(tmp_path) == ["bad.tar.gz"]


def test_the_slow_graphs_are_slow_and_nothing_else_is_wrong_with_them(good: Path, tmp_path: Path) -> None:
    """With one turn of the loop the same graph is a good bundle; so the refusals above are for its time alone."""
    path = pack(tmp_path / "quick.tar.gz", put("policy.onnx", looping(1))(unpack(good)))
    assert len(read_bundle(path).golden_frames) == len(golden_frames())
    done = install_bundle(ModelStore(tmp_path / "models"), path, CarConfig(), None)
    assert done.new and json.loads((tmp_path / "models" / done.sha256 / "report.json").read_text())["installed"] == 1
    # A trap that works, and is in the bundle above: numpy's pickle support would have sprung it.
    packed = io.BytesIO()
    np.save(packed, np.array([Trap(str(tmp_path / "sprung"))], dtype=object), allow_pickle=True)
    packed.seek(0)
    np.load(packed, allow_pickle=True)[0].close()
    assert (tmp_path / "sprung").exists()
