"""A car without hardware and without processes: the real gate core, fed by a made-up pilot, in one thread.

The pages are developed and tested against it, so what a lease, a hold and a step are is the gate's own.
"""

from __future__ import annotations

import hashlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration import store
from calibration.camera import CameraMeasurement, CameraPose
from calibration.car_link import CarRefused, Picture, Saliency
from calibration.mapping import Calibration
from vehicle.car_config import CarConfig
from vehicle.car_file import CarFile
from vehicle.config import parse_toml
from vehicle.gate_core import Facts, GateCore, Limits, Mode
from vehicle.messages import Intent

sys.path.append(str(Path(__file__).parents[1] / "calibration"))  # this runs as a script, not as a part of tests
from board_picture import board_picture  # noqa: E402

TICK_S = 0.02
INTENT_TICKS = 5
ROWS, COLUMNS = 120, 160
MODEL_MAX_MPS = 2.0
CONTRACT = {
    "action": {
        "kind": "discrete", "size": 10, "steering_min_deg": -30.0, "steering_max_deg": 30.0,
        "speed_min_mps": 0.8, "speed_max_mps": MODEL_MAX_MPS,
    },
    "control_period_s": 0.1,
    "camera": {"horizontal_fov_deg": 64.7, "pitch_down_deg": 15.0, "height_m": 0.127},
    "trained_on": {"tracks": "first_oval", "seconds": 90, "seed": 1},
}  # fmt: skip
CAR_TOML = """# The car. Every key that is not here has its default.
name = "Car 7"

[camera]
kind = "http"
source = "http://teacher:secret@192.168.4.2/stream"
width = 640
height = 480
rate_hz = 15.0
rotate_180 = false
horizontal_fov_deg = 64.7
pitch_down_deg = 15.0
height_m = 0.127

[actuator]
kind = "pca9685"

[drive]
speed_cap_percent = 50.0
"""
REPORT = {"p50_ms": 1.84, "p99_ms": 2.61, "golden_difference": 3e-7, "runs": 100, "processor": "Cortex-A72"}


def sha256_of(name: str) -> str:
    """The hash of a made-up model."""
    return hashlib.sha256(name.encode()).hexdigest()


