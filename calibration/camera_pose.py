"""From boards on the ground to the camera's field of view, height, pitch and roll, with their standard errors.

The camera is a pinhole with square pixels whose axis goes through the middle of the picture, as the simulator's is. All
pictures are of one mounting: these four are common to them; each board's place and direction on the ground are its own.
They are solved for together, by least squares of the distance in pixels between corners seen and corners computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from calibration.camera_board import CameraFault, Floats, Sighting

_GUESSED_FOVS_DEG = np.linspace(25.0, 140.0, 47)
_COMMON = 4  # log of the focal length, log of the height, pitch, roll; then ahead, left and direction of each board
_ROUNDS = 60
_STEP = 1e-6  # of the numeric derivative
# Even without noise a corner is not found better than this.
_LEAST_NOISE_PX = 0.02
# A standard error above these is refused: the promise is 1 deg, 0.5 deg, 3 mm.
MAX_ERROR_FOV_DEG, MAX_ERROR_PITCH_DEG, MAX_ERROR_HEIGHT_M = 2.0, 1.0, 0.006
_LEAST_VIEW_ANGLE_DEG = 25.0  # of the line of sight to the vertical: less is face-on
_MOST_RESIDUAL = 0.004  # of the picture's width; a board that is not flat, or pictures of two mountings
_BENT_PX = 0.1  # of a picture 640 wide: less cannot be told from noise
# What a measurement may say: a CameraSpec's limits (sim/car_spec.py).
FOV_DEG, PITCH_DEG, HEIGHT_M, ROLL_DEG = (20.0, 150.0), (-10.0, 60.0), (0.03, 1.0), (-20.0, 20.0)


@dataclass(frozen=True)
class CameraPose:
    """How a camera is mounted, as the simulator's ``CameraSpec`` has it.

    Args:
        horizontal_fov_deg: of the whole width of the picture.
        pitch_down_deg: of the optical axis below the horizon.
        height_m: of the lens above the ground, car at rest.
        roll_deg: about the optical axis; positive is clockwise as seen from behind the car (it leans to the right).
    """

    horizontal_fov_deg: float
    pitch_down_deg: float
    height_m: float
    roll_deg: float


@dataclass(frozen=True)
class CameraMeasurement:
    """What pictures of boards say.

    Args:
        errors: standard errors of the pose, from the scatter of the corners.
        residual_px: root mean square distance between corners seen and computed, in pixels of the pictures.
        worst_picture: index of the picture that fits least.
        width, height: of the pictures.
        warnings: what a person should know, in words; empty where all is well.
    """

    pose: CameraPose
    errors: CameraPose
    residual_px: float
    pictures: int
    worst_picture: int
    width: int
    height: int
    warnings: tuple[str, ...] = ()


def solve(sightings: Sequence[Sighting]) -> CameraMeasurement:
    """The camera's pose from at least one board.

    Raises:
        CameraFault: different_sizes, face_on, ill_conditioned, does_not_fit, out_of_range.
    """
    if not sightings:
        raise CameraFault("no_board", "there is no picture with a board yet", next_step="take one")
    width, height = sightings[0].width, sightings[0].height
    if any((one.width, one.height) != (width, height) for one in sightings):
        raise CameraFault(
            "different_sizes",
            "the pictures are not of one size",
            cause="they are of several cameras, or its settings were changed in between",
            next_step="throw them away and take new ones",
        )
    starts = [_start(one) for one in sightings]
    first = min(starts, key=lambda found: found[0])
    unknowns = np.concatenate([first[1], *(local for _, _, local in starts)])
    unknowns, residuals, jacobian = _least_squares(unknowns, sightings)
    distances = (residuals**2).reshape(-1, 2).sum(axis=1)
    residual_px = float(np.sqrt(distances.mean()))
    each = np.split(distances, np.cumsum([len(one.corners_px) for one in sightings])[:-1])
    by_picture = np.sqrt([part.mean() for part in each])
    worst = int(np.argmax(by_picture))
    told = max(_LEAST_NOISE_PX, *(one.noise_px for one in sightings))
    noise = max(float(residuals @ residuals) / (len(residuals) - len(unknowns)), told**2)
    try:
        spread = np.sqrt(np.abs(np.diag(np.linalg.inv(jacobian.T @ jacobian))) * noise)
    except np.linalg.LinAlgError:
        spread = np.full(len(unknowns), np.inf)
    half = width / 2 / np.exp(unknowns[0])  # tangent of half the field of view
    pose = CameraPose(
        float(np.degrees(2 * np.arctan(half))), float(np.degrees(unknowns[2])), float(np.exp(unknowns[1])),
        float(np.degrees(unknowns[3])),
    )  # fmt: skip
    errors = CameraPose(
        float(np.degrees(2 * half / (1 + half**2) * spread[0])), float(np.degrees(spread[2])),
        float(pose.height_m * spread[1]), float(np.degrees(spread[3])),
    )  # fmt: skip
    _check(pose, errors, residual_px, unknowns, width)
    warnings = _warnings(sightings, unknowns, residuals, by_picture, width, height)
    return CameraMeasurement(pose, errors, residual_px, len(sightings), worst, width, height, warnings)


def _axes(pitch: float, roll: float) -> Floats:
    """Columns ahead, left and up of the camera on level ground: pitch down, then roll about the view axis, as
    ``sim.camera_kernel`` and ``sim.mujoco_view`` turn it."""
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    return np.array([[cp, sp * sr, sp * cr], [0, cr, -sr], [-sp, cp * sr, cp * cr]])


def _project(common: Floats, local: Floats, one: Sighting, bend: float = 0.0) -> Floats:
    """Where the board's corners are in the picture, (n, 2). `bend` is the radial distortion k1."""
    focal, up_m = np.exp(common[0]), np.exp(common[1])
    cosine, sine = np.cos(local[2]), np.sin(local[2])
    x, y = one.corners_m.T
    ground = np.stack([local[0] + cosine * x - sine * y, local[1] + sine * x + cosine * y, np.full(len(x), -up_m)], -1)
    depth, left, up = (ground @ _axes(common[2], common[3])).T
    depth = np.where(depth > 1e-6, depth, 1e-6)  # behind the camera: far away, so that the search turns back
    flat = np.stack([-left / depth, -up / depth], axis=-1)
    flat = flat * (1 + bend * (flat**2).sum(axis=1, keepdims=True))
    return np.asarray(focal * flat + [(one.width - 1) / 2, (one.height - 1) / 2], np.float64)


