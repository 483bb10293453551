"""The Calibrate page: guided steps to a saved calibration, and nothing saved or moving that should not be."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.browser.rig import Page, until

pytestmark = pytest.mark.slow

PULSE = "/api/v1/pulse"
NEUTRAL_US, CENTER_US = 1446.0, 1450.0
STEP_US = 25.0


def saved(page: Page) -> dict[str, Any]:
    answer = page.js("return fetch('/api/v1/calibration').then((answer) => answer.json())")
    found: dict[str, Any] = answer["calibration"]
    return found


def open_page(page: Page) -> None:
    page.go("/calibrate")
    page.wait(lambda: page.by("begin-steering").is_enabled(), "the calibration is shown")


def slide(page: Page, name: str, value: int) -> None:
    slider = page.by(f"steer-{name}")
    page.wait(lambda: slider.is_visible() and slider.is_enabled(), "the slider lives")
    page.js("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, value)


def steering_us(page: Page) -> float:
    return float(page.backend.told()["trace"][-1][1])


def throttle_us(page: Page) -> float:
    return float(page.backend.told()["trace"][-1][2])


def press_down(page: Page, name: str) -> None:
    button = page.css(f"[data-hold={name}]")
    page.wait(lambda: button.is_visible() and button.is_enabled(), f"{name} can be held")
    page.show(button).hover()
    page.tab.mouse.down()


def hold(page: Page, name: str, reach_us: float) -> None:
    """Hold the button until the motor's pulse is that far from neutral, then let go."""
    press_down(page, name)
    try:
        page.wait(lambda: abs(throttle_us(page) - NEUTRAL_US) >= reach_us, f"{name} runs")
    finally:
        page.tab.mouse.up()
    until(lambda: throttle_us(page) == NEUTRAL_US, "neutral", 2.0)


def begin_motor(page: Page) -> None:
    open_page(page)
    page.press("begin-throttle")
    assert not page.by("next").is_enabled(), "not before the wheels are off the ground"
    page.press("raised")
    page.press("next")
    page.mode("calibration")


def test_steering_to_a_saved_calibration(page: Page) -> None:
    open_page(page)
    before = saved(page)
    page.press("begin-steering")
    assert page.backend.mode == "disarmed"
    page.press("next")
    page.mode("calibration")
    for name, value, us in (("center", 30, 1470.0), ("left", -230, 1730.0), ("right", 220, 1280.0)):
        slide(page, name, value)
        # DeepRacer's servo has the longer pulse on the left: to the right is shorter.
        expected = 1500.0 - value
        assert us == expected
        page.wait(lambda expected=expected: steering_us(page) == expected, f"the wheels follow to {name}")
        page.press("next")
    page.mode("disarmed")
    page.by("max-deg").fill("27.5")
    page.press("next")
    assert saved(page) == before, "nothing is saved before Save"
    assert not page.backend.moved(), "the motor was at rest all the time"
    page.press("save")
    page.wait(lambda: "Saved" in page.text("saved"), "saved")
    now = saved(page)["steering"]
    assert (now["center_us"], now["left_us"], now["right_us"], now["max_deg"]) == (1470.0, 1730.0, 1280.0, 27.5)
    assert saved(page)["throttle"] == before["throttle"]


def test_nudges_and_the_other_way_round(page: Page) -> None:
    open_page(page)
    page.press("begin-steering")
    page.press("next")
    page.mode("calibration")
    page.press('[data-nudge="steer-center"][data-by="10"]')
    page.wait(lambda: steering_us(page) == CENTER_US - 10.0, "10 us to the right")
    page.press("mirror")
    page.press('[data-nudge="steer-center"][data-by="10"]')
    page.wait(lambda: steering_us(page) == CENTER_US, "right is the longer pulse now")
    page.press("leave")
    page.mode("disarmed")
    page.wait(lambda: page.by("discard").is_visible() and not page.by("discard").is_enabled(), "all as before")


