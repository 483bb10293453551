"""The pilot's decisions: when to look, which picture to act on, and whether what comes out may be sent.

Pure: no camera, no clock, no sockets; time is an argument. A picture that is too old, or an output that is no action,
gives no intent and a named fault. Nothing is ever repeated: the gate sees the silence.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from vehicle.cameras.base import Frame
from vehicle.cameras.faults import fault_name
from vehicle.errors import CameraError, HotlapError
from vehicle.gate_clock import ranks
from vehicle.messages import PILOT, Alive, Intent
from vehicle.policy import PolicyOutputError

# 10 ms under the gate's own limit (vehicle.arming.Limits), so that it is the pilot that names the fault.
MAX_FRAME_AGE_S = 0.150
LATE_S = 0.010  # a tick later than this is counted as late
OUTPUT = "output"  # NaN, infinite or out of range
INFERENCE = "inference"  # the graph cannot be run
SLOW = "slow"  # the picture was too old by the time the action was known
_KEPT = 3000  # figures: 5 minutes at 10 Hz
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Model:
    """What the pilot drives with. Speed and steering are the greatest of the action space."""

    sha256: str
    trial: bool
    max_speed_mps: float
    max_steering_deg: float


@dataclass(frozen=True)
class Fault:
    """Why there is no intent now: a short name, stable for programs, and what was seen."""

    name: str
    what: str


class Schedule:
    """Absolute deadlines at a fixed rate. A tick that comes late does not move the next one; missed ones are skipped.

    Args:
        every_frame: a new picture is due at once; the rate is then how long to wait for one before looking anyway.
    """

    def __init__(self, rate_hz: float, every_frame: bool, start_s: float) -> None:
        self.period_s = 1.0 / rate_hz
        self._every_frame = every_frame
        self._next_s = start_s
        self.late = self.missed = 0

    def wait_s(self, now_s: float) -> float:
        """How long nothing is due, unless a picture comes."""
        return max(0.0, self._next_s - now_s)

    def due(self, now_s: float, new_picture: bool) -> bool:
        """Whether to tick now; if so the next deadline is set."""
        if self._every_frame and new_picture:
            self._next_s = now_s + self.period_s
            return True
        behind_s = now_s - self._next_s
        if behind_s < 0.0:
            return False
        if self._every_frame:
            self._next_s = now_s + self.period_s
            return True
        skipped = int(behind_s // self.period_s)
        self.missed += skipped
        self.late += behind_s > LATE_S
        self._next_s += (skipped + 1) * self.period_s
        return True


class Figures:
    """The newest few thousand of a measured time."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_KEPT)

    def add(self, value: float) -> None:
        """Take one in, in milliseconds."""
        self._values.append(value)

    def summary(self) -> dict[str, float | None]:
        """Median, 99th percentile (the nearest that occurred, upwards) and greatest, in milliseconds; None at first."""
        found = ranks(self._values)
        if found is None:
            return {"p50": None, "p99": None, "max": None}
        return {name: round(value, 4) for name, value in found.items()}


class PilotCore:
    """One pilot's stream of intents.

    Attributes:
        fault: why there is no intent now, or None.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.fault: Fault | None = Fault("starting", "no picture has been looked at yet")
        self.faults: Counter[str] = Counter()
        self.intents = 0
        self._seq = 0
        self._tick_s: float | None = None
        self.interval_ms, self.inference_ms, self.frame_age_ms = Figures(), Figures(), Figures()

    def take_model(self, model: Model) -> None:
        """Drive with another model from the next tick on; the sequence of intents goes on."""
        self.model = model
        self.inference_ms = Figures()

    def begin_tick(self, now_s: float, found: Frame | CameraError) -> Frame | None:
        """A tick with the newest picture, or with why there is none. Returns the picture to act on."""
        if self._tick_s is not None:
            self.interval_ms.add(1e3 * (now_s - self._tick_s))
        self._tick_s = now_s
        if isinstance(found, CameraError):
            self._fail(fault_name(found), found.what)
            return None
        age_s = now_s - found.stamp_s
        self.frame_age_ms.add(1e3 * age_s)
        if not age_s <= MAX_FRAME_AGE_S:
            self._fail("stale", f"the picture is {age_s * 1e3:.0f} ms old")
            return None
        return found

    def end_tick(
        self, frame: Frame, output: tuple[float, float] | HotlapError, inference_ms: float, now_s: float
    ) -> Intent | None:
        """The intent to send, made of the policy's steering (deg) and speed (m/s); None where none may be.

        Args:
            output: or what was raised instead of it.
            now_s: after the inference.
        """
        if isinstance(output, HotlapError):
            self._fail(OUTPUT if isinstance(output, PolicyOutputError) else INFERENCE, output.what)
            return None
        steering_deg, speed_mps = output
        self.inference_ms.add(inference_ms)
        if not (
            abs(steering_deg) <= self.model.max_steering_deg + _TOLERANCE
            and 0.0 <= speed_mps <= self.model.max_speed_mps + _TOLERANCE
        ):  # NaN is not within anything
            self._fail(OUTPUT, f"the policy asks for {steering_deg} degrees and {speed_mps} m/s")
            return None
        age_s = now_s - frame.stamp_s
        if not age_s <= MAX_FRAME_AGE_S:
            self._fail(SLOW, f"the picture is {age_s * 1e3:.0f} ms old now that the action is known")
            return None
        self.fault = None
        self._seq += 1
        self.intents += 1
        return Intent(
            source=PILOT,
            seq=self._seq,
            stamp_s=now_s,
            frame_seq=frame.seq,
            frame_stamp_s=frame.stamp_s,
            steering_deg=steering_deg,
            speed_mps=min(speed_mps, self.model.max_speed_mps),
            model_max_mps=self.model.max_speed_mps,
            inference_ms=inference_ms,
            model=self.model.sha256,
        )

    @staticmethod
    def alive(frame: Frame, now_s: float) -> Alive:
        """The sign of life for a good picture that came between ticks."""
        return Alive(PILOT, now_s, frame.seq, frame.stamp_s)

    def _fail(self, name: str, what: str) -> None:
        self.fault = Fault(name, what)
        self.faults[name] += 1

    def status(self) -> dict[str, Any]:
        """What is measured and wrong, for ``hotlap status``."""
        return {
            "model": self.model.sha256,
            "trial": self.model.trial,
            "inference_ms": self.inference_ms.summary(),
            "interval_ms": self.interval_ms.summary(),
            "frame_age_ms": self.frame_age_ms.summary(),
            "intents": self.intents,
            "fault": None if self.fault is None else self.fault.name,
            "fault_text": None if self.fault is None else self.fault.what,
            "faults": dict(self.faults),
        }


class Proof:
    """Whether a model on trial has proved healthy: it has driven the armed car for a while without a fault.

    Args:
        needed_s: how long, in all; a fault of the model itself begins the count anew.
    """

    def __init__(self, needed_s: float = 10.0) -> None:
        self._left_s = self._needed_s = needed_s
        self._last_s: float | None = None

    def tick(self, now_s: float, driving: bool, fault: Fault | None) -> bool:
        """True once it is proved.

        Args:
            driving: the gate is in autonomous mode.
        """
        if fault is not None and fault.name in (OUTPUT, INFERENCE, SLOW):
            self._left_s = self._needed_s
        if driving and fault is None and self._last_s is not None:
            self._left_s -= min(now_s - self._last_s, 1.0)
        self._last_s = now_s if driving and fault is None else None
        return self._left_s <= 0.0
