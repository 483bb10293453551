"""Runtimes are timed only where they give the same answers; the others are named with the reason."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vehicle.pilot_rig import make_bundle
from vehicle import bench_litert, bench_runtimes
from vehicle.bench_runtimes import OnnxRuntime, time_runtimes
from vehicle.bundle import Bundle
from vehicle.policy import OnnxPolicy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("model") / "b.tar.gz")


class Lying(OnnxRuntime):
    """Another network: its outputs are in another order."""

    def run(self, observation: Any) -> Any:
        return super().run(observation)[::-1]


class Broken(OnnxRuntime):
    """Gives no number."""

    def run(self, observation: Any) -> Any:
        return np.full_like(super().run(observation), np.nan)


def unknown_operation(bundle: Bundle) -> Any:
    raise bench_litert.UntranslatableError("Einsum (/policy/Einsum) is not known here")


def test_onnx_runtime_gives_what_the_policy_gives(bundle: Bundle) -> None:
    runtime = OnnxRuntime(bundle)
    wanted = OnnxPolicy(bundle)(bundle.golden_frames)
    for frame, expected in zip(bundle.golden_frames, wanted, strict=True):
        np.testing.assert_allclose(runtime.run(frame), expected, atol=1e-6)


def test_each_is_timed_in_turns_and_what_differs_is_left_out(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = {"onnxruntime": OnnxRuntime, "lying": Lying, "broken": Broken, "poor": unknown_operation}
    monkeypatch.setattr(bench_runtimes, "RUNTIMES", {**runtimes, "twin": OnnxRuntime})
    found = time_runtimes(bundle, rounds=3, runs=100)
    assert list(found) == ["onnxruntime", "lying", "broken", "poor", "twin"]
    assert "differ by" in found["lying"]["skipped"] and "differ by nan" in found["broken"]["skipped"]
    assert found["poor"]["skipped"] == "poor cannot run this graph: Einsum (/policy/Einsum) is not known here"
    for name in ("onnxruntime", "twin"):
        one = found[name]
        assert 0.0 < one["p50_us"] <= one["p99_us"] <= one["max_us"] and one["difference"] <= 1e-6
        assert one["version"]
    assert found["onnxruntime"]["to_onnxruntime"] == 1.0
    assert found["twin"]["to_onnxruntime"] == pytest.approx(
        found["twin"]["p50_us"] / found["onnxruntime"]["p50_us"], abs=0.006
    )


def test_what_is_not_installed_is_skipped_with_the_command_that_installs_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        if name.partition(".")[0] in ("openvino", "ai_edge_litert"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    monkeypatch.setattr(bench_runtimes, "import_module", absent)
    found = time_runtimes(bundle, rounds=1, runs=10)
    assert found["onnxruntime"]["p50_us"] > 0.0
    for name in ("openvino", "ai-edge-litert"):
        assert found[name].keys() == {"skipped"} and "pip install 'hotlap[bench]'" in found[name]["skipped"]


def test_the_real_ones_where_they_are_installed(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("openvino") is None or importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("pip install -e '.[bench]'")
    monkeypatch.setenv("HOME", str(tmp_path))  # where OpenVINO's telemetry keeps its number of this machine
    found = time_runtimes(bundle, rounds=1, runs=20)
    assert sys.modules["openvino_telemetry"] is None and list(tmp_path.iterdir()) == [], "nothing reports home"
    for name in ("onnxruntime", "openvino", "ai-edge-litert"):
        assert "skipped" not in found[name], found[name]
        assert found[name]["difference"] <= 1e-3 and found[name]["p50_us"] > 0.0