def _start(one: Sighting) -> tuple[float, Floats, Floats]:
    """(misfit in pixels, common, local unknowns) from one board alone: for each of many focal lengths the homography
    is taken apart into a pose, and the one that fits best is kept."""
    middle = np.array([(one.width - 1) / 2, (one.height - 1) / 2])
    homography, _ = cv2.findHomography(one.corners_m, one.corners_px - middle)
    if homography is None:
        raise CameraFault("no_board", "the corners that were found lie in one line", next_step="take another picture")
    best: tuple[float, Floats, Floats] | None = None
    for fov_deg in _GUESSED_FOVS_DEG:
        focal = one.width / 2 / np.tan(np.radians(fov_deg) / 2)
        columns = np.diag([1 / focal, 1 / focal, 1.0]) @ homography
        columns *= np.sign(columns[2, 2]) * 2 / np.linalg.norm(columns[:, :2], axis=0).sum()  # in front of the camera
        turn = np.column_stack([columns[:, 0], columns[:, 1], np.cross(columns[:, 0], columns[:, 1])])
        left, _, right = np.linalg.svd(turn)
        turn = left @ right
        up = -turn[:, 2] if turn[:, 2] @ columns[:, 2] > 0 else turn[:, 2]  # the side of the board that is seen
        # From the picture's axes (right, down, ahead) to the camera's (ahead, left, up): up is a row of _axes.
        pitch, roll = np.arcsin(np.clip(-up[2], -1, 1)), np.arctan2(-up[0], -up[1])
        axes = _axes(float(pitch), float(roll))
        place, along = (axes @ [v[2], -v[0], -v[1]] for v in (columns[:, 2], turn[:, 0]))
        common = np.array([np.log(focal), np.log(max(1e-3, -place[2])), pitch, roll])
        local = np.array([place[0], place[1], np.arctan2(along[1], along[0])])
        misfit = float(np.sqrt(((_project(common, local, one) - one.corners_px) ** 2).sum(axis=1).mean()))
        if best is None or misfit < best[0]:
            best = misfit, common, local
    assert best is not None
    return best


