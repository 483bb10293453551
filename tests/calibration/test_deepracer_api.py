"""The original car's API on the gate's real core: its units, its answers, and what of it was mended."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from calibration import deepracer_units as units
from calibration.errors import CalibrationError
from calibration.mapping import default_sim_calibration, duty_ns, throttle_pulse_us
from calibration.values import Calibration, Steering, Throttle
from tests.calibration.console_rig import Browser, FakeCar

NEUTRAL_US, CENTER_US = Calibration().throttle.neutral_us, Calibration().steering.center_us


def said(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found = answer.json
    assert isinstance(found, dict)
    if found.get("success") is True:
        # One client looks for the text with a blank after the colon, another one without.
        assert '"success":true' in answer.text and 'success": true' in answer.text
    return found


def ok(answer: Any) -> dict[str, Any]:
    found = said(answer)
    assert found["success"] is True, found
    return found


def failed(answer: Any) -> str:
    found = said(answer)
    assert found["success"] is False, found
    return str(found["reason"])


# --- units


def test_the_defaults_over_http_are_the_originals() -> None:
    assert units.calibration_steps(Calibration(), "angle") == {"mid": -5.0, "min": -30.0, "max": 20.0, "polarity": 1}
    assert units.calibration_steps(Calibration(), "throttle") == {
        "mid": -12.0, "min": -42.0, "max": 23.0, "polarity": -1,
    }  # fmt: skip


@pytest.mark.parametrize("channel", ("angle", "throttle"))
@pytest.mark.parametrize(
    "calibration",
    (Calibration(), default_sim_calibration(), Calibration(Steering(1203.25, 1451.5, 1698.0, 25.0, ((9.0, 1380.0),)))),
)
def test_what_was_read_is_written_back_unchanged(calibration: Calibration, channel: str) -> None:
    assert units.with_steps(calibration, channel, units.calibration_steps(calibration, channel)) == calibration


def test_other_pulses_replace_what_was_measured_with_the_old_ones() -> None:
    before = default_sim_calibration()
    after = units.with_steps(before, "throttle", {"mid": -12, "min": -40, "max": "20", "polarity": -1})
    assert after.steering == before.steering
    assert after.throttle == Throttle(1446.0, 1320.0, 1590.0)
    turned = units.with_steps(None, "angle", {"mid": 0, "min": -20, "max": 20, "polarity": -1})
    assert turned == replace(Calibration(), steering=Steering(1300.0, 1500.0, 1700.0))


@pytest.mark.parametrize(
    "values",
    ({"mid": 0, "min": 5, "max": 20, "polarity": 1}, {"mid": 0, "min": -20, "polarity": 1}, {"mid": "x"}, {},
     {"mid": 0, "min": -1e300, "max": 20, "polarity": 1}, {"mid": True, "min": -20, "max": 20, "polarity": 1},
     {"mid": 0, "min": -20, "max": 20, "polarity": float("nan")}, {"mid": 0, "min": 0, "max": 0, "polarity": 1}),
)  # fmt: skip
def test_steps_that_are_none_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CalibrationError):
        units.with_steps(Calibration(), "angle", values)


@pytest.mark.parametrize(
    ("throttle", "max_speed", "expected"),
    (
        (0.3, 0.1, 0.1383743), (0.5, 0.1, 0.2249527), (0.8, 0.1, 0.3463138), (0.3, 0.5, 0.208), (0.5, 0.5, 0.333333),
        (0.8, 0.5, 0.501333), (0.3, 1.0, 0.552), (0.5, 1.0, 0.8), (0.8, 1.0, 0.992), (0.01, 1.0, 0.552),
        (1.0, 1.0, 0.992), (0.0, 1.0, 0.0), (0.9, 0.0, 0.0),
    ),
)  # fmt: skip
def test_manual_speeds_are_the_originals(throttle: float, max_speed: float, expected: float) -> None:
    """The upstream docstring's figures (spec deepracer-vehicle.md 3.2)."""
    assert units.manual_command(0.0, -throttle, max_speed)[1] == pytest.approx(expected, abs=1e-6)
    assert units.manual_command(0.0, throttle, max_speed)[1] == pytest.approx(-expected, abs=1e-6)


def test_a_manual_command_gives_the_originals_pulse() -> None:
    steering, throttle = units.manual_command(0.7, -0.9, 0.3)
    assert steering == -0.5  # there, right is positive
    assert duty_ns(throttle_pulse_us(Calibration(), throttle)) == pytest.approx(1390653, abs=1)


@pytest.mark.parametrize(
    ("fraction", "level"), ((None, -1), (float("nan"), -1), (0.0, 0), (0.55, 6), (1.0, 10), (7.0, 10))
)
def test_battery_levels(fraction: float | None, level: int) -> None:
    assert units.battery_level(fraction) == level


# --- driving by hand


