"""`hotlap sweep`: what a plan says, what is refused before anything is made, the leaderboard; trials are slow tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hotlap
from tests.conftest import ROOT
from tests.trainer.test_store import wait_until
from trainer.errors import RunError
from trainer.run_folder import RunFolder
from trainer.sweep import Sweep
from trainer.sweep_plan import read_plan
from vehicle.errors import ConfigError

TINY = """
randomise = "none"
evaluate_trials = 1
threads = 1
max_steps = 60
[ppo]
cars = 4
steps_per_update = 8
minibatch = 16
epochs = 1
"""


def plan_of(folder: Path, text: str, **options: Any) -> list[dict[str, Any]]:
    path = folder / "plan.toml"
    path.write_text(text)
    return read_plan(path, options, (), {}).trials()


def test_lists_are_combined(tmp_path: Path) -> None:
    trials = plan_of(tmp_path, 'seed = [1, 2]\nsteps = 64\n[ppo]\nclip = [0.1, 0.2, 0.3]\nepochs = 2\n')
    assert len(trials) == 6 and trials[0] == {"seed": 1, "ppo.clip": 0.1} and trials[-1] == {"seed": 2, "ppo.clip": 0.3}


def test_an_array_is_the_plain_value_of_a_key_that_takes_one(tmp_path: Path) -> None:
    text = "[race]\nrace = 'head_to_bot'\nlane_change_every_s = [[1.0, 2.0], [3.0, 4.0]]\n"
    assert [t["race.lane_change_every_s"] for t in plan_of(tmp_path, text)] == [[1.0, 2.0], [3.0, 4.0]]
    assert plan_of(tmp_path, "seed = [1, 2]\nrace.lane_change_every_s = [1.0, 2.0]") == [{"seed": 1}, {"seed": 2}]


def test_keys_in_quotes_are_the_same(tmp_path: Path) -> None:
    assert plan_of(tmp_path, '"ppo.clip" = [0.1, 0.2]') == plan_of(tmp_path, "[ppo]\nclip = [0.1, 0.2]")


def test_ranges_with_a_count_are_evenly_spaced(tmp_path: Path) -> None:
    trials = plan_of(tmp_path, "ppo.entropy = {low = 1e-3, high = 0.1, log = true, count = 3}")
    assert [t["ppo.entropy"] for t in trials] == pytest.approx([1e-3, 1e-2, 0.1])
    whole = plan_of(tmp_path, "ppo.epochs = {low = 1, high = 3, count = 5}")
    assert [t["ppo.epochs"] for t in whole] == [1, 2, 3]


def test_combinations_are_drawn_the_same_for_the_same_seed(tmp_path: Path) -> None:
    text = "ppo.learning_rate = {low = 1e-5, high = 1e-2, log = true}\n"
    text += "ppo.epochs = {low = 1, high = 9}\nseed = [1, 2]\n"
    drawn = plan_of(tmp_path, text, samples=200)
    assert drawn == plan_of(tmp_path, text, samples=200)
    assert drawn != plan_of(tmp_path, text + "[sweep]\nseed = 5\n", samples=200)
    rates = [t["ppo.learning_rate"] for t in drawn]
    assert 1e-5 <= min(rates) < 2e-5 and 5e-3 < max(rates) <= 1e-2
    assert 0.35 < sum(rate < 10**-3.5 for rate in rates) / 200 < 0.65  # half of them below the middle decade
    assert {t["ppo.epochs"] for t in drawn} == set(range(1, 10)) and {t["seed"] for t in drawn} == {1, 2}


def test_reward_files_are_beside_the_plan_or_on_the_command_line(tmp_path: Path) -> None:
    trials = plan_of(tmp_path, '[sweep]\nreward = ["a.py", "b.py"]')
    assert [t["reward"] for t in trials] == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    only = read_plan(None, {}, [Path("x.py"), Path("y.py")], {"steps": 64})
    assert only.trials() == [{"reward": "x.py"}, {"reward": "y.py"}] and only.config({}).steps == 64


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("learning_rat = [1.0]", "unknown key learning_rat", ""),
        ("[ppo]\nlearning_rat = [1.0, 2.0]", "unknown key ppo.learning_rat", "ppo.learning_rate"),
        ("ppo.clap = {low = 1.0, high = 2.0, count = 2}", "unknown key ppo.clap", "ppo.clip"),
        ("ppo.clip = []", "ppo.clip = [] is an empty list", ""),
        ("ppo.clip = [0.1, 0.1]", "names 0.1 twice", ""),
        ("ppo.clip = [0.1, 7.0]", "ppo.clip = 7.0 is out of range", "0.01 to 1.0"),
        ('ppo.clip = [0.1, "x"]', "it must be a number", ""),
        ("ppo.clip = {low = 0.1, high = 7.0, count = 2}", "ppo.clip = 7.0 is out of range", ""),
        ("ppo.clip = {low = 0.3, high = 0.1, count = 2}", "is no range", "count"),
        ("ppo.clip = {low = 0.1, high = 0.3}", "neither how many", "--samples"),
        ("ppo.clip = {low = 0.1, high = 0.3, count = 1}", "is no range", ""),
        ("ppo.clip = {low = 0.1, hihg = 0.3}", "unknown key hihg", "high"),
        ("ppo.entropy = {low = 0.0, high = 0.3, log = true, count = 2}", "is no range", "above zero"),
        ("network = {low = 1, high = 2, count = 2}", "network is no number", ""),
        ('network = ["RESNET", "HOTLAP_FINE"]', "RESNET", ""),
        ("ppo.clip = 0.1", "nothing is searched", ""),
        ("[sweep]\nsampels = 3", "unknown key sampels", "samples"),
        ("[sweep]\nsamples = -1", "samples = -1", ""),
        ("seed = [", "not valid TOML", ""),
        ("seed = {low = 0, high = 5000, count = 1000}\nppo.epochs = [1, 2]", "2000 combinations", "--samples"),
    ],
)
def test_a_wrong_plan_is_refused(text: str, said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text)
    assert said in caught.value.what, caught.value
    assert hint in str(caught.value)


def test_nothing_is_made_where_something_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("def reward_function(params):\n    return 1.0\n")
    bad.write_text("def reward_function(params:\n")
    (tmp_path / "plan.toml").write_text("seed = [1, 2]")
    out = tmp_path / "sweep"
    for words in (
        ["--track", "first_oval", "--reward", good, "--reward", bad],
        ["--track", "first_oval", "--reward", good, "--reward", tmp_path / "none.py"],
        [tmp_path / "plan.toml", "--track", "no_such_track"],
        [tmp_path / "plan.toml"],
        [tmp_path / "none.toml", "--track", "first_oval"],
        ["--track", "first_oval"],
        ["--resume"],
    ):
        assert hotlap.main(["sweep", *map(str, words), "--out", str(out), "--json"]) == 2, words
        assert set(json.loads(capsys.readouterr().out)) == {"error"}
        assert not out.exists()


def made(folder: Path, results: dict[str, dict[str, Any]]) -> Sweep:
    trials = [{"name": f"{k:03d}", "settings": {"seed": k}} for k in range(1, len(results) + 3)]
    (folder / "sweep.json").write_text(json.dumps({"trials": trials, "judged_by": 2, "store": None}))
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result))
    return Sweep(folder)


def test_the_leaderboard_is_by_completion_then_lap_time(tmp_path: Path) -> None:
    def of(rate: float, lap_s: float | None) -> dict[str, Any]:
        return {"finished": True, "completion_rate": rate, "mean_lap_time_s": lap_s}

    results = {
        "001": of(0.5, 9.0), "002": of(1.0, 12.0), "003": of(1.0, 11.0), "004": of(0.0, None),
        "005": {"finished": False, "error": "broke"},
    }  # fmt: skip
    found = made(tmp_path, results)
    rows = found.leaderboard()
    assert [row["trial"] for row in rows] == ["003", "002", "001", "004", "005", "006", "007"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, None, None, None]
    assert [row["status"] for row in rows][-3:] == ["failed", "open", "open"]
    assert [t["name"] for t in found.open_trials()] == ["005", "006", "007"]
    found.write_leaderboard()
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert lines[0].startswith("rank,trial,status,completion_rate") and len(lines) == 8


# --- whole sweeps -----------------------------------------------------------------------------------------------------


def sweep_words(folder: Path, steps: int, *words: object) -> list[str]:
    sweep = "[sweep]\ntrack = 'first_oval'\ntrials = 2\n"
    limits = f"steps = {steps}\ntime_limit_s = 1e7"  # only then is the clock kept out of the learning rate
    (folder / "plan.toml").write_text(f"{limits}\nseed = [1, 2]\n{TINY}\n{sweep}")
    return ["sweep", str(folder / "plan.toml"), "--out", str(folder / "sweep"), "--json", *map(str, words)]


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hotlap", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_finished(folder: Path, out: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(out)
    assert (result["trials"], result["finished"], result["failed"]) == (2, 2, 0)
    for row in result["leaderboard"]:
        run = RunFolder.open(Path(row["run"]))
        assert run.config().seed == row["seed"] and run.bundle.is_file()
    assert result["best"] == result["leaderboard"][0]["run"]
    return result


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(900)
def test_a_sweep_from_beginning_to_end(tmp_path: Path) -> None:
    with start(*sweep_words(tmp_path, 64)) as process:
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    result = check_finished(tmp_path, out)
    assert [row["steps"] for row in result["leaderboard"]] == [64, 64]
    with start("sweep", "--resume", "--out", str(tmp_path / "sweep"), "--json") as process:
        again, err = process.communicate(timeout=120)
    assert json.loads(again) == result and "trial 0" not in err  # nothing is run twice


def _interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def _kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(900)
@pytest.mark.parametrize("end", [_interrupt, _kill], ids=["Ctrl-C", "kill -9"])
def test_a_sweep_goes_on_after(end: Callable[[subprocess.Popen[str]], None], tmp_path: Path) -> None:
    words = sweep_words(tmp_path, 10**7)
    second = tmp_path / "sweep" / "001" / "checkpoints" / "previous.pt"  # the first was of 64 steps
    (tmp_path / "plan.toml").write_text("checkpoint_every_s = 0.2\n" + (tmp_path / "plan.toml").read_text())
    with start(*words) as process:
        wait_until(second.exists, 120)
        end(process)
        _, err = process.communicate(timeout=120)
    assert process.returncode == (130 if end is _interrupt else -signal.SIGKILL), err
    # Shorter, so that the rest has an end.
    for number in ("001", "002"):
        config = tmp_path / "sweep" / number / "config.toml"
        config.write_text(config.read_text().replace("steps = 10000000", "steps = 64", 1))
    with start("sweep", "--resume", "--out", str(tmp_path / "sweep"), "--json") as process:
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    result = check_finished(tmp_path, out)
    steps = {row["trial"]: row["steps"] for row in result["leaderboard"]}
    assert steps["002"] == 64 < steps["001"]  # what the first had learnt is not thrown away


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(900)
def test_ray_runs_the_same_trials(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="Ray Tune is not installed: pip install 'hotlap[scale]'")
    with start(*sweep_words(tmp_path, 64, "--engine", "ray")) as process:
        out, err = process.communicate(timeout=290)
    assert process.returncode == 0, err
    on_ray = check_finished(tmp_path, out)
    (tmp_path / "local").mkdir()
    with start(*sweep_words(tmp_path / "local", 64)) as process:
        out, err = process.communicate(timeout=290)
    local = check_finished(tmp_path / "local", out)
    same = ("trial", "seed", "steps", "completion_rate", "mean_lap_time_s")
    boards = [[{key: row[key] for key in same} for row in each["leaderboard"]] for each in (on_ray, local)]
    assert boards[0] == boards[1]


def test_ray_is_asked_for_by_name_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.sweep_ray import run_on_ray
    from vehicle.errors import HotlapError

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HotlapError, match=r"hotlap\[scale\]"):
        run_on_ray(made(tmp_path, {}), None)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="is not a sweep"):
        from trainer.sweep import _opened

        _opened(tmp_path / "none")
