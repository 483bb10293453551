"""/api/v1 against the gate's real core: driving by lease, models, uploads, calibration, settings."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from flask import Flask

from calibration.api_calibration import as_object
from calibration.console import MAX_EVENT_STREAMS
from calibration.deepracer import to_deepracer
from calibration.mapping import default_sim_calibration
from calibration.values import Calibration, Steering
from tests.calibration.console_rig import Browser, FakeCar, reason, shared

NEUTRAL_US = Calibration().throttle.neutral_us


def take(browser: Browser, kind: str = "manual") -> str:
    """The lease, with the car armed by it."""
    answer = browser.post("/api/v1/lease", {"kind": kind})
    assert answer.status_code == 200, answer.text
    lease = str(answer.json["lease"])  # type: ignore[index]
    assert browser.post("/api/v1/arm", {"mode": kind, "lease": lease}).status_code == 200
    return lease


def full_ahead(browser: Browser, car: FakeCar, lease: str, seconds: float = 0.6) -> None:
    for _ in range(round(seconds / 0.1)):
        answer = browser.post("/api/v1/manual", {"lease": lease, "steering": 0.5, "throttle": 0.8})
        assert answer.status_code == 200, answer.text
        car.advance(0.1)
    assert car.pulses[1] != NEUTRAL_US


# --- driving


def test_autonomous_is_armed_and_disarmed(browser: Browser, car: FakeCar) -> None:
    answer = browser.post("/api/v1/arm")
    assert (answer.status_code, reason(answer)) == (409, "blocked")
    assert answer.json is not None
    assert {"no_model", "stale_intent", "stale_frame"} <= {one["reason"] for one in answer.json["error"]["blocked"]}
    assert all(set(one) == {"reason", "value", "cure"} for one in answer.json["error"]["blocked"])
    car.autonomous_ready()
    assert browser.post("/api/v1/arm").json["mode"] == "autonomous"  # type: ignore[index]
    car.advance(0.5)
    assert car.outputs[-1].cause == "drive"
    assert browser.post("/api/v1/disarm").json["mode"] == "disarmed"  # type: ignore[index]
    car.advance(0.02)
    assert car.pulses[1] == NEUTRAL_US


@pytest.mark.parametrize("data", (b"", b"{", b"nonsense", b"[1]", b"\xff" * 100))
def test_a_stop_is_obeyed_whatever_else_it_says(browser: Browser, car: FakeCar, data: bytes) -> None:
    full_ahead(browser, car, take(browser))
    assert browser.ask("POST", "/api/v1/stop", data=data).status_code == 200
    car.advance(0.02)
    assert (car.mode, car.pulses[1]) == ("stopped", NEUTRAL_US)
    assert reason(browser.post("/api/v1/arm")) == "blocked"
    assert browser.post("/api/v1/reset").json["mode"] == "disarmed"  # type: ignore[index]
    assert reason(browser.post("/api/v1/reset")) == "not_stopped"


def test_manual_driving_is_the_browsers_own_heartbeat(browser: Browser, car: FakeCar) -> None:
    lease = take(browser)
    full_ahead(browser, car, lease)
    last_s = car.rig.now_s
    car.advance(0.5)  # nobody says anything: the console does not renew by itself
    neutral_after_s = next(i for i, output in enumerate(car.outputs[-25:]) if output.throttle_us == NEUTRAL_US) * 0.02
    assert neutral_after_s <= 0.3, last_s
    assert car.mode == "disarmed"
    for path, values in (("renew", {}), ("manual", {"steering": 0.0, "throttle": 0.5}), ("release", {})):
        assert reason(browser.post(f"/api/v1/{path}", {"lease": lease, **values})) == "lease_lost"
    answer = browser.post("/api/v1/arm", {"mode": "manual", "lease": lease})
    assert reason(answer) == "blocked"


def test_renewing_holds_the_lease_but_not_an_old_command(browser: Browser, car: FakeCar) -> None:
    lease = take(browser)
    full_ahead(browser, car, lease)
    for _ in range(10):
        assert browser.post("/api/v1/renew", {"lease": lease}).status_code == 200
        car.advance(0.1)
    assert (car.mode, car.pulses[1]) == ("manual", NEUTRAL_US)
    assert browser.post("/api/v1/release", {"lease": lease}).status_code == 200
    assert car.mode == "disarmed"


def test_two_browsers_do_not_share_the_controls(app: Flask, browser: Browser, car: FakeCar, password: str) -> None:
    other = Browser(app, "192.168.1.21")
    other.log_in(password)
    lease = take(browser)
    assert reason(other.post("/api/v1/lease", {"kind": "manual"})) == "lease_held"
    # Even with the id of the other's lease, which the gate itself would take.
    for path, values in (
        ("renew", {}), ("release", {}), ("manual", {"steering": 1.0, "throttle": 1.0}), ("pulse", {"steering_us": 1500})
    ):  # fmt: skip
        assert reason(other.post(f"/api/v1/{path}", {"lease": lease, **values})) == "lease_lost"
    assert reason(other.post("/api/v1/arm", {"mode": "manual", "lease": lease})) == "lease_lost"
    full_ahead(browser, car, lease)
    assert other.get("/api/v1/state").json["lease"] == {"kind": "manual", "holder": "console 192.168.1.20"}  # type: ignore[index]
    # But anybody who is logged in may stop the car.
    assert other.post("/api/v1/stop").status_code == 200
    assert car.mode == "stopped"
    assert (
        reason(browser.post("/api/v1/manual", {"lease": lease, "steering": 0.0, "throttle": 1.0})) == "not_in_control"
    )
    car.advance(0.02)
    assert car.pulses[1] == NEUTRAL_US


def test_a_replayed_command_moves_nothing(browser: Browser, car: FakeCar) -> None:
    lease = take(browser)
    command = {"lease": lease, "steering": 0.0, "throttle": 1.0}
    assert browser.post("/api/v1/manual", command).status_code == 200
    assert browser.post("/api/v1/release", {"lease": lease}).status_code == 200
    car.advance(0.3)
    second = take(browser)
    assert second != lease
    for _ in range(5):
        assert reason(browser.post("/api/v1/manual", command)) == "lease_lost"
        browser.post("/api/v1/renew", {"lease": second})
        car.advance(0.1)
        assert car.pulses[1] == NEUTRAL_US


@pytest.mark.parametrize(
    ("path", "values", "why"),
    (
        ("manual", {"steering": 1.1, "throttle": 0.0}, "out_of_range"), ("manual", {"steering": 0.0}, "missing_key"),
        ("manual", {"steering": "0", "throttle": 0.0}, "wrong_type"), ("manual", {"x": 1}, "unknown_key"),
        ("lease", {"kind": "autonomous"}, "out_of_range"), ("lease", {}, "missing_key"),
        ("cap", {"percent": 101}, "out_of_range"),
        ("arm", {"mode": "manual"}, "lease_lost"), ("arm", {"mode": 5}, "lease_lost"), ("arm", {"lease": 5}, "blocked"),
    ),
)  # fmt: skip
def test_bad_commands_are_refused_by_name(browser: Browser, path: str, values: dict[str, Any], why: str) -> None:
    if path == "manual":
        values = {"lease": take(browser), **values}
    assert reason(browser.post(f"/api/v1/{path}", values)) == why


def test_a_bad_command_of_the_driver_brings_the_motor_to_rest(browser: Browser, car: FakeCar) -> None:
    lease = take(browser)
    full_ahead(browser, car, lease)
    assert browser.post("/api/v1/manual", {"lease": lease, "steering": 0.0, "throttle": 5.0}).status_code == 400
    car.advance(0.02)
    assert (car.mode, car.pulses[1]) == ("manual", NEUTRAL_US)


def test_calibration_pulses_are_bounded_and_held_only_while_asked_for(browser: Browser, car: FakeCar) -> None:
    lease = take(browser, "calibration")
    assert reason(browser.post("/api/v1/pulse", {"lease": lease, "throttle_us": NEUTRAL_US - 26})) == "step_too_large"
    assert reason(browser.post("/api/v1/pulse", {"lease": lease, "steering_us": 899.0})) == "out_of_range"
    assert browser.post("/api/v1/pulse", {"lease": lease, "steering_us": 1600.0}).status_code == 200
    assert browser.post("/api/v1/pulse", {"lease": lease, "throttle_us": NEUTRAL_US - 25}).status_code == 200
    car.advance(0.1)
    assert car.pulses == (1600.0, NEUTRAL_US - 25)
    for _ in range(4):
        browser.post("/api/v1/renew", {"lease": lease})
        car.advance(0.1)
    assert car.pulses == (1600.0, NEUTRAL_US)  # the motor must be asked for again and again
    car.advance(0.3)
    assert (car.mode, car.pulses) == ("disarmed", (1450.0, NEUTRAL_US))


def test_the_cap_is_set(browser: Browser, car: FakeCar) -> None:
    assert browser.post("/api/v1/cap", {"percent": 40}).json["percent"] == 40.0  # type: ignore[index]
    assert browser.get("/api/v1/state").json["cap_percent"] == pytest.approx(40.0)  # type: ignore[index]


def test_the_state_comes_as_events(browser: Browser, car: FakeCar, app: Flask) -> None:
    answer = browser.get("/api/v1/events")
    assert answer.mimetype == "text/event-stream"
    events = iter(answer.response)
    texts = [next(events).decode() if isinstance(text := next(events), str) else text.decode() for _ in range(3)]
    assert texts[0] == "retry: 1000\n\n"
    assert json.loads(texts[1].removeprefix("data: "))["mode"] == "disarmed"
    assert shared(app).event_streams.taken == 1
    browser.get("/logout")
    with pytest.raises(StopIteration):
        for _ in range(3):
            next(events)
    answer.close()
    assert shared(app).event_streams.taken == 0


def test_there_are_only_so_many_streams(browser: Browser, app: Flask) -> None:
    opened = [browser.get("/api/v1/events") for _ in range(MAX_EVENT_STREAMS)]
    answer = browser.get("/api/v1/events")
    assert (answer.status_code, reason(answer)) == (503, "too_many_viewers")
    opened.pop().close()  # one that was never read from gives its place back as well
    assert browser.get("/api/v1/events", buffered=False).status_code == 200
    shared(app).stopping.set()
    for one in opened:
        one.close()


# --- models


def test_models_are_listed_activated_and_deleted(browser: Browser, car: FakeCar, tmp_path: Any) -> None:
    bundle = tmp_path / "b"
    bundle.write_bytes(b"bundle")
    sha256 = car.install(bundle, "mine")["sha256"]
    assert [model["name"] for model in browser.get("/api/v1/models").json["models"]] == ["mine"]  # type: ignore[index]
    assert browser.post(f"/api/v1/models/{sha256}/activate").json["loaded"] is True  # type: ignore[index]
    assert browser.post(f"/api/v1/models/{sha256}/allow").status_code == 200
    answer = browser.post("/api/v1/models/rollback")
    assert (answer.status_code, reason(answer)) == (409, "no_previous")
    assert browser.ask("DELETE", f"/api/v1/models/{sha256}").status_code == 200
    answer = browser.ask("DELETE", f"/api/v1/models/{sha256}")
    assert (answer.status_code, reason(answer)) == (404, "not_installed")


# --- calibration


def test_the_calibration_is_shown_saved_and_undone(browser: Browser, car: FakeCar) -> None:
    shown = browser.get("/api/v1/calibration").json
    assert shown is not None
    assert shown["calibration"] == as_json(Calibration())
    assert [one["revision"] for one in shown["history"]] == [1]
    wanted = Calibration(Steering(1690.0, 1455.0, 1210.0, 28.0, ((-10.0, 1380.0),)))
    for values in (as_object(wanted), {"calibration": as_object(wanted)}):
        answer = browser.put("/api/v1/calibration", values)
        assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert answer.json["calibration"] == as_json(wanted)
    assert [one["revision"] for one in answer.json["history"]] == [2, 1]
    assert car.calibration() == wanted
    assert browser.post("/api/v1/calibration/undo").json["calibration"] == as_json(Calibration())  # type: ignore[index]
    answer = browser.post("/api/v1/calibration/restore", {"revision": 2})
    assert answer.json is not None and answer.json["calibration"] == as_json(wanted)
    assert browser.post("/api/v1/calibration/restore", {"revision": 99}).status_code == 422


def as_json(calibration: Calibration) -> Any:
    return json.loads(json.dumps(as_object(calibration)))


def test_a_calibration_is_not_saved_while_armed(browser: Browser, car: FakeCar) -> None:
    take(browser, "calibration")
    wanted = dataclasses.replace(Calibration(), steering=Steering(1690.0))
    assert reason(browser.put("/api/v1/calibration", as_object(wanted))) == "not_disarmed"
    assert car.calibration() == Calibration()


@pytest.mark.parametrize(
    "change",
    ({"steering": 5}, {"x": 1}, {"steering": {"left_us": 1700.0}}, {"calibration": None}, {"version": 2}),
)  # fmt: skip
def test_what_is_no_calibration_is_refused(browser: Browser, car: FakeCar, change: dict[str, Any]) -> None:
    good = as_object(Calibration())
    assert good is not None
    for method, path in (("PUT", "/api/v1/calibration"), ("POST", "/api/v1/calibration/curve")):
        answer = browser.ask(method, path, json={**good, **change})
        if "version" in change:
            assert answer.status_code == 200  # our own head wins
        else:
            assert (answer.status_code, reason(answer)) == (422, "bad_calibration")
    good["steering"]["center_us"] = 1800.0
    answer = browser.put("/api/v1/calibration", good)
    assert "center is not between" in answer.json["error"]["what"]  # type: ignore[index]
    assert car.calibration() == Calibration()


def test_the_original_cars_file_goes_out_and_in(browser: Browser, car: FakeCar) -> None:
    answer = browser.get("/api/v1/calibration/deepracer")
    assert answer.text == to_deepracer(Calibration())
    assert answer.headers["Content-Disposition"] == 'attachment; filename="calibration.json"'
    text = to_deepracer(Calibration(Steering(1690.0, 1455.0, 1210.0)))
    answer = browser.ask("POST", "/api/v1/calibration/deepracer", data=text)
    assert answer.json is not None
    assert answer.json["calibration"]["steering"]["left_us"] == 1690.0
    assert car.calibration() == Calibration()  # nothing was saved
    assert browser.ask("POST", "/api/v1/calibration/deepracer", data=b"{}").status_code == 422


@pytest.mark.parametrize("calibration", (Calibration(), default_sim_calibration()))
def test_the_mapping_is_sampled_for_drawing(browser: Browser, calibration: Calibration) -> None:
    found = browser.post("/api/v1/calibration/curve", {**(as_object(calibration) or {}), "model_max_mps": 2.0}).json
    assert found is not None
    steering, speed = found["steering"], found["speed"]
    assert steering[0] == [-30.0, 1200.0] and steering[-1] == [30.0, 1700.0] and len(steering) == 61
    measured = bool(calibration.throttle.curve)
    assert (speed[0][0], speed[-1][0], found["measured"]) == ((-1.0, 4.0, True) if measured else (-2.0, 2.0, False))
    assert all(later[1] <= earlier[1] for earlier, later in zip(speed, speed[1:], strict=False))


# --- settings, health, logs


def test_settings_logs_and_health(browser: Browser, car: FakeCar) -> None:
    assert browser.put("/api/v1/settings", {"name": "Red 5"}).json["name"] == "Red 5"  # type: ignore[index]
    assert "Red 5" in browser.get("/").text
    assert browser.put("/api/v1/settings", {"name": "x" * 65}).status_code == 400
    assert browser.put("/api/v1/settings", {"name": "\ud800"}).status_code == 400  # half a character
    assert browser.get("/api/v1/logs?n=2").json == {"lines": ["line 3", "line 4"]}
    assert browser.get("/api/v1/logs?n=x").status_code == 400
    assert len(browser.get("/api/v1/logs?n=999999999").json["lines"]) == 5  # type: ignore[index]
    assert browser.get("/api/v1/health").json["temperature_c"] == 50.0  # type: ignore[index]


def test_a_name_is_text_on_the_page(browser: Browser, car: FakeCar) -> None:
    car.name = "<script>alert(1)</script>"
    assert "<script>alert" not in browser.get("/").text