def test_motor_to_a_saved_calibration(page: Page) -> None:
    begin_motor(page)
    hold(page, "first", 24.0)
    assert not page.by("next").is_enabled(), "not before it is known which way they turned"
    page.press("input[value=reverse]")
    page.press("next")
    hold(page, "second", 16.0)
    page.press("next")
    hold(page, "forward", 60.0)
    page.press("next")
    hold(page, "reverse", 50.0)
    page.press("next")
    page.mode("disarmed")
    page.press("save")
    page.wait(lambda: "Saved" in page.text("saved"), "saved")
    now = saved(page)["throttle"]
    assert 1470.0 <= now["reverse_start_us"] <= 1486.0
    assert 1414.0 <= now["forward_start_us"] <= 1430.0
    assert now["neutral_us"] == (now["forward_start_us"] + now["reverse_start_us"]) / 2
    assert now["forward_us"] <= NEUTRAL_US - 60.0 and now["reverse_us"] >= NEUTRAL_US + 50.0


def test_a_motor_that_turns_the_other_way_is_put_right_with_its_measured_speeds(page: Page) -> None:
    page.go("/calibrate")
    reversed_one = {
        "neutral_us": 1446.0, "forward_us": 1603.5, "reverse_us": 1311.0, "forward_start_us": 1476.0,
        "reverse_start_us": 1421.0, "curve": [[-2.0, 1390.0], [-0.5, 1410.0], [0.5, 1500.0]],
    }  # fmt: skip
    page.save({**saved(page), "throttle": reversed_one})
    begin_motor(page)
    hold(page, "first", 24.0)
    page.press("input[value=reverse]")
    page.press("next")
    hold(page, "second", 16.0)
    for _ in range(3):
        page.press("next")
    page.mode("disarmed")
    page.press("save")
    page.wait(lambda: "Saved" in page.text("saved"), "saved")
    now = saved(page)["throttle"]
    shift_us = now["neutral_us"] - NEUTRAL_US
    assert (now["forward_us"], now["reverse_us"]) == (1311.0 + shift_us, 1603.5 + shift_us)
    assert now["curve"] == [[-0.5, 1500.0], [0.5, 1410.0], [2.0, 1390.0]]


def test_the_wheels_of_a_simulated_car_are_told(page: Page) -> None:
    """Nobody can look at them."""
    seen = {"steering_deg": 12.04, "motor_mps": -0.5, "laps": 1, "lap_times_s": [12.34], "off_track": 2}
    page.backend.set(car={"simulated": seen})
    open_page(page)
    assert not page.by("simulated").is_visible()
    page.press("begin-steering")
    page.press("next")
    words = "Simulated car: the front wheels point 12.0° to the left; the wheels turn backwards at 0.50 m/s."
    page.wait(lambda: page.text("simulated") == words, page.text("simulated"))
    wheels = page.css("[data-step=center] .car-front")
    page.wait(lambda: wheels.get_attribute("transform") == "rotate(-12.0)", "the picture shows it")
    page.backend.set(car={"simulated": {**seen, "steering_deg": 0.0, "motor_mps": 0.0}})
    words = "Simulated car: the front wheels point straight ahead; the wheels stand still."
    page.wait(lambda: page.text("simulated") == words, page.text("simulated"))
    page.press("leave")
    page.wait(lambda: not page.by("simulated").is_visible(), "only while it is calibrated")
    page.go("/")
    words = "Simulated car: 1 lap, the last in 12.3 s; off the track 2 times."
    page.wait(lambda: page.text("simulated") == words, page.text("simulated"))


SPEEDS = """
return import("/static/speeds.js").then(({fittingSpeeds}) => fittingSpeeds(arguments[0], {
  neutral_us: 1446, forward_us: arguments[1], reverse_us: 1603.5, forward_start_us: 1421, reverse_start_us: null}));
"""


