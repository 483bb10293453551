"""``hotlap bench sim`` measures something, says it in one JSON object, and does without peers that are not there."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

import pytest

import hotlap
from sim import bench

pytestmark = pytest.mark.slow  # measures for seconds

RATES = ("camera_steps_per_s", "physics_steps_per_s", "render_fps", "mujoco_renderer_fps", "carracing_steps_per_s")


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing, too short to be exact; figures of a slow or busy machine are still in order of size."""
    assert hotlap.main(["bench", "sim", "--seconds", "0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {*RATES, "fraction_of_bound", "ratios", "rounds", "notes"} <= set(result)
    assert result["rounds"] == bench.ROUNDS and result["threads"] == 1
    for name in RATES[:3]:
        assert result[name] > 0
    assert result["camera_steps_per_s"] < min(result["physics_steps_per_s"], result["render_fps"]), "a step is both"
    assert 0.2 < result["fraction_of_bound"] < 1.3
    for rate, ratio in (("carracing_steps_per_s", "vs_carracing"), ("mujoco_renderer_fps", "vs_mujoco_renderer")):
        if result[rate] is None:
            assert result["notes"][rate] and result["ratios"][ratio] is None
        else:
            assert result[rate] > 0 and result["ratios"][ratio] > 1


def test_two_threads_are_counted_by_the_thread(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(Namespace(threads=2, seconds_s=0.2, json=True)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["threads"] == 2 and 0 < result["cpu_share"] < 1.2


def test_figures_are_medians_and_ratios_are_made_within_a_turn() -> None:
    # The machine is half as fast in the second turn and stalls in the third.
    rates = {
        "camera": [4000.0, 2000.0, 40.0], "physics": [10000.0, 5000.0, 100.0], "render": [10000.0, 5000.0, 100.0],
        "mujoco": [500.0, 250.0, 5.0], "carracing": [100.0, 50.0, 1.0],
    }  # fmt: skip
    result = bench.summary(rates)
    assert [result[name] for name in RATES] == [2000.0, 5000.0, 5000.0, 250.0, 50.0]
    assert result["fraction_of_bound"] == pytest.approx(0.8)
    assert result["ratios"] == {"vs_carracing": 40.0, "vs_mujoco_renderer": 20.0}
    assert result["rounds"] == 3


def test_without_peers_their_figures_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"camera": [1000.0], "physics": [3000.0], "render": [3000.0]}
    result: dict[str, object] = {
        **bench.summary(rates),
        "cpu_share": 0.5,
        "threads": 1,
        "notes": {"carracing_steps_per_s": "Box2D is not installed", "mujoco_renderer_fps": "no OpenGL"},
    }
    assert result["mujoco_renderer_fps"] is None and result["carracing_steps_per_s"] is None
    assert result["ratios"] == {"vs_carracing": None, "vs_mujoco_renderer": None}
    bench.emit(False, result, bench._table(result))
    page = capsys.readouterr().out
    assert "Box2D is not installed" in page and "no OpenGL" in page and "1,000" in page
    assert "50%" in page, "a busy machine is pointed out"
    assert "None" not in page


def test_carracing_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)  # what an import of it then raises is a real ImportError
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises((ImportError, bench.GymnasiumError), match="(?i)box2d"):
        bench._carracing(bench.ExitStack())


@pytest.mark.slow
def test_the_camera_step_is_near_its_bound() -> None:
    """A guard against a collapse, wide enough for a machine in use; issue 2's figures are for an idle one."""
    result = bench.measure(1, 3.0)
    assert isinstance(result["fraction_of_bound"], float) and result["fraction_of_bound"] >= 0.6
    ratios = result["ratios"]
    assert isinstance(ratios, dict)
    if ratios["vs_carracing"] is None:
        pytest.skip("Box2D is not installed")
    assert ratios["vs_carracing"] >= 12
