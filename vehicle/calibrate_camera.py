"""``hotlap calibrate camera``: the camera's pose from pictures of the board, as the car's page measures it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

from calibration.camera import Board, CameraFault, CameraMeasurement
from calibration.camera_board import Sighting, find_board
from calibration.camera_file import to_car_toml
from calibration.camera_pose import is_4_to_3, solve
from calibration.durable import write_durably


def measure(args: argparse.Namespace) -> int:
    """Run it: print what was found, and write ``--out`` where it is given.

    Raises:
        CameraFault: a picture cannot be read or has no board, they do not give the pose, or the file is not written.
    """
    board = Board(args.columns, args.rows, args.square_mm)
    found = solve([_sighting(path, board) for path in args.pictures])
    if args.out is not None:
        _write(args.out, found)
    if getattr(args, "json", False):
        print(json.dumps({**dataclasses.asdict(found), "out": args.out and str(args.out)}))
        return 0
    pose, error = found.pose, found.errors
    print(f"field of view {pose.horizontal_fov_deg:8.2f} +- {error.horizontal_fov_deg:.2f} deg")
    print(f"looks down    {pose.pitch_down_deg:8.2f} +- {error.pitch_down_deg:.2f} deg")
    print(f"height        {1e3 * pose.height_m:8.1f} +- {1e3 * error.height_m:.1f} mm")
    print(f"leans right   {pose.roll_deg:8.2f} +- {error.roll_deg:.2f} deg")
    print(f"from {found.pictures} picture(s) of {found.width} x {found.height}, within {found.residual_px:.2f} pixels")
    for words in found.warnings:
        print(f"note: {words}")
    if args.out is not None:
        print(f"next: hotlap train --track first_oval --car {args.out} --out run")
    else:
        print("next: the same with --out car-camera.toml, for hotlap train --car")
    return 0


def _sighting(path: Path, board: Board) -> Sighting:
    try:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        what = getattr(error, "strerror", None) or "no picture in it"
        raise CameraFault("bad_picture", f"{path} cannot be read: {what}", next_step="check the path") from error
    if picture is None:
        raise CameraFault(
            "bad_picture", f"{path} is no picture", next_step="give PNG or JPEG files of the car's camera"
        )
    try:
        return find_board(np.asarray(picture, np.uint8), board)
    except CameraFault as fault:
        raise CameraFault(
            fault.reason, f"{path}: {fault.what}", cause=fault.cause, next_step=fault.next_step
        ) from fault


def _write(path: Path, found: CameraMeasurement) -> None:
    if not is_4_to_3(found.width, found.height):
        raise CameraFault(
            "not_4_to_3",
            f"pictures of {found.width} x {found.height} are squeezed to 4 to 3 for the policy, {path} is not written",
            cause="the simulator's camera has square pixels",
            next_step="set camera.width and camera.height in car.toml to 4 to 3, and take the pictures with that",
        )
    try:
        write_durably(path, to_car_toml(found).encode())
    except OSError as error:
        raise CameraFault(
            "storage", f"{path} cannot be written: {error.strerror or error}", next_step="choose another --out"
        ) from error