class FakeCar:
    """Gate core, pilot and models. `pilot`, `seen`, `trial` and `name` may be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "calibration.json"
        self.lock = threading.RLock()
        self.trace: deque[tuple[float, float | None, float | None, bool]] = deque(maxlen=20000)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-car")
        self.begin()

    def begin(self, *, calibrated: bool = True, **limits: float) -> None:
        """Everything as on the first day. `limits` are the gate's; by default it bears with a thread that is
        late on a busy machine, and a lease lasts long, so that what ends one in a test is what the page does."""
        with self.lock:
            for path in (self.path, *self.path.with_name(f"{self.path.name}.history").glob("*.json")):
                path.unlink(missing_ok=True)
            if calibrated:
                store.save_calibration(self.path, Calibration())
            self._neutral_us = Calibration().throttle.neutral_us
            self.core = GateCore(
                Calibration() if calibrated else None, Limits(**{"lease_s": 2.0, "gap_s": 1.0, **limits})
            )
            self.seen = Facts(
                guard_alive=True, undervoltage=False, battery_fraction=0.82, temperature_c=51.0,
                disk_free_bytes=9_400_000_000,
            )  # fmt: skip
            self.name = "Car 7"
            car_toml = self.path.with_name("car.toml")
            car_toml.write_text(CAR_TOML)
            car_toml.with_name("car.toml.before").unlink(missing_ok=True)
            config = parse_toml(CAR_TOML, CarConfig, where="car.toml")
            self.file = CarFile(car_toml, config, self.path / "elsewhere", self.ask)
            self.simulated: dict[str, Any] | None = None  # what a world would report
            self.pilot = self.board = True
            self.camera: CameraPose | None = None
            self.model, self.trial = sha256_of("oval"), False
            self.installed = {
                sha256_of(name): {"name": name, "installed": i, "size_bytes": 1_130_000 + 40_000 * i, "barred": ""}
                for i, name in enumerate(("reinvent-2018", "oval", "bad-one"))
            }
            self.installed[sha256_of("bad-one")]["barred"] = "the car crashed twice while it was on trial"
            self.previous = sha256_of("reinvent-2018")
            self._seq = 0
            self._looked = False
            self.steering_deg = self.speed_mps = 0.0
            self.trace.clear()

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def close(self) -> None:
        """Stop ticking."""
        self._ending.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        due_s = time.monotonic()
        ticks = 0
        while not self._ending.is_set():
            with self.lock:
                now_s = time.monotonic()
                if self.pilot and ticks % INTENT_TICKS == 0:
                    self._intend(now_s)
                output = self.core.tick(now_s, self.seen)
                self.trace.append((now_s, output.steering_us, output.throttle_us, self._moving(output.throttle_us)))
            ticks += 1
            due_s = max(due_s + TICK_S, time.monotonic() - TICK_S)
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _moving(self, throttle_us: float | None) -> bool:
        return throttle_us is not None and throttle_us != self._neutral_us

    def _intend(self, now_s: float) -> None:
        self.core.request({"op": "model", "sha256": self.model, "trial": self.trial}, now_s)
        self._seq += 1
        self.steering_deg = round(22.0 * math.sin(self._seq / 9.0), 1)
        self.speed_mps = 1.4 if abs(self.steering_deg) < 12.0 else 0.9
        intent = Intent(
            source="pilot", seq=self._seq, stamp_s=now_s, frame_seq=self._seq, frame_stamp_s=now_s - 0.02,
            steering_deg=self.steering_deg, speed_mps=self.speed_mps, model_max_mps=MODEL_MAX_MPS, inference_ms=1.9,
            model=self.model,
        )  # fmt: skip
        self.core.intent(intent, now_s)

    # --- what the console asks for: calibration.car_link.CarLink

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """One request to the gate core."""
        with self.lock:
            answer = self.core.request(dict(request), time.monotonic())
        if answer["ok"]:
            return answer
        blocked = answer["blocked"]
        raise CarRefused(
            answer["reason"], answer["what"], cause=answer["cause"], next_step=answer["next"], blocked=blocked
        )

    def state(self) -> dict[str, Any]:
        """Mode, blocked reasons and figures."""
        with self.lock:
            gate = self.core.state(time.monotonic())
        pilot = {
            "fps": 15.0,
            "interval_ms": {"p50": 100.0, "p99": 104.1, "max": 109.9, "late": 0, "missed": 0},
            "inference_ms": {"p50": 1.9, "p99": 3.2, "max": 6.4},
        }
        return {
            **gate,
            "frame_to_pulse_ms": {"p50": 26.4, "p99": 41.0, "max": 48.7} if self.pilot else None,
            "interval_ms": {"p50": 20.0, "p99": 20.3, "max": 21.9},
            "late": 3,
            "missed": 0,
            "load": 0.61,
            "uptime_s": 3725.0,
            "pilot": pilot if self.pilot else None,
            "action": {"steering_deg": self.steering_deg, "speed_mps": self.speed_mps} if self.pilot else None,
            "simulated": self.simulated,
            "name": self.name,
            "console_version": "0.1.0",
        }

    def picture(self, after_seq: int, timeout_s: float) -> Picture | None:
        """The newest picture."""
        deadline_s = time.monotonic() + timeout_s
        while self._seq == after_seq:
            if time.monotonic() > deadline_s:
                return None
            time.sleep(0.02)
        seq = self._seq
        return Picture(seq, time.monotonic(), ROWS, COLUMNS, road(seq).tobytes(), self.steering_deg, self.speed_mps)

    def whole_picture(self) -> Picture:
        """A sheet on the floor, at another place each time; `board` is False where somebody has taken it away."""
        self._refuse_while_armed()
        self._seq += 1
        places = ((0.36, 0.0, 0.0), (0.40, 0.05, 20.0), (0.38, -0.04, -15.0))
        ahead_m, left_m, yaw_deg = places[self._seq % 3]
        if self.board:
            gray = board_picture(ahead_m=ahead_m, left_m=left_m, yaw_deg=yaw_deg, seed=self._seq)
        else:
            gray = np.kron(road(self._seq), np.ones((4, 4), np.uint8))
        return Picture(self._seq, time.monotonic(), *gray.shape, gray.tobytes())

    def measured_camera(self) -> CameraPose | None:
        """What was saved."""
        return self.camera

    def save_camera(self, measurement: CameraMeasurement) -> None:
        """Keep it until the car is set up anew."""
        self._refuse_while_armed()
        self.camera = measurement.pose

    def saliency(self) -> Saliency | None:
        """A map that lights at the end of the road; the first one takes a moment."""
        if not self.pilot:
            raise CarRefused("no_picture", "there is no picture to look at", next_step="look at the Health page")
        with self.lock:
            seq = self._seq // 10 * 10  # one a second and not more
            wanted, self._looked = self._looked, True
        if not wanted:
            return None
        rows, columns = 15, 20
        y, x = np.mgrid[:rows, :columns]
        change = 0.6 * np.exp(-((y - 6) ** 2 + (x - 9.5 + 6.0 * math.sin(seq / 9.0)) ** 2) / 6.0)
        steering = tuple(-30.0 + 60.0 * i / 4 for i in range(5) for _ in range(2))
        weight = np.exp(-((np.array(steering) - self.steering_deg) ** 2) / 150.0) * np.tile([1.0, 0.4], 5)
        share = weight / weight.sum()
        actions = tuple((steering[i], 0.9 + 0.5 * (i % 2), float(share[i])) for i in range(10))
        chosen = int(share.argmax())
        return Saliency(
            Picture(seq, time.monotonic(), ROWS, COLUMNS, road(seq).tobytes(), *actions[chosen][:2]),
            rows, columns, tuple(np.round(change, 4).ravel().tolist()), *actions[chosen][:2], chosen, actions, 0.21,
        )  # fmt: skip

    def models(self) -> dict[str, Any]:
        """The models, the last one installed first."""
        with self.lock:
            roles = {self.previous: "previous", self.model: "trial" if self.trial else "current"}
            rows = [
                {"sha256": sha256, "role": roles.get(sha256, ""), "report": REPORT, "contract": CONTRACT, **model}
                for sha256, model in sorted(self.installed.items(), key=lambda item: -item[1]["installed"])
            ]
            return {"models": rows, **self._roles()}

    def _roles(self) -> dict[str, Any]:
        return {
            "current": self.model,
            "previous": self.previous,
            "trial": {"sha256": self.model, "failures": 0} if self.trial else None,
            "barred": {sha256: model["barred"] for sha256, model in self.installed.items() if model["barred"]},
            "notice": None,
        }

    def install(self, bundle: Path, name: str) -> dict[str, Any]:
        """Take a file in, whatever is in it, but for one that says of itself that it is too slow."""
        content = bundle.read_bytes()
        if content.startswith(b"too slow"):
            raise CarRefused(
                "too_slow",
                "One picture takes this model 92 ms here; 50 ms are allowed.",
                cause="its network is too large for this car's computer",
                next_step="train with a smaller network",
            )
        sha256 = hashlib.sha256(content).hexdigest()
        with self.lock:
            self.installed[sha256] = {"name": name, "installed": 9, "size_bytes": len(content), "barred": ""}
        return {"sha256": sha256, "new": True, "name": name, "report": REPORT}

    def activate(self, sha256: str) -> dict[str, Any]:
        """Choose a model."""
        self._refuse_while_armed()
        self.previous, self.model, self.trial = self.model, sha256, True
        return {"sha256": sha256, **self._roles(), "loaded": self.pilot, "pilot": "the pilot does not run"}

    def rollback(self) -> dict[str, Any]:
        """Back to the one before."""
        self._refuse_while_armed()
        self.model, self.previous, self.trial = self.previous, self.model, False
        return {**self._roles(), "loaded": True, "pilot": "loaded"}

    def remove(self, sha256: str) -> dict[str, Any]:
        """Delete a model."""
        with self.lock:
            del self.installed[sha256]
        return {"sha256": sha256, **self._roles()}

    def allow(self, sha256: str) -> dict[str, Any]:
        """Let a model in again."""
        self.installed[sha256]["barred"] = ""
        return {"sha256": sha256, **self._roles()}

    def calibration(self) -> Calibration | None:
        """The one in force."""
        return store.load_calibration(self.path) if self.path.exists() else None

    def calibration_history(self) -> tuple[store.SavedCalibration, ...]:
        """The saved ones."""
        return store.history(self.path)

    def save_calibration(self, calibration: Calibration) -> None:
        """Save, and tell the gate."""
        self._refuse_while_armed()
        store.save_calibration(self.path, calibration)
        self._reload_calibration()

    def undo_calibration(self) -> Calibration:
        """The one before."""
        self._refuse_while_armed()
        calibration = store.undo(self.path)
        self._reload_calibration()
        return calibration

    def restore_calibration(self, revision: int) -> Calibration:
        """One of the history."""
        self._refuse_while_armed()
        calibration = store.restore(self.path, revision)
        self._reload_calibration()
        return calibration

    def _reload_calibration(self) -> None:
        calibration = store.load_calibration(self.path)
        with self.lock:
            self.core.set_calibration(calibration)
            self._neutral_us = calibration.throttle.neutral_us

    def _refuse_while_armed(self) -> None:
        mode = self.core.mode
        if mode is not Mode.DISARMED:
            cause = "this changes only while the car cannot move"
            raise CarRefused("not_disarmed", f"the gate is {mode.value}", cause=cause, next_step="end driving first")

    def logs(self, lines: int) -> list[str]:
        """A log of little news."""
        return [f"{9.9 - i / 7:9.1f} s ago  state    disarmed (blocked: disarmed) {i}" for i in range(60)][-lines:]

    def health(self) -> dict[str, Any]:
        """Checks, one of them not so good."""
        rows = [
            ("gate", "ok", "running", ""),
            ("camera", "ok", "31 ms old", ""),
            ("calibration", "ok", "there", ""),
            ("log", "warn", "not written", "free some disk"),
        ]
        return {"checks": [dict(zip(("name", "status", "value", "cure"), row, strict=True)) for row in rows]}

    def facts(self) -> dict[str, Any]:
        """For the Settings page."""
        config = parse_toml(CAR_TOML, CarConfig, where="car.toml")
        return {
            "name": self.name,
            "version": "0.1.0",
            "addresses": ["192.168.4.17"],
            "ssid": "Classroom",
            "signal_dbm": -57,
            "camera": {k: v for k, v in asdict(config.camera).items() if k != "source"},
            "actuator": config.actuator.kind,
            "car_toml": self.file.facts(),
        }

    def change_car_file(self, text: str, sha256: str) -> None:
        """The car's own."""
        self.file.change(text, sha256)

    def undo_car_file(self) -> None:
        """The car's own."""
        self.file.undo()

    def rename(self, name: str) -> None:
        """Another name."""
        self.name = name


def road(seq: int) -> npt.NDArray[np.uint8]:
    """What the camera sees: a track that bends as the pilot steers, and noise."""
    noise = np.random.default_rng(seq).integers(0, 12, (ROWS, COLUMNS))
    gray = np.full((ROWS, COLUMNS), 150, np.uint8)
    horizon, near = ROWS // 3, ROWS - 1
    gray[:horizon] = 205
    for y in range(horizon, ROWS):
        depth = (near - y) / (near - horizon)
        middle = COLUMNS / 2 - 55.0 * depth * depth * math.sin(seq / 9.0)
        half = 78.0 * (1.0 - 0.82 * depth)
        gray[y, max(0, int(middle - half)) : max(0, int(middle + half))] = 70
        for side in (-1, 1):
            line = int(middle + side * half)
            gray[y, max(0, line - 2) : max(0, line + 2)] = 235
        if (y + 3 * seq) % 20 < 10:
            gray[y, max(0, int(middle) - 1) : max(0, int(middle) + 2)] = 200
    return np.clip(gray + noise, 0, 255).astype(np.uint8)
