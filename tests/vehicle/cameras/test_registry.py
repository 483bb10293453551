"""Cameras are found by name: hotlap's own from a table, others by entry point; unknown names are explained."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vehicle.cameras import registry
from vehicle.cameras.base import Camera, Frame
from vehicle.cameras.folder import FolderCamera
from vehicle.cameras.registry import BUILT_IN, known_cameras, open_camera
from vehicle.car_config import CAMERAS, CameraConfig
from vehicle.errors import CameraError


class Theirs:
    """A third party's camera."""

    def __init__(self, config: CameraConfig, runtime: Path) -> None:
        self.config, self.runtime = config, runtime

    def read(self, timeout_s: float) -> Frame:
        return Frame(np.arange(6, dtype=np.uint8).reshape(2, 3), 1.0, 0)

    def facts(self) -> dict[str, Any]:
        return {"name": "theirs"}

    def close(self) -> None:
        pass


def with_entry(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = importlib.metadata.EntryPoint(name, value, registry.GROUP)

    def entries(*, group: str, name: str | None = None) -> list[importlib.metadata.EntryPoint]:
        return [entry] if group == registry.GROUP and name in (None, entry.name) else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entries)


def test_every_camera_of_the_configuration_is_built_in_and_can_be_loaded() -> None:
    assert sorted(BUILT_IN) == sorted(CAMERAS)
    for kind in CAMERAS:
        assert callable(registry._BACKENDS.find(kind)), kind


def test_a_camera_is_opened_by_its_kind(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(256, dtype=np.uint8).reshape(16, 16))
    camera = open_camera(CameraConfig(kind="folder", source=str(tmp_path)), tmp_path)
    assert isinstance(camera, FolderCamera)


def test_a_camera_upside_down_is_turned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_entry(monkeypatch, "theirs", f"{__name__}:Theirs")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Theirs)
    camera = open_camera(CameraConfig(kind="theirs", rotate_180=True), tmp_path)
    assert isinstance(camera, Camera)
    pixels = camera.read(1.0).pixels
    assert pixels.tolist() == [[5, 4, 3], [2, 1, 0]] and pixels.flags.c_contiguous
    assert camera.facts() == {"name": "theirs", "rotate_180": True}
    camera.close()


def test_a_third_party_is_found_but_never_in_the_place_of_a_built_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Theirs)
    with_entry(monkeypatch, "theirs", "theirs:open")
    config = CameraConfig(kind="theirs")
    camera = open_camera(config, tmp_path)
    assert isinstance(camera, Theirs) and (camera.config, camera.runtime) == (config, tmp_path)
    assert known_cameras() == [*BUILT_IN, "theirs"]
    with_entry(monkeypatch, "folder", "theirs:open")
    with pytest.raises(CameraError, match="no picture"):
        open_camera(replace(config, kind="folder"), tmp_path)


def test_a_third_party_that_is_broken_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_entry(monkeypatch, "theirs", "no_such_module_here:open")
    with pytest.raises(CameraError, match="cannot be loaded"):
        open_camera(CameraConfig(kind="theirs"), tmp_path)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: lambda config, runtime: object())
    with pytest.raises(CameraError, match="lacks read, facts or close"):
        open_camera(CameraConfig(kind="theirs"), tmp_path)


def test_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="unknown camera.kind 'picamera'") as caught:
        open_camera(CameraConfig(kind="picamera"), tmp_path)
    assert "'picamera2'" in caught.value.next_step
