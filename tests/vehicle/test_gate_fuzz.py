"""100,000 random sequences of about thirty events each, against an independent witness of what a gate may do.

The witness is written from the rules (DESIGN.md, docs/driving.md), not from the core: it keeps *permits*, each with the
moment at which it ends, and every tick must be explained by the permits that are left. Times and limits are sums of
powers of two, so that "exactly at the limit" and "one bit beyond" mean what they say; most ages are drawn there.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from calibration.mapping import Calibration, speed_pulse_us
from tests.vehicle.gate_rig import MODEL, OK
from vehicle.gate_core import Facts, GateCore, Limits, Output
from vehicle.messages import Alive, Intent

SEQUENCES, BATCHES = 100_000, 10
QUICK_BATCHES = 2  # of `make check`; `make test` runs them all
CAR = Calibration()
NEUTRAL_US, FORWARD_US, REVERSE_US = CAR.throttle.neutral_us, CAR.throttle.forward_us, CAR.throttle.reverse_us
US_PER_DEG = 250.0 / 30.0
LIMITS = Limits(
    intent_age_s=2**-3, frame_age_s=2**-3 + 2**-4, lost_s=0.5, future_s=2**-8, lease_s=0.25, manual_age_s=2**-3,
    hold_s=2**-3 + 2**-5, gap_s=2**-4 + 2**-5, startup_neutral_frames=3, rearm_neutral_frames=2,
    alive_before_arm_s=2**-5, trial_cap=0.5,
)  # fmt: skip
TICK_S = 2**-6
ILL = (Facts(), Facts("bus error", True), Facts(None, True, "disk full"))
UNFIT = (Facts(None, True, None, True), Facts(None, True, None, None, math.nan), Facts(None, True, None, None, 0.05))
ARMED = ("autonomous", "manual", "calibration")
ODD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 10**400, -1, 0, None, True, "", "x", [], {}, -0.0, 5e-324)
REAL = (math.nan, math.inf, -math.inf)
BAD: list[tuple[str, Any]] = [
    *((key, value) for key in ("stamp_s", "frame_stamp_s", "steering_deg", "speed_mps") for value in REAL),
    *((key, value) for key in ("model_max_mps", "inference_ms") for value in (*REAL, -1.0)),
    ("steering_deg", 30.0011), ("steering_deg", -1e308), ("speed_mps", -5e-324), ("speed_mps", math.nextafter(4, 5)),
    ("speed_mps", 1e308), ("model_max_mps", 0.0), ("model_max_mps", 5e-324), ("model_max_mps", 1e308),
    ("source", "console"), ("source", ""), ("model", "11" * 32), ("model", ""), ("stamp_s", "future"),
    ("frame_stamp_s", "future"),
]  # fmt: skip


_AGE, _FRAME, _FUTURE, _BIT = LIMITS.intent_age_s, LIMITS.frame_age_s, LIMITS.future_s, 2**-40
AGES = (0.0,) * 12 + (2**-7,) * 4 + (_AGE - _BIT, _AGE, _AGE + _BIT, -_FUTURE, -_FUTURE, -_FUTURE - _BIT)
FRAME_AGES = (0.0,) * 4 + (2**-6,) * 12 + (_FRAME, _FRAME, _FRAME - _BIT, _FRAME + _BIT)


def beyond(number: float, towards: float = math.inf) -> float:
    return math.nextafter(number, towards)


class Witness:
    """What has happened, and so what is permitted."""

    def __init__(self, calibrated: bool) -> None:
        self.calibrated = calibrated
        self.stopped = False
        self.armed = ""
        self.key = ""  # the lease that armed
        self.lease: tuple[str, str, float] | None = None  # id, kind, end of its permit
        self.command: tuple[float, float] | None = None  # throttle (fraction or us), end of its permit
        self.intent: Intent | None = None
        self.heard: Intent | None = None  # the last good intent, for order
        self.frame_s = -math.inf
        self.steady_from_s = math.inf
        self.faulty = False  # the last word of the pilot was refused
        self.model, self.trial, self.cap = "", False, 1.0
        self.last_tick_s: float | None = None
        self.facts = Facts()
        self.calm_s: list[float] = []  # times of the neutral pulses in a row that the ESC saw, with nothing armed
        self.needed = LIMITS.startup_neutral_frames
        self.good_s = 0.0
        self.steering_us = CAR.steering.center_us

    def lock(self, fault: bool = True) -> None:
        if self.armed and fault:
            self.calm_s = []
        self.armed = self.key = ""
        self.command = None

    def refuse(self, disarms: bool) -> None:
        self.intent, self.steady_from_s, self.faulty = None, math.inf, True
        if disarms and self.armed == "autonomous":
            self.lock()

    def lease_ok(self, lease: object, now_s: float) -> bool:
        if self.lease is not None and not self.lease[2] - LIMITS.lease_s - LIMITS.future_s <= now_s <= self.lease[2]:
            self.lease = None
        return self.lease is not None and self.lease[0] == lease

    def renew(self, now_s: float) -> None:
        assert self.lease is not None
        self.lease = (self.lease[0], self.lease[1], now_s + LIMITS.lease_s)

    def pilot_ready(self, now_s: float) -> bool:
        return (
            self.intent is not None
            and self.intent.stamp_s - LIMITS.future_s <= now_s <= self.intent.stamp_s + LIMITS.intent_age_s
            and self.frame_s - LIMITS.future_s <= now_s <= self.frame_s + LIMITS.frame_age_s
        )

    def frames(self) -> int:
        """How many of the neutral pulses lie so far apart that the ESC saw each."""
        count, last_s = 0, -math.inf
        for time_s in self.calm_s:
            if time_s >= last_s + 0.01:
                count, last_s = count + 1, time_s
        return count

    def may_arm(self, mode: str, lease: object, now_s: float) -> bool:
        ticking = self.last_tick_s is not None and self.last_tick_s <= now_s <= self.last_tick_s + LIMITS.gap_s
        if not (self.calibrated and ticking and self.facts == OK and self.frames() >= self.needed):
            return False
        if self.armed or self.stopped:
            return False
        if mode != "autonomous":
            return self.lease_ok(lease, now_s) and self.lease is not None and self.lease[1] == mode
        steady = self.steady_from_s + LIMITS.alive_before_arm_s <= now_s
        return bool(self.model) and not self.faulty and steady and self.pilot_ready(now_s)

    def before_tick(self, now_s: float, facts: Facts) -> None:
        """Take away every permit that ends with this tick."""
        self.facts = facts
        last_s = now_s if self.last_tick_s is None else self.last_tick_s
        backwards = not now_s >= last_s
        if backwards or now_s > last_s + LIMITS.gap_s:
            self.lock()
            self.calm_s = []
        if backwards:
            self.lease = self.intent = self.heard = None
            self.frame_s, self.steady_from_s = -math.inf, math.inf
        if self.key and not self.lease_ok(self.key, now_s):
            self.lock()
        if facts.actuator_error or facts.log_error or not facts.guard_alive:
            self.lock()
        if self.armed == "autonomous":
            if self.pilot_ready(now_s):
                self.good_s = now_s
            elif now_s > self.good_s + LIMITS.lost_s:
                self.lock()
        self.last_tick_s = now_s if math.isfinite(now_s) else None

    def judge(self, now_s: float, output: Output, step_s: float) -> None:
        """Whether the output of a tick is permitted, and what is due was done."""
        assert output.mode.value == ("stopped" if self.stopped else self.armed or "disarmed")
        if not self.calibrated:
            assert (output.steering_us, output.throttle_us) == (None, None)
            return
        assert output.steering_us is not None and output.throttle_us is not None
        moves = output.throttle_us != NEUTRAL_US
        assert moves <= (output.cause in ("drive", "manual", "calibration")), "it moves and calls it neutral"
        commanded = self.command is not None and now_s <= self.command[1]
        if self.armed == "autonomous" and self.pilot_ready(now_s):
            assert output.cause == "drive"
            assert self.intent is not None
            cap = min(self.cap, LIMITS.trial_cap) if self.trial else self.cap
            speed_mps = min(self.intent.speed_mps, self.intent.model_max_mps)
            fastest_us = speed_pulse_us(CAR, speed_mps, model_max_mps=self.intent.model_max_mps, cap=cap)
            assert fastest_us - 1e-6 <= output.throttle_us <= NEUTRAL_US
            turn_us = abs(output.steering_us - self.steering_us)
            assert turn_us <= LIMITS.steering_slew_deg_per_s * step_s * US_PER_DEG + 1e-6
            assert abs(output.steering_us - CAR.steering.center_us) <= 250.0 + 1e-6
        elif self.armed == "manual" and commanded:
            assert output.cause == "manual" and self.command is not None
            wanted = self.command[0] * self.cap
            end_us = FORWARD_US if wanted > 0 else REVERSE_US
            full_us = NEUTRAL_US + abs(wanted) * (end_us - NEUTRAL_US)
            assert min(full_us, NEUTRAL_US) - 1e-3 <= output.throttle_us <= max(full_us, NEUTRAL_US) + 1e-3
        elif self.armed == "calibration" and commanded:
            assert output.cause == "calibration" and self.command is not None
            assert output.throttle_us == self.command[0] and 900.0 <= output.throttle_us <= 2100.0
        else:
            assert not moves, "nothing permits this"
            assert output.cause.startswith("neutral:")
            if self.armed != "calibration":
                assert output.steering_us == CAR.steering.center_us
        self.steering_us = output.steering_us
        seen = not self.armed and self.facts.actuator_error is None and math.isfinite(now_s)
        self.calm_s = [*self.calm_s, now_s] if seen else []


class Session:
    """One core, its witness, and a random hand on the controls."""

    def __init__(self, rng: random.Random, tally: Counter[str]) -> None:
        self.rng, self.tally = rng, tally
        calibrated = rng.random() < 0.97
        self.core = GateCore(CAR if calibrated else None, LIMITS)
        self.witness = Witness(calibrated)
        self.now_s = 64.0
        self.seq = 0
        self.lease = ""
        self.throttle_us = NEUTRAL_US

    def run(self) -> None:
        rng = self.rng
        mode = rng.choice(("autonomous", "autonomous", "manual", "calibration"))
        self.ask({"op": "model", "sha256": MODEL, "trial": rng.random() < 0.2})
        self.plain_intents(4)
        if mode != "autonomous":
            self.ask({"op": "lease", "kind": mode, "holder": "h"})
        self.ask({"op": "arm", "mode": mode, **({"lease": self.lease} if self.lease else {})})
        for _ in range(rng.randint(2, 10)):
            if self.witness.key and rng.random() < 0.4:
                self.by_hand()
            else:
                rng.choice(self.EVENTS)(self)
            if rng.random() < 0.7:
                self.tick(TICK_S, OK)

    # --- events

    def tick(self, step_s: float, facts: Facts) -> None:
        before_s = self.witness.last_tick_s
        self.now_s += step_s
        self.witness.before_tick(self.now_s, facts)
        output = self.core.tick(self.now_s, facts)
        self.witness.judge(self.now_s, output, 0.0 if before_s is None else self.now_s - before_s)
        moves = output.throttle_us not in (None, NEUTRAL_US)
        self.tally[f"moves:{output.mode.value}" if moves else output.cause] += 1
        self.throttle_us = NEUTRAL_US if output.throttle_us is None else output.throttle_us
        if not math.isfinite(self.now_s):
            self.now_s = 70.0

    def odd_tick(self) -> None:
        gap_s = LIMITS.gap_s
        step_s = self.rng.choice((0.0, 2**-8, gap_s, gap_s, 2**-5, 2**-4, gap_s + 2**-40, -(2**-40), 9.0, -9.0, *REAL))
        self.tick(step_s, self.rng.choice((OK, OK, OK, *UNFIT, *ILL)))

    def wait(self) -> None:
        """Several ticks in a row with nothing else: ages come to their limits."""
        for _ in range(self.rng.choice((1, 2, 4, 8, 9, 16, 40))):
            self.tick(self.rng.choice((TICK_S, TICK_S, 2**-5)), OK)

    def good_intent(self) -> None:
        age_s, frame_age_s = self.rng.choice(AGES), self.rng.choice(FRAME_AGES)
        self.seq += self.rng.choice((1, 1, 1, 2, 2**40))
        stamp_s = self.now_s - age_s
        self.send(self.make(stamp_s, min(stamp_s, self.now_s - frame_age_s)))

    def plain_intents(self, count: int) -> None:
        for _ in range(count):
            self.seq += 1
            self.send(self.make(self.now_s, self.now_s - 2**-6))
            self.tick(TICK_S, OK)

    def make(self, stamp_s: float, frame_s: float) -> Intent:
        rng = self.rng
        top_mps = rng.choice((1.0, 4.0, 2.5))
        speed_mps = rng.choice((top_mps, top_mps, 0.5, 0.0, top_mps * (1 + 0.9e-6) if top_mps < 4 else 4.0))
        steering_deg = rng.choice((0.0, 30.0, -30.0, 30.0009, -12.5))
        return Intent("pilot", self.seq, stamp_s, self.seq, frame_s, steering_deg, speed_mps, top_mps, 3.0, MODEL)

    def bad_intent(self) -> None:
        rng = self.rng
        self.seq += 1
        good = vars(self.make(self.now_s, self.now_s - 2**-6))
        key, value = rng.choice(BAD)
        if key.endswith("stamp_s") and value == "future":
            value = beyond(self.now_s + LIMITS.future_s if key == "stamp_s" else self.now_s)
        if key == "steering_deg" and not self.witness.calibrated:
            value = math.nan  # how far the wheels turn is not known
        fault = self.core.intent(Intent(**{**good, key: value}), self.now_s)
        assert fault is not None, (key, value)
        self.tally[fault] += 1
        self.witness.refuse(disarms=True)

    def repeated_intent(self) -> None:
        last_seq = self.seq
        self.seq = self.rng.choice((last_seq, last_seq - 1, 0, max(0, last_seq - 2**40)))
        self.send(self.make(self.now_s - self.rng.choice((0.0, 2**-7, 0.25)), self.now_s - 0.25))
        self.seq = last_seq

    def send(self, intent: Intent) -> None:
        """Send an intent whose numbers are good; whether time and order are, the witness says."""
        witness, now_s, heard = self.witness, self.now_s, self.witness.heard
        fault = self.core.intent(intent, now_s)
        if witness.model != MODEL:
            assert fault == "wrong_model"
            return witness.refuse(disarms=True)
        in_order = heard is None or (intent.seq > heard.seq and intent.stamp_s >= heard.stamp_s)
        anew = not in_order and heard is not None and intent.seq <= heard.seq and intent.stamp_s > heard.stamp_s
        if not in_order and not (anew and witness.armed != "autonomous"):
            assert fault == "sequence"
            return witness.refuse(disarms=True)
        if intent.frame_stamp_s > intent.stamp_s or intent.stamp_s > now_s + LIMITS.future_s:
            assert fault == "from_future"
            return witness.refuse(disarms=True)
        if now_s > intent.stamp_s + LIMITS.intent_age_s or now_s > intent.frame_stamp_s + LIMITS.frame_age_s:
            assert fault in ("stale", "stale_frame")
            return witness.refuse(disarms=False)
        assert fault is None
        broken = heard is None or anew or intent.stamp_s > heard.stamp_s + LIMITS.intent_age_s
        if broken or witness.steady_from_s == math.inf:
            witness.steady_from_s = intent.stamp_s
        witness.frame_s = intent.frame_stamp_s if anew else max(witness.frame_s, intent.frame_stamp_s)
        witness.intent = witness.heard = intent
        witness.faulty = False

    def sign_of_life(self) -> None:
        rng = self.rng
        age_s = rng.choice((0.0, 0.0, LIMITS.intent_age_s, LIMITS.intent_age_s + 2**-40))
        stamp_s = rng.choice((self.now_s - age_s, self.now_s - age_s, beyond(self.now_s + LIMITS.future_s), math.nan))
        frame_s = rng.choice((stamp_s, stamp_s - 2**-4, stamp_s - 2.0, math.inf))
        fault = self.core.alive(Alive(rng.choice(("pilot",) * 9 + ("x",)), stamp_s, self.seq, frame_s), self.now_s)
        late = age_s > LIMITS.intent_age_s and stamp_s == self.now_s - age_s
        if fault is None:
            assert not late and frame_s <= stamp_s <= self.now_s + LIMITS.future_s
            self.witness.frame_s = max(self.witness.frame_s, frame_s)
        else:
            assert fault != "stale" or late
            self.witness.refuse(disarms=fault != "stale")

    def broken_message(self) -> None:
        self.core.bad_message("not_json", self.now_s)
        self.witness.refuse(disarms=True)

    # --- requests

    def ask(self, message: Any) -> dict[str, Any]:
        """Send a request; the witness follows what was obeyed, and checks what must not have been."""
        witness, now_s = self.witness, self.now_s
        op = message.get("op") if isinstance(message, dict) else None
        lease = message.get("lease") if isinstance(message, dict) else None
        expected = op == "arm" and message.get("mode") in ARMED and witness.may_arm(message["mode"], lease, now_s)
        known = isinstance(lease, str) and witness.lease_ok(lease, now_s)
        before = self.core.mode
        reply = self.core.request(message, now_s)
        self.tally["obeyed" if reply["ok"] else str(reply["reason"])] += 1
        if not reply["ok"]:
            assert not expected and op not in ("stop", "disarm"), reply
            assert self.core.mode is before
            if reply["reason"] == "step_too_large":
                assert message["throttle_us"] != CAR.throttle.neutral_us, "going to rest was refused"
            if known and op in ("manual", "pulse") and reply["reason"] in ("not_in_control", "step_too_large"):
                witness.renew(now_s)
            if lease == witness.key and witness.key:
                witness.command = None
            return reply
        if op == "arm":
            assert expected, "armed without a permit"
            witness.armed, witness.command = message["mode"], None
            witness.key = "" if message["mode"] == "autonomous" else message["lease"]
            witness.needed, witness.good_s = LIMITS.rearm_neutral_frames, now_s
        elif op == "stop":
            witness.lock(fault=False)
            witness.stopped = True
        elif op == "disarm":
            witness.lock(fault=False)
        elif op == "reset":
            assert witness.stopped
            witness.stopped = False
        elif op == "lease":
            assert not witness.lease_ok("", now_s) and witness.lease is None, "two leases"
            witness.lease = (reply["lease"], message["kind"], now_s + LIMITS.lease_s)
            self.lease = reply["lease"]
        elif op in ("renew", "release", "manual", "pulse"):
            assert known, "a lease that was not held"
            witness.renew(now_s)
            self.follow(op, message)
        elif op == "cap":
            witness.cap = message["percent"] / 100.0
        elif op == "model":
            if (message["sha256"], message["trial"]) != (witness.model, witness.trial):
                assert not witness.armed
                witness.model, witness.trial = message["sha256"], message["trial"]
                witness.intent, witness.steady_from_s = None, math.inf
        return reply

    def follow(self, op: str, message: dict[str, Any]) -> None:
        witness = self.witness
        if op == "release":
            witness.lease = None
            if message["lease"] == witness.key:
                witness.lock(fault=False)
        elif op == "manual":
            assert (witness.armed, witness.key) == ("manual", message["lease"])
            witness.command = (message["throttle"], self.now_s + LIMITS.manual_age_s)
        elif op == "pulse":
            assert (witness.armed, witness.key) == ("calibration", message["lease"])
            if "throttle_us" in message:
                wanted_us, neutral_us = message["throttle_us"], CAR.throttle.neutral_us
                nearer = sorted((self.throttle_us, neutral_us, wanted_us))[1] == wanted_us
                assert nearer or abs(wanted_us - self.throttle_us) <= 25.0
                witness.command = (wanted_us, self.now_s + LIMITS.hold_s)

    def good_request(self) -> None:
        rng, lease = self.rng, self.lease or "x"
        kind = rng.choice(("manual", "calibration"))
        self.ask(
            rng.choice(
                (
                    {"op": "arm", "mode": "autonomous"},
                    {"op": "arm", "mode": kind, "lease": lease},
                    {"op": "lease", "kind": kind, "holder": "h"},
                    {"op": rng.choice(("stop", "disarm", "reset", "reset", "status"))},
                    {"op": rng.choice(("renew", "renew", "renew", "release")), "lease": lease},
                    {"op": "cap", "percent": rng.choice((0, 1e-300, 30, 100))},
                    {"op": "model", "sha256": rng.choice((MODEL, MODEL, "00" * 32)), "trial": rng.random() < 0.3},
                )
            )
        )

    def by_hand(self) -> None:
        rng = self.rng
        throttle = rng.choice((1.0, -1.0, 0.3, 0, 0.0, -0.0, 5e-324))
        change_us = rng.choice((25.0, -25.0, 10.0, 25.1, -26.0, 300.0, 0.0))
        messages: list[dict[str, Any]] = [
            {"op": "manual", "steering": rng.choice((1.0, -1.0, 0)), "throttle": throttle},
            {"op": "pulse", "throttle_us": self.throttle_us + change_us},
            {"op": "pulse", "throttle_us": CAR.throttle.neutral_us},
            {"op": "pulse", "steering_us": rng.choice((900.0, 2100.0, 1450.0))},
        ]
        messages = messages[:1] if self.witness.armed == "manual" else messages
        self.ask({**rng.choice(messages), "lease": self.lease or "x"})

    def renewed_wait(self) -> None:
        """Ticks with a renewed lease, so that the command's own age comes to its limit."""
        for _ in range(self.rng.choice((4, 8, 9, 10, 11))):
            self.ask({"op": "renew", "lease": self.lease or "x"})
            self.tick(TICK_S, OK)

    def garbage(self) -> None:
        rng = self.rng
        message: Any = {
            "op": rng.choice(("arm", "lease", "manual", "pulse", "cap", "model", "reset", "stop", "nonsense", *ODD[:9]))
        }
        for _ in range(rng.randint(0, 3)):
            key = rng.choice(("lease", "mode", "kind", "holder", "steering", "throttle", "throttle_us", "percent", "x"))
            message[key] = rng.choice((*ODD, self.lease, "autonomous", "manual"))
        if rng.random() < 0.05:
            message = rng.choice(ODD)
        self.ask(message)

    def recover(self) -> None:
        """What a person would do to drive again."""
        self.ask({"op": "reset"})
        self.ask({"op": "model", "sha256": MODEL, "trial": False})
        self.plain_intents(4)
        self.ask({"op": "arm", "mode": "autonomous"})

    EVENTS = (
        (odd_tick, wait, bad_intent, repeated_intent, sign_of_life, broken_message, garbage, renewed_wait, recover)
        + (good_intent,) * 6
        + (good_request, by_hand) * 4
    )


