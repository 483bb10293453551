"""The monitor's parts: what is read of a run folder, in how much memory, and how live pictures travel."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

import hotlap
from sim.car_spec import CarSpec
from sim.track import load_track, save_track
from trainer.errors import RunError
from trainer.monitor.buckets import Buckets
from trainer.monitor.command import MonitorError, newest, serving
from trainer.monitor.feed import LiveCars, LiveFeed, Running, Viewer, decode, encode, is_running
from trainer.monitor.metrics import Metrics
from trainer.monitor.run import Monitor
from trainer.monitor.tail import Tail
from trainer.monitor.terminal import table
from trainer.monitor.traces import Traces
from trainer.trace_log import HEADER
from vehicle.config import to_toml

COLUMNS = "steps,wall_s,reward,loss,cpu_percent"


def make_run(folder: Path, rows: int = 5) -> Path:
    """A run folder as far as the monitor looks at one."""
    (folder / "inputs").mkdir(parents=True)
    (folder / "config.toml").write_text("seed = 1\n")
    save_track(load_track("first_oval"), folder / "inputs" / "00-first_oval.npy")
    lines = [f"{2048 * k},{k}.5,{k},{'' if k % 2 else 0.5},90" for k in range(rows)]
    (folder / "metrics.csv").write_text("\n".join([COLUMNS, *lines, ""]))
    return folder


def write_trace(run: Path, number: int, episodes: range, steps: int = 40) -> None:
    track = load_track("first_oval")
    folder = run / "training-simtrace"
    folder.mkdir(exist_ok=True)
    lines = [HEADER]
    for episode in episodes:
        for step in range(steps):
            x, y = track.center[step % len(track.center)]
            reward = 0.0 if step == 0 else 1.0
            lines.append(
                f"{episode},{step + 1}.0000,{x:.4f},{y:.4f},90.0000,0.00,1.00,[3 0.5],{reward:.4f},False,True,"
                f"{step:.4f},3,{track.length_m:.2f},1.0000,in_progress,0.00,0,12.0000"
            )
    (folder / f"{number}-iteration.csv").write_text("\n".join([*lines, ""]))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_tail_reads_only_what_is_new_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    tail = Tail(path)
    assert tail.more() == b""
    path.write_text("x,y\n1,2\n3,")
    assert tail.more() == b"1,2\n" and tail.header == ["x", "y"]
    assert tail.more() == b""
    path.write_text("x,y\n1,2\n3,4\n")  # replaced by what begins the same
    assert tail.more() == b"3,4\n"
    path.write_text("x,y\n5,6\n")  # a resumed run: other rows
    assert tail.more() is None
    assert tail.more() == b"5,6\n"


def test_buckets_keep_spikes_in_bounded_memory() -> None:
    buckets = Buckets(2, capacity=64)
    values = np.sin(np.arange(100_000) / 900.0)
    values[77_777] = 50.0
    values[12] = -50.0
    rows = np.column_stack([np.arange(100_000.0), values])
    for piece in np.array_split(rows, 97):
        buckets.add(piece)
    assert buckets.rows == 100_000 and buckets.size <= 64
    low, high, mean = buckets.reduced([0, 1], 20)
    assert len(low) == 20
    assert high[:, 1].max() == 50.0 and low[:, 1].min() == -50.0
    assert np.all(np.diff(mean[:, 0]) > 0) and low[0, 0] == 0.0 and high[-1, 0] == 99_999.0
    # Means of equally many rows but for the last bucket: together they are the mean of all.
    assert abs(mean[:, 1].mean() - values.mean()) < 0.1


@pytest.mark.parametrize("pieces", [1, 3, 200])
def test_buckets_do_not_depend_on_how_rows_come(pieces: int) -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 3))
    rows[rows > 1.5] = np.nan
    whole, parts = Buckets(3, 32), Buckets(3, 32)
    whole.add(rows)
    for piece in np.array_split(rows, pieces):
        parts.add(piece)
    for one, other in zip(whole.reduced([0, 1, 2], 10), parts.reduced([0, 1, 2], 10), strict=True):
        np.testing.assert_allclose(one, other)


def test_metrics_of_a_run_that_grows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    metrics = Metrics(run)
    assert metrics.read() and not metrics.read()
    assert metrics.rows == 5 and metrics.newest["steps"] == 8192 and metrics.newest["loss"] == 0.5
    with open(run / "metrics.csv", "a") as file:
        file.write("10240,5.5,nan,inf,junk\n10241,6,9\n")
    assert metrics.read() and metrics.rows == 7 and metrics.newest["reward"] == 9.0


def test_traces_are_counted_once_and_the_last_episodes_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    track = load_track("first_oval")
    write_trace(run, 0, range(20))
    write_trace(run, 1, range(20, 40))
    traces = Traces(run, [track])
    while traces.read():
        pass
    assert traces.rows == 1600
    heat = traces.maps[0]
    assert heat.count.sum() == 40 * 39  # without the row before the first step
    assert np.nanmax(heat.mean) == 1.0 == np.nanmin(heat.mean)
    assert [episode.number for episode in traces.episodes] == list(range(28, 40))
    x, y, heading, _ = traces.episodes[-1].rows[3]
    assert (x, y) == pytest.approx(track.center[3], abs=1e-4) and heading == pytest.approx(np.pi / 2)
    write_trace(run, 1, range(20, 41))
    write_trace(run, 2, range(41, 43))
    while traces.read():
        pass
    assert traces.rows == 1600 + 3 * 40


# --- live -------------------------------------------------------------------------------------------------------------


def cars(n: int, pictures: dict[int, np.ndarray] | None = None) -> LiveCars:
    some = np.arange(n, dtype=np.float32)
    return LiveCars(np.stack([some, -some], axis=1), some / 10, some * 2, some / 3, np.zeros(n), pictures or {})


def test_a_message_survives_the_way() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    found = decode(encode(cars(5, {3: picture})))
    np.testing.assert_array_equal(found.xy_m, cars(5).xy_m)
    np.testing.assert_array_equal(found.pictures[3], picture)


@pytest.mark.parametrize("data", [b"", b"{}\n", b"[1]\n", b'{"n":4}\n123', b'{"n":2,"pictures":{}}\n', b"\x80\x04\n"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def test_nothing_is_shown_while_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("trainer.monitor.feed.time.monotonic", lambda: now_s[0])
    feed, viewer = LiveFeed(tmp_path), Viewer(tmp_path)
    looked: list[list[int]] = []

    def look(wanted: object) -> LiveCars:
        looked.append(list(wanted))  # type: ignore[call-overload]
        return cars(4)

    feed.offer(4, look)
    assert looked == [] and not (tmp_path / "live").exists()
    now_s[0] += 1.0
    viewer.look([2, 9])
    feed.offer(4, look)
    feed.offer(4, look)  # not twice within a moment
    assert looked == [[2]]
    found = viewer.read()
    assert found is not None and len(found[0][0].progress) == 4
    now_s[0] += 10.0  # the viewer has not come back
    feed.offer(4, look)
    assert looked == [[2]]


def test_cars_of_several_sources_have_numbers_of_their_own(tmp_path: Path) -> None:
    viewer = Viewer(tmp_path)
    viewer.look([5])
    picture = np.full((120, 160), 7, np.uint8)
    LiveFeed(tmp_path, source=1, first=4).offer(3, lambda wanted: cars(3, dict.fromkeys(wanted, picture)))
    LiveFeed(tmp_path, source=0).offer(4, lambda wanted: cars(4, dict.fromkeys(wanted, picture)))
    found = viewer.read()
    assert found is not None
    assert [list(one.number) for one in found[0]] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [list(one.pictures) for one in found[0]] == [[], [1]]


def test_a_run_that_is_over_is_driven_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "inputs" / "car.toml").write_text(to_toml(CarSpec()))
    write_trace(run, 0, range(3))
    watched = Monitor(run)
    try:
        watched.read_all()
        found = watched.live(1)
        assert found["mode"] == "replay" and len(found["cars"]) == 3  # type: ignore[arg-type]
        assert str(found["picture"]).startswith("data:image/jpeg;base64,")
        again = watched._replay
        assert again is not None
        one, later = (again.at(list(watched.traces.episodes), t_s, 1) for t_s in (0.5, 1.5))  # type: ignore[union-attr]
        # The point at the front of the car is where the log says, and the car has driven on.
        ahead = CarSpec().body.front_point_m * np.array([np.cos(np.pi / 2), np.sin(np.pi / 2)])
        assert one.xy_m[1] + ahead == pytest.approx(load_track("first_oval").center[5], abs=1e-3)
        assert np.abs(one.pictures[1].astype(int) - later.pictures[1]).mean() > 1.0
        assert one.pictures[1].std() > 10.0, "a road is seen"
    finally:
        watched.close()


def test_running_is_over_with_its_process(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    running = Running(tmp_path)
    running.begin("steps,reward\n1,2\n")
    assert is_running(tmp_path)
    metrics = Metrics(tmp_path)
    assert metrics.read() and metrics.newest == {"steps": 1.0, "reward": 2.0}
    running.add("2,3\n")
    assert metrics.read() and metrics.newest["reward"] == 3.0
    (tmp_path / "metrics.csv").write_text("steps,reward\n1,2\n2,3\n3,4\n")
    running.end()
    assert not is_running(tmp_path)
    assert metrics.read() and metrics.rows == 3, "it goes on with the file that stays"


# --- the page's server ------------------------------------------------------------------------------------------------


def status_of(asked: str | Request) -> int:
    try:
        with urlopen(asked, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def test_the_server_answers_only_those_who_name_this_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_trace(run, 0, range(3))
    with serving(run, "127.0.0.1", 0) as url:
        with urlopen(url, timeout=20) as answer:
            assert b"<title>" in answer.read()
            policy = answer.headers["Content-Security-Policy"]
            assert "script-src 'self'" in policy and "unsafe" not in policy
        assert status_of(Request(url + "api/plots", headers={"Host": "evil.example:80"})) == 403
        for path, status in (
            ("static/..%2frun.py", 404), ("csv/nothing.csv", 404), ("api/heat?track=7", 400), ("api/plots?x=y", 400),
            ("api/live?car=-1", 400),
        ):  # fmt: skip
            assert status_of(url + path) == status, path
        with urlopen(url + "csv/reward.csv", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
            assert lines[:2] == ["steps,wall_s,reward,reward_low,reward_high", "0,0.5,0,,"]
        with urlopen(url + "csv/heat.csv", timeout=20) as answer:
            assert answer.headers["Content-Disposition"] == "attachment; filename=run-heat.csv"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with serving(run, "127.0.0.1", 0) as url, pytest.raises(MonitorError) as caught:
        with serving(run, "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])):
            pass
    assert "hotlap monitor" in caught.value.next_step


# --- the command ------------------------------------------------------------------------------------------------------


def test_json_is_the_newest_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert hotlap.main(["monitor", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["running"] is False and found["updates"] == 5 and found["reward"] == 4.0
    assert newest(run) == found


def test_the_table_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert hotlap.main(["monitor", str(run), "--terminal"]) == 0
    out = capsys.readouterr().out
    assert "8192 steps" in out and "Reward per episode" in out and "Processor" in out
    assert table(Monitor(run, read_traces=False))


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError):
        Monitor(tmp_path)
    assert hotlap.main(["monitor", str(tmp_path), "--json"]) == 2
    assert "next" in json.loads(capsys.readouterr().out)["error"]


def test_a_table_of_nothing_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.csv").unlink()
    assert newest(run)["updates"] == 0
