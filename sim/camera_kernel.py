"""The road camera's inner loops (numba). Everything is a plain array; ``sim.camera`` gives them names.

The road is flat, so a picture of it is a projective map of a texture: the ray through pixel (u, v) is linear in u and
v, it meets the ground at ``C - C_z * ray / ray_z``, and that point picks a texel. The texel comes from the pyramid
level whose texels are as large as the pixel's footprint on the ground (geometric mean of its two sides), interpolated
bilinearly. Barriers are polygons, projected corner by corner and filled column by column with partly covered end pixels
blended; boxes are the outlines of their projected corners, blended on all sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

HEIGHT, WIDTH = 120, 160
# Columns of the camera parameters of a car.
CAM_FORWARD, CAM_HEIGHT, CAM_PITCH, CAM_ROLL, CAM_YAW, CAM_FOCAL, CAM_COLUMNS = 0, 1, 2, 3, 4, 5, 6
# Columns of the light parameters of a car.
FX_BLUR, FX_VIGNETTE, FX_NOISE, FX_SHADOW, FX_SHADOW_NX, FX_SHADOW_NY, FX_SHADOW_C, FX_SHADOW_HALF, FX_COLUMNS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8,
)  # fmt: skip
# Columns of a box: middle, heading, half sizes, height, gray.
BOX_X, BOX_Y, BOX_YAW, BOX_HALF_LENGTH, BOX_HALF_WIDTH, BOX_HEIGHT, BOX_GRAY, BOX_COLUMNS = 0, 1, 2, 3, 4, 5, 6, 7
NOISE_SIZE = 1 << 16  # plus one row, so that a row may start anywhere
PANORAMA_ROWS, PANORAMA_COLUMNS = 64, 512
_HORIZON = -0.004  # rays flatter than this see the background: beyond 32 m for a camera at 0.127 m
_NEAR_M = 0.02
_f = np.float32
_u = np.uint32
_i = np.int32

_JIT: dict[str, Any] = {
    "cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}  # fmt: skip


@njit(**_JIT)
def _axes(pose, cam, out):
    """Camera position and its forward, left and up axes in the world, rows of ``out`` (4, 3)."""
    w, x, y, z = pose[3], pose[4], pose[5], pose[6]
    rotation = np.empty((3, 3))
    rotation[0, 0], rotation[0, 1], rotation[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    rotation[1, 0], rotation[1, 1], rotation[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    rotation[2, 0], rotation[2, 1], rotation[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    cp, sp = np.cos(cam[CAM_PITCH]), np.sin(cam[CAM_PITCH])
    cy, sy = np.cos(cam[CAM_YAW]), np.sin(cam[CAM_YAW])
    cr, sr = np.cos(cam[CAM_ROLL]), np.sin(cam[CAM_ROLL])
    # Body frame: yaw, then pitch down, then roll about the view axis.
    forward = (cy * cp, sy * cp, -sp)
    left0 = (-sy, cy, 0.0)
    up0 = (cy * sp, sy * sp, cp)
    for i in range(3):
        out[0, i] = pose[i] + rotation[i, 0] * cam[CAM_FORWARD] + rotation[i, 2] * cam[CAM_HEIGHT]
        ahead, left, up = 0.0, 0.0, 0.0
        for k in range(3):
            ahead += rotation[i, k] * forward[k]
            left += rotation[i, k] * (cr * left0[k] + sr * up0[k])
            up += rotation[i, k] * (cr * up0[k] - sr * left0[k])
        out[1, i], out[2, i], out[3, i] = ahead, left, up


@njit(**_JIT)
def _ground(
    frame, axes, focal, texels, base, offsets, widths, heights, ppm, origin, fx, panorama, columns, idx, wx, wy, value
):  # fmt: skip
    """Ground below the horizon, panorama above it."""
    half, zero = _f(0.5), _f(0)
    middle_u, middle_v = _f(WIDTH / 2 - 0.5), _f(HEIGHT / 2 - 0.5)
    cz = _f(axes[0, 2])
    forward_x, forward_y, forward_z = _f(axes[1, 0]), _f(axes[1, 1]), _f(axes[1, 2])
    left_x, left_y, left_z = _f(axes[2, 0]), _f(axes[2, 1]), _f(axes[2, 2])
    up_x, up_y, up_z = _f(axes[3, 0]), _f(axes[3, 1]), _f(axes[3, 2])
    f = _f(focal)
    inverse_f = _f(1) / f
    shadow = fx[FX_SHADOW] > 0
    lit = _f(1 - fx[FX_SHADOW])
    for v in range(HEIGHT):
        b = (middle_v - _f(v)) * inverse_f
        ax = forward_x + b * up_x + middle_u * inverse_f * left_x
        ay = forward_y + b * up_y + middle_u * inverse_f * left_y
        az = forward_z + b * up_z + middle_u * inverse_f * left_z
        dx, dy, dz = -left_x * inverse_f, -left_y * inverse_f, -left_z * inverse_f
        last = az + _f(WIDTH - 1) * dz
        first_sky, last_sky = az > _f(_HORIZON), last > _f(_HORIZON)
        if first_sky or last_sky:
            for u in range(WIDTH):
                ray_z = az + _f(u) * dz
                if ray_z > _f(_HORIZON):
                    row = PANORAMA_ROWS - 1 - int(ray_z * _f(PANORAMA_ROWS / 0.8))
                    row = min(max(row, 0), PANORAMA_ROWS - 1)
                    frame[v, u] = panorama[row, columns[u]]
            if first_sky and last_sky:
                continue
        # Footprint of the row's middle pixel: across t / f, along t^2 / (f * height).
        ray_z = min(az + middle_u * dz, _f(_HORIZON))
        t = -cz / ray_z
        footprint = t * inverse_f * np.sqrt(t / max(cz, _f(0.01))) * _f(ppm)
        level = 0
        scale = _f(ppm)
        while footprint > _f(1.4) and level < 6:
            footprint *= half
            scale *= half
            level += 1
        w = _i(widths[level])
        start = base + offsets[level]
        right, bottom = _f(widths[level] - 1), _f(heights[level] - 1)
        k = -cz * scale
        cx = _f((axes[0, 0] - origin[0]) * scale) - half
        cy = _f((axes[0, 1] - origin[1]) * scale) - half
        for u in range(WIDTH):
            inverse = k / min(az + _f(u) * dz, _f(_HORIZON))
            x = cx + (ax + _f(u) * dx) * inverse
            y = cy + (ay + _f(u) * dy) * inverse
            x = zero if x < zero else x
            x = right if x > right else x
            y = zero if y < zero else y
            y = bottom if y > bottom else y
            ix, iy = _i(x), _i(y)
            wx[u] = x - _f(ix)
            wy[u] = y - _f(iy)
            idx[u] = _u(iy * w + ix)
        for u in range(WIDTH):  # reads from memory alone, so that the arithmetic before and after is vectorised
            idx[u] = texels[start + np.uint64(_u(idx[u]))]
        for u in range(WIDTH):
            word = idx[u]
            a, b1 = _f(_i(word & _u(255))), _f(_i((word >> _u(8)) & _u(255)))
            c1, d = _f(_i((word >> _u(16)) & _u(255))), _f(_i(word >> _u(24)))
            above, below = a + (b1 - a) * wx[u], c1 + (d - c1) * wx[u]
            value[u] = above + (below - above) * wy[u]
        if shadow:
            nx, ny = _f(fx[FX_SHADOW_NX]), _f(fx[FX_SHADOW_NY])
            c = _f(fx[FX_SHADOW_C] - fx[FX_SHADOW_NX] * axes[0, 0] - fx[FX_SHADOW_NY] * axes[0, 1])
            band = _f(fx[FX_SHADOW_HALF])
            for u in range(WIDTH):
                inverse = -cz / min(az + _f(u) * dz, _f(_HORIZON))
                distance = (nx * (ax + _f(u) * dx) + ny * (ay + _f(u) * dy)) * inverse - c
                value[u] *= lit if abs(distance) < band else _f(1)
        if first_sky or last_sky:
            for u in range(WIDTH):
                if az + _f(u) * dz <= _f(_HORIZON):
                    frame[v, u] = np.uint8(_i(value[u] + half))
        else:
            for u in range(WIDTH):
                frame[v, u] = np.uint8(_i(value[u] + half))


@njit(**_JIT)
def _polygon(frame, axes, focal, corners, count, gray, scratch, low, high):
    """Fill a convex polygon of ``count`` world points (``corners``), clipped to what lies ahead of the camera."""
    # World to camera, then Sutherland-Hodgman against the near plane. scratch: (2, 16, 3)
    kept = 0
    for i in range(count):
        for axis in range(3):
            total = 0.0
            for k in range(3):
                total += (corners[i, k] - axes[0, k]) * axes[1 + axis, k]
            scratch[0, i, axis] = total
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        di, dj = scratch[0, i, 0], scratch[0, j, 0]
        if di >= _NEAR_M:
            for k in range(3):
                scratch[1, kept, k] = scratch[0, i, k]
            kept += 1
        if (di >= _NEAR_M) != (dj >= _NEAR_M):
            t = (_NEAR_M - di) / (dj - di)
            for k in range(3):
                scratch[1, kept, k] = scratch[0, i, k] + t * (scratch[0, j, k] - scratch[0, i, k])
            kept += 1
    if kept < 3:
        return
    left, right = 1e9, -1e9
    for i in range(kept):
        depth = scratch[1, i, 0]
        scratch[0, i, 0] = WIDTH / 2 - focal * scratch[1, i, 1] / depth
        scratch[0, i, 1] = HEIGHT / 2 - focal * scratch[1, i, 2] / depth
        left, right = min(left, scratch[0, i, 0]), max(right, scratch[0, i, 0])
    first = max(0, int(np.ceil(max(left, 0.0) - 0.5)))
    last = min(WIDTH - 1, int(np.floor(min(right, WIDTH + 1.0) - 0.5)))
    if first > last:
        return
    for u in range(first, last + 1):
        low[u], high[u] = 1e9, -1e9
    for i in range(kept):
        j = i + 1 if i + 1 < kept else 0
        x0, y0, x1, y1 = scratch[0, i, 0], scratch[0, i, 1], scratch[0, j, 0], scratch[0, j, 1]
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        start, stop = max(first, int(np.ceil(max(x0, 0.0) - 0.5))), min(last, int(np.floor(min(x1, WIDTH + 1.0) - 0.5)))
        if x1 - x0 < 1e-9:
            continue
        slope = (y1 - y0) / (x1 - x0)
        for u in range(start, stop + 1):
            y = y0 + slope * (u + 0.5 - x0)
            low[u], high[u] = min(low[u], y), max(high[u], y)
    for u in range(first, last + 1):
        top, bottom = max(low[u], 0.0), min(high[u], float(HEIGHT))
        if bottom <= top:
            continue
        row, end = int(top), int(bottom)
        if row == end:
            frame[row, u] = np.uint8(frame[row, u] + (bottom - top) * (gray - frame[row, u]) + 0.5)
            continue
        cover = row + 1 - top
        frame[row, u] = np.uint8(frame[row, u] + cover * (gray - frame[row, u]) + 0.5)
        for v in range(row + 1, end):
            frame[v, u] = np.uint8(gray)
        if end < HEIGHT:
            frame[end, u] = np.uint8(frame[end, u] + (bottom - end) * (gray - frame[end, u]) + 0.5)


@njit(**_JIT)
def _standing(
    frame, axes, focal, barrier, barrier_height, barrier_gray, boxes, corners, scratch, low, high, order, hull
):  # fmt: skip
    """The barrier's inner sides, then boxes from far to near (boxes stand inside the barrier)."""
    count = len(barrier)
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        ax, ay, bx, by = barrier[i, 0], barrier[i, 1], barrier[j, 0], barrier[j, 1]
        # Inside of a counter-clockwise polygon is on the left of its edges; from outside a wall is not seen.
        if (bx - ax) * (axes[0, 1] - ay) - (by - ay) * (axes[0, 0] - ax) <= 0:
            continue
        corners[0, 0], corners[0, 1], corners[0, 2] = ax, ay, 0.0
        corners[1, 0], corners[1, 1], corners[1, 2] = bx, by, 0.0
        corners[2, 0], corners[2, 1], corners[2, 2] = bx, by, barrier_height
        corners[3, 0], corners[3, 1], corners[3, 2] = ax, ay, barrier_height
        _polygon(frame, axes, focal, corners, 4, barrier_gray[i], scratch, low, high)
    n = 0
    for i in range(len(boxes)):  # farthest first, as far as that is enough; behind the camera there is nothing to see
        ahead = axes[1, 0] * (boxes[i, BOX_X] - axes[0, 0]) + axes[1, 1] * (boxes[i, BOX_Y] - axes[0, 1])
        if ahead < -boxes[i, BOX_HALF_LENGTH] - boxes[i, BOX_HALF_WIDTH] - boxes[i, BOX_HEIGHT]:
            continue
        order[n] = i
        j = n
        n += 1
        while j > 0 and _far(boxes, order[j], axes) > _far(boxes, order[j - 1], axes):
            order[j], order[j - 1] = order[j - 1], order[j]
            j -= 1
    for i in range(n):
        pick = i
        for j in range(i, n):  # the first that hides none of the others that are left
            free = True
            for other in range(i, n):
                if other != j and _hides(boxes[order[j]], boxes[order[other]], axes):
                    free = False
                    break
            if free:
                pick = j
                break
        chosen = order[pick]
        for j in range(pick, i, -1):
            order[j] = order[j - 1]
        order[i] = chosen
        _box(frame, axes, focal, boxes[chosen], hull)


