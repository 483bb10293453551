"""The reference camera: the road camera's scene drawn by MuJoCo's own renderer, for judging the fast one by.

Ground, barrier and boxes stand where ``sim.camera_kernel`` puts them, their grays are the surface's own (flat light, no
cast shadows), and pictures are drawn at 640x480 and area-averaged to 160x120: a webcam's frame, each of whose pixels
counts. Light, lens and sensor are then the road camera's. What differs on purpose: the sky is one gray, the panorama's
mean.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import platform
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from sim import camera_kernel as kernel
from sim.camera import Optics, RoadCamera
from sim.errors import SimError
from sim.look import Surface

Floats = NDArray[np.float64]
Frames = NDArray[np.uint8]
Ints = NDArray[np.int64]
T = TypeVar("T")

SUPERSAMPLE = 4  # 640x480, a webcam's picture; within 0.2 grays of 8, where 2 is 0.5 away
_VIEWS = 24  # surfaces kept ready, about 16 MB each
_PAD = 64  # texels of repeated border, so that no pyramid level blends opposite borders of the texture
_BEYOND_M = 60.0  # of ground around the texture, in the gray of its border
_NEAR_M, _FAR_M = 0.02, 150.0
_SHADOW_LENGTH_M = 40.0
_SHADOW_LIFT_M = 2e-4  # above the ground that it darkens
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def camera_frame(pose: Floats, cam: Floats) -> Floats:
    """Position, forward, left and up of a camera in the world, rows of (4, 3).

    Args:
        pose: (7,) position and quaternion of the car; cam: a row of ``RoadCamera.cams``.
    """

    def matrix(quaternion: Floats) -> Floats:
        flat = np.empty(9)
        mujoco.mju_quat2Mat(flat, quaternion)
        return flat.reshape(3, 3)

    def turn(axis: int, angle_rad: float) -> Floats:
        quaternion = np.empty(4)
        mujoco.mju_axisAngle2Quat(quaternion, np.eye(3)[axis], angle_rad)
        return matrix(quaternion)

    body = matrix(pose[3:])
    # Yaw, then pitch down, then roll about the view axis.
    mounting = turn(2, cam[kernel.CAM_YAW]) @ turn(1, cam[kernel.CAM_PITCH]) @ turn(0, cam[kernel.CAM_ROLL])
    position = pose[:3] + body @ np.array([cam[kernel.CAM_FORWARD], 0.0, cam[kernel.CAM_HEIGHT]])
    return np.concatenate([position[None], (body @ mounting).T])


def _scene(surface: Surface, size_px: tuple[int, int]) -> Any:
    """The MuJoCo model of a surface: textured ground, barrier panels seen from inside only, sky."""
    spec = mujoco.MjSpec()
    look = spec.visual
    look.headlight.ambient, look.headlight.diffuse, look.headlight.specular = [1] * 3, [0] * 3, [0] * 3
    look.quality.shadowsize, look.quality.offsamples = 0, 0
    look.global_.offwidth, look.global_.offheight = size_px
    sky = [float(surface.panorama.mean()) / 255] * 3
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT, rgb1=sky,
        rgb2=sky, width=8, height=48,
    )  # fmt: skip

    padded = np.pad(surface.base, _PAD, mode="edge")
    rows, columns = padded.shape
    spec.add_texture(  # a placeholder of the right size, painted below: a list of millions of numbers takes seconds
        name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT, width=columns,
        height=rows, nchannel=3,
    )  # fmt: skip
    textures = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
    textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "ground"
    spec.add_material(name="ground", textures=textures, specular=0, shininess=0, reflectance=0)
    spec.add_material(name="panel", specular=0, shininess=0, reflectance=0)

    def add(
        name: str, vertices: Floats, faces: NDArray[np.int32], uv: Floats | None, material: str, gray: float
    ) -> None:
        mesh = spec.add_mesh(name=name, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
        mesh.uservert, mesh.userface = vertices.ravel().tolist(), faces.ravel().tolist()
        if uv is not None:
            mesh.usertexcoord, mesh.userfacetexcoord = uv.ravel().tolist(), faces.ravel().tolist()
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=material, rgba=[gray, gray, gray, 1],
            contype=0, conaffinity=0,
        )  # fmt: skip

    # Nine patches: the textured one, and around it the texture's border drawn out, by texture coordinates that stand
    # still.
    height, width = surface.base.shape
    (x, y), ppm = surface.origin_m, surface.pixels_per_m
    xs = np.array([x - _BEYOND_M, x, x + width / ppm, x + width / ppm + _BEYOND_M])
    ys = np.array([y - _BEYOND_M, y, y + height / ppm, y + height / ppm + _BEYOND_M])
    us, vs = (np.array([_PAD, _PAD, _PAD + n, _PAD + n]) for n in (width, height))
    gx, gy = np.meshgrid(xs, ys)
    gu, gv = np.meshgrid(us / columns, vs / rows)
    corner = np.array([0, 1, 2, 4, 5, 6, 8, 9, 10])[:, None]
    faces = np.concatenate([corner + [0, 1, 5], corner + [0, 5, 4]]).astype(np.int32)
    ground = np.stack([gx, gy, np.zeros_like(gx)], axis=-1).reshape(-1, 3)
    add("ground", ground, faces, np.stack([gu, gv], axis=-1).reshape(-1, 2), "ground", 1.0)

    # The polygon runs counter-clockwise; faces wound this way look inwards, and MuJoCo culls what is seen from behind.
    panel = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    for index, (a, b) in enumerate(zip(surface.barrier_m, np.roll(surface.barrier_m, -1, axis=0), strict=True)):
        low, high = np.zeros(1), np.full(1, surface.barrier_height_m)
        corners = np.stack([np.r_[a, low], np.r_[b, low], np.r_[b, high], np.r_[a, high]])
        add(f"panel{index}", corners, panel, None, "panel", float(surface.barrier_gray[index]) / 255)
    model = spec.compile()
    begin = model.tex_adr[model.texture("ground").id]
    model.tex_data[begin : begin + 3 * padded.size] = np.repeat(padded, 3)  # row 0 is at v = 0
    return model


class _View:
    """One surface, ready to be drawn. Made, used and freed in the thread where the OpenGL context is current."""

    def __init__(self, surface: Surface, boxes: int, size_px: tuple[int, int]) -> None:
        self._model = _scene(surface, size_px)
        data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, data)
        self._scene = mujoco.MjvScene(self._model, self._model.ngeom + boxes + 1)
        mujoco.mjv_updateScene(
            self._model, data, mujoco.MjvOption(), None, mujoco.MjvCamera(), mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        self._own_geoms = self._scene.ngeom
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._rect = mujoco.MjrRect(0, 0, *size_px)
        self._pixels = np.empty((self._rect.height, self._rect.width, 3), np.uint8)

    def draw(self, axes: Floats, focal_px: float, boxes: Floats, light: Floats) -> Frames:
        """One picture, (120, 160).

        Args:
            axes: of ``camera_frame``.
            focal_px: focal length in pixels of a picture 160 wide.
            boxes: (k, BOX_COLUMNS).
            light: (FX_COLUMNS,) of which the shadow band is drawn.
        """
        half = _NEAR_M / focal_px / 2
        for camera in self._scene.camera:  # MuJoCo averages its two eyes
            camera.pos, camera.forward, camera.up = axes[0], axes[1], axes[3]
            camera.frustum_near, camera.frustum_far = _NEAR_M, _FAR_M
            camera.frustum_center, camera.frustum_width = 0.0, half * kernel.WIDTH
            camera.frustum_bottom, camera.frustum_top = -half * kernel.HEIGHT, half * kernel.HEIGHT
        self._scene.ngeom = self._own_geoms
        for box in boxes:
            size = np.array([box[kernel.BOX_HALF_LENGTH], box[kernel.BOX_HALF_WIDTH], box[kernel.BOX_HEIGHT] / 2])
            place = np.array([box[kernel.BOX_X], box[kernel.BOX_Y], size[2]])
            gray = float(box[kernel.BOX_GRAY]) / 255
            self._add(mujoco.mjtGeom.mjGEOM_BOX, size, place, float(box[kernel.BOX_YAW]), gray)
        picture = self._shoot()
        strength = float(light[kernel.FX_SHADOW])
        if strength > 0:
            # A blend with a second picture in which the strip is black: MuJoCo 3.17 draws what is see-through twice.
            normal = light[[kernel.FX_SHADOW_NX, kernel.FX_SHADOW_NY]]
            foot = axes[0, :2] + normal * (light[kernel.FX_SHADOW_C] - normal @ axes[0, :2])
            size = np.array([light[kernel.FX_SHADOW_HALF], _SHADOW_LENGTH_M, 1.0])
            yaw_rad = float(np.arctan2(normal[1], normal[0]))
            self._add(mujoco.mjtGeom.mjGEOM_PLANE, size, np.array([*foot, _SHADOW_LIFT_M]), yaw_rad, 0.0)
            picture = cv2.addWeighted(picture, 1 - strength, self._shoot(), strength, 0)
        return np.asarray(cv2.resize(picture, (kernel.WIDTH, kernel.HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)

    def _shoot(self) -> Any:
        # Every time: another surface's buffer may be bound.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        # Everything is gray, so one channel is the picture; OpenGL's rows run upwards.
        return cv2.extractChannel(self._pixels, 0)[::-1]

    def _add(self, kind: Any, size: Floats, place: Floats, yaw_rad: float, gray: float) -> None:
        cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
        turned = np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
        geom = self._scene.geoms[self._scene.ngeom]
        mujoco.mjv_initGeom(geom, kind, size, place, turned, np.array([gray, gray, gray, 1], np.float32))
        geom.category, geom.objtype, geom.objid, geom.segid = mujoco.mjtCatBit.mjCAT_DECOR, 0, -1, -1
        geom.specular, geom.shininess, geom.reflectance, geom.emission = 0, 0, 0, 0
        self._scene.ngeom += 1

    def free(self) -> None:
        """Give textures and buffers back to OpenGL."""
        self._context.free()


class MujocoCamera:
    """Draws what ``road_camera`` draws, with MuJoCo's renderer; takes its place in a ``BatchEnv``.

    Surfaces, optics and boxes stay the road camera's. OpenGL lives in one thread that this object owns: ``close`` it.

    Args:
        road_camera: whose cars to draw.
        supersample: a pixel is the mean of this many times this many.

    Raises:
        SimError: no OpenGL works here.
    """

    def __init__(self, road_camera: RoadCamera, supersample: int = SUPERSAMPLE) -> None:
        self.road = road_camera
        self._size_px = (kernel.WIDTH * supersample, kernel.HEIGHT * supersample)
        self._views: OrderedDict[int, _View] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "hotlap-opengl")
        self._gl: Any = None
        try:
            self._in_thread(self._open)
        except BaseException:
            self.close()
            raise

    # What a BatchEnv writes to is the road camera's own.
    @property
    def n(self) -> int:
        """How many cars."""
        return self.road.n

    @property
    def surface(self) -> Ints:
        """(n,) index of the surface that each car is on. A live view."""
        return self.road.surface

    @property
    def boxes(self) -> Floats:
        """(n, k, BOX_COLUMNS), see ``sim.camera_kernel``. A live view."""
        return self.road.boxes

    @property
    def box_counts(self) -> Ints:
        """(n,) how many boxes of each car exist. A live view."""
        return self.road.box_counts

    def set_optics(self, ids: Ints, optics: Optics) -> None:
        """Give the cars ``ids`` (k,) their cameras."""
        self.road.set_optics(ids, optics)

    def apply_lens(self, frames: Frames, seeds: NDArray[np.uint64], ids: Ints | None = None) -> None:
        """As ``RoadCamera.apply_lens``."""
        self.road.apply_lens(frames, seeds, ids)

    def render(
        self, poses: Floats, seeds: NDArray[np.uint64], out: Frames, ids: Ints | None = None, lens: bool = True
    ) -> None:
        """Draw what the cars see; arguments as ``RoadCamera.render``.

        Raises:
            SimError: the camera is closed.
        """
        cars = np.arange(self.road.n) if ids is None else np.asarray(ids)
        frames = np.empty((len(cars), kernel.HEIGHT, kernel.WIDTH), np.uint8)
        self._in_thread(lambda: self._draw(cars, poses, frames))
        if lens:
            self.road.apply_lens(frames, seeds, cars)
        out[cars] = frames

    def close(self) -> None:
        """Free everything of OpenGL and stop its thread. Closing twice is fine."""
        if self._thread is not None:
            self._in_thread(self._free)
            self._thread.shutdown(wait=True)
            self._thread = None

    def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise SimError("the MuJoCo camera is closed", cause="it was used after close()")
        return self._thread.submit(work).result()

    def _open(self) -> None:
        self._gl = open_gl(*self._size_px)
        self._gl.make_current()

    def _draw(self, cars: Ints, poses: Floats, frames: Frames) -> None:
        road = self.road
        # Surface by surface, so that each is made at most once in a call even where they are more than are kept.
        for row in np.argsort(road.surface[cars], kind="stable"):
            car = cars[row]
            axes, focal_px = camera_frame(poses[car], road.cams[car]), float(road.cams[car, kernel.CAM_FOCAL])
            boxes = road.boxes[car, : road.box_counts[car]]
            frames[row] = self._view(int(road.surface[car])).draw(axes, focal_px, boxes, road._fx[car])

    def _view(self, index: int) -> _View:
        view = self._views.pop(index, None)
        if view is None:
            view = _View(self.road.atlas.surfaces[index], self.road.boxes.shape[1], self._size_px)
        self._views[index] = view
        if len(self._views) > _VIEWS:
            self._views.popitem(last=False)[1].free()
        return view

    def _free(self) -> None:
        while self._views:
            self._views.popitem()[1].free()
        if self._gl is not None:
            self._gl.free()
            self._gl = None


def open_gl(width_px: int, height_px: int) -> Any:
    """An OpenGL context without a window: EGL, else OSMesa, or what ``MUJOCO_GL`` names.

    ``mujoco.Renderer`` decides by ``MUJOCO_GL`` when mujoco is first imported, and takes GLFW, which needs a display,
    where it is not set; physics has imported mujoco long before somebody wants a picture, so it is decided here.

    Raises:
        SimError: none works; says which package to install.
    """
    linux = platform.system() == "Linux"
    wish = os.environ.get("MUJOCO_GL", "").strip().lower()
    failures = []
    for name in (wish,) if wish in _LIBRARIES else tuple(_LIBRARIES):
        if linux and ctypes.util.find_library(_LIBRARIES[name]) is None:
            # Not even tried: a failed import leaves PyOpenGL bound to a library that is not there.
            failures.append(f"{name}: lib{_LIBRARIES[name]} is not installed")
            continue
        try:
            module = importlib.import_module(f"mujoco.{name}" if linux else "mujoco.gl_context")
            # Only now: the first part of PyOpenGL that is imported binds it to a platform, which mujoco.egl chooses.
            gl_error = importlib.import_module("OpenGL.error").Error
        except (ImportError, AttributeError, OSError) as error:
            failures.append(f"{name}: {error}")
            continue
        try:
            return module.GLContext(width_px, height_px)
        except (gl_error, ImportError, AttributeError, RuntimeError) as error:
            failures.append(f"{name}: {error}")
    raise SimError(
        f"no OpenGL for MuJoCo's renderer ({'; '.join(failures)})",
        cause="the system has no OpenGL that works without a screen",
        next_step="sudo apt-get install libegl1 libgl1-mesa-dri (or libosmesa6), or choose --renderer fast without it",
    )
