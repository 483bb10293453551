"""The monitor's page in a real Chromium: a real training that is watched, a run that is over, an hour's data."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.car_spec import CarSpec
from sim.track import load_track, save_track
from tests.browser.rig import DESKTOP, PHONE, PICTURES, ROOT, Chromium, axe_source, until
from trainer.monitor.command import serving
from trainer.monitor.metrics import PLOTS
from trainer.trace_log import HEADER
from vehicle.config import to_toml

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab
    from playwright.sync_api import Response

pytestmark = pytest.mark.slow

MAX_PAGE_BYTES = 200_000
PATIENCE_S = 240.0  # a training's first steps on a machine that is busy with something else


@pytest.fixture
def chromium() -> Iterator[Chromium]:
    browser = Chromium()
    yield browser
    browser.close()


def wait(tab: Tab, found: Callable[[], object], what: str) -> None:
    """As `until`; what the browser has to tell is heard meanwhile."""
    until(found, what, PATIENCE_S, lambda pause_s: tab.wait_for_timeout(1e3 * pause_s))


def moves(tab: Tab, pictures: int) -> None:
    """Until the first-person view has shown so many different ones."""
    seen: set[str] = set()

    def look() -> bool:
        seen.add(str(tab.evaluate("document.getElementById('view').src")))
        return len(seen) > pictures

    wait(tab, look, "the first-person view moves")


def says(tab: Tab, selector: str) -> str:
    return str(tab.locator(selector).text_content())


def label(tab: Tab, plot: str) -> str:
    return str(tab.locator(f"#plot-{plot}").get_attribute("aria-label"))


def no_faults(tab: Tab, chromium: Chromium) -> None:
    found = [*tab.evaluate("window.hotlapFaults"), *chromium.complaints]
    assert found == []


def keep(tab: Tab, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)


def serious(tab: Tab) -> list[str]:
    tab.evaluate(axe_source())
    found = tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [f"{one['id']}: {[n['html'][:100] for n in one['nodes']]}" for one in found if one["impact"] != "minor"]


@pytest.mark.learning
@pytest.mark.timeout(900)
def test_a_training_is_watched(chromium: Chromium, tmp_path: Path) -> None:
    run = tmp_path / "oval"
    words = ["train", "--track", "first_oval", "--out", str(run), "--time-limit", "10m", "--seed", "1", "--json"]
    training = subprocess.Popen(
        [sys.executable, "-m", "hotlap", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until((run / "config.toml").is_file, "the run begins", PATIENCE_S)
        with serving(run, "127.0.0.1", 0) as url:
            tab = chromium.tab(*DESKTOP)
            tab.goto(url)
            moves(tab, 5)
            assert says(tab, "#state") == "Training"
            assert (run / "live" / "0.cars").is_file()
            tab.locator("#car").select_option("7")
            wait(tab, lambda: "Car 7" in says(tab, "#view-note"), "car 7 is shown")
            rows = run / "live" / "metrics.csv"
            wait(tab, lambda: rows.read_text().count("\n") > 4, "four updates")
            wait(tab, lambda: "policy 2." in label(tab, "entropy"), "the entropy is drawn")
            assert [tab.locator(f"#plot-{plot.key}").count() for plot in PLOTS] == [1] * len(PLOTS)
            for plot in ("reward", "completion", "loss", "entropy", "speed", "cpu", "memory"):
                wait(tab, lambda name=plot: any(c.isdigit() for c in label(tab, name)), f"{plot} is drawn")  # type: ignore[misc]
            wait(tab, lambda: "logged steps" in says(tab, "#map-note"), "the heat map is there")
            keep(tab, "monitor-training-desktop")
            no_faults(tab, chromium)
            tab = chromium.tab(*PHONE, dark=True)
            tab.goto(url)
            tab.wait_for_selector("#view:not([hidden])", timeout=1e3 * PATIENCE_S)
            tab.wait_for_timeout(3000)
            keep(tab, "monitor-training-phone-dark")
            no_faults(tab, chromium)
    finally:
        training.terminate()
        training.wait(120)


def write_hour(run: Path, updates: int = 40_000, steps: int = 2_000_000) -> None:
    """What a run of an hour and more leaves: one spike among the losses, and two million rows of steps."""
    track = load_track("first_oval")
    (run / "inputs").mkdir(parents=True)
    (run / "config.toml").write_text("seed = 1\n")
    (run / "inputs" / "car.toml").write_text(to_toml(CarSpec()))
    save_track(track, run / "inputs" / "00-first_oval.npy")
    names = ["steps", "wall_s", *(column for plot in PLOTS for column, _ in plot.curves)]
    rng = np.random.default_rng(1)
    k = np.arange(updates)
    curves = (2 + np.sin(k / 4000) + 0.1 * rng.normal(size=updates) for _ in names[2:])
    table = np.column_stack([2048 * k, 0.1 * k, *curves])
    table[31_234, names.index("loss")] = 77.0
    with open(run / "metrics.csv", "w") as file:
        file.write(",".join(names) + "\n")
        np.savetxt(file, table, "%.6g", ",")
    folder = run / "training-simtrace"
    folder.mkdir()
    line = np.resize(track.center[:-1], (200, 2)) + rng.normal(0, 0.1, (200, 2))
    episode = [
        f",{i + 1}.0000,{x:.4f},{y:.4f},{i % 360:.4f},0.00,1.00,3,{1 - i / 400:.4f},False,True,{i / 2:.4f},3,"
        f"{track.length_m:.2f},1.0000,in_progress,0.00,0,12.0000\n"
        for i, (x, y) in enumerate(line.tolist())
    ]
    per_file = 20
    for number in range(steps // len(episode) // per_file):
        rows = "".join(f"{number * per_file + e}{row}" for e in range(per_file) for row in episode)
        (folder / f"{number}-iteration.csv").write_text(f"{HEADER}\n{rows}")


@pytest.mark.timeout(600)
def test_an_hour_of_data_stays_responsive(chromium: Chromium, tmp_path: Path) -> None:
    run = tmp_path / "hour"
    write_hour(run)
    with serving(run, "127.0.0.1", 0) as url:
        tab = chromium.tab(*DESKTOP)
        begun_s = time.monotonic()
        tab.goto(url)
        wait(tab, lambda: tab.locator("#plot-loss").count() and "total 1" in label(tab, "loss"), "plots are drawn")
        first_s = time.monotonic() - begun_s
        wait(tab, lambda: "1.99M logged" in says(tab, "#map-note"), "all steps are read")
        all_s = time.monotonic() - begun_s
        assert first_s < all_s, "the page does not wait for two million rows"
        # The spike of one update in forty thousand is in the plot, and so is what the CSV says of it.
        assert tab.evaluate("fetch('/api/plots?x=steps').then((a) => a.json()).then("
                            "(f) => Math.max(...f.plots.loss.curves[0].high))") == 77.0  # fmt: skip
        text = tab.evaluate("fetch('/csv/loss.csv').then((a) => a.text())")
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) == 40_001 and float(rows[31_235][2]) == 77.0
        # A key press is answered within what a page that redraws thirty times a second has for it, many times over.
        took_ms = tab.evaluate(
            """async () => {
              const plot = document.getElementById("plot-loss");
              plot.focus();
              const begun = performance.now();
              for (let i = 0; i < 20; i += 1) {
                plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
                await new Promise((done) => requestAnimationFrame(done));
              }
              return (performance.now() - begun) / 20;
            }"""
        )
        assert took_ms < 500.0, took_ms
        heap = tab.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0")
        assert heap < 64e6
        print(f"plots after {first_s:.1f} s, two million steps after {all_s:.1f} s, a key {took_ms:.0f} ms")
        # The run is over: its last episodes are driven again.
        moves(tab, 3)
        # Both downloads of a plot and of the heat map.
        for press, name in (
            ("[aria-label='Loss: PNG']", "hour-loss.png"), ("[aria-label='Loss: CSV']", "hour-loss.csv"),
            ("#heat-png", "hour-heat.png"), ("#heat-csv", "hour-heat.csv"),
        ):  # fmt: skip
            with tab.expect_download() as coming:
                tab.locator(press).click()
            assert coming.value.suggested_filename == name
            data = Path(coming.value.path()).read_bytes()
            assert len(data) > 2000 and (data.startswith(b"\x89PNG") if name.endswith("png") else b"," in data)
            PICTURES.mkdir(parents=True, exist_ok=True)
            if name.endswith("png"):
                (PICTURES / f"monitor-{name}").write_bytes(data)
        keep(tab, "monitor-hour-desktop")
        assert serious(tab) == []
        no_faults(tab, chromium)
        weighed: list[int] = []
        tab = chromium.tab(*PHONE, dark=True)

        def weigh(answer: Response) -> None:
            if "/api/" not in answer.url:
                weighed.append(int(answer.headers.get("content-length", MAX_PAGE_BYTES)))

        tab.on("response", weigh)
        tab.goto(url)
        tab.wait_for_selector("#view:not([hidden])")
        tab.wait_for_timeout(2000)
        assert 20_000 < sum(weighed) < MAX_PAGE_BYTES, weighed
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert serious(tab) == []
        keep(tab, "monitor-hour-phone-dark")
        no_faults(tab, chromium)
