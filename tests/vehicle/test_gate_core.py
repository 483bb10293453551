"""The gate's state machine: what arms, what drives, what stops; every neutral is exactly the calibrated pulse."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

import vehicle.gate_motion
from calibration.errors import CalibrationError
from calibration.mapping import Calibration, Throttle, default_sim_calibration
from tests.vehicle.gate_rig import CENTER_US, MODEL, NEUTRAL_US, OK, Rig, an_intent, is_neutral
from vehicle.errors import GateError
from vehicle.gate_core import Facts, GateCore, Limits, Mode, Output
from vehicle.messages import Alive

FORWARD_US = Calibration().throttle.forward_us


# --- start-up and arming


def test_before_the_first_arming_there_is_only_neutral() -> None:
    rig = Rig()
    for _ in range(40):
        assert rig.intent() == "wrong_model"
        assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:disarmed", Mode.DISARMED)


def test_the_esc_is_shown_neutral_before_anything_can_arm() -> None:
    rig = Rig(alive_before_arm_s=0.0)
    rig.ask("model", sha256=MODEL, trial=False)
    for number in range(25):
        rig.intent()
        answer = rig.ask("arm", mode="autonomous")
        reasons = [one["reason"] for one in answer["blocked"]]
        assert not answer["ok"] and answer["reason"] == "blocked"
        assert reasons == (["gate_stalled"] if number == 0 else []) + ["esc_neutral"] + (["guard"] * (number == 0))
        assert is_neutral(rig.tick())
    rig.intent()
    assert rig.ask("arm", mode="autonomous") == {"ok": True, "mode": "autonomous"}
    assert not is_neutral(rig.tick())


def test_frames_that_the_esc_did_not_see_do_not_count() -> None:
    rig = Rig()
    rig.tick(24)
    assert "esc_neutral" in rig.reasons()
    rig.tick(facts=Facts(guard_alive=True, actuator_error="bus error"))
    rig.tick(24)
    assert "esc_neutral" in rig.reasons()
    rig.tick()
    assert "esc_neutral" not in rig.reasons()
    rig.tick(step_s=0.11)  # what the actuator did in between is not known
    assert "esc_neutral" in rig.reasons()


def test_every_reason_at_once_and_the_cures_make_it_drive() -> None:
    rig = Rig(None)
    assert rig.reasons() == [
        "uncalibrated", "gate_stalled", "esc_neutral", "guard", "no_model", "stale_intent", "stale_frame", "disarmed",
    ]  # fmt: skip
    rig.ask("stop")
    rig.ask("cap", percent=0)
    assert rig.reasons()[0] == "stopped" and "speed_cap" in rig.reasons() and "disarmed" not in rig.reasons()
    assert rig.ask("reset")["ok"]
    rig.ask("cap", percent=100)
    rig.core.set_calibration(Calibration())
    rig.ask("model", sha256=MODEL, trial=False)
    rig.run(24)
    assert rig.reasons() == ["esc_neutral", "intents_unsteady", "disarmed"]
    rig.run(1)
    assert rig.reasons() == ["intents_unsteady", "disarmed"]
    rig.run(2)
    assert rig.reasons() == ["disarmed"]
    assert rig.ask("arm", mode="autonomous")["ok"]
    assert rig.reasons() == []
    assert not is_neutral(rig.run(1)) and rig.reasons() == []


def test_without_calibration_nothing_is_written_and_nothing_arms() -> None:
    rig = Rig(None)
    rig.ask("model", sha256=MODEL, trial=False)
    assert rig.run(60) == Output(None, None, "neutral:uncalibrated", Mode.DISARMED)
    lease = rig.ask("lease", kind="manual", holder="h")["lease"]
    for mode in ("autonomous", "manual", "calibration"):
        reasons = [one["reason"] for one in rig.ask("arm", mode=mode, lease=lease)["blocked"]]
        assert reasons[:2] == ["uncalibrated", "esc_neutral"] and not rig.core.armed
    assert rig.core.blocked(rig.now_s)[0].value == "there is no calibration"
    damaged = GateCore(None, Limits(), "line 3 is broken")
    assert damaged.blocked(0.0)[0].value == "line 3 is broken"
    rig.core.set_calibration(Calibration())
    assert rig.run(1) == Output(CENTER_US, NEUTRAL_US, "neutral:disarmed", Mode.DISARMED)
    assert "esc_neutral" in rig.reasons()


def test_a_calibration_that_does_not_hold_together_is_refused() -> None:
    broken = Calibration(throttle=Throttle(neutral_us=1200.0))
    with pytest.raises(CalibrationError):
        GateCore(broken, Limits())
    rig = Rig().ready()
    with pytest.raises(CalibrationError):
        rig.core.set_calibration(broken)
    assert is_neutral(rig.run(1)) and rig.reasons() == ["disarmed"]


def test_a_new_calibration_is_taken_only_while_disarmed_and_shown_to_the_esc() -> None:
    rig = Rig().driving()
    for op in ("", "stop"):
        if op:
            rig.ask(op)
        with pytest.raises(GateError) as caught:
            rig.core.set_calibration(default_sim_calibration())
        assert caught.value.reason == "not_disarmed"
    rig.ask("reset")
    rig.run(40)
    rig.core.set_calibration(default_sim_calibration())
    assert {"esc_neutral", "stale_intent"} <= set(rig.reasons())
    assert rig.run(24).throttle_us == default_sim_calibration().throttle.neutral_us
    assert "esc_neutral" in rig.reasons()
    rig.run(1)
    assert "esc_neutral" not in rig.reasons()


def test_arming_is_refused_while_armed() -> None:
    rig = Rig().driving()
    for mode in ("autonomous", "manual"):
        answer = rig.ask("arm", mode=mode, lease="x")
        assert answer["blocked"][0]["reason"] == "already_armed" and answer["blocked"][0]["value"] == "autonomous"
        assert answer["cause"] == "already_armed: autonomous" and answer["next"] == "hotlap disarm"
        assert answer["what"].startswith("not armed: already_armed, esc_neutral")
    assert not is_neutral(rig.run(1))


def test_the_facts_of_the_last_tick_block() -> None:
    rig = Rig().ready()
    ill = Facts(None, True, None, True, 0.0, 99.0, 0)
    rig.intent()
    rig.tick(facts=ill)
    assert rig.reasons() == ["undervoltage", "battery", "temperature", "disk", "disarmed"]
    assert not rig.ask("arm", mode="autonomous")["ok"]
    rig.run(1)
    assert rig.reasons() == ["disarmed"]


def test_arming_needs_a_gate_that_ticks() -> None:
    rig = Rig().ready()
    rig.now_s += 0.1
    rig.intent()
    assert rig.reasons() == ["disarmed"]
    rig.now_s += 0.001
    assert rig.reasons() == ["gate_stalled", "disarmed"]
    rig.now_s -= 0.102
    assert "gate_stalled" in rig.reasons()


# --- autonomous


def test_it_drives_by_the_newest_intent() -> None:
    rig = Rig().driving(speed_mps=1.0, steering_deg=0.0)
    assert rig.run(1) == Output(CENTER_US, FORWARD_US, "drive", Mode.AUTONOMOUS)
    output = rig.run(5, steering_deg=30.0)
    assert output.steering_us == Calibration().steering.left_us
    assert is_neutral(rig.run(1, speed_mps=0.0)) and rig.tick().cause == "drive"


def test_it_starts_slowly() -> None:
    rig = Rig(default_sim_calibration()).ready()
    rig.ask("arm", mode="autonomous")
    pulses = [rig.run(1, speed_mps=3.0, model_max_mps=3.0).throttle_us for _ in range(24)]
    alone = Rig(default_sim_calibration()).driving(speed_mps=0.12, model_max_mps=3.0).run(1, speed_mps=0.12)
    assert pulses[0] == pytest.approx(alone.throttle_us)
    assert pulses == sorted(pulses, reverse=pulses[-1] < pulses[0]) and len(set(pulses)) == 24


def test_a_stale_intent_is_neutral_at_once_and_recovers() -> None:
    rig = Rig().driving(steering_deg=-30.0)
    rig.intent(steering_deg=-30.0)
    for _ in range(8):
        output = rig.tick(step_s=0.0199)
        rig.alive()
    assert output.cause == "drive"
    output = rig.tick(step_s=0.0199)
    assert output == Output(CENTER_US, NEUTRAL_US, "neutral:stale_intent", Mode.AUTONOMOUS)
    assert rig.reasons() == ["stale_intent"]
    output = rig.run(1, steering_deg=30.0)
    assert output.cause == "drive"  # and turns from straight ahead on
    assert output.steering_us == pytest.approx(CENTER_US + 250.0 * 12.0 / 30.0)
    assert rig.core.state(rig.now_s)["counters"]["faults"] == 0


def test_a_frozen_camera_is_neutral_though_the_pilot_lives() -> None:
    rig = Rig().driving()
    frame_s = rig.now_s  # the last one; the pilot goes on to infer on it
    for _ in range(8):
        assert rig.intent(frame_stamp_s=frame_s) is None
        assert rig.tick(step_s=0.0199).cause == "drive"
    assert rig.intent(frame_stamp_s=frame_s) is None
    assert rig.tick(step_s=0.0199).cause == "neutral:stale_frame" and rig.reasons() == ["stale_frame"]
    assert rig.intent(frame_stamp_s=frame_s) == "stale_frame"
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:stale_intent", Mode.AUTONOMOUS)
    assert rig.run(1).cause == "drive"


def test_signs_of_life_with_new_frames_keep_an_intent_good() -> None:
    for frames, expected in ((True, "drive"), (False, "neutral:stale_frame")):
        rig = Rig().driving()
        frame_s = rig.now_s
        rig.tick(2)
        rig.intent(frame_stamp_s=frame_s)
        for _ in range(7):
            output = rig.tick()
            assert rig.alive(frame_stamp_s=rig.now_s if frames else frame_s) is None
        assert output.cause == expected


@pytest.mark.parametrize(("sign", "name"), [(False, "intent_lost"), (True, "frame_lost")])
def test_a_pilot_that_was_gone_for_a_second_does_not_start_by_itself(sign: bool, name: str) -> None:
    rig = Rig(intent_age_s=2.0 if sign else 0.16).driving()
    lost_s = None
    for _ in range(80):
        output = rig.tick()
        if output.cause != "drive" and lost_s is None:
            lost_s = rig.now_s
        if output.mode is Mode.DISARMED:
            break
        rig.alive(frame_stamp_s=rig.now_s - 9.0)
    assert lost_s is not None and 0.96 <= rig.now_s - lost_s <= 1.02
    assert output == Output(CENTER_US, NEUTRAL_US, f"neutral:fault:{name}", Mode.DISARMED)
    assert rig.core.state(rig.now_s)["fault"]["name"] == name
    assert is_neutral(rig.run(60))


def test_lost_is_counted_from_the_last_good_tick() -> None:
    rig = Rig(lost_s=0.5, gap_s=0.5).driving()
    for _ in range(3):
        rig.run(1)
        assert rig.tick(step_s=0.25).cause == "neutral:stale_intent"
        assert rig.tick(step_s=0.25).mode is Mode.AUTONOMOUS
    rig = Rig(lost_s=0.5, gap_s=0.5).ready()
    rig.ask("arm", mode="autonomous")
    assert rig.tick(step_s=0.25).mode is Mode.AUTONOMOUS
    assert rig.tick(step_s=0.25).mode is Mode.AUTONOMOUS
    assert rig.tick(step_s=0.01).mode is Mode.DISARMED


BAD: list[tuple[dict[str, Any], str]] = [
    ({"steering_deg": math.nan}, "nan"),
    ({"speed_mps": math.nan}, "nan"),
    ({"stamp_s": math.nan}, "nan"),
    ({"speed_mps": math.inf}, "infinite"),
    ({"steering_deg": -math.inf}, "infinite"),
    ({"speed_mps": 1.1}, "out_of_range"),
    ({"speed_mps": -0.1}, "speed_negative"),
    ({"steering_deg": 31.0}, "out_of_range"),
    ({"stamp_s": 1e6}, "from_future"),
    ({"frame_stamp_s": 1e6}, "from_future"),
    ({"seq": 0}, "sequence"),
    ({"source": "console"}, "wrong_source"),
    ({"model": "00" * 32}, "wrong_model"),
]


@pytest.mark.parametrize(("changes", "name"), BAD, ids=str)
def test_a_bad_intent_is_neutral_disarms_and_is_named(changes: dict[str, Any], name: str) -> None:
    rig = Rig().driving()
    bad = dataclasses.replace(an_intent(rig.now_s, rig.seq + 1), **changes)
    assert rig.core.intent(bad, rig.now_s) == name
    assert rig.intent() is None  # a good one right after it does not help
    for _ in range(3):
        assert rig.tick() == Output(CENTER_US, NEUTRAL_US, f"neutral:fault:{name}", Mode.DISARMED)
    state = rig.core.state(rig.now_s)
    assert state["fault"] == {"name": name, "age_s": pytest.approx(0.06)}
    assert state["counters"]["refused"] == {name: 1} and state["counters"]["faults"] == 1


@pytest.mark.parametrize(("changes", "name"), BAD[:10], ids=str)
def test_a_bad_intent_while_disarmed_only_blocks(changes: dict[str, Any], name: str) -> None:
    rig = Rig().ready()
    bad = dataclasses.replace(an_intent(rig.now_s, rig.seq + 1), **changes)
    assert rig.core.intent(bad, rig.now_s) == name
    assert rig.reasons() == ["intent_refused", "stale_intent", "disarmed"]
    assert rig.tick().cause == "neutral:disarmed" and rig.core.state(rig.now_s)["fault"] is None
    assert not rig.ask("arm", mode="autonomous")["ok"]


@pytest.mark.parametrize("late", [{"stamp_s": 0.17, "frame_stamp_s": 0.17}, {"frame_stamp_s": 0.17}])
def test_a_late_intent_is_neutral_but_does_not_disarm(late: dict[str, float]) -> None:
    rig = Rig().driving()
    rig.tick(9)  # the last good one is 180 ms old, so a stamp 170 ms ago comes after it
    stamps = {key: rig.now_s - age_s for key, age_s in late.items()}
    assert rig.intent(**stamps) in ("stale", "stale_frame")
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:stale_intent", Mode.AUTONOMOUS)
    assert rig.run(1).cause == "drive"


def test_bad_signs_of_life_and_broken_messages_count_like_bad_intents() -> None:
    rig = Rig().driving()
    assert rig.core.alive(Alive("pilot", math.nan, 1, 0.0), rig.now_s) == "nan"
    assert rig.tick().cause == "neutral:fault:nan"
    rig = Rig().driving()
    rig.core.bad_message("not_json", rig.now_s)
    assert rig.tick().cause == "neutral:fault:not_json"
    rig = Rig().driving()
    assert rig.alive(stamp_s=rig.now_s - 1, frame_stamp_s=rig.now_s - 1) == "stale"
    assert rig.tick().cause == "neutral:stale_intent" and rig.core.armed


def test_a_repeated_intent_never_moves_anything() -> None:
    rig = Rig().driving()
    same = an_intent(rig.now_s, rig.seq)
    assert rig.core.intent(same, rig.now_s) == "sequence"
    assert is_neutral(rig.tick()) and not rig.core.armed


# --- disarming, faults of the car


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (Facts(), "guard"),
        (Facts(guard_alive=True, actuator_error="bus error"), "actuator"),
        (Facts(guard_alive=True, log_error="disk full"), "log"),
    ],
)
def test_faults_of_the_car_disarm_every_mode(facts: Facts, name: str) -> None:
    for mode in ("autonomous", "manual", "calibration"):
        rig = Rig()
        if mode == "autonomous":
            rig.driving()
            rig.intent()
        else:
            rig.leased(mode)
        assert rig.tick(facts=facts) == Output(CENTER_US, NEUTRAL_US, f"neutral:fault:{name}", Mode.DISARMED)
        assert is_neutral(rig.run(3)) if mode == "autonomous" else is_neutral(rig.tick(3))


@pytest.mark.parametrize("gone", ["silent", ""])
def test_a_console_that_is_gone_disarms_an_autonomous_car_and_no_other(gone: str) -> None:
    """Facts of a car whose ``drive.without_console`` is "stop"; else the console never is gone."""
    facts = dataclasses.replace(OK, console_gone=gone)
    rig = Rig().driving()
    rig.intent()
    assert rig.tick(facts=facts) == Output(CENTER_US, NEUTRAL_US, "neutral:fault:console_lost", Mode.DISARMED)
    assert "no_console" in rig.reasons()
    rig.run(3)
    assert rig.core.state(rig.now_s)["fault"]["name"] == "console_lost"
    worse = Rig().driving()
    worse.intent()
    assert worse.tick(facts=dataclasses.replace(facts, actuator_error="x")).cause == "neutral:fault:actuator"
    for mode in ("manual", "calibration"):
        by_hand = Rig()
        by_hand.leased(mode)
        assert by_hand.tick(facts=facts).mode is Mode(mode)


def test_health_that_only_blocks_does_not_disarm() -> None:
    rig = Rig().driving()
    rig.intent()
    assert rig.tick(facts=Facts(None, True, None, True, 0.0, 99.0, 0)).cause == "drive"
    assert rig.reasons() == ["undervoltage", "battery", "temperature", "disk"]


def test_after_a_fault_arming_takes_some_neutral_frames() -> None:
    rig = Rig().driving()
    rig.core.bad_message("not_json", rig.now_s)
    rig.intent()
    for number in range(5):
        answer = rig.ask("arm", mode="autonomous")
        assert {"reason": "esc_neutral", "value": f"{number} of 5 neutral frames"}.items() <= next(
            one for one in answer["blocked"] if one["reason"] == "esc_neutral"
        ).items()
        rig.run(1)
    assert "esc_neutral" not in rig.reasons()
    rig.run(25)
    assert rig.ask("arm", mode="autonomous")["ok"]
    assert rig.run(1).cause == "drive"


def test_disarming_and_arming_between_two_ticks_is_not_possible() -> None:
    rig = Rig().driving()
    for requests in (["disarm"], ["stop", "reset"]):
        for op in requests:
            assert rig.ask(op)["ok"]
        answer = rig.ask("arm", mode="autonomous")
        assert [one["reason"] for one in answer["blocked"]] == ["esc_neutral"]
        assert is_neutral(rig.run(4)) and not rig.ask("arm", mode="autonomous")["ok"]
        rig.run(1)
        assert rig.ask("arm", mode="autonomous")["ok"] and not is_neutral(rig.run(1))


def test_a_fault_right_after_arming_takes_them_too() -> None:
    rig = Rig().ready()
    rig.ask("arm", mode="autonomous")
    rig.core.bad_message("not_json", rig.now_s)
    assert "esc_neutral" in rig.reasons()


def test_a_lease_is_of_no_matter_to_the_pilot() -> None:
    rig = Rig().ready()
    assert rig.ask("arm", mode="autonomous", lease="x")["ok"]
    assert rig.run(20).cause == "drive"
    assert rig.core.request({"op": "manual", "lease": "x"}, rig.now_s)["reason"] == "missing_key"
    assert rig.run(1).cause == "drive"


def test_disarm_says_so_and_keeps_the_last_fault() -> None:
    rig = Rig().driving()
    rig.core.bad_message("not_json", rig.now_s)
    assert rig.tick().cause == "neutral:fault:not_json"
    rig.run(6)
    assert rig.ask("disarm") == {"ok": True, "mode": "disarmed"}
    assert rig.run(1).cause == "neutral:disarmed"
    assert "esc_neutral" not in rig.reasons()  # nothing had been armed: the frames still count
    assert rig.core.state(rig.now_s)["fault"]["name"] == "not_json"


@pytest.mark.parametrize("start", ["disarmed", "autonomous", "manual", "calibration", "stopped"])
def test_stop_and_disarm_work_in_every_state_without_a_lease(start: str) -> None:
    for op, mode in [("stop", Mode.STOPPED), ("disarm", Mode.STOPPED if start == "stopped" else Mode.DISARMED)]:
        rig = Rig().ready()
        if start == "stopped":
            rig.ask("stop")
        elif start == "autonomous":
            assert rig.ask("arm", mode=start)["ok"]
        elif start != "disarmed":
            rig.leased(start)
        rig.run(1)
        assert rig.core.mode.value == start
        answer = rig.core.request({"op": op, "lease": math.nan, "x": []}, math.nan)
        assert answer == {"ok": True, "mode": mode.value}
        assert rig.run(1) == Output(CENTER_US, NEUTRAL_US, f"neutral:{mode.value}", mode)


def test_stop_latches_until_it_is_reset() -> None:
    rig = Rig().driving()
    rig.ask("stop")
    rig.ask("disarm")
    rig.tick(facts=Facts())
    rig.core.bad_message("not_json", rig.now_s)
    lease = rig.ask("lease", kind="manual", holder="h")["lease"]
    rig.ask("release", lease=lease)
    rig.tick(step_s=5.0)
    rig.tick(step_s=-5.0)
    for _ in range(60):
        assert not rig.ask("arm", mode="autonomous")["ok"]
        assert rig.run(1) == Output(CENTER_US, NEUTRAL_US, "neutral:stopped", Mode.STOPPED)
    assert rig.reasons() == ["stopped"]
    assert rig.ask("reset") == {"ok": True, "mode": "disarmed"}
    assert rig.run(1).cause == "neutral:disarmed"
    assert rig.ask("reset")["reason"] == "not_stopped"
    assert rig.ask("arm", mode="autonomous")["ok"]
    assert rig.ask("reset")["reason"] == "not_stopped" and rig.core.mode is Mode.AUTONOMOUS


# --- time


def test_a_gap_between_ticks_disarms() -> None:
    rig = Rig().driving()
    rig.now_s += 0.07
    rig.intent()
    assert rig.tick(step_s=0.0299).cause == "drive"
    rig.now_s += 0.08
    rig.intent()
    assert rig.tick(step_s=0.0201) == Output(CENTER_US, NEUTRAL_US, "neutral:fault:tick_gap", Mode.DISARMED)
    assert rig.core.state(rig.now_s)["counters"]["gaps"] == 1
    assert is_neutral(rig.run(30)) and rig.reasons() == ["disarmed"]


def test_the_gap_at_its_edge() -> None:
    for late, gaps in ((False, 0), (True, 1)):
        core = GateCore(Calibration(), Limits(gap_s=0.125))
        core.tick(64.0, OK)
        core.tick(math.nextafter(64.125, 99.0) if late else 64.125, OK)
        assert core.state(64.125)["counters"]["gaps"] == gaps


def test_two_ticks_at_the_same_time_are_allowed() -> None:
    rig = Rig().driving()
    before = rig.run(1)
    assert rig.tick(step_s=0.0) == before


def test_ticks_out_of_turn_are_no_frames_for_the_esc() -> None:
    rig = Rig().driving()
    for _ in range(20):  # each change of mode is a tick of its own in the shell
        rig.ask("stop")
        rig.tick(step_s=0.0004)
        rig.ask("reset")
        rig.tick(step_s=0.0004)
    rig.intent()
    assert rig.ask("arm", mode="autonomous")["blocked"][0]["value"] == "2 of 5 neutral frames"
    rig = Rig()
    rig.tick(3)
    for step_s, frames in [(0.0099, 3), (0.0002, 4), (0.0098, 4), (0.0003, 5), (0.0, 5), (0.02, 6)]:
        rig.tick(step_s=step_s)
        assert rig.core.blocked(rig.now_s)[0].value == f"{frames} of 25 neutral frames"
    for gap, frames in ((False, 2), (True, 3)):
        if gap:
            rig.tick(step_s=0.2)
        else:
            rig.core.set_calibration(Calibration())
        rig.tick(2, step_s=0.011)
        rig.tick(step_s=0.001)
        assert rig.core.blocked(rig.now_s)[0].value == f"{frames} of 25 neutral frames"
    core = GateCore(Calibration(), Limits())
    core.tick(0.0, OK)
    core.tick(0.01, OK)
    assert core.blocked(0.01)[0].value == "2 of 25 neutral frames"


@pytest.mark.parametrize("step_s", [-1e-9, -1.0, -3600.0, math.nan, -math.inf])
def test_time_that_goes_backwards_disarms_and_is_forgotten(step_s: float) -> None:
    rig = Rig().driving()
    rig.intent()
    output = rig.core.tick(rig.now_s + step_s, OK)
    assert output == Output(CENTER_US, NEUTRAL_US, "neutral:fault:time_backwards", Mode.DISARMED)
    assert {"stale_intent", "stale_frame"} <= set(rig.reasons())
    rig.now_s = rig.now_s + step_s if math.isfinite(step_s) else 5.0
    assert is_neutral(rig.run(40)) and rig.reasons() == ["disarmed"]


def test_endless_time_disarms() -> None:
    rig = Rig().driving()
    rig.intent()
    assert rig.core.tick(math.inf, OK).cause == "neutral:fault:tick_gap"
    assert "gate_stalled" in rig.reasons()
    rig.now_s = 1e6
    assert is_neutral(rig.run(40)) and rig.reasons() == ["disarmed"]
    assert rig.core.state(rig.now_s)["counters"]["gaps"] == 1


@pytest.mark.parametrize("now_s", [math.nan, math.inf])
def test_a_first_tick_without_time_never_arms(now_s: float) -> None:
    core = GateCore(Calibration(), Limits(startup_neutral_frames=1))
    for _ in range(5):
        assert is_neutral(core.tick(now_s, OK))
        assert {"gate_stalled", "esc_neutral"} <= {one.reason for one in core.blocked(now_s)}
    json.dumps(core.state(now_s), allow_nan=False)


def test_time_going_backwards_ends_a_lease() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    assert rig.tick().cause == "manual"
    assert rig.core.tick(rig.now_s - 0.001, OK).cause == "neutral:fault:time_backwards"
    assert rig.ask("renew", lease=lease)["reason"] == "lease_lost"


# --- manual


def test_manual_driving() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:no_command", Mode.MANUAL)
    for _ in range(50):
        assert rig.ask("manual", lease=lease, steering=1.0, throttle=1.0)["ok"]
        output = rig.tick()
    assert output == Output(Calibration().steering.left_us, FORWARD_US, "manual", Mode.MANUAL)
    rig.ask("manual", lease=lease, steering=-1.0, throttle=0.0)
    assert is_neutral(rig.tick())


def test_a_lost_browser_is_neutral_within_the_limit_and_disarmed() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    for _ in range(12):
        assert rig.tick().cause == "manual"
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:fault:lease_lost", Mode.DISARMED)
    assert rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)["reason"] == "lease_lost"
    assert is_neutral(rig.tick(20))


def test_a_held_lease_without_commands_is_neutral() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    causes = []
    for _ in range(14):
        causes.append(rig.tick().cause)
        assert rig.ask("renew", lease=lease) == {"ok": True, "mode": "manual"}
    assert causes == ["manual"] * 12 + ["neutral:no_command"] * 2


def test_a_lost_lease_never_hands_over_to_the_pilot_or_to_another_person() -> None:
    rig = Rig().ready()
    lease = rig.leased("manual")
    for _ in range(13):
        rig.intent()
        assert is_neutral(rig.tick())
    assert rig.core.mode is Mode.DISARMED
    assert is_neutral(rig.run(30))
    rig = Rig(lease_s=0.05)
    lease = rig.leased("manual")
    rig.now_s += 0.06
    other = rig.ask("lease", kind="manual", holder="another")["lease"]
    assert other != lease
    assert rig.ask("manual", lease=other, steering=0.0, throttle=1.0)["reason"] == "not_in_control"
    assert rig.tick(step_s=0.01).cause == "neutral:fault:lease_lost"
    assert rig.ask("manual", lease=other, steering=0.0, throttle=1.0)["reason"] == "not_in_control"


def test_a_pilot_that_goes_wild_does_not_disturb_a_person() -> None:
    rig = Rig().ready()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    assert rig.intent(speed_mps=math.nan) == "nan"
    assert rig.core.intent(an_intent(rig.now_s + 0.01, 1), rig.now_s + 0.01) is None
    assert rig.tick().cause == "manual"


def test_arming_by_hand_needs_the_right_lease() -> None:
    rig = Rig()
    rig.tick(25)
    assert rig.ask("arm", mode="manual")["blocked"][0]["reason"] == "no_lease"
    lease = rig.ask("lease", kind="calibration", holder="h")["lease"]
    assert rig.ask("lease", kind="manual", holder="h")["reason"] == "lease_held"
    for mode, some in [("manual", lease), ("calibration", "x"), ("calibration", None)]:
        answer = rig.ask("arm", mode=mode, **({} if some is None else {"lease": some}))
        assert answer["blocked"][0]["reason"] == "no_lease" and not rig.core.armed
    assert rig.ask("arm", mode="calibration", lease=lease) == {"ok": True, "mode": "calibration"}


def test_a_lease_is_told_to_its_holder_only() -> None:
    rig = Rig()
    assert rig.core.state(rig.now_s)["lease"] is None
    answer = rig.ask("lease", kind="manual", holder="a phone")
    assert answer == {"ok": True, "mode": "disarmed", "lease": answer["lease"], "lease_s": 0.25}
    state = rig.core.state(rig.now_s)
    assert state["lease"] == {"kind": "manual", "holder": "a phone"} and answer["lease"] not in json.dumps(state)


def test_releasing_the_lease_disarms_only_what_it_armed() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    assert rig.ask("release", lease="x")["reason"] == "lease_lost" and rig.core.armed
    assert rig.ask("release", lease=lease) == {"ok": True, "mode": "disarmed"}
    assert rig.tick().cause == "neutral:disarmed" and rig.core.state(rig.now_s)["fault"] is None
    rig = Rig().driving()
    lease = rig.ask("lease", kind="manual", holder="h")["lease"]
    assert rig.ask("release", lease=lease) == {"ok": True, "mode": "autonomous"}
    rig.ask("lease", kind="manual", holder="h")
    assert rig.run(40).cause == "drive"  # and a lease that nobody drives by may end


def test_a_refused_request_of_the_driver_rests_the_throttle_and_of_others_changes_nothing() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    rig.tick()
    for bad in ({"op": "manual", "lease": "x", "steering": 0.0, "throttle": 1.0}, ["manual"], None, {"op": "nonsense"}):
        assert not rig.core.request(bad, rig.now_s)["ok"]
        assert rig.tick().cause == "manual"
    assert rig.ask("manual", lease=lease, steering=0.0, throttle=math.nan)["reason"] == "nan"
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:no_command", Mode.MANUAL)
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    assert rig.tick().cause == "manual"


def test_a_command_from_before_arming_is_void() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
    rig.tick()
    rig.ask("disarm")
    assert rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)["reason"] == "not_in_control"
    rig.tick(5)
    assert rig.ask("arm", mode="manual", lease=lease)["ok"]
    assert rig.tick().cause == "neutral:no_command"


# --- calibration


def test_calibration_pulses() -> None:
    rig = Rig()
    lease = rig.leased("calibration")
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:not_held", Mode.CALIBRATION)
    assert rig.ask("pulse", lease=lease, steering_us=1300.0) == {"ok": True, "mode": "calibration"}
    assert rig.tick() == Output(1300.0, NEUTRAL_US, "neutral:not_held", Mode.CALIBRATION)
    rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US - 25.0)
    assert rig.tick() == Output(1300.0, NEUTRAL_US - 25.0, "calibration", Mode.CALIBRATION)
    assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US - 50.1)["reason"] == "step_too_large"
    assert rig.tick() == Output(1300.0, NEUTRAL_US, "neutral:not_held", Mode.CALIBRATION)


@pytest.mark.parametrize("share", (0.0, 0.5))
def test_calibration_goes_to_rest_at_once_from_afar(share: float) -> None:
    rig = Rig()
    lease = rig.leased("calibration")
    for step in range(1, 7):
        assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US + 25.0 * step)["ok"]
        rig.tick()
    wanted_us = NEUTRAL_US + 150.0 * share
    assert rig.ask("pulse", lease=lease, throttle_us=wanted_us) == {"ok": True, "mode": "calibration"}
    assert rig.tick() == Output(CENTER_US, wanted_us, "calibration", Mode.CALIBRATION)
    # and from there only in steps again
    assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US + 150.0)["reason"] == "step_too_large"


def test_without_a_calibration_a_pulse_is_refused() -> None:
    rig = Rig(None)
    lease = rig.ask("lease", kind="calibration", holder="h")["lease"]
    assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US)["reason"] == "not_in_control"


def test_calibration_throttle_is_hold_to_run() -> None:
    rig = Rig()
    lease = rig.leased("calibration")
    rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US + 25.0)
    causes = []
    for _ in range(17):
        output = rig.tick()
        causes.append(output.cause)
        assert output.steering_us == CENTER_US
        rig.ask("renew", lease=lease)
    assert causes == ["calibration"] * 15 + ["neutral:not_held"] * 2


def test_two_requests_within_a_tick_are_one_step() -> None:
    rig = Rig()
    lease = rig.leased("calibration")
    for change_us in (10.0, 25.0, -25.0):
        assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US + change_us)["ok"]
    assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US - 26.0)["reason"] == "step_too_large"


def test_calibration_ends_with_its_lease() -> None:
    rig = Rig()
    lease = rig.leased("calibration")
    rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US + 25.0, steering_us=1300.0)
    for _ in range(12):
        assert rig.tick().throttle_us == NEUTRAL_US + 25.0
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:fault:lease_lost", Mode.DISARMED)


def test_manual_commands_and_pulses_do_not_cross() -> None:
    rig = Rig()
    lease = rig.leased("manual")
    assert rig.ask("pulse", lease=lease, throttle_us=NEUTRAL_US)["reason"] == "not_in_control"
    rig = Rig()
    lease = rig.leased("calibration")
    assert rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)["reason"] == "not_in_control"
    assert is_neutral(rig.tick())


# --- cap and model


def test_the_cap_is_in_percent() -> None:
    full_us = FORWARD_US - NEUTRAL_US
    rig = Rig(speed_cap=0.9).driving()
    assert rig.run(1).throttle_us == pytest.approx(NEUTRAL_US + 0.9 * full_us)
    assert rig.ask("cap", percent=40) == {"ok": True, "mode": "autonomous", "percent": 40.0, "percent_in_force": 40.0}
    assert rig.run(1).throttle_us == pytest.approx(NEUTRAL_US + 0.4 * full_us)
    assert rig.core.state(rig.now_s)["cap_percent"] == rig.core.state(rig.now_s)["cap_percent_in_force"] == 40.0
    assert rig.ask("cap", percent=0.05)["ok"] and rig.reasons() == []
    assert rig.ask("cap", percent=0)["ok"]
    assert is_neutral(rig.run(1)) and rig.reasons() == ["speed_cap"]
    assert rig.ask("cap", percent=101)["reason"] == "out_of_range"
    assert is_neutral(rig.run(1))


def test_a_model_on_trial_is_slower() -> None:
    rig = Rig(trial_cap=0.5)
    assert rig.ask("model", sha256=MODEL, trial=True) == {
        "ok": True, "mode": "disarmed", "sha256": MODEL, "trial": True,
    }  # fmt: skip
    rig.run(30)
    assert rig.core.state(rig.now_s)["cap_percent_in_force"] == 50.0
    rig.ask("arm", mode="autonomous")
    half_us = NEUTRAL_US + 0.5 * (FORWARD_US - NEUTRAL_US)
    assert rig.run(20).throttle_us == pytest.approx(half_us)
    assert rig.ask("cap", percent=80)["percent_in_force"] == 50.0
    assert rig.ask("cap", percent=30)["percent_in_force"] == 30.0
    assert rig.run(1).throttle_us == pytest.approx(NEUTRAL_US + 0.3 * (FORWARD_US - NEUTRAL_US))


def test_a_trial_does_not_slow_a_person() -> None:
    rig = Rig(trial_cap=0.1)
    rig.ask("model", sha256=MODEL, trial=True)
    rig.ask("cap", percent=50)
    lease = rig.leased("manual")
    for _ in range(50):
        rig.ask("manual", lease=lease, steering=0.0, throttle=1.0)
        output = rig.tick()
    assert output.throttle_us == pytest.approx(NEUTRAL_US + 0.5 * (FORWARD_US - NEUTRAL_US))


def test_the_model_changes_only_while_nothing_is_armed() -> None:
    rig = Rig().driving()
    assert rig.ask("model", sha256=MODEL, trial=False)["ok"]  # the same again
    assert rig.run(1).cause == "drive"
    for sha, trial in [("00" * 32, False), (MODEL, True)]:
        assert rig.ask("model", sha256=sha, trial=trial)["reason"] == "armed"
    assert rig.run(1).cause == "drive"
    rig.ask("disarm")
    assert rig.core.state(rig.now_s)["model"] == {"sha256": MODEL, "trial": False}
    assert rig.ask("model", sha256="00" * 32, trial=True)["ok"]
    assert rig.core.state(rig.now_s)["model"] == {"sha256": "00" * 32, "trial": True}
    assert "stale_intent" in rig.reasons()  # what the old one wanted is void
    assert rig.intent() == "wrong_model"
    rig.ask("stop")
    assert rig.ask("model", sha256=MODEL, trial=False)["ok"]


# --- a mapping that fails, and what is told


def test_a_mapping_that_fails_disarms(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig().driving()
    monkeypatch.setattr(vehicle.gate_motion, "speed_pulse_us", lambda *args, **kwargs: 2400.0)
    rig.intent()
    assert rig.tick() == Output(CENTER_US, NEUTRAL_US, "neutral:fault:mapping", Mode.DISARMED)
    assert rig.core.state(rig.now_s)["fault"]["name"] == "mapping"


def test_state_is_complete_and_json() -> None:
    rig = Rig()
    empty = rig.core.state(rig.now_s)
    assert empty == {
        "mode": "disarmed", "armed": False, "cause": "neutral:disarmed",
        "blocked": [one.as_dict() for one in rig.core.blocked(rig.now_s)],
        "fault": None, "lease": None, "cap_percent": 100.0, "cap_percent_in_force": 100.0, "calibrated": True,
        "model": None, "pulses": {"steering_us": None, "throttle_us": None}, "intent_age_s": None,
        "frame_age_s": None, "inference_ms": None, "undervoltage": None, "battery_fraction": None,
        "temperature_c": None, "disk_free_bytes": None,
        "counters": {"ticks": 0, "gaps": 0, "faults": 0, "intents": 0, "refused": {}},
    }  # fmt: skip
    rig.driving()
    rig.intent()
    rig.tick(facts=Facts(None, True, None, False, 0.5, 40.0, 10**9))
    state = rig.ask("status")
    assert state.pop("ok") is True and state == rig.core.state(rig.now_s)
    assert state["armed"] is True and state["cause"] == "drive" and state["blocked"] == []
    assert state["intent_age_s"] == pytest.approx(0.02) and state["frame_age_s"] == pytest.approx(0.04)
    assert state["inference_ms"] == 4.0 and state["battery_fraction"] == 0.5 and state["temperature_c"] == 40.0
    assert state["undervoltage"] is False and state["disk_free_bytes"] == 10**9
    assert state["pulses"] == {"steering_us": CENTER_US, "throttle_us": FORWARD_US}
    assert state["counters"]["ticks"] == 51 and state["counters"]["intents"] == 51
    rig.tick(facts=Facts(None, True, None, None, math.nan, math.inf))
    state = rig.core.state(math.nan)
    assert state["battery_fraction"] is None and state["temperature_c"] is None and state["intent_age_s"] is None
    json.dumps(state, allow_nan=False)
    assert json.loads(json.dumps(rig.ask("status")))["mode"] == "autonomous"


def test_what_blocks_while_a_person_drives() -> None:
    rig = Rig().ready()
    rig.leased("manual")
    rig.intent()
    assert rig.reasons() == ["already_armed"]
    rig.run(1)
    assert rig.reasons() == ["already_armed", "esc_neutral"]