@njit(inline="always", **_JIT)
def _far(boxes, i, axes):
    return (boxes[i, BOX_X] - axes[0, 0]) ** 2 + (boxes[i, BOX_Y] - axes[0, 1]) ** 2


@njit(**_JIT)
def _side(box, side, x, y):
    """How far a point is out of a box's side (0 ahead, 1 left, 2 back, 3 right), metres."""
    cos, sin = np.cos(box[BOX_YAW]), np.sin(box[BOX_YAW])
    dx, dy = x - box[BOX_X], y - box[BOX_Y]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    if side % 2 == 0:
        return (along if side == 0 else -along) - box[BOX_HALF_LENGTH]
    return (across if side == 1 else -across) - box[BOX_HALF_WIDTH]


@njit(**_JIT)
def _beyond(box, side, other):
    """Whether all of ``other`` is out of that side of ``box``."""
    cos, sin = np.cos(other[BOX_YAW]), np.sin(other[BOX_YAW])
    for corner in range(4):
        along = other[BOX_HALF_LENGTH] if corner < 2 else -other[BOX_HALF_LENGTH]
        across = other[BOX_HALF_WIDTH] if corner % 2 == 0 else -other[BOX_HALF_WIDTH]
        x, y = other[BOX_X] + cos * along - sin * across, other[BOX_Y] + sin * along + cos * across
        if _side(box, side, x, y) < 0:
            return False
    return True


