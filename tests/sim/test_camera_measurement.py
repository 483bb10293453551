"""Camera calibration on boards that MuJoCo has drawn from known poses: field of view, pitch, roll and height come back.

The promise: 1 degree of field of view, 0.5 degrees of pitch, 3 mm of height.
"""

from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import Board, CameraFault, CameraMeasurement, CameraPose, measure_camera
from tests.sim.board_scene import Place, draw_board, photograph, random_place, random_pose
from tests.sim.opengl import needs_opengl

pytestmark = pytest.mark.slow  # draws with OpenGL

SHEET = Board()


@pytest.fixture(scope="module", autouse=True)
def opengl() -> None:
    needs_opengl()


def off(found: CameraMeasurement, true: CameraPose) -> tuple[float, float, float, float]:
    """Degrees of field of view, pitch and roll, and millimetres of height."""
    pose = found.pose
    return (
        abs(pose.horizontal_fov_deg - true.horizontal_fov_deg), abs(pose.pitch_down_deg - true.pitch_down_deg),
        abs(pose.roll_deg - true.roll_deg), 1e3 * abs(pose.height_m - true.height_m),
    )  # fmt: skip


def kept(found: CameraMeasurement, true: CameraPose, share: float = 1.0) -> bool:
    """Whether the promise is kept, or a share of it."""
    return all(error <= share * limit for error, limit in zip(off(found, true), (1.0, 0.5, 0.5, 3.0), strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_one_blurred_and_noisy_picture_of_a_webcam_gives_the_pose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    picture = photograph(draw_board(pose, random_place(rng, pose, SHEET), SHEET), rng)
    found = measure_camera([picture], SHEET)
    assert kept(found, pose, 0.5), (found, pose)
    assert found.warnings == () and found.residual_px < 0.3


@pytest.mark.parametrize(
    ("board", "width", "border", "yaw_deg"),
    [
        (Board(9, 6, 25.0), 640, 0.0, 90.0),  # without a white border, turned anyhow
        (Board(6, 9, 20.0), 640, 1.0, 90.0),
        (Board(7, 7, 25.0), 640, 0.6, 180.0),  # square: nothing tells which side is up
        (Board(5, 4, 40.0), 320, 0.6, 30.0),
        (Board(11, 8, 20.0), 1280, 0.5, 45.0),
        (Board(4, 3, 60.0), 160, 0.6, 10.0),  # as small as the policy's: squares of a few pixels
        (Board(6, 4, 40.0), 160, 0.6, 10.0),
    ],
)
@pytest.mark.parametrize("seed", (1, 2))
def test_other_boards_and_sizes_of_picture(board: Board, width: int, border: float, yaw_deg: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    place = random_place(rng, pose, board, yaw_deg)
    place = Place(place.ahead_m + 0.02, place.left_m, place.yaw_deg, border)
    picture = photograph(draw_board(pose, place, board, width, width * 3 // 4), rng, 0.5, 2.0)
    assert kept(measure_camera([picture], board), pose), (pose, place)


def test_several_pictures_are_better_than_each_and_the_errors_say_how_good() -> None:
    rng = np.random.default_rng(5)
    shares, alone, together = [], [], []
    for _ in range(6):
        pose = random_pose(rng)
        pictures = [photograph(draw_board(pose, random_place(rng, pose, SHEET), SHEET), rng, 1.0, 8.0) for _ in "123"]
        found = measure_camera(pictures, SHEET)
        alone += [off(measure_camera([one], SHEET), pose)[0] for one in pictures]
        together.append(off(found, pose)[0])
        shares.append((found.pose.horizontal_fov_deg - pose.horizontal_fov_deg) / found.errors.horizontal_fov_deg)
        assert found.pictures == 3 and kept(found, pose, 0.3)
    assert np.mean(together) < np.mean(alone)
    assert np.sqrt(np.mean(np.square(shares))) < 2.5  # true errors are about as large as they are said to be


def test_the_sign_of_the_roll_is_that_of_the_simulators_cameras() -> None:
    pose = CameraPose(70.0, 15.0, 0.12, 4.0)
    found = measure_camera([draw_board(pose, Place(0.35), SHEET)], SHEET)
    assert found.pose.roll_deg == pytest.approx(4.0, abs=0.1)


def test_a_board_right_below_the_camera_does_not_tell_its_focal_length() -> None:
    down = CameraPose(70.0, 89.0, 0.3, 0.0)
    with pytest.raises(CameraFault) as fault:
        measure_camera([photograph(draw_board(down, Place(0.005), SHEET), np.random.default_rng(0))], SHEET)
    assert fault.value.reason == "face_on", fault.value


def test_a_board_that_is_cut_off_is_named() -> None:
    pose = CameraPose(70.0, 15.0, 0.12, 0.0)
    with pytest.raises(CameraFault) as fault:
        measure_camera([draw_board(pose, Place(0.35, 0.22), SHEET)], SHEET)
    assert fault.value.reason == "part_of_board" and "9 x 6" in fault.value.what


def test_another_board_than_was_named_is_named() -> None:
    pose = CameraPose(70.0, 20.0, 0.15, 0.0)
    with pytest.raises(CameraFault) as fault:
        measure_camera([draw_board(pose, Place(0.35), Board(10, 7, 20.0))], SHEET)
    assert fault.value.reason == "other_board" and "10 x 7" in fault.value.what
