"""Devices that fail on command, for fault injection: a camera and an actuator as another package would bring them.

`write_plugin` makes the metadata of such a package; with its folder on PYTHONPATH, unchanged gates and pilots find both
devices by the entry points, under the name `KIND`. They work until a file in the runtime folder says which fault to
have. Nothing heavy is imported here, since the gate does not import it either.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vehicle.actuators.none import NoActuator
from vehicle.car_config import ActuatorConfig, CameraConfig

if TYPE_CHECKING:
    from vehicle.cameras.base import Camera, Frame

KIND = "fault_bench"
HANG_S = 1.6  # longer than the gate waits for intents before it disarms
_POLL_S = 0.02


def write_plugin(folder: Path) -> Path:
    """Write the metadata of a package that brings both devices, as pip would; returns the folder for PYTHONPATH."""
    metadata = folder / "hotlap_fault_bench-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hotlap-fault-bench\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        f"[hotlap.actuators]\n{KIND} = vehicle.fault_devices:open_actuator\n\n"
        f"[hotlap.cameras]\n{KIND} = vehicle.fault_devices:open_camera\n"
    )
    return folder


class Fault:
    """A device's fault on command: a file in the runtime folder says which, another one when it first happened."""

    def __init__(self, runtime: Path, device: str) -> None:
        self._wanted, self._begun = runtime / f"{device}.fault", runtime / f"{device}.fault.begun"

    # --- in the bench

    def cause(self, word: str, timeout_s: float = 2.0) -> float:
        """Have this fault from now on, and wait until it has happened.

        Returns:
            the moment just before it did, of time.monotonic.

        Raises:
            TimeoutError: it did not: nobody uses the device.
        """
        self._begun.unlink(missing_ok=True)
        _write_whole(self._wanted, word)
        deadline_s = time.monotonic() + timeout_s
        while not self._begun.exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the fault {word!r} did not happen within {timeout_s:g} s")
            time.sleep(0.002)
        return float(self._begun.read_text())

    def clear(self) -> None:
        """Have none."""
        self._wanted.unlink(missing_ok=True)

    # --- in the device

    def word(self) -> str:
        """Which fault to have now; "" is none. To be asked before every read or write, since it notes the time."""
        try:
            word = self._wanted.read_text()
        except OSError:
            return ""
        if not self._begun.exists():
            _write_whole(self._begun, repr(time.monotonic()))
        return word

    def lasts(self, word: str) -> bool:
        """Whether that is still the fault to have."""
        return self._wanted.exists() and self._wanted.read_text() == word


def _write_whole(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def crash() -> None:
    """End this process as a driver's wild pointer does: no Python code of ours runs afterwards."""
    ctypes.string_at(0)


def hang_with_the_lock(seconds: float) -> None:
    """Keep Python's interpreter lock for so long, as a driver does that waits without letting go of it."""
    ctypes.PyDLL(None).usleep(ctypes.c_uint(round(seconds * 1e6)))


# --- the actuator


class FaultyActuator(NoActuator):
    """Writes nowhere; a recorder around it records only the pulses that it took.

    Args:
        role: all faults but ``bus`` are of the gate's own handle; the guard's goes on working.
    """

    def __init__(self, fault: Fault, role: str) -> None:
        self._fault, self._role = fault, role

    def write(self, steering_us: float, throttle_us: float, cause: str) -> None:
        """See `vehicle.actuators.base.Actuator.write`.

        Raises:
            OSError: ``bus``: EREMOTEIO, what a Linux I2C driver gives where the chip does not answer.
            RuntimeError, MemoryError, SystemExit: as the fault says, once.
        """
        word = self._fault.word()
        if word == "bus":
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
        if word and self._role == "gate":
            self._fail(word)
        super().write(steering_us, throttle_us, cause)

    def _fail(self, word: str) -> None:
        if word == "hang":
            while self._fault.lasts(word):
                time.sleep(_POLL_S)
        elif word == "crash":
            crash()
        elif word in _RAISED:
            self._fault.clear()  # once: what follows is how the gate ends
            raise _RAISED[word]("the fault that was asked for")

    def facts(self) -> dict[str, Any]:
        """As a PWM chip: it repeats its last pulse when its processes are dead."""
        return {"name": KIND, "fails_safe": False, "shared": True}


_RAISED: dict[str, Callable[[str], BaseException]] = {
    "runtime": RuntimeError, "memory": MemoryError, "exit": lambda _: SystemExit(0),
}  # fmt: skip


def open_actuator(config: ActuatorConfig, runtime: Path, role: str) -> FaultyActuator:
    """The entry point of the actuator."""
    return FaultyActuator(Fault(runtime, "actuator"), role)


# --- the camera


class FaultyCamera:
    """The `sim` camera, with faults that no picture on its socket can bring about: those of a driver."""

    def __init__(self, camera: Camera, fault: Fault) -> None:
        self._camera, self._fault = camera, fault

    def read(self, timeout_s: float) -> Frame:
        """See `vehicle.cameras.base.Camera.read`.

        Raises:
            CameraError: ``unplugged``.
            ZeroDivisionError: ``raise``: an error that a camera may not raise.
        """
        from vehicle.errors import CameraError

        word = self._fault.word()
        if word == "unplugged":
            raise CameraError("the camera does not answer", cause="its cable was pulled")
        if word == "raise":
            raise ZeroDivisionError("a fault of the driver")
        if word == "hang":
            while self._fault.lasts(word):
                time.sleep(_POLL_S)
        elif word == "hang_all":
            self._fault.clear()
            hang_with_the_lock(HANG_S)
        elif word == "crash":
            crash()
        return self._camera.read(timeout_s)

    def facts(self) -> dict[str, Any]:
        """Those of the `sim` camera."""
        return self._camera.facts()

    def close(self) -> None:
        """Disconnect."""
        self._camera.close()


def open_camera(config: CameraConfig, runtime: Path) -> FaultyCamera:
    """The entry point of the camera."""
    from vehicle.cameras.sim import SimCamera

    return FaultyCamera(SimCamera(runtime), Fault(runtime, "camera"))