@njit(**_JIT)
def _hides(front, back, axes):
    """Whether ``front`` may hide a part of ``back``: a side of either parts them, and the camera is with ``front``."""
    for side in range(4):
        if _beyond(front, side, back):
            return _side(front, side, axes[0, 0], axes[0, 1]) < 0
    for side in range(4):
        if _beyond(back, side, front):
            return _side(back, side, axes[0, 0], axes[0, 1]) >= 0
    return False


@njit(**_JIT)
def _box(frame, axes, focal, box, hull):
    """Fill a box's outline: it is of one gray, so its outline is all there is to see. ``hull``: (4, 24, 3)."""
    cos, sin = np.cos(box[BOX_YAW]), np.sin(box[BOX_YAW])
    corners, points, outline = hull[0], hull[1], hull[2]
    for i in range(8):  # the three bits of i: back, right, top
        along = -box[BOX_HALF_LENGTH] if i & 1 else box[BOX_HALF_LENGTH]
        across = -box[BOX_HALF_WIDTH] if i & 2 else box[BOX_HALF_WIDTH]
        dx = box[BOX_X] + cos * along - sin * across - axes[0, 0]
        dy = box[BOX_Y] + sin * along + cos * across - axes[0, 1]
        dz = (box[BOX_HEIGHT] if i & 4 else 0.0) - axes[0, 2]
        for k in range(3):
            corners[i, k] = dx * axes[1 + k, 0] + dy * axes[1 + k, 1] + dz * axes[1 + k, 2]
    count = 0
    for i in range(8):
        if corners[i, 0] >= _NEAR_M:
            count = _project(points, count, focal, corners[i, 0], corners[i, 1], corners[i, 2])
        for bit in (1, 2, 4):  # edges that cross the near plane
            j = i | bit
            if j != i and (corners[i, 0] >= _NEAR_M) != (corners[j, 0] >= _NEAR_M):
                t = (_NEAR_M - corners[i, 0]) / (corners[j, 0] - corners[i, 0])
                left = corners[i, 1] + t * (corners[j, 1] - corners[i, 1])
                up = corners[i, 2] + t * (corners[j, 2] - corners[i, 2])
                count = _project(points, count, focal, _NEAR_M, left, up)
    if count < 3:
        return
    for i in range(1, count):  # by column, then by row
        j = i
        while j > 0 and (points[j, 0], points[j, 1]) < (points[j - 1, 0], points[j - 1, 1]):
            for k in range(2):
                points[j, k], points[j - 1, k] = points[j - 1, k], points[j, k]
            j -= 1
    # Upper and lower chain of the convex hull (Andrew's monotone chain): the rows where each column begins and ends.
    _fill(
        frame,
        outline,
        _chain(points, count, outline, -1.0),
        hull[3],
        _chain(points, count, hull[3], 1.0),
        box[BOX_GRAY],
    )


