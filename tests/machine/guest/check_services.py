"""The services of hotlap under a real systemd: started, watched, killed, hung and stopped, the pulses recorded.

In a container: a folder of pictures for the camera, and an actuator that only records. The limits are DESIGN.md's.
"""

from __future__ import annotations

import pwd
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.guest import car
from tests.machine.guest.car import KILL, STOP, TERM
from tests.vehicle.gate_process import until

GATE, PILOT, CONSOLE = "hotlap-gate.service", "hotlap-pilot.service", "hotlap-console.service"


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    """The car with its settings and calibration, and a model that has proved itself."""
    car.prepare('kind = "none"\n')
    found = car.install_model()
    car.start()
    car.prove()
    car.shell("systemctl", "stop", "hotlap.target", GATE)
    return found


@pytest.fixture
def driving(installed: dict[str, Any]) -> Iterator[None]:
    """Started, armed, the throttle not neutral."""
    car.start()
    car.arm()
    yield
    car.shell("systemctl", "stop", "hotlap.target", GATE)


def again() -> None:
    """Driving again, for another try."""
    car.start()
    car.arm()


def in_ms(times_s: list[float]) -> str:
    return ", ".join(f"{1e3 * one:.0f}" for one in times_s) + " ms"


def check_the_gate_starts_with_the_computer_and_is_disarmed() -> None:
    # Nobody has set this car up yet: no calibration, no model, a camera that is not there.
    assert car.active("hotlap.target")
    assert until(lambda: car.active(GATE), car.PATIENCE_S), car.journal()
    status = car.ask("status")
    assert not status["armed"] and "uncalibrated" in {one["reason"] for one in status["blocked"]}
    assert car.show(GATE, "NRestarts") == "0"
    assert not car.throttle()


def check_the_services_run_as_the_user_hotlap_and_closed_in() -> None:
    text = Path(f"/proc/{car.main_pid(GATE)}/status").read_text()
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert status["Uid"].split() == 4 * [str(pwd.getpwnam("hotlap").pw_uid)]
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0


def check_systemctl_start_returns_when_the_gate_answers(installed: dict[str, Any]) -> None:
    car.shell("systemctl", "start", GATE)
    assert car.show(GATE, "Type") == "notify"
    assert car.ask("status")["ok"], "Type=notify: it has said READY, so it must answer"
    assert car.show(GATE, "StatusText") == "disarmed"


def check_the_pilot_comes_after_the_gate(installed: dict[str, Any]) -> None:
    car.shell("systemctl", "stop", "hotlap.target", GATE)
    car.start()
    ready_us = int(car.show(GATE, "ActiveEnterTimestampMonotonic"))
    assert 0 < ready_us <= int(car.show(PILOT, "ExecMainStartTimestampMonotonic"))
    assert car.active(PILOT) and car.active("hotlap.target")


def check_it_drives_when_it_is_armed_and_only_then(driving: None) -> None:
    rows = car.throttle()
    first = next(number for number, row in enumerate(rows) if row.pulse_us != car.NEUTRAL_US)
    assert first >= 10 and all(row.cause.startswith("neutral:") for row in rows[:10])
    assert rows[0].cause == "neutral:start"


def check_stop_is_neutral_and_ends_everything(driving: None, facts: dict[str, Any]) -> None:
    def stop() -> float:
        if not car.moving():
            again()
        sent_s = car.send(GATE, TERM)
        took_s = car.neutral_after_s(sent_s)
        assert until(lambda: car.show(GATE, "ActiveState") == "inactive", car.PATIENCE_S), car.journal()
        assert car.show(GATE, "Result") == "success" and car.show(GATE, "ExecMainStatus") == "0"
        assert until(lambda: car.show(PILOT, "ActiveState") == "inactive", car.PATIENCE_S), car.journal()
        causes = [row.cause for row in car.throttle(sent_s) if row.pulse_us == car.NEUTRAL_US]
        assert causes[-1] == "neutral:stopped_service" and len(causes) >= 20, causes
        return took_s

    facts["neutral after SIGTERM to the gate"] = in_ms(car.in_time(0.1, stop))


def check_a_hung_gate_is_neutral_and_systemd_starts_another(driving: None, facts: dict[str, Any]) -> None:
    def hang() -> float:
        if not car.moving():
            again()
        pid = car.main_pid(GATE)
        sent_s = car.send(GATE, STOP)
        took_s = car.neutral_after_s(sent_s)
        assert car.throttle(sent_s + took_s)[0].cause == "neutral:guard_gate_silent"
        assert until(lambda: car.restarted(GATE, pid), car.PATIENCE_S), car.journal()
        assert "watchdog" in car.journal(GATE).lower()
        back_s = car.throttle()[-1].t_s - sent_s
        assert not car.armed()
        assert until(lambda: car.active(PILOT) and car.answers("pilot.request"), car.PATIENCE_S), car.journal()
        assert all(row.pulse_us == car.NEUTRAL_US for row in car.throttle(sent_s + took_s)), "it moved again"
        facts["hung gate replaced after"] = f"{back_s:.1f} s (WatchdogSec=1, RestartSec=2)"
        return took_s

    facts["neutral after SIGSTOP of the gate"] = in_ms(car.in_time(0.2, hang))


