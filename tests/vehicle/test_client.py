from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from vehicle import client
from vehicle.errors import GateError
from vehicle.links import endpoint
from vehicle.options import client_options, stop_options

BLOCKED = [
    {"reason": "stale_intent", "value": "never", "cure": "start the pilot"},
    {"reason": "undervoltage", "value": "the supply is too low", "cure": "charge the battery"},
]
GATE = {
    "ok": True, "mode": "disarmed", "armed": False, "blocked": BLOCKED, "pid": 11,
    "processes": {"gate": 11, "guard": 12}, "interval_ms": {"p50": 20.0, "p99": 20.9, "max": 24.0}, "late": 1,
    "missed": 0, "frame_age_s": 0.042, "frame_to_pulse_ms": {"p50": 9.0, "p99": 14.0, "max": 20.0},
    "pulses": {"steering_us": 1450.0, "throttle_us": 1446.0}, "temperature_c": 51.2, "undervoltage": True,
    "battery_fraction": 0.5, "disk_free_bytes": 9_000_000, "cap_percent_in_force": 60.0,
    "fault": {"name": "nan", "age_s": 3.0}, "inference_ms": 4.0,
}  # fmt: skip
PILOT = {
    "ok": True, "pid": 13, "inference_ms": {"p50": 3.5, "p99": 5.0},
    "interval_ms": {"p50": 100.0, "p99": 101.0, "max": 110.0, "late": 2, "missed": 0},
}  # fmt: skip

Answers = Callable[[dict[str, Any]], dict[str, Any]]


class Servers:
    """ROUTER sockets with functions behind them, and what they were asked."""

    def __init__(self, runtime: Path) -> None:
        self.runtime, self.asked = runtime, list[tuple[str, dict[str, Any]]]()
        self._context = zmq.Context()
        self._sockets: list[tuple[str, Any, Answers]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="servers")

    def add(self, name: str, answer: Answers) -> None:
        router = self._context.socket(zmq.ROUTER)
        router.bind(endpoint(self.runtime, f"{name}.request"))
        self._sockets.append((name, router, answer))

    def start(self) -> Servers:
        self._thread.start()
        return self

    def _serve(self) -> None:
        while not self._done.wait(0.002):
            for name, router, answer in self._sockets:
                if router.poll(0):
                    *envelope, text = router.recv_multipart()
                    self.asked.append((name, json.loads(text)))
                    router.send_multipart([*envelope, json.dumps(answer(json.loads(text))).encode()])

    def close(self) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._context.destroy(linger=0)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(client, "STOP_TIMEOUT_S", 0.5)
    made = Servers(tmp_path)
    yield made
    made.close()