@njit(**_JIT)
def _project(points, count, focal, depth, left, up):
    points[count, 0] = WIDTH / 2 - focal * left / depth
    points[count, 1] = HEIGHT / 2 - focal * up / depth
    return count + 1


@njit(**_JIT)
def _chain(points, count, chain, sign):
    """One side of the convex hull of sorted points, left to right; returns how many points it has."""
    size = 0
    for i in range(count):
        x, y = points[i, 0], points[i, 1]
        while size >= 2:
            ax, ay, bx, by = chain[size - 2, 0], chain[size - 2, 1], chain[size - 1, 0], chain[size - 1, 1]
            if sign * ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) < 0:
                break
            size -= 1
        chain[size, 0], chain[size, 1] = x, y
        size += 1
    return size


@njit(**_JIT)
def _fill(frame, upper, uppers, lower, lowers, gray):
    """Fill between two chains of points; pixels that are partly covered, at any side, are blended."""
    left, right = upper[0, 0], upper[uppers - 1, 0]
    first, last = int(np.floor(min(max(left, 0.0), WIDTH))), int(np.ceil(max(min(right, float(WIDTH)), 0.0)))
    i = j = 0
    for u in range(first, last):
        begin, end = max(left, float(u)), min(right, u + 1.0)
        share = end - begin
        if share <= 0:
            continue
        x = 0.5 * (begin + end)
        while i < uppers - 2 and upper[i + 1, 0] < x:
            i += 1
        while j < lowers - 2 and lower[j + 1, 0] < x:
            j += 1
        top = max(_at(upper, i, x), 0.0)
        bottom = min(_at(lower, j, x), float(HEIGHT))
        if bottom <= top:
            continue
        row, stop = int(top), int(np.ceil(bottom))
        for v in range(row, stop):
            cover = share * (min(bottom, v + 1.0) - max(top, float(v)))
            frame[v, u] = np.uint8(frame[v, u] + cover * (gray - frame[v, u]) + 0.5)