@pytest.mark.parametrize(
    ("forward_us", "kept"),
    [
        (1311.0, [[-1.0, 1500.0], [0.5, 1410.0], [1.0, 1400.0]]),
        (1405.0, [[-1.0, 1500.0], [0.5, 1410.0], [0.75, 1405.0]]),  # between two of them: what it was measured to be
        (1409.9, [[-1.0, 1500.0], [0.5, 1410.0]]),  # as good as one of them
        (1420.5, []),  # no forward speed is left: none at all
    ],
)
def test_measured_speeds_beyond_a_new_full_speed_are_void(
    page: Page, forward_us: float, kept: list[list[float]]
) -> None:  # fmt: skip
    page.go("/calibrate")
    assert page.js(SPEEDS, [[-1.0, 1500.0], [0.5, 1410.0], [1.0, 1400.0]], forward_us) == kept


def test_steps_are_bounded_and_letting_go_is_neutral_at_once(page: Page) -> None:
    begin_motor(page)
    hold(page, "first", 20.0)
    page.press("input[value=forward]")
    page.press("next")
    hold(page, "second", 20.0)
    page.press("next")
    hold(page, "forward", 100.0)
    hold(page, "forward", 103.0)  # quickly up to where it was before
    told = page.backend.told()
    asked = [NEUTRAL_US, *(one["body"]["throttle_us"] for one in told["log"] if one["path"] == PULSE)]
    up = [b - a for a, b in itertools.pairwise(asked) if abs(b - NEUTRAL_US) > abs(a - NEUTRAL_US)]
    assert up and max(map(abs, up)) <= STEP_US
    train = [us for _, _, us, _ in told["trace"]]
    steps = [b - a for a, b in itertools.pairwise(train) if abs(b - NEUTRAL_US) > abs(a - NEUTRAL_US)]
    assert max(map(abs, steps)) <= STEP_US
    # It is asked for neutral at once, and does not wait for the hold to run out.
    pulses = [(one["t"], one["body"]["throttle_us"]) for one in told["log"] if one["path"] == PULSE]
    last = max(t for t, us in pulses if us > NEUTRAL_US + 90.0)
    home = min(t for t, _ in pulses if t > last)
    assert home - last < 0.3
    time.sleep(0.4)
    assert not page.backend.moved(home + 0.25)


def test_the_space_bar_holds_as_well(page: Page) -> None:
    begin_motor(page)
    button = page.css("[data-hold=first]")
    page.wait(lambda: button.is_enabled(), "it can be held")
    button.focus()
    page.tab.keyboard.down(" ")
    page.wait(lambda: throttle_us(page) > NEUTRAL_US, "it runs")
    page.tab.keyboard.up(" ")
    until(lambda: throttle_us(page) == NEUTRAL_US, "neutral", 2.0)
    assert page.text("hold-first-value") != "not measured"


@pytest.mark.parametrize("event", ["blur", "pagehide"])
def test_the_motor_rests_when_the_page_is_left(page: Page, event: str) -> None:
    begin_motor(page)
    press_down(page, "first")
    page.wait(lambda: throttle_us(page) > NEUTRAL_US, "it runs")
    page.js("window.dispatchEvent(new Event(arguments[0]))", event)
    page.mode("disarmed")
    until(lambda: throttle_us(page) == NEUTRAL_US, "neutral", 1.0)
    lease = page.backend.asked(PULSE)[-1]["body"]["lease"]  # one of the test before may be released late
    assert [one["body"]["lease"] for one in page.backend.asked("/api/v1/release")].count(lease) == 1
    page.wait(lambda: "controls were given back" in page.text("lost-text"), "it says so")
    page.tab.mouse.up()
    page.press("again")
    page.mode("calibration")
    assert throttle_us(page) == NEUTRAL_US


def test_a_bad_value_is_told_and_cannot_be_saved(page: Page) -> None:
    open_page(page)
    field = page.show(page.by("value-steering-center_us"))
    field.fill("1900")
    page.wait(lambda: "the center is not between the ends" in page.text("checks"), page.text("checks"))
    assert not page.by("save").is_enabled()
    field.fill("")
    page.wait(lambda: "A value is missing" in page.text("checks"), page.text("checks"))
    page.press("discard")
    page.wait(lambda: "All checks passed" in page.text("checks"), page.text("checks"))
    assert field.input_value() == "1450"


