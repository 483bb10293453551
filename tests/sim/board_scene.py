"""Checkerboards on the ground, drawn by MuJoCo's own renderer from a camera of known pose; not a test itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Board, CameraPose
from sim.mujoco_view import open_gl

Gray = NDArray[np.uint8]
_TEXELS = 48  # of a square
_SUPERSAMPLE = 3


@dataclass(frozen=True)
class Place:
    """Where the board's middle lies: ahead of the lens and left of it; its direction; its white border, in squares."""

    ahead_m: float
    left_m: float = 0.0
    yaw_deg: float = 0.0
    border: float = 0.6


def sheet(board: Board, border: float) -> Gray:
    """The board from above, ``_TEXELS`` to a square."""
    rows, columns = np.mgrid[: board.rows + 1, : board.columns + 1]
    squares = np.where((rows + columns) % 2 == 0, 20, 250).astype(np.uint8)
    return np.pad(np.kron(squares, np.ones((_TEXELS, _TEXELS), np.uint8)), round(border * _TEXELS), constant_values=250)


def draw_board(pose: CameraPose, place: Place, board: Board, width: int = 640, height: int = 480) -> Gray:
    """A picture of it, (height, width), sharp and without noise; each pixel is the mean of its area.

    The pose is turned into MuJoCo's camera here, and not by the code that is being tested.
    """
    texture = sheet(board, place.border)
    half = np.array(texture.shape[::-1]) / _TEXELS * board.square_mm / 2e3
    spec = mujoco.MjSpec()
    look = spec.visual
    look.headlight.ambient, look.headlight.diffuse, look.headlight.specular = [1] * 3, [0] * 3, [0] * 3
    look.quality.shadowsize, look.map.znear = 0, 0.01
    look.global_.offwidth, look.global_.offheight = size = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    spec.add_texture(
        name="sheet", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        width=texture.shape[1], height=texture.shape[0], nchannel=3,
    )  # fmt: skip
    roles = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
    roles[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "sheet"
    spec.add_material(name="sheet", textures=roles, specular=0, shininess=0, reflectance=0)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(type=plane, size=[30, 30, 1], pos=[0, 0, -2e-4], rgba=[0.45, 0.45, 0.45, 1])
    turn = np.radians(place.yaw_deg) / 2
    spec.worldbody.add_geom(
        type=plane, size=[*half, 1], pos=[place.ahead_m, place.left_m, 0], quat=[np.cos(turn), 0, 0, np.sin(turn)],
        material="sheet",
    )  # fmt: skip
    # MuJoCo's camera looks along its -z, y up. Level and ahead, then turned about y (down), then about the view axis.
    level, down, lean = (np.empty(4) for _ in range(3))
    mujoco.mju_mat2Quat(level, np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], dtype=float).ravel())
    mujoco.mju_axisAngle2Quat(down, np.array([0.0, 1, 0]), np.radians(pose.pitch_down_deg))
    mujoco.mju_axisAngle2Quat(lean, np.array([1.0, 0, 0]), np.radians(pose.roll_deg))
    mounted = np.empty(4)
    mujoco.mju_mulQuat(mounted, down, lean)
    mujoco.mju_mulQuat(mounted, mounted.copy(), level)
    tangent = np.tan(np.radians(pose.horizontal_fov_deg) / 2) * height / width
    spec.worldbody.add_camera(
        name="eye", pos=[0, 0, pose.height_m], quat=mounted, fovy=float(np.degrees(2 * np.arctan(tangent)))
    )
    model = spec.compile()
    begin = model.tex_adr[model.texture("sheet").id]
    model.tex_data[begin : begin + 3 * texture.size] = np.repeat(texture.ravel(), 3)
    return np.asarray(cv2.resize(_shot(model, *size), (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _shot(model: Any, width: int, height: int) -> Gray:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    gl = open_gl(width, height)
    try:
        gl.make_current()
        scene = mujoco.MjvScene(model, 100)
        eye = mujoco.MjvCamera()
        eye.type, eye.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, eye, everything, scene)
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        pixels, rect = np.empty((height, width, 3), np.uint8), mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rect, scene, context)
        mujoco.mjr_readPixels(pixels, None, rect, context)
        context.free()
    finally:
        gl.free()
    return np.ascontiguousarray(pixels[::-1, :, 0])


def photograph(picture: Gray, rng: np.random.Generator, blur_px: float = 0.7, noise: float = 4.0) -> Gray:
    """What a cheap camera makes of it: less contrast, out of focus, noisy."""
    soft = cv2.GaussianBlur(picture, (0, 0), blur_px).astype(np.float64)
    return np.clip(0.8 * soft + 15 + rng.normal(0, noise, soft.shape), 0, 255).astype(np.uint8)


def random_pose(rng: np.random.Generator) -> CameraPose:
    """Any mounting that a small car may have."""
    fov, pitch, height, roll = (rng.uniform(*ends) for ends in ((50, 100), (5, 30), (0.08, 0.2), (-3, 3)))
    return CameraPose(float(fov), float(pitch), float(height), float(roll))


def random_place(rng: np.random.Generator, pose: CameraPose, board: Board, yaw_deg: float = 30.0) -> Place:
    """Wholly in a 4 to 3 picture, as near as that allows or up to 5 cm further; not centred, turned."""
    yaw, left_m = float(rng.uniform(-yaw_deg, yaw_deg)), float(rng.uniform(-0.04, 0.04))
    further_m = float(rng.uniform(0, 0.05))
    half = (np.array([board.columns, board.rows]) + 1) / 2 * board.square_mm / 1e3
    for ahead_m in np.arange(0.1, 2.0, 0.01):
        if _inside(pose, Place(float(ahead_m), left_m, yaw), half):
            return Place(float(ahead_m) + further_m, left_m, yaw)
    raise AssertionError(f"no place for {board} in front of {pose}")


def _inside(pose: CameraPose, place: Place, half: NDArray[np.float64]) -> bool:
    """Whether the corners of the squares' outer edge are in the picture."""
    turn, down, lean = np.radians([place.yaw_deg, pose.pitch_down_deg, pose.roll_deg])
    for side in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        x, y = half * side
        ahead = place.ahead_m + x * np.cos(turn) - y * np.sin(turn)
        left = place.left_m + x * np.sin(turn) + y * np.cos(turn)
        depth = ahead * np.cos(down) + pose.height_m * np.sin(down)
        up = ahead * np.sin(down) - pose.height_m * np.cos(down)
        left, up = left * np.cos(lean) + up * np.sin(lean), up * np.cos(lean) - left * np.sin(lean)
        reach = np.tan(np.radians(pose.horizontal_fov_deg) / 2)
        if depth < 0.02 or abs(left) > 0.98 * reach * depth or abs(up) > 0.97 * 0.75 * reach * depth:
            return False
    return True