@njit(inline="always", **_JIT)
def _at(chain, i, x):
    run = chain[i + 1, 0] - chain[i, 0]
    return chain[i, 1] if run < 1e-9 else chain[i, 1] + (chain[i + 1, 1] - chain[i, 1]) * (x - chain[i, 0]) / run


@njit(**_JIT)
def _lens(frame, fx, lut, noise, seed, previous, current, index, radius):
    """What lens and sensor do: blur, vignette, response curve (``lut``), noise.

    In float32 throughout: numba widens products of 32-bit integers to 64 bits, which halves the lanes of a vector.
    """
    half = _f(0.5)
    if fx[FX_BLUR] > 0:
        side = _f(0.25 * fx[FX_BLUR])  # for each neighbour: 1 / 4 is the full [1 2 1] / 4
        centre = _f(1) - _f(2) * side
        for u in range(WIDTH):
            previous[u] = _f(frame[0, u])
        for v in range(HEIGHT):
            below = min(v + 1, HEIGHT - 1)
            for u in range(WIDTH):
                current[u + 1] = centre * _f(frame[v, u]) + side * (previous[u] + _f(frame[below, u]))
            for u in range(WIDTH):
                previous[u] = _f(frame[v, u])
            current[0], current[WIDTH + 1] = current[1], current[WIDTH]
            for u in range(WIDTH):
                frame[v, u] = np.uint8(_i(side * (current[u] + current[u + 2]) + centre * current[u + 1] + half))
    vignette = _f(fx[FX_VIGNETTE])
    amplitude = _f(fx[FX_NOISE] / 32)  # 32 is the table's standard deviation
    state = np.uint64(seed)
    for v in range(HEIGHT):
        # A multiplicative hash of the frame's seed and the row picks where in the noise table the row starts.
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        start = np.int64((state >> np.uint64(33)) & np.uint64(NOISE_SIZE - 1))
        row = radius[0, v]
        grains = noise[start : start + WIDTH]
        for u in range(WIDTH):
            index[u] = _u(_i(_f(frame[v, u]) * (_f(1) - vignette * (row + radius[1, u])) + half))
        for u in range(WIDTH):
            current[u] = _f(lut[index[u]])
        for u in range(WIDTH):
            value = current[u] + _f(grains[u]) * amplitude + half
            value = _f(0) if value < _f(0) else value
            value = _f(255) if value > _f(255) else value
            frame[v, u] = np.uint8(_i(value))


