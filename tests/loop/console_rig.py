"""`hotlap drive --console` and somebody who sits before its page in a browser; not a test itself.

The person knows only what the page says. Where the wheels of a real car would be looked at, the page tells what those
of the simulated one do.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.rig import PHONE, Chromium, Page
from tests.vehicle.drive_rig import HOTLAP, PARTS, ROOT, Car
from tests.vehicle.gate_process import until
from vehicle.drive import Seen, WorldFacts
from vehicle.links import request

PRINTED = re.compile(r"^drive: console: (https://\S+?)(?:, password (\S+))?$", re.MULTILINE)
WHEELS = re.compile(
    r"point (?:straight ahead|(?P<deg>[\d.]+)° to the (?P<side>left|right)); "
    r"the wheels (?:stand still|turn (?P<way>forwards|backwards) at (?P<mps>[\d.]+) m/s)"
)
US_A_DEG = 8.0
STARTED_S = 180.0  # on a busy machine; on an idle one it takes about five
GRASPS = 8  # of the controls, which a busy machine may lose, and trials of a model, for which it may be too slow


class Laptop:
    """The processes of one drive.

    Attributes:
        url, password: as they were printed; a password only the first time.
    """

    def __init__(self, car: Car, *words: object) -> None:
        self.car = car
        self._printed, self._result = car.folder / "drive.err", car.folder / "drive.out"
        command = [*HOTLAP, "drive", "--config", str(car.config), "--console", "--json", *map(str, words)]
        with self._printed.open("w") as err, self._result.open("w") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT, env=car.environment
            )
        try:
            assert until(lambda: PRINTED.search(self.printed) or self.process.poll() is not None, STARTED_S)
            found = PRINTED.search(self.printed)
            assert found is not None, (self.printed, car.logs())
            self.url, self.password = found[1], found[2]
            self._facts = WorldFacts(car.runtime)
        except BaseException:
            self.process.kill()
            self.process.wait(10.0)
            raise

    @property
    def printed(self) -> str:
        """All of stderr so far."""
        return self._printed.read_text()

    @property
    def mode(self) -> str:
        """The gate's mode."""
        return str(request(self.car.runtime, "gate.request", {"op": "status"}, timeout_s=5.0)["mode"])

    @property
    def seen(self) -> Seen:
        """What a marshal beside the track has seen."""
        return self._facts.update()

    def end(self) -> dict[str, Any]:
        """Ctrl-C, and what it prints then."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60.0) in (0, 1), self.printed
        found: dict[str, Any] = json.loads(self._result.read_text())
        return found

    def close(self) -> None:
        """Nothing of it is left."""
        self._facts.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10.0)
        assert until(lambda: not self.car.pids(*PARTS, "vehicle.console"), 20.0), self.car.pids()


class Person:
    """Whoever uses the page of this laptop, with a phone.

    Args:
        name: of the pictures that are kept.
    """

    def __init__(self, laptop: Laptop, browser: Chromium, name: str) -> None:
        self.laptop, self.name = laptop, name
        self.page = Page(browser, laptop)  # type: ignore[arg-type]  # of the backend it needs the address and the mode
        self.page.size(*PHONE)
        self._pictures = 0

    def keep(self, what: str) -> None:
        """A picture of what is seen now."""
        self._pictures += 1
        self.page.picture(f"{self.name}-{self._pictures:02}-{what}")

    def log_in(self, password: str) -> None:
        """From the printed address to the Drive page."""
        self.page.go("/")
        self.keep("login")
        self.page.log_in(password)
        self.page.wait(lambda: self.page.all("#start"), "logged in", 60.0)

    def upload(self, bundle: Path) -> None:
        """Put a model on the car, and have it drive; again where a busy machine was too slow for the trial."""
        page = self.page
        page.go("/models")
        page.settle()
        for _ in range(GRASPS):
            page.by("file").set_input_files(bundle)
            page.press("send")
            page.wait(lambda: page.by("progress-box").is_visible(), "progress")
            page.wait(
                lambda: "has taken the model" in page.text("progress-text") or page.text("upload-errors"),
                "the car's verdict",
                240.0,
            )
            if not page.text("upload-errors"):
                break
        else:
            raise AssertionError(page.text("upload-errors"))
        page.wait(lambda: "On trial" in page.css("#models > li").inner_text(), "it is active", 30.0)
        self.keep("model")

    # --- driving

    def start(self) -> None:
        """Arm and drive."""
        page = self.page
        page.go("/")
        page.wait(lambda: page.by("start").is_enabled(), page.text("blocked"), 60.0)
        page.press("start")
        page.wait(lambda: self.laptop.mode == "autonomous", page.text("errors"), 30.0)

    def finish(self) -> None:
        """End driving."""
        if self.laptop.mode == "autonomous":
            self.page.press("finish")
        self.page.mode("disarmed")

    # --- calibrating

    def wheels(self) -> tuple[float, float]:
        """Steering in degrees (+ is left) and speed of the wheels in m/s (+ is forwards), as the page tells."""
        return self.page.wait(lambda: self.go_on() or self.told(), "the page tells of the wheels", 60.0)

    def told(self) -> tuple[float, float] | None:
        """The same, if it is told just now."""
        found = WHEELS.search(self.page.text("simulated"))
        if found is None:
            return None
        deg = float(found["deg"] or 0.0) * (-1.0 if found["side"] == "right" else 1.0)
        return deg, float(found["mps"] or 0.0) * (-1.0 if found["way"] == "backwards" else 1.0)

    @property
    def lost(self) -> bool:
        """Whether the car has taken the controls back: the connection was slow for a moment, says the page."""
        return bool(self.page.by("lost").is_visible())

    def go_on(self) -> None:
        """Take them again then."""
        if self.lost and self.page.by("again").is_enabled():
            self.page.by("again").click()

    def settled_deg(self) -> float:
        """Where the wheels point once they have come to rest."""
        found = [self.wheels()[0]]

        def rests() -> bool:
            self.page.tab.wait_for_timeout(400.0)
            found.append(self.wheels()[0])
            return found[-3:] == [found[-1]] * 3

        self.page.wait(rests, "the wheels come to rest", 60.0)
        return found[-1]

    def grasp(self, selector: str) -> Any:
        """The control that fits, once it moves something; where the car took the controls back, on again."""
        control = self.page.css(selector)

        def live() -> bool:
            self.go_on()
            return control.is_visible() and control.is_enabled()

        self.page.wait(live, f"{selector} moves something", 60.0)
        return control

    def tap(self, selector: str) -> None:
        """Click what fits, again where the car took the controls back between look and click."""
        from playwright.sync_api import TimeoutError as TooSlow

        for _ in range(GRASPS):
            with contextlib.suppress(TooSlow):
                return self.grasp(selector).click(timeout=3000.0)
        raise AssertionError(f"{selector} cannot be clicked")

    def steer(self, name: str, wanted_deg: float) -> None:
        """Move the slider until the wheels point there."""
        for _ in range(20):
            slider = self.grasp(f"#steer-{name}")
            deg = self.settled_deg()
            if abs(deg - wanted_deg) <= 0.2:
                return
            by = round(US_A_DEG * (deg - wanted_deg))  # to the right
            slider.evaluate(
                "(one, by) => { one.value = Number(one.value) + by; one.dispatchEvent(new Event('input')); }", by
            )
        raise AssertionError(f"the wheels do not come to {wanted_deg} degrees: {self.wheels()}")

    def calibrate_steering(self) -> None:
        """The guided steps, to new values in the table."""
        page = self.page
        page.press("begin-steering")
        page.press("next")
        self.grasp("#steer-center")
        before_deg = self.settled_deg()
        nudge = '[data-nudge="steer-center"][data-by="10"]'
        for _ in range(3):
            self.tap(nudge)
        if self.settled_deg() > before_deg:  # more to the right by the slider is more to the left by the wheels
            self.keep("the-other-way")
            page.press("mirror")
        self.steer("center", 0.0)
        self.keep("straight-ahead")
        page.press("next")
        for name, sign in (("left", 1.0), ("right", -1.0)):
            self.grasp(f"#steer-{name}")
            self.steer(name, sign * 20.0)  # the end may have been beyond where the wheels go: back from it, then out
            self.steer(name, sign * 29.9)
            self.keep(f"full-{name}")
            page.press("next")
        page.press("next")  # 30 degrees
        page.mode("disarmed")

    def hold(self, name: str, enough: Callable[[float], bool]) -> float:
        """Hold the button until the wheels turn so; the speed that they had."""
        for _ in range(GRASPS):
            button = self.grasp(f"[data-hold={name}]")
            self.page.show(button).hover()
            self.page.tab.mouse.down()
            try:
                found = self.page.wait(lambda: self.lost or self.fast(enough), f"{name}: the wheels turn so", 60.0)
            finally:
                self.page.tab.mouse.up()  # first of all: the pulse goes on as long as it is held
            if found is not True:
                self.keep(f"motor-{name}")
                return float(found)
        raise AssertionError("the car takes the controls back again and again")

    def fast(self, enough: Callable[[float], bool]) -> float | None:
        """The speed of the wheels, if it is told and is enough."""
        told = self.told()
        return told[1] if told is not None and enough(told[1]) else None

    def calibrate_motor(self) -> None:
        """The guided steps, to new values in the table."""
        page = self.page
        page.press("begin-throttle")
        page.press("raised")
        page.press("next")
        way = "forward" if self.hold("first", lambda mps: mps != 0.0) > 0.0 else "reverse"
        page.press(f"input[value={way}]")
        page.press("next")
        self.hold("second", lambda mps: mps != 0.0)
        page.press("next")
        self.hold("forward", lambda mps: mps >= 1.0)
        page.press("next")
        self.hold("reverse", lambda mps: mps <= -0.4)
        page.press("next")
        page.mode("disarmed")

    def save(self) -> None:
        """Put the new values in force."""
        page = self.page
        page.wait(lambda: page.by("save").is_enabled(), page.text("checks"), 30.0)
        page.show(page.by("save"))
        self.keep("new-values")
        page.press("save")
        page.wait(lambda: "Saved" in page.text("saved"), page.text("errors"), 30.0)

    def calibrate(self) -> None:
        """All of it."""
        self.page.go("/calibrate")
        self.page.wait(lambda: self.page.by("begin-steering").is_enabled(), "the calibration is shown", 30.0)
        self.calibrate_steering()
        self.calibrate_motor()
        self.save()
