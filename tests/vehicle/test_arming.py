"""Every check before arming: the reason, the value that was measured, at the limit and just beyond it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from vehicle.arming import ARMED_MODES, Blocked, Facts, Limits, Mode, Readiness, blocked_reasons, fresh
from vehicle.car_config import DriveConfig
from vehicle.errors import ConfigError

LIMITS = Limits()
FINE = Readiness(
    mode=Mode.DISARMED,
    calibrated=True,
    uncalibrated_reason="",
    facts=Facts(guard_alive=True),
    tick_age_s=0.01,
    neutral_frames=25,
    needed_frames=25,
    lease=True,
    model="5a",
    intent_age_s=0.05,
    frame_age_s=0.05,
    steady_s=0.5,
    refusal="",
)
HEALTHY = {"battery_fraction": 0.1, "temperature_c": 85.0, "disk_free_bytes": 50_000_000, "undervoltage": False}


def blocked(wanted: Mode = Mode.AUTONOMOUS, **changes: Any) -> list[Blocked]:
    return blocked_reasons(dataclasses.replace(FINE, **changes), wanted, LIMITS)


def names(wanted: Mode = Mode.AUTONOMOUS, **changes: Any) -> list[str]:
    return [one.reason for one in blocked(wanted, **changes)]


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(FINE.facts, **changes)


@pytest.mark.parametrize("wanted", ARMED_MODES)
def test_nothing_blocks_a_car_that_is_ready(wanted: Mode) -> None:
    assert blocked(wanted) == []
    assert blocked(wanted, facts=facts(**HEALTHY)) == []


@pytest.mark.parametrize(
    ("changes", "reason", "value"),
    [
        ({"mode": Mode.STOPPED}, "stopped", "emergency stop"),
        ({"mode": Mode.MANUAL}, "already_armed", "manual"),
        ({"mode": Mode.AUTONOMOUS}, "already_armed", "autonomous"),
        ({"mode": Mode.CALIBRATION}, "already_armed", "calibration"),
        ({"calibrated": False, "uncalibrated_reason": "no file"}, "uncalibrated", "no file"),
        ({"tick_age_s": None}, "gate_stalled", "never"),
        ({"tick_age_s": 0.1001}, "gate_stalled", "100 ms old (at most 100 ms)"),
        ({"tick_age_s": -0.001}, "gate_stalled", "-1 ms old"),
        ({"tick_age_s": math.nan}, "gate_stalled", "nan"),
        ({"neutral_frames": 24}, "esc_neutral", "24 of 25 neutral frames"),
        ({"facts": facts(actuator_error="bus error")}, "actuator", "bus error"),
        ({"facts": facts(actuator_error="")}, "actuator", ""),
        ({"facts": Facts()}, "guard", "not running"),
        ({"facts": facts(log_error="disk full")}, "log", "disk full"),
        ({"facts": facts(log_error="")}, "log", ""),
        ({"facts": facts(undervoltage=True)}, "undervoltage", "too low"),
        ({"facts": facts(battery_fraction=0.0999)}, "battery", "10 % (at least 10 %)"),
        ({"facts": facts(battery_fraction=0.07)}, "battery", "7 % (at least 10 %)"),
        ({"facts": facts(battery_fraction=math.nan)}, "battery", "nan"),
        ({"facts": facts(temperature_c=85.1)}, "temperature", "85 C (at most 85 C)"),
        ({"facts": facts(temperature_c=math.nan)}, "temperature", "nan"),
        ({"facts": facts(disk_free_bytes=49_999_999)}, "disk", "50 MB free (at least 50 MB)"),
        ({"facts": facts(disk_free_bytes=1_000_000)}, "disk", "1 MB free (at least 50 MB)"),
    ],
)
@pytest.mark.parametrize("wanted", ARMED_MODES)
def test_what_keeps_the_car_from_every_mode(wanted: Mode, changes: dict[str, Any], reason: str, value: str) -> None:
    (only,) = blocked(wanted, **changes)
    assert only.reason == reason and value in only.value and only.cure
    assert only.as_dict() == {"reason": only.reason, "value": only.value, "cure": only.cure}


@pytest.mark.parametrize(
    ("changes", "reason", "value"),
    [
        ({"model": ""}, "no_model", "none"),
        ({"refusal": "nan"}, "intent_refused", "nan"),
        ({"intent_age_s": None, "steady_s": 0.0}, "stale_intent", "never"),
        ({"intent_age_s": 0.161}, "stale_intent", "161 ms old (at most 160 ms)"),
        ({"intent_age_s": -0.006}, "stale_intent", "-6 ms"),
        ({"steady_s": 0.49}, "intents_unsteady", "steady for 0.5 s (at least 0.5 s)"),
        ({"frame_age_s": None}, "stale_frame", "never"),
        ({"frame_age_s": 0.161}, "stale_frame", "161 ms old (at most 160 ms)"),
        ({"frame_age_s": math.nan}, "stale_frame", "nan"),
        ({"facts": facts(console_gone="silent")}, "no_console", "silent"),
        ({"facts": facts(console_gone="")}, "no_console", ""),
    ],
)
def test_what_the_pilot_must_have_done(changes: dict[str, Any], reason: str, value: str) -> None:
    (only,) = blocked(**changes)
    assert only.reason == reason and value in only.value and only.cure
    assert blocked(Mode.MANUAL, **changes) == [] and blocked(Mode.CALIBRATION, **changes) == []


@pytest.mark.parametrize("wanted", [Mode.MANUAL, Mode.CALIBRATION])
def test_driving_by_hand_needs_a_lease_and_the_pilot_none(wanted: Mode) -> None:
    (only,) = blocked(wanted, lease=False)
    assert only.reason == "no_lease" and wanted.value in only.cure
    assert names(lease=False) == []


@pytest.mark.parametrize("changes", [{"tick_age_s": 0.0}, {"tick_age_s": 0.1}, {"neutral_frames": 26}])
def test_the_limit_itself_is_allowed(changes: dict[str, Any]) -> None:
    assert names(**changes) == []


def test_every_reason_is_told_at_once() -> None:
    ill = Facts("bus error", False, "disk full", True, 0.0, 99.0, 0, "silent")
    everything = {
        "mode": Mode.STOPPED, "calibrated": False, "facts": ill, "tick_age_s": None, "neutral_frames": 0,
        "model": "", "intent_age_s": None, "frame_age_s": None, "steady_s": 0.0, "refusal": "nan",
    }  # fmt: skip
    assert names(**everything) == [
        "stopped", "uncalibrated", "gate_stalled", "esc_neutral", "actuator", "guard", "log", "undervoltage",
        "battery", "temperature", "disk", "no_console", "no_model", "intent_refused", "stale_intent", "stale_frame",
    ]  # fmt: skip


def test_the_facts_that_disarm() -> None:
    assert facts(**HEALTHY, console_gone="silent").fault() is None  # of an autonomous car only: the core sees to it
    assert facts(undervoltage=True, battery_fraction=0.0, temperature_c=99.0, disk_free_bytes=0).fault() is None
    assert Facts().fault() == "guard"
    assert facts(actuator_error="").fault() == "actuator"
    assert facts(log_error="").fault() == "log"
    assert Facts(actuator_error="x", log_error="y").fault() == "actuator"
    assert Facts(log_error="y").fault() == "guard"


def test_percent_and_megabytes() -> None:
    ill = facts(battery_fraction=0.9, disk_free_bytes=300_000_000)
    limits = Limits(battery_fraction=0.95, disk_free_bytes=500_000_000)
    values = [one.value for one in blocked_reasons(dataclasses.replace(FINE, facts=ill), Mode.MANUAL, limits)]
    assert values == ["90 % (at least 95 %)", "300 MB free (at least 500 MB)"]


def test_fresh_at_its_edges() -> None:
    assert fresh(0.0, 0.16, LIMITS) and fresh(0.16, 0.16, LIMITS) and fresh(-0.005, 0.16, LIMITS)
    assert not fresh(math.nextafter(0.16, 1), 0.16, LIMITS)
    assert not fresh(math.nextafter(-0.005, -1), 0.16, LIMITS)
    assert not fresh(math.nan, 0.16, LIMITS) and not fresh(None, 0.16, LIMITS)


def test_the_figures_of_the_design() -> None:
    assert (LIMITS.intent_age_s, LIMITS.frame_age_s, LIMITS.lost_s, LIMITS.future_s) == (0.16, 0.16, 1.0, 0.005)
    assert (LIMITS.lease_s, LIMITS.manual_age_s, LIMITS.hold_s, LIMITS.gap_s) == (0.25, 0.25, 0.3, 0.1)
    assert (LIMITS.startup_neutral_frames, LIMITS.rearm_neutral_frames, LIMITS.alive_before_arm_s) == (25, 5, 0.5)
    assert (LIMITS.speed_cap, LIMITS.trial_cap, LIMITS.max_speed_mps) == (1.0, 0.6, 4.0)
    assert (LIMITS.steering_slew_deg_per_s, LIMITS.acceleration_mps2) == (600.0, 6.0)
    assert (LIMITS.battery_fraction, LIMITS.temperature_c, LIMITS.disk_free_bytes) == (0.1, 85.0, 50_000_000)
    # One tick and one servo frame come on top; the table allows 200 ms and 300 ms.
    assert max(LIMITS.intent_age_s, LIMITS.frame_age_s) + 0.04 <= 0.2 + 1e-9
    assert LIMITS.lease_s + 0.04 <= 0.3


ALLOWED = {
    "intent_age_s": (0.02, 2.0), "frame_age_s": (0.02, 2.0), "lost_s": (0.1, 10.0), "future_s": (0.0, 0.1),
    "lease_s": (0.05, 2.0), "manual_age_s": (0.05, 2.0), "hold_s": (0.05, 2.0), "gap_s": (0.02, 1.0),
    "startup_neutral_frames": (1, 1000), "rearm_neutral_frames": (1, 1000), "alive_before_arm_s": (0.0, 10.0),
    "speed_cap": (0.0, 1.0), "trial_cap": (0.0, 1.0), "steering_slew_deg_per_s": (10.0, 1e5),
    "acceleration_mps2": (0.1, 1e3), "max_speed_mps": (0.1, 20.0), "battery_fraction": (0.0, 1.0),
    "temperature_c": (0.0, 150.0), "disk_free_bytes": (0, None),
}  # fmt: skip


def test_limits_out_of_range_are_refused() -> None:
    assert set(ALLOWED) == {field.name for field in dataclasses.fields(Limits)}
    for name, (low, high) in ALLOWED.items():
        whole = isinstance(low, int)
        for edge, beyond in ((low, -math.inf), (high, math.inf)):
            if edge is None:
                continue
            Limits(**{name: edge})
            bad = edge + math.copysign(1, beyond) if whole else math.nextafter(edge, beyond)
            with pytest.raises(ConfigError, match=name):
                Limits(**{name: int(bad) if whole else bad})
        with pytest.raises(ConfigError, match=name):
            Limits(**{name: math.nan})


def test_limits_of_a_car_file() -> None:
    drive = DriveConfig(
        speed_cap_percent=50.0,
        trial_cap_percent=30.0,
        steering_slew_deg_per_s=300.0,
        acceleration_mps2=2.0,
        max_speed_mps=3.0,
    )
    assert Limits.of(drive) == Limits(
        speed_cap=0.5, trial_cap=0.3, steering_slew_deg_per_s=300.0, acceleration_mps2=2.0, max_speed_mps=3.0
    )
    assert Limits.of(DriveConfig()) == LIMITS


def test_modes_are_words_of_the_protocol() -> None:
    assert [mode.value for mode in Mode] == ["disarmed", "manual", "autonomous", "calibration", "stopped"]
    assert {mode.value for mode in ARMED_MODES} == {"manual", "autonomous", "calibration"}