def test_manual_driving_stops_when_the_client_falls_silent_and_goes_on_when_it_speaks(
    browser: Browser, car: FakeCar
) -> None:
    command = {"angle": -0.6, "throttle": -0.9, "max_speed": 1.0}
    assert "not started" in failed(browser.put("/api/manual_drive", command))
    ok(browser.put("/api/drive_mode", {"drive_mode": "manual"}))
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    assert car.mode == "manual"
    for _ in range(20):
        ok(browser.put("/api/manual_drive", command))
        car.advance(0.1)
    assert car.pulses[0] == pytest.approx(CENTER_US + 0.5 * 250.0)  # left
    assert car.pulses[1] == pytest.approx(throttle_pulse_us(Calibration(), 0.992))
    before = len(car.outputs)
    car.advance(1.0)
    neutral = [output.throttle_us == NEUTRAL_US for output in car.outputs[before:]]
    assert neutral.index(True) * 0.02 <= 0.3 and all(neutral[neutral.index(True) :])
    assert car.mode == "disarmed"
    ok(browser.put("/api/manual_drive", command))
    car.advance(0.1)
    assert car.mode == "manual" and car.pulses[1] != NEUTRAL_US
    ok(browser.put("/api/start_stop", {"start_stop": "stop"}))
    car.advance(0.02)
    assert (car.mode, car.pulses[1]) == ("disarmed", NEUTRAL_US)
    failed(browser.put("/api/manual_drive", command))
    assert car.mode == "disarmed"


@pytest.mark.parametrize(("silence_s", "moves"), ((9.0, True), (11.0, False), (600.0, False)))
def test_a_command_that_was_held_up_on_its_way_moves_nothing(
    browser: Browser, car: FakeCar, silence_s: float, moves: bool
) -> None:
    command = {"angle": 0.0, "throttle": -0.9, "max_speed": 1.0}
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    ok(browser.put("/api/manual_drive", command))
    car.advance(0.5)
    assert (car.mode, car.pulses[1]) == ("disarmed", NEUTRAL_US)
    car.rig.now_s += silence_s - 0.5
    car.advance(0.1)
    for _ in range(3):
        answer = browser.put("/api/manual_drive", command)
        (ok if moves else failed)(answer)
        car.advance(0.1)
        assert (car.mode == "manual", car.pulses[1] != NEUTRAL_US) == (moves, moves)


@pytest.mark.parametrize("op", ("disarm", "stop"))
@pytest.mark.parametrize("silent_s", (0.0, 0.5))
def test_whoever_was_stopped_by_somebody_else_does_not_start_again_by_a_command(
    browser: Browser, car: FakeCar, op: str, silent_s: float
) -> None:
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    command = {"angle": 0.0, "throttle": -0.9, "max_speed": 1.0}
    ok(browser.put("/api/manual_drive", command))
    car.advance(0.1 + silent_s)
    car.rig.core.request({"op": op}, car.rig.now_s)
    car.advance(0.1 + silent_s)
    for _ in range(5):
        failed(browser.put("/api/manual_drive", command))
        car.advance(0.1)
        assert car.mode == ("disarmed" if op == "disarm" else "stopped") and car.pulses[1] == NEUTRAL_US


def test_a_fault_is_not_driven_over_either(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    car.rig.now_s += 5.0  # the gate itself was stopped
    car.advance(0.5)
    failed(browser.put("/api/manual_drive", {"angle": 0.0, "throttle": -0.9}))
    assert car.mode == "disarmed"


def test_a_client_without_max_speed_drives_slowly(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    ok(browser.put("/api/manual_drive", {"angle": 0.0, "throttle": -0.9}))
    assert car.asked[-1]["throttle"] == pytest.approx(0.40997, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "why"),
    (
        ({"throttle": 0.0, "max_speed": 1.0}, "angle is required"), ({"angle": 0.0}, "throttle is required"),
        ({"angle": 1.1, "throttle": 0.0}, "angle out of range"), ({"angle": "0", "throttle": 0}, "angle out of range"),
        ({"angle": 0.0, "throttle": -2}, "throttle out of range"),
        ({"angle": 0.0, "throttle": True}, "throttle out of range"),
        ({"angle": 0.0, "throttle": 0.0, "max_speed": 2}, "max_speed out of range"),
    ),
)  # fmt: skip
def test_manual_commands_are_checked(browser: Browser, values: dict[str, Any], why: str) -> None:
    assert failed(browser.put("/api/manual_drive", values)) == why


def test_a_second_client_does_not_get_the_controls(app: Flask, browser: Browser, car: FakeCar, password: str) -> None:
    other = Browser(app, "192.168.1.30")
    other.log_in(password)
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    assert "somebody has the controls" in failed(other.put("/api/start_stop", {"start_stop": "start"}))
    failed(other.put("/api/manual_drive", {"angle": 0.0, "throttle": -0.9}))
    ok(browser.put("/api/manual_drive", {"angle": 0.0, "throttle": -0.9}))


# --- driving by itself


def test_autonomous_waits_for_what_passes_and_says_what_does_not(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/drive_mode", {"drive_mode": "auto"}))
    why = failed(browser.put("/api/start_stop", {"start_stop": "start"}))
    assert "no_model" in why and "hotlap models install" in why
    car.autonomous_ready()
    car.rig.core.request({"op": "disarm"}, car.rig.now_s)
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))  # the ESC must see five neutral frames first
    assert car.mode == "autonomous"
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    assert car.mode == "autonomous"
    ok(browser.put("/api/max_nav_throttle", {"throttle": 50}))
    assert car.state()["cap_percent"] == 50.0
    ok(browser.put("/api/start_stop", {"start_stop": "stop"}))
    assert car.mode == "disarmed"