@njit(**_JIT)
def render(
    frames, begin, end, poses, cams, surface, texels, bases, offsets, widths, heights, ppms, origins, panoramas,
    barriers, barrier_counts, barrier_heights, barrier_grays, boxes, box_counts, fxs, luts, noise, seeds, radius,
    lens,
):  # fmt: skip
    """Draw frames[begin:end]. See ``sim.camera.RoadCamera`` for what the arrays are."""
    axes = np.empty((4, 3))
    columns = np.empty(WIDTH, np.int64)
    idx = np.empty(WIDTH, np.uint32)
    wx, wy, value = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    corners, scratch = np.empty((4, 3)), np.empty((2, 16, 3))
    low, high = np.empty(WIDTH), np.empty(WIDTH)
    order, hull = np.empty(boxes.shape[1] + 1, np.int64), np.empty((4, 24, 3))
    previous, current = np.empty(WIDTH, np.float32), np.empty(WIDTH + 2, np.float32)
    for n in range(begin, end):
        s = surface[n]
        focal = cams[n, CAM_FOCAL]
        _axes(poses[n], cams[n], axes)
        for u in range(WIDTH):
            azimuth = np.arctan2(axes[1, 1], axes[1, 0]) + np.arctan((WIDTH / 2 - 0.5 - u) / focal)
            columns[u] = int(PANORAMA_COLUMNS / (2 * np.pi) * azimuth) % PANORAMA_COLUMNS
        frame = frames[n]
        _ground(
            frame, axes, focal, texels, bases[s], offsets[s], widths[s], heights[s], ppms[s], origins[s], fxs[n],
            panoramas[s], columns, idx, wx, wy, value,
        )  # fmt: skip
        count = barrier_counts[s]
        _standing(
            frame, axes, focal, barriers[s, :count], barrier_heights[s], barrier_grays[s], boxes[n, : box_counts[n]],
            corners, scratch, low, high, order, hull,
        )  # fmt: skip
        if lens:
            _lens(frame, fxs[n], luts[n], noise, seeds[n], previous, current, idx, radius)
