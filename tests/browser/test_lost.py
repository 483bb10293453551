"""A real browser that is killed, cut off or asleep while it holds the controls: neutral, from the gate's own pulses."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser.rig import CHROMIUM, Chromium
from tests.vehicle.console_car import ConsoleCar, Https
from tests.vehicle.cut import Wifi
from tests.vehicle.gate_process import NEUTRAL_US, until

pytestmark = pytest.mark.slow

LIMIT_S = 0.300
COMMANDS = {
    "manual": {"path": "/api/v1/manual", "body": {"steering": 0.0, "throttle": 0.8}},
    "calibration": {"path": "/api/v1/pulse", "body": {"throttle_us": NEUTRAL_US - 20.0}},
}
# The pages' own way of holding the controls, ten times a second.
HOLD = """async ([kind, command]) => {
  const { Lease } = await import("/static/lease.js");
  window.lost = "";
  await new Lease(kind, { next: () => command, lost: (error) => { window.lost = error.reason; } }).take();
}"""


class Lost:
    """A car, a Wi-Fi, and a browser of its own that is logged in."""

    def __init__(self, chromium: Chromium, folder: Path) -> None:
        self.car = ConsoleCar(folder)
        self.wifi = Wifi(self.car.port)
        self.last_command_s = 0.0
        self._ask = self.car.console.link.ask
        self.car.console.link.ask = self._seen  # type: ignore[method-assign]
        before = _processes()
        self.browser = chromium._playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = self.browser.new_context(ignore_https_errors=True)
        with contextlib.closing(Https(self.car.port)) as other:
            other.log_in(self.car.password)
        url = f"https://127.0.0.1:{self.wifi.port}"
        context.add_cookies([{"name": k, "value": v, "url": url} for k, v in other.cookies.items()])
        self.tab = context.new_page()
        self.tab.goto(f"{url}/health")  # a page that holds nothing by itself
        self.processes = [one for one in _processes() if one not in before]

    def _seen(self, request: Mapping[str, object]) -> dict[str, Any]:
        answer = self._ask(request)
        if request.get("op") in ("manual", "pulse", "renew"):
            self.last_command_s = time.monotonic()
        return answer

    def drive(self, mode: str) -> None:
        """The wheels turn, and go on turning while this browser lives."""
        for _ in range(5):
            assert until(lambda: not {"esc_neutral", "guard"} & self.car.gate.reasons())
            with contextlib.suppress(Exception):  # too slow for a lease of 0.25 s, on a machine under load
                self.tab.evaluate(HOLD, [mode, COMMANDS[mode]])
            if until(self._moving, 3.0):
                return
        raise AssertionError("this machine is too slow to drive by hand")

    def _moving(self) -> bool:
        """For half a second, without a gap."""
        return len(self.car.gate.moving_after(time.monotonic() - 0.5)) >= 22

    def signal(self, number: int, kind: str = "") -> None:
        """To every process of this browser whose command line fits."""
        for one in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if re.search(kind, " ".join(one.cmdline())):
                    os.kill(one.pid, number)

    def neutral(self) -> None:
        """Within the limit of the last command that came through; and for a second afterwards."""
        assert until(lambda: time.monotonic() - self.last_command_s > 1.5), "commands still come"
        last_s = self.last_command_s
        neutral = self.car.gate.neutral_after(last_s, 50)
        assert neutral[0].t_s - last_s <= LIMIT_S
        assert self.car.gate.moving_after(neutral[0].t_s) == []
        status = self.car.gate.status()
        assert (status["mode"], status["fault"]["name"]) == ("disarmed", "lease_lost")

    def still(self) -> None:
        """And whatever comes late moves nothing."""
        since_s = time.monotonic()
        assert until(lambda: time.monotonic() - since_s > 1.0)
        assert self.car.gate.neutral_after(since_s, 20) and self.car.gate.moving_after(since_s) == []

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        self.wifi.close()
        with contextlib.suppress(Exception):  # it may have been killed
            self.browser.close()
        self.car.close()


def _processes() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.name().startswith("chrom")]


@pytest.fixture
def lost(chromium: Chromium) -> Iterator[Lost]:
    with tempfile.TemporaryDirectory(prefix="hl", ignore_cleanup_errors=True) as name:
        made = Lost(chromium, Path(name))
        yield made
        made.close()


@pytest.mark.parametrize("mode", COMMANDS)
@pytest.mark.parametrize("how", ("tab killed", "browser killed", "Wi-Fi cut", "phone asleep"))
def test_a_browser_that_is_lost_is_neutral_within_300_ms(lost: Lost, how: str, mode: str) -> None:
    lost.drive(mode)
    if how == "Wi-Fi cut":
        lost.wifi.cut()
        lost.neutral()
        lost.wifi.heal()  # what was on its way comes late
        lost.still()
    elif how == "phone asleep":
        lost.signal(signal.SIGSTOP)
        lost.neutral()
        lost.signal(signal.SIGCONT)
        lost.still()
        lost.tab.wait_for_function("window.lost !== ''")  # and its page has noticed
    else:
        lost.signal(signal.SIGKILL, "type=renderer" if how == "tab killed" else "")
        lost.neutral()
