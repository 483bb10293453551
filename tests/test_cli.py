"""The command line's table: options, exit statuses, errors that teach, JSON that is JSON."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotlap
from tests.conftest import ROOT
from vehicle.errors import HotlapError

HEAVY = ("numpy", "torch", "mujoco", "numba", "cv2", "onnxruntime", "gymnasium", "matplotlib", "rich", "flask")


def command(run: Callable[[argparse.Namespace], int]) -> list[hotlap.Command]:
    """A table with one command, ``act``, for what the real ones do not do at will."""
    return [hotlap.Command("act", "act", lambda parser: None, run)]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def options(*words: str) -> argparse.Namespace:
    return hotlap.build_parser().parse_args(words)


# --- start-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_start_up_is_light(words: list[str]) -> None:
    result = python(
        "import sys, hotlap\n"
        f"try: hotlap.main({words!r})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    assert result.returncode == 0, result.stderr
    assert "hotlap" in result.stdout


def test_only_working_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        hotlap.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for row in hotlap.COMMANDS:
        assert re.search(rf"^    {row.name}\s", text, re.MULTILINE)


# --- durations and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("5m", 300.0), ("1h", 3600.0), ("90", 90.0), ("1.5h", 5400.0), (".5s", 0.5), (" 2 M ", 120.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert hotlap.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "90x", "-5s", "0s", "nan", "inf", "1e3", "5m30", "9" * 400, "٣s"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(hotlap.UsageError) as caught:
        hotlap.parse_duration(text)
    assert repr(text) in caught.value.what
    assert caught.value.next_step


@given(st.text(alphabet="0123456789.smhSMH -e", max_size=12))
def test_a_duration_is_positive_and_finite_or_refused(text: str) -> None:
    try:
        seconds = hotlap.parse_duration(text)
    except hotlap.UsageError:
        return
    assert 0.0 < seconds < float("inf")


@pytest.mark.parametrize("text", ["20", "20,20", "20,35.5"])
def test_ranges(text: str) -> None:
    low_m, high_m = hotlap.parse_range_m(text)
    assert low_m == 20.0 and high_m >= low_m


@pytest.mark.parametrize("text", ["", "a,b", "35,20", "0,5", "1,2,3", "nan,nan", "1,inf", "-2,-1"])
def test_what_is_not_a_range(text: str) -> None:
    with pytest.raises(hotlap.UsageError):
        hotlap.parse_range_m(text)


# --- options ----------------------------------------------------------------------------------------------------------


def test_train_options() -> None:
    args = options("train", "--track", "a", "--track", "b.npy", "--out", "run 1", "--time-limit", "5m", "--steps", "9")
    assert (args.track, args.out, args.time_limit_s, args.steps) == (["a", "b.npy"], Path("run 1"), 300.0, 9)
    assert (args.method, args.randomise, args.resume) == ("auto", "auto", False)
    # None: the run's config may say; an option that was given wins over it.
    assert (args.seed, args.reward, args.action_space, args.config, args.car, args.network) == (None,) * 6


def test_evaluate_options() -> None:
    args = options("evaluate", "b.tar.gz", "--track", "a")
    assert (args.bundle, args.track, args.trials, args.seed) == (Path("b.tar.gz"), ["a"], 20, 0)
    assert (args.look, args.world, args.renderer) == ("nominal", "nominal", "fast")
    assert (args.penalties, args.require_lap, args.video, args.plot) == (False, False, None, None)


def test_bench_options() -> None:
    args = options("bench", "sim")
    assert (args.bench, args.threads, args.seconds_s) == ("sim", 1, 5.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["trian"], "'trian'"),
        (["train"], "--out"),
        (["train", "--out", "x"], "neither --track nor --resume"),
        (["train", "--out", "x", "--track", "a", "--time-limit", "9x"], "'9x' is not a duration"),
        (["train", "--out", "x", "--track", "a", "--steps", "0"], "at least 1"),
        (["train", "--out", "x", "--track", "a", "--seed", "-1"], "negative"),
        (["train", "--out", "x", "--track", "a", "--method", "magic"], "'magic'"),
        (["evaluate", "b", "--track", "a", "--trials", "many"], "'many' is not a whole number"),
        (["evaluate", "b"], "--track"),
        (["bench"], "WHAT"),
        (["tracks", "generate"], "--seed"),
        (["tracks", "--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_usage_is_status_2_and_says_what_and_next(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hotlap.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err and "next: hotlap" in err
    assert "Traceback" not in err


def test_bad_usage_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["train", "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert set(error) == {"what", "cause", "next"}
    assert "--out" in error["what"] and error["next"] == "hotlap train --help"
    assert "--out" in err


# --- what a command may end with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1])
def test_status_is_the_commands(status: int) -> None:
    assert hotlap.main(["act"], command(lambda args: status)) == status


@pytest.mark.parametrize("words", [["act", "--json"], ["--json", "act"]])
def test_every_command_has_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    status = hotlap.main(words, command(lambda args: seen.append(args.json) or 0))
    if words[0] == "act":
        assert (status, seen) == (0, [True])
    else:
        assert status == 2 and "error" in json.loads(capsys.readouterr().out)


def raising(error: BaseException) -> list[hotlap.Command]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return command(run)


MISSING_TORCH = ModuleNotFoundError("No module named 'torch._C'", name="torch._C")
MISSING_FILE = FileNotFoundError(2, "No such file or directory", "no such/folder/a.npy")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (HotlapError("too narrow: 0.2 m", cause="the borders touch"), 2, "too narrow: 0.2 m"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
        (MISSING_TORCH, 2, "needs torch"),
        (MISSING_FILE, 2, "its folder does not exist"),
        (OSError(28, "No space left on device", "run/metrics"), 2, "run/metrics: No space left"),
    ],
)
def test_errors(
    error: BaseException, status: int, said: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hotlap.main(["act", "--json"] if as_json else ["act"], raising(error)) == status
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in err
    assert (said in json.loads(out)["error"]["what"]) if as_json else out == ""


def test_an_error_carries_cause_and_next(capsys: pytest.CaptureFixture[str]) -> None:
    hotlap.main(["act", "--json"], raising(HotlapError("w", cause="c", next_step="n")))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"what": "w", "cause": "c", "next": "n"}}
    assert "likely cause: c" in err and "next: n" in err


def test_a_fault_of_our_own_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["act", "--json"], raising(ZeroDivisionError("oops"))) == 70
    out, err = capsys.readouterr()
    assert "ZeroDivisionError: oops" in json.loads(out)["error"]["what"]
    assert "Traceback" in err


def test_a_module_of_our_own_that_is_missing_is_no_matter_of_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["act"], raising(ModuleNotFoundError("No module named 'sim.nope'", name="sim.nope"))) == 70
    assert "sim.nope" in capsys.readouterr().err


# --- tracks, the real command -----------------------------------------------------------------------------------------


def hotlap_json(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, object]:
    assert hotlap.main([*map(str, words), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_tracks_lists_the_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    tracks = hotlap_json(capsys, "tracks")["tracks"]
    assert isinstance(tracks, list) and len(tracks) >= 8
    assert {track["direction"] for track in tracks} == {"cw", "ccw"}
    assert hotlap.main(["tracks"]) == 0
    text = capsys.readouterr().out
    assert all(track["name"] in text for track in tracks)


def test_tracks_show_draws_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "map.png"
    shown = hotlap_json(capsys, "tracks", "show", "first_oval", "--out", picture)
    assert shown["name"] == "first_oval" and shown["map"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tracks_show_of_no_track(capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["tracks", "show", "first_ovl"]) == 2
    err = capsys.readouterr().err
    assert "first_ovl" in err and "first_oval" in err


def test_tracks_generate_is_seeded_and_loads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--length", "20,30", "--width", "0.7,0.9", "--direction", "cw")
    words = ("tracks", "generate", "--seed", "5", *limits, "--out")
    made = hotlap_json(capsys, *words, tmp_path / "a.npy")
    hotlap_json(capsys, *words, tmp_path / "b.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert made["direction"] == "cw" and made["seed"] == 5
    shown = hotlap_json(capsys, "tracks", "show", tmp_path / "a.npy")
    assert 20.0 <= float(str(shown["length_m"])) <= 30.0
    assert shown["length_m"] == pytest.approx(made["length_m"])


@pytest.mark.parametrize(("name", "said"), [("a.txt", ".npy"), ("no such folder/a.npy", "does not exist")])
def test_tracks_generate_into_nowhere(name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hotlap.main(["tracks", "generate", "--seed", "1", "--out", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert said in err and "next: " in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["tracks"], ["tracks", "--json"]])
def test_a_reader_that_goes_away_is_no_fault(words: list[str]) -> None:
    # The child's stdout is a pipe whose reading end is closed before it prints.
    result = python(
        "import os, sys, hotlap\n"
        "reading, writing = os.pipe()\n"
        "os.dup2(writing, 1), os.close(reading), os.close(writing)\n"
        f"sys.exit(hotlap.main({words!r}))\n"
    )
    assert result.returncode == 128 + 13, result.stderr
    assert result.stderr == ""