@pytest.mark.parametrize(
    "batch", [pytest.param(n, marks=[pytest.mark.slow] if n >= QUICK_BATCHES else []) for n in range(BATCHES)]
)
def test_no_sequence_of_events_moves_a_car_that_should_stand(batch: int) -> None:
    tally: Counter[str] = Counter()
    for number in range(batch, SEQUENCES, BATCHES):
        rng = random.Random(number)
        session = Session(rng, tally)
        try:
            session.run()
        except AssertionError as error:
            raise AssertionError(f"sequence {number}: {error}") from error
    # A fuzz that never drives, or never meets a fault, would hold every invariant too.
    for mode in ARMED:
        assert tally[f"moves:{mode}"] > SEQUENCES / BATCHES / 10, tally
    for name in (
        "drive", "neutral:disarmed", "neutral:stopped", "neutral:stale_intent", "neutral:stale_frame",
        "neutral:no_command", "neutral:not_held", "neutral:uncalibrated", "neutral:fault:tick_gap",
        "neutral:fault:time_backwards", "neutral:fault:lease_lost", "neutral:fault:intent_lost", "neutral:fault:guard",
        "neutral:fault:actuator", "neutral:fault:log", "neutral:fault:not_json", "neutral:fault:nan",
        "neutral:fault:infinite", "neutral:fault:sequence", "neutral:fault:from_future", "neutral:fault:out_of_range",
        "nan", "infinite", "wrong_source", "wrong_model", "speed_negative", "out_of_range",
        "obeyed", "blocked", "unknown_op", "wrong_type", "missing_key", "unknown_key", "lease_lost", "lease_held",
        "not_in_control", "step_too_large", "not_stopped", "armed",
    ):  # fmt: skip
        assert tally[name] > 0, name
