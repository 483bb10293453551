"""`hotlap drive --console` whose console is killed: an autonomous car goes on or stops as configured, nothing stays in
manual, and the page comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from calibration.auth import PasswordStore
from tests.vehicle.console_car import Https
from tests.vehicle.drive_rig import PARTS, Car
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import make_bundle
from vehicle.links import console_url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONSOLE = "vehicle.console"


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that nobody trained: it drives, though not along the road."""
    return make_bundle(tmp_path_factory.mktemp("blind") / "bundle.tar.gz").path


@pytest.fixture
def car(request: pytest.FixtureRequest, blind: Path) -> Iterator[Car]:
    """A car with its console, and whatever its parameter says in car.toml."""
    made = Car(getattr(request, "param", ""))
    try:
        made.install(blind)
        made.drive("--track", "first_oval", "--console")
        assert until(lambda: console_url(made.runtime) is not None, 120.0), made.logs()
        yield made
    finally:
        if made.driving is not None:
            made.driving.send(signal.SIGINT)
            made.driving.end(60.0)
        made.close()
        assert until(lambda: not made.pids(*PARTS, CONSOLE), 20.0)


def log_in(car: Car) -> Https:
    password = PasswordStore(car.state / "console").first()
    url = console_url(car.runtime)
    assert password is not None and url is not None
    return Https(urlsplit(url).port or 443, timeout_s=60.0).log_in(password)


def arm(car: Car, browser: Https) -> None:
    answers = []

    def armed() -> bool:
        answers.append(browser.ask("POST", "/api/v1/arm", {}))
        return answers[-1][0] == 200

    assert until(armed, 60.0), answers[-1]
    car.wait_moving()


def kill(car: Car) -> float:
    """When the console was killed."""
    pid = car.pids(CONSOLE)[CONSOLE]
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return killed_s


def moving(car: Car, since_s: float) -> list[float]:
    """Times of pulses that are not neutral."""
    neutral_us = car.neutral_us()
    return [row.t_s for row in car.rows(since_s=since_s) if row.pulse_us != neutral_us]


@pytest.mark.parametrize("how", (signal.SIGKILL, signal.SIGSTOP))
def test_an_autonomous_car_goes_on_and_the_page_comes_back(car: Car, how: signal.Signals) -> None:
    browser = log_in(car)
    arm(car, browser)
    before = car.pids(CONSOLE)[CONSOLE]
    assert os.getpriority(os.PRIO_PROCESS, before) >= 5  # behind gate, pilot and world
    group = Path(f"/proc/{before}/autogroup")
    assert not group.exists() or group.read_text().split()[-1] == "5"
    os.kill(before, how)
    gone_s = time.monotonic()
    assert until(lambda: car.rows()[-1].t_s - gone_s > 4.0)
    assert car.run("status")["mode"] == "autonomous"
    assert len(moving(car, gone_s)) > 0.9 * 50 * 4.0
    if how == signal.SIGSTOP:
        os.kill(before, signal.SIGCONT)
    else:
        assert until(lambda: car.pids(CONSOLE).get(CONSOLE, before) != before, 60.0)
        browser.close()
        assert until(lambda: console_url(car.runtime) is not None, 60.0)
        browser = log_in(car)  # of before the start; sessions ended
    assert browser.ask("GET", "/api/v1/state")[1]["mode"] == "autonomous"
    assert browser.post("/api/v1/stop")["mode"] == "stopped"
    browser.close()


@pytest.mark.parametrize("car", ['[drive]\nwithout_console = "stop"\n'], indirect=True)
def test_where_it_is_configured_so_an_autonomous_car_stops(car: Car) -> None:
    browser = log_in(car)
    arm(car, browser)
    browser.close()
    killed_s = kill(car)
    assert until(lambda: car.run("status")["mode"] == "disarmed", 30.0)
    assert car.run("status")["fault"]["name"] == "console_lost"
    assert max(moving(car, killed_s)) - killed_s < 2.1
    # Its console comes back by itself; the car does not go on by itself.
    assert until(lambda: {b["reason"] for b in car.run("status")["blocked"]} == {"disarmed"}, 60.0)
    assert moving(car, killed_s + 2.1) == []


@pytest.mark.parametrize(
    ("kind", "path", "values"),
    (("manual", "manual", {"steering": 0.0, "throttle": 0.8}), ("calibration", "pulse", {"throttle_us": 20.0})),
)
def test_a_car_is_never_left_in_manual(car: Car, kind: str, path: str, values: dict[str, float]) -> None:
    browser = log_in(car)
    if "throttle_us" in values:
        values = {"throttle_us": car.neutral_us() + values["throttle_us"]}

    def driven() -> bool:
        """For half a second; a machine under load may be too slow for a lease of 0.25 s."""
        status, found, _ = browser.ask("POST", "/api/v1/lease", {"kind": kind})
        lease = found.get("lease", "")
        status, *_ = browser.ask("POST", "/api/v1/arm", {"mode": kind, "lease": lease})
        end_s = time.monotonic() + 0.5
        while status == 200 and time.monotonic() < end_s:
            time.sleep(0.05)
            status, *_ = browser.ask("POST", f"/api/v1/{path}", {"lease": lease, **values})
        return status == 200 and bool(moving(car, time.monotonic() - 0.1))

    assert until(driven, 60.0)
    killed_s = kill(car)
    assert until(lambda: len(car.rows(since_s=killed_s)) > 100)
    assert max(moving(car, killed_s), default=killed_s) - killed_s <= 0.300
    status = car.run("status")
    assert (status["mode"], status["fault"]["name"]) == ("disarmed", "lease_lost")
    browser.close()
