"""A map lights where the action hangs on the picture, and nowhere else; it costs a bounded time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from tests.vehicle.pilot_rig import bright, make_bundle
from vehicle.action_space import ActionSpace, ContinuousActionSpace, default_action_space
from vehicle.observation import HEIGHT, WIDTH, ObservationError
from vehicle.policy import OnnxPolicy
from vehicle.saliency import BATCH, CELLS_PX, TooSlow, bump, look, perturbed, places

CONTINUOUS = ContinuousActionSpace(-30.0, 30.0, 0.5, 1.0)
TOP, BOTTOM, LEFT, RIGHT = 60, 76, 96, 120  # the only part of the picture that `eye` looks at
LONG = {"budget_s": 1e3, "deadline_s": 1e3}


def eye(space: ActionSpace) -> OnnxPolicy:
    """The greatest pixel of one region decides: action 3's probability, or the steering."""
    width = space.size
    last = "Softmax" if width > 2 else "Identity"
    scale, bias = np.zeros(width, np.float32), np.full(width, 4.0 if width > 2 else 0.75, np.float32)
    scale[3 % width], bias[3 % width] = (6.0, 0.0) if width > 2 else (0.0, 0.75)
    if width == 2:
        scale[0], bias[0] = 30.0, 0.0
    nodes = [
        helper.make_node("Slice", ["frames", "begin", "end", "axes"], ["region"]),
        helper.make_node("Cast", ["region"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["greatest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["greatest", "last_axis"], ["column"]),
        helper.make_node("Mul", ["column", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], ["output"]),
    ]
    constants = [
        helper.make_tensor("begin", TensorProto.INT64, [2], [TOP, LEFT]),
        helper.make_tensor("end", TensorProto.INT64, [2], [BOTTOM, RIGHT]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("last_axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", TensorProto.FLOAT, [1, width], scale / 255.0),
        helper.make_tensor("bias", TensorProto.FLOAT, [1, width], bias),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 1])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width])
    body = helper.make_graph(nodes, "eye", [frames], [output], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return OnnxPolicy(model.SerializeToString(), space)


def blobs(*middles: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A dark picture with small bright blobs at (row, column)."""
    picture = np.full((HEIGHT, WIDTH, 1), 40, np.uint8)
    for row, column in middles:
        picture[row - 3 : row + 3, column - 3 : column + 3] = 250
    return picture


def touches_region(rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Places whose mask reaches into the region."""
    cell = HEIGHT // rows
    y, x = (np.arange(rows) + 0.5) * cell, (np.arange(columns) + 0.5) * cell
    down = np.maximum(np.maximum(TOP - y, y - BOTTOM), 0.0)
    across = np.maximum(np.maximum(LEFT - x, x - RIGHT), 0.0)
    return np.asarray(np.hypot(down[:, None], across[None, :]) < 2 * cell)


@pytest.mark.parametrize("space", [default_action_space(), CONTINUOUS], ids=["discrete", "continuous"])
def test_the_map_lights_in_the_known_region_and_nowhere_else(space: ActionSpace) -> None:
    found = look(eye(space), blobs((68, 108), (30, 40), (100, 20)), **LONG)
    assert found.change.shape == (15, 20)
    near = touches_region(15, 20)
    assert (found.change[~near] == 0.0).all()
    row, column = np.unravel_index(found.change.argmax(), found.change.shape)
    assert TOP <= (row + 0.5) * 8 <= BOTTOM and LEFT <= (column + 0.5) * 8 <= RIGHT
    assert found.change.max() > 0.2
    assert found.change.min() >= 0.0 and found.change.max() <= 1.0


def test_nothing_lights_where_nothing_hangs_on_any_one_place() -> None:
    found = look(eye(default_action_space()), blobs((30, 40)), **LONG)  # the region is empty
    assert found.change.max() < 0.01


def test_the_action_and_the_probabilities_are_the_policys() -> None:
    space, picture = default_action_space(), blobs((68, 108))
    drive = eye(space)
    found = look(drive, picture, **LONG)
    assert found.chosen == 3 and found.action == (space.steering_deg[3], space.speed_mps[3])
    assert [action[:2] for action in found.actions()] == list(zip(space.steering_deg, space.speed_mps, strict=True))
    np.testing.assert_allclose([action[2] for action in found.actions()], drive(picture[None])[0], atol=1e-6)


def test_a_continuous_policy_has_no_actions_to_choose_from() -> None:
    picture = blobs((68, 108))
    found = look(eye(CONTINUOUS), picture, **LONG)
    assert found.chosen is None and found.actions() == []
    assert found.action == pytest.approx((30.0 * 250 / 255, 0.75))


def test_a_bundle_of_rows_lights_in_these_rows(tmp_path: Path) -> None:
    drive = OnnxPolicy(make_bundle(tmp_path / "bundle.tar.gz"))
    found = look(drive, bright(4)[..., None], **LONG)
    assert found.chosen == 4
    lit = np.flatnonzero(found.change.max(axis=1) > 0.0)
    assert set(lit) <= {0, 1, 2, 13, 14}  # rows 0 to 9 decide, in parts of row 119; a mask reaches 16 rows
    assert {0, 1} <= set(lit)


@pytest.mark.parametrize("cell_px", CELLS_PX)
def test_every_place_is_blurred_once_and_nothing_beside_it(cell_px: int) -> None:
    gray = np.random.default_rng(cell_px).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    before = gray.copy()
    batches = list(perturbed(gray, cell_px))
    np.testing.assert_array_equal(gray, before)
    assert all(len(batch) <= BATCH for batch in batches)
    frames = np.concatenate(batches)[..., 0]
    assert frames.shape == (places(cell_px), HEIGHT, WIDTH)
    columns = WIDTH // cell_px
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for place, frame in enumerate(frames):
        row, column = divmod(place, columns)
        middle_y, middle_x = (row + 0.5) * cell_px - 0.5, (column + 0.5) * cell_px - 0.5
        beside = np.hypot(y - middle_y, x - middle_x) >= 2 * cell_px
        assert (frame[beside] == gray[beside]).all(), (row, column)
        middle = np.s_[row * cell_px : (row + 1) * cell_px, column * cell_px : (column + 1) * cell_px]
        assert frame[middle].std() < 0.6 * gray[middle].std(), (row, column)


def test_a_plain_picture_stays_as_it_is() -> None:
    gray = np.full((HEIGHT, WIDTH), 173, np.uint8)
    assert all((batch == 173).all() for batch in perturbed(gray, 8))


def test_the_mask_is_round_and_soft() -> None:
    mask = bump(10)
    assert mask.shape == (40, 40) and mask.max() > 0.99
    np.testing.assert_allclose(mask, mask.T)
    np.testing.assert_allclose(mask, mask[::-1, ::-1])
    assert mask[20, 30] == pytest.approx(0.5, abs=0.05) and mask[0].max() < 0.01 and mask[0, 0] == 0.0


@dataclass
class Slow:
    """A policy that takes so long for each frame, by its own clock."""

    each_s: float
    now_s: float = 0.0
    frames: list[int] = field(default_factory=list)
    action_space: ActionSpace = field(default_factory=default_action_space)

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.now_s += self.each_s * len(frames)
        self.frames.append(len(frames))
        return np.full((len(frames), 10), 0.1, np.float32)

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("each_ms", "shape"), [(1.0, (15, 20)), (3.0, (12, 16)), (8.0, (6, 8)), (20.0, (6, 8))])
def test_a_slow_network_gets_a_coarser_map(each_ms: float, shape: tuple[int, int]) -> None:
    slow = Slow(each_ms / 1e3)
    found = look(slow, blobs(), budget_s=0.7, deadline_s=2.5, clock=slow.clock)
    assert found.change.shape == shape
    assert max(slow.frames) <= BATCH


def test_one_that_is_too_slow_is_given_up_at_the_deadline() -> None:
    slow = Slow(0.1)
    with pytest.raises(TooSlow, match="one picture takes this network 100 ms"):
        look(slow, blobs(), budget_s=0.7, deadline_s=2.5, clock=slow.clock)
    assert slow.now_s <= 2.5 + 2 * BATCH * 0.1


def test_another_picture_is_refused() -> None:
    with pytest.raises(ObservationError):
        look(Slow(0.0), np.zeros((60, 80, 1), np.uint8), budget_s=1.0, deadline_s=1.0)