def test_curves_are_drawn_new_and_saved(page: Page) -> None:
    open_page(page)
    page.wait(lambda: page.all("#chart-speed .chart-new"), "a curve")
    assert not page.all("#chart-steering .chart-saved")
    page.press("swap-steering")
    page.wait(lambda: page.all("#chart-steering .chart-saved"), "both")
    label = page.by("chart-steering").get_attribute("aria-label")
    assert label == "Steering angle to servo pulse: from 1700 microseconds at −30 degrees to 1200 at 30"


def test_swap_save_and_undo(page: Page) -> None:
    open_page(page)
    page.press("swap-throttle")
    page.press("save")
    page.wait(lambda: "Saved" in page.text("saved"), "saved")
    assert saved(page)["throttle"]["forward_us"] == 1603.5
    page.press("undo")
    page.wait(lambda: "Undone" in page.text("saved"), "undone")
    assert saved(page)["throttle"]["forward_us"] == 1311.0


def test_measured_angles_and_speeds(page: Page) -> None:
    open_page(page)
    for button in page.all("#overview summary")[:2]:
        page.show(button).click()
    for add, pairs, values in (("add-point", "points", ("12", "1560")), ("add-speed", "speeds", ("1.5", "1400"))):
        page.press(add)
        for field, value in zip(page.all(f"#{pairs} input"), values, strict=True):
            field.fill(value)
    page.wait(lambda: "All checks passed" in page.text("checks"), page.text("checks"))
    page.press("save")
    page.wait(lambda: "Saved" in page.text("saved"), "saved")
    assert saved(page)["steering"]["points"] == [[12.0, 1560.0]]
    assert saved(page)["throttle"]["curve"] == [[1.5, 1400.0]]
    page.press("#points button")
    page.press("save")
    page.wait(lambda: saved(page)["steering"]["points"] == [], "taken away again")


def test_deepracer_files_go_out_and_come_in(page: Page, tmp_path: Path) -> None:
    open_page(page)
    text = page.js("return fetch(document.getElementById('export').href).then((answer) => answer.text())")
    inner = json.loads(text)["Calibration"]
    assert inner["Servo"] == {"max": 1700000, "mid": 1450000, "min": 1200000, "polarity": 1}
    inner["Servo"]["mid"] = 1466000
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"Calibration": inner}))
    page.by("import").set_input_files(file)
    page.wait(lambda: page.by("value-steering-center_us").input_value() == "1466", "taken over")
    assert saved(page)["steering"]["center_us"] == 1450.0, "and not saved"
    file.write_text("{}")
    page.by("import").set_input_files(file)
    page.wait(lambda: "Likely cause" in page.text("errors"), page.text("errors"))


def test_a_car_that_was_never_calibrated_begins_with_typical_values(page: Page) -> None:
    page.backend.set(begin={"calibrated": False})
    page.go("/calibrate")
    page.wait(lambda: page.text("summary") == "Not calibrated yet.", "it says so")
    assert not page.by("begin-steering").is_enabled()
    page.press("typical")
    page.wait(lambda: page.by("begin-steering").is_enabled(), "now it can")
    assert saved(page)["steering"]["left_us"] == 1700.0


def test_nothing_can_be_saved_while_the_car_drives(page: Page) -> None:
    open_page(page)
    page.press("swap-steering")
    page.wait(lambda: page.by("save").is_enabled(), "good")
    page.js("return fetch('/api/v1/arm', {method: 'POST', body: '{}', headers: {'Content-Type': 'application/json',"
            " 'X-CSRFToken': document.querySelector('meta[name=csrf-token]').content}}).then((a) => a.ok)")  # fmt: skip
    page.mode("autonomous")
    page.press("save")
    page.wait(lambda: "the gate is autonomous" in page.text("errors"), page.text("errors"))
    assert saved(page)["steering"]["left_us"] == 1700.0
    page.press("begin-steering")
    page.press("next")
    page.wait(lambda: "already" in page.text("lost-text") or "autonomous" in page.text("lost-text"), "why not")
    assert page.backend.mode == "autonomous", "calibrating does not take the car from the pilot"