@pytest.mark.parametrize("percent", (-1, 101, "x", True, [], 1e300))
def test_a_cap_out_of_range_is_not_called_a_success(browser: Browser, car: FakeCar, percent: object) -> None:
    failed(browser.put("/api/max_nav_throttle", {"throttle": percent}))
    assert car.state()["cap_percent"] == 100.0


def test_words_that_are_neither_start_nor_stop_move_nothing(browser: Browser, car: FakeCar) -> None:
    for values in ({"start_stop": "go"}, {"start_stop": 1}, {"start_stop": ""}, {}, {"start_stop": ["stop"]}):
        failed(browser.put("/api/start_stop", values))
    failed(browser.put("/api/drive_mode", {}))
    assert car.mode == "disarmed"


def test_changing_the_mode_stops(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    ok(browser.put("/api/drive_mode", {"drive_mode": "auto"}))
    assert car.mode == "disarmed"


def test_an_emergency_stop_stays(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/start_stop", {"start_stop": "start"}))
    ok(browser.post("/api/emergency_stop"))
    assert "stopped" in failed(browser.put("/api/start_stop", {"start_stop": "start"}))
    assert "stopped" in failed(browser.get("/api/set_calibration_mode"))
    assert car.mode == "stopped"


# --- calibration


def test_the_calibration_is_true_in_every_mode(browser: Browser) -> None:
    found = ok(browser.get("/api/get_calibration/angle"))
    assert {key: found[key] for key in ("mid", "min", "max", "polarity")} == {
        "mid": -5.0, "min": -30.0, "max": 20.0, "polarity": 1,
    }  # fmt: skip
    assert browser.get("/api/get_calibration/other").status_code == 404


def test_a_calibration_is_saved_or_refused_but_never_only_said_to_be(browser: Browser, car: FakeCar) -> None:
    ok(browser.put("/api/set_calibration/angle", {"mid": -4, "min": -30, "max": 21, "polarity": 1}))
    saved = car.calibration()
    assert saved is not None and saved.steering == Steering(1710.0, 1460.0, 1200.0)
    assert "ascending" in failed(
        browser.put("/api/set_calibration/angle", {"mid": -40, "min": -30, "max": 21, "polarity": 1})
    )
    failed(browser.put("/api/set_calibration/throttle", {"mid": 0}))
    car.autonomous_ready()
    browser.post("/api/v1/arm")
    assert "autonomous" in failed(
        browser.put("/api/set_calibration/angle", {"mid": 0, "min": -30, "max": 21, "polarity": 1})
    )
    assert car.calibration() == saved


def test_wheels_are_adjusted_while_it_is_asked_for_in_bounded_steps(browser: Browser, car: FakeCar) -> None:
    failed(browser.put("/api/adjust_calibrating_wheels/angle", {"pwm": 10}))
    ok(browser.get("/api/set_calibration_mode"))
    assert car.mode == "calibration"
    ok(browser.put("/api/adjust_calibrating_wheels/angle", {"pwm": 10}))
    car.advance(0.1)
    assert car.pulses == (1600.0, NEUTRAL_US)
    target_us = units.pulse_us("throttle", -30)  # 81 us from neutral
    seen = []
    for _ in range(5):
        ok(browser.put("/api/adjust_calibrating_wheels/throttle", {"pwm": -30}))
        car.advance(0.1)
        seen.append(car.pulses[1])
    assert seen == pytest.approx([NEUTRAL_US - 24, NEUTRAL_US - 48, NEUTRAL_US - 72, target_us, target_us])
    car.advance(0.5)
    assert (car.mode, car.pulses) == ("disarmed", (CENTER_US, NEUTRAL_US))
    ok(browser.put("/api/adjust_calibrating_wheels/throttle", {"pwm": -30}))  # one step again, from neutral
    car.advance(0.04)
    assert car.pulses[1] == pytest.approx(NEUTRAL_US - 24)
    ok(browser.put("/api/set_calibration/throttle", {"mid": -12, "min": -40, "max": 22, "polarity": -1}))
    assert car.mode == "disarmed"
    for values in ({"pwm": 5000}, {"pwm": "x"}, {"pwm": 90}, {}):
        failed(browser.put("/api/adjust_calibrating_wheels/angle", values))


def test_calibration_takes_a_driving_car_over_only_through_neutral(browser: Browser, car: FakeCar) -> None:
    car.autonomous_ready()
    browser.post("/api/v1/arm")
    car.advance(0.5)
    before = len(car.outputs)
    ok(browser.get("/api/set_calibration_mode"))
    assert all(output.throttle_us == NEUTRAL_US for output in car.outputs[before:])
    assert sum(output.mode.value == "disarmed" for output in car.outputs[before:]) >= 5


# --- models and the rest


def upload(browser: Browser, data: bytes, name: str) -> dict[str, Any]:
    return ok(browser.ask("PUT", "/api/uploadModels", data={"file": (io.BytesIO(data), name)}))


def test_models_are_uploaded_listed_loaded_and_deleted(browser: Browser, car: FakeCar) -> None:
    upload(browser, b"one", "oval.tar.gz")
    upload(browser, b"two", "oval.tar.gz")
    rows = browser.get("/api/models").json
    assert rows is not None and "success" not in rows
    names = [row["model_folder_name"] for row in rows["models"]]
    assert names[0] == "oval" and names[1].startswith("oval-") and len(set(names)) == 2
    listed = browser.get("/api/uploaded_model_list").json
    assert isinstance(listed, list) and listed[0]["status"] == "Ready" and listed[0]["size"] == "1M"
    ok(browser.ask("PUT", "/api/models/oval/model", data=b"", headers={"Content-Type": "application/json"}))
    assert ok(browser.get("/api/isModelLoading"))["isModelLoading"] == "loaded"
    car.loaded = False
    assert "pilot does not run" in failed(browser.put("/api/models/oval/model"))
    failed(browser.put("/api/models/none/model"))
    assert ok(browser.get("/api/is_model_installed?filename=oval.tar.gz"))
    assert said(browser.get("/api/is_model_installed?filename=none"))["success"] is False
    for names_sent in (["none"], [], "oval", [5], ["../oval", "none"]):
        failed(browser.put("/api/deleteModels", {"filenames": names_sent}))
    assert len(car.installed) == 2
    ok(browser.put("/api/deleteModels", {"filenames": names}))
    assert car.installed == {}


def test_json_that_is_labelled_a_form_is_read(browser: Browser, car: FakeCar) -> None:
    """A bug of the client 0.2.0: after an upload, its JSON goes out with the upload's content type."""
    headers = {"Content-Type": "multipart/form-data; boundary=abc"}
    answer = browser.ask("PUT", "/api/drive_mode", data=b'{"drive_mode": "manual"}', headers=headers)
    ok(answer)


@pytest.mark.parametrize(
    ("path", "expected"),
    (
        ("/api/get_battery_level", {"battery_level": -1}),
        ("/api/control_modes_available", {"control_modes_available": ["manual", "autonomous", "calibration"]}),
        ("/api/get_device_info", {"hardware_version": "hotlap", "software_version": "0.1.0"}),
        ("/api/is_usb_connected", {"is_usb_connected": False}),
        ("/api/get_network_details", {"is_usb_connected": False, "SSID": "school", "ip_address": "192.168.1.7"}),
        ("/api/get_sensor_status", {"camera_status": "not_connected", "stereo_status": "not_connected"}),
        ("/api/logs/core/3", {"data": "line 2\nline 3\nline 4"}), ("/api/server_ready", {"status": True}),
        ("/api/get_device_status", {"cpu_temp": 50.0, "free_disk": 10**9, "fps_mean": 15.0}),
    ),
)  # fmt: skip
def test_facts(browser: Browser, path: str, expected: dict[str, Any]) -> None:
    found = ok(browser.get(path))
    assert {key: found[key] for key in expected} == expected


def test_what_it_can_do_is_listed(browser: Browser) -> None:
    paths = ok(browser.get("/api/supported_apis"))["apis_supported"]
    assert "/api/manual_drive" in paths and "/api/models/<folder>/<model>" in paths
    assert browser.get("/api/enableSsh").status_code == 404


def test_the_password_is_changed(app: Flask, browser: Browser, password: str) -> None:
    new = "another good one"
    why = failed(browser.post("/api/password", {"old_password": "wrong", "new_password": new}))
    assert why == "The password is incorrect. Provide your current password."
    assert "8 to 128" in failed(browser.post("/api/password", {"old_password": password, "new_password": "x"}))
    ok(browser.post("/api/password", {"old_password": password, "new_password": new}))
    assert Browser(app).log_in(new).status_code == 200