def arguments(runtime: Path, add: Callable[[argparse.ArgumentParser], None], *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(["--runtime", str(runtime), *words])


def test_each_function_asks_for_its_op(servers: Servers, tmp_path: Path) -> None:
    servers.add("gate", lambda message: {"ok": True, "mode": "disarmed"})
    servers.start()
    for function in (client.arm, client.disarm, client.stop, client.reset):
        assert function(tmp_path) == {"ok": True, "mode": "disarmed"}
    assert [message for _, message in servers.asked] == [
        {"op": "arm", "mode": "autonomous"}, {"op": "disarm"}, {"op": "stop"}, {"op": "reset"},
    ]  # fmt: skip


def test_a_refusal_is_an_error_with_every_reason_and_cure(servers: Servers, tmp_path: Path) -> None:
    refusal = {"ok": False, "reason": "blocked", "what": "not armed", "cause": "", "next": "x", "blocked": BLOCKED}
    servers.add("gate", lambda message: refusal)
    servers.start()
    with pytest.raises(GateError) as caught:
        client.arm(tmp_path)
    assert caught.value.reason == "blocked"
    for one in BLOCKED:
        assert one["reason"] in str(caught.value)
        assert one["cure"] in str(caught.value)


def test_a_gate_that_does_not_answer_is_an_error(servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        client.stop(tmp_path)
    assert caught.value.reason == "no_answer"


def test_status_gathers_gate_and_pilot(servers: Servers, tmp_path: Path) -> None:
    servers.add("gate", lambda message: GATE)
    servers.add("pilot", lambda message: PILOT)
    servers.start()
    found = client.status(tmp_path)
    assert found["mode"] == "disarmed"
    assert found["armed"] is False
    assert found["blocked"] == BLOCKED
    assert found["processes"] == {"gate": 11, "guard": 12, "pilot": 13}
    assert found["loop"] == {
        "gate": {"interval_ms": {"p50": 20.0, "p99": 20.9, "max": 24.0}, "late": 1, "missed": 0},
        "pilot": {"interval_ms": {"p50": 100.0, "p99": 101.0, "max": 110.0}, "late": 2, "missed": 0},
    }
    assert found["inference_ms"] == {"p50": 3.5, "p99": 5.0}
    assert found["frame_age_ms"] == 42.0
    assert found["pulses"] == {"steering_us": 1450.0, "throttle_us": 1446.0}
    assert (found["temperature_c"], found["undervoltage"], found["battery_fraction"]) == (51.2, True, 0.5)
    assert found["runtime"] == str(tmp_path)
    json.dumps(found)


def test_status_without_a_pilot_says_so_beside_the_gates_reasons(servers: Servers, tmp_path: Path) -> None:
    servers.add("gate", lambda message: GATE)
    servers.start()
    found = client.status(tmp_path)
    assert [one["reason"] for one in found["blocked"]] == ["pilot_not_running", "stale_intent", "undervoltage"]
    assert found["processes"]["pilot"] is None
    assert found["inference_ms"] == 4.0  # of the gate's last intent


def test_status_without_a_gate(servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert client.status_command(arguments(tmp_path, client_options, "--json")) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] is None
    assert found["armed"] is False
    assert [one["reason"] for one in found["blocked"]] == ["gate_not_running", "pilot_not_running"]
    assert all(one["cure"] for one in found["blocked"])
    assert client.status_command(arguments(tmp_path, client_options)) == 1
    assert "gate_not_running" in capsys.readouterr().out


def test_status_for_people(servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers.add("gate", lambda message: GATE)
    servers.add("pilot", lambda message: PILOT)
    servers.start()
    assert client.status_command(arguments(tmp_path, client_options)) == 0
    said = capsys.readouterr().out
    for words in (
        "mode: disarmed\n", "last fault: nan, 3.0 s ago", "stale_intent: never", "cure: charge the battery",
        "gate 11, guard 12, pilot 13", "gate interval: p50 20.0 ms, p99 20.9 ms, max 24.0 ms; late 1",
        "pilot interval: p50 100.0 ms, p99 101.0 ms, max 110.0 ms; late 2", "inference: p50 3.5 ms, p99 5.0 ms",
        "frame to pulse: p50 9.0 ms", "frame age: 42 ms", "temperature: 51 C", "battery: 50 %", "disk free: 9 MB",
        "speed cap: 60 %", "steering 1450 us, throttle 1446 us", "supply voltage is too low",
    ):  # fmt: skip
        assert words in said


@pytest.mark.parametrize(
    ("command", "add", "words", "op"),
    (
        (client.disarm_command, client_options, (), "disarm"),
        (client.stop_command, stop_options, (), "stop"),
        (client.stop_command, stop_options, ("--reset",), "reset"),
        (client.reset_command, client_options, (), "reset"),
    ),
)
def test_commands_that_make_it_safe(
    servers: Servers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[argparse.Namespace], int],
    add: Callable[[argparse.ArgumentParser], None],
    words: tuple[str, ...],
    op: str,
) -> None:
    mode = "stopped" if op == "stop" else "disarmed"
    servers.add("gate", lambda message: {"ok": True, "mode": mode})
    servers.start()
    assert command(arguments(tmp_path, add, *words, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {"mode": mode}
    assert command(arguments(tmp_path, add, *words)) == 0
    assert capsys.readouterr().out.startswith(f"{mode}: neutral")
    assert [message for _, message in servers.asked] == [{"op": op}] * 2


def test_the_arm_command(servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        {"ok": False, "reason": "blocked", "what": "not armed: stale_intent", "blocked": BLOCKED},
        {"ok": False, "reason": "blocked", "what": "not armed: stale_intent", "blocked": BLOCKED},
        {"ok": True, "mode": "autonomous"},
    ]
    servers.add("gate", lambda message: answers.pop(0))
    servers.start()
    assert client.arm_command(arguments(tmp_path, client_options, "--json")) == 1
    refused = json.loads(capsys.readouterr().out)
    assert (refused["armed"], refused["reason"], refused["blocked"]) == (False, "blocked", BLOCKED)
    assert client.arm_command(arguments(tmp_path, client_options)) == 1
    said = capsys.readouterr().out
    assert all(one["reason"] in said and one["cure"] in said for one in BLOCKED)
    assert client.arm_command(arguments(tmp_path, client_options, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["armed"] is True


def test_the_runtime_folder_is_found_where_none_is_named(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOTLAP_RUNTIME", str(tmp_path))
    servers.add("gate", lambda message: {"ok": True, "mode": "stopped"})
    servers.start()
    assert client.stop_command(argparse.Namespace(runtime=None, reset=False, json=False)) == 0
    assert "hotlap stop --reset" in capsys.readouterr().out
