"""Maps for the console: made only while somebody looks, one a second, in a child that may do what it likes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from calibration.car_link import CarRefused, Picture, Saliency
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import bright, make_bundle
from vehicle import console_saliency
from vehicle.console_saliency import EVERY_S, ConsoleSaliency

pytestmark = pytest.mark.slow  # a real process that loads ONNX Runtime

WAIT_S = 150.0  # for a process that starts on a busy machine


class Car:
    """Pictures, the next one at each look, and a bundle."""

    def __init__(self, folder: Path) -> None:
        self.bundle = make_bundle(folder / "bundle.tar.gz").path
        self.looks = 0
        self.blind = False

    def picture(self) -> Picture | None:
        if self.blind:
            return None
        self.looks += 1
        return Picture(self.looks, 0.0, 120, 160, np.ascontiguousarray(bright(4)).tobytes(), 0.0, 0.4)


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


@pytest.fixture
def maps(car: Car) -> Iterator[ConsoleSaliency]:
    made = ConsoleSaliency(car.picture, lambda: car.bundle)
    yield made
    made.close()
    assert children() == []


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "vehicle.saliency_child" in child.cmdline()
    ]


def wait_map(maps: ConsoleSaliency, after_seq: int = 0) -> Saliency:
    """The next map, past refusals."""
    found: list[Saliency] = []

    def there() -> bool:
        with contextlib.suppress(CarRefused):
            one = maps.newest()
            if one is not None and one.picture.seq > after_seq:
                found.append(one)
        return bool(found)

    assert until(there, WAIT_S)
    return found[-1]


def wait_refused(maps: ConsoleSaliency) -> CarRefused:
    found: list[CarRefused] = []

    def there() -> bool:
        try:
            maps.newest()
        except CarRefused as error:
            found.append(error)
        return bool(found)

    assert until(there, WAIT_S)
    return found[-1]


def test_a_map_of_the_picture_with_its_actions(maps: ConsoleSaliency) -> None:
    begun_s = time.monotonic()
    assert maps.newest() is None
    assert time.monotonic() - begun_s < 0.5, "who asks does not wait"
    found = wait_map(maps)
    assert found.picture.seq >= 1 and len(found.change) == found.rows * found.columns
    assert found.chosen == 4 and len(found.actions) == 10
    assert (found.steering_deg, found.speed_mps) == found.actions[4][:2]
    assert sum(action[2] for action in found.actions) == pytest.approx(1.0, abs=1e-3)
    assert max(found.change[: found.columns]) > 0.0, "the first rows decide"


def test_the_child_comes_last_in_every_queue(maps: ConsoleSaliency) -> None:
    wait_map(maps)
    (child,) = children()
    assert child.nice() == 19
    assert os.getsid(child.pid) == child.pid  # so its nice value counts where the kernel groups by session
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"


def test_however_many_ask_one_map_a_second_is_made_and_none_when_nobody_does(
    maps: ConsoleSaliency, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_map(maps)
    before, begun_s = car.looks, time.monotonic()
    while time.monotonic() - begun_s < 2.5:
        maps.newest()
        time.sleep(0.002)
    assert car.looks - before <= (time.monotonic() - begun_s) / EVERY_S + 1
    assert len(children()) == 1
    # The last one asked for is made, and then no more.
    assert until(lambda: settled(car), 15.0) and car.looks > before
    monkeypatch.setattr(console_saliency, "IDLE_S", 0.2)
    assert until(lambda: not children(), 10.0)
    assert wait_map(maps).picture.seq > before, "it begins again with the next who asks"


def settled(car: Car) -> bool:
    before = car.looks
    time.sleep(2.0 * EVERY_S)
    return car.looks == before


def test_says_why_there_is_none(maps: ConsoleSaliency, car: Car) -> None:
    car.blind = True
    assert wait_refused(maps).reason == "no_picture"
    car.blind = False
    assert wait_map(maps).chosen == 4
    car.bundle.write_bytes(b"damaged")
    car.bundle = car.bundle.rename(car.bundle.with_name("other.tar.gz"))
    error = wait_refused(maps)
    assert error.reason == "not_an_archive" and "not gzip" in error.what


def test_a_child_that_was_killed_is_replaced(maps: ConsoleSaliency) -> None:
    first = wait_map(maps)
    (child,) = children()
    child.kill()
    assert until(lambda: child not in children(), 5.0)
    assert wait_map(maps, first.picture.seq + 1).chosen == 4


def test_a_child_that_hangs_is_killed_and_said_so(maps: ConsoleSaliency, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_map(maps)
    monkeypatch.setattr(console_saliency, "_ANSWER_S", 0.5)
    (child,) = children()
    child.send_signal(signal.SIGSTOP)
    assert wait_refused(maps).reason == "saliency_failed"
    monkeypatch.undo()
    assert wait_map(maps).chosen == 4


def test_closing_does_not_wait_for_a_child_that_hangs(maps: ConsoleSaliency) -> None:
    wait_map(maps)
    (child,) = children()
    child.send_signal(signal.SIGSTOP)
    maps.newest()
    time.sleep(1.5 * EVERY_S)  # it is being asked
    begun_s = time.monotonic()
    maps.close()
    assert time.monotonic() - begun_s < 3.0
    assert children() == []
    with contextlib.suppress(CarRefused):
        maps.newest()  # asking afterwards starts nothing
    assert children() == []
