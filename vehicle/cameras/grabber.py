"""One thread that reads a camera, and its newest picture for whoever asks. Never a queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vehicle.cameras.base import Camera, Frame
from vehicle.cameras.faults import GONE, CameraFault, FrameJudge, fault_name
from vehicle.errors import CameraError, StaleFrame

THREAD_NAME = "hotlap-grabber"
READ_TIMEOUT_S = 0.5
_PAUSE_S = 0.005  # after a read without a picture, so that a back-end that does not wait cannot take the processor
_FPS_FRAMES = 31


class Grabber:
    """Owns a camera and the thread that reads it.

    A driver may block for as long as it likes: the reader's `newest` never waits for it, and says that the picture
    is stale as soon as it is.

    Args:
        open_camera: called once, in the thread, which is also what closes the camera.
        read_timeout_s: of one read; bounds how long `close` has to wait for a camera that keeps its timeouts.
    """

    def __init__(self, open_camera: Callable[[], Camera], *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._open_camera = open_camera
        self._read_timeout_s = read_timeout_s
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._fault: CameraFault | None = None
        self._died: CameraFault | None = None
        self._facts: dict[str, Any] = {}
        self._frames = 0
        self._faults = 0
        self._arrivals_s: deque[float] = deque(maxlen=_FPS_FRAMES)
        # A daemon: a thread that is stuck in a driver must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def newest(self, max_age_s: float, now_s: float) -> Frame:
        """The newest good picture.

        Args:
            max_age_s: the age that the reader accepts.
            now_s: the time of `time.monotonic`.

        Raises:
            StaleFrame: there is none yet, or it is older than that.
            CameraFault: the pictures that come now are frozen, blank or garbage, or the thread has ended; what it
                ended with is the cause of the error.
        """
        with self._changed:
            frame, fault = self._newest, self._died or self._fault
        if fault is not None:
            # A new error each time: one that is raised again and again would grow a traceback without end.
            raise CameraFault(fault.fault, fault.what, cause=fault.cause, next_step=fault.next_step) from fault
        if frame is None:
            raise StaleFrame(
                "the camera has given no picture yet",
                cause="it is still starting, or whatever feeds it does not run",
                next_step="hotlap doctor",
            )
        age_s = now_s - frame.stamp_s
        if age_s > max_age_s:
            raise StaleFrame(
                f"the newest picture is {age_s * 1e3:.0f} ms old (allowed: {max_age_s * 1e3:.0f} ms)",
                cause="the camera has stalled, or is slower than the control rate needs",
                next_step="hotlap status shows its rate; raise rate_hz in car.toml, or hotlap doctor",
            )
        return frame

    def wait_newer(self, seq: int, timeout_s: float) -> Frame | None:
        """The newest good picture once its number is above ``seq``; None where that takes longer than ``timeout_s``.

        Never raises: what is wrong, `newest` says.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None and self._newest.seq > seq, max(0.0, timeout_s))
            return self._newest if self._newest is not None and self._newest.seq > seq else None

    @property
    def dead(self) -> bool:
        """Whether the thread has ended by an error; a new grabber may be made then."""
        with self._changed:
            return self._died is not None

    def facts(self) -> dict[str, Any]:
        """What the camera said of itself when it was opened, with what is measured: ``fps``, ``frames``, ``faults``."""
        with self._changed:
            arrivals_s = list(self._arrivals_s)
            measured = {"fps": None, "frames": self._frames, "faults": self._faults}
            facts = {**self._facts, **measured}
        # A camera that has stopped has no rate any more.
        if len(arrivals_s) > 1 and time.monotonic() - arrivals_s[-1] < 1.0:
            facts["fps"] = round((len(arrivals_s) - 1) / max(arrivals_s[-1] - arrivals_s[0], 1e-6), 2)
        return facts

    def close(self, timeout_s: float = 1.0) -> bool:
        """End the thread and with it the camera. May be called twice.

        Returns:
            False where the thread is stuck in the driver. It is left alone: a device must not be closed under a read.
        """
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread

    def _run(self) -> None:
        camera: Camera | None = None
        try:
            camera = self._open_camera()
            facts = camera.facts()
            with self._changed:
                self._facts = facts
            self._grab(camera)
        except CameraError as error:
            self._die(CameraFault(fault_name(error), error.what, cause=error.cause, next_step=error.next_step), error)
        except Exception as error:  # noqa: BLE001 - the thread's outermost frame: the reader is told
            self._die(CameraFault(GONE, f"the camera failed: {type(error).__name__}: {error}"), error)
        finally:
            if camera is not None:
                camera.close()

    def _grab(self, camera: Camera) -> None:
        judge = FrameJudge()
        while not self._stop.is_set():
            try:
                frame = camera.read(self._read_timeout_s)
            except StaleFrame:
                self._stop.wait(_PAUSE_S)  # the reader sees the age of the newest picture for itself
                continue
            except CameraFault as fault:
                judge.blame(fault)
                good = False
                self._stop.wait(_PAUSE_S)
            else:
                good = judge.offer(frame, time.monotonic())
            with self._changed:
                self._frames += 1
                self._faults += judge.fault is not None
                self._fault = judge.fault
                self._arrivals_s.append(time.monotonic())
                if good:
                    self._newest = judge.newest
                    self._changed.notify_all()

    def _die(self, fault: CameraFault, error: Exception) -> None:
        fault.__cause__ = error
        with self._changed:
            self._died = fault