def _residuals(unknowns: Floats, sightings: Sequence[Sighting], bent: bool) -> Floats:
    """Computed less seen, all in one row. With `bent` the last unknown is the distortion."""
    bend = float(unknowns[-1]) if bent else 0.0
    return np.concatenate(
        [
            (_project(unknowns[:_COMMON], unknowns[_COMMON + 3 * k :][:3], one, bend) - one.corners_px).ravel()
            for k, one in enumerate(sightings)
        ]
    )


def _derivatives(unknowns: Floats, sightings: Sequence[Sighting], bent: bool) -> Floats:
    """Of `_residuals`, numerically. A board's own unknowns move its own corners only, so the rest is not computed."""
    bend = float(unknowns[-1]) if bent else 0.0
    found = np.zeros((2 * sum(len(one.corners_px) for one in sightings), len(unknowns)))
    row = 0
    for k, one in enumerate(sightings):
        begin = _COMMON + 3 * k
        columns = [*range(_COMMON), *range(begin, begin + 3), *([len(unknowns) - 1] if bent else [])]
        values = np.append(np.concatenate([unknowns[:_COMMON], unknowns[begin : begin + 3]]), bend)
        rows = slice(row, row := row + 2 * len(one.corners_px))
        for place, column in enumerate(columns):
            step = np.zeros(len(values))
            step[place] = _STEP
            ahead, behind = (
                _project(at[:_COMMON], at[_COMMON : _COMMON + 3], one, float(at[-1]))
                for at in (values + step, values - step)
            )
            found[rows, column] = ((ahead - behind) / (2 * _STEP)).ravel()
    return found


