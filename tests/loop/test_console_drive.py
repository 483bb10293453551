"""The page in a real browser over `hotlap drive --console`, from the printed address to a lap; and a wrong calibration,
with which the car does not lap, put right on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibration.mapping import Calibration, default_sim_calibration
from calibration.store import load_calibration, save_calibration
from tests.browser.rig import Chromium
from tests.loop.console_rig import Laptop, Person
from tests.vehicle.drive_rig import Car
from tests.vehicle.gate_process import until
from tests.vehicle.pilot_rig import make_bundle

pytestmark = [pytest.mark.slow, pytest.mark.learning, pytest.mark.timeout(900)]

# A lap at the trial's 60 % takes too long for a test.
NO_TRIAL_CAP = "[drive]\ntrial_cap_percent = 100.0\n"
TRUE = default_sim_calibration()
FAILS_S = 120.0
LAP_S = 240.0


@pytest.fixture
def car() -> Iterator[Car]:
    made = Car(NO_TRIAL_CAP)
    yield made
    made.close()


@pytest.fixture
def browser() -> Iterator[Chromium]:
    """The car has signed its certificate itself."""
    found = Chromium(ignore_https_errors=True)
    yield found
    found.close()


def test_from_the_printed_address_to_a_lap(car: Car, browser: Chromium, trained: Path, tmp_path: Path) -> None:
    car.install(make_bundle(tmp_path / "first.tar.gz").path)  # nobody trained it
    laptop = Laptop(car, "--track", "first_oval")
    try:
        person = Person(laptop, browser, "drive")
        page = person.page
        person.log_in(laptop.password)
        page.wait(lambda: page.js("return document.getElementById('camera-picture').naturalWidth") > 1, "a picture")
        first = page.by("camera").screenshot()
        page.wait(lambda: page.by("camera").screenshot() != first, "the picture moves", 30.0)
        person.keep("pictures")

        person.calibrate()
        made = load_calibration(car.state / "calibration.json")
        for name in ("left_us", "center_us", "right_us"):
            assert getattr(made.steering, name) == pytest.approx(getattr(TRUE.steering, name), abs=6.0), name
        assert made.throttle.neutral_us == pytest.approx(TRUE.throttle.neutral_us, abs=12.0)
        assert TRUE.throttle.forward_us <= made.throttle.forward_us < TRUE.throttle.neutral_us - 40.0

        person.upload(trained)

        person.start()
        page.wait(lambda: page.text("ready") == "It drives.", "the page says so")
        person.keep("drives")
        page.wait(lambda: "Simulated car: 1 lap, the last in" in page.text("simulated"), "a lap", LAP_S)
        person.keep("a-lap")
        page.by("stop").click()
        page.mode("stopped")
        page.wait(lambda: page.all("#reset"), "it says how to go on")
        person.keep("stopped")
        result = laptop.end()
    finally:
        laptop.close()
    assert result["laps"] >= 1 and result["mode"] == "stopped", result


def wrong(name: str) -> Calibration:
    steering, throttle = TRUE.steering, TRUE.throttle
    if name == "center":
        steering = dataclasses.replace(steering, center_us=steering.center_us + 100.0)
    elif name == "swapped":
        steering = dataclasses.replace(steering, left_us=steering.right_us, right_us=steering.left_us)
    else:
        throttle = dataclasses.replace(
            throttle, forward_us=throttle.reverse_us, reverse_us=throttle.forward_us,
            forward_start_us=throttle.reverse_start_us, reverse_start_us=throttle.forward_start_us,
            curve=tuple((-mps, us) for mps, us in reversed(throttle.curve)),
        )  # fmt: skip
    return Calibration(steering, throttle)


# Where the road bends both ways and tightly: on a plain oval, a policy that sees where it goes steers against a centre
# that is off, and laps.
@pytest.mark.pages
@pytest.mark.parametrize(
    ("name", "track"), [("center", "little_bean"), ("swapped", "first_oval"), ("reversed", "first_oval")]
)
def test_a_wrong_calibration_is_put_right_on_the_page(
    car: Car, browser: Chromium, trained: Path, name: str, track: str
) -> None:
    car.state.mkdir()
    save_calibration(car.state / "calibration.json", wrong(name))
    car.install(trained)
    laptop = Laptop(car, "--track", track)
    try:
        person = Person(laptop, browser, f"wrong-{name}")
        person.log_in(laptop.password)
        person.start()
        assert until(lambda: laptop.seen.off_track >= 1 or laptop.seen.laps >= 1, FAILS_S), "it does nothing at all"
        assert (laptop.seen.off_track, laptop.seen.laps) == (1, 0), "it has left the road before its first lap"
        person.keep("off-the-track")
        person.finish()
        person.calibrate()
        assert laptop.end()["laps"] == 0
    finally:
        laptop.close()

    # The same policy on the same road, with what was saved on the page.
    drive = car.drive("--track", track, "--arm", "--laps", 1, "--duration", f"{LAP_S:g}s")
    assert drive.end(LAP_S + 120.0) == 0, (drive.stderr, car.logs())
    assert drive.result["laps"] == 1 and drive.result["off_track"] == 0, drive.stderr