def check_a_killed_gate_is_neutral_and_systemd_starts_another(driving: None, facts: dict[str, Any]) -> None:
    def kill() -> float:
        if not car.moving():
            again()
        pid = car.main_pid(GATE)
        sent_s = car.send(GATE, KILL)
        took_s = car.neutral_after_s(sent_s)
        assert until(lambda: car.restarted(GATE, pid), car.PATIENCE_S), car.journal()
        causes = [row.cause for row in car.throttle(sent_s + took_s)]
        # The guard, which systemd must not kill at once; then ExecStopPost; then the new gate.
        assert causes.count("neutral:guard_gate_dead") >= 10, causes
        assert causes.count("neutral:stopped_service") >= 10, causes
        assert "neutral:start" in causes
        assert not car.armed()
        assert until(lambda: car.active(PILOT) and car.answers("pilot.request"), car.PATIENCE_S), car.journal()
        assert all(row.pulse_us == car.NEUTRAL_US for row in car.throttle(sent_s + took_s)), "it moved again"
        return took_s

    facts["neutral after SIGKILL of the gate"] = in_ms(car.in_time(0.2, kill))


def check_a_pilot_that_crashed_comes_back_and_nothing_is_armed(driving: None, facts: dict[str, Any]) -> None:
    def crash() -> float:
        if not car.moving():
            again()
        gate, pid = car.main_pid(GATE), car.main_pid(PILOT)
        sent_s = car.send(PILOT, KILL)
        took_s = car.neutral_after_s(sent_s)
        assert until(lambda: car.restarted(PILOT, pid) and car.answers("pilot.request"), car.PATIENCE_S), car.journal()
        back_s = car.throttle()[-1].t_s
        assert until(lambda: car.throttle()[-1].t_s > back_s + 2.0, car.PATIENCE_S)  # and stays so with good intents
        assert not car.armed() and car.main_pid(GATE) == gate
        assert all(row.pulse_us == car.NEUTRAL_US for row in car.throttle(sent_s + took_s)), "it moved again"
        return took_s

    facts["neutral after SIGKILL of the pilot"] = in_ms(car.in_time(0.2, crash))


def check_a_hung_pilot_is_neutral_and_systemd_starts_another(driving: None, facts: dict[str, Any]) -> None:
    pid = car.main_pid(PILOT)
    sent_s = car.send(PILOT, STOP)
    took_s = car.neutral_after_s(sent_s)
    assert until(lambda: car.restarted(PILOT, pid), car.PATIENCE_S), car.journal()
    assert "watchdog" in car.journal(PILOT).lower()
    assert not car.armed()
    assert all(row.pulse_us == car.NEUTRAL_US for row in car.throttle(sent_s + took_s)), "it moved again"
    facts["neutral after SIGSTOP of the pilot"] = in_ms([took_s])


def check_a_bad_car_toml_is_not_tried_again(installed: dict[str, Any]) -> None:
    good = car.CONFIG.read_text()
    car.shell("systemctl", "stop", "hotlap.target", GATE)
    try:
        car.CONFIG.write_text(good.replace("[drive]", "[drive]\nspeed_cap_prozent = 50\n"))
        car.shell("systemctl", "start", GATE, status=None)
        assert until(lambda: car.show(GATE, "ActiveState") == "failed", car.PATIENCE_S), car.journal()
        assert car.show(GATE, "ExecMainStatus") == "2"
        assert "speed_cap_percent" in car.journal(GATE), "the nearest key is named"
    finally:
        car.CONFIG.write_text(good)
        car.shell("systemctl", "reset-failed")


def page() -> str:
    """What the console answers, by its own certificate; the error where it does not."""
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen("https://127.0.0.1/", timeout=20, context=context) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
    except OSError as error:
        return repr(error)


def serves() -> bool:
    return "<html" in page()


def check_the_console_serves_its_page_and_comes_back(installed: dict[str, Any], facts: dict[str, Any]) -> None:
    if car.show(CONSOLE, "LoadState") != "loaded":
        pytest.skip("install-car.sh does not install hotlap-console.service")
    car.start()
    car.shell("systemctl", "start", CONSOLE)
    assert until(serves, car.PATIENCE_S), (page(), car.journal(CONSOLE))
    gate, pid = car.main_pid(GATE), car.main_pid(CONSOLE)
    car.send(CONSOLE, KILL)
    assert until(lambda: car.restarted(CONSOLE, pid), car.PATIENCE_S), car.journal(CONSOLE)
    assert until(serves, car.PATIENCE_S), (page(), car.journal(CONSOLE))
    assert car.main_pid(GATE) == gate and car.active(PILOT)
    pid = car.main_pid(CONSOLE)
    car.send(CONSOLE, STOP)
    assert until(lambda: car.restarted(CONSOLE, pid), car.PATIENCE_S), car.journal(CONSOLE)
    assert "watchdog" in car.journal(CONSOLE).lower()