def _least_squares(
    unknowns: Floats, sightings: Sequence[Sighting], bent: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Levenberg and Marquardt's method; the unknowns, the residuals there and their derivatives."""
    residuals, damping = _residuals(unknowns, sightings, bent), 1e-3
    jacobian = _derivatives(unknowns, sightings, bent)
    for _ in range(_ROUNDS):
        square, slope = jacobian.T @ jacobian, jacobian.T @ residuals
        for _ in range(12):
            # lstsq: where something cannot be told at all, the matrix is singular, and that is found out below.
            step = np.linalg.lstsq(square + damping * np.diag(np.diag(square)), -slope, rcond=None)[0]
            tried = _residuals(unknowns + step, sightings, bent)
            if np.isfinite(tried).all() and tried @ tried < residuals @ residuals:
                break
            damping *= 4
        else:
            break
        gained = residuals @ residuals - tried @ tried
        unknowns, residuals, damping = unknowns + step, tried, max(damping / 5, 1e-9)
        jacobian = _derivatives(unknowns, sightings, bent)
        if gained <= 1e-10 * (residuals @ residuals) + 1e-15:
            break
    return unknowns, residuals, jacobian


def _check(pose: CameraPose, errors: CameraPose, residual_px: float, unknowns: Floats, width: int) -> None:
    """Refuse what nobody should train with."""
    if residual_px > _MOST_RESIDUAL * width:
        raise CameraFault(
            "does_not_fit",
            f"corners are {residual_px:.2f} pixels from where a flat board on the ground would have them "
            f"(allowed: {_MOST_RESIDUAL * width:.2f})",
            cause="the board is bent or not flat on the ground, the camera was moved between pictures, or its lens "
            "bends straight lines strongly",
            next_step="glue the board onto cardboard, leave the camera alone, and take new pictures",
        )
    boards = unknowns[_COMMON:].reshape(-1, 3)
    steepest_deg = float(np.degrees(np.arctan2(np.hypot(boards[:, 0], boards[:, 1]), pose.height_m)).max())
    uncertain = (
        not np.isfinite([errors.horizontal_fov_deg, errors.pitch_down_deg, errors.height_m]).all()
        or errors.horizontal_fov_deg > MAX_ERROR_FOV_DEG
        or errors.pitch_down_deg > MAX_ERROR_PITCH_DEG
        or errors.height_m > MAX_ERROR_HEIGHT_M
    )
    if uncertain and steepest_deg < _LEAST_VIEW_ANGLE_DEG:
        raise CameraFault(
            "face_on",
            "the board is seen from straight above, which does not tell the focal length from the distance",
            cause="the camera looks steeply down onto it",
            next_step="lay the board flat on the ground further ahead of the car",
        )
    if uncertain:
        raise CameraFault(
            "ill_conditioned",
            f"this does not tell the camera's pose well enough: field of view +-{errors.horizontal_fov_deg:.1f} deg, "
            f"pitch +-{errors.pitch_down_deg:.1f} deg, height +-{1e3 * errors.height_m:.1f} mm",
            cause="the board is small in the picture, blurred, or all pictures show it at one place",
            next_step="take more pictures: the board nearer and larger, and once each at the left, right and middle",
        )
    for name, value, (low, high) in (
        ("field of view", pose.horizontal_fov_deg, FOV_DEG), ("pitch", pose.pitch_down_deg, PITCH_DEG),
        ("height", pose.height_m, HEIGHT_M), ("roll", pose.roll_deg, ROLL_DEG),
    ):  # fmt: skip
        if not low <= value <= high:
            unit = "m" if name == "height" else "deg"
            raise CameraFault(
                "out_of_range",
                f"the camera's {name} would be {value:.3g} {unit} ({low:g} to {high:g} are possible)",
                cause="the board does not lie on the ground that the car stands on, or the picture is turned",
                next_step="lay it flat on the same floor; for a camera mounted upside down set camera.rotate_180",
            )


def _warnings(
    sightings: Sequence[Sighting], unknowns: Floats, residuals: Floats, by_picture: Floats, width: int, height: int
) -> tuple[str, ...]:
    found = []
    if not is_4_to_3(width, height):
        found.append(
            f"The picture is {width} x {height}: the policy sees it squeezed to 4 to 3, which the simulator's camera "
            "does not. Set camera.width and camera.height in car.toml to 4 to 3, for instance 640 and 480."
        )
    pinhole = float(np.sqrt((residuals**2).mean()))
    bent, bent_residuals, _ = _least_squares(np.append(unknowns, 0.0), sightings, bent=True)
    straight = float(np.sqrt((bent_residuals**2).mean()))
    if pinhole > _BENT_PX * max(1.0, width / 640) and straight < 0.7 * pinhole:
        found.append(
            f"The lens bends straight lines (k1 about {bent[-1]:+.2f}): the corners are {pinhole:.2f} pixels off, "
            f"with the bend {straight:.2f}. The simulator's camera does not bend; field of view and pitch are those "
            "of the straight camera that comes nearest where the boards lay."
        )
    if len(by_picture) > 2 and by_picture.max() > 4 * np.median(by_picture) and by_picture.max() > 0.3:
        found.append(
            f"Picture {int(np.argmax(by_picture)) + 1} fits much worse than the others: was it blurred, or the car "
            "moved? Take it away and take another one."
        )
    return tuple(found)


def is_4_to_3(width: int, height: int) -> bool:
    """Whether the whole picture is resized to the policy's 160 x 120 without being squeezed (within 1 %)."""
    return abs(3 * width - 4 * height) <= 0.01 * 4 * height
